"""The control plane behind its endpoints: one logical call is attempts at one replica after another, with one request id."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from typing import Any, Callable, Dict, List, Sequence, TypeVar

import grpc

from ._limits import ATTEMPT_TIMEOUT_S, CALL_TIMEOUT_S, ENDPOINTS_MAX, MESSAGE_BYTES_MAX, RETRY_FIRST_S, RETRY_MAX_S
from .errors import RaftgridError

T = TypeVar("T")
_HINT = re.compile(r"leader[:=]\s*([\w.\-\[\]:]+:\d+)")
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # retried here, where it is known what may be repeated
]
_MOVES_ON = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_WAITS = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}


class PlaneUnavailable(RaftgridError):
    """No replica answered in time. What was asked for may have been done: ask again with the same request id."""


def request_id() -> str:
    """A UUIDv7: it carries its creation time."""
    bits = (time.time_ns() // 1_000_000) << 80 | random.SystemRandom().getrandbits(76)
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def endpoints_of(text: str) -> List[str]:
    """host:port, separated by commas."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for endpoint in found:
        host, colon, port = endpoint.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise ValueError(f"endpoint {endpoint!r} is not host:port")
    if not found:
        raise ValueError("no endpoint is given: host:port[,host:port...]")
    return found


class Plane:
    """Calls replicas. Threads may share it."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = list(endpoints)
        self._at = 0
        self._channels: Dict[str, grpc.Channel] = {}
        self._stubs: Dict[Any, Any] = {}
        self._lock = threading.Lock()

    @property
    def preferred(self) -> str:
        """Whom the next call asks first."""
        with self._lock:
            return self._endpoints[self._at]

    def learn(self, endpoints: Sequence[str], leader: str = "") -> None:
        """More replicas, as one of them named them."""
        with self._lock:
            for endpoint in endpoints:
                if endpoint not in self._endpoints and len(self._endpoints) < ENDPOINTS_MAX:
                    self._endpoints.append(endpoint)
            if leader in self._endpoints:
                self._at = self._endpoints.index(leader)

    def stub(self, kind: Any, endpoint: str) -> Any:
        """The stub of this service at one replica."""
        with self._lock:
            if endpoint not in self._channels:
                self._channels[endpoint] = grpc.insecure_channel(endpoint, options=_OPTIONS)
            key = (kind, endpoint)
            if key not in self._stubs:
                self._stubs[key] = kind(self._channels[endpoint])
            return self._stubs[key]

    def once(self, kind: Any, method: str, request: Any, timeout_s: float) -> Any:
        """One attempt at the preferred replica; after a failure that another one may not have, that one is preferred."""
        endpoint = self.preferred
        try:
            return getattr(self.stub(kind, endpoint), method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            self.note(endpoint, error)
            raise

    def call(
        self, kind: Any, method: str, request: Any, timeout_s: float = CALL_TIMEOUT_S, attempt_s: float = ATTEMPT_TIMEOUT_S
    ) -> Any:
        """Attempts until there is an answer. The request must be safe to send twice. Raises PlaneUnavailable, or what a replica said."""
        return self.attempts(method, lambda left_s: self.once(kind, method, request, left_s), timeout_s, attempt_s)

    def stream(self, kind: Any, method: str, run: Callable[[Any, float], T], timeout_s: float) -> T:
        """The same for a stream: `run(the method at one replica, its timeout in seconds)` does a whole attempt."""

        def attempt(left_s: float) -> T:
            endpoint = self.preferred
            try:
                return run(getattr(self.stub(kind, endpoint), method), left_s)
            except grpc.RpcError as error:
                self.note(endpoint, error)
                raise

        return self.attempts(method, attempt, timeout_s, timeout_s)

    def attempts(self, method: str, attempt: Callable[[float], T], timeout_s: float, attempt_s: float) -> T:
        """Repeats `attempt(its timeout in seconds)` until it ends in an answer or in an error that no retry mends."""
        deadline = time.monotonic() + timeout_s
        pause = RETRY_FIRST_S
        tried = 0
        while True:
            left = deadline - time.monotonic()
            try:
                return attempt(max(0.001, min(left, attempt_s)))
            except grpc.RpcError as error:
                code = error.code()
                if code not in _MOVES_ON and code not in _WAITS:
                    raise
                tried += 1
                rest = random.uniform(pause / 2, pause) if code in _WAITS or tried % len(self._endpoints) == 0 else 0.0
                if time.monotonic() + rest >= deadline:
                    raise PlaneUnavailable(
                        f"no replica at {','.join(self._endpoints)} served {method} within {timeout_s:g} s: {error.details()}"
                    ) from error
            if rest:
                time.sleep(rest)
                pause = min(pause * 2, RETRY_MAX_S)

    def note(self, endpoint: str, error: grpc.RpcError) -> None:
        """Moves on from a replica, to the leader if the error names it."""
        if error.code() in _MOVES_ON:
            self.move_on(endpoint, error.details() or "")

    def move_on(self, endpoint: str, said: str) -> None:
        """The same for what a replica said in a stream."""
        hint = _HINT.search(said)
        with self._lock:
            if hint and hint.group(1) != endpoint:
                if hint.group(1) not in self._endpoints and len(self._endpoints) < ENDPOINTS_MAX:
                    self._endpoints.append(hint.group(1))
                if hint.group(1) in self._endpoints:
                    self._at = self._endpoints.index(hint.group(1))
                    return
            if self._endpoints[self._at] == endpoint:
                self._at = (self._at + 1) % len(self._endpoints)


def of_environment() -> Plane:
    """The cluster whose task this process is, or that RAFTGRID_ENDPOINTS names."""
    return Plane(endpoints_of(os.environ.get("RAFTGRID_ENDPOINTS", "")))
