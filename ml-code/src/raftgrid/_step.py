"""One step of a train job as the script sees it: a model comes down, a contribution goes up."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, TypeVar, overload

import numpy as np

from . import _contribution, _frame, _torch, _trees, _values
from ._backend import PushResult, StepInfo
from ._frame import Params
from ._limits import METRICS_BYTES_MAX

if TYPE_CHECKING:
    from .job import Job

P = TypeVar("P")
ENCODINGS = {"f16": "F16", "bf16": "BF16", "i8": "I8"}
"""What `encoding` may be, and the dtype of the file that goes up."""


class Step:
    """One (round, shard) to compute. The result must depend on nothing but the model, `round`, `shard`, `num_shards` and `seed`."""

    def __init__(self, job: "Job", info: StepInfo) -> None:
        self._job = job
        self._info = info
        self._found: Optional[Dict[str, Any]] = None

    @property
    def round(self) -> int:
        """The round, from 0. In a job of mode async the version of the model that this step starts from: in which round its contribution counts is
        known when it comes."""
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
        """The version of the model that this step starts from, which `load` brings: the round's own, or in a job of mode bounded an older one."""
        return self._info.model_version

    @property
    def state(self) -> Any:
        """What was pushed as `state` beside this shard's contribution to the round before; None in round 0, or if nothing was. It goes with the
        shard, whichever worker computes it next: a loader's position, an inner optimiser. In a job whose rounds do not wait for all shards it is
        that of the shard's last contribution, as long as the job keeps that."""
        return self._kept().get("state")

    @overload
    def load(self, params: None = None) -> Params: ...
    @overload
    def load(self, params: P) -> P: ...
    def load(self, params: Any = None) -> Any:
        """Brings the model of this round into `params` and returns it.

        params: a dict of NumPy arrays, overwritten in place (an empty one is filled; None makes a new one). A torch.nn.Module: its parameters are
        overwritten, their gradients forgotten, and its buffers, such as running means, become those that this shard had after its last step, or at
        first those of `job.init_model`. A tree of arrays (JAX's, nested dicts and lists): a new tree is returned, `params = step.load(params)`.

        Names, shapes and dtypes must be the model's. Raises FrameError if they are not, LeaseLost if this attempt was fenced.
        """
        if _trees.is_module(params):
            self._job._keep_first_buffers(params)
        filled = self._job._load(self._info.model_version, self._info.model_digest, params)
        if _trees.is_module(params):
            _torch.set_buffers(params, self._kept().get("buffers", self._job._first_buffers))
        return filled

    def push(
        self,
        grads: Any,
        weight: float = 1.0,
        metrics: Optional[Mapping[str, float]] = None,
        *,
        encoding: Optional[str] = None,
        state: Any = None,
        buffers: bool = True,
    ) -> PushResult:
        """Sends this step's gradient; returns when it is durable and in the ledger, or when it is known that it will not be.

        grads: for each parameter an array of its shape and dtype, in a dict or a tree; of a torch.nn.Module the gradients of its parameters are
        taken. weight: above 0, say the number of samples that the gradient is the mean of. metrics: numbers, averaged over the round with the same
        weights; those that are not finite are left out. encoding: "f16", "bf16" or "i8" (with one scale a tensor) sends float32 arrays in that form,
        rounded; None as they are. state: nested dicts, lists and tuples with arrays, numbers and texts, which the next step of this shard finds as
        `step.state`. buffers: whether a module's buffers go with the shard as well.

        Safe to repeat. Raises LeaseLost if this attempt was fenced, FrameError for arrays that no frame or encoding can hold, ValueError for a weight
        or an encoding.
        """
        kept: Dict[str, Any] = {} if state is None else {"state": state}
        if buffers and _trees.is_module(grads):
            found = _torch.buffers(grads)
            if found:
                kept["buffers"] = found
        return self._push(_trees.gradients(grads), weight, metrics, encoding, kept)

    def push_delta(
        self,
        before: Any,
        after: Any,
        weight: float = 1.0,
        metrics: Optional[Mapping[str, float]] = None,
        *,
        encoding: Optional[str] = None,
        state: Any = None,
    ) -> PushResult:
        """Sends what local steps did, for FedAvg, FedAvgM, FedAdam, DiLoCo and SGD over local steps: `before - after`, which points uphill as a
        gradient does.

        before: the parameters that the local steps began with, those of the round; None takes the model of the round itself. after: those that they
        ended with. Each a dict of arrays, a torch.nn.Module or a tree. The rest as for `push`; a module's buffers are not sent.

        Raises FrameError where names, shapes or dtypes differ, and what `push` raises.
        """
        end = _trees.values(after)
        start = self._job._arrays(self._info) if before is None else _trees.values(before)
        wrong = _frame.difference(start, end)
        if wrong is not None:
            raise _frame.FrameError(f"the parameters after the local steps are not those before: {wrong}")
        with np.errstate(all="ignore"):  # what is not finite is refused, with its name
            delta = {name: np.asarray(array - end[name]) for name, array in start.items()}
        return self._push(delta, weight, metrics, encoding, {} if state is None else {"state": state})

    def _push(
        self,
        contribution: Params,
        weight: float,
        metrics: Optional[Mapping[str, float]],
        encoding: Optional[str],
        kept: Dict[str, Any],
    ) -> PushResult:
        weight = float(weight)
        if not math.isfinite(weight) or weight <= 0.0:
            raise ValueError(f"the weight is {weight}: it must be above 0 and finite")
        if encoding is not None and encoding not in ENCODINGS:
            raise ValueError(f"encoding is {encoding!r}: {', '.join(ENCODINGS)} or None")
        text = to_json({name: _number(name, value) for name, value in (metrics or {}).items()}, METRICS_BYTES_MAX, "metrics")
        if encoding is None:
            frame = _frame.to_file(contribution)
        else:
            frame = _frame.File([_contribution.encode(_frame.canonical(contribution), ENCODINGS[encoding])])
        state = _values.pack(kept, {}) if kept else None
        return self._job._backend.push(self._info, frame, weight, text, state)

    def _kept(self) -> Dict[str, Any]:
        if self._found is None:
            data = self._job._backend.shard_state(self._info)
            self._found = {} if data is None else dict(_values.unpack(data)[0])
        return self._found

    def __repr__(self) -> str:
        return f"Step(round={self.round}, shard={self.shard}/{self.num_shards})"


def _number(name: str, value: Any) -> Optional[float]:
    number = float(value)
    return number if math.isfinite(number) else None


def to_json(values: Any, bytes_max: int, what: str) -> str:
    """With sorted keys; arrays as lists. Raises ValueError if it is longer than `bytes_max`, TypeError for what is not JSON."""
    def plain(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        raise TypeError(f"{what}: {type(value).__name__} is not JSON")

    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=plain, allow_nan=False)
    if len(text.encode()) > bytes_max:
        raise ValueError(f"{what}: {len(text.encode())} bytes of JSON, the limit is {bytes_max}")
    return text
