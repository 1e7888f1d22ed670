"""The function style: the loop is raftgrid's, the user gives what is computed in it."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Tuple

from .job import Job, Step, init as _init
from .combine import Combination
from .optimizer import Optimizer
from .schedule import Schedule

Compute = Callable[[Any, Step], Tuple[Any, float, Mapping[str, float]]]
"""(parameters of this round, step) → (gradients, weight, metrics)."""


class Worker:
    """A function that computes steps. Call it as the function that it is; `run` drives it."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.__name__ = getattr(compute, "__name__", "compute")
        self.__doc__ = compute.__doc__

    def __call__(
        self, params: Any, step: Step
    ) -> Tuple[Any, float, Mapping[str, float]]:
        return self.compute(params, step)


def worker(compute: Compute) -> Worker:
    """Marks a function as the one that computes steps::

        @raftgrid.worker
        def compute(params, step):
            ...
            return grads, num_samples, {"loss": loss}

        raftgrid.run(compute, init=lambda seed: make_params(seed), optimizer=raftgrid.SGD(lr=0.1))
    """
    return Worker(compute)


def run(
    compute: Compute,
    init: Callable[[int], Any],
    optimizer: Optional[Optimizer] = None,
    finish: Optional[Callable[[Any, Job], Optional[Mapping[str, Any]]]] = None,
    schedule: Optional[Schedule] = None,
    combine: Optional[Combination] = None,
    **settings: Optional[int],
) -> Any:
    """Runs the whole job and returns the final model.

    init: job seed → first parameters, in any form that `Job.init_model` takes; `compute` and `finish` get them in that form. optimizer, schedule, combine: as `Job.init_model` takes them. finish: (final parameters, job) → what `job.result` gets, or None. settings: those of `raftgrid.init`.
    Raises what `init`, `rounds`, `load` and `push` raise.
    """
    job = _init(**settings)
    params = init(job.seed)
    job.init_model(params, optimizer=optimizer, schedule=schedule, combine=combine)
    for step in job.rounds():
        params = step.load(params)
        grads, weight, metrics = compute(params, step)
        step.push(grads, weight=weight, metrics=metrics)
    params = job.load_final(params)
    result = finish(params, job) if finish is not None else None
    if result is not None:
        job.result(result)
    return params
