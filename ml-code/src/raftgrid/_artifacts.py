"""Artifacts of the cluster: bytes that outlive processes. Chunks with checksums, the whole under its SHA-256; a transfer goes on at another replica."""

from __future__ import annotations

import hashlib
from typing import Any, Dict, Iterator, Optional, Tuple

import grpc

from ._crc32c import crc32c
from ._limits import CHUNK_BYTES_MAX, CORRUPT_ATTEMPTS_MAX, STREAM_BYTES_PER_S_MIN, STREAM_TIMEOUT_S
from ._plane import Plane, PlaneUnavailable, request_id
from ._proto import artifact_pb2, artifact_pb2_grpc
from .errors import RaftgridError, TransferError

_ARTIFACTS = artifact_pb2_grpc.ArtifactServiceStub


_TAKEN = "belongs to an artifact with other content"
"""What a replica says of such a name, with FAILED_PRECONDITION."""


class NameTaken(RaftgridError):
    """The name belongs to an artifact with other content: names are given once."""


class _Damaged(Exception):
    """What came fails its checks."""


def put(plane: Plane, name: str, data: bytes, kind: str) -> str:
    """Keeps `data` under a name ("": none) and returns the artifact's id once it is durable. Safe to repeat. Raises NameTaken, PlaneUnavailable,
    RaftgridError with what a replica said."""
    first: Dict[str, Any] = dict(
        name=name, kind=kind, total_bytes=len(data), digest=hashlib.sha256(data).digest(), request_id=request_id()
    )

    def chunks() -> Iterator[Any]:
        for offset in range(0, max(1, len(data)), CHUNK_BYTES_MAX):
            part = data[offset : offset + CHUNK_BYTES_MAX]
            yield artifact_pb2.PutArtifactChunk(data=part, offset=offset, crc32c=crc32c(part), **(first if offset == 0 else {}))

    try:
        answer = plane.stream(_ARTIFACTS, "Put", lambda send, left_s: send(chunks(), timeout=left_s), _timeout_s(len(data)))
    except grpc.RpcError as error:
        taken = error.code() == grpc.StatusCode.FAILED_PRECONDITION and _TAKEN in (error.details() or "")
        if taken or error.code() == grpc.StatusCode.ALREADY_EXISTS:
            raise NameTaken(error.details()) from error
        raise RaftgridError(f"failed to keep artifact {name!r}: {error.code().name}: {error.details()}") from error
    found: str = answer.artifact_id
    return found


def exists(plane: Plane, artifact: str) -> bool:
    """Whether something goes by this name or id. Raises PlaneUnavailable."""
    return bool(plane.call(_ARTIFACTS, "Stat", artifact_pb2.StatArtifactRequest(artifact=artifact)).found)


def delete(plane: Plane, artifact: str) -> None:
    """Deletes an artifact; one that is not there, or that others hold, stays as it is. Raises PlaneUnavailable, RaftgridError with what a replica said."""
    try:
        plane.call(_ARTIFACTS, "Delete", artifact_pb2.DeleteArtifactRequest(artifact=artifact, request_id=request_id()))
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
            raise RaftgridError(f"failed to delete artifact {artifact!r}: {error.code().name}: {error.details()}") from error


def get(plane: Plane, artifact: str, digest: bytes = b"") -> Optional[bytes]:
    """The bytes of an artifact (an id, a name, JOB/model@latest), verified; `digest`: their SHA-256 if it is known. None: there is no such
    artifact. Raises TransferError if they come damaged again and again, PlaneUnavailable, RaftgridError with what a replica said."""
    damaged, download = 0, _Download(artifact, digest)
    while True:
        before = download.left_bytes()
        try:
            plane.stream(_ARTIFACTS, "Get", download.attempt, _timeout_s(before or 0))
            return download.finish()
        except _Damaged as error:
            damaged += 1
            if damaged >= CORRUPT_ATTEMPTS_MAX:
                raise TransferError(f"failed to get artifact {artifact!r}, {damaged} times: {error}") from error
            download = _Download(artifact, digest)
        except PlaneUnavailable:
            if download.left_bytes() == before:
                raise
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise RaftgridError(f"failed to get artifact {artifact!r}: {error.code().name}: {error.details()}") from error


class _Download:
    """What has come of an artifact, over several attempts."""

    def __init__(self, artifact: str, digest: bytes) -> None:
        self._artifact = artifact
        self._digest = digest
        self._head: Optional[Tuple[int, bytes]] = None
        self._data = bytearray()

    def attempt(self, ask: Any, left_s: float) -> None:
        """Goes on behind what is there. A name may move between two attempts; the id, known since the first chunk, does not."""
        request = artifact_pb2.GetArtifactRequest(artifact=self._artifact, offset=len(self._data))
        stream = ask(request, timeout=left_s)
        try:
            for chunk in stream:
                self._take(chunk)
        finally:
            stream.cancel()

    def left_bytes(self) -> Optional[int]:
        """None: it is not known yet how many there are."""
        return None if self._head is None else self._head[0] - len(self._data)

    def _take(self, chunk: Any) -> None:
        if self._head is None:
            self._head = (chunk.total_bytes, chunk.digest)
            self._artifact = chunk.artifact_id or self._artifact
        if chunk.offset != len(self._data) or crc32c(chunk.data) != chunk.crc32c:
            raise _Damaged(f"the chunk at offset {chunk.offset} is damaged, or {len(self._data)} was expected")
        if len(self._data) + len(chunk.data) > self._head[0]:
            raise _Damaged(f"more than the {self._head[0]} bytes that were announced")
        self._data += chunk.data

    def finish(self) -> bytes:
        """The bytes, if they are whole."""
        total, announced = self._head or (0, b"")
        if self._head is None or len(self._data) != total:
            raise _Damaged(f"{len(self._data)} bytes instead of {total}")
        data = bytes(self._data)
        for expected in (announced, self._digest):
            if expected and hashlib.sha256(data).digest() != expected:
                raise _Damaged("SHA-256 differs from the one announced")
        return data


def _timeout_s(size_bytes: int) -> float:
    return STREAM_TIMEOUT_S + size_bytes / STREAM_BYTES_PER_S_MIN
