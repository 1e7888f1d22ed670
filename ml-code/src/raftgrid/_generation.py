"""Which of a node's processes is the newer one: a number that rises with each agent of a directory."""

from __future__ import annotations

import os
from pathlib import Path


def next_generation(path: Path, now_unix_ms: int) -> int:
    """The next number, on disk before it is returned: the wall clock, and at least one more than before.

    A machine that lost its disk goes on above what it said before, and a clock that was set back does not turn the order round. What the
    file at `path` holds beside a number counts as nothing; OSError: the disk.
    """
    try:
        before = int(path.read_text())
    except (FileNotFoundError, ValueError):
        before = 0
    if not 0 <= before < 2**64 - 1:
        before = 0
    number = max(now_unix_ms, before + 1)
    new = path.with_suffix(".new")
    with open(new, "w") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return number
