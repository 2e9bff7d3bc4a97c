# SPDX-License-Identifier: BSD-3-Clause
"""Read the log of device-mapper's target log-writes: every write and flush of a disk, in an order that it may keep.

The log contains a write when the disk has completed a flush that covers it, or the write itself if it bypasses the
disk's cache (FUA). So everything before a flush is on the disk after it, and the entries between a mark and the next
flush are those that a power failure at the mark may lose, each alone, or keep.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = 0x6A736677736872
SECTOR = 512
SUPER = struct.Struct("<QQQL")  # magic, version, entries, size of a sector
HEAD = struct.Struct("<QQQQ")  # sector, sectors, flags, length of the mark's text
FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16


class Entry(NamedTuple):
    """One write, flush or mark."""

    offset: int
    data: bytes
    flags: int
    mark: str


def read_log(path: str) -> Iterator[Entry]:
    """Yield the entries of a log device."""
    with open(path, "rb") as log:
        magic, version, count, sector_size = SUPER.unpack(log.read(SUPER.size))
        if (magic, version, sector_size) != (MAGIC, 1, SECTOR):
            raise ValueError(f"{path} has no log: magic {magic:#x}, version {version}, sectors of {sector_size} bytes")
        log.seek(SECTOR)
        for _ in range(count):
            block = log.read(SECTOR)
            sector, sectors, flags, length = HEAD.unpack_from(block)
            if flags & DISCARD:
                raise ValueError(f"{path} has a discard: mount and format the disk without them")
            mark = block[HEAD.size : HEAD.size + length].decode() if flags & MARK else ""
            yield Entry(sector * SECTOR, b"" if flags & MARK else log.read(sectors * SECTOR), flags, mark)
