"""Many local steps between two exchanges: LocalSGD (Stich 2019), and DiLoCo (Douillard et al. 2023), in NumPy.

Alone, in this process:  python local_sgd.py
On a cluster:            gridctl train local_sgd.py --name local --shards 4 --workers 2 --rounds 20 --watch

A network 2-32-1 learns which arm of two spirals a point lies on. In a round each shard takes the model, does `--steps` steps of its own on its own
points, and pushes what they changed. LocalSGD takes the mean of the shards' models; DiLoCo gives the mean change to Nesterov's momentum. Between
two exchanges nothing is sent: `--steps 50` needs a fiftieth of the traffic of a gradient in each step. `--encoding i8` makes that a quarter again.
"""

import argparse
from typing import Dict, Tuple

import numpy as np

import raftgrid

HIDDEN, ROWS, BATCH, TEST_ROWS = 32, 4000, 64, 1000
Params = Dict[str, np.ndarray]


def spirals(rng: np.random.Generator, count: int) -> Tuple[np.ndarray, np.ndarray]:
    """(points float32[n, 2], which arm: float32[n], 0 or 1)."""
    arm = rng.integers(0, 2, count)
    turn = np.sqrt(rng.random(count)) * 1.6 * np.pi
    angle = turn + np.pi * arm
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (turn / np.pi)[:, None] + rng.standard_normal((count, 2)) * 0.05
    return points.astype(np.float32), arm.astype(np.float32)


def make_params(seed: int) -> Params:
    """First weights, float32, a function of the seed."""
    rng = np.random.default_rng(seed)
    return {
        "w1": (rng.standard_normal((2, HIDDEN)) * 1.5).astype(np.float32),
        "b1": rng.standard_normal(HIDDEN).astype(np.float32),
        "w2": (rng.standard_normal(HIDDEN) / np.sqrt(HIDDEN)).astype(np.float32),
        "b2": np.zeros((), np.float32),
    }


def forward(params: Params, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(hidden float32[n, 32], probability of arm 1 float32[n])."""
    hidden = np.tanh(points @ params["w1"] + params["b1"])
    return hidden, 1 / (1 + np.exp(-(hidden @ params["w2"] + params["b2"])))


def local_steps(params: Params, points: np.ndarray, arms: np.ndarray, steps: int, rate: float, seed: int) -> Tuple[Params, float]:
    """(the parameters after so many steps of SGD on minibatches drawn from the seed, the mean loss of the steps)."""
    own = {name: array.copy() for name, array in params.items()}
    rng = np.random.default_rng(seed)
    loss = 0.0
    for _ in range(steps):
        drawn = rng.integers(0, len(points), BATCH)
        hidden, probability = forward(own, points[drawn])
        likely = np.where(arms[drawn] == 1, probability, 1 - probability)
        loss += float(-np.log(np.maximum(likely, 1e-7)).mean())
        error = (probability - arms[drawn]) * np.float32(rate / BATCH)
        back = error[:, None] * own["w2"] * (1 - hidden**2)
        own["w2"] -= error @ hidden
        own["b2"] -= error.sum()
        own["w1"] -= points[drawn].T @ back
        own["b1"] -= back.sum(axis=0)
    return own, loss / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="LocalSGD and DiLoCo on two spirals")
    parser.add_argument("--outer", choices=["diloco", "mean"], default="diloco")
    parser.add_argument("--steps", type=int, default=50, help="local steps in each round")
    parser.add_argument("--learning-rate", type=float, default=0.3, help="of the local steps")
    parser.add_argument("--encoding", choices=["f16", "bf16", "i8"], default=None)
    parser.add_argument("--rounds", type=int, default=20, help="without a cluster only")
    parser.add_argument("--shards", type=int, default=4, help="without a cluster only")
    args = parser.parse_args()
    job = raftgrid.init(rounds=args.rounds, num_shards=args.shards)
    points, arms = spirals(np.random.default_rng([job.seed, 1]), ROWS)
    params = make_params(job.seed)
    job.init_model(params, raftgrid.DiLoCo(lr=0.7, momentum=0.5) if args.outer == "diloco" else raftgrid.FedAvg())
    for step in job.rounds():
        step.load(params)
        own = slice(step.shard, None, step.num_shards)
        after, loss = local_steps(params, points[own], arms[own], args.steps, args.learning_rate, step.seed)
        step.push_delta(params, after, metrics={"loss": loss}, encoding=args.encoding)
    job.load_final(params)
    points, arms = spirals(np.random.default_rng([job.seed, 2]), TEST_ROWS)
    accuracy = float(((forward(params, points)[1] > 0.5) == arms).mean())
    job.log("test accuracy", percent=f"{100 * accuracy:.2f}", rows=TEST_ROWS)
    job.log("model", sha256=job.model_sha256)
    job.result({"test_accuracy": accuracy, "test_rows": TEST_ROWS})


if __name__ == "__main__":
    main()
