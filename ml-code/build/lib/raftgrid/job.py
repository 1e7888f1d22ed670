"""A job as the script sees it: its rounds, its model, its result."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from typing import Any, Dict, Iterator, Mapping, Optional

import numpy as np

from . import _frame
from ._agent import AgentBackend, parse_config
from ._backend import Backend, JobInfo, Outcome, PushResult, StepInfo
from ._frame import Params
from ._limits import METRICS_BYTES_MAX, RESULT_BYTES_MAX, SHOULD_STOP_CACHE_S
from ._local import LocalBackend
from .errors import RaftgridError
from .optimizer import SGD

__all__ = ["Job", "Outcome", "PushResult", "Step", "init"]

DEFAULT_ROUNDS = 20


class Step:
    """One (round, shard) to compute. The result must depend on nothing but the model, `round`, `shard`, `num_shards` and `seed`."""

    def __init__(self, job: "Job", info: StepInfo) -> None:
        self._job = job
        self._info = info

    @property
    def round(self) -> int:
        """The round, from 0."""
        return self._info.round

    @property
    def shard(self) -> int:
        """The shard, from 0 to num_shards - 1. Which part of the data that is, the script decides."""
        return self._info.shard

    @property
    def num_shards(self) -> int:
        """Shards of the job. Never changes, whatever the number of workers."""
        return self._info.num_shards

    @property
    def seed(self) -> int:
        """63 bits, a function of (job seed, round, shard) only: see `raftgrid.shard_seed`."""
        return self._info.seed

    @property
    def model_version(self) -> int:
        """The version of the model that this step starts from; equal to the round."""
        return self._info.model_version

    def load(self, params: Optional[Params] = None) -> Params:
        """Brings the model of this round into `params`, in place, and returns it.

        params: arrays with the model's names, shapes and dtypes; they are overwritten. An empty dict is filled with new arrays; None makes a new
        dict. Raises FrameError if they are not the model's, LeaseLost if this attempt was fenced.
        """
        return self._job._load(self._info.model_version, self._info.model_digest, params)

    def push(
        self, grads: Mapping[str, np.ndarray], weight: float = 1.0, metrics: Optional[Mapping[str, float]] = None
    ) -> PushResult:
        """Sends this step's gradient; returns when it is durable and in the ledger, or when it is known that it will not be.

        grads: for each parameter an array of its shape and dtype. weight: above 0, say the number of samples that the gradient is the mean of.
        metrics: numbers, averaged over the round with the same weights; those that are not finite are left out.
        Safe to repeat. Raises LeaseLost if this attempt was fenced, FrameError for arrays that no frame can hold, ValueError for a weight.
        """
        weight = float(weight)
        if not math.isfinite(weight) or weight <= 0.0:
            raise ValueError(f"the weight is {weight}: it must be above 0 and finite")
        text = _json({name: _number(name, value) for name, value in (metrics or {}).items()}, METRICS_BYTES_MAX, "metrics")
        return self._job._backend.push(self._info, _frame.to_bytes(grads), weight, text)

    def __repr__(self) -> str:
        return f"Step(round={self.round}, shard={self.shard}/{self.num_shards})"


class Job:
    """Made by `raftgrid.init`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._info = backend.info
        self._model: Optional[bytes] = None
        self._model_version = -1
        self._stop_checked_s = -math.inf
        self._stop = False

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

    def init_model(self, params: Mapping[str, np.ndarray], optimizer: Optional[SGD] = None) -> PushResult:
        """Offers the first model. Made once, by one of the workers; elsewhere, and after a crash, only compared.

        params: float32 or float64 arrays, the same in every process: make them from `job.seed`. optimizer: SGD() if None; the one that counts is
        that of the worker whose model was taken. MISMATCH means that this process made other bytes: training goes on from the model that was
        taken, but the job will not be reproducible. Raises RaftgridError if the model is refused (empty, not finite).
        """
        result = self._backend.init_model(_frame.to_bytes(params), optimizer or SGD())
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

    def load_final(self, params: Optional[Params] = None) -> Params:
        """The model after the last round, as `Step.load` gives it. Call it after `rounds` has ended."""
        return self._load(self._backend.final_version(), b"", params)

    def result(self, values: Mapping[str, Any]) -> None:
        """Sets the task's result: a JSON object of at most 128 KiB, kept if the process ends with 0. The last call counts."""
        self._backend.set_result(_json(dict(values), RESULT_BYTES_MAX, "result"))

    def log(self, message: str, **fields: Any) -> None:
        """A line in the task's log: the message, then name=value."""
        print(" ".join([str(message), *(f"{name}={value}" for name, value in fields.items())]), flush=True)

    def close(self) -> None:
        """Ends the connection. The end of the process does it too."""
        self._backend.close()

    def _load(self, version: Optional[int], digest: bytes, params: Optional[Params]) -> Params:
        if version is None or version != self._model_version or self._model is None:
            self._model_version, self._model = self._backend.get_model(version, digest)
        return _frame.fill({} if params is None else params, _frame.from_bytes(self._model))


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


def _number(name: str, value: Any) -> Optional[float]:
    number = float(value)
    return number if math.isfinite(number) else None


def _json(values: Any, bytes_max: int, what: str) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        raise TypeError(f"{what}: {type(value).__name__} is not JSON")

    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=plain, allow_nan=False)
    if len(text.encode()) > bytes_max:
        raise ValueError(f"{what}: {len(text.encode())} bytes of JSON, the limit is {bytes_max}")
    return text
