"""Contributions in smaller dtypes, and clipped: with the arithmetic of the crate `train` (modules `encoding`, `contribution`, `norm`) bit for bit.

A file's tensor for a float32 parameter may be F16, BF16, or I8 with a scale: value = float32(q) * scale. The scale of tensor NAME is the tensor
NAME/scale, float32, of shape [] or [n], where n is the first dimension of NAME. safetensors' NumPy interface has no BF16, so the header is read
and written here.
"""

from __future__ import annotations

import json
import math
from typing import Dict, Mapping, Tuple

import numpy as np

from . import _frame
from ._frame import Params
from ._limits import HEADER_BYTES_MAX
from .errors import FrameError

SCALE_SUFFIX = "/scale"
_LANES, _BLOCK = 16, 4096
_RAW = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1"}


def encode(params: Mapping[str, np.ndarray], dtype: str, per_row: bool = False) -> bytes:
    """A file with float32 arrays in `dtype`: "F16", "BF16" or "I8"; float64 arrays stay. Rounds to nearest, ties to even.

    I8: scale = max|x| / 127, one for each tensor or, with `per_row`, for each index of the first axis. Raises FrameError where a value does not
    fit: infinite in float16, or a NaN.
    """
    raw: Dict[str, Tuple[str, np.ndarray]] = {}
    for name, value in params.items():
        array = np.asarray(value)
        if not np.isfinite(array).all():
            raise FrameError(f"tensor `{name}` is not finite")
        if array.dtype == np.float64:
            raw[name] = ("F64", array.astype("<f8"))
        elif array.dtype != np.float32:
            raise FrameError(f"tensor `{name}` has dtype {array.dtype}; float32 and float64 are taken")
        elif dtype == "F16":
            with np.errstate(over="ignore"):
                half = array.astype("<f2")
            if not np.isfinite(half).all():
                raise FrameError(f"tensor `{name}` does not fit float16")
            raw[name] = ("F16", half)
        elif dtype == "BF16":
            raw[name] = ("BF16", _to_bf16(array))
        elif dtype == "I8":
            if name + SCALE_SUFFIX in params:
                raise FrameError(f"tensor `{name + SCALE_SUFFIX}` has the name of the scale of `{name}`")
            raw[name], raw[name + SCALE_SUFFIX] = _quantised(array, per_row)
        else:
            raise ValueError(f"dtype is {dtype!r}: F16, BF16 or I8")
    header, offset = {}, 0
    for name, (kind, array) in raw.items():
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for _, array in raw.values())


def decode(model: Mapping[str, np.ndarray], data: bytes) -> Params:
    """Arrays with the model's names, shapes and dtypes. Raises FrameError for anything else."""
    raw = _raw_tensors(data)
    params: Params = {}
    for name, like in model.items():
        if name not in raw:
            raise FrameError(f"tensor `{name}` is missing: the model has it")
        kind, array = raw.pop(name)
        if array.shape != like.shape:
            raise FrameError(f"tensor `{name}` has shape {list(array.shape)}, the model's has {list(like.shape)}")
        if kind == "F64" and like.dtype == np.float64:
            params[name] = array.astype(np.float64)
        elif kind in ("F32", "F16") and like.dtype == np.float32:
            params[name] = array.astype(np.float32)
        elif kind == "BF16" and like.dtype == np.float32:
            params[name] = (array.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(array.shape)
        elif kind == "I8" and like.dtype == np.float32:
            params[name] = _dequantised(name, array, raw.pop(name + SCALE_SUFFIX, None))
        else:
            raise FrameError(f"tensor `{name}` has dtype {kind}, the model's has {_frame.dtype_name(like)}")
        wrong = _frame.not_finite({name: params[name]})
        if wrong is not None:
            raise FrameError(wrong)
    if raw:
        raise FrameError(f"tensor `{min(raw)}` is unknown: the model does not have it")
    return params


def l2_norm(params: Mapping[str, np.ndarray]) -> float:
    """Euclidean norm over all elements in float64, in the fixed tree: 16 lanes in blocks of 4,096, folded in halves; tensors in the order given,
    which must be the canonical one."""
    total = 0.0
    for array in params.values():
        squares = np.square(np.ravel(array).astype(np.float64))
        tensor = 0.0
        for start in range(0, squares.size, _BLOCK):
            block = squares[start : start + _BLOCK]
            rows = np.zeros((-(-block.size // _LANES), _LANES))
            rows.ravel()[: block.size] = block  # adding a +0 at the end of a lane changes nothing: squares are not negative
            lanes = np.zeros(_LANES)
            for row in rows:
                lanes = lanes + row
            width = _LANES // 2
            while width:
                lanes = lanes[:width] + lanes[width:]
                width //= 2
            tensor += float(lanes[0])
        total += tensor
    return math.sqrt(total)


def clip(params: Params, norm_max: float) -> Params:
    """Scaled down to `norm_max` if the norm is above that; else the same arrays."""
    norm = l2_norm(params)
    if not norm > norm_max:
        return params
    factor = norm_max / norm
    return {name: np.asarray(factor * array.astype(np.float64)).astype(array.dtype) for name, array in params.items()}


def _raw_tensors(data: bytes) -> Dict[str, Tuple[str, np.ndarray]]:
    announced = int.from_bytes(data[:8], "little")
    if len(data) < 8 or announced > min(HEADER_BYTES_MAX, len(data) - 8):
        raise FrameError(f"failed to read the frame: a header of {announced} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + announced])
        header.pop("__metadata__", None)
        raw: Dict[str, Tuple[str, np.ndarray]] = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            part = data[8 + announced + start : 8 + announced + end]
            raw[name] = (entry["dtype"], np.frombuffer(part, dtype=_RAW[entry["dtype"]]).reshape(entry["shape"]))
        return raw
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"failed to read the frame: {error}") from error


def _to_bf16(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype("<u2")
    if ((rounded & np.uint16(0x7F80)) == 0x7F80).any():
        raise FrameError("a value does not fit bfloat16")
    return rounded.reshape(np.shape(array))


def _quantised(array: np.ndarray, per_row: bool) -> Tuple[Tuple[str, np.ndarray], Tuple[str, np.ndarray]]:
    count = array.shape[0] if per_row and array.ndim else 1
    rows = array.reshape(count, array.size // count if count else 0)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    scale = (largest / np.float32(127.0)).astype("<f4")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(scale[:, None] > 0.0, np.rint(rows / scale[:, None]), 0.0)
    quantised = np.clip(steps, -127, 127).astype(np.int8).reshape(array.shape)
    return ("I8", quantised), ("F32", scale if per_row and array.ndim else scale.reshape(()))


def _dequantised(name: str, array: np.ndarray, scale: "Tuple[str, np.ndarray] | None") -> np.ndarray:
    if scale is None or scale[0] != "F32":
        raise FrameError(f"the scale of tensor `{name}` is missing or not F32")
    scales = scale[1]
    if scales.shape != () and scales.shape != array.shape[:1]:
        raise FrameError(f"the scale of tensor `{name}` has neither shape [] nor one for each index of the first axis")
    with np.errstate(over="ignore", invalid="ignore"):
        if not ((scales >= 0.0) & np.isfinite(np.float32(128.0) * scales)).all():
            raise FrameError(f"the scale of tensor `{name}` is negative or not finite, or 128 times it is not")
    shaped = scales.reshape(scales.shape + (1,) * (array.ndim - scales.ndim))
    return np.asarray(array.astype(np.float32) * shaped.astype(np.float32))
