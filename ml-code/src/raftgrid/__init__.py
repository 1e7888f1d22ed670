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

from ._version import __version__
from .errors import FrameError, LeaseLost, RaftgridError, TransferError
from .job import Job, Outcome, PushResult, Step, init
from .optimizer import SGD
from .seeds import shard_seed
from ._worker import Worker, run, worker

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
