"""A round by its whole rule, in NumPy: contributions decoded, clipped and combined, then the optimiser with the round's learning rate."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Optional, Sequence, Tuple

from . import _contribution, _frame
from ._combine import Combine, combine
from ._proto import ml_pb2
from ._server_step import server_step
from .errors import RaftgridError
from .optimizer import SGD, FedAvg, Optimizer
from .schedule import Schedule


def scheduled(optimizer: Optimizer, schedule: Optional[Schedule], round: int) -> Optimizer:
    """The optimiser with the round's learning rate, which may be 0. Raises ValueError for FedAvg with a schedule: its learning rate is 1."""
    if schedule is None:
        return optimizer
    if isinstance(optimizer, FedAvg):
        raise ValueError("FedAvg does not take a schedule")
    scaled = copy.copy(optimizer)
    object.__setattr__(scaled, "lr", optimizer.lr * schedule.factor(round))
    return scaled


@dataclass(frozen=True)
class RoundRule:
    """What happens to the contributions of every round of a job. Raises ValueError for FedAvg with a schedule."""

    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Optional[Schedule] = None
    combine: Optional[Combine] = None
    """None: as the job's spec says; without a cluster the weighted mean."""

    def __post_init__(self) -> None:
        scheduled(self.optimizer, self.schedule, 0)

    def optimizer_message(self) -> ml_pb2.Optimizer:
        """Optimiser and schedule."""
        message = self.optimizer.to_proto()
        if self.schedule is not None:
            message.schedule.CopyFrom(self.schedule.to_proto())
        return message

    def combine_message(self) -> Optional[ml_pb2.Combine]:
        """None: the script named none."""
        return None if self.combine is None else self.combine.to_proto()

    def next_model(
        self, model: bytes, state: Optional[bytes], contributions: Sequence[Tuple[float, bytes]], round: int
    ) -> Tuple[bytes, bytes]:
        """See the function of this name."""
        return next_model(model, state, contributions, self.optimizer, self.schedule, self.combine or Combine(), round)


def next_model(
    model: bytes,
    state: Optional[bytes],
    contributions: Sequence[Tuple[float, bytes]],
    optimizer: Optimizer,
    schedule: Optional[Schedule] = None,
    rule: Combine = Combine(),
    round: int = 0,
) -> Tuple[bytes, bytes]:
    """Model and state of `round` (state None before the first step), as files, with (weight, file) in shard order: the files of round + 1.

    Raises RaftgridError if a result has a NaN or an infinity in it.
    """
    params = _frame.from_bytes(model)
    decoded = [(weight, _contribution.decode(params, data)) for weight, data in contributions]
    combined = combine(rule, decoded)
    before = {} if state is None else _frame.from_bytes(state)
    params_next, state_next = server_step(scheduled(optimizer, schedule, round), params, combined, before)
    for what, frame in (("model", params_next), ("state", state_next)):
        wrong = _frame.not_finite(frame)
        if wrong is not None:
            raise RaftgridError(f"failed to aggregate: the next {what}: {wrong}; a smaller learning rate may help")
    return _frame.to_bytes(params_next), _frame.to_bytes(state_next)
