"""The arithmetic against the vectors that Rust is held to as well (crates/train/tests/golden.rs), and against a scalar loop."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from raftgrid import SGD, _aggregate, _frame, shard_seed

GOLDEN = json.loads((Path(__file__).parent / "golden" / "aggregate.json").read_text(encoding="utf-8"))


def from_bits(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]


def f32(value):
    """The nearest float32, as a Python float."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def steps():
    return [pytest.param(c["optimizer"], s, id=f"{c['name']} {i}") for c in GOLDEN["cases"] for i, s in enumerate(c["rounds"])]


@pytest.mark.parametrize("optimizer, step", steps())
def test_aggregation_gives_the_golden_bytes(optimizer, step):
    sgd = SGD(
        from_bits(optimizer["learning_rate"]),
        from_bits(optimizer["momentum"]),
        optimizer["nesterov"],
        from_bits(optimizer["weight_decay"]),
    )
    contributions = [(from_bits(c["weight"]), bytes.fromhex(c["file"])) for c in step["contributions"]]
    state = None if step["state"] is None else bytes.fromhex(step["state"])
    mean = _aggregate.weighted_mean((w, _frame.from_bytes(data)) for w, data in contributions)
    assert _frame.to_bytes(mean).hex() == step["mean"]
    model_next, state_next = _aggregate.aggregate(bytes.fromhex(step["model"]), state, contributions, sgd)
    assert model_next.hex() == step["model_next"]
    assert state_next.hex() == step["state_next"]


@pytest.mark.parametrize("optimizer, step", steps())
def test_the_mean_is_the_scalar_loop_in_shard_order(optimizer, step):
    contributions = [
        (from_bits(c["weight"]) or 1.0, _frame.from_bytes(bytes.fromhex(c["file"]))) for c in step["contributions"]
    ]
    weight_sum = 0.0
    for weight, _ in contributions:
        weight_sum += weight
    expected = _frame.from_bytes(bytes.fromhex(step["mean"]))
    for name, array in expected.items():
        narrow = f32 if array.dtype == np.float32 else float
        for index, found in enumerate(array.ravel().tolist()):
            total = 0.0
            for weight, grads in contributions:
                total = narrow(total + narrow(weight * float(grads[name].ravel()[index])))
            assert struct.pack("<d", narrow(total / weight_sum)) == struct.pack("<d", found), (name, index)


def test_golden_files_are_canonical():
    files = [step[key] for case in GOLDEN["cases"] for step in case["rounds"] for key in ("model", "mean", "model_next", "state_next")]
    assert len(files) >= 10
    for text in files:
        data = bytes.fromhex(text)
        assert _frame.to_bytes(_frame.from_bytes(data)) == data


def test_order_of_shards_matters_so_that_the_fixed_order_is_needed():
    step = GOLDEN["cases"][0]["rounds"][0]
    contributions = [(from_bits(c["weight"]), _frame.from_bytes(bytes.fromhex(c["file"]))) for c in step["contributions"]]
    backwards = _aggregate.weighted_mean(reversed(contributions))
    assert _frame.to_bytes(backwards).hex() != step["mean"]


def test_metrics_and_seeds():
    metrics = GOLDEN["metrics"]
    means = _aggregate.mean_metrics([(from_bits(c["weight"]), c["json"]) for c in metrics["contributions"]])
    assert {name: struct.pack(">d", value).hex() for name, value in means.items()} == metrics["means"]
    assert set(means) == {"accuracy", "loss", "n"}
    for line in GOLDEN["seeds"]:
        seed = shard_seed(int(line["job_seed"]), int(line["round"]), line["shard"])
        assert str(seed) == line["seed"] and 0 <= seed < 2**63
    assert GOLDEN["algorithm_id"] == _aggregate.ALGORITHM_ID
