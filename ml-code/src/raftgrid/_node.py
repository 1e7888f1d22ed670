"""What every worker node in Python does, whatever its tasks are: it registers, beats, fences itself and drains.

A lease is renewed by beats and counts from the *sending* of the last one that was acknowledged; after two thirds of its time without one the
attempt is killed, at once. A second worker under the same name ends this one.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import platform
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import grpc

from ._generation import next_generation
from ._plane import Plane, endpoints_of
from ._proto import task_pb2, task_pb2_grpc, types_pb2
from ._version import __version__

NODES = task_pb2_grpc.NodeServiceStub
LEASE_TTL_S = 15.0
"""Until a leader names one."""
BEAT_S = 0.25
"""Between two beats until a leader names another time."""
LOOK_S = 0.02
"""Between two looks at what is due."""
BEAT_TIMEOUT_S = 2.0
"""One beat takes no longer."""
DRAIN_EXTRA_S = 5.0
"""What a drain may take beyond the grace of its tasks."""

_log = logging.getLogger("raftgrid.node")


def boottime() -> float:
    """Seconds since the machine booted, suspension included: a lease goes on while a machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Held:
    """An attempt whose lease a node holds."""

    id: Tuple[str, int]
    """Task id and lease epoch."""
    renewed_at: float
    """When the beat was sent that renewed it last; by the node's clock."""
    confirmed: bool = False
    """Whether a beat has renewed it. Before that nobody knows how old the assignment is."""
    is_over: bool = False
    """Whether nothing of it runs, or will: what is left is its report."""

    def stop(self, why: str, grace_s: float) -> None:
        """Asks it to end, and kills it after the grace."""
        raise NotImplementedError

    def kill(self, why: str) -> None:
        """Ends it at once. Of a lease that is lost nothing is told to anybody any more."""
        raise NotImplementedError

    def advance(self, now: float, fence_after_s: float) -> None:
        """Whatever is due: the fence, the end of a grace."""
        raise NotImplementedError


