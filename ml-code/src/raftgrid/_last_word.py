"""What a server that has to end at once still has to say, said by a program that takes its place: nothing of the server runs any more then."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, List

from ._node import NODES
from ._plane import Plane
from ._proto import task_pb2

CALL_S = 3.0
"""Each of the two calls."""


def become(endpoints: List[str], report: Any, node_id: str, incarnation: int, status: int) -> None:
    """Replaces this process, with all its threads, by one that reports, deregisters the node and exits with `status`. Does not return."""
    home = str(Path(__file__).parent.parent)
    paths = [home] + [path for path in [os.environ.get("PYTHONPATH", "")] if path]
    words = [",".join(endpoints), report.SerializeToString().hex(), node_id, str(incarnation), str(status)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        os.execve(sys.executable, [sys.executable, "-m", "raftgrid._last_word", *words], environment)
    finally:  # it cannot be started: the lease runs out
        os._exit(status)


def main(words: List[str]) -> int:
    """Says it; gives the exit status, whether or not somebody listened."""
    endpoints, report, node_id, incarnation, status = words
    plane = Plane(endpoints.split(","))
    calls = [
        ("ReportTaskResult", task_pb2.ReportTaskResultRequest.FromString(bytes.fromhex(report))),
        ("Deregister", task_pb2.DeregisterRequest(node_id=node_id, incarnation=int(incarnation))),
    ]
    for method, request in calls:
        try:
            plane.call(NODES, method, request, timeout_s=CALL_S)
        except Exception as error:  # the leases run out
            print(f"raftgrid.serve: {method}: {error}", file=sys.stderr, flush=True)
    return int(status)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
