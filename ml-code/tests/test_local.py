"""Runs without a cluster, the examples among them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import raftgrid
from raftgrid import Outcome, _frame

EXAMPLES = Path(__file__).parent.parent / "examples"
SOURCE = Path(raftgrid.__file__).parent.parent


def example(name, *args, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE), "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    result = json.loads(next(line for line in lines if line.startswith("result "))[len("result ") :])
    return lines, result


def model_sha256(lines):
    return next(line for line in lines if line.startswith("model sha256="))


def test_digits_learns_to_95_percent_and_twice_the_same():
    pytest.importorskip("sklearn")
    lines, result = example("digits_mlp.py")
    rounds = [line for line in lines if line.startswith("round ")]
    assert len(rounds) == 60 and rounds[59].startswith("round 60/60 accuracy=")
    assert result["test_rows"] == 360 and 0.95 <= result["test_accuracy"] < 1.0
    again, _ = example("digits_mlp.py")
    assert again == lines


def test_digits_depends_on_seed_and_on_minibatches():
    pytest.importorskip("sklearn")
    runs = {
        model_sha256(example("digits_mlp.py", "--rounds", "3", *args, **environment)[0])
        for args, environment in [
            ((), {}),
            ((), {"RAFTGRID_SEED": "1"}),
            (("--batch", "32"), {}),
            (("--shards", "5"), {}),
        ]
    }
    assert len(runs) == 4
    batches = [model_sha256(example("digits_mlp.py", "--rounds", "3", "--batch", "32")[0]) for _ in range(2)]
    assert batches[0] == batches[1] and batches[0] in runs


def test_matmul_checksum_is_a_function_of_its_arguments():
    results = [example("matmul.py", "--n", "64", "--blocks", "2", "--seed", seed)[1] for seed in ("1", "1", "2")]
    assert results[0]["checksum"] == results[1]["checksum"] != results[2]["checksum"]
    assert results[0]["gflops"] > 0
    from_config = example("matmul.py", RAFTGRID_CONFIG='{"n": 64, "blocks": 2, "seed": 2}')[1]
    assert from_config["checksum"] == results[2]["checksum"]


def model():
    return {"w": np.ones((2, 2), np.float32)}


def job_of(**settings):
    job = raftgrid.init(**settings)
    job.init_model(model(), optimizer=raftgrid.SGD(lr=0.5))
    return job


def test_steps_come_in_order_with_their_seeds():
    job = job_of(rounds=2, num_shards=3, seed=9)
    seen = []
    for step in job.rounds():
        params = step.load({})
        seen.append((step.round, step.shard, step.num_shards, step.model_version))
        assert step.seed == raftgrid.shard_seed(9, step.round, step.shard)
        assert step.push({"w": np.full((2, 2), step.shard, np.float32)}, weight=1).ok
    assert seen == [(r, s, 3, r) for r in range(2) for s in range(3)]
    # The mean of 0, 1 and 2 is 1: two steps of 0.5 * 1.
    assert job.load_final(params)["w"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert job.is_local and not job.should_stop


def test_environment_wins_over_arguments_and_is_checked(monkeypatch):
    monkeypatch.setenv("RAFTGRID_NUM_SHARDS", "4")
    monkeypatch.setenv("RAFTGRID_ROUNDS", "3")
    job = raftgrid.init(rounds=9, num_shards=9)
    assert (job.num_shards, job.num_rounds, job.seed) == (4, 3, 0)
    for name, text, cause in [
        ("RAFTGRID_NUM_SHARDS", "0", "at least 1"),
        ("RAFTGRID_ROUNDS", "many", "a whole number"),
        ("RAFTGRID_CONFIG", "{", "failed to read the job's configuration"),
        ("RAFTGRID_CONFIG", "[]", "must be a JSON object"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, text)
            with pytest.raises(raftgrid.RaftgridError, match=cause):
                raftgrid.init()
    monkeypatch.delenv("RAFTGRID_NUM_SHARDS")
    monkeypatch.delenv("RAFTGRID_ROUNDS")
    assert (raftgrid.init().num_shards, raftgrid.init().num_rounds) == (1, 20)


def test_outcomes_are_told_and_a_rejected_step_ends_the_run():
    job = job_of(rounds=2, num_shards=2)
    steps = job.rounds()
    first = next(steps)
    assert first.push(model()).outcome is Outcome.ACCEPTED
    assert first.push(model()).outcome is Outcome.DUPLICATE
    assert first.push({"w": np.zeros((2, 2), np.float32)}).outcome is Outcome.MISMATCH
    second = next(steps)
    assert second.push({"w": np.full((2, 2), np.inf, np.float32)}).outcome is Outcome.REJECTED
    with pytest.raises(raftgrid.RaftgridError, match="round 0 shard 1 was rejected: tensor `w` is not finite"):
        next(steps)


def test_misuse_is_named():
    job = raftgrid.init(rounds=1)
    with pytest.raises(raftgrid.RaftgridError, match="call job.init_model"):
        next(job.rounds())
    with pytest.raises(raftgrid.RaftgridError, match="the model has no tensors"):
        job.init_model({})
    with pytest.raises(raftgrid.RaftgridError, match="tensor `w` is not finite"):
        job.init_model({"w": np.array([np.nan])})
    job = job_of(rounds=1)
    step = next(job.rounds())
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the weight is"):
            step.push(model(), weight=weight)
    with pytest.raises(raftgrid.RaftgridError, match="round 0 shard 0 was not pushed"):
        next(job.rounds())
    with pytest.raises(ValueError, match="the limit is"):
        job.result({"x": "y" * 200_000})
    with pytest.raises(TypeError, match="set is not JSON"):
        job.result({"x": {1}})


def test_a_run_that_diverges_says_so():
    job = raftgrid.init(rounds=3)
    job.init_model({"w": np.full(1, 3e38, np.float32)}, optimizer=raftgrid.SGD(lr=1.0))
    with pytest.raises(raftgrid.RaftgridError, match="the next model: tensor `w` is not finite.*smaller learning rate"):
        for step in job.rounds():
            step.push({"w": np.full(1, -3e38, np.float32)})


def test_metrics_that_are_not_finite_do_not_spoil_the_others(capsys):
    job = job_of(rounds=1, num_shards=2)
    for step in job.rounds():
        step.push(model(), metrics={"loss": np.float32(1 + step.shard), "bad": float("nan")})
    assert "round 1/1 loss=1.5000\n" in capsys.readouterr().out


def test_canonical_bytes_of_the_first_model_are_the_models_digest():
    job = job_of(rounds=1)
    for step in job.rounds():
        step.load()
        assert job.model_sha256 == hashlib.sha256(_frame.to_bytes(model())).hexdigest()
        step.push(model())
