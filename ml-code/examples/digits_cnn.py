"""Handwritten digits, a small convolutional network in JAX: parameters and gradients are trees, as JAX has them.

Alone, in this process:  python digits_cnn.py
On a cluster:            gridctl train digits_cnn.py --name cnn --shards 4 --workers 2 --rounds 80 --watch

Data: scikit-learn's `load_digits`, 1,797 images of 8 x 8 pixels. Every fifth row is held out for the test; shard s of S has the training rows s,
s + S, s + 2S, ... A step is the gradient over a minibatch drawn from `step.seed`.
"""

import argparse
import os
from typing import Any, Tuple

# One thread: how XLA splits a sum over threads would change its last bits from machine to machine.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import raftgrid

CHANNELS, CLASSES, SIDE = 16, 10, 8
TEST_EVERY = 5


def load_data() -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train images float32[n, 8, 8, 1] from 0 to 1, train labels int64[n], test images, test labels)."""
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    test = np.arange(len(images)) % TEST_EVERY == 0
    return images[~test], digits.target[~test], images[test], digits.target[test]


def make_params(seed: int) -> Any:
    """Two convolutions of 3 x 3 and a dense layer, float32, a function of the seed."""
    rng = np.random.default_rng(seed)

    def layer(*shape: int) -> Any:
        scale = np.sqrt(2.0 / np.prod(shape[:-1]))
        return {"kernel": jnp.asarray(rng.standard_normal(shape) * scale, jnp.float32), "bias": jnp.zeros(shape[-1])}

    return {
        "convolutions": [layer(3, 3, 1, CHANNELS), layer(3, 3, CHANNELS, CHANNELS)],
        "dense": layer((SIDE // 4) ** 2 * CHANNELS, CLASSES),
    }


def scores(params: Any, images: jax.Array) -> jax.Array:
    """float32[n, 10], before the softmax."""
    hidden = images
    for layer in params["convolutions"]:
        hidden = jax.lax.conv_general_dilated(hidden, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        hidden = jax.nn.relu(hidden + layer["bias"])
        hidden = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return hidden.reshape(len(images), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]


def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores(params, images)), labels[:, None], axis=1).mean()


def accuracy(params: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images, 0 to 1, whose highest score is that of their label."""
    return float((np.asarray(jax.jit(scores)(params, images)).argmax(axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="train a small convolutional network on handwritten digits")
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=128, help="rows per step, drawn from the step's seed")
    parser.add_argument("--rounds", type=int, default=80, help="without a cluster only")
    parser.add_argument("--shards", type=int, default=4, help="without a cluster only")
    args = parser.parse_args()
    images, labels, test_images, test_labels = load_data()
    gradient = jax.jit(jax.value_and_grad(loss))
    job = raftgrid.init(rounds=args.rounds, num_shards=args.shards)
    params = make_params(job.seed)
    schedule = raftgrid.schedule.Cosine(decay_rounds=max(1, job.num_rounds), warmup_rounds=2)
    job.init_model(params, raftgrid.Adam(lr=args.learning_rate), schedule=schedule)
    for step in job.rounds():
        params = step.load(params)
        own = np.arange(step.shard, len(labels), step.num_shards)
        drawn = np.random.default_rng(step.seed).choice(own, size=min(args.batch, len(own)), replace=False)
        value, grads = gradient(params, images[drawn], labels[drawn])
        metrics = {"loss": float(value)}
        if step.shard == 0:
            metrics["test_accuracy"] = accuracy(params, test_images, test_labels)  # of the model that this round begins with
        step.push(grads, weight=len(drawn), metrics=metrics)
    params = job.load_final(params)
    found = accuracy(params, test_images, test_labels)
    job.log("test accuracy", percent=f"{100 * found:.2f}", rows=len(test_labels))
    job.log("model", sha256=job.model_sha256)
    job.result({"test_accuracy": found, "test_rows": len(test_labels)})


if __name__ == "__main__":
    main()
