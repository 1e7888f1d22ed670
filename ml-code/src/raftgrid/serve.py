"""A worker node whose tasks are calls of Python functions, in one process that stays: no process is started for a task.

    python -m raftgrid.serve --function double=calls:double --endpoints HOST:PORT[,HOST:PORT...] --node-id NAME --dir DIR

A task of type `double` calls `calls.double(data)` with what its data says (JSON), and what that returns (JSON) is its result. Such tasks run
only here: submit them with the constraint `function.double=python`. Or from a program of one's own::

    raftgrid.serve.run({"double": lambda data: 2 * data}, endpoints="...", node_id="calls-0", directory="calls-0")

A call begins when a heartbeat has shown that its lease is this node's, and not if the lease may be over by then. One call runs at a time; with
`--slots N` up to N are held, so that the next is here when one ends. Tasks, starts and reports go over one stream in batches. A function that raises fails its task; a function cannot be killed, so when its task has to end at once (its lease is
lost, the grace after a cancel or its time is over) the *process* ends, with status 75 (1 if the function let no other thread run): have it
started again. `should_stop` tells a long function that it is asked to end. Of a task's spec `run_timeout_ms` counts; limits, environment,
bundle and `on_disconnect = continue` are for processes.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Mapping, Optional, Tuple

import grpc

from . import _last_word
from ._attempt import EXIT_TRY_AGAIN
from ._call import Call
from ._limits import ENDED_KEPT_S, SESSION_ANSWER_S, SESSION_BYTES_MAX, SESSION_CALLS_MAX, SESSION_FLUSH_S
from ._node import LOOK_S, Node, add_options, check_options, run_until_drained
from ._proto import task_pb2, task_pb2_grpc

TASKS = task_pb2_grpc.TaskServiceStub
_TRY_AGAIN = {4, 8, 10, 13, 14}
"""Statuses of gRPC after which the same call may succeed: deadline, exhausted, aborted, internal, unavailable."""

_log = logging.getLogger("raftgrid.serve")
_running: Optional[Call] = None


def should_stop() -> bool:
    """Whether the call that runs is asked to end: it is cancelled, the node drains, or its time is over."""
    return _running is not None and _running.stopping.is_set()


class Server(Node):
    """A node whose tasks are calls."""

    PROGRAM = "raftgrid.serve"
    UNABLE = ("command", "python", "train", "matmul", "torchrun")

    def __init__(self, options: argparse.Namespace, functions: Mapping[str, Callable[[Any], Any]]) -> None:
        super().__init__(options)
        self._functions = dict(functions)
        self._waiting: Deque[Call] = deque()
        self._work_there = threading.Event()
        self._outgoing: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        # Reports and starts that are not acknowledged, by attempt; those of `_unsent` were not sent on this stream yet.
        self._reports: Dict[Tuple[str, int], Any] = {}
        self._starts: Dict[Tuple[str, int], Any] = {}
        # Acknowledged ones, oldest first, and when.
        self._over: Dict[Tuple[str, int], float] = {}
        self._unsent: List[Any] = []
        # Batches that are not answered: when each was sent, and its calls.
        self._sent: Dict[int, Tuple[float, List[Any]]] = {}
        self._stream: Any = None
        self._endpoint = ""
        self._armed = False
        self._batch = 0
        self._polling = False

    def _labels(self) -> Dict[str, str]:
        return {f"function.{name}": "python" for name in self._functions}

    def run(self) -> int:
        threading.Thread(target=self._guarded, args=(self._work,), name="work", daemon=True).start()
        return super().run()

    # What calls tell it.

    def report(self, call: Call, report: Any) -> None:
        """The call is over. It is told in a batch, and again until it is acknowledged."""
        with self._lock:
            self._reports[call.id] = report
            self._unsent.append(task_pb2.SessionCall(report=report))

    def tell_started(self, call: Call) -> None:
        """It takes longer: it has started."""
        start = task_pb2.StartTaskRequest(task_id=call.id[0], lease_epoch=call.id[1])
        with self._lock:
            self._starts[call.id] = start
            self._unsent.append(task_pb2.SessionCall(start=start))

    def failure(self, call: Call, error: BaseException) -> str:
        """Tells where a function failed, while its exception is handled; gives what it says, whatever that does."""
        try:
            _log.exception("call failed task_id=%s epoch=%d", *call.id)
            return f"{type(error).__name__}: {error}"
        except Exception:
            return type(error).__name__

    def end(self, call: Call, why: str, report: Optional[Any]) -> None:
        """Ends the process, whose call cannot be ended otherwise. What there is to report, another program says in its place."""
        _log.error("the process ends task_id=%s epoch=%d why=%s", *call.id, why)
        logging.shutdown()
        if report is not None:
            status = 0 if why == "drained" else EXIT_TRY_AGAIN
            _last_word.become(self.endpoints, report, self.node_id, self._incarnation, status)
        os._exit(1 if self._failure else EXIT_TRY_AGAIN)

    # Calls.

    def _work(self) -> None:
        global _running
        flushed = time.monotonic()
        while not self._ended.is_set():
            while self._waiting and self._waiting[0].is_over:
                self._waiting.popleft()
            if not self._waiting or not self._waiting[0].confirmed:
                self._flush()
                self._work_there.wait(LOOK_S)
                self._work_there.clear()
                continue
            call = self._waiting.popleft()
            if not self._armed:
                # The thread that looks after it may not run any more once the function does.
                self._arm(call.renewed_at, self.now())
            _running = call
            call.run(self._functions[call.task.task_type])
            _running = None
            if len(self._unsent) >= SESSION_CALLS_MAX or time.monotonic() - flushed > SESSION_FLUSH_S:
                self._flush()
                flushed = time.monotonic()

    def _flush(self) -> None:
        with self._lock:
            calls: List[Any] = []
            size = 0
            for call in self._unsent:
                more = call.ByteSize()
                if calls and (len(calls) == SESSION_CALLS_MAX or size + more > SESSION_BYTES_MAX):
                    self._send(calls)
                    calls, size = [], 0
                calls.append(call)
                size += more
            if calls:
                self._send(calls)
            self._unsent = []

    def _send(self, calls: List[Any]) -> None:
        """Under the lock."""
        self._batch += 1
        self._sent[self._batch] = (self.now(), calls)
        self._outgoing.put(task_pb2.SessionBatch(batch_id=self._batch, calls=calls))

    def _arm(self, renewed_at: float, now: float) -> None:
        """The fence for a function that lets no other thread run: a thread of C, which needs no interpreter, ends the process."""
        self._armed = True
        left = renewed_at + self.fence_after_s - now
        faulthandler.dump_traceback_later(max(left, LOOK_S) + LOOK_S, exit=True)

    # The stream.

    def _look(self, now: float) -> None:
        """What waits to be sent while a call takes long; a call that lets no other thread run; a replica that stands still, which answers
        nothing and breaks nothing off."""
        renewed = [attempt.renewed_at for attempt in self._attempts() if attempt.confirmed and not attempt.is_over]
        if renewed:
            self._arm(min(renewed), now)
        elif self._armed:
            self._armed = False
            faulthandler.cancel_dump_traceback_later()
        self._flush()
        with self._lock:
            oldest = next(iter(self._sent.values()), (now, []))[0]
            if self._stream is not None and now > oldest + self._options.poll_wait + SESSION_ANSWER_S:
                self._sent = {}
                self._polls.move_on(self._endpoint, "")
                self._stream.cancel()

    def _poll(self) -> None:
        while not self._ended.is_set():
            if not self._incarnation:
                time.sleep(LOOK_S)
                continue
            endpoint = self._polls.preferred
            try:
                self._converse(endpoint)
            except grpc.RpcError as error:
                _log.debug("stream broke: %s", error.details())
                self._polls.note(endpoint, error)
            time.sleep(0.1)

    def _converse(self, endpoint: str) -> None:
        """One stream at one replica, until it breaks or the replica does not lead."""
        outgoing: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        with self._lock:
            self._outgoing, self._sent, self._polling = outgoing, {}, False
            # Whatever the stream before it took with it: all of it is safe to send twice.
            self._unsent = [task_pb2.SessionCall(start=start) for start in self._starts.values()]
            self._unsent += [task_pb2.SessionCall(report=report) for report in self._reports.values()]
        stream = self._polls.stub(TASKS, endpoint).Session(iter(outgoing.get, None))
        self._stream, self._endpoint = stream, endpoint
        try:
            self._flush()
            self._ask()
            for answers in stream:
                with self._lock:
                    sent_at, calls = self._sent.pop(answers.batch_id, (0.0, []))
                refused = self._take_answers(calls, answers.answers, sent_at)
                if refused is not None:
                    self._polls.move_on(endpoint, refused)
                    return
                self._ask()
        finally:
            outgoing.put(None)
            stream.cancel()

    def _ask(self) -> None:
        with self._lock:
            free = self.slots - len(self._held)
            enough = free >= (self.slots + 1) // 2
            if self._polling or not enough or self._draining.is_set():
                return
            self._polling = True
            request = task_pb2.PollTaskRequest(
                node_id=self.node_id,
                wait_ms=int(self._options.poll_wait * 1000),
                max_tasks=free,
                incarnation=self._incarnation,
            )
            self._send([task_pb2.SessionCall(poll=request)])

    def _take_answers(self, calls: Iterable[Any], answers: Iterable[Any], sent_at: float) -> Optional[str]:
        """What the replica says of what it was sent. Gives why it cannot be asked, if it cannot."""
        refused = None
        for call, answer in zip(calls, answers):
            kind = call.WhichOneof("call")
            again = answer.status in _TRY_AGAIN
            if kind == "poll":
                self._polling = False
                self._take_tasks(answer.poll.tasks, sent_at)
            elif kind == "report" and not again:
                self._acknowledged((call.report.task_id, call.report.lease_epoch), answer)
            elif kind == "start" and not again:
                self._started((call.start.task_id, call.start.lease_epoch), answer)
            if again:
                refused = answer.message
        return refused

    def _started(self, attempt: Tuple[str, int], answer: Any) -> None:
        with self._lock:
            self._starts.pop(attempt, None)
            held = self._held.get(attempt)
        if answer.status and held is not None:
            _log.warning("start refused task_id=%s epoch=%d reason=%s", *attempt, answer.message)
            held.kill("revoked")

    def _acknowledged(self, attempt: Tuple[str, int], answer: Any) -> None:
        if answer.status:
            _log.warning("report refused task_id=%s epoch=%d reason=%s", *attempt, answer.message)
        with self._lock:
            self._reports.pop(attempt, None)
            self._starts.pop(attempt, None)
            self._held.pop(attempt, None)
            now = self._over[attempt] = self.now()
            while self._over and now - next(iter(self._over.values())) > ENDED_KEPT_S:
                self._over.pop(next(iter(self._over)))

    def _answered(self) -> None:
        self._work_there.set()

    def _take_tasks(self, tasks: Iterable[Any], asked_at: float) -> None:
        taken = []
        with self._lock:
            for task in tasks:
                call = Call(self, task, asked_at)
                if call.id not in self._held and call.id not in self._reports and call.id not in self._over:
                    self._held[call.id] = call
                    taken.append(call)
        for call in taken:
            if self._draining.is_set():
                call.stop("drained", self.stop_grace_s)
            elif call.task.task_type in self._functions:
                self._waiting.append(call)
            else:
                self.report(call, call.unknown(sorted(self._functions)))
        if taken:
            self._work_there.set()
            # The leader counts from the assignment, which may be long ago: renew at once.
            self._wake_beat.set()


def run(
    functions: Mapping[str, Callable[[Any], Any]],
    *,
    endpoints: str,
    node_id: str,
    directory: str,
    slots: int = 1,
    labels: Optional[Mapping[str, str]] = None,
) -> int:
    """Serves the functions, each under its task type, until the process is told to end by SIGTERM. Call it from the main thread.

    endpoints: client addresses of replicas, host:port separated by commas. node_id: unique in the cluster. directory: of this node alone.
    slots: calls held at once, of which one runs. labels: for constraints of tasks. Gives the exit status.
    """
    words = ["--endpoints", endpoints, "--node-id", node_id, "--dir", directory, "--slots", str(slots)]
    for key, value in (labels or {}).items():
        words += ["--label", f"{key}={value}"]
    parser = _parser()
    options = parser.parse_args(words)
    check_options(parser, options)
    return run_until_drained(Server(options, functions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raftgrid.serve", description="A worker node of Python functions.")
    add_options(parser)
    parser.set_defaults(slots=1)
    parser.add_argument(
        "--function", action="append", default=[], metavar="TYPE=MODULE:NAME", help="what tasks of that type call"
    )
    return parser


def _function(parser: argparse.ArgumentParser, text: str) -> Tuple[str, Callable[[Any], Any]]:
    task_type, _, place = text.partition("=")
    module, _, name = place.partition(":")
    if not (task_type and module and name):
        parser.error(f"--function {text!r} is not TYPE=MODULE:NAME")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        parser.error(f"--function {text!r}: {error}")
    if not callable(function):
        parser.error(f"--function {text!r} is not a function")
    return task_type, function


def main(words: Optional[List[str]] = None) -> int:
    """Serves until it is drained; gives the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = _parser()
    options = parser.parse_args(words)
    check_options(parser, options)
    functions = dict(_function(parser, text) for text in options.function)
    if not functions:
        parser.error("no --function is given")
    status = run_until_drained(Server(options, functions))
    # Threads that wait in calls must not hold up the end.
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    # Under its own name, as functions import it: `should_stop` must mean the call of this server.
    from raftgrid import serve

    sys.exit(serve.main())
