"""What the control plane does with gradients, in NumPy, with the same arithmetic bit for bit.

The rule is that of the crate `train` (modules `mean` and `optimizer`). Mean, per element, over the shards in rising order::

    sum = +0;  for each shard:  sum = A(sum + A(f64(w * g)));  mean = T(f64(sum / W)),  W = ((0 + w0) + w1) + … in float64

T is the tensor's dtype and so is A. The product is taken in float64 and rounded to A, the addition is A's, the quotient is taken in float64 and
rounded to T. No operation is fused with another: each ufunc rounds its own result. The optimisers are in `_server_step`. Used for runs without a cluster and as the reference in the tests.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from . import _frame
from ._frame import Params
from ._limits import METRICS_BYTES_MAX, METRICS_MAX
from .errors import RaftgridError
from ._server_step import MOMENTUM_PREFIX, server_step, sgd_step
from .optimizer import Optimizer

ALGORITHM_ID = "raftgrid/weighted-mean-f32-shard-order/1"
__all__ = ["ALGORITHM_ID", "MOMENTUM_PREFIX", "aggregate", "effective_weight", "mean_metrics", "sgd_step", "weighted_mean"]


def weighted_mean(contributions: Iterable[Tuple[float, Params]]) -> Params:
    """The mean of (weight, gradient) in shard order. All gradients have the same names, shapes and dtypes."""
    sums: Params = {}
    weight_sum = 0.0
    for weight, grads in contributions:
        weight = effective_weight(weight)
        with np.errstate(all="ignore"):
            for name, grad in grads.items():
                product = np.asarray(grad.astype(np.float64) * weight).astype(grad.dtype)
                before = sums.get(name)
                sums[name] = np.asarray((np.zeros_like(grad) if before is None else before) + product)
        weight_sum += weight
    with np.errstate(all="ignore"):
        return {name: np.asarray(total.astype(np.float64) / weight_sum).astype(total.dtype) for name, total in sums.items()}


def effective_weight(weight: float) -> float:
    """The weight that counts: 0 counts as 1. Raises ValueError if it is negative or not finite."""
    if not math.isfinite(weight) or weight < 0.0:
        raise ValueError(f"the weight is {weight}: it must be finite and not negative")
    return float(weight) or 1.0


def aggregate(
    model: bytes, state: Optional[bytes], contributions: Sequence[Tuple[float, bytes]], optimizer: Optimizer
) -> Tuple[bytes, bytes]:
    """Model r and state r (None before the first step), as files, with (weight, file) in shard order: the files of r + 1.

    Raises RaftgridError if the next model has a NaN or an infinity in it.
    """
    params = _frame.from_bytes(model)
    mean = weighted_mean((weight, _frame.from_bytes(data)) for weight, data in contributions)
    params_next, state_next = server_step(optimizer, params, mean, {} if state is None else _frame.from_bytes(state))
    for what, frame in (("model", params_next), ("state", state_next)):
        wrong = _frame.not_finite(frame)
        if wrong is not None:
            raise RaftgridError(f"failed to aggregate: the next {what}: {wrong}; a smaller learning rate may help")
    return _frame.to_bytes(params_next), _frame.to_bytes(state_next)


def mean_metrics(contributions: Sequence[Tuple[float, str]]) -> Dict[str, float]:
    """The weighted mean of each number in the JSON objects, (weight, text) in shard order, over the contributions that have it, by name."""
    sums: Dict[str, List[float]] = {}
    for weight, text in contributions:
        try:
            metrics: Any = json.loads(text) if len(text.encode()) <= METRICS_BYTES_MAX else None
            weight = effective_weight(weight)
        except ValueError:
            continue
        for name, value in sorted(metrics.items()) if isinstance(metrics, dict) else ():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            entry = sums.setdefault(name, [0.0, 0.0])
            entry[0] += weight * float(value)
            entry[1] += weight
    means = {name: total / weight_sum for name, (total, weight_sum) in sorted(sums.items())}
    return dict([(name, mean) for name, mean in means.items() if math.isfinite(mean)][:METRICS_MAX])
