"""A trainer against a real gRPC server on loopback that speaks workerd's side."""

import hashlib
import json
import os
import threading

import grpc
import numpy as np
import pytest

import raftgrid
from fake_agent import TOKEN, FakeAgent, fail
from raftgrid import Outcome, _agent, _frame, _limits
from raftgrid._proto import ml_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
STALE_LEASE = fail(grpc.StatusCode.FAILED_PRECONDITION, "STALE_LEASE: epoch 5 is not open")


@pytest.fixture
def agent(monkeypatch):
    monkeypatch.setattr(_agent, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(_agent, "RETRY_MAX_S", 0.01)
    agent = FakeAgent().start()
    monkeypatch.setenv("RAFTGRID_AGENT", f"127.0.0.1:{agent.port}")
    monkeypatch.setenv("RAFTGRID_TOKEN", TOKEN)
    yield agent
    agent.halt()


def params():
    rng = np.random.default_rng(3)
    return {"w": rng.standard_normal((5, 2)).astype(np.float32), "b": np.zeros(2, np.float64)}


def grads_of(step, model):
    rng = np.random.default_rng(step.seed)
    return {name: np.asarray(rng.standard_normal(array.shape), array.dtype) for name, array in model.items()}


def train(job, model, optimizer=None):
    """The plain loop; (outcomes, final parameters)."""
    assert job.init_model(model, optimizer=optimizer or raftgrid.SGD(lr=0.1, momentum=0.9)).ok
    outcomes = []
    for step in job.rounds():
        step.load(model)
        outcomes.append(step.push(grads_of(step, model), weight=3 + step.shard, metrics={"loss": 0.5}).outcome)
    return outcomes, job.load_final(model)


def local_sha256(monkeypatch, num_shards=2, rounds=2, seed=7):
    with monkeypatch.context() as patch:
        patch.delenv("RAFTGRID_AGENT")
        job = raftgrid.init(num_shards=num_shards, rounds=rounds, seed=seed)
        train(job, params())
        return job.model_sha256


def test_a_job_runs_to_its_end_and_equals_the_run_in_process(agent, monkeypatch):
    job = raftgrid.init()
    assert (job.job_id, job.task_id, job.node_id, job.attempt) == ("job-1", "task-1", "node-1", 1)
    assert (job.num_shards, job.num_rounds, job.seed, job.config, job.rank) == (2, 2, 7, {"n": 3}, 0)
    outcomes, final = train(job, params())
    assert outcomes == [Outcome.ACCEPTED] * 4 and agent.accepted == 4
    assert _frame.to_bytes(final) == agent.models[2]
    assert job.model_sha256 == hashlib.sha256(agent.models[2]).hexdigest() == local_sha256(monkeypatch)
    job.result({"test_accuracy": np.float64(0.5), "classes": np.arange(2)})
    assert [json.loads(text) for text in agent.results] == [{"test_accuracy": 0.5, "classes": [0, 1]}]
    # One fetch per model, whatever the number of shards that this worker computes.
    assert agent.model_requests == [(0, 0), (1, 0), (2, 0)]


def test_the_first_chunk_carries_what_the_ledger_needs(agent):
    job = raftgrid.init()
    train(job, params())
    first = agent.first_chunks[3]
    assert (first.round, first.shard, first.weight, first.metrics_json) == (1, 1, 4.0, b'{"loss":0.5}')
    numeric = json.loads(first.numeric_class)
    assert numeric["numpy"] == np.__version__ and numeric["arch"] and numeric["blas"]["name"]
    assert first.numeric_class == json.dumps(numeric, sort_keys=True, separators=(",", ":")).encode()


def test_a_step_loads_the_model_that_it_names_and_its_contribution_says_which(agent):
    agent.behind = 1
    job, model = raftgrid.init(), params()
    job.init_model(model, optimizer=raftgrid.SGD(lr=0.1))
    for step in job.rounds():
        step.load(model)
        assert job.model_sha256 == hashlib.sha256(agent.models[step.model_version]).hexdigest()
        assert step.push(grads_of(step, model)).outcome is Outcome.ACCEPTED
    told = [(first.round, first.model_version, first.model_version_given) for first in agent.first_chunks]
    assert told == [(0, 0, True), (0, 0, True), (1, 0, True), (1, 0, True)]
    assert agent.models[0] != agent.models[1]


def test_each_outcome_is_told_and_raises_nothing(agent):
    job = raftgrid.init()
    model = params()
    job.init_model(model)
    steps = job.rounds()
    first, second = next(steps), next(steps)
    good = grads_of(first, model)
    nan = dict(good, b=np.array([1.0, np.nan]))
    rejected = first.push(nan)
    assert rejected.outcome is Outcome.REJECTED and rejected.reason == "tensor `b` is not finite: element 1 is nan" and not rejected.ok
    wide = first.push({name: array.astype(np.float64) for name, array in good.items()})
    assert wide.outcome is Outcome.REJECTED and wide.reason == "tensor `w` has dtype F64, the model's has F32"
    accepted = first.push(good)
    assert accepted.outcome is Outcome.ACCEPTED and accepted.ok and accepted.position == 42
    assert first.push(good).outcome is Outcome.DUPLICATE
    assert first.push(grads_of(second, model)).outcome is Outcome.MISMATCH
    assert second.push(good).outcome is Outcome.ACCEPTED
    stale = first.push(good)
    assert stale.outcome is Outcome.STALE and not stale.ok
    assert agent.accepted == 2


def test_an_answer_of_the_old_contract_without_success_is_a_rejection():
    assert _agent._result(ml_pb2.Ack()).outcome is Outcome.REJECTED
    assert _agent._result(ml_pb2.Ack(success=True)).outcome is Outcome.ACCEPTED
    assert _agent._result(ml_pb2.Ack(outcome=ml_pb2.ACK_STALE)).outcome is Outcome.STALE


def test_an_ack_of_a_lease_that_ended_meanwhile_is_lease_lost():
    with pytest.raises(raftgrid.LeaseLost, match="lease 5"):
        _agent._result(ml_pb2.Ack(outcome=ml_pb2.ACK_STALE, reason="STALE_LEASE: lease 5 of task t is not open"))


def test_another_first_model_is_compared_not_taken(agent, capsys):
    assert raftgrid.init().init_model(params()).outcome is Outcome.ACCEPTED
    assert raftgrid.init().init_model(params()).outcome is Outcome.DUPLICATE
    other = dict(params(), b=np.ones(2))
    assert raftgrid.init().init_model(other).outcome is Outcome.MISMATCH
    assert "the first model differs" in capsys.readouterr().out
    assert agent.models == [_frame.to_bytes(params())]


@pytest.mark.parametrize("method", ["Hello", "InitModel", "NextShards", "GetModel", "SendGradients", "SetResult"])
@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_every_call_is_retried_while_the_control_plane_moves(agent, monkeypatch, method, code):
    agent.faults[method] = [fail(code, "no leader")] * 5
    job = raftgrid.init()
    outcomes, _ = train(job, params())
    job.result({})
    assert agent.faults[method] == [] and outcomes == [Outcome.ACCEPTED] * 4
    assert job.model_sha256 == local_sha256(monkeypatch)


def test_a_lost_answer_is_a_duplicate_and_counts_once(agent, monkeypatch):
    agent.faults["after SendGradients"] = [fail(UNAVAILABLE, "connection reset")]
    job = raftgrid.init()
    outcomes, _ = train(job, params())
    assert outcomes == [Outcome.DUPLICATE] + [Outcome.ACCEPTED] * 3
    assert agent.accepted == 4 and job.model_sha256 == local_sha256(monkeypatch)


def test_the_agent_may_go_and_come_back(agent, monkeypatch):
    job = raftgrid.init()
    model = params()
    job.init_model(model, optimizer=raftgrid.SGD(lr=0.1, momentum=0.9))
    steps = job.rounds()
    step = next(steps)
    step.load(model)
    agent.halt()
    answer = []
    pushing = threading.Thread(target=lambda: answer.append(step.push(grads_of(step, model), weight=3)))
    pushing.start()
    agent.start()
    pushing.join(timeout=60)
    assert [result.outcome for result in answer] == [Outcome.ACCEPTED]


@pytest.mark.parametrize("method", ["InitModel", "NextShards", "GetModel", "SendGradients"])
def test_a_fenced_attempt_ends_in_lease_lost(agent, method):
    agent.faults[method] = [STALE_LEASE]
    job = raftgrid.init()
    with pytest.raises(raftgrid.LeaseLost, match="STALE_LEASE: epoch 5"):
        train(job, params())
    assert agent.calls.count(method) == 1


def test_should_stop_is_asked_told_and_fenced(agent, monkeypatch):
    monkeypatch.setattr(raftgrid.job, "SHOULD_STOP_CACHE_S", 0.0)
    job = raftgrid.init()
    assert job.should_stop is False
    agent.faults["ShouldStop"] = [fail(UNAVAILABLE)]
    assert job.should_stop is False and agent.faults["ShouldStop"] == []
    agent.faults["ShouldStop"] = [STALE_LEASE]
    with pytest.raises(raftgrid.LeaseLost):
        _ = job.should_stop
    agent.stop = True
    assert job.should_stop is True


def test_rounds_wait_for_work_and_end_when_the_task_is_to_stop(agent):
    job = raftgrid.init()
    job.init_model(params())
    agent.num_shards = 0  # no step for this worker
    agent.stop = True
    assert list(job.rounds()) == []


def test_other_failures_are_errors_with_the_cause(agent, monkeypatch):
    agent.faults["InitModel"] = [fail(grpc.StatusCode.FAILED_PRECONDITION, "no job")]
    with pytest.raises(raftgrid.RaftgridError, match="InitModel: FAILED_PRECONDITION: no job") as caught:
        raftgrid.init().init_model(params())
    assert not isinstance(caught.value, raftgrid.LeaseLost)
    monkeypatch.setenv("RAFTGRID_TOKEN", "another")
    with pytest.raises(raftgrid.RaftgridError, match="UNAUTHENTICATED: wrong token"):
        raftgrid.init()


def test_retries_end_when_the_parent_is_gone(agent, monkeypatch):
    job = raftgrid.init()
    agent.faults["InitModel"] = [fail(UNAVAILABLE)] * 1000
    monkeypatch.setattr("os.getppid", lambda: 1)
    with pytest.raises(raftgrid.LeaseLost, match="is gone"):
        job.init_model(params())


def big_params():
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal(900_001).astype(np.float32)}  # 3.4 chunks


