"""The pure-Python agent's own parts; as a node of a real cluster it is tested by bins/controld/tests/python_agent.rs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftgrid import _attempt, _attempt_log, _node, agent
from raftgrid._crc32c import crc32c

SRC = str(Path(__file__).parent.parent / "src")


def test_it_needs_neither_numpy_nor_safetensors():
    code = (
        "import sys\n"
        "for name in ('numpy', 'safetensors', 'google_crc32c'):\n"
        "    sys.modules[name] = None\n"
        "import raftgrid.agent, raftgrid.kv, raftgrid.serve\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": SRC})


def test_its_checksum_is_the_one_of_all_streams():
    for data in (b"", b"a", b"123456789", bytes(range(256)) * 33):
        assert _attempt_log.crc32c(data) == crc32c(data)


def test_a_reason_is_one_bounded_line():
    assert _attempt.one_line("\n  first\x07 line \nsecond") == "first  line"
    assert len(_attempt.one_line("é" * 5_000).encode()) <= 1_000


@pytest.mark.parametrize(
    "words", [["--endpoints", "nowhere", "--dir", "d"], ["--dir", "d", "--label", "zone"], ["--endpoints", "a:1"]]
)
def test_wrong_options_end_it_with_usage(words):
    with pytest.raises(SystemExit) as caught:
        agent._options(words)
    assert caught.value.code == 2


def test_processes_of_a_run_are_found_by_its_variable_and_no_others(tmp_path):
    marked = subprocess.Popen(["sleep", "60"], env={**os.environ, "RAFTGRID_TEST_RUN": str(tmp_path)})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "RAFTGRID_TEST_RUN": str(tmp_path) + "-other"})
    try:
        while _attempt.kill_run("RAFTGRID_TEST_RUN", str(tmp_path)) == 0:
            pass  # its exec is not complete: until then its environment is ours
        assert marked.wait(60) == -9
        assert other.poll() is None
    finally:
        for child in (marked, other):
            child.kill()
            child.wait()


def test_usage_is_a_share():
    cpu, memory = _node.Usage().now()
    assert 0.0 <= cpu <= 1.0 and 0.0 < memory < 1.0


def test_a_directory_belongs_to_one_agent(tmp_path):
    options = agent._options(["--endpoints", "127.0.0.1:1", "--dir", str(tmp_path), "--node-id", "n"])
    first = agent.Agent(options)
    with pytest.raises(SystemExit, match="used by another node"):
        agent.Agent(options)
    del first


def test_variables_of_a_task_are_its_own_only_where_they_can_be():
    theirs = [("A", "1"), ("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "\0"), ("RAFTGRID_TASK", "t")]
    assert [_attempt._is_theirs(key, value) for key, value in theirs] == [True] + [False] * 5


def test_a_process_that_cannot_be_made_does_not_end_the_thread_that_makes_them():
    spawner = _attempt.Spawner()
    with pytest.raises(ValueError):
        spawner.start(args=["true", "\0"])
    with pytest.raises(FileNotFoundError):
        spawner.start(args=["/nowhere/program"])
    assert spawner.start(args=["true"]).wait(60) == 0
