"""As line.py, but each shard takes a while: there is time to stop the worker in the middle of one."""
import pathlib
import sys
import time

import numpy as np

import raftgrid


def main() -> None:
    marks = pathlib.Path(sys.argv[1])
    job = raftgrid.init()
    params = {"w": np.zeros(2, dtype=np.float32)}
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1))
    for step in job.rounds():
        step.load(params)
        (marks / f"began-{step.round}-{step.shard}").touch()
        # The computation itself; the test waits for files, not for this.
        time.sleep(0.3)
        grad = np.full(2, 0.5 + step.shard, dtype=np.float32)
        result = step.push({"w": grad}, weight=1, metrics={"loss": 1.0})
        (marks / f"pushed-{step.round}-{step.shard}-{result.outcome}").touch()


if __name__ == "__main__":
    main()
