"""The seed of a step."""

from __future__ import annotations

import hashlib
import struct


def shard_seed(job_seed: int, round: int, shard: int) -> int:
    """The seed of (round, shard): an int of 63 bits, so that any library takes it.

    First eight bytes, little-endian, of SHA-256("raftgrid/seed/v1" + job seed u64 LE + round u64 LE + shard u32 LE), without the top bit. The
    control plane computes the same (`raftgrid_train::shard_seed`). It never depends on attempt, node or time.
    """
    packed = b"raftgrid/seed/v1" + struct.pack("<QQI", job_seed, round, shard)
    return int.from_bytes(hashlib.sha256(packed).digest()[:8], "little") & ((1 << 63) - 1)
