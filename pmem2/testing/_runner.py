# SPDX-License-Identifier: BSD-3-Clause
"""CheckRunner: runs the check on one image after the other, each with a fresh Map object over the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from pmem2.testing._read_tracking import ReadTrackingMap
from pmem2.testing._shadow import bytes_at
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from pmem2._enums import Granularity
    from pmem2._map import Map


class CheckRunner:
    """The memory for crash images, and the check."""

    def __init__(self, size: int, granularity: Granularity, check: Callable[[Map, int], None]) -> None:
        """Map memory for images of *size* bytes; *check* receives a map and the count of acknowledgements."""
        self._size = size
        self._granularity = granularity
        self._check = check
        self._closed = VolatileMap(size, granularity)
        self._closed.close()
        self._memory = VolatileMap(size, granularity)

    def check(self, image: bytearray, acknowledged: int) -> list[tuple[int, int]]:
        """Check one image; return the ranges that the check read, in order.

        Raises:
            BaseException: The exception of the check.
        """
        if self._memory.closed:
            self._memory = VolatileMap(self._size, self._granularity)
        bytes_at(self._memory._address, self._size)[:] = image
        map = ReadTrackingMap(self._memory)
        try:
            self._check(map, acknowledged)
        finally:
            if any(view() is not None for view in map.views):
                self._memory = self._closed  # the check kept a view: leave it this memory, map other memory next time
            map._handle = self._closed._handle
        return map.reads

    def dispose(self) -> None:
        """Unmap the memory."""
        self._memory.close()
