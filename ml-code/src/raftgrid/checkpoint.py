"""Checkpoints of a script: its arrays, and whatever else it needs to go on (the state of an optimiser, of a data loader, of a generator).

A train job needs none for its model: model and optimiser are committed with each round. This is for scripts that own their loop.

Each `save` is a new version, whole or not there. In a cluster the file is an artifact, TASK/NAME/VERSION, on the disks of the replicas, and a
replicated key that says which version is the newest is written under the task's lease: an attempt that lost it cannot make its checkpoint the newest
(LeaseLost). The key also lists the older ones that are there; those beyond the newest `keep` go once it is written. They are names of their own, and no
versions of one name: an attempt that was fenced could push those out that count. Without a cluster the files lie in a folder (RAFTGRID_CHECKPOINTS, else `checkpoints`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Protocol, Tuple

import grpc

from . import _artifacts, _torch, _trees, _values
from ._limits import CALL_TIMEOUT_S, CHECKPOINT_CHANGES_MAX, CHECKPOINTS_KEPT_MAX, RETRY_FIRST_S
from ._plane import Plane, of_environment
from .errors import FrameError, RaftgridError
from .kv import Keys

DEFAULT_NAME = "checkpoint"
KIND = "checkpoint"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Checkpoint:
    """What `load` found."""

    version: int
    """From 1; newer ones are larger. A number may be missing."""
    params: Any
    """What was given to `load`, filled; else a dict of NumPy arrays by name."""
    state: Any
    """As it was given to `save`."""
    sha256: str
    """Of the file, in hexadecimal digits."""


class Shelf(Protocol):
    """Where versions are kept."""

    def save(self, name: str, file: "File", keep: int) -> int:
        """Keeps `file(version)` as the newest and returns its version."""

    def load(self, name: str, version: Optional[int]) -> Optional[bytes]:
        """The newest, or that version; None if there is none."""


class File:
    """A checkpoint that does not know its version yet."""

    def __init__(self, value: Dict[str, Any]) -> None:
        self._value = value

    def __call__(self, version: int) -> bytes:
        return _values.pack(self._value, {"version": str(version)})


class Checkpoints:
    """`job.checkpoint`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def save(self, params: Any, state: Any = None, *, name: str = DEFAULT_NAME, keep: int = 3) -> int:
        """Keeps a checkpoint and returns its version once it is durable.

        params: a dict of arrays (any NumPy dtype), a torch module (its trained parameters and its buffers), a tree of arrays. state: nested dicts,
        lists and tuples with arrays, numbers and texts, such as `{"epoch": 3, "optimizer": optimizer.state_dict(), "rng":
        rng.bit_generator.state}`. name: letters, digits, '.', '_' and '-'; checkpoints of different names do not know each other. keep: how many
        versions stay.

        Raises LeaseLost if this attempt was fenced, FrameError naming what cannot be kept, PlaneUnavailable, OSError without a cluster.
        """
        value: Dict[str, Any] = {"params": _trees.values(params), "state": state}
        if _trees.is_module(params):
            value["buffers"] = _torch.buffers(params)
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least 1 is needed")
        return self._shelf.save(_checked(name), File(value), keep)

    def load(self, params: Any = None, *, name: str = DEFAULT_NAME, version: Optional[int] = None) -> Optional[Checkpoint]:
        """The newest checkpoint, or the one of a version; None if there is none.

        params: filled with the checkpoint's arrays, as `step.load` does it (in place; a tree is made anew: take `.params`). Raises FrameError if
        names, shapes or dtypes differ, or if the file is damaged; then nothing was changed.
        """
        data = self._shelf.load(_checked(name), version)
        if data is None:
            return None
        value, metadata = _values.unpack(data)
        if not isinstance(value, dict) or "params" not in value or "version" not in metadata:
            raise FrameError("failed to read the checkpoint: it is another file")
        filled = value["params"] if params is None else _trees.fill(params, value["params"])
        if _trees.is_module(params):
            _torch.set_buffers(params, value.get("buffers", {}))
        return Checkpoint(int(metadata["version"]), filled, value["state"], hashlib.sha256(data).hexdigest())


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}: 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or a digit")
    return name


