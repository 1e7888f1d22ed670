"""A job as the script sees it: its rounds, its model, its result."""

from __future__ import annotations

import hashlib
import math
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, TypeVar, overload

import numpy as np

from . import _artifacts, _frame, _torch, _trees
from ._agent import AgentBackend, parse_config
from ._backend import Backend, JobInfo, Outcome, PushResult, StepInfo
from ._frame import Params
from ._limits import RESULT_BYTES_MAX, SHOULD_STOP_CACHE_S
from ._local import LocalBackend
from ._plane import of_environment
from ._round import RoundRule
from ._sealed import Buffer
from ._step import Step, to_json
from .checkpoint import Checkpoints, ClusterShelf, FolderShelf
from .combine import Combination
from .errors import RaftgridError
from .kv import Keys
from .optimizer import SGD, Optimizer
from .schedule import Schedule

__all__ = ["Job", "Outcome", "PushResult", "Step", "init"]

DEFAULT_ROUNDS = 20
P = TypeVar("P")


class Job:
    """Made by `raftgrid.init`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._info = backend.info
        self._model: Optional[Buffer] = None
        self._model_version = -1
        self._stop_checked_s = -math.inf
        self._stop = False
        self._first_buffers: Dict[str, np.ndarray] = {}
        self._module_seen = False
        self._checkpoints: Optional[Checkpoints] = None

    @property
    def job_id(self) -> str:
        """The job's id; "local" without a cluster."""
        return self._info.job_id

    @property
    def task_id(self) -> str:
        """The task's id; "local" without a cluster."""
        return self._info.task_id

    @property
    def node_id(self) -> str:
        """The worker node that runs this process."""
        return self._info.node_id

    @property
    def attempt(self) -> int:
        """Which attempt of the task this is, from 1. Nothing that is pushed may depend on it."""
        return self._info.attempt

    @property
    def num_shards(self) -> int:
        """Shards of the job; 0 for a task that is not a `train` job's."""
        return self._info.num_shards

    @property
    def num_rounds(self) -> int:
        """Rounds of the job."""
        return self._info.rounds

    @property
    def seed(self) -> int:
        """The job's seed. Make the first parameters from it."""
        return self._info.seed

    @property
    def rank(self) -> int:
        """RANK of the environment, else 0. Only for what does not enter a gradient, such as who prints."""
        return int(os.environ.get("RANK", "0") or 0)

    @property
    def config(self) -> Dict[str, Any]:
        """The job's configuration (a JSON object)."""
        return dict(self._info.config)

    @property
    def is_local(self) -> bool:
        """True without a cluster."""
        return isinstance(self._backend, LocalBackend)

    @property
    def should_stop(self) -> bool:
        """True when the task is cancelled or its node drained: save what is worth it and end. Cheap enough for an inner loop."""
        now_s = time.monotonic()
        if now_s - self._stop_checked_s >= SHOULD_STOP_CACHE_S:
            self._stop = self._backend.should_stop()
            self._stop_checked_s = now_s
        return self._stop

    @property
    def model_sha256(self) -> str:
        """SHA-256, in hexadecimal digits, of the model that was loaded last (its canonical file); "" before the first."""
        return "" if self._model is None else hashlib.sha256(self._model).hexdigest()

    @property
    def checkpoint(self) -> Checkpoints:
        """`job.checkpoint.save(params, state)` and `.load(params)`, for scripts that own their loop: versions of this task's checkpoints, durable, and
        fenced by its lease. See `raftgrid.checkpoint`."""
        if self._checkpoints is None:
            folder = Path(os.environ.get("RAFTGRID_CHECKPOINTS", "") or "checkpoints")
            self._checkpoints = Checkpoints(FolderShelf(folder) if self.is_local else ClusterShelf(self.task_id))
        return self._checkpoints

    @property
    def kv(self) -> Keys:
        """Replicated keys, written under this task's lease. Raises RaftgridError without a cluster."""
        self._needs_cluster("job.kv")
        return Keys.of_task()

    def artifact(self, name: str) -> bytes:
        """The bytes of an artifact of the cluster: an id, a name, `JOB/model@latest`, `JOB/model@7`. Verified; held in memory. Raises RaftgridError
        if there is none, or without a cluster."""
        self._needs_cluster("job.artifact")
        data = _artifacts.get(of_environment(), name)
        if data is None:
            raise RaftgridError(f"there is no artifact {name!r}")
        return data

    def init_model(
        self,
        params: Any,
        optimizer: Optional[Optimizer] = None,
        *,
        schedule: Optional[Schedule] = None,
        combine: Optional[Combination] = None,
    ) -> PushResult:
        """Offers the first model. Made once, by one of the workers; elsewhere, and after a crash, only compared.

        params: float32 or float64 arrays in a dict or a tree, or a torch.nn.Module (its trained parameters), the same in every process: make them
        from `job.seed`. optimizer: SGD() if None. schedule: what its learning rate is multiplied with in each round (`raftgrid.schedule`). combine:
        how the contributions of a round become one; None: as the job's spec says, which is Mean() unless it says another. What counts is what the worker named whose model was taken.

        MISMATCH means that this process made other bytes: training goes on from the model that was taken, but the job will not be reproducible.
        Raises RaftgridError if the model is refused (empty, not finite), ValueError for a schedule with FedAvg.
        """
        rule = RoundRule(optimizer or SGD(), schedule, None if combine is None else combine.rule())
        if _trees.is_module(params):
            self._keep_first_buffers(params)
        result = self._backend.init_model(_frame.to_file(_trees.values(params)), rule)
        if result.outcome is Outcome.REJECTED:
            raise RaftgridError(f"the model was refused: {result.reason}")
        if result.outcome is Outcome.MISMATCH:
            self.log("the first model differs from the one that the job has", reason=result.reason)
        return result

    def rounds(self) -> Iterator[Step]:
        """The steps of this worker, one after another, from where the job stands; ends when the job needs no more of it, or when the task is to
        stop. Waits for work. Raises LeaseLost if this attempt was fenced."""
        while True:
            info = self._backend.next_step()
            if info is None:
                return
            yield Step(self, info)

    @overload
    def load_final(self, params: None = None) -> Params: ...
    @overload
    def load_final(self, params: P) -> P: ...
    def load_final(self, params: Any = None) -> Any:
        """The model after the last round, as `Step.load` gives it. Call it after `rounds` has ended.

        Buffers are each shard's own and no part of the model: a module gets those that it had at `init_model`. A batch norm wants a pass over data in
        training mode before it is evaluated.
        """
        filled = self._load(self._backend.final_version(), b"", params)
        if _trees.is_module(params):
            _torch.set_buffers(params, self._first_buffers)
        return filled

    def result(self, values: Mapping[str, Any]) -> None:
        """Sets the task's result: a JSON object of at most 128 KiB, kept if the process ends with 0. The last call counts."""
        self._backend.set_result(to_json(dict(values), RESULT_BYTES_MAX, "result"))

    def log(self, message: str, **fields: Any) -> None:
        """A line in the task's log: the message, then name=value."""
        print(" ".join([str(message), *(f"{name}={value}" for name, value in fields.items())]), flush=True)

    def close(self) -> None:
        """Ends the connection. The end of the process does it too."""
        self._backend.close()

    def _load(self, version: Optional[int], digest: bytes, params: Any) -> Any:
        if version is None or version != self._model_version or self._model is None:
            # The one before goes first: a large model is not in memory twice.
            self._model_version, self._model = -1, None
            self._model_version, self._model = self._backend.get_model(version, digest)
        return _trees.fill({} if params is None else params, _frame.from_bytes(self._model))

    def _arrays(self, info: StepInfo) -> Params:
        """The model that this step starts from."""
        found: Params = self._load(info.model_version, info.model_digest, None)
        return found

    def _keep_first_buffers(self, module: Any) -> None:
        """Of the first module that is seen, before any step changed them."""
        if not self._module_seen:
            self._first_buffers, self._module_seen = _torch.buffers(module), True

    def _needs_cluster(self, what: str) -> None:
        if self.is_local:
            raise RaftgridError(f"{what} needs a cluster: this process runs without one")


