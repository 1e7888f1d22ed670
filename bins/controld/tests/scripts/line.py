"""Fits y = 2x + 1 on seeded points; every shard's gradient depends on the model, the shard and the seed only."""
import numpy as np

import raftgrid


def main() -> None:
    job = raftgrid.init()
    params = {"w": np.zeros(2, dtype=np.float32)}
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1, momentum=0.5))
    for step in job.rounds():
        step.load(params)
        x = np.random.default_rng(step.seed).uniform(-1.0, 1.0, 256).astype(np.float32)
        error = params["w"][0] * x + params["w"][1] - (2.0 * x + 1.0)
        grad = np.array([np.mean(error * x), np.mean(error)], dtype=np.float32)
        step.push({"w": grad}, weight=256, metrics={"loss": float(np.mean(error * error))})


if __name__ == "__main__":
    main()
