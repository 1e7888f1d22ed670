"""One attempt of a task that is a call of a Python function."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, List, Optional

from ._attempt import EXIT_CANCELLED, EXIT_DATA, EXIT_TIMED_OUT, EXIT_TRY_AGAIN, one_line
from ._limits import TASK_RESULT_BYTES_MAX
from ._node import Held
from ._proto import task_pb2, types_pb2

EXIT_FUNCTION = 1
"""A function that raised."""
START_TOLD_AFTER_S = 0.02
"""A call that runs longer is told to have started; a shorter one is over before anybody could have used it."""


class Call(Held):
    """Waits, runs, and is over. Asked to end by any thread, run by one."""

    def __init__(self, server: Any, task: Any, asked_at: float) -> None:
        self.task = task
        self.id = (task.task_id, task.lease_epoch)
        self.renewed_at = asked_at
        self.stopping = threading.Event()
        self._server = server
        self._lock = threading.Lock()
        self._state = "waiting"
        self._began = 0.0
        self._told = False
        self._why: Optional[str] = None
        self._kill_at: Optional[float] = None

    @property
    def is_over(self) -> bool:
        """Whether it was given back, lost, or has ended."""
        return self._state == "over"

    # What others ask of it.

    def stop(self, why: str, grace_s: float) -> None:
        """One that waits is given back; one that runs sees `stopping`, and is killed after the grace by `advance`."""
        with self._lock:
            if self._why is not None or self._state == "over":
                return
            self._why = why
            if self._state == "running":
                self._kill_at = self._server.now() + grace_s
                self.stopping.set()
                return
            self._state = "over"
        self._server.report(self, self._stopped())

    def kill(self, why: str) -> None:
        """A function cannot be killed: the process ends if it runs."""
        with self._lock:
            lost = why in ("fenced", "revoked")
            if self._state == "running":
                self._server.end(self, why, None if lost else self._stopped())
            if self._state == "waiting" or lost:
                self._state = "over"
        if lost:
            self._server.forget(self)

    def advance(self, now: float, fence_after_s: float) -> None:
        """Whatever is due: the fence, the end of a grace or of its time, and that it has started."""
        with self._lock:
            if self._state == "over":
                return
            ran_s = now - self._began if self._state == "running" else 0.0
            timeout_s = self.task.spec.run_timeout_ms / 1000
            tell = not self._told and ran_s > START_TOLD_AFTER_S
            self._told |= tell
            if timeout_s and ran_s > timeout_s and self._why is None:
                self._why, self._kill_at = "timed out", now + self._server.stop_grace_s
                self.stopping.set()
        # One that no beat has confirmed does not run, and a poll may have waited for long.
        if self.confirmed and now >= self.renewed_at + fence_after_s:
            self.kill("fenced")
        elif self._kill_at is not None and now >= self._kill_at:
            self.kill(self._why or "stopped")
        elif tell:
            self._server.tell_started(self)

    # Its own thread.

    def run(self, function: Callable[[Any], Any]) -> None:
        """Calls it, and hands its report over. Nothing if it was given back or lost before."""
        with self._lock:
            if self._state != "waiting":
                return
            now = self._server.now()
            # This process stood still, and the fence has not looked yet.
            late = now >= self.renewed_at + self._server.fence_after_s
            self._state, self._began = ("over" if late else "running"), now
        if late:
            self._server.forget(self)
            return
        report = self._outcome(function)
        with self._lock:
            if self._state != "running":
                return
            self._state = "over"
            if self._why in ("cancelled", "timed out"):
                report = self._stopped()
        self._server.report(self, report)

    def _outcome(self, function: Callable[[Any], Any]) -> Any:
        try:
            data = json.loads(self.task.task_data) if self.task.task_data else None
        except (ValueError, RecursionError) as error:
            return self._failed(EXIT_DATA, f"task_data is not JSON: {error}")
        try:
            result = function(data)
        except BaseException as error:  # whatever it is, it ends the call and not the server
            return self._failed(EXIT_FUNCTION, self._server.failure(self, error))
        try:
            text = json.dumps(result, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return self._failed(EXIT_DATA, f"the result is not JSON: {error}")
        if len(text.encode()) > TASK_RESULT_BYTES_MAX:
            return self._failed(EXIT_DATA, f"the result has {len(text)} bytes, {TASK_RESULT_BYTES_MAX} at most")
        report = self._report()
        report.final_status = types_pb2.COMPLETED
        report.result_data = text
        return report

    def unknown(self, known: List[str]) -> Any:
        """The report of a call of no function that is served here."""
        return self._failed(EXIT_DATA, f"no function {self.task.task_type!r} is served here, only {', '.join(known)}")

    def _stopped(self) -> Any:
        if self._why == "cancelled":
            return self._failed(EXIT_CANCELLED, "cancelled")
        if self._why == "timed out":
            return self._failed(EXIT_TIMED_OUT, f"ran longer than run_timeout_ms = {self.task.spec.run_timeout_ms}")
        return self._failed(EXIT_TRY_AGAIN, self._why or "stopped")

    def _failed(self, code: int, reason: str) -> Any:
        report = self._report()
        report.final_status = types_pb2.FAILED
        report.exit_code = code
        report.reason = one_line(reason)
        return report

    def _report(self) -> Any:
        return task_pb2.ReportTaskResultRequest(task_id=self.task.task_id, lease_epoch=self.task.lease_epoch)
