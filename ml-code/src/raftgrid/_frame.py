"""Frames: named arrays as a safetensors file.

A frame written here is canonical, with the rule of the control plane (crate `train`, module `frame`): float64 tensors first, then float32, each
sorted by name; little-endian, row-major; no metadata. The same arrays give the same bytes everywhere. `tests/golden` holds both sides to it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

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


class File:
    """A file in pieces: its header and the memory of the arrays themselves. Nothing is copied but what is being sent, so a large contribution
    is in memory once; the arrays must stay as they are until it was."""

    def __init__(self, pieces: List[Buffer]) -> None:
        self.pieces = [memoryview(piece) for piece in pieces if len(piece)]

    def __len__(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def sha256(self) -> bytes:
        """The digest of all of it."""
        found = hashlib.sha256()
        for piece in self.pieces:
            found.update(piece)
        return found.digest()

    def chunks(self, size: int) -> Iterator[bytes]:
        """All of it in order, `size` bytes each but for the last one."""
        held: List[memoryview] = []
        length = 0
        for piece in self.pieces:
            at = 0
            while at < piece.nbytes:
                part = piece[at : at + size - length]
                held.append(part)
                at, length = at + part.nbytes, length + part.nbytes
                if length == size:
                    yield b"".join(held)
                    held, length = [], 0
        if length:
            yield b"".join(held)


def to_bytes(params: Mapping[str, np.ndarray]) -> bytes:
    """The canonical file. Arrays of any shape and layout, float32 or float64. Raises FrameError naming the tensor."""
    return bytes(to_file(params))


def to_file(params: Mapping[str, np.ndarray]) -> File:
    """The canonical file over the memory of the arrays, which are copied only where they are not contiguous. Raises FrameError as `to_bytes`."""
    header: Dict[str, Any] = {}
    pieces: List[Buffer] = []
    offset = 0
    for name, array in canonical(params).items():
        kind = dtype_name(array)
        little = np.asarray(array, dtype=_DTYPES[kind])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
        pieces.append(memoryview(little.reshape(-1).view(np.uint8)) if array.size else b"")
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return File([len(text).to_bytes(8, "little") + text, *pieces])


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


def from_bytes(data: Buffer) -> Params:
    """Arrays by name, in canonical order: read-only views of `data`, which must stay as it is. Raises FrameError."""
    announced = int.from_bytes(data[:8], "little")
    if len(data) < 8 or announced > min(HEADER_BYTES_MAX, len(data) - 8):
        raise FrameError(f"failed to read the frame: a header of {announced} bytes in a file of {len(data)}")
    try:
        header = json.loads(bytes(data[8 : 8 + announced]))
        header.pop("__metadata__", None)
        entries = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FrameError(f"failed to read the frame: {error!r}") from error
    body, at, params = memoryview(data).toreadonly()[8 + announced :], 0, {}
    for name, kind, shape, start, end in entries:
        if kind not in _DTYPES:
            raise FrameError(f"tensor `{name}` has dtype {kind}; this release takes float32 and float64")
        count = 1
        for side in shape:
            count *= side
        if start != at or end - start != count * _DTYPES[kind].itemsize or end > len(body):
            raise FrameError(f"failed to read the frame: tensor `{name}` of {kind} {shape} stands at bytes {start} to {end}")
        at = end
        params[name] = np.frombuffer(body[start:end], dtype=_DTYPES[kind]).reshape(shape)
    if at != len(body):
        raise FrameError(f"failed to read the frame: its tensors have {at} of {len(body)} bytes")
    return {name: params[name] for name in canonical_names(params)}


def _entry(name: str, entry: Any) -> Tuple[str, str, Tuple[int, ...], int, int]:
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, end]
    if not isinstance(entry["dtype"], str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"tensor `{name}` is described by {entry!r}")
    return name, entry["dtype"], tuple(shape), start, end


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
