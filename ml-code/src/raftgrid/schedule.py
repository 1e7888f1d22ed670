"""Learning-rate schedules: the factor that a learning rate has in a round, a function of the round alone, with the control plane's bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

from ._cos import cos
from ._proto import ml_pb2
from ._server_step import power


@dataclass(frozen=True)
class Constant:
    """1, after a linear warm-up: (round + 1) / warmup_rounds in the rounds before that."""

    warmup_rounds: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_rounds)

    def factor(self, round: int) -> float:
        """From 0 to 1; the first round is 0."""
        return _warmup(round, self.warmup_rounds) if round < self.warmup_rounds else 1.0

    def to_proto(self) -> ml_pb2.LearningRateSchedule:
        """The message that the control plane keeps with the job."""
        return ml_pb2.LearningRateSchedule(kind="constant", warmup_rounds=self.warmup_rounds)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to final_factor over decay_rounds, then final_factor (Loshchilov and Hutter 2017, without restarts)."""

    decay_rounds: int
    """Above 0; counted from the end of the warm-up."""
    final_factor: float = 0.0
    """From 0 to 1."""
    warmup_rounds: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_rounds)
        if not 0 < self.decay_rounds < 2**64:
            raise ValueError(f"decay_rounds is {self.decay_rounds}, it must be above 0")
        if not 0.0 <= self.final_factor <= 1.0:
            raise ValueError(f"final_factor is {self.final_factor}, it must be from 0 to 1")

    def factor(self, round: int) -> float:
        """From 0 to 1; the first round is 0."""
        if round < self.warmup_rounds:
            return _warmup(round, self.warmup_rounds)
        after = round - self.warmup_rounds
        if after >= self.decay_rounds:
            return float(self.final_factor)
        half_wave = 0.5 * (1.0 + cos(math.pi * (float(after) / float(self.decay_rounds))))
        return self.final_factor + (1.0 - self.final_factor) * half_wave

    def to_proto(self) -> ml_pb2.LearningRateSchedule:
        """The message that the control plane keeps with the job."""
        return ml_pb2.LearningRateSchedule(
            kind="cosine",
            warmup_rounds=self.warmup_rounds,
            decay_rounds=self.decay_rounds,
            final_factor=self.final_factor,
        )


@dataclass(frozen=True)
class StepDecay:
    """Multiplied with step_factor after every step_rounds rounds."""

    step_rounds: int
    """Above 0; counted from the end of the warm-up."""
    step_factor: float = 0.1
    """Above 0 and at most 1."""
    warmup_rounds: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_rounds)
        if not 0 < self.step_rounds < 2**64:
            raise ValueError(f"step_rounds is {self.step_rounds}, it must be above 0")
        if not 0.0 < self.step_factor <= 1.0:
            raise ValueError(f"step_factor is {self.step_factor}, it must be above 0 and at most 1")

    def factor(self, round: int) -> float:
        """From 0 to 1; the first round is 0."""
        if round < self.warmup_rounds:
            return _warmup(round, self.warmup_rounds)
        return power(float(self.step_factor), (round - self.warmup_rounds) // self.step_rounds)

    def to_proto(self) -> ml_pb2.LearningRateSchedule:
        """The message that the control plane keeps with the job."""
        return ml_pb2.LearningRateSchedule(
            kind="step",
            warmup_rounds=self.warmup_rounds,
            step_rounds=self.step_rounds,
            step_factor=self.step_factor,
        )


Schedule = Union[Constant, Cosine, StepDecay]


def _check_warmup(rounds: int) -> None:
    if not 0 <= rounds < 2**64:
        raise ValueError(f"warmup_rounds is {rounds}, it must be at least 0")


def _warmup(round: int, rounds: int) -> float:
    return float(round + 1) / float(rounds)
