"""Writes aggregate.json beside this file: inputs and results of the arithmetic that Python and Rust must share bit for bit.

Run it only when the arithmetic is changed on purpose (and then ALGORITHM_ID changes too): python tests/golden/make.py
Checked by tests/test_golden.py and by crates/train/tests/golden.rs. Bytes are hexadecimal; floats are the 16 digits of their bits.
"""

import json
import struct
from pathlib import Path

import numpy as np

from raftgrid import SGD, _aggregate, _frame, shard_seed

F32, F64 = np.float32, np.float64


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def tensors(rng: np.random.Generator, layout: dict, scale: float) -> dict:
    return {name: np.asarray(rng.standard_normal(shape) * scale, dtype=dtype) for name, (dtype, shape) in layout.items()}


def case(name: str, layout: dict, weights: list, sgd: SGD, rounds: int, seed: int, spoil=None) -> dict:
    rng = np.random.default_rng(seed)
    model, state = _frame.to_bytes(tensors(rng, layout, 1.0)), None
    steps = []
    for _ in range(rounds):
        grads = [tensors(rng, layout, 0.3) for _ in weights]
        if spoil is not None:
            spoil(grads)
        contributions = [(weight, _frame.to_bytes(grad)) for weight, grad in zip(weights, grads)]
        mean = _aggregate.weighted_mean((weight, _frame.from_bytes(data)) for weight, data in contributions)
        model_next, state_next = _aggregate.aggregate(model, state, contributions, sgd)
        steps.append(
            {
                "model": model.hex(),
                "state": None if state is None else state.hex(),
                "contributions": [{"weight": bits(weight), "file": data.hex()} for weight, data in contributions],
                "mean": _frame.to_bytes(mean).hex(),
                "model_next": model_next.hex(),
                "state_next": state_next.hex(),
            }
        )
        model, state = model_next, state_next
    optimizer = {
        "learning_rate": bits(sgd.lr),
        "momentum": bits(sgd.momentum),
        "nesterov": sgd.nesterov,
        "weight_decay": bits(sgd.weight_decay),
    }
    return {"name": name, "optimizer": optimizer, "rounds": steps}


def edges(grads: list) -> None:
    """Signed zeros, subnormals, cancellation and values near the end of the range."""
    column = [
        [-0.0, 1e-45, 1e30, 1.0, 16777216.0, 3e-39],
        [-0.0, 1e-45, -1e30, 1e-8, 1.0, -1e-39],
        [0.0, -1e-45, 1e22, -1.0, 1.0, 1e-38],
    ]
    for grad, values in zip(grads, column):
        grad["w"] = np.array(values, dtype=F32)


def main() -> None:
    mlp = {"w1": (F32, (3, 4)), "b1": (F32, (4,)), "scale": (F32, ()), "none": (F32, (0, 2)), "Gewicht-ä": (F32, (2,))}
    mixed = {"a": (F32, (3,)), "b": (F64, (2, 2)), "z": (F64, (1,)), "k": (F32, (2,))}
    cases = [
        case("momentum", mlp, [240.0, 239.0, 241.0, 1.0, 240.0, 240.0], SGD(0.5, 0.9), 3, 1),
        case("nesterov, decay, odd weights", mlp, [1 / 3, 0.1, 0.7], SGD(0.1, 0.7, True, 0.01), 2, 2),
        case("plain, one shard, weight 0 counts as 1", mlp, [0.0], SGD(0.01), 2, 3),
        case("two dtypes", mixed, [0.7, 2.0], SGD(0.3, 0.5, False, 0.001), 2, 4),
        case("edges", {"w": (F32, (6,))}, [1.0, 1.0, 3.0], SGD(1.0), 1, 5, edges),
    ]
    metrics = [
        (240.0, '{"accuracy":0.0765,"loss":2.4705,"n":240}'),
        (0.0, '{"loss":1e-07,"ok":true,"text":"x","none":null,"list":[1]}'),
        (1 / 3, '{"loss":12345678901234567890,"accuracy":0.1234567890123456789}'),
        (5.0, "no object"),
        (2.0, "[1,2]"),
    ]
    golden = {
        "algorithm_id": _aggregate.ALGORITHM_ID,
        "cases": cases,
        "metrics": {
            "contributions": [{"weight": bits(weight), "json": text} for weight, text in metrics],
            "means": {name: bits(value) for name, value in _aggregate.mean_metrics(metrics).items()},
        },
        "seeds": [
            {"job_seed": str(job), "round": str(number), "shard": shard, "seed": str(shard_seed(job, number, shard))}
            for job, number, shard in [(0, 0, 0), (7, 59, 5), (2**64 - 1, 2**40, 2**32 - 1)]
        ],
    }
    path = Path(__file__).with_name("aggregate.json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
