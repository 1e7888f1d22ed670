"""As line.py, but the gradient of shard 1 depends on which process computes it: it must be found out."""
import os

import numpy as np

import raftgrid


def main() -> None:
    job = raftgrid.init()
    params = {"w": np.zeros(2, dtype=np.float32)}
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1))
    for step in job.rounds():
        step.load(params)
        grad = np.ones(2, dtype=np.float32)
        if step.shard == 1:
            attempt = os.environ["RAFTGRID_TASK"] + os.environ["RAFTGRID_ATTEMPT"]
            grad[0] += np.float32(sum(attempt.encode()) % 997)
        step.push({"w": grad}, weight=1, metrics={"loss": 0.0})


if __name__ == "__main__":
    main()
