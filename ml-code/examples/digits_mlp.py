"""Handwritten digits, an MLP 64-64-10 (`--hidden` for another middle) in NumPy, data-parallel over shards.

Alone, in this process:  python digits_mlp.py
On a cluster:            gridctl train digits_mlp.py --name digits --shards 6 --workers 3 --rounds 60 --watch

Data: scikit-learn's `load_digits`, 1,797 images of 8 x 8 pixels, real scans, inside the package. Every fifth row is held out for the test; shard
s of S has the training rows s, s + S, s + 2S, ... A step is the gradient of the mean cross-entropy over its whole shard (or over a minibatch
drawn from `step.seed`), weighted by its number of rows: the mean over shards is the gradient over all rows.
"""

import argparse
from typing import Dict, Tuple

import numpy as np
from sklearn.datasets import load_digits

import raftgrid

PIXELS, CLASSES = 64, 10
TEST_EVERY = 5
Params = Dict[str, np.ndarray]


def load_data() -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train pixels float32[n, 64] from 0 to 1, train labels int64[n], test pixels, test labels): the same rows always."""
    digits = load_digits()
    pixels = np.ascontiguousarray(digits.data, dtype=np.float32) / np.float32(16)
    labels = digits.target.astype(np.int64)
    test = np.arange(len(labels)) % TEST_EVERY == 0
    return pixels[~test], labels[~test], pixels[test], labels[test]


def make_params(seed: int, units: int) -> Params:
    """First weights of a network with so many hidden units, float32, a function of the seed (He et al., 2015)."""
    rng = np.random.default_rng(seed)

    def weights(inputs: int, outputs: int) -> np.ndarray:
        return (rng.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)).astype(np.float32)

    return {
        "w1": weights(PIXELS, units),
        "b1": np.zeros(units, np.float32),
        "w2": weights(units, CLASSES),
        "b2": np.zeros(CLASSES, np.float32),
    }


def forward(params: Params, pixels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(hidden float32[n, units] after ReLU, log-probabilities float32[n, 10])."""
    hidden = np.maximum(pixels @ params["w1"] + params["b1"], 0)
    scores = hidden @ params["w2"] + params["b2"]
    scores -= scores.max(axis=1, keepdims=True)
    return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def gradient(params: Params, pixels: np.ndarray, labels: np.ndarray) -> Tuple[Params, Dict[str, float]]:
    """Gradient of the mean cross-entropy over the rows, shapes and dtypes of `params`; loss and accuracy on the same rows."""
    hidden, log_probabilities = forward(params, pixels)
    rows = np.arange(len(labels))
    d_scores = np.exp(log_probabilities)
    d_scores[rows, labels] -= 1
    d_scores /= np.float32(len(labels))
    d_hidden = (d_scores @ params["w2"].T) * (hidden > 0)
    grads = {
        "w1": pixels.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_scores,
        "b2": d_scores.sum(axis=0),
    }
    loss = -log_probabilities[rows, labels].mean()
    return grads, {"loss": float(loss), "accuracy": accuracy(log_probabilities, labels)}


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows, 0 to 1, whose highest score is that of their label."""
    return float((scores.argmax(axis=1) == labels).mean())


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="train a small network on handwritten digits")
    parser.add_argument("--hidden", type=int, default=64, help="units of the hidden layer")
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=0, help="rows per step, drawn from the step's seed; 0: the whole shard")
    parser.add_argument("--rounds", type=int, default=60, help="without a cluster only")
    parser.add_argument("--shards", type=int, default=6, help="without a cluster only")
    return parser.parse_args()


def main() -> None:
    args = options()
    pixels, labels, test_pixels, test_labels = load_data()
    job = raftgrid.init(rounds=args.rounds, num_shards=args.shards)
    params = make_params(job.seed, args.hidden)
    job.init_model(params, optimizer=raftgrid.SGD(lr=args.learning_rate, momentum=args.momentum))
    for step in job.rounds():
        step.load(params)
        mine_pixels, mine_labels = pixels[step.shard :: step.num_shards], labels[step.shard :: step.num_shards]
        if 0 < args.batch < len(mine_labels):
            drawn = np.random.default_rng(step.seed).choice(len(mine_labels), size=args.batch, replace=False)
            mine_pixels, mine_labels = mine_pixels[drawn], mine_labels[drawn]
        grads, metrics = gradient(params, mine_pixels, mine_labels)
        step.push(grads, weight=len(mine_labels), metrics=metrics)
    job.load_final(params)
    test_accuracy = accuracy(forward(params, test_pixels)[1], test_labels)
    job.log("test accuracy", percent=f"{100 * test_accuracy:.2f}", rows=len(test_labels))
    job.log("model", sha256=job.model_sha256)
    job.result({"test_accuracy": test_accuracy, "test_rows": len(test_labels)})


if __name__ == "__main__":
    main()