class Node:
    """One worker node. What its tasks are, a subclass knows: it adds to `_held` what it polls, and calls `forget`."""

    PROGRAM = "raftgrid"
    """How it calls itself where it fails."""
    UNABLE: Sequence[str] = ()
    """Task types that it does not run; the scheduler keeps them away."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.endpoints = endpoints_of(options.endpoints)
        self.node_id: str = options.node_id
        self.dir = Path(options.dir).resolve()
        self.slots: int = options.slots or os.cpu_count() or 1
        self.stop_grace_s: float = options.stop_grace
        self.plane = Plane(self.endpoints)
        self.now = boottime
        self.dir.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._directory_lock = self._take_directory()
        # Beats have connections of their own: nothing may delay them.
        self._beats = Plane(self.endpoints)
        self._polls = Plane(self.endpoints)
        self._generation = next_generation(self.dir / "generation", time.time_ns() // 1_000_000)
        self._nonce = random.SystemRandom().getrandbits(63) | 1
        self._incarnation = 0
        self._ttl_s = LEASE_TTL_S
        self._interval_s = BEAT_S
        self._lock = threading.Lock()
        self._held: Dict[Tuple[str, int], Held] = {}
        self._draining = threading.Event()
        self._ended = threading.Event()
        self._wake_beat = threading.Event()
        self._failure: Optional[str] = None
        self._leaving = threading.Event()
        self._usage = Usage()

    def _take_directory(self) -> Any:
        lock = open(self.dir / "lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"{self.PROGRAM}: {self.dir} is used by another node; try: another --dir") from None
        self._clean_directory()
        return lock

    def _clean_directory(self) -> None:
        """Whatever a node before this one left in `dir`, which is this one's now."""

    def _poll(self) -> None:
        """Takes tasks until the node has ended; on a thread of its own."""
        raise NotImplementedError

    def run(self) -> int:
        """Until it is drained (0) or cannot go on (1)."""
        threads = {}
        for body in (self._watch, self._beat, self._poll):
            threads[body.__name__] = threading.Thread(
                target=self._guarded, args=(body,), name=body.__name__, daemon=True
            )
            threads[body.__name__].start()
        _log.info("node starts node_id=%s slots=%d dir=%s", self.node_id, self.slots, self.dir)
        deadline = None
        while not self._ended.wait(LOOK_S):
            if not self._draining.is_set():
                continue
            deadline = deadline or self.now() + self.stop_grace_s + DRAIN_EXTRA_S
            if not self._held or self.now() >= deadline:
                # A beat that came after it would register this node once more.
                self._leaving.set()
                self._wake_beat.set()
                threads["_beat"].join(BEAT_TIMEOUT_S + 0.5)
                self._deregister()
                self._ended.set()
        if self._failure:
            print(f"{self.PROGRAM}: node {self.node_id}: {self._failure}", file=sys.stderr, flush=True)
        self._kill_all()
        if self._failure:
            return 1
        _log.info("node drained")
        return 0

    def _guarded(self, body: Callable[[], None]) -> None:
        """A node that lost a thread is none: better to end, and its tasks with it."""
        try:
            body()
        except Exception as error:
            _log.exception("thread failed")
            self._fail(f"{body.__name__.strip('_')}: {error!r}")

    def drain(self) -> None:
        """No new tasks; those that run are asked to end, and given back."""
        self._draining.set()
        self._wake_beat.set()
        for attempt in self._attempts():
            attempt.stop("drained", self.stop_grace_s)

    def forget(self, attempt: Held) -> None:
        """The attempt is over."""
        with self._lock:
            self._held.pop(attempt.id, None)

    def _attempts(self) -> List[Held]:
        with self._lock:
            return list(self._held.values())

    @property
    def fence_after_s(self) -> float:
        """How long an attempt goes on after the beat that renewed it last."""
        return self._ttl_s * 2 / 3

    def _kill_all(self) -> None:
        for attempt in self._attempts():
            attempt.kill("revoked")

    def _watch(self) -> None:
        """The fence. It makes no call and takes no lock for long, so nothing can hold it up."""
        while not self._ended.is_set():
            now, fence_after_s = self.now(), self.fence_after_s
            for attempt in self._attempts():
                attempt.advance(now, fence_after_s)
            self._look(now)
            time.sleep(LOOK_S)

    def _look(self, now: float) -> None:
        """Whatever else is due. Makes no call."""

    # Beats.

    def _beat(self) -> None:
        failures = 0
        while not self._ended.is_set() and not self._leaving.is_set():
            held = self._attempts()
            sent_at = self.now()
            timeout_s = min(max(self._ttl_s / 6, 0.25), BEAT_TIMEOUT_S)
            try:
                answer = self._beats.once(NODES, "Heartbeat", self._request(held), timeout_s)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    return self._fail(error.details() or "the control plane refused this node")
                failures += 1
                pause = min(0.025 * 2 ** min(failures, 8), self._interval_s)
                self._wake_beat.wait(pause)
                self._wake_beat.clear()
                continue
            failures = 0
            self._take_answer(answer, held, sent_at)
            self._answered()
            self._wake_beat.wait(self._interval_s)
            self._wake_beat.clear()

    def _request(self, held: List[Held]) -> Any:
        cpu, memory = self._usage.now()
        request = task_pb2.HeartbeatRequest(
            node_id=self.node_id,
            cpu_usage=cpu,
            memory_usage=memory,
            active_tasks=len(held),
            boot_nonce=self._nonce,
            generation=self._generation,
            incarnation=self._incarnation,
            held=[types_pb2.Lease(task_id=attempt.id[0], epoch=attempt.id[1]) for attempt in held],
            problem="it is draining" if self._draining.is_set() else "",
        )
        if self._incarnation == 0:
            request.node.CopyFrom(self._describe())
        return request

    def _labels(self) -> Dict[str, str]:
        """What tasks may ask for, beside the user's labels."""
        return {}

    def _describe(self) -> Any:
        options = self._options
        labels = {**self._labels(), **dict(pair.split("=", 1) for pair in options.label)}
        labels.setdefault("arch", platform.machine())
        labels.setdefault("os", platform.system().lower())
        return types_pb2.Node(
            node_id=self.node_id,
            address=platform.node(),
            cloud_provider=options.cloud_provider,
            region=options.region,
            labels=[types_pb2.Label(key=key, value=value) for key, value in sorted(labels.items())],
            capacity=types_pb2.Resources(
                cpu_milli=(os.cpu_count() or 1) * 1000, memory_bytes=self._usage.memory()[0], slots=self.slots
            ),
            version=f"python-{__version__}",
            unable=list(self.UNABLE),
        )

    def _take_answer(self, answer: Any, held: List[Held], sent_at: float) -> None:
        if not answer.acknowledged:
            return
        if self._incarnation not in (0, answer.incarnation):
            # Polling under it would take the tasks of whoever holds it now.
            return self._fail("another worker has registered under this node id")
        self._incarnation = answer.incarnation
        if answer.lease_ttl_ms:
            self._ttl_s = answer.lease_ttl_ms / 1000
        if answer.next_beat_ms:
            self._interval_s = answer.next_beat_ms / 1000
        for plane in (self.plane, self._beats, self._polls):
            plane.learn(answer.endpoints, answer.leader_address)
        pairs = lambda leases: {(lease.task_id, lease.epoch) for lease in leases}  # noqa: E731
        revoked, not_renewed, stopping = pairs(answer.revoked), pairs(answer.not_renewed), pairs(answer.stopping)
        for attempt in held:
            if attempt.id in revoked:
                attempt.kill("revoked")
            elif attempt.id not in not_renewed:
                attempt.renewed_at = max(attempt.renewed_at, sent_at)
                attempt.confirmed = True
            if attempt.id in stopping:
                attempt.stop("cancelled", self.stop_grace_s)

    def _answered(self) -> None:
        """A beat was answered."""

    def _fail(self, why: str) -> None:
        self._failure = why
        self._ended.set()

    def _deregister(self) -> None:
        if not self._incarnation:
            return
        request = task_pb2.DeregisterRequest(node_id=self.node_id, incarnation=self._incarnation)
        try:
            self.plane.call(NODES, "Deregister", request, timeout_s=3.0)
        except Exception as error:  # it leaves all the same: its leases run out
            _log.warning("deregistration failed: %s", error)


