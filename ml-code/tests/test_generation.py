"""The number that orders a node's processes."""

from pathlib import Path

import pytest

from raftgrid._generation import next_generation


def test_it_rises_whatever_the_clock_and_the_file_say(tmp_path: Path) -> None:
    path = tmp_path / "generation"
    assert next_generation(path, 5_000) == 5_000
    assert next_generation(path, 5_000) == 5_001, "two in a millisecond"
    assert next_generation(path, 70) == 5_002, "a clock that was set back"
    assert next_generation(path, 9_000) == 9_000


@pytest.mark.parametrize("damaged", [b"", b"many\n", b"\xff\xfe", b"-3", b"18446744073709551616"])
def test_a_damaged_file_counts_as_nothing(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "generation"
    path.write_bytes(damaged)
    assert next_generation(path, 10_000) == 10_000
