"""workerd's loopback service: the other side of a job in a cluster.

Every call carries the token, which stands for job, task and lease. Every call has a deadline and may be repeated: contributions are known by
their content, so a retry after a lost answer is a DUPLICATE, never a second count. While workerd lives, calls are retried without end: it is the
control plane that moves. If workerd dies this process is killed with it; where that does not happen, the change of parent ends the retries.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Optional, Tuple, TypeVar

import grpc

from . import _artifacts, _sealed
from ._backend import JobInfo, Outcome, PushResult, StepInfo
from ._crc32c import crc32c
from ._frame import File
from ._limits import (
    CHUNK_BYTES_MAX,
    CORRUPT_ATTEMPTS_MAX,
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NEXT_SHARDS_WAIT_MS,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    STREAM_BYTES_PER_S_MIN,
    STREAM_TIMEOUT_S,
    UNARY_TIMEOUT_S,
)
from ._numeric import numeric_class
from ._plane import Plane, of_environment
from ._proto import agent_pb2, agent_pb2_grpc, ml_pb2, ml_pb2_grpc
from ._version import __version__
from .errors import LeaseLost, RaftgridError, TransferError
from ._round import RoundRule
from ._sealed import Buffer

T = TypeVar("T")
_log = logging.getLogger("raftgrid")

_RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
_OUTCOMES = {
    ml_pb2.ACK_ACCEPTED: Outcome.ACCEPTED,
    ml_pb2.ACK_DUPLICATE: Outcome.DUPLICATE,
    ml_pb2.ACK_STALE: Outcome.STALE,
    ml_pb2.ACK_REJECTED: Outcome.REJECTED,
    ml_pb2.ACK_MISMATCH: Outcome.MISMATCH,
}
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),  # the agent is on this machine
    ("grpc.enable_retries", 0),  # retried here, where it is known what may be repeated
]


_FILE_KEY = "raftgrid-file"
"""Metadata: the place of a sealed file in place of the bytes of a stream (`_sealed`)."""


class _NoFile(Exception):
    """A sealed file cannot be opened, by this process or by the agent: the bytes are streamed instead."""


class _Corrupt(Exception):
    """A chunk or a whole file that fails its checks: the transfer is repeated a few times."""


class AgentBackend:
    """Talks to the agent at `address` (host:port or unix:path)."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._agent = agent_pb2_grpc.AgentServiceStub(self._channel)
        self._ml = ml_pb2_grpc.MLWorkerServiceStub(self._channel)
        self._metadata = (("raftgrid-token", token),)
        self._parent = os.getppid()
        self._jitter = random.Random()  # an own one: the state of the user's `random` must not depend on retries
        self._steps: Deque[StepInfo] = deque()
        self._final: Optional[int] = None
        self._stop = False
        self._replicas: Optional[Plane] = None
        self._keeps_shard_state = False
        self._opens_files = _sealed.available()
        self._agent_opens_files = False  # known once it says so, or has named one itself
        self._offers_files = True
        self.info = self._hello()

    def _hello(self) -> JobInfo:
        request = agent_pb2.HelloRequest(sdk_version=__version__)
        told = self._call("Hello", lambda: self._agent.Hello(request, timeout=UNARY_TIMEOUT_S, metadata=self._metadata))
        self._agent_opens_files = told.opens_files and self._opens_files
        environ = os.environ
        text = told.config_json or environ.get("RAFTGRID_CONFIG", "")
        return JobInfo(
            job_id=told.job_id or environ.get("RAFTGRID_JOB", ""),
            task_id=told.task_id or environ.get("RAFTGRID_TASK", ""),
            attempt=told.attempt or int(environ.get("RAFTGRID_ATTEMPT", "0") or 0),
            num_shards=told.num_shards or int(environ.get("RAFTGRID_NUM_SHARDS", "0") or 0),
            rounds=told.rounds,
            seed=told.seed,
            node_id=told.node_id,
            init_task=told.init_task,
            config=parse_config(text),
        )

    def init_model(self, frame: File, rule: RoundRule) -> PushResult:
        first: Dict[str, Any] = dict(optimizer=rule.optimizer_message(), numeric_class=numeric_class())
        combine = rule.combine_message()
        if combine is not None:
            first["combine"] = combine

        def send() -> ml_pb2.Ack:
            chunks = self._chunks(ml_pb2.InitModelChunk, frame, first)
            return self._ml.InitModel(chunks, timeout=_stream_timeout(len(frame)), metadata=self._metadata)

        return _result(self._call("InitModel", send))

    def next_step(self) -> Optional[StepInfo]:
        request = ml_pb2.NextShardsRequest(
            job_id=self.info.job_id, task_id=self.info.task_id, wait_ms=NEXT_SHARDS_WAIT_MS
        )
        timeout = NEXT_SHARDS_WAIT_MS / 1000 + UNARY_TIMEOUT_S
        while not self._steps:
            answer = self._call(
                "NextShards", lambda: self._ml.NextShards(request, timeout=timeout, metadata=self._metadata)
            )
            self._keeps_shard_state = answer.shard_state
            self._steps.extend(
                StepInfo(s.round, s.shard, s.num_shards, s.seed, s.model_version, s.model_digest, s.state_artifact) for s in answer.steps
            )
            if self._steps:
                break
            if answer.finished:
                self._final = answer.model_version if answer.has_model else None
                return None
            if self.should_stop():
                return None
            time.sleep(RETRY_FIRST_S)  # an agent that answers at once instead of waiting is not asked in a hot loop
        return self._steps.popleft()

    def get_model(self, version: Optional[int], digest: bytes) -> Tuple[int, Buffer]:
        corrupt = 0
        download = _Download(version, digest)
        while True:
            try:
                self._call("GetModel", lambda: self._receive(download))
                return download.finish()
            except _NoFile as error:
                _log.warning("models are streamed: %s", error)
                self._opens_files = self._agent_opens_files = False
                download = _Download(version, digest)
            except _Corrupt as error:
                corrupt += 1
                if corrupt >= CORRUPT_ATTEMPTS_MAX:
                    raise TransferError(f"failed to get the model, {corrupt} times: {error}") from error
                _log.warning("the model came damaged and is fetched again: %s", error)
                if not download.resumable:
                    download = _Download(version, digest)

    def _receive(self, download: "_Download") -> None:
        request = ml_pb2.ModelRequest(
            job_id=self.info.job_id,
            task_id=self.info.task_id,
            version=download.version or 0,
            version_given=download.version is not None,
            offset=len(download.data),
        )
        asks_for_file = self._opens_files and not download.data
        metadata = (*self._metadata, (_FILE_KEY, "1")) if asks_for_file else self._metadata
        stream = self._ml.GetModel(request, timeout=STREAM_TIMEOUT_S, metadata=metadata)
        try:
            for number, chunk in enumerate(stream):
                place = _place_in(stream.initial_metadata()) if asks_for_file and number == 0 else ""
                if place:
                    download.take_file(chunk, place)
                    self._agent_opens_files = True
                    return
                download.take(chunk, first=number == 0)
        finally:
            stream.cancel()

    def shard_state(self, step: StepInfo) -> Optional[bytes]:
        if not step.state_artifact:
            return None
        found = _artifacts.get(self._plane(), step.state_artifact)
        if found is None:
            raise RaftgridError(f"the state of round {step.round} shard {step.shard}, artifact {step.state_artifact}, is not there")
        return found

    def _plane(self) -> Plane:
        if self._replicas is None:
            self._replicas = of_environment()
        return self._replicas

    def push(self, step: StepInfo, frame: File, weight: float, metrics_json: str, state: Optional[bytes] = None) -> PushResult:
        if state is not None and not self._keeps_shard_state:
            raise RaftgridError("this cluster does not hand the state of a shard to its next step yet: push without state (buffers=False)")
        first: Dict[str, Any] = dict(
            round=step.round,
            shard=step.shard,
            weight=weight,
            metrics_json=metrics_json.encode(),
            numeric_class=numeric_class(),
            model_version=step.model_version,
            model_version_given=True,
        )
        if state is not None:
            first["state_artifact"] = _artifacts.put(self._plane(), "", state, "shard-state")
        if self._agent_opens_files and self._offers_files:
            try:
                return self._push_file(frame, first)
            except (_NoFile, OSError) as error:
                _log.warning("gradients are streamed: %s", error)
                self._offers_files = False

        def send() -> ml_pb2.Ack:
            chunks = self._chunks(ml_pb2.GradientChunk, frame, first)
            return self._ml.SendGradients(chunks, timeout=_stream_timeout(len(frame)), metadata=self._metadata)

        return _result(self._call("SendGradients", send))

    def _push_file(self, frame: File, first: Dict[str, Any]) -> PushResult:
        """The same without a stream: the agent reads a sealed file of this process, and hashes it. Raises _NoFile if it cannot, OSError if there is no
        memory for one."""
        with _sealed.Sealed(frame.pieces) as file:
            chunk = ml_pb2.GradientChunk(
                job_id=self.info.job_id, task_id=self.info.task_id, total_bytes=file.total_bytes, **first
            )
            metadata = (*self._metadata, (_FILE_KEY, file.place))

            def send() -> ml_pb2.Ack:
                try:
                    timeout = _stream_timeout(file.total_bytes)
                    return self._ml.SendGradients(iter((chunk,)), timeout=timeout, metadata=metadata)
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.UNIMPLEMENTED and (error.details() or "").startswith(_FILE_KEY):
                        raise _NoFile(error.details()) from error
                    raise

            return _result(self._call("SendGradients", send))

    def _chunks(self, message: Callable[..., T], frame: File, first: Dict[str, Any]) -> Iterator[T]:
        """The file in chunks; the first one has what describes the whole."""
        head = dict(
            first,
            job_id=self.info.job_id,
            task_id=self.info.task_id,
            total_bytes=len(frame),
            digest=frame.sha256(),
        )
        offset = 0
        for data in frame.chunks(CHUNK_BYTES_MAX):
            yield message(data=data, offset=offset, crc32c=crc32c(data), **(head if offset == 0 else {}))
            offset += len(data)

    def final_version(self) -> Optional[int]:
        return self._final

    def should_stop(self) -> bool:
        if self._stop:
            return True
        try:
            answer = self._agent.ShouldStop(
                agent_pb2.ShouldStopRequest(), timeout=UNARY_TIMEOUT_S, metadata=self._metadata
            )
        except grpc.RpcError as error:
            self._raise_final("ShouldStop", error)
            return False  # not known at the moment: go on
        if answer.stop:
            _log.warning("asked to stop: %s", answer.reason)
        self._stop = answer.stop
        return self._stop

    def set_result(self, result_json: str) -> None:
        request = agent_pb2.SetResultRequest(result_json=result_json)
        self._call("SetResult", lambda: self._agent.SetResult(request, timeout=UNARY_TIMEOUT_S, metadata=self._metadata))

    def close(self) -> None:
        self._channel.close()

    def _call(self, name: str, attempt: Callable[[], T]) -> T:
        """Repeats `attempt` until it ends in an answer or in an error that no retry mends."""
        pause_s = RETRY_FIRST_S
        told = False
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                self._raise_final(name, error)
                if not told:
                    _log.warning("%s is retried: %s", name, error.details())
                    told = True
            time.sleep(pause_s * (0.5 + 0.5 * self._jitter.random()))
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _raise_final(self, name: str, error: grpc.RpcError) -> None:
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.FAILED_PRECONDITION and "STALE_LEASE" in details:
            raise LeaseLost(f"{name}: {details}") from error
        if code not in _RETRIED:
            raise RaftgridError(f"failed to call {name}: {code.name}: {details}") from error
        if os.getppid() != self._parent:
            raise LeaseLost(f"{name}: the workerd that started this process is gone") from error


