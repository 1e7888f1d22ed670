"""Linear regression on scikit-learn's diabetes data, by Adam over shards, held against the exact least squares.

Alone, in this process:  python linear_diabetes.py
On a cluster:            gridctl train linear_diabetes.py --name diabetes --shards 4 --workers 2 --rounds 200 --watch

Data: 442 patients, 10 measurements each, and how far the disease went in a year; inside the package. Every fifth row is held out for the test.
Shard s of S has the training rows s, s + S, s + 2S, ...
"""

import argparse
from typing import Dict, Tuple

import numpy as np
from sklearn.datasets import load_diabetes

import raftgrid

TEST_EVERY = 5
Params = Dict[str, np.ndarray]


def load_data() -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train features float64[n, 10], train targets float64[n], test features, test targets); standardised by the training rows."""
    data = load_diabetes()
    test = np.arange(len(data.target)) % TEST_EVERY == 0

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values[~test].mean(axis=0)) / values[~test].std(axis=0)

    features, targets = standard(data.data), standard(data.target)
    return features[~test], targets[~test], features[test], targets[test]


def predict(params: Params, features: np.ndarray) -> np.ndarray:
    """float64[n]."""
    return features @ params["weights"] + params["bias"]


def gradient(params: Params, features: np.ndarray, targets: np.ndarray) -> Tuple[Params, float]:
    """Gradient of the mean squared error over the rows, and that error."""
    error = predict(params, features) - targets
    scale = 2.0 / len(targets)
    return {"weights": scale * (features.T @ error), "bias": np.asarray(scale * error.sum())}, float((error**2).mean())


def r_squared(predicted: np.ndarray, targets: np.ndarray) -> float:
    """1: exact; 0: no better than the mean."""
    return float(1.0 - ((predicted - targets) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="linear regression on the diabetes data")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=200, help="without a cluster only")
    parser.add_argument("--shards", type=int, default=4, help="without a cluster only")
    args = parser.parse_args()
    features, targets, test_features, test_targets = load_data()
    job = raftgrid.init(rounds=args.rounds, num_shards=args.shards)
    params = {"weights": np.zeros(features.shape[1]), "bias": np.zeros(())}
    schedule = raftgrid.schedule.Cosine(decay_rounds=max(1, job.num_rounds), final_factor=0.01)
    job.init_model(params, raftgrid.Adam(lr=args.learning_rate), schedule=schedule)
    for step in job.rounds():
        step.load(params)
        own = slice(step.shard, None, step.num_shards)
        grads, loss = gradient(params, features[own], targets[own])
        step.push(grads, weight=len(targets[own]), metrics={"loss": loss})
    job.load_final(params)
    exact = np.linalg.lstsq(np.column_stack([features, np.ones(len(features))]), targets, rcond=None)[0]
    found = {
        "test_r_squared": r_squared(predict(params, test_features), test_targets),
        "exact_r_squared": r_squared(predict({"weights": exact[:-1], "bias": exact[-1]}, test_features), test_targets),
        "train_loss": gradient(params, features, targets)[1],
        "exact_loss": gradient({"weights": exact[:-1], "bias": exact[-1]}, features, targets)[1],
    }
    job.log("test", r_squared=f"{found['test_r_squared']:.4f}", of_least_squares=f"{found['exact_r_squared']:.4f}")
    job.log("model", sha256=job.model_sha256)
    job.result(found)


if __name__ == "__main__":
    main()
