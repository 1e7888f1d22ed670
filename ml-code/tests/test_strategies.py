"""Optimisers and strategies: against the vectors that Rust is held to as well, and against references in float64 that were written apart."""

import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from raftgrid import _aggregate, _contribution, _frame, _round
from raftgrid._combine import Combine, combine
from raftgrid._cos import cos
from raftgrid._server_step import power, server_step
from raftgrid.optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM
from raftgrid.schedule import Constant, Cosine, StepDecay

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


def combine_of(message):
    return Combine(message["strategy"], from_bits(message["trim_fraction"]), from_bits(message["clip_norm"]))


def schedule_of(message):
    warmup = int(message["warmup_rounds"])
    return {
        "constant": lambda: Constant(warmup),
        "cosine": lambda: Cosine(int(message["decay_rounds"]), from_bits(message["final_factor"]), warmup),
        "step": lambda: StepDecay(int(message["step_rounds"]), from_bits(message["step_factor"]), warmup),
    }[message["kind"]]()


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["combines"]])
def test_combinations_give_the_golden_bytes(case):
    contributions = [(from_bits(c["weight"]), _frame.from_bytes(bytes.fromhex(c["file"]))) for c in case["contributions"]]
    assert _frame.to_bytes(combine(combine_of(case["combine"]), contributions)).hex() == case["combined"]


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["combines"]])
def test_combinations_are_those_of_a_reference(case):
    rule = combine_of(case["combine"])
    contributions = [(from_bits(c["weight"]), _frame.from_bytes(bytes.fromhex(c["file"]))) for c in case["contributions"]]
    factors = []
    for (_, frame), norm in zip(contributions, case["norms"]):
        exact = math.sqrt(math.fsum(float(x) ** 2 for array in frame.values() for x in array.ravel()))
        assert from_bits(norm) == pytest.approx(exact, rel=1e-12)
        factors.append(min(1.0, rule.clip_norm / exact) if rule.clip_norm else 1.0)
    for name, found in _frame.from_bytes(bytes.fromhex(case["combined"])).items():
        rows = np.stack([frame[name].astype(np.float64) * factor for (_, frame), factor in zip(contributions, factors)])
        if rule.strategy == "mean":
            expected = np.average(rows, axis=0, weights=[weight for weight, _ in contributions])
        elif rule.strategy == "median":
            expected = np.median(rows, axis=0)
        else:
            trim = int(rule.trim_fraction * len(rows))
            expected = np.sort(rows, axis=0)[trim : len(rows) - trim].mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6 if found.dtype == np.float32 else 1e-12, atol=1e-7)


def test_one_outlier_moves_neither_median_nor_trimmed_mean_far():
    rng = np.random.default_rng(8)
    honest = [{"x": rng.standard_normal(50).astype(np.float32)} for _ in range(6)]
    low, high = (f(np.stack([c["x"] for c in honest]), axis=0) for f in (np.min, np.max))
    for rule in (Combine("median"), Combine("trimmed_mean", 0.2)):
        for wrong in (1e30, -1e30):
            all_of_them = [(1.0, c) for c in honest] + [(1e9, {"x": np.full(50, wrong, dtype=np.float32)})]
            found = combine(rule, all_of_them)["x"]
            assert ((low <= found) & (found <= high)).all()


def test_schedules_give_the_golden_factors_and_those_of_the_formula():
    *cases, every = GOLDEN["schedules"]
    for case in cases:
        schedule = schedule_of(case["schedule"])
        for line in case["factors"]:
            round, found = int(line["round"]), from_bits(line["factor"])
            assert struct.pack(">d", schedule.factor(round)).hex() == line["factor"]
            after = round - schedule.warmup_rounds
            if after < 0:
                expected = (round + 1) / schedule.warmup_rounds
            elif isinstance(schedule, Cosine):
                f, t = schedule.final_factor, min(after / schedule.decay_rounds, 1.0)
                expected = f + (1 - f) * (1 + math.cos(math.pi * t)) / 2
            else:
                expected = schedule.step_factor ** (after // schedule.step_rounds) if isinstance(schedule, StepDecay) else 1.0
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)
    factors = b"".join(struct.pack(">d", Cosine(1000).factor(number)) for number in range(1000))
    assert hashlib.sha256(factors).hexdigest() == every["cosine_1000_sha256"]


