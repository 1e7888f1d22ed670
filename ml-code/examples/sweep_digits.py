"""Which learning rate and weight decay suit softmax regression on handwritten digits? One task for each combination.

Alone, one combination:  python sweep_digits.py --learning-rate 0.5 --decay 0.001
On a cluster, twelve:    gridctl job submit sweep_digits.toml --wait
                         gridctl task list --job sweep-digits --output json     (the result of each)

Data: scikit-learn's `load_digits`, 1,797 images of 8 x 8 pixels. Every fifth row is held out; a task trains on the others and tells its accuracy
on those. Nothing is drawn: a combination has one result.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import raftgrid

CLASSES = 10
HELD_OUT_EVERY = 5
STEPS_MAX = 10_000


def options(config: dict) -> argparse.Namespace:
    """Flags; the sweep's parameters give their defaults."""
    parser = argparse.ArgumentParser(description="softmax regression on handwritten digits")
    parser.add_argument("--learning-rate", type=float, default=config.get("learning_rate", 0.5))
    parser.add_argument("--decay", type=float, default=config.get("decay", 0.0), help="weight decay of each step")
    parser.add_argument("--steps", type=int, default=config.get("steps", 200))
    args = parser.parse_args()
    if not (args.learning_rate > 0 and 0 <= args.decay < 1 and 1 <= args.steps <= STEPS_MAX):
        parser.error(f"--learning-rate above 0, --decay from 0 to below 1, --steps from 1 to {STEPS_MAX}")
    return args


def probabilities(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[n, 10] of float64[n, 65] (a column of ones last) and float64[65, 10]."""
    scores = pixels @ weights
    scores -= scores.max(axis=1, keepdims=True)
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def accuracy(pixels: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Share of rows, 0 to 1, whose likeliest class is their label."""
    return float((probabilities(pixels, weights).argmax(axis=1) == labels).mean())


def main() -> None:
    job = raftgrid.init()
    args = options(job.config)
    digits = load_digits()
    pixels = np.hstack([digits.data / 16.0, np.ones((len(digits.data), 1))])
    held_out = np.arange(len(pixels)) % HELD_OUT_EVERY == 0
    train, labels = pixels[~held_out], digits.target[~held_out]
    wanted = np.eye(CLASSES)[labels]
    weights = np.zeros((train.shape[1], CLASSES))
    for _ in range(args.steps):
        if job.should_stop:
            raise SystemExit("stopped")
        gradient = train.T @ (probabilities(train, weights) - wanted) / len(train)
        weights = (1.0 - args.decay) * weights - args.learning_rate * gradient
    job.result(
        {
            "learning_rate": args.learning_rate,
            "decay": args.decay,
            "train_accuracy": accuracy(train, labels, weights),
            "held_out_accuracy": accuracy(pixels[held_out], digits.target[held_out], weights),
        }
    )


if __name__ == "__main__":
    main()
