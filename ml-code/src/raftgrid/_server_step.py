"""One step of each optimiser, in NumPy, with the arithmetic of the crate `train` (folder `optimizer`) bit for bit.

Settings are rounded once from float64 to the tensor's dtype; then every operation is done and rounded in that dtype, by itself.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, Tuple, Union

import numpy as np

from ._frame import Params
from .errors import RaftgridError
from .optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM, Optimizer

MOMENTUM_PREFIX = "momentum/"
FIRST_MOMENT_PREFIX = "first_moment/"
SECOND_MOMENT_PREFIX = "second_moment/"
STEP_NAME = "step"

Step = Tuple[Params, Params]


def server_step(optimizer: Optimizer, params: Params, combined: Params, state: Params) -> Step:
    """Parameters and state after one step. `combined`: mean gradient or mean delta. `state`: empty before the first step."""
    steps: Dict[type, Callable[..., Step]] = {
        SGD: sgd_step,
        Adam: adam_step,
        AdamW: adam_step,
        FedAvg: lambda _, *rest: sgd_step(SGD(1.0), *rest),
        FedAvgM: lambda o, *rest: sgd_step(SGD(o.lr, o.momentum), *rest),
        FedAdam: fedadam_step,
        DiLoCo: lambda o, *rest: sgd_step(SGD(o.lr, o.momentum, True), *rest),
    }
    return steps[type(optimizer)](optimizer, params, combined, state)


def power(base: float, exponent: int) -> float:
    """By squaring, bits of the exponent from the lowest on: only products, each rounded by itself, so Rust has the same bits."""
    result = 1.0
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def sgd_step(sgd: SGD, params: Params, mean: Params, state: Params) -> Step:
    """Parameters and state after one step. `state`: velocities under `momentum/<name>`; empty before the first step."""
    params_next: Params = {}
    state_next: Params = {}
    with np.errstate(all="ignore"):
        for name, p in params.items():
            scalar = p.dtype.type
            lr, momentum, decay = scalar(sgd.lr), scalar(sgd.momentum), scalar(sgd.weight_decay)
            d = mean[name]
            if sgd.weight_decay != 0.0:
                d = d + decay * p
            update = d
            if sgd.momentum != 0.0:
                before = state.get(MOMENTUM_PREFIX + name)
                velocity = momentum * (np.zeros_like(p) if before is None else before) + d
                state_next[MOMENTUM_PREFIX + name] = np.asarray(velocity, dtype=p.dtype)
                update = d + momentum * velocity if sgd.nesterov else velocity
            params_next[name] = np.asarray(p - lr * update, dtype=p.dtype)
    return params_next, state_next


def adam_step(adam: Union[Adam, AdamW], params: Params, mean: Params, state: Params) -> Step:
    """Adam and AdamW. State: both moments, and the number of steps done under `step`."""
    step = 1 + (int(state[STEP_NAME]) if state else 0)
    rate = adam.lr / (1.0 - power(adam.beta1, step))
    correction = math.sqrt(1.0 - power(adam.beta2, step))
    params_next: Params = {}
    state_next: Params = {STEP_NAME: np.asarray(float(step))}
    with np.errstate(all="ignore"):
        for name, p in params.items():
            T = p.dtype.type
            g = mean[name]
            if adam.weight_decay != 0.0:
                if isinstance(adam, AdamW):
                    p = p * T(1.0 - adam.lr * adam.weight_decay)
                else:
                    g = g + T(adam.weight_decay) * p
            m, v = _moments(adam.beta1, adam.beta2, name, g, state, 0.0)
            root = np.sqrt(v) / T(correction) + T(adam.eps)
            params_next[name] = np.asarray(p - T(rate) * (m / root))
            state_next[FIRST_MOMENT_PREFIX + name], state_next[SECOND_MOMENT_PREFIX + name] = m, v
    return params_next, state_next


def fedadam_step(fedadam: FedAdam, params: Params, delta: Params, state: Params) -> Step:
    """State: both moments; the second starts at tau squared."""
    params_next: Params = {}
    state_next: Params = {}
    with np.errstate(all="ignore"):
        for name, p in params.items():
            T = p.dtype.type
            m, v = _moments(fedadam.beta1, fedadam.beta2, name, delta[name], state, fedadam.tau * fedadam.tau)
            params_next[name] = np.asarray(p - T(fedadam.lr) * (m / (np.sqrt(v) + T(fedadam.tau))))
            state_next[FIRST_MOMENT_PREFIX + name], state_next[SECOND_MOMENT_PREFIX + name] = m, v
    return params_next, state_next


def _moments(
    beta1: float, beta2: float, name: str, g: np.ndarray, state: Params, second_start: float
) -> Tuple[np.ndarray, np.ndarray]:
    T = g.dtype.type
    m = state[FIRST_MOMENT_PREFIX + name] if state else np.zeros_like(g)
    v = state[SECOND_MOMENT_PREFIX + name] if state else np.full_like(g, T(second_start))
    if m.shape != g.shape or v.shape != g.shape:
        raise RaftgridError(f"the optimiser's state belongs to another model: tensor `{name}`")
    m = T(beta1) * m + T(1.0 - beta1) * g
    v = T(beta2) * v + T(1.0 - beta2) * (g * g)
    return np.asarray(m), np.asarray(v)
