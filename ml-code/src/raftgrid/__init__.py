"""raftgrid: train models on machines that fail.

The user owns a plain loop; NumPy in, NumPy out::

    import raftgrid

    job = raftgrid.init()                     # environment of workerd; without a cluster: one worker, in process
    params = make_params(job.seed)            # dict[str, ndarray], float32 or float64
    job.init_model(params, optimizer=raftgrid.SGD(lr=0.1, momentum=0.9))
    for step in job.rounds():                 # starts where the job stands, after any crash
        step.load(params)
        grads, n, loss = compute(params, step.shard, step.num_shards, seed=step.seed)
        step.push(grads, weight=n, metrics={"loss": loss})

The result of a job is a function of the script, the job's seed and its number of shards. The number of workers, crashes and the order in which
gradients arrive cannot change a bit of it, as long as ``compute`` gives the same bytes for the same arguments: draw random numbers from
``step.seed`` only.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import FrameError, LeaseLost, RaftgridError, TransferError

if TYPE_CHECKING:
    from ._worker import Worker, run, worker
    from . import schedule
    from .checkpoint import Checkpoint
    from .combine import Clipped, Mean, Median, TrimmedMean
    from .job import Job, Outcome, PushResult, Step, init
    from .optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM
    from .seeds import shard_seed

# Found when they are first used: `raftgrid.agent` and `raftgrid.torchrun` run where there is no NumPy.
_HOMES = {
    "Adam": "optimizer",
    "AdamW": "optimizer",
    "Checkpoint": "checkpoint",
    "Clipped": "combine",
    "DiLoCo": "optimizer",
    "FedAdam": "optimizer",
    "FedAvg": "optimizer",
    "FedAvgM": "optimizer",
    "Job": "job",
    "Mean": "combine",
    "Median": "combine",
    "Outcome": "job",
    "PushResult": "job",
    "SGD": "optimizer",
    "Step": "job",
    "TrimmedMean": "combine",
    "Worker": "_worker",
    "init": "job",
    "run": "_worker",
    "schedule": "schedule",
    "shard_seed": "seeds",
    "worker": "_worker",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_HOMES[name]}", __name__)
    value = module if _HOMES[name] == name == "schedule" else getattr(module, name)
    globals()[name] = value
    return value


__all__ = [
    "Adam",
    "AdamW",
    "Checkpoint",
    "Clipped",
    "DiLoCo",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FrameError",
    "Job",
    "LeaseLost",
    "Mean",
    "Median",
    "Outcome",
    "PushResult",
    "RaftgridError",
    "SGD",
    "Step",
    "TransferError",
    "TrimmedMean",
    "Worker",
    "__version__",
    "init",
    "run",
    "schedule",
    "shard_seed",
    "worker",
]