class FolderShelf:
    """Files NAME/VERSION.safetensors in a folder. Two processes may share it: a version is made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _versions(self, name: str) -> List[int]:
        found = (path.name[: -len(".safetensors")] for path in (self._folder / name).glob("*.safetensors"))
        return sorted(int(text) for text in found if text.isdigit())

    def _path(self, name: str, version: int) -> Path:
        return self._folder / name / f"{version:08}.safetensors"

    def save(self, name: str, file: File, keep: int) -> int:
        """The file is whole and on the disk before it has its name."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        version = max(self._versions(name), default=0) + 1
        while not self._make(folder, self._path(name, version), file(version)):
            version += 1
        for old in self._versions(name)[:-keep]:
            self._path(name, old).unlink(missing_ok=True)
        return version

    @staticmethod
    def _make(folder: Path, path: Path, data: bytes) -> bool:
        handle, temporary = tempfile.mkstemp(prefix=".", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, path)  # a name that is taken stays as it is
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return True

    def load(self, name: str, version: Optional[int]) -> Optional[bytes]:
        """Another process may delete a version meanwhile; then the newest is looked for again."""
        while True:
            wanted = max(self._versions(name), default=None) if version is None else version
            if wanted is None:
                return None
            try:
                return self._path(name, wanted).read_bytes()
            except FileNotFoundError:
                if version is not None:
                    return None


class ClusterShelf:
    """Artifacts, and a key for each name that says which version is the newest."""

    def __init__(self, task_id: str, plane: Optional[Plane] = None) -> None:
        self._plane = plane if plane is not None else of_environment()
        self._keys = Keys.of_task(self._plane)
        # An artifact's name takes less than a task's id.
        self._owner = task_id if _OWNER.fullmatch(task_id) else hashlib.sha256(task_id.encode()).hexdigest()[:32]
        self._task_id = task_id

    def _key(self, name: str) -> str:
        return f"checkpoint/{self._task_id}/{name}"

    def _artifact(self, name: str, version: int) -> str:
        return f"{self._owner}/{name}/{version}"

    def _newest(self, name: str) -> Tuple[int, Dict[str, Any]]:
        """(revision of the key, what it says)."""
        found = self._keys.get(self._key(name))
        return (0, {"version": 0}) if found is None else (found.revision, json.loads(found.data))

    def save(self, name: str, file: File, keep: int) -> int:
        """First the bytes, durable; then the key, under the lease. Bytes whose key was refused are nobody's newest."""
        for _ in range(CHECKPOINT_CHANGES_MAX):
            revision, newest = self._newest(name)
            version, data, artifact_id = self._put(name, newest["version"] + 1, file)
            said = {"version": version, "artifact": artifact_id, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            older = newest.get("older", []) + ([newest["artifact"]] if newest["version"] else [])
            going = max(0, len(older) + 1 - min(keep, CHECKPOINTS_KEPT_MAX))
            said["older"], said["going"] = older[going:], older[:going]
            # The save before this one may have died before these were gone.
            self._delete(newest.get("going", []))
            text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
            if self._keys.compare_and_set(self._key(name), text, revision)[0]:
                self._delete(said["going"])
                return version
            # The bytes stay: another attempt may have brought equal ones, which are the same artifact.
        raise RaftgridError(f"the checkpoint {name!r} was changed by others {CHECKPOINT_CHANGES_MAX} times meanwhile")

    def _put(self, name: str, version: int, file: File) -> Tuple[int, bytes, str]:
        """Under the first number that is free, from `version` on: an attempt that was fenced, or an earlier job of this name, may have left some."""
        stride = 1
        while True:
            while _artifacts.exists(self._plane, self._artifact(name, version)):
                version, stride = version + stride, 2 * stride
            data = file(version)
            try:
                return version, data, _artifacts.put(self._plane, self._artifact(name, version), data, KIND)
            except _artifacts.NameTaken:
                version += 1

    def _delete(self, artifacts: List[str]) -> None:
        """Deletes what is not needed any more, as far as that can be had now."""
        for artifact in artifacts:
            try:
                _artifacts.delete(self._plane, artifact)
            except RaftgridError:
                return  # the next save tries again

    def load(self, name: str, version: Optional[int]) -> Optional[bytes]:
        """The newest by the key, which only who had the lease wrote."""
        try:
            if version is not None:
                return _artifacts.get(self._plane, self._artifact(name, version))
            _, newest = self._newest(name)
            if not newest["version"]:
                return None
            # The replica that is asked may lag behind the one that has the key.
            deadline = time.monotonic() + CALL_TIMEOUT_S
            digest = bytes.fromhex(newest["sha256"])
            while (data := _artifacts.get(self._plane, newest["artifact"], digest)) is None and time.monotonic() < deadline:
                time.sleep(RETRY_FIRST_S)
        except grpc.RpcError as error:
            raise RaftgridError(f"failed to load the checkpoint: {error.code().name}: {error.details()}") from error
        if data is None:
            raise RaftgridError(f"the artifact {newest['artifact']} of checkpoint {name!r}, version {newest['version']}, was deleted")
        return data
