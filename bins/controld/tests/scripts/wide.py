"""Draws a vector of 400 kB towards points of its shard: large enough for models, states and gradients to be coded."""
import numpy as np

import raftgrid

PLACES = 100_000


def main() -> None:
    job = raftgrid.init()
    params = {"w": np.zeros(PLACES, dtype=np.float32)}
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1, momentum=0.5))
    for step in job.rounds():
        step.load(params)
        target = np.random.default_rng(step.seed).standard_normal(PLACES, dtype=np.float32)
        step.push({"w": params["w"] - target})


if __name__ == "__main__":
    main()
