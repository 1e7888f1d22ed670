"""Federated averaging over shards of very different sizes and labels (McMahan et al. 2017), in NumPy.

Alone, in this process:  python fedavg_uneven.py
On a cluster:            gridctl train fedavg_uneven.py --name fedavg --shards 8 --workers 3 --rounds 15 --watch

Eight hospitals, say: each has its own rows, which never leave it, from twenty to two and a half thousand, and mostly of two of the five classes. In a
round each takes the model, trains it over its own rows for some epochs, and pushes what that changed, weighted with its number of rows.
"""

import argparse
from typing import Dict, Tuple

import numpy as np

import raftgrid

FEATURES, CLASSES, ROWS_MIN = 12, 5, 20
TEST_ROWS = 2000
Params = Dict[str, np.ndarray]


def draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """float32[n, 12]: a cloud around a centre for each label; the centres are the same always."""
    centres = np.random.default_rng(2017).standard_normal((CLASSES, FEATURES)) * 1.2
    return (centres[labels] + rng.standard_normal((len(labels), FEATURES))).astype(np.float32)


def rows_of(shard: int) -> int:
    """20, 40, 80, ... and from the eighth on 20 again."""
    return ROWS_MIN * 2 ** (shard % 8)


def data_of(job_seed: int, shard: int) -> Tuple[np.ndarray, np.ndarray]:
    """(features, labels) of a shard: nine in ten rows are of two classes."""
    rng = np.random.default_rng([job_seed, shard])
    count = rows_of(shard)
    own = (shard + np.arange(2)) % CLASSES
    labels = np.where(rng.random(count) < 0.9, rng.choice(own, count), rng.integers(0, CLASSES, count))
    return draw(rng, labels), labels


def log_probabilities(params: Params, features: np.ndarray) -> np.ndarray:
    """float32[n, 5]."""
    scores = features @ params["weights"] + params["bias"]
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def local_epochs(params: Params, features: np.ndarray, labels: np.ndarray, epochs: int, rate: float, seed: int) -> Tuple[Params, float]:
    """(the parameters after plain SGD over minibatches of 20, the mean loss of the last epoch)."""
    own = {name: array.copy() for name, array in params.items()}
    rng = np.random.default_rng(seed)
    loss = 0.0
    for _ in range(epochs):
        order, losses = rng.permutation(len(labels)), []
        for batch in np.split(order, range(ROWS_MIN, len(order), ROWS_MIN)):
            found = log_probabilities(own, features[batch])
            rows = np.arange(len(batch))
            losses.append(-found[rows, labels[batch]].mean())
            error = np.exp(found)
            error[rows, labels[batch]] -= 1
            error *= np.float32(rate / len(batch))
            own["weights"] -= features[batch].T @ error
            own["bias"] -= error.sum(axis=0)
        loss = float(np.mean(losses))
    return own, loss


STRATEGIES = {
    "fedavg": raftgrid.FedAvg(),
    "fedavgm": raftgrid.FedAvgM(lr=0.5, momentum=0.5),
    "fedadam": raftgrid.FedAdam(lr=0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="federated averaging over uneven shards")
    parser.add_argument("--strategy", choices=sorted(STRATEGIES), default="fedavg")
    parser.add_argument("--epochs", type=int, default=3, help="of local training in each round")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of the local training")
    parser.add_argument("--rounds", type=int, default=15, help="without a cluster only")
    parser.add_argument("--shards", type=int, default=8, help="without a cluster only")
    args = parser.parse_args()
    job = raftgrid.init(rounds=args.rounds, num_shards=args.shards)
    params = {"weights": np.zeros((FEATURES, CLASSES), np.float32), "bias": np.zeros(CLASSES, np.float32)}
    job.init_model(params, STRATEGIES[args.strategy])
    for step in job.rounds():
        step.load(params)
        features, labels = data_of(job.seed, step.shard)
        own, loss = local_epochs(params, features, labels, args.epochs, args.learning_rate, step.seed)
        step.push_delta(params, own, weight=len(labels), metrics={"loss": loss})
    job.load_final(params)
    rng = np.random.default_rng([job.seed, 1 << 20])
    labels = rng.integers(0, CLASSES, TEST_ROWS)
    accuracy = float((log_probabilities(params, draw(rng, labels)).argmax(axis=1) == labels).mean())
    job.log("test accuracy", percent=f"{100 * accuracy:.2f}", rows=TEST_ROWS)
    job.log("model", sha256=job.model_sha256)
    job.result({"test_accuracy": accuracy, "rows": [rows_of(shard) for shard in range(job.num_shards)]})


if __name__ == "__main__":
    main()
