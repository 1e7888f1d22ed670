"""Writes strategies.json beside this file: optimisers, federated strategies, robust means, half-precision contributions and schedules, as
inputs and results that Python and Rust must share bit for bit.

Run it only when the arithmetic is changed on purpose (then what changed needs a new name): python tests/golden/make_strategies.py
Checked by tests/test_strategies.py and by crates/train/tests/train/strategies.rs. Bytes are hexadecimal; floats are the 16 digits of their bits.
"""

import json
import struct
from pathlib import Path

import numpy as np

from raftgrid import _aggregate, _frame
from raftgrid.optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM

F32, F64 = np.float32, np.float64
LAYOUT = {"w1": (F32, (3, 4)), "b1": (F32, (4,)), "scale": (F32, ()), "none": (F32, (0, 2)), "wide": (F64, (2, 2)), "ä": (F64, ())}


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def settings(optimizer) -> dict:
    """The message's fields, without the message: the stubs may be older than the fields."""
    found = {"algorithm": type(optimizer).__name__.lower(), "nesterov": bool(getattr(optimizer, "nesterov", False))}
    names = {"learning_rate": "lr", "momentum": "momentum", "weight_decay": "weight_decay", "beta1": "beta1", "beta2": "beta2"}
    for field, name in names.items():
        found[field] = bits(getattr(optimizer, name, 1.0 if field == "learning_rate" else 0.0))
    found["epsilon"] = bits(getattr(optimizer, "eps", getattr(optimizer, "tau", 0.0)))
    return found


def tensors(rng: np.random.Generator, layout: dict, scale: float) -> dict:
    return {name: np.asarray(rng.standard_normal(shape) * scale, dtype=dtype) for name, (dtype, shape) in layout.items()}


def optimizer_case(name: str, optimizer, rounds: int, seed: int, weights=(3.0, 1 / 3), scale: float = 0.3) -> dict:
    rng = np.random.default_rng(seed)
    model, state = _frame.to_bytes(tensors(rng, LAYOUT, 1.0)), None
    steps = []
    for number in range(rounds):
        contributions = [(weight, _frame.to_bytes(tensors(rng, LAYOUT, scale))) for weight in weights]
        model_next, state_next = _aggregate.aggregate(model, state, contributions, optimizer)
        steps.append(
            {
                "round": number,
                "model": model.hex(),
                "state": None if state is None else state.hex(),
                "contributions": [{"weight": bits(weight), "file": data.hex()} for weight, data in contributions],
                "model_next": model_next.hex(),
                "state_next": state_next.hex(),
            }
        )
        model, state = model_next, state_next
    return {"name": name, "optimizer": settings(optimizer), "rounds": steps}


def optimizer_cases() -> list:
    return [
        optimizer_case("adam", Adam(0.01), 3, 11),
        optimizer_case("adam, decay, other betas", Adam(0.1, 0.0, 0.5, 1e-3, 0.1), 3, 12),
        optimizer_case("adam, tiny gradients", Adam(1e-3), 2, 13, scale=1e-21),
        optimizer_case("adamw", AdamW(0.02, weight_decay=0.05), 3, 14),
        optimizer_case("adamw without decay", AdamW(0.02, weight_decay=0.0), 2, 15),
        optimizer_case("fedavg", FedAvg(), 2, 16),
        optimizer_case("fedavgm", FedAvgM(0.8, 0.7), 3, 17),
        optimizer_case("fedadam", FedAdam(0.05), 3, 18),
        optimizer_case("diloco", DiLoCo(), 3, 19),
        optimizer_case("sgd", SGD(0.1, 0.9, True, 0.01), 2, 20),
    ]


def main() -> None:
    golden = {"optimizers": optimizer_cases()}
    path = Path(__file__).with_name("strategies.json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