def test_the_cosine_is_within_one_unit_in_the_last_place():
    for i in range(20001):
        x = math.pi * (i / 20000)
        assert abs(cos(x) - math.cos(x)) <= max(math.ulp(math.cos(x)), 5e-324) if hasattr(math, "ulp") else 1e-15


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["rounds"]])
def test_whole_rounds_give_the_golden_bytes(case):
    optimizer, schedule = optimizer_of(case["optimizer"]), schedule_of(case["schedule"])
    for step in case["rounds"]:
        contributions = [(from_bits(c["weight"]), bytes.fromhex(c["file"])) for c in step["contributions"]]
        model, state = bytes.fromhex(step["model"]), None if step["state"] is None else bytes.fromhex(step["state"])
        decoded = [_contribution.decode(_frame.from_bytes(model), data) for _, data in contributions]
        assert [_frame.to_bytes(frame).hex() for frame in decoded] == step["decoded"]
        rule, number = combine_of(case["combine"]), int(step["round"])
        found = _round.next_model(model, state, contributions, optimizer, schedule, rule, number)
        assert [data.hex() for data in found] == [step["model_next"], step["state_next"]]


@pytest.mark.parametrize("dtype, per_row, bound", [("F16", False, 2**-11), ("BF16", False, 2**-8), ("I8", False, 1 / 254), ("I8", True, 1 / 254)])
def test_encoding_and_back_is_near(dtype, per_row, bound):
    rng = np.random.default_rng(9)
    params = {"w": rng.standard_normal((6, 9)).astype(np.float32), "s": np.asarray(0.5, dtype=np.float32), "d": rng.standard_normal(3)}
    params["w"][3] *= 1e-3
    params["w"][4] = 0.0
    found = _contribution.decode(params, _contribution.encode(params, dtype, per_row))
    assert (found["d"] == params["d"]).all() and (found["w"][4] == 0.0).all()
    for row, expected in zip(found["w"], params["w"]):
        largest = np.abs(expected if per_row or dtype != "I8" else params["w"]).max()
        assert np.abs(row - expected).max() <= bound * 1.0001 * largest


def test_schedules_and_combinations_are_checked():
    for make, word in [
        (lambda: Cosine(0), "decay_rounds"),
        (lambda: Cosine(1, 1.5), "final_factor"),
        (lambda: StepDecay(0), "step_rounds"),
        (lambda: StepDecay(1, 0.0), "step_factor"),
        (lambda: Constant(-1), "warmup_rounds"),
        (lambda: Combine("mode"), "strategy"),
        (lambda: Combine("trimmed_mean", 0.5), "trim_fraction"),
        (lambda: Combine("mean", 0.1), "trim_fraction"),
        (lambda: Combine(clip_norm=float("inf")), "clip_norm"),
        (lambda: _round.scheduled(FedAvg(), Constant(), 0), "schedule"),
    ]:
        with pytest.raises(ValueError, match=word):
            make()


def test_bfloat16_is_rounded_to_nearest_and_ties_to_even():
    cases = [(1.0 + 2**-8, 1.0), (1.0 + 3 * 2**-8, 1.0 + 2**-6), (1.0 + 2**-8 + 2**-20, 1.0 + 2**-7), (-1.0 - 2**-8, -1.0)]
    given = np.array([value for value, _ in cases], dtype=np.float32)
    found = _contribution.decode({"x": given}, _contribution.encode({"x": given}, "BF16"))["x"]
    assert found.tolist() == [value for _, value in cases]
    with pytest.raises(_frame.FrameError, match="bfloat16"):
        _contribution.encode({"x": np.array([3.4e38], dtype=np.float32)}, "BF16")
    with pytest.raises(_frame.FrameError, match="float16"):
        _contribution.encode({"x": np.array([65520.0], dtype=np.float32)}, "F16")


@pytest.mark.parametrize(
    "optimizer", [Adam(0.25, 0.5, 0.75, 1e-3, 0.5), AdamW(), FedAvg(), FedAvgM(), FedAdam(), DiLoCo()], ids=lambda o: type(o).__name__
)
def test_the_message_has_the_settings(optimizer):
    from raftgrid._proto import ml_pb2

    if "beta1" not in ml_pb2.Optimizer.DESCRIPTOR.fields_by_name:
        pytest.skip("the committed stubs are older than the fields: ml-code/generate.sh")
    message = optimizer.to_proto()
    assert message.algorithm == type(optimizer).__name__.lower()
    assert message.learning_rate == getattr(optimizer, "lr", 1.0)
    assert message.epsilon == getattr(optimizer, "eps", getattr(optimizer, "tau", 0.0))
    for name in ("beta1", "beta2", "momentum", "weight_decay"):
        assert getattr(message, name) == getattr(optimizer, name, 0.0)
