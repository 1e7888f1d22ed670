"""A worker node whose tasks are calls of Python functions, in one process that stays: no process is started for a task.

    python -m raftgrid.serve --function double=calls:double --endpoints HOST:PORT[,HOST:PORT...] --node-id NAME --dir DIR

A task of type `double` calls `calls.double(data)` with what its data says (JSON), and what that returns (JSON) is its result. Such tasks run
only here: submit them with the constraint `function.double=python`. Or from a program of one's own::

    raftgrid.serve.run({"double": lambda data: 2 * data}, endpoints="...", node_id="calls-0", directory="calls-0")

One call runs at a time; with `--slots N` up to N are held, so that the next is here when one ends. Tasks, starts and reports go over one
stream in batches. A function that raises fails its task; a function cannot be killed, so when its task has to end at once (its lease is
lost, the grace after a cancel or its time is over) the *process* ends, with status 75: have it started again. `should_stop` tells a long
function that it is asked to end.
"""

from __future__ import annotations

import argparse
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

from ._call import Call
from ._node import LOOK_S, NODES, Node, add_options, check_options, run_until_drained
from ._proto import task_pb2, task_pb2_grpc

TASKS = task_pb2_grpc.TaskServiceStub
REPORTS_MAX = 512
"""Reports in one batch."""
FLUSH_S = 0.005
"""How long a report waits for others at most, while calls are short."""
STREAM_ANSWER_S = 3.0
"""An answer that did not come by then, beyond the wait of a poll, does not come on this stream."""
EXIT_TRY_AGAIN = 75

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
        # Reports that are not acknowledged, by attempt; those of `_unsent` were not sent on this stream yet.
        self._reports: Dict[Tuple[str, int], Any] = {}
        self._unsent: List[Any] = []
        # Batches that are not answered: when each was sent, and its calls.
        self._sent: Dict[int, Tuple[float, List[Any]]] = {}
        self._stream: Any = None
        self._endpoint = ""
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
        with self._lock:
            start = task_pb2.StartTaskRequest(task_id=call.id[0], lease_epoch=call.id[1])
            self._unsent.append(task_pb2.SessionCall(start=start))
        self._flush()

    def log_failure(self, call: Call) -> None:
        """Tells where a function failed; called while its exception is handled."""
        _log.exception("call failed task_id=%s epoch=%d", *call.id)

    def end(self, call: Call, why: str, report: Optional[Any]) -> None:
        """Ends the process, whose call cannot be ended otherwise. What it held besides is given back."""
        _log.error("the process ends task_id=%s epoch=%d why=%s", *call.id, why)
        if report is not None:
            try:
                self.plane.call(NODES, "ReportTaskResult", report, timeout_s=2.0)
                self._leaving.set()
                self._deregister()
            except Exception as error:  # the leases run out
                _log.warning("not reported: %s", error)
        logging.shutdown()
        os._exit(0 if why == "drained" else EXIT_TRY_AGAIN)

    # Calls.

    def _work(self) -> None:
        global _running
        flushed = time.monotonic()
        while not self._ended.is_set():
            try:
                call = self._waiting.popleft()
            except IndexError:
                self._flush()
                self._work_there.wait(LOOK_S)
                self._work_there.clear()
                continue
            _running = call
            call.run(self._functions[call.task.task_type])
            _running = None
            if len(self._unsent) >= REPORTS_MAX or time.monotonic() - flushed > FLUSH_S:
                self._flush()
                flushed = time.monotonic()

    def _flush(self) -> None:
        with self._lock:
            while self._unsent:
                calls, self._unsent = self._unsent[:REPORTS_MAX], self._unsent[REPORTS_MAX:]
                self._send(calls)

    def _send(self, calls: List[Any]) -> None:
        """Under the lock."""
        self._batch += 1
        self._sent[self._batch] = (self.now(), calls)
        self._outgoing.put(task_pb2.SessionBatch(batch_id=self._batch, calls=calls))

    # The stream.

    def _look(self, now: float) -> None:
        """A replica that stands still answers nothing and breaks nothing off."""
        with self._lock:
            oldest = next(iter(self._sent.values()), (now, []))[0]
            if self._stream is not None and now > oldest + self._options.poll_wait + STREAM_ANSWER_S:
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
            self._unsent = [task_pb2.SessionCall(report=report) for report in self._reports.values()]
        stream = self._polls.stub(TASKS, endpoint).Session(iter(outgoing.get, None))
        self._stream, self._endpoint = stream, endpoint
        try:
            self._flush()
            self._ask()
            for answers in stream:
                with self._lock:
                    _, calls = self._sent.pop(answers.batch_id, (0.0, []))
                refused = self._take_answers(calls, answers.answers)
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

    def _take_answers(self, calls: Iterable[Any], answers: Iterable[Any]) -> Optional[str]:
        """What the replica says of what it was sent. Gives why it cannot be asked, if it cannot."""
        refused = None
        for call, answer in zip(calls, answers):
            kind = call.WhichOneof("call")
            again = answer.status in (4, 8, 10, 13, 14)  # deadline, exhausted, aborted, internal, unavailable
            if kind == "poll":
                self._polling = False
                self._take_tasks(answer.poll.tasks)
            elif kind == "report" and not again:
                self._acknowledged((call.report.task_id, call.report.lease_epoch), answer)
            if again:
                refused = answer.message
        return refused

    def _acknowledged(self, attempt: Tuple[str, int], answer: Any) -> None:
        if answer.status:
            _log.warning("report refused task_id=%s epoch=%d reason=%s", *attempt, answer.message)
        with self._lock:
            self._reports.pop(attempt, None)
            self._held.pop(attempt, None)

    def _take_tasks(self, tasks: Iterable[Any]) -> None:
        taken = []
        with self._lock:
            for task in tasks:
                call = Call(self, task)
                if call.id not in self._held and call.id not in self._reports:
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