def test_a_model_of_several_chunks_is_put_together(agent):
    job = raftgrid.init()
    job.init_model(big_params())
    step = next(job.rounds())
    assert len(agent.models[0]) > 3 * _limits.CHUNK_BYTES_MAX
    loaded = step.load()
    assert loaded["w"].tobytes() == big_params()["w"].tobytes()
    assert step.push(loaded).outcome is Outcome.ACCEPTED


def test_a_broken_model_stream_goes_on_where_it_was(agent):
    job = raftgrid.init()
    job.init_model(big_params())
    broken = [2, 3]

    def breaks(chunk, context):
        if broken and chunk.offset == broken[0] * _limits.CHUNK_BYTES_MAX:
            broken.pop(0)
            context.abort(UNAVAILABLE, "moved")

    agent.damage_chunk = breaks
    assert next(job.rounds()).load()["w"].tobytes() == big_params()["w"].tobytes()
    chunk = _limits.CHUNK_BYTES_MAX
    assert agent.model_requests == [(0, 0), (0, 2 * chunk), (0, 3 * chunk)]


def test_a_damaged_chunk_is_fetched_again_and_constant_damage_is_an_error(agent):
    job = raftgrid.init()
    job.init_model(big_params())
    left = [1]

    def damage(chunk, _context):
        if chunk.offset == _limits.CHUNK_BYTES_MAX and left[0] > 0:
            left[0] -= 1
            chunk.data = b"\x00" + chunk.data[1:]

    agent.damage_chunk = damage
    step = next(job.rounds())
    assert step.load()["w"].tobytes() == big_params()["w"].tobytes()
    assert agent.model_requests == [(0, 0), (0, _limits.CHUNK_BYTES_MAX)]
    left[0] = 1000
    with pytest.raises(raftgrid.TransferError, match="crc32c of the chunk at offset 1048576 is wrong"):
        next(raftgrid.init().rounds()).load()


