"""The examples, each as `python x.py`. What needs a package that is not installed is skipped by its name."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raftgrid

EXAMPLES = Path(__file__).parent.parent / "examples"
SOURCE = Path(raftgrid.__file__).parent.parent


def run(name, *args, needs=(), **environment):
    """(lines, result, SHA-256 of the model, if it makes one)."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs {package}, which is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if line.startswith(("result ", "model "))}
    return lines, json.loads(found["result"]), found.get("model")


def test_the_regression_comes_to_the_least_squares():
    needs = ["sklearn"]
    _, result, model = run("linear_diabetes.py", needs=needs)
    assert result["exact_loss"] <= result["train_loss"] < 1.01 * result["exact_loss"]
    assert abs(result["test_r_squared"] - result["exact_r_squared"]) < 0.01 and result["exact_r_squared"] > 0.4
    assert run("linear_diabetes.py", needs=needs)[2] == model


def test_the_convolutional_network_learns_the_digits():
    needs = ["jax", "sklearn"]
    lines, result, model = run("digits_cnn.py", needs=needs)
    assert lines[79].startswith("round 80/80 loss=") and " test_accuracy=" in lines[79]
    assert result["test_rows"] == 360 and 0.93 <= result["test_accuracy"] < 1.0
    short = [run("digits_cnn.py", "--rounds", "3", needs=needs)[2] for _ in range(2)]
    assert short[0] == short[1] != model


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_federated_averaging_learns_from_uneven_shards(strategy):
    _, result, model = run("fedavg_uneven.py", "--strategy", strategy)
    assert result["rows"] == [20, 40, 80, 160, 320, 640, 1280, 2560]
    assert result["test_accuracy"] > 0.95
    # One shard alone knows two of the five classes well.
    assert run("fedavg_uneven.py", "--strategy", strategy, "--shards", "1")[1]["test_accuracy"] < 0.9
    assert run("fedavg_uneven.py", "--strategy", strategy)[2] == model


@pytest.mark.parametrize("outer", ["diloco", "mean"])
def test_many_local_steps_learn_the_spirals_and_more_of_them_more(outer):
    models = set()
    for encoding in ((), ("--encoding", "bf16"), ("--encoding", "i8")):
        _, result, model = run("local_sgd.py", "--outer", outer, *encoding)
        assert result["test_accuracy"] > 0.97
        models.add(model)
    assert len(models) == 3
    assert run("local_sgd.py", "--outer", outer)[2] in models
    assert run("local_sgd.py", "--outer", outer, "--steps", "1")[1]["test_accuracy"] < 0.97


def test_a_sweep_finds_that_the_setting_matters():
    def held_out(*args):
        return run("sweep_digits.py", *args, needs=["sklearn"])[1]["held_out_accuracy"]

    slow, fast, decayed = held_out("--learning-rate", "0.02"), held_out(), held_out("--decay", "0.5")
    assert decayed < fast and slow < fast and 0.93 < fast < 1.0
    assert held_out() == fast


def test_every_example_has_a_test():
    tested = {"sweep_digits.py", "digits_cnn.py", "fedavg_uneven.py", "linear_diabetes.py", "local_sgd.py"}
    elsewhere = {"digits_mlp.py", "matmul.py"}  # test_local.py
    with_a_cluster = {"matmul_check.py", "model_sizes.py", "torchrun_sum.py"}  # crates/chaos, `make test-torch`
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested | elsewhere | with_a_cluster
