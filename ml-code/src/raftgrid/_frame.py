"""Frames: named arrays as a safetensors file.

A frame written here is canonical, with the rule of the control plane (crate `train`, module `frame`): float64 tensors first, then float32, each
sorted by name; little-endian, row-major; no metadata. The same arrays give the same bytes everywhere. `tests/golden` holds both sides to it.
"""

from __future__ import annotations

import json
import mmap
import sys
from typing import Dict, List, Mapping, Optional

import numpy as np
import safetensors.numpy

from ._limits import FRAME_BYTES_MAX, HEADER_BYTES_MAX, NAME_BYTES_MAX
from ._sealed import Buffer
from .errors import FrameError

Params = Dict[str, np.ndarray]

_NAMES = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32"}
_DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4")}


def dtype_name(array: np.ndarray) -> str:
    """"F64" or "F32"; for any other dtype NumPy's name."""
    return _NAMES.get(array.dtype.newbyteorder("="), array.dtype.name)


def canonical_names(params: Mapping[str, np.ndarray]) -> List[str]:
    """Names in canonical order: float64 before float32, then by the bytes of the name."""
    return sorted(params, key=lambda name: (dtype_name(params[name]) != "F64", name.encode()))


def to_bytes(params: Mapping[str, np.ndarray]) -> bytes:
    """The canonical file. Arrays of any shape and layout, float32 or float64. Raises FrameError naming the tensor."""
    return safetensors.numpy.save(canonical(params))


def canonical(params: Mapping[str, np.ndarray]) -> Params:
    """Checked, contiguous, in this machine's byte order and in canonical order. Raises FrameError naming the tensor."""
    ready: Params = {}
    for name, value in params.items():
        if not isinstance(name, str) or not 0 < len(name.encode()) <= NAME_BYTES_MAX or name == "__metadata__":
            raise FrameError(f"tensor name {name!r}: a text of 1 to {NAME_BYTES_MAX} bytes is needed")
        array = np.asarray(value)
        if dtype_name(array) not in ("F64", "F32"):
            raise FrameError(f"tensor `{name}` has dtype {array.dtype}; this release takes float32 and float64")
        ready[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    total = sum(array.nbytes for array in ready.values())
    if total > FRAME_BYTES_MAX:
        raise FrameError(f"{total} bytes of tensors, the limit is {FRAME_BYTES_MAX}")
    return {name: ready[name] for name in canonical_names(ready)}


def parts(params: Mapping[str, np.ndarray]) -> List[Buffer]:
    """The canonical file in parts that are not copied: its header, then the data of each tensor. Put together they are `to_bytes`. Raises
    FrameError naming the tensor."""
    ready = canonical(params)
    header: Dict[str, object] = {}
    at = 0
    for name, array in ready.items():
        header[name] = {"dtype": dtype_name(array), "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned, as the library has it
    data: List[Buffer] = [len(text).to_bytes(8, "little") + text]
    for array in ready.values():
        little = array if sys.byteorder == "little" else array.byteswap()
        data.append(memoryview(little.reshape(-1)).cast("B") if array.nbytes else b"")
    return data


def from_sealed(data: mmap.mmap) -> Params:
    """Arrays by name, in canonical order, out of a file that cannot change: read-only views, nothing is copied. Raises FrameError."""
    view = memoryview(data)
    announced = int.from_bytes(view[:8], "little")
    if len(view) < 8 or announced > min(HEADER_BYTES_MAX, len(view) - 8):
        raise FrameError(f"failed to read the frame: a header of {announced} bytes in a file of {len(view)}")
    body = view[8 + announced :]
    params: Params = {}
    end = 0
    try:
        header = json.loads(bytes(view[8 : 8 + announced]))
        header.pop("__metadata__", None)
        for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = told["data_offsets"]
            if told["dtype"] not in _DTYPES:
                raise FrameError(f"tensor `{name}` has dtype {told['dtype']}; this release takes float32 and float64")
            if start != end:
                raise FrameError(f"failed to read the frame: tensor `{name}` begins at {start} instead of {end}")
            if not all(isinstance(side, int) and side >= 0 for side in told["shape"]):
                raise FrameError(f"failed to read the frame: tensor `{name}` has shape {told['shape']}")
            flat = np.frombuffer(body[start:stop], dtype=_DTYPES[told["dtype"]])
            params[name], end = flat.reshape(told["shape"]), stop
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"failed to read the frame: {error}") from error
    if end != len(body):
        raise FrameError(f"failed to read the frame: {len(body)} bytes of data, the header tells of {end}")
    return {name: params[name] for name in canonical_names(params)}


def from_bytes(data: Buffer) -> Params:
    """Arrays by name, in canonical order. They may be read-only views. Raises FrameError."""
    if isinstance(data, mmap.mmap):
        return from_sealed(data)
    announced = int.from_bytes(data[:8], "little")
    if len(data) < 8 or announced > min(HEADER_BYTES_MAX, len(data) - 8):
        raise FrameError(f"failed to read the frame: a header of {announced} bytes in a file of {len(data)}")
    try:
        params = safetensors.numpy.load(bytes(data))
    except Exception as error:  # the library raises its own type, KeyError or ValueError, by what is wrong
        raise FrameError(f"failed to read the frame: {error}") from error
    for name, array in params.items():
        if dtype_name(array) not in ("F64", "F32"):
            raise FrameError(f"tensor `{name}` has dtype {array.dtype}; this release takes float32 and float64")
    return {name: params[name] for name in canonical_names(params)}


def difference(model: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Optional[str]:
    """What keeps `other` from having the model's names, shapes and dtypes; None if nothing. The first by name."""
    for name in sorted(model):
        if name not in other:
            return f"tensor `{name}` is missing: the model has it"
        found, expected = np.asarray(other[name]), model[name]
        if found.shape != expected.shape:
            return f"tensor `{name}` has shape {list(found.shape)}, the model's has {list(expected.shape)}"
        if dtype_name(found) != dtype_name(expected):
            return f"tensor `{name}` has dtype {dtype_name(found)}, the model's has {dtype_name(expected)}"
    unknown = sorted(set(other) - set(model))
    return f"tensor `{unknown[0]}` is unknown: the model does not have it" if unknown else None


def not_finite(params: Mapping[str, np.ndarray]) -> Optional[str]:
    """The first tensor, in canonical order, with a NaN or an infinity in it, and where; None if there is none."""
    for name in canonical_names(params):
        bad = np.flatnonzero(~np.isfinite(params[name]))
        if bad.size:
            return f"tensor `{name}` is not finite: element {bad[0]} is {np.ravel(params[name])[bad[0]]}"
    return None


def fill(target: Params, source: Mapping[str, np.ndarray]) -> Params:
    """Copies `source` into the arrays of `target`, in place; an empty `target` gets new arrays. Raises FrameError where they differ in names,
    shapes or dtypes; then nothing was copied."""
    if not target:
        target.update({name: np.array(array) for name, array in source.items()})
        return target
    for name, array in target.items():
        if not isinstance(array, np.ndarray):
            raise FrameError(f"parameter `{name}` is a {type(array).__name__}; a numpy.ndarray is needed")
    wrong = difference(source, target)
    if wrong is not None:
        raise FrameError(f"the parameters given are not the model's: {wrong}")
    for name, array in source.items():
        np.copyto(target[name], array)
    return target
