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
    from .job import Job, Outcome, PushResult, Step, init
    from .optimizer import SGD
    from .seeds import shard_seed

# Found when they are first used: `raftgrid.agent` and `raftgrid.torchrun` run where there is no NumPy.
_HOMES = {
    "Job": "job",
    "Outcome": "job",
    "PushResult": "job",
    "SGD": "optimizer",
    "Step": "job",
    "Worker": "_worker",
    "init": "job",
    "run": "_worker",
    "shard_seed": "seeds",
    "worker": "_worker",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


__all__ = [
    "FrameError",
    "Job",
    "LeaseLost",
    "Outcome",
    "PushResult",
    "RaftgridError",
    "SGD",
    "Step",
    "TransferError",
    "Worker",
    "__version__",
    "init",
    "run",
    "shard_seed",
    "worker",
]
