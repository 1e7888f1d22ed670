"""Optimisers, schedules, combinations, encodings, deltas and states as a script names them: in this process and towards workerd."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import messages
import raftgrid
from fake_agent import TOKEN, FakeAgent
from raftgrid import Outcome, _agent, _contribution, _frame, _values
from raftgrid._combine import Combine
from raftgrid._proto import ml_pb2

GOLDEN = json.loads((Path(__file__).parent / "golden" / "strategies.json").read_text(encoding="utf-8"))
RULES = [
    dict(optimizer=raftgrid.Adam(0.05, weight_decay=0.1)),
    dict(optimizer=raftgrid.AdamW(0.05), schedule=raftgrid.schedule.Cosine(4, 0.1, warmup_rounds=1)),
    dict(optimizer=raftgrid.FedAvg(), combine=raftgrid.Median()),
    dict(optimizer=raftgrid.FedAvgM(), schedule=raftgrid.schedule.StepDecay(1, 0.5)),
    dict(optimizer=raftgrid.FedAdam(), combine=raftgrid.TrimmedMean(0.34)),
    dict(optimizer=raftgrid.DiLoCo(), combine=raftgrid.Clipped(0.5)),
    dict(optimizer=raftgrid.SGD(0.1, 0.9, True), combine=raftgrid.Clipped(0.5, then=raftgrid.TrimmedMean(0.34))),
    dict(schedule=raftgrid.schedule.Constant(3)),
]


def from_bits(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]


def optimizer_of(settings):
    n = {name: value if isinstance(value, bool) else from_bits(value) for name, value in settings.items() if name != "algorithm"}
    message = ml_pb2.Optimizer(algorithm=settings["algorithm"], **n)
    return messages.optimizer_of(message)


def schedule_of(settings):
    warmup = int(settings["warmup_rounds"])
    if settings["kind"] == "cosine":
        return raftgrid.schedule.Cosine(int(settings["decay_rounds"]), from_bits(settings["final_factor"]), warmup)
    if settings["kind"] == "step":
        return raftgrid.schedule.StepDecay(int(settings["step_rounds"]), from_bits(settings["step_factor"]), warmup)
    return raftgrid.schedule.Constant(warmup)


def combine_of(settings):
    fraction, norm = from_bits(settings["trim_fraction"]), from_bits(settings["clip_norm"])
    named = {"mean": raftgrid.Mean(), "median": raftgrid.Median(), "trimmed_mean": raftgrid.TrimmedMean(fraction)}[settings["strategy"]]
    return raftgrid.Clipped(norm, then=named) if norm else named


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["optimizers"]])
def test_a_job_gives_the_golden_models_of_each_optimiser(case):
    rounds = case["rounds"]
    job = raftgrid.init(rounds=len(rounds), num_shards=len(rounds[0]["contributions"]))
    job.init_model(_frame.from_bytes(bytes.fromhex(rounds[0]["model"])), optimizer=optimizer_of(case["optimizer"]))
    for step in job.rounds():
        golden = rounds[step.round]
        assert _frame.to_bytes(step.load()).hex() == golden["model"]
        contribution = golden["contributions"][step.shard]
        assert step.push(_frame.from_bytes(bytes.fromhex(contribution["file"])), weight=from_bits(contribution["weight"])).ok
    assert _frame.to_bytes(job.load_final()).hex() == rounds[-1]["model_next"]


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in GOLDEN["rounds"]])
def test_a_job_gives_the_golden_models_with_encoding_schedule_and_combination(case):
    rounds = case["rounds"]
    job = raftgrid.init(rounds=int(rounds[-1]["round"]) + 1, num_shards=len(rounds[0]["contributions"]))
    model = _frame.from_bytes(bytes.fromhex(rounds[0]["model"]))
    rule = dict(schedule=schedule_of(case["schedule"]), combine=combine_of(case["combine"]))
    job.init_model(model, optimizer_of(case["optimizer"]), **rule)
    # The vectors begin in a later round.
    job._backend._models[:0] = [b""] * int(rounds[0]["round"])
    encoding = case["name"].split(",")[0]
    for step in job.rounds():
        golden = next(line for line in rounds if int(line["round"]) == step.round)
        contribution = golden["contributions"][step.shard]
        grads = _contribution.decode(model, bytes.fromhex(contribution["file"]))
        # Of i8 the scale is not found again from decoded values; f16 and bf16 lose nothing the second time.
        again = encoding if encoding in ("f16", "bf16") else None
        assert step.push(grads, weight=from_bits(contribution["weight"]), encoding=again).ok
    assert _frame.to_bytes(job.load_final()).hex() == rounds[-1]["model_next"]


def params():
    rng = np.random.default_rng(3)
    return {"w": rng.standard_normal((5, 2)).astype(np.float32), "b": np.zeros(2, np.float64)}


def train(job, rule, encoding=None, state=False):
    model = params()
    assert job.init_model(model, **rule).ok
    for step in job.rounds():
        step.load(model)
        rng = np.random.default_rng(step.seed)
        own = {name: np.asarray(array + rng.standard_normal(array.shape), array.dtype) for name, array in model.items()}
        before = step.state
        assert before == ({"seen": [step.round - 1, step.shard]} if state and step.round else None)
        extra = dict(state={"seen": [step.round, step.shard]}) if state else {}
        assert step.push_delta(model, own, weight=3 + step.shard, encoding=encoding, **extra).outcome is Outcome.ACCEPTED
    job.load_final(model)
    return job.model_sha256


@pytest.fixture
def agent(monkeypatch):
    agent = FakeAgent(num_shards=3, rounds=3).start()
    monkeypatch.setenv("RAFTGRID_AGENT", f"127.0.0.1:{agent.port}")
    monkeypatch.setenv("RAFTGRID_TOKEN", TOKEN)
    yield agent
    agent.halt()


def local(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.delenv("RAFTGRID_AGENT", raising=False)
        return train(raftgrid.init(num_shards=3, rounds=3, seed=7), *args, **kwargs)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(type(part).__name__ for part in rule.values()))
def test_towards_workerd_the_whole_rule_goes_up_and_the_model_is_that_of_a_run_in_process(agent, monkeypatch, rule):
    found = train(raftgrid.init(), rule)
    assert found == local(monkeypatch, rule)
    asked = (rule.get("optimizer", raftgrid.SGD()), rule.get("schedule"), rule["combine"].rule() if "combine" in rule else None)
    assert (agent.rule.optimizer, agent.rule.schedule, agent.rule.combine) == asked


def test_each_part_of_a_rule_changes_the_model(monkeypatch):
    shas = [local(monkeypatch, rule) for rule in RULES] + [local(monkeypatch, dict(optimizer=rule["optimizer"])) for rule in RULES[:-1]]
    # Adam with nothing else stands twice.
    assert len(set(shas)) == len(shas) - 1


@pytest.mark.parametrize("encoding, kinds", [("f16", {"F16", "F64"}), ("bf16", {"BF16", "F64"}), ("i8", {"I8", "F32", "F64"})])
def test_encoded_contributions_are_smaller_and_give_the_model_of_a_run_in_process(agent, monkeypatch, encoding, kinds):
    seen = []
    accept = agent._accept
    monkeypatch.setattr(agent, "_accept", lambda first, data: (seen.append(data), accept(first, data))[1])
    assert train(raftgrid.init(), {}, encoding) == local(monkeypatch, {}, encoding)
    header = json.loads(seen[0][8 : 8 + int.from_bytes(seen[0][:8], "little")])
    assert {entry["dtype"] for entry in header.values()} == kinds
    assert len({local(monkeypatch, {}, other) for other in (None, "f16", "bf16", "i8")}) == 4


@pytest.mark.parametrize("encoding", [None, "f16", "bf16", "i8"])
def test_the_order_of_the_names_is_no_part_of_a_contribution(encoding):
    job = raftgrid.init(rounds=1)
    job.init_model(params())
    step = next(job.rounds())
    assert step.push(params(), encoding=encoding).outcome is Outcome.ACCEPTED
    assert step.push(dict(reversed(list(params().items()))), encoding=encoding).outcome is Outcome.DUPLICATE


def test_what_is_clipped_is_combined_as_it_says():
    assert raftgrid.Clipped(0.5).rule() == Combine("mean", 0.0, 0.5)
    assert raftgrid.Clipped(2, then=raftgrid.TrimmedMean(0.25)).rule() == Combine("trimmed_mean", 0.25, 2.0)
    assert raftgrid.Clipped(2, then=raftgrid.Median()).rule() == Combine("median", 0.0, 2.0)


def test_encodings_that_do_not_fit_and_wrong_names_are_refused():
    job = raftgrid.init(rounds=1)
    job.init_model(params())
    step = next(job.rounds())
    with pytest.raises(ValueError, match="encoding is 'f8': f16, bf16, i8 or None"):
        step.push(params(), encoding="f8")
    with pytest.raises(raftgrid.FrameError, match="tensor `w` does not fit float16"):
        step.push(dict(params(), w=np.full((5, 2), 1e6, np.float32)), encoding="f16")
    with pytest.raises(raftgrid.FrameError, match="tensor `w` is not finite"):
        step.push(dict(params(), w=np.full((5, 2), np.nan, np.float32)), encoding="i8")
    with pytest.raises(raftgrid.FrameError, match="after the local steps.*shape"):
        step.push_delta(params(), dict(params(), w=np.zeros((2, 5), np.float32)))
    with pytest.raises(ValueError, match="FedAvg does not take a schedule"):
        job.init_model(params(), raftgrid.FedAvg(), schedule=raftgrid.schedule.Constant())
    for make, word in [
        (lambda: raftgrid.TrimmedMean(0.5), "trim_fraction"),
        (lambda: raftgrid.Clipped(0.0), "norm"),
        (lambda: raftgrid.Clipped(1.0, then=raftgrid.Clipped(1.0)), "then"),
    ]:
        with pytest.raises(ValueError, match=word):
            make()


def test_a_delta_from_the_model_of_the_round_points_from_the_new_parameters_to_the_old():
    job = raftgrid.init(rounds=1, num_shards=2)
    job.init_model(params(), raftgrid.FedAvg())
    own = {}
    for step in job.rounds():
        model = step.load()
        own[step.shard] = {name: array + (1 + step.shard) for name, array in model.items()}
        assert step.push_delta(None, own[step.shard], weight=(3, 1)[step.shard]).ok
    found = job.load_final()
    for name, array in params().items():
        # FedAvg is the weighted mean of the trainers' own models: 1.25 above the first one.
        np.testing.assert_allclose(found[name], array + 1.25, rtol=1e-6)


@pytest.mark.parametrize("combine, strategy", [(None, None), (raftgrid.Mean(), "mean"), (raftgrid.Median(), "median")])
def test_what_the_script_does_not_name_is_not_in_the_message(agent, combine, strategy):
    raftgrid.init().init_model(params(), combine=combine)
    assert (agent.rule.combine and agent.rule.combine.strategy) == strategy
    assert agent.rule.schedule is None and not agent.rule.optimizer_message().HasField("schedule")


def test_the_state_goes_with_the_shard_not_with_the_worker():
    train(raftgrid.init(num_shards=3, rounds=3), {}, state=True)


def test_the_state_goes_up_before_the_contribution_that_names_it(agent, monkeypatch):
    kept = {}
    monkeypatch.setenv("RAFTGRID_ENDPOINTS", "127.0.0.1:1")
    monkeypatch.setattr(_agent._artifacts, "put", lambda plane, name, data, kind: kept.setdefault(str(len(kept) + 1), data) and str(len(kept)))
    monkeypatch.setattr(_agent._artifacts, "get", lambda plane, artifact: kept.get(artifact))
    agent.shard_state = True
    found = train(raftgrid.init(), {}, state=True)
    assert found == local(monkeypatch, {}, state=True) == local(monkeypatch, {})
    assert [chunk.state_artifact for chunk in agent.first_chunks] == [str(number) for number in range(1, 10)]
    assert _values.unpack(kept["9"])[0] == {"state": {"seen": [2, 2]}}


def test_a_cluster_that_does_not_carry_states_refuses_them_instead_of_forgetting_them(agent):
    job = raftgrid.init()
    job.init_model(params())
    step = next(job.rounds())
    assert step.state is None
    with pytest.raises(raftgrid.RaftgridError, match="does not hand the state of a shard to its next step"):
        step.push(params(), state={"position": 3})
    assert agent.accepted == 0 and step.push(params()).ok
