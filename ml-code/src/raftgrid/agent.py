"""A worker node in pure Python, for machines where no binary can be installed: it needs this package and grpcio.

    python -m raftgrid.agent --endpoints HOST:PORT[,HOST:PORT...] --node-id NAME --dir DIR

It speaks NodeService as workerd does: a lease is renewed by beats and counts from the *sending* of the last one that was acknowledged; after
two thirds of its time without one the process group is killed, at once. A second worker under the same name ends this one. SIGTERM drains:
no new tasks, those that run get SIGTERM and are given back; a second one ends at once, and the tasks die with the process.

It runs `command` and `python` tasks. GPUs, virtual environments, trainers and cgroups are workerd's.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import threading
import time
from typing import Any, List, Optional

import grpc

from ._attempt import Attempt, Spawner, kill_run
from ._node import LOOK_S, NODES, Node, add_options, check_options, run_until_drained
from ._proto import task_pb2

_log = logging.getLogger("raftgrid.agent")


class Agent(Node):
    """A node whose tasks are processes."""

    PROGRAM = "raftgrid.agent"
    UNABLE = ("train", "matmul", "torchrun")
    RUN_VARIABLE = "RAFTGRID_PYTHON_AGENT"
    """In the environment of every process that an agent started: the next agent of the same directory kills what is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.python: str = options.python
        self.spawner = Spawner()
        super().__init__(options)

    def _clean_directory(self) -> None:
        while kill_run(self.RUN_VARIABLE, str(self.dir)):
            time.sleep(0.01)
        shutil.rmtree(self.dir / "tasks", ignore_errors=True)

    def _poll(self) -> None:
        while not self._ended.is_set():
            free = self.slots - len(self._held)
            if self._draining.is_set() or not self._incarnation or free <= 0:
                time.sleep(LOOK_S)
                continue
            wait_ms = int(self._options.poll_wait * 1000)
            request = task_pb2.PollTaskRequest(
                node_id=self.node_id, wait_ms=wait_ms, max_tasks=free, incarnation=self._incarnation
            )
            asked = time.monotonic()
            try:
                tasks = self._polls.once(NODES, "PollTask", request, wait_ms / 1000 + 3.0).tasks
            except grpc.RpcError as error:
                _log.debug("poll failed: %s", error.details())
                time.sleep(0.2)
                continue
            new = sum(self._take(task) for task in tasks)
            if new:
                # The leader counts from the assignment, which may be long ago: renew at once.
                self._wake_beat.set()
            if time.monotonic() - asked < 0.05:
                time.sleep(0.2 if not new else 0.02)

    def _take(self, task: Any) -> bool:
        attempt = Attempt(self, task)
        with self._lock:
            if attempt.id in self._held:
                return False
            self._held[attempt.id] = attempt
        if self._draining.is_set():
            attempt.stop("drained", self.stop_grace_s)
        _log.info("task starts task_id=%s epoch=%d type=%s", *attempt.id, task.task_type)
        threading.Thread(target=attempt.run, name=f"task-{task.lease_epoch}", daemon=True).start()
        return True


def _options(words: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m raftgrid.agent", description="A worker node in pure Python.")
    add_options(parser)
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter of tasks")
    options = parser.parse_args(words)
    check_options(parser, options)
    return options


def main(words: Optional[List[str]] = None) -> int:
    """Runs an agent until it is drained; gives the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    status = run_until_drained(Agent(_options(words)))
    # Threads that wait in calls must not hold up the end.
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