def test_a_model_with_another_digest_or_version_is_never_loaded(agent):
    job = raftgrid.init()
    job.init_model(params())
    step = next(job.rounds())

    def other_bytes(chunk, _context):
        # A whole other model, with right checksums: only the digest that came with the step tells.
        data = _frame.to_bytes(dict(params(), b=np.ones(2)))
        chunk.data, chunk.crc32c, chunk.digest = data, _agent.crc32c(data), hashlib.sha256(data).digest()

    agent.damage_chunk = other_bytes
    with pytest.raises(raftgrid.TransferError, match="digest"):
        step.load()

    def same_digest(chunk, _context):
        # The right digest and length, right checksums of wrong bytes: only the hash over the whole tells.
        chunk.data = bytes(reversed(chunk.data))
        chunk.crc32c = _agent.crc32c(chunk.data)

    agent.damage_chunk = same_digest
    with pytest.raises(raftgrid.TransferError, match="SHA-256 differs"):
        step.load()
    agent.damage_chunk = lambda chunk, _context: setattr(chunk, "version", 9)
    with pytest.raises(raftgrid.RaftgridError, match="asked for model 0, was given 9"):
        step.load()


def test_a_server_of_the_old_contract_can_be_read(agent):
    job = raftgrid.init()
    many = {"w": np.arange(4000, dtype=np.float32)}
    job.init_model(many)
    agent.old_contract = True  # chunk_id and data, nothing else
    assert next(job.rounds()).load()["w"].tobytes() == many["w"].tobytes()


