"""As line.py, with shards of different pace; what a step loads must be the model that it names."""
import sys
import time

import numpy as np

import raftgrid


def main() -> None:
    slow = int(sys.argv[1])
    job = raftgrid.init()
    params = {"w": np.zeros(2, dtype=np.float32)}
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1))
    loaded = {}
    for step in job.rounds():
        step.load(params)
        # One version is one model, whichever step loads it.
        digest = loaded.setdefault(step.model_version, job.model_sha256)
        if digest != job.model_sha256 or step.model_version > step.round:
            raise SystemExit(f"round {step.round} shard {step.shard} loaded another model {step.model_version}")
        if step.shard == slow:
            time.sleep(0.4)  # the computation itself
        x = np.random.default_rng(step.seed).uniform(-1.0, 1.0, 64).astype(np.float32)
        error = params["w"][0] * x + params["w"][1] - (2.0 * x + 1.0)
        grads = {"w": np.array([np.mean(error * x), np.mean(error)], dtype=np.float32)}
        step.push(grads, weight=64, metrics={"behind": float(step.round - step.model_version)})


if __name__ == "__main__":
    main()
