"""Optimisers. They run where the mean gradient is made, not in the worker; here are their settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ._proto import ml_pb2


def _float32_finite(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 3.4028235677973366e38  # what rounds to infinity in float32


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, as PyTorch defines it (dampening 0).

    Per element, in the tensor's dtype, with p the parameter, g the weighted mean gradient and v the velocity, which starts at 0::

        d = g + weight_decay * p;  v = momentum * v + d;  p = p - lr * (d + momentum * v if nesterov else v)

    Raises ValueError naming a setting that is out of its range.
    """

    lr: float = 0.1
    """Learning rate, above 0."""
    momentum: float = 0.0
    """From 0 to below 1."""
    nesterov: bool = False
    """Nesterov's variant; needs a momentum."""
    weight_decay: float = 0.0
    """At least 0."""

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not (self.lr > 0.0 and _float32_finite(self.lr)):
            raise ValueError(f"lr is {self.lr}, it must be above 0 and finite")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum is {self.momentum}, it must be from 0 to below 1")
        if not (self.weight_decay >= 0.0 and _float32_finite(self.weight_decay)):
            raise ValueError(f"weight_decay is {self.weight_decay}, it must be at least 0 and finite")
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0")

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(
            algorithm="sgd",
            learning_rate=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
