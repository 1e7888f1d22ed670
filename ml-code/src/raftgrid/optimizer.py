"""Optimisers. They run where contributions are combined, not in the worker; here are their settings.

Sign: an optimiser subtracts, so what is pushed points uphill. A gradient does. FedAvg, FedAvgM, FedAdam and DiLoCo take *deltas* of local steps:
``delta = model of the round - own model after the local steps``, pushed with `step.push`.

The settings have the ranges that the control plane checks; ValueError names one that is out of its range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Union

import numpy as np

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


def _check_rate(lr: float) -> None:
    if not (lr > 0.0 and _float32_finite(lr)):
        raise ValueError(f"lr is {lr}, it must be above 0 and finite")


def _check_momentum(momentum: float) -> None:
    if not 0.0 < momentum < 1.0:
        raise ValueError(f"momentum is {momentum}, it must be above 0 and below 1")


def _check_decay(decay: float) -> None:
    if not (decay >= 0.0 and _float32_finite(decay)):
        raise ValueError(f"weight_decay is {decay}, it must be at least 0 and finite")


def _check_moments(beta1: float, beta2: float, name: str, epsilon: float) -> None:
    """Also as float32: a decay that becomes 1 would never forget, an epsilon that becomes 0 would divide 0 by 0."""
    if not (beta1 >= 0.0 and np.float32(beta1) < 1.0):
        raise ValueError(f"beta1 is {beta1}, it must be from 0 to below 1")
    if not (beta2 > 0.0 and np.float32(beta2) < 1.0):
        raise ValueError(f"beta2 is {beta2}, it must be above 0 and below 1")
    if not (_float32_finite(epsilon) and np.float32(epsilon) > 0.0):
        raise ValueError(f"{name} is {epsilon}, it must be above 0 and finite")


def _as_floats(settings: Any) -> None:
    for field in fields(settings):
        object.__setattr__(settings, field.name, float(getattr(settings, field.name)))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) as PyTorch defines it, over gradients. Per element, in the tensor's dtype, in step t (the first is 1)::

        g = g + weight_decay * p;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * (g * g)
        p = p - lr / (1 - beta1**t) * (m / (sqrt(v) / sqrt(1 - beta2**t) + eps))
    """

    lr: float = 1e-3
    beta1: float = 0.9
    """From 0 to below 1."""
    beta2: float = 0.999
    """Above 0 and below 1."""
    eps: float = 1e-8
    """Above 0."""
    weight_decay: float = 0.0
    """At least 0; added to the gradient."""

    def __post_init__(self) -> None:
        _as_floats(self)
        _check_rate(self.lr)
        _check_moments(self.beta1, self.beta2, "eps", self.eps)
        _check_decay(self.weight_decay)

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(
            algorithm="adam",
            learning_rate=self.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) as PyTorch defines it, over gradients: first p = p * (1 - lr * weight_decay),
    then Adam without decay."""

    lr: float = 1e-3
    beta1: float = 0.9
    """From 0 to below 1."""
    beta2: float = 0.999
    """Above 0 and below 1."""
    eps: float = 1e-8
    """Above 0."""
    weight_decay: float = 0.01
    """At least 0."""

    def __post_init__(self) -> None:
        _as_floats(self)
        _check_rate(self.lr)
        _check_moments(self.beta1, self.beta2, "eps", self.eps)
        _check_decay(self.weight_decay)

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(
            algorithm="adamw",
            learning_rate=self.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class FedAvg:
    """The next model is the weighted mean of the trainers' models (McMahan et al. 2017): p = p - mean delta. Over deltas."""

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(algorithm="fedavg", learning_rate=1.0)


@dataclass(frozen=True)
class FedAvgM:
    """FedAvg with momentum at the server (Hsu, Qi and Brown 2019), over deltas: v = momentum * v + delta;  p = p - lr * v."""

    lr: float = 1.0
    momentum: float = 0.9
    """Above 0 and below 1."""

    def __post_init__(self) -> None:
        _as_floats(self)
        _check_rate(self.lr)
        _check_momentum(self.momentum)

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(algorithm="fedavgm", learning_rate=self.lr, momentum=self.momentum)


@dataclass(frozen=True)
class FedAdam:
    """FedAdam (Reddi et al. 2021), over deltas, without bias correction; v starts at tau**2::

        m = beta1 * m + (1 - beta1) * delta;  v = beta2 * v + (1 - beta2) * (delta * delta);  p = p - lr * (m / (sqrt(v) + tau))
    """

    lr: float = 0.01
    beta1: float = 0.9
    """From 0 to below 1."""
    beta2: float = 0.99
    """Above 0 and below 1."""
    tau: float = 1e-3
    """Adaptivity, above 0."""

    def __post_init__(self) -> None:
        _as_floats(self)
        _check_rate(self.lr)
        _check_moments(self.beta1, self.beta2, "tau", self.tau)

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(
            algorithm="fedadam", learning_rate=self.lr, beta1=self.beta1, beta2=self.beta2, epsilon=self.tau
        )


@dataclass(frozen=True)
class DiLoCo:
    """DiLoCo's outer optimiser (Douillard et al. 2023): Nesterov's momentum over deltas of many local steps::

        v = momentum * v + delta;  p = p - lr * (delta + momentum * v)
    """

    lr: float = 0.7
    momentum: float = 0.9
    """Above 0 and below 1."""

    def __post_init__(self) -> None:
        _as_floats(self)
        _check_rate(self.lr)
        _check_momentum(self.momentum)

    def to_proto(self) -> ml_pb2.Optimizer:
        """The message that the control plane keeps with the job."""
        return ml_pb2.Optimizer(algorithm="diloco", learning_rate=self.lr, momentum=self.momentum, nesterov=True)


Optimizer = Union[SGD, Adam, AdamW, FedAvg, FedAvgM, FedAdam, DiLoCo]
