"""Writes strategies.json beside this file: optimisers, federated strategies, robust means, half-precision contributions and schedules, as
inputs and results that Python and Rust must share bit for bit.

Run it only when the arithmetic is changed on purpose (then what changed needs a new name): python tests/golden/make_strategies.py
Checked by tests/test_strategies.py and by crates/train/tests/train/strategies.rs. Bytes are hexadecimal; floats are the 16 digits of their bits.
"""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np

from raftgrid import _aggregate, _contribution, _frame, _round
from raftgrid._combine import Combine, combine
from raftgrid.optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM
from raftgrid.schedule import Constant, Cosine, StepDecay

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


def combine_case(name: str, rule: Combine, layout: dict, shards: int, seed: int, spoil=None) -> dict:
    rng = np.random.default_rng(seed)
    frames = [tensors(rng, layout, 1.0) for _ in range(shards)]
    if spoil is not None:
        spoil(frames)
    weights = [1.0 + index / 3 for index in range(shards)]
    files = [_frame.to_bytes(frame) for frame in frames]
    combined = combine(rule, [(weight, _frame.from_bytes(data)) for weight, data in zip(weights, files)])
    return {
        "name": name,
        "combine": message(rule),
        "contributions": [{"weight": bits(weight), "file": data.hex()} for weight, data in zip(weights, files)],
        "norms": [bits(_contribution.l2_norm(_frame.from_bytes(data))) for data in files],
        "combined": _frame.to_bytes(combined).hex(),
    }


def message(settings) -> dict:
    """Fields of a dataclass: floats as bits, whole numbers as text."""
    found = dataclasses.asdict(settings)
    return {name: bits(value) if isinstance(value, float) else str(value) for name, value in found.items()}


def signed_zeros(frames: list) -> None:
    column = [-0.0, 0.0, -0.0, 1e-45, -1e-45, 0.0, -0.0, 3e38]
    for frame, value in zip(frames, column):
        frame["w1"][0, 0] = value
        frame["b1"][:] = [value, -0.0, 3e38, -1.0]


def combine_cases() -> list:
    odd = {"w": (F32, (37, 5)), "v": (F64, (3,)), "s": (F32, ())}
    large = {"w": (F32, (4200,)), "v": (F64, (700,))}
    return [
        combine_case("trimmed mean of 8", Combine("trimmed_mean", 0.25), LAYOUT, 8, 31, signed_zeros),
        combine_case("trimmed mean of 5, one at each end", Combine("trimmed_mean", 0.39), odd, 5, 32),
        combine_case("trimmed mean, nothing trimmed", Combine("trimmed_mean", 0.1), odd, 3, 33),
        combine_case("trimmed mean of 1", Combine("trimmed_mean", 0.49), LAYOUT, 1, 34),
        combine_case("trimmed mean of 29: 0.29 * 100 is below 29", Combine("trimmed_mean", 0.29), {"w": (F32, (2,))}, 100, 35),
        combine_case("median of 7", Combine("median"), odd, 7, 36),
        combine_case("median of 8", Combine("median"), LAYOUT, 8, 37, signed_zeros),
        combine_case("median of 2", Combine("median"), LAYOUT, 2, 38),
        combine_case("clipped mean", Combine("mean", 0.0, 4.5), LAYOUT, 6, 39),
        combine_case("clipped mean over blocks of the tree", Combine("mean", 0.0, 68.0), large, 2, 40),
        combine_case("clipped median", Combine("median", 0.0, 0.5), odd, 3, 41),
    ]


def schedule_cases() -> list:
    rounds = [0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 19, 20, 49, 50, 51, 73, 99, 100, 101, 10**6, 2**63]
    schedules = [
        Constant(),
        Constant(7),
        Cosine(100),
        Cosine(97, 0.1, 3),
        Cosine(1000003, 0.01, 10),
        StepDecay(10, 0.5),
        StepDecay(3, 0.9, 5),
    ]
    found = []
    for schedule in schedules:
        kind = {"Constant": "constant", "Cosine": "cosine", "StepDecay": "step"}[type(schedule).__name__]
        factors = [{"round": str(number), "factor": bits(schedule.factor(number))} for number in rounds]
        found.append({"schedule": {"kind": kind, **message(schedule)}, "factors": factors})
    # Every argument that a cosine of 1,000 rounds has, as one digest.
    every = hashlib.sha256(b"".join(struct.pack(">d", Cosine(1000).factor(number)) for number in range(1000)))
    return found + [{"cosine_1000_sha256": every.hexdigest()}]


def encoding_digests() -> dict:
    """All finite values of 16 bits, in order of their bits, as float32."""
    codes = np.arange(65536, dtype=np.uint16)
    halves = codes.view(np.float16)
    halves = halves[np.isfinite(halves)].astype("<f4")
    brains = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    brains = brains[np.isfinite(brains)].astype("<f4")
    return {"f16_sha256": hashlib.sha256(halves.tobytes()).hexdigest(), "bf16_sha256": hashlib.sha256(brains.tobytes()).hexdigest()}


def round_case(name: str, dtype: str, per_row: bool, optimizer, schedule, rule: Combine, seed: int) -> dict:
    """Two rounds by a whole rule, with contributions in a smaller dtype."""
    rng = np.random.default_rng(seed)
    model, state = _frame.to_bytes(tensors(rng, LAYOUT, 1.0)), None
    kind = {"Constant": "constant", "Cosine": "cosine", "StepDecay": "step"}[type(schedule).__name__]
    steps = []
    for number in (4, 5):
        files = [_contribution.encode(tensors(rng, LAYOUT, 0.3), dtype, per_row) for _ in range(4)]
        decoded = [_contribution.decode(_frame.from_bytes(model), data) for data in files]
        contributions = [(0.5 + index, data) for index, data in enumerate(files)]
        model_next, state_next = _round.next_model(model, state, contributions, optimizer, schedule, rule, number)
        steps.append(
            {
                "round": str(number),
                "model": model.hex(),
                "state": None if state is None else state.hex(),
                "contributions": [{"weight": bits(weight), "file": data.hex()} for weight, data in contributions],
                "decoded": [_frame.to_bytes(frame).hex() for frame in decoded],
                "model_next": model_next.hex(),
                "state_next": state_next.hex(),
            }
        )
        model, state = model_next, state_next
    return {
        "name": name,
        "optimizer": settings(optimizer),
        "schedule": {"kind": kind, **message(schedule)},
        "combine": message(rule),
        "rounds": steps,
    }


def round_cases() -> list:
    return [
        round_case("f16, adam, cosine", "F16", False, Adam(0.1), Cosine(20, 0.1, 2), Combine(), 51),
        round_case("bf16, diloco, warm-up, median", "BF16", False, DiLoCo(), Constant(10), Combine("median"), 52),
        round_case("i8, sgd, steps, clipped", "I8", False, SGD(0.5, 0.9), StepDecay(2, 0.5), Combine(clip_norm=1.0), 53),
        round_case("i8 by rows, fedadam, trimmed", "I8", True, FedAdam(), Constant(), Combine("trimmed_mean", 0.25), 54),
        round_case("rate 0", "F16", False, AdamW(), Cosine(3), Combine(), 55),
    ]


def main() -> None:
    golden = {
        "optimizers": optimizer_cases(),
        "combines": combine_cases(),
        "schedules": schedule_cases(),
        "encodings": encoding_digests(),
        "rounds": round_cases(),
    }
    path = Path(__file__).with_name("strategies.json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
