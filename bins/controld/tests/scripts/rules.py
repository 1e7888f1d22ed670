"""One of several ways to step, each with a way to encode and a state that goes with the shard. Alone and on a cluster: the same model."""
import sys

import numpy as np

import raftgrid

RULES = {
    "adam": (raftgrid.Adam(lr=0.05), raftgrid.TrimmedMean(0.34), "i8"),
    "adamw": (raftgrid.AdamW(lr=0.05, weight_decay=0.1), None, "f16"),
    "fedadam": (raftgrid.FedAdam(lr=0.1), raftgrid.Clipped(0.5, raftgrid.Median()), "bf16"),
    "fedavgm": (raftgrid.FedAvgM(lr=0.5, momentum=0.5), None, None),
    "diloco": (raftgrid.DiLoCo(lr=0.7, momentum=0.9), raftgrid.Clipped(2.0), None),
    "fedavg": (raftgrid.FedAvg(), None, None),
}


def main() -> None:
    name = sys.argv[1]
    optimizer, combine, encoding = RULES[name]
    schedule = raftgrid.schedule.Cosine(decay_rounds=4, warmup_rounds=2) if name == "adam" else None
    job = raftgrid.init(rounds=6, num_shards=3)
    params = {"w": np.zeros((3, 5), dtype=np.float32), "b": np.full(7, 0.25, dtype=np.float32)}
    job.init_model(params, optimizer=optimizer, schedule=schedule, combine=combine)
    for step in job.rounds():
        step.load(params)
        rng = np.random.default_rng(step.seed)
        velocity = step.state or {key: np.zeros_like(value) for key, value in params.items()}
        target = {key: rng.uniform(-1.0, 1.0, value.shape).astype(np.float32) for key, value in params.items()}
        grads = {key: params[key] - target[key] for key in params}
        velocity = {key: np.float32(0.5) * velocity[key] + grads[key] for key in params}
        weight = 1 + step.shard
        if name.startswith("fed") or name == "diloco":
            after = {key: params[key] - np.float32(0.1) * velocity[key] for key in params}
            step.push_delta(params, after, weight=weight, encoding=encoding, state=velocity)
        else:
            step.push(velocity, weight=weight, encoding=encoding, state=velocity)
    job.load_final(params)
    print("model", job.model_sha256, flush=True)


if __name__ == "__main__":
    main()