class _Download:
    """A model on its way: what has come, and what it must be."""

    def __init__(self, version: Optional[int], digest: bytes) -> None:
        self.version = version
        self.data = bytearray()
        self.file: Optional[Buffer] = None
        self.resumable = True
        self._digest = digest
        self._total = 0
        self._old_server = False
        self._version_asked = version

    def take(self, chunk: ml_pb2.ModelChunk, first: bool) -> None:
        """The next chunk of a stream. Raises _Corrupt; what came before stays good."""
        if first and not self._old_server:
            self._begin(chunk)
        elif first and self._old_server:
            self.data.clear()  # knows no offset: it starts from the beginning
        if not self._old_server:
            if chunk.offset != len(self.data):
                raise _Corrupt(f"chunk at offset {chunk.offset}, expected {len(self.data)}")
            if crc32c(chunk.data) != chunk.crc32c:
                raise _Corrupt(f"crc32c of the chunk at offset {chunk.offset} is wrong")
        limit = self._total or FRAME_BYTES_MAX
        if len(self.data) + len(chunk.data) > limit:
            self.resumable = False
            raise _Corrupt(f"more than {limit} bytes")
        self.data += chunk.data

    def take_file(self, head: ml_pb2.ModelChunk, place: str) -> None:
        """The whole file, which the agent verified before it was sealed. Raises _NoFile, or _Corrupt for another model than the one asked for."""
        self._begin(head)
        if not head.digest:
            raise _NoFile("a file without a digest")
        try:
            self.file = _sealed.read(place, self._total)
        except (OSError, ValueError) as error:
            raise _NoFile(str(error)) from error

    def _begin(self, chunk: ml_pb2.ModelChunk) -> None:
        if chunk.total_bytes == 0 and not chunk.digest:
            # A server of the old contract sends chunk_id and data only, or a resumed stream does not say it again.
            self._old_server = not self.data
            return
        if self._version_asked is not None and chunk.version != self._version_asked:
            raise RaftgridError(f"asked for model {self._version_asked}, was given {chunk.version}")
        if self._digest and chunk.digest and chunk.digest != self._digest:
            self.resumable = False
            raise _Corrupt("the digest is not that of the model asked for")
        if self.version is not None and self.data and (chunk.version, chunk.total_bytes) != (self.version, self._total):
            self.resumable = False
            raise _Corrupt("the model changed during the transfer")
        self.version, self._total = chunk.version, chunk.total_bytes
        self._digest = self._digest or chunk.digest

    def finish(self) -> Tuple[int, Buffer]:
        """(version, file), with every check. Raises _Corrupt."""
        if self.file is not None:
            return self.version or 0, self.file
        self_total = self._total
        if self_total and len(self.data) != self_total:
            # The stream ended early without an error: the rest can be asked for.
            raise _Corrupt(f"{len(self.data)} bytes instead of {self_total}")
        if self._digest and hashlib.sha256(self.data).digest() != self._digest:
            self.resumable = False
            raise _Corrupt("SHA-256 differs from the one announced")
        # The buffer itself: a second copy of a large model is what memory has least room for.
        return self.version or 0, self.data


