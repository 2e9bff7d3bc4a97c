# SPDX-License-Identifier: BSD-3-Clause
"""Which ranges of a file hold data, and which have blocks on the disk; the rest are holes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING

from pmem2._buffers import merge_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

Range = tuple[int, int]

BLOCK = 4096  # the least that becomes a hole
SEEK_DATA, SEEK_HOLE = getattr(os, "SEEK_DATA", 3), getattr(os, "SEEK_HOLE", 4)  # missing in PyPy's os
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_HEADER = struct.Struct("=QQLLLL")  # start, length, flags, mapped extents, extent count, reserved
FIEMAP_EXTENT = struct.Struct("=QQQ16xL12x")  # logical, physical, length, flags
FIEMAP_EXTENTS = 72  # in one call: with the header, fcntl passes no more than 4096 bytes on PyPy
FIEMAP_MAX_OFFSET = 2**64 - 1
FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED = 1, 0x2000


def data_ranges(fd: int, size: int) -> list[Range]:
    """Return the ranges of the first *size* bytes of a file that are not holes; a device has none."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # pragma: no cover: nox -s nvdimm
        return [(0, size)]
    ranges = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # pragma: no cover: a broken file system
                raise
            break
        if start >= size:  # the file has grown
            break
        end = min(os.lseek(fd, start, SEEK_HOLE), size)
        ranges.append((start, end - start))
    return ranges


def allocated_ranges(fd: int, size: int) -> list[Range]:
    """Return the ranges of a file that have blocks on the disk, also those never written, which SEEK_DATA skips.

    None where the file system does not list the extents of a file that has holes.
    """
    if os.fstat(fd).st_blocks * 512 >= size:
        return [(0, size)] if size else []
    return [(start, min(length, size - start)) for start, length, _ in extents(fd) if start < size]


def has_shared_extents(fd: int) -> bool:
    """Return whether a file shares blocks with a snapshot or a reflink."""
    return any(flags & FIEMAP_EXTENT_SHARED for _, _, flags in extents(fd))


def extents(fd: int) -> Iterator[tuple[int, int, int]]:
    """Yield offset, length and flags of a file's extents, by FIEMAP; none where the file system does not know it."""
    start = 0
    while True:
        header = FIEMAP_HEADER.pack(start, FIEMAP_MAX_OFFSET - start, 0, 0, FIEMAP_EXTENTS, 0)
        buffer = bytearray(header + bytes(FIEMAP_EXTENTS * FIEMAP_EXTENT.size))
        try:
            fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        except OSError:
            return
        count = FIEMAP_HEADER.unpack_from(buffer)[3]
        flags = FIEMAP_EXTENT_LAST  # of no extent at all
        for index in range(count):
            position = FIEMAP_HEADER.size + index * FIEMAP_EXTENT.size
            offset, _, length, flags = FIEMAP_EXTENT.unpack_from(buffer, position)
            yield offset, length, flags
            start = offset + length
        if flags & FIEMAP_EXTENT_LAST:
            return


def nonzero_ranges(data: bytearray) -> list[Range]:
    """Return the ranges of *data* left when whole blocks of zeros are taken out."""
    zeros, size = bytes(BLOCK), len(data)
    blocks = ((start, min(BLOCK, size - start)) for start in range(0, size, BLOCK))
    return merge_ranges(
        (start, length) for start, length in blocks if not zeros.startswith(data[start : start + length])
    )
