"""Calls of functions, without a control plane; with one they are tested by bins/controld/tests/python_calls.rs."""

import itertools
from typing import Any, List

import pytest

from raftgrid import serve
from raftgrid._call import Call
from raftgrid._limits import SESSION_BYTES_MAX, SESSION_CALLS_MAX
from raftgrid._proto import task_pb2, types_pb2


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def mute(_data: Any) -> None:
    raise Mute


@pytest.fixture
def server(tmp_path):
    options = serve._parser().parse_args(["--endpoints", "127.0.0.1:1", "--dir", str(tmp_path), "--node-id", "n"])
    server = serve.Server(options, {"double": lambda data: 2 * data, "mute": mute, "long": lambda _: "x" * 70_000})
    server.clock = itertools.count(100.0, 0.001)
    server.now = lambda: next(server.clock)
    return server


def ran(server: serve.Server, task_type: str, data: bytes, asked_at: float = 100.0) -> List[Any]:
    call = Call(server, types_pb2.Task(task_id="t", lease_epoch=7, task_type=task_type, task_data=data), asked_at)
    server._held[call.id] = call
    call.run(server._functions[task_type])
    return list(server._reports.values())


def test_a_result_is_json(server):
    (report,) = ran(server, "double", b"21")
    assert (report.final_status, report.result_data, report.lease_epoch) == (types_pb2.COMPLETED, "42", 7)


@pytest.mark.parametrize(
    "task_type, data, reason",
    [
        ("double", b"{", "task_data is not JSON"),
        ("double", b"[" * 100_000, "task_data is not JSON"),
        ("double", b"{}", "TypeError"),
        ("mute", b"", "Mute"),
        ("long", b"", "the result has 70002 bytes, 65536 at most"),
    ],
)
def test_whatever_goes_wrong_fails_the_task_and_not_the_server(server, task_type, data, reason):
    (report,) = ran(server, task_type, data)
    assert report.final_status == types_pb2.FAILED and reason in report.reason


def test_a_lease_that_may_be_over_is_not_begun(server):
    assert ran(server, "double", b"1", asked_at=100.0 - server.fence_after_s) == []
    assert server._held == {}


def test_batches_are_bounded_in_number_and_in_bytes(server):
    for number in range(1_200):
        server._unsent.append(task_pb2.SessionCall(start=task_pb2.StartTaskRequest(task_id=f"t{number}")))
    big = task_pb2.ReportTaskResultRequest(result_data="x" * 60_000)
    server._unsent += [task_pb2.SessionCall(report=big) for _ in range(100)]
    server._flush()
    batches = [server._outgoing.get_nowait() for _ in range(server._outgoing.qsize())]
    assert sum(len(batch.calls) for batch in batches) == 1_300
    assert all(len(batch.calls) <= SESSION_CALLS_MAX and batch.ByteSize() < 2 * SESSION_BYTES_MAX for batch in batches)


def test_a_call_from_a_poll_that_waited_long_is_kept_until_a_beat_has_confirmed_it(server):
    call = Call(server, types_pb2.Task(task_id="t", lease_epoch=7, task_type="double", task_data=b"1"), 0.0)
    server._held[call.id] = call
    call.advance(1_000.0, server.fence_after_s)
    assert not call.is_over
    call.confirmed = True
    call.advance(1_000.0, server.fence_after_s)
    assert call.is_over and server._held == {}


def test_only_what_may_run_is_fenced(server):
    call = Call(server, types_pb2.Task(task_id="t", lease_epoch=7, task_type="double", task_data=b"1"), 100.0)
    call.confirmed = True
    server._held[call.id] = call
    server._look(100.0)
    assert server._armed
    call.run(server._functions["double"])
    # Its report is not acknowledged, and its lease gets old meanwhile.
    server._look(1_000.0)
    assert not server._armed and list(server._held) == [call.id]