def _place_in(metadata: Any) -> str:
    """The place of a sealed file that an answer names; "" if it does not."""
    return next((str(value) for key, value in metadata or () if key == _FILE_KEY), "")


def parse_config(text: str) -> Dict[str, Any]:
    """The job's configuration, a JSON object; empty if there is none. Raises RaftgridError."""
    if not text.strip():
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise RaftgridError(f"failed to read the job's configuration (RAFTGRID_CONFIG): {error}") from error
    if not isinstance(config, dict):
        raise RaftgridError("failed to read the job's configuration (RAFTGRID_CONFIG): it must be a JSON object")
    return config


def _result(ack: ml_pb2.Ack) -> PushResult:
    if not ack.success and ack.reason.startswith("STALE_LEASE"):
        raise LeaseLost(ack.reason)  # fenced while the bytes were on their way
    outcome = _OUTCOMES.get(ack.outcome, Outcome.REJECTED)
    if outcome is Outcome.ACCEPTED and not ack.success:
        # A server of the old contract knows only success; it says no.
        outcome = Outcome.REJECTED
    return PushResult(outcome, ack.reason, ack.position)


def _stream_timeout(size_bytes: int) -> float:
    return STREAM_TIMEOUT_S + size_bytes / STREAM_BYTES_PER_S_MIN
