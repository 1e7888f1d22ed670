"""What an attempt on the pure-Python agent writes: its pipes, the live log, the log that is kept."""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import Any, List, Optional

import grpc

from ._limits import CHUNK_BYTES_MAX, LOG_KEPT_BYTES, LOG_PIECE_BYTES_MAX, RESULT_TAIL_BYTES_MAX
from ._plane import Plane, PlaneUnavailable, request_id
from ._proto import artifact_pb2, artifact_pb2_grpc, task_pb2, task_pb2_grpc

_logger = logging.getLogger("raftgrid.agent")


def _crc_table() -> List[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C of a log: the one of `_crc32c`, which is faster, needs NumPy."""
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _CRC_TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


def feed(pipe: Any, text: str) -> None:
    try:
        pipe.write(text.encode())
        pipe.close()
    except OSError:
        pass  # it does not read


class Pipe(threading.Thread):
    """Copies a pipe into the log and keeps its last bytes."""

    def __init__(self, pipe: Any, log: "Log") -> None:
        super().__init__(daemon=True)
        self._pipe, self._log, self._tail = pipe, log, b""
        self.start()

    def run(self) -> None:
        while True:
            data = self._pipe.read1(16 * 1024)
            if not data:
                return
            self._log.append(data)
            self._tail = (self._tail + data)[-RESULT_TAIL_BYTES_MAX:]

    def join(self, timeout: Optional[float] = 1.0) -> None:
        super().join(timeout)

    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")


class Log:
    """The attempt's log, sent piece by piece while it runs, and kept as an artifact at its end. An aid: what cannot be sent is dropped."""

    def __init__(self, plane: Plane, task: Any) -> None:
        self._plane, self._task = plane, task
        self._head, self._tail, self._dropped = b"", b"", 0
        self._unsent, self._offset = b"", 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def append(self, data: bytes) -> None:
        head_max, tail_max = LOG_KEPT_BYTES
        with self._lock:
            self._unsent = (self._unsent + data)[-4 * LOG_PIECE_BYTES_MAX:]
            room = max(0, head_max - len(self._head))
            self._head += data[:room]
            tail = self._tail + data[room:]
            self._dropped += max(0, len(tail) - tail_max)
            self._tail = tail[-tail_max:]

    def _send(self) -> None:
        while True:
            ended = self._ended.wait(0.25)
            with self._lock:
                piece, self._unsent = self._unsent[:LOG_PIECE_BYTES_MAX], self._unsent[LOG_PIECE_BYTES_MAX:]
            if not piece:
                if ended:
                    return
                continue
            request = task_pb2.AppendLogRequest(
                task_id=self._task.task_id, lease_epoch=self._task.lease_epoch, offset=self._offset, data=piece
            )
            self._offset += len(piece)
            try:
                self._plane.call(task_pb2_grpc.NodeServiceStub, "AppendLog", request, timeout_s=5.0)
            except (grpc.RpcError, PlaneUnavailable) as error:
                _logger.debug("log is not sent: %s", error)

    def end(self) -> str:
        """Sends the rest; gives the id of the artifact, or ""."""
        self._ended.set()
        self._sender.join(2.0)
        mark = f"\n[raftgrid: {self._dropped} bytes of the log are left out here]\n".encode() if self._dropped else b""
        kept = self._head + mark + self._tail
        if not kept:
            return ""
        chunks = []
        for at in range(0, len(kept), CHUNK_BYTES_MAX):
            data = kept[at : at + CHUNK_BYTES_MAX]
            chunks.append(artifact_pb2.PutArtifactChunk(data=data, offset=at, crc32c=crc32c(data)))
        chunks[0].MergeFrom(
            artifact_pb2.PutArtifactChunk(
                kind="log", total_bytes=len(kept), digest=hashlib.sha256(kept).digest(), request_id=request_id()
            )
        )
        endpoint = self._plane.preferred
        try:
            return self._plane.stub(artifact_pb2_grpc.ArtifactServiceStub, endpoint).Put(iter(chunks), timeout=5.0).artifact_id
        except grpc.RpcError as error:
            self._plane.note(endpoint, error)
            _logger.debug("log is not kept: %s", error)
            return ""