def test_models_and_gradients_go_as_sealed_files_where_the_agent_names_one(agent, monkeypatch):
    agent.names_files = True
    job = raftgrid.init()
    outcomes, final = train(job, params())
    assert outcomes == [Outcome.ACCEPTED] * 4
    first_model = len(_frame.to_bytes(params()))
    assert agent.streamed_bytes == first_model, "nothing but model 0 was streamed"
    assert job.model_sha256 == hashlib.sha256(agent.models[2]).hexdigest() == local_sha256(monkeypatch)
    final["w"][0, 0] = 7.0  # what was loaded is the script's own
    assert next(iter(agent.kept_files)).place


@pytest.mark.parametrize("wrong", ["1 2 3", "x", "{pid} 99999 {inode}", "{pid} {descriptor} 1"])
def test_a_file_that_is_not_the_one_named_is_streamed_instead(agent, wrong):
    agent.names_files = True

    def place_of(file):
        pid, descriptor, inode = file.place.split()
        return wrong.format(pid=pid, descriptor=descriptor, inode=inode)

    agent.place_of = place_of
    model = params()
    outcomes, _ = train(raftgrid.init(), model)
    assert outcomes == [Outcome.ACCEPTED] * 4 and len(agent.kept_files) == 1, "it is asked for once"


def test_a_file_that_can_still_change_is_not_read(agent, tmp_path):
    agent.names_files = True
    data = []

    def place_of(file):
        plain = open(tmp_path / "plain", "wb+")
        data.append(plain)
        plain.write(agent.models[0])
        plain.flush()
        return f"{os.getpid()} {plain.fileno()} {os.fstat(plain.fileno()).st_ino}"

    agent.place_of = place_of
    assert raftgrid.init().init_model(params()).ok
    assert next(raftgrid.init().rounds()).load()["w"].tobytes() == params()["w"].tobytes()
    assert len(agent.model_requests) == 2 and len(data) == 1


def test_an_agent_that_cannot_open_a_gradient_is_sent_its_bytes(agent):
    agent.names_files, agent.opens_files = True, False
    outcomes, _ = train(raftgrid.init(), params())
    assert outcomes == [Outcome.ACCEPTED] * 4
    assert agent.calls.count("SendGradients") == 5, "it is offered once"


def test_who_never_loads_a_model_hands_over_files_too(agent):
    agent.says_it_opens_files = True
    job = raftgrid.init()
    job.init_model(params())
    streamed = agent.streamed_bytes
    for step in job.rounds():
        assert step.push(params()).ok
    assert agent.streamed_bytes == streamed and agent.calls.count("SendGradients") == 4


def test_a_file_of_another_model_is_never_loaded(agent):
    agent.names_files = True
    job = raftgrid.init()
    job.init_model(params())
    step = next(job.rounds())
    agent.damage_chunk = lambda chunk, _context: setattr(chunk, "digest", bytes(32))
    with pytest.raises(raftgrid.TransferError, match="digest"):
        step.load()
    agent.damage_chunk = lambda chunk, _context: setattr(chunk, "version", 9)
    with pytest.raises(raftgrid.RaftgridError, match="asked for model 0, was given 9"):
        step.load()


def test_the_function_style_is_the_same_loop(agent, monkeypatch):
    @raftgrid.worker
    def compute(model, step):
        """Doc."""
        return grads_of(step, model), 3 + step.shard, {"loss": 0.5}

    final = raftgrid.run(
        compute,
        init=lambda seed: params(),
        optimizer=raftgrid.SGD(lr=0.1, momentum=0.9),
        finish=lambda model, job: {"sha256": job.model_sha256},
    )
    assert compute.__doc__ == "Doc." and compute.__name__ == "compute"
    assert json.loads(agent.results[0]) == {"sha256": local_sha256(monkeypatch)}
    assert _frame.to_bytes(final) == agent.models[2]
