"""How the contributions of a round become one: what `job.init_model` takes as `combine`. It runs where contributions are combined, not in the worker.

The settings have the ranges that the control plane checks; ValueError names one that is out of its range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from ._combine import Combine


@dataclass(frozen=True)
class Mean:
    """The weighted mean, in shard order. What a job does that names nothing else."""

    def rule(self) -> Combine:
        """As the arithmetic takes it."""
        return Combine("mean")


@dataclass(frozen=True)
class TrimmedMean:
    """Element by element, the floor(fraction * shards) smallest and as many largest values are left out, and the mean of the rest is taken
    (Yin et al. 2018). Weights do not count."""

    fraction: float = 0.1
    """Left out at each end; from 0 to below 0.5."""

    def __post_init__(self) -> None:
        self.rule()

    def rule(self) -> Combine:
        """As the arithmetic takes it."""
        return Combine("trimmed_mean", float(self.fraction))


@dataclass(frozen=True)
class Median:
    """Element by element the median; the mean of the middle two where the number of shards is even. Weights do not count."""

    def rule(self) -> Combine:
        """As the arithmetic takes it."""
        return Combine("median")


@dataclass(frozen=True)
class Clipped:
    """Each contribution whose Euclidean norm, over all its tensors, is above `norm` is first scaled down to it."""

    norm: float
    """Above 0."""
    then: Union[Mean, TrimmedMean, Median] = field(default_factory=Mean)
    """What is done with them after that."""

    def __post_init__(self) -> None:
        if not self.norm > 0.0:
            raise ValueError(f"norm is {self.norm}, it must be above 0")
        if not isinstance(self.then, (Mean, TrimmedMean, Median)):
            raise ValueError(f"then is {self.then!r}: Mean, TrimmedMean or Median")
        self.rule()

    def rule(self) -> Combine:
        """As the arithmetic takes it."""
        inner = self.then.rule()
        return Combine(inner.strategy, inner.trim_fraction, float(self.norm))


Combination = Union[Mean, TrimmedMean, Median, Clipped]
