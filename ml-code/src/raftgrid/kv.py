"""Replicated keys: small values that all replicas agree on. A key's revision rises with each write; compare it to know that nobody wrote."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, NamedTuple, Optional, Tuple

import grpc

from ._limits import ATTEMPT_TIMEOUT_S, CALL_TIMEOUT_S, KEY_WATCH_S
from ._plane import Plane, of_environment, request_id
from ._proto import kv_pb2, kv_pb2_grpc
from .errors import LeaseLost

_KV = kv_pb2_grpc.KvServiceStub


class Value(NamedTuple):
    """A value and the revision of its key."""

    data: bytes
    revision: int


class Keys:
    """Replicated keys. Writes for a task carry its lease and are refused (LeaseLost) once that is lost; keys of a job go when it is over.

    Every call survives the death of replicas as long as a majority is left, for `timeout_s`; then it raises PlaneUnavailable.
    """

    def __init__(
        self,
        plane: Optional[Plane] = None,
        task_id: str = "",
        lease_epoch: int = 0,
        job_id: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._plane = plane if plane is not None else of_environment()
        self._task: Dict[str, Any] = dict(task_id=task_id, lease_epoch=lease_epoch)
        self._job_id = job_id
        self._timeout_s = timeout_s

    @classmethod
    def of_task(cls, plane: Optional[Plane] = None, timeout_s: float = CALL_TIMEOUT_S) -> "Keys":
        """Those of the task that this process is, if it is one."""
        environ = os.environ
        epoch = int(environ.get("RAFTGRID_LEASE_EPOCH", "0") or 0)
        task_id = environ.get("RAFTGRID_TASK", "") if epoch else ""
        return cls(plane, task_id, epoch, environ.get("RAFTGRID_JOB", ""), timeout_s)

    def _write(self, method: str, request: Any) -> Any:
        try:
            return self._plane.call(_KV, method, request, self._timeout_s)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION and "STALE_LEASE" in (error.details() or ""):
                raise LeaseLost(error.details()) from error
            raise

    def get(self, key: str) -> Optional[Value]:
        """The value as of now."""
        request = kv_pb2.GetRequest(key=key, linearizable=True)
        answer = self._plane.call(_KV, "Get", request, self._timeout_s)
        return Value(answer.data, answer.revision) if answer.found else None

    def put(self, key: str, data: bytes) -> int:
        """Sets the key, whatever it was; gives its revision."""
        request = kv_pb2.AddRequest(key=key, data=data, request_id=request_id(), job_id=self._job_id, **self._task)
        return self._write("Add", request).revision

    def compare_and_set(self, key: str, data: bytes, expected: int) -> Tuple[bool, Optional[Value]]:
        """Sets the key if its revision is `expected` (0: it must not exist). Gives whether it did, and the value as it is then."""
        request = kv_pb2.CompareAndSetRequest(
            key=key, data=data, expected=expected, request_id=request_id(), job_id=self._job_id, **self._task
        )
        answer = self._write("CompareAndSet", request)
        return answer.swapped, Value(answer.data, answer.revision) if answer.found else None

    def delete(self, key: str, expected: int = 0) -> bool:
        """Deletes the key, if its revision is `expected` where that is not 0. False: it was not there, or has another one."""
        request = kv_pb2.DeleteRequest(key=key, expected=expected, request_id=request_id(), **self._task)
        return self._write("Delete", request).deleted

    def wait(self, key: str, timeout_s: float) -> Optional[Value]:
        """Waits until the key is there. None: it never was."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.get(key)
            left = deadline - time.monotonic()
            if found is not None or left <= 0:
                return found
            self._watch(key, min(left, KEY_WATCH_S))

    def _watch(self, key: str, timeout_s: float) -> None:
        """Returns when the key has changed, the time is up, or the replica is gone."""
        endpoint = self._plane.preferred
        request = kv_pb2.WatchRequest(key=key, timeout_seconds=max(1, round(timeout_s)))
        stream = self._plane.stub(_KV, endpoint).Watch(request, timeout=timeout_s + ATTEMPT_TIMEOUT_S)
        try:
            for change in stream:
                if not change.deleted:
                    return
        except grpc.RpcError as error:
            self._plane.note(endpoint, error)
            time.sleep(0.05)
        finally:
            stream.cancel()
