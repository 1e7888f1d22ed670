"""Without a cluster: one worker, in this process, which is also the one that aggregates. Same loop, same arithmetic, nothing on disk."""

from __future__ import annotations

import hashlib
from typing import Dict, List, Optional, Tuple

from . import _aggregate, _contribution, _frame
from ._backend import JobInfo, Outcome, PushResult, StepInfo
from ._round import RoundRule
from .errors import FrameError, RaftgridError
from .seeds import shard_seed


class LocalBackend:
    """Rounds one after another, shards in order. A round is aggregated when the step after its last shard is asked for."""

    def __init__(self, info: JobInfo) -> None:
        self.info = info
        self.metrics: List[Dict[str, float]] = []
        """The mean metrics of each committed round."""
        self._models: List[bytes] = []
        self._state: Optional[bytes] = None
        self._rule = RoundRule()
        self._pending: Optional[StepInfo] = None
        self._contributions: Dict[int, Tuple[float, bytes, str, Optional[bytes]]] = {}
        self._shard_states: Dict[int, bytes] = {}
        self._refused = ""

    def init_model(self, frame: _frame.File, rule: RoundRule) -> PushResult:
        data = bytes(frame)
        params = _frame.from_bytes(data)
        wrong = "the model has no tensors" if not params else _frame.not_finite(params)
        if wrong is not None:
            return PushResult(Outcome.REJECTED, wrong)
        if self._models:
            same = self._models[0] == data
            return PushResult(Outcome.DUPLICATE) if same else PushResult(Outcome.MISMATCH, "model 0 has other bytes")
        self._models.append(data)
        self._rule = rule
        return PushResult(Outcome.ACCEPTED)

    def next_step(self) -> Optional[StepInfo]:
        if not self._models:
            raise RaftgridError("there is no model: call job.init_model(params) before job.rounds()")
        if self._pending is not None and self._pending.shard not in self._contributions:
            # A cluster would give the pair to another worker; here is no other.
            what = f"round {self._pending.round} shard {self._pending.shard}"
            raise RaftgridError(f"{what} was not pushed" if not self._refused else f"{what} was rejected: {self._refused}")
        if len(self._contributions) == self.info.num_shards:
            self._commit_round()
        round_now = len(self._models) - 1
        if round_now >= self.info.rounds:
            self._pending = None
            return None
        shard = len(self._contributions)
        seed = shard_seed(self.info.seed, round_now, shard)
        digest = hashlib.sha256(self._models[-1]).digest() if shard == 0 or not self._pending else self._pending.model_digest
        self._pending = StepInfo(round_now, shard, self.info.num_shards, seed, round_now, digest)
        return self._pending

    def _commit_round(self) -> None:
        in_order = [self._contributions[shard] for shard in range(self.info.num_shards)]
        model, self._state = self._rule.next_model(
            self._models[-1], self._state, [(weight, data) for weight, data, _, _ in in_order], len(self._models) - 1
        )
        metrics = _aggregate.mean_metrics([(weight, text) for weight, _, text, _ in in_order])
        self._shard_states = {shard: entry[3] for shard, entry in self._contributions.items() if entry[3] is not None}
        self.metrics.append(metrics)
        self._models[-1] = b""  # only the newest model is kept
        self._models.append(model)
        self._contributions = {}
        shown = "".join(f" {name}={value:.4f}" for name, value in metrics.items())
        print(f"round {len(self._models) - 1}/{self.info.rounds}{shown}", flush=True)

    def get_model(self, version: Optional[int], digest: bytes) -> Tuple[int, bytes]:
        newest = len(self._models) - 1
        wanted = newest if version is None else version
        if newest < 0 or wanted != newest:
            raise RaftgridError(f"there is no model {wanted}: without a cluster only the newest, {newest}, is kept")
        return wanted, self._models[wanted]

    def shard_state(self, step: StepInfo) -> Optional[bytes]:
        return self._shard_states.get(step.shard)

    def push(self, step: StepInfo, frame: _frame.File, weight: float, metrics_json: str, state: Optional[bytes] = None) -> PushResult:
        data = bytes(frame)
        if step.round != len(self._models) - 1:
            return PushResult(Outcome.STALE, f"round {step.round} is closed")
        before = self._contributions.get(step.shard)
        if before is not None:
            same = before[1] == data
            return PushResult(Outcome.DUPLICATE) if same else PushResult(Outcome.MISMATCH, "other bytes were accepted before")
        try:
            _contribution.decode(_frame.from_bytes(self._models[-1]), data)
        except FrameError as error:
            self._refused = str(error)
            return PushResult(Outcome.REJECTED, self._refused)
        self._contributions[step.shard] = (weight, data, metrics_json, state)
        self._refused = ""
        return PushResult(Outcome.ACCEPTED)

    def final_version(self) -> Optional[int]:
        return None

    def should_stop(self) -> bool:
        return False

    def set_result(self, result_json: str) -> None:
        print(f"result {result_json}", flush=True)

    def close(self) -> None:
        return None
