# SPDX-License-Identifier: BSD-3-Clause
"""Where states are checked: one piece of memory, and a fresh Map object of it for each state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from pmem2.testing._read_tracking import CheckedMap
from pmem2.testing._shadow import bytes_at
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from pmem2._enums import Granularity
    from pmem2._map import Map


class Stage:
    """Shows images to a check, one after the other."""

    def __init__(self, size: int, granularity: Granularity, check: Callable[[Map, int], None]) -> None:
        """Make room for images of *size* bytes; *check* gets a map, and how often the workload had yielded."""
        self._size = size
        self._granularity = granularity
        self._check = check
        self._closed = VolatileMap(size, granularity)
        self._closed.close()
        self._memory = VolatileMap(size, granularity)

    def check(self, image: bytearray, acknowledged: int) -> list[tuple[int, int]]:
        """Check one image; return the ranges of it that were read, in that order.

        Raises:
            BaseException: Whatever the check raised.
        """
        if self._memory.closed:
            self._memory = VolatileMap(self._size, self._granularity)
        bytes_at(self._memory._address, self._size)[:] = image
        map = CheckedMap(self._memory)
        try:
            self._check(map, acknowledged)
        finally:
            if any(reference() is not None for reference in map.lent):
                self._memory = self._closed  # somebody still looks into it
            map._handle = self._closed._handle
        return map.reads

    def dispose(self) -> None:
        """Unmap the memory."""
        self._memory.close()
