"""Files in memory that nobody can change any more (memfd with all its seals): how workerd and this process hand each other a model or a gradient
without a stream. What is sealed was verified by the side that wrote it, or is verified once by the side that reads it; nothing is copied between.

A place names one on this machine: "PID FD INODE". It is opened through /proc, and only if what is there is sealed and has that inode: a descriptor
may have been given to another file meanwhile. Where the system has no such files, everything is streamed as before.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Iterable, Union

Buffer = Union[bytes, bytearray, memoryview, mmap.mmap]

# <linux/fcntl.h>; the module fcntl has them from Python 3.9 on where it was built with new headers.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL, _SHRINK, _GROW, _WRITE = 1, 2, 4, 8
_ALL = _SEAL | _SHRINK | _GROW | _WRITE


def available() -> bool:
    """Whether this system has sealed files."""
    return hasattr(os, "memfd_create")


def read(place: str, total_bytes: int) -> mmap.mmap:
    """The bytes of another process's sealed file. Raises OSError or ValueError if none of this length is there."""
    pid, descriptor, inode = (int(word) for word in place.split(" "))
    file = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if found.st_ino != inode or found.st_size != total_bytes or fcntl.fcntl(file, _GET_SEALS) & _ALL != _ALL:
            raise ValueError(f"no sealed file of {total_bytes} bytes is at {place!r}")
        return mmap.mmap(file, total_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    finally:
        os.close(file)  # the mapping stays


class Sealed:
    """A sealed file with these parts, one after the other. It goes when it is closed and nobody has it open."""

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._file = os.memfd_create("raftgrid-gradient", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.total_bytes = 0
            for part in parts:
                rest = memoryview(part)
                while rest.nbytes:
                    written = os.write(self._file, rest)
                    self.total_bytes += written
                    rest = rest[written:]
            fcntl.fcntl(self._file, _ADD_SEALS, _ALL)
        except BaseException:
            os.close(self._file)
            raise
        self.place = f"{os.getpid()} {self._file} {os.fstat(self._file).st_ino}"

    def close(self) -> None:
        """Safe to repeat."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> "Sealed":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
