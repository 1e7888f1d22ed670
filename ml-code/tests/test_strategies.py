"""Optimisers and strategies: against the vectors that Rust is held to as well, and against references in float64 that were written apart."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from raftgrid import _aggregate, _frame
from raftgrid._server_step import power, server_step
from raftgrid.optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM

GOLDEN = json.loads((Path(__file__).parent / "golden" / "strategies.json").read_text(encoding="utf-8"))


def from_bits(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]


def optimizer_of(message):
    n = {name: value if isinstance(value, bool) else from_bits(value) for name, value in message.items() if name != "algorithm"}
    moments = (n["learning_rate"], n["beta1"], n["beta2"], n["epsilon"])
    return {
        "sgd": lambda: SGD(n["learning_rate"], n["momentum"], n["nesterov"], n["weight_decay"]),
        "adam": lambda: Adam(*moments, n["weight_decay"]),
        "adamw": lambda: AdamW(*moments, n["weight_decay"]),
        "fedavg": lambda: FedAvg(),
        "fedavgm": lambda: FedAvgM(n["learning_rate"], n["momentum"]),
        "fedadam": lambda: FedAdam(*moments),
        "diloco": lambda: DiLoCo(n["learning_rate"], n["momentum"]),
    }[message["algorithm"]]()


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["optimizers"]])
def test_optimisers_give_the_golden_bytes(case):
    optimizer = optimizer_of(case["optimizer"])
    for step in case["rounds"]:
        contributions = [(from_bits(c["weight"]), bytes.fromhex(c["file"])) for c in step["contributions"]]
        state = None if step["state"] is None else bytes.fromhex(step["state"])
        model_next, state_next = _aggregate.aggregate(bytes.fromhex(step["model"]), state, contributions, optimizer)
        assert model_next.hex() == step["model_next"]
        assert state_next.hex() == step["state_next"]


def reference(optimizer, p, gradients):
    """The papers' formulas in float64 (longdouble's pow would do as well), with no code of the package."""
    m, v, p = np.zeros_like(p), np.zeros_like(p), p.copy()
    if isinstance(optimizer, FedAdam):
        v += optimizer.tau**2
    for t, g in enumerate(gradients, start=1):
        o = optimizer
        if isinstance(o, (Adam, AdamW)):
            if isinstance(o, Adam):
                g = g + o.weight_decay * p
            m = o.beta1 * m + (1 - o.beta1) * g
            v = o.beta2 * v + (1 - o.beta2) * g**2
            m_hat, v_hat = m / (1 - o.beta1**t), v / (1 - o.beta2**t)
            decay = o.lr * o.weight_decay * p if isinstance(o, AdamW) else 0.0
            p = p - decay - o.lr * m_hat / (np.sqrt(v_hat) + o.eps)
        elif isinstance(o, FedAdam):
            m = o.beta1 * m + (1 - o.beta1) * -g  # the paper's delta is client minus server
            v = o.beta2 * v + (1 - o.beta2) * g**2
            p = p + o.lr * m / (np.sqrt(v) + o.tau)
        elif isinstance(o, FedAvg):
            p = p - g
        elif isinstance(o, FedAvgM):
            m = o.momentum * m + g
            p = p - o.lr * m
        elif isinstance(o, DiLoCo):
            m = o.momentum * m + g
            p = p - o.lr * (g + o.momentum * m)
    return p


OPTIMISERS = [
    Adam(0.01),
    Adam(0.1, 0.0, 0.5, 1e-3, 0.2),
    AdamW(0.02, weight_decay=0.3),
    FedAvg(),
    FedAvgM(0.8, 0.7),
    FedAdam(0.05),
    DiLoCo(),
]


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=lambda o: f"{type(o).__name__} {o}"[:30])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_optimisers_are_those_of_the_papers(optimizer, dtype, tolerance):
    rng = np.random.default_rng(5)
    for shape in [(), (1,), (7, 3), (2, 600)]:
        start = np.asarray(rng.standard_normal(shape), dtype=dtype)
        gradients = [np.asarray(rng.standard_normal(shape) * 0.3, dtype=dtype) for _ in range(6)]
        params, state = {"x": start}, {}
        for gradient in gradients:
            params, state = server_step(optimizer, params, {"x": gradient}, state)
        expected = reference(optimizer, start.astype(np.float64), [g.astype(np.float64) for g in gradients])
        assert params["x"].dtype == dtype and params["x"].shape == shape
        np.testing.assert_allclose(params["x"], expected, rtol=tolerance, atol=tolerance)


def test_fedavg_over_deltas_is_the_weighted_mean_of_the_models():
    rng = np.random.default_rng(6)
    before = rng.standard_normal((4, 5))
    clients = [rng.standard_normal((4, 5)) for _ in range(3)]
    weights = [1.0, 5.0, 2.0]
    mean = _aggregate.weighted_mean((w, {"x": before - client}) for w, client in zip(weights, clients))
    after, state = server_step(FedAvg(), {"x": before}, mean, {})
    np.testing.assert_allclose(after["x"], np.average(clients, axis=0, weights=weights), rtol=1e-12)
    assert state == {}


def test_powers_are_near_and_settings_are_checked():
    for base in (0.0, 0.5, 0.9, 0.999, 0.99999):
        for exponent in (0, 1, 2, 3, 10, 1000, 123456):
            assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-10)
    for make, word in [
        (lambda: Adam(0.0), "lr"),
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Adam(beta2=0.0), "beta2"),
        (lambda: Adam(beta2=1 - 1e-12), "beta2"),
        (lambda: AdamW(eps=0.0), "eps"),
        (lambda: AdamW(weight_decay=-1.0), "weight_decay"),
        (lambda: FedAdam(tau=float("nan")), "tau"),
        (lambda: FedAvgM(momentum=0.0), "momentum"),
        (lambda: DiLoCo(lr=float("inf")), "lr"),
    ]:
        with pytest.raises(ValueError, match=word):
            make()


def test_files_of_the_state_are_canonical():
    for case in GOLDEN["optimizers"]:
        data = bytes.fromhex(case["rounds"][-1]["state_next"])
        assert _frame.to_bytes(_frame.from_bytes(data)) == data