def init(*, rounds: Optional[int] = None, num_shards: Optional[int] = None, seed: Optional[int] = None) -> Job:
    """Connects to workerd's agent, or starts a job in this process if there is none (RAFTGRID_AGENT is not set).

    The arguments are for runs without a cluster only; a cluster's job has them in its spec. There RAFTGRID_ROUNDS, RAFTGRID_NUM_SHARDS and
    RAFTGRID_SEED win over them; the defaults are 20 rounds, 1 shard, seed 0. Waits for an agent that does not answer yet. Raises RaftgridError
    if it refuses the token.
    """
    agent = os.environ.get("RAFTGRID_AGENT", "")
    if agent:
        return Job(AgentBackend(agent, os.environ.get("RAFTGRID_TOKEN", "")))
    info = JobInfo(
        job_id="local",
        task_id="local",
        attempt=1,
        num_shards=_setting("RAFTGRID_NUM_SHARDS", num_shards, 1, at_least=1),
        rounds=_setting("RAFTGRID_ROUNDS", rounds, DEFAULT_ROUNDS, at_least=0),
        seed=_setting("RAFTGRID_SEED", seed, 0, at_least=0),
        node_id="local",
        config=parse_config(os.environ.get("RAFTGRID_CONFIG", "")),
    )
    return Job(LocalBackend(info))


def _setting(name: str, given: Optional[int], default: int, at_least: int) -> int:
    text = os.environ.get(name, "")
    try:
        value = int(text) if text else (default if given is None else int(given))
    except ValueError:
        raise RaftgridError(f"{name} is {text!r}: a whole number is needed") from None
    if value < at_least:
        raise RaftgridError(f"{name} is {value}: at least {at_least} is needed")
    return value
