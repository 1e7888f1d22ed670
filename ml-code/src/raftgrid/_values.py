"""A value as one safetensors file, for checkpoints and for the state of a shard: nested dicts, lists and tuples with arrays, numbers and texts in them.

Arrays (NumPy's, torch's tensors, JAX's) are tensors of the file, named by their place ("params.w1"); the rest is JSON in the file's metadata, where
an array stands as a reference to its tensor. Nothing is pickled: reading a file runs none of its content. The same value gives the same bytes.

The safetensors package of Python writes metadata in an order that differs from run to run, so the header is written here; it reads the files.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, Mapping, Tuple

import numpy as np
import safetensors.numpy

from ._frame import Params
from ._limits import FRAME_BYTES_MAX, HEADER_BYTES_MAX, NAME_BYTES_MAX
from .errors import FrameError

FORMAT = "raftgrid.values"
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_MARK = "$"
"""A dict of the JSON with only this key and one more word stands for what JSON does not have."""


def pack(value: Any, metadata: Mapping[str, str]) -> bytes:
    """The file. Raises FrameError for what it cannot hold, naming where it stands; numbers that are not finite may stand in arrays and outside."""
    arrays: Params = {}
    text = json.dumps(_plain(value, arrays, ()), separators=(",", ":"))
    total = sum(array.nbytes for array in arrays.values())
    if total > FRAME_BYTES_MAX:
        raise FrameError(f"{total} bytes of arrays, the limit is {FRAME_BYTES_MAX}")
    header: Dict[str, Any] = {"__metadata__": {**metadata, "format": FORMAT, "value": text}}
    offset = 0
    for name, array in arrays.items():
        kind = _DTYPES[array.dtype.newbyteorder("=").name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > HEADER_BYTES_MAX - 8:
        raise FrameError(f"{len(head)} bytes besides the arrays, the limit is {HEADER_BYTES_MAX - 8}; large data belongs into arrays")
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *(_little(array).tobytes() for array in arrays.values())])


def unpack(data: bytes) -> Tuple[Any, Dict[str, str]]:
    """(value, metadata). Raises FrameError for anything that `pack` did not write."""
    announced = int.from_bytes(data[:8], "little")
    if len(data) < 8 or announced > min(HEADER_BYTES_MAX, len(data) - 8):
        raise FrameError(f"failed to read the file: a header of {announced} bytes in a file of {len(data)}")
    try:
        metadata = dict(json.loads(data[8 : 8 + announced]).get("__metadata__", {}))
        if metadata.pop("format", "") != FORMAT:
            raise FrameError("failed to read the file: raftgrid did not write it")
        plain = json.loads(metadata.pop("value"))
        tensors = safetensors.numpy.load(bytes(data))
        return _restored(plain, tensors), metadata
    except FrameError:
        raise
    except Exception as error:  # the library raises its own type; KeyError, ValueError and the like by what is wrong
        raise FrameError(f"failed to read the file: {error}") from error


def _plain(value: Any, arrays: Params, path: Tuple[str, ...]) -> Any:
    """`value` as JSON; its arrays are put into `arrays`, under names that the JSON has."""
    kind = _array_kind(value)
    if kind:
        return {_MARK: kind, "tensor": _keep(_as_array(value, kind), arrays, path)}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        pairs = [(key, _plain(item, arrays, (*path, str(key)))) for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in pairs) and _MARK not in value:
            return dict(pairs)
        return {_MARK: "dict", "items": [[_plain(key, arrays, (*path, "a key")), item] for key, item in pairs]}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, arrays, (*path, str(index))) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {_MARK: "tuple", "items": items}
    if isinstance(value, bytes):
        return {_MARK: "bytes", "tensor": _keep(np.frombuffer(value, dtype=np.uint8), arrays, path)}
    what = f"`{'.'.join(path)}` is a {type(value).__name__}"
    raise FrameError(f"{what}: arrays, numbers, texts, bytes, dicts, lists and tuples can be kept")


def _keep(array: np.ndarray, arrays: Params, path: Tuple[str, ...]) -> str:
    base = name = ".".join(path) or "value"
    while name in arrays or name == "__metadata__":
        name = f"{base}#{len(arrays)}"
    if len(name.encode()) > NAME_BYTES_MAX:
        raise FrameError(f"tensor name {name[:60]!r}...: more than {NAME_BYTES_MAX} bytes")
    if array.dtype.newbyteorder("=").name not in _DTYPES:
        raise FrameError(f"`{base}` has dtype {array.dtype}, which no file holds")
    arrays[name] = array
    return name


def _restored(plain: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(plain, list):
        return [_restored(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain.get(_MARK)
    if kind is None:
        return {key: _restored(item, tensors) for key, item in plain.items()}
    if kind == "dict":
        return {_restored(key, tensors): _restored(item, tensors) for key, item in plain["items"]}
    if kind == "tuple":
        return tuple(_restored(item, tensors) for item in plain["items"])
    array = tensors[plain["tensor"]]
    if kind == "bytes":
        return array.tobytes()
    if kind == "scalar":
        return array[()]
    if kind == "torch":
        import torch

        return torch.from_numpy(np.array(array))
    if kind == "jax":
        import jax.numpy

        return jax.numpy.asarray(array)
    if kind == "numpy":
        return np.array(array)
    raise FrameError(f"failed to read the file: {kind!r} is written by a newer release")


def _array_kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "numpy"
    if isinstance(value, np.generic):
        return "scalar"
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return "torch"
    if jax is not None and isinstance(value, getattr(jax, "Array", ())):
        return "jax"
    return ""


def _as_array(value: Any, kind: str) -> np.ndarray:
    if kind != "torch":
        return np.asarray(value)
    try:
        found: np.ndarray = value.detach().cpu().numpy()
    except TypeError as error:  # bfloat16 and the like
        raise FrameError(f"a tensor of dtype {value.dtype} cannot be kept: {error}") from error
    return found


def _little(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
