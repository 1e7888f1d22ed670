"""What a job talks to: workerd's agent (`_agent`) or this process itself (`_local`)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Protocol, Tuple

from ._frame import File
from ._round import RoundRule
from ._sealed import Buffer


class Outcome(enum.Enum):
    """What became of a contribution."""

    ACCEPTED = "ACCEPTED"
    """Durable and in the ledger."""
    DUPLICATE = "DUPLICATE"
    """The same bytes were accepted before, from this or another worker."""
    STALE = "STALE"
    """The round is closed or the model moved on; nothing to do but to go on."""
    REJECTED = "REJECTED"
    """A guard refused it: not finite, another shape or dtype than the model's, too large."""
    MISMATCH = "MISMATCH"
    """Other bytes were accepted for this (round, shard) before: the script is not reproducible. Recorded; the first ones count."""


@dataclass(frozen=True)
class PushResult:
    """Answer to a push."""

    outcome: Outcome
    reason: str = ""
    """Why, where the outcome is not ACCEPTED."""
    position: int = 0
    """The log position of the commit; 0 without a cluster."""

    @property
    def ok(self) -> bool:
        """True if these bytes are in the ledger: ACCEPTED or DUPLICATE."""
        return self.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)


@dataclass(frozen=True)
class JobInfo:
    """What workerd tells a process at its start."""

    job_id: str
    task_id: str
    attempt: int
    num_shards: int
    rounds: int
    seed: int
    node_id: str = ""
    init_task: bool = True
    config: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepInfo:
    """One (round, shard) to compute."""

    round: int
    shard: int
    num_shards: int
    seed: int
    model_version: int
    model_digest: bytes = b""
    state_artifact: str = ""


class Backend(Protocol):
    """Models down, gradients up. Calls return when their effect is certain; they retry by themselves what can be retried."""

    info: JobInfo

    def init_model(self, frame: File, rule: RoundRule) -> PushResult:
        """Offers model 0, and what is to be done with the contributions of each round."""

    def next_step(self) -> Optional[StepInfo]:
        """The next step of this worker, waiting for it; None if the job needs no more of it."""

    def get_model(self, version: Optional[int], digest: bytes) -> Tuple[int, Buffer]:
        """(version, file) of a model; None: the newest. `digest`: its SHA-256, empty if unknown."""

    def shard_state(self, step: StepInfo) -> Optional[bytes]:
        """What was pushed beside this shard's contribution to the round before; None if nothing was."""

    def push(self, step: StepInfo, frame: File, weight: float, metrics_json: str, state: Optional[bytes] = None) -> PushResult:
        """Sends a contribution, and what the next step of its shard is to find as its state. The file is read before it returns."""

    def final_version(self) -> Optional[int]:
        """The version after the last round; None: the newest."""

    def should_stop(self) -> bool:
        """Whether the task was cancelled or its node is drained."""

    def set_result(self, result_json: str) -> None:
        """The task's result, if it ends well."""

    def close(self) -> None:
        """Ends the connection."""
