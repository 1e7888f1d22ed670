"""How the contributions of a round become one, in NumPy, with the arithmetic of the crate `train` (modules `combine`, `order_statistics`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import numpy as np

from . import _aggregate, _contribution
from ._frame import Params
from ._proto import ml_pb2


@dataclass(frozen=True)
class Combine:
    """A job's choice. Raises ValueError naming what is out of its range."""

    strategy: str = "mean"
    """mean, trimmed_mean or median; the latter two are taken element by element and know no weights."""
    trim_fraction: float = 0.0
    """trimmed_mean: floor(fraction * shards) values are left out at each end; from 0 to below 0.5."""
    clip_norm: float = 0.0
    """Above 0: a contribution with a larger Euclidean norm is first scaled down to it."""

    def __post_init__(self) -> None:
        if self.strategy not in ("mean", "trimmed_mean", "median"):
            raise ValueError(f"strategy is {self.strategy!r}: mean, trimmed_mean or median")
        if not 0.0 <= self.trim_fraction < 0.5 or (self.trim_fraction and self.strategy != "trimmed_mean"):
            raise ValueError(f"trim_fraction is {self.trim_fraction}: for trimmed_mean, from 0 to below 0.5")
        if not (self.clip_norm >= 0.0 and math.isfinite(self.clip_norm)):
            raise ValueError(f"clip_norm is {self.clip_norm}, it must be at least 0 and finite")

    def to_proto(self) -> ml_pb2.Combine:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Combine(strategy=self.strategy, trim_fraction=self.trim_fraction, clip_norm=self.clip_norm)


def combine(rule: Combine, contributions: Sequence[Tuple[float, Params]]) -> Params:
    """(weight, decoded contribution) in shard order to one."""
    if rule.clip_norm > 0.0:
        contributions = [(weight, _contribution.clip(params, rule.clip_norm)) for weight, params in contributions]
    if rule.strategy == "mean":
        return _aggregate.weighted_mean(contributions)
    for weight, _ in contributions:
        _aggregate.effective_weight(weight)
    shards = len(contributions)
    most = (shards - 1) // 2
    if rule.strategy == "median":
        return _by_element(contributions, lambda rows: _median(rows[most : shards - most]))
    trimmed = min(math.floor(rule.trim_fraction * float(shards)), most)
    return _by_element(contributions, lambda rows: _mean(rows[trimmed : shards - trimmed]))


def _by_element(contributions: Sequence[Tuple[float, Params]], reduce: Callable[[np.ndarray], np.ndarray]) -> Params:
    """`reduce` gets the sorted values: one row for each rank, float64."""
    combined: Params = {}
    for name, first in contributions[0][1].items():
        rows: List[np.ndarray] = [np.ravel(params[name]) for _, params in contributions]
        ordered = _sorted(np.stack(rows)).astype(np.float64)
        combined[name] = reduce(ordered).astype(first.dtype).reshape(first.shape)
    return combined


def _sorted(rows: np.ndarray) -> np.ndarray:
    """Each column in the order of IEEE 754's totalOrder: -0 before +0."""
    integer, shift = (np.int32, 31) if rows.dtype == np.float32 else (np.int64, 63)
    turn = np.iinfo(integer).max
    bits = np.ascontiguousarray(rows).view(integer)
    keys = np.sort(bits ^ (bits >> shift & turn), axis=0)
    return (keys ^ (keys >> shift & turn)).view(rows.dtype)


def _mean(rows: np.ndarray) -> np.ndarray:
    total = np.zeros(rows.shape[1])
    with np.errstate(all="ignore"):
        for row in rows:
            total = total + row
        return total / float(len(rows))


def _median(rows: np.ndarray) -> np.ndarray:
    return rows[0] if len(rows) == 1 else 0.5 * rows[0] + 0.5 * rows[1]