class Usage:
    """Shares of cores and memory in use, from /proc."""

    def __init__(self) -> None:
        self._last = (0, 0)
        self.now()

    def memory(self) -> Tuple[int, int]:
        """(all, available) bytes."""
        try:
            lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
            return tuple(int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
        except (OSError, KeyError, ValueError):
            return 0, 0

    def now(self) -> Tuple[float, float]:
        """(cores since the last call, memory now), each 0 to 1."""
        try:
            ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return 0.0, 0.0
        total, idle = sum(ticks), ticks[3] + ticks[4]
        busy, all_ = (total - idle) - self._last[0], total - self._last[1]
        self._last = (total - idle, total)
        whole, available = self.memory()
        return (busy / all_ if all_ else 0.0), (1.0 - available / whole if whole else 0.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every node."""
    parser.add_argument("--endpoints", default=os.environ.get("RAFTGRID_ENDPOINTS", "127.0.0.1:40051"), metavar="LIST")
    parser.add_argument("--node-id", default=platform.node(), metavar="NAME", help="unique in the cluster")
    parser.add_argument("--dir", required=True, help="directory of this node; each has its own")
    parser.add_argument("--slots", type=int, default=0, metavar="N", help="tasks at once; 0: one per core")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="for constraints of tasks")
    parser.add_argument("--cloud-provider", default="", metavar="NAME")
    parser.add_argument("--region", default="", metavar="NAME")
    parser.add_argument("--stop-grace", type=float, default=3.0, metavar="S", help="from the request to end to the kill")
    parser.add_argument("--poll-wait", type=float, default=2.0, metavar="S", help="how long a poll waits for a task")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program with its usage if one of them is wrong."""
    for pair in options.label:
        if not pair.partition("=")[0] or "=" not in pair:
            parser.error(f"--label {pair!r} is not K=V")
    try:
        endpoints_of(options.endpoints)
    except ValueError as error:
        parser.error(str(error))


def run_until_drained(node: Node) -> int:
    """Runs the node; SIGTERM and SIGINT drain it, a second one ends the process at once. Gives the exit status."""
    asked = 0

    def on_signal(_number: int, _frame: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(1)
        threading.Thread(target=node.drain, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return node.run()
