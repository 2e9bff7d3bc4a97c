# SPDX-License-Identifier: BSD-3-Clause
"""ReadTrackingMap: the Map that a check receives. It notes which ranges the check reads."""

from __future__ import annotations

import operator
import weakref
from collections import deque
from typing import TYPE_CHECKING, SupportsIndex, cast

from pmem2._slices import clip
from pmem2.testing._events import WORD
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pmem2._ffi import MapHandle
    from pmem2._slices import Slice

EVERYTHING = (0, 2**64)
"""The range that a view or the address counts as: reads through them cannot be tracked."""


class ReadTrackingMap(VolatileMap):  # type: ignore[misc] # see VolatileMap
    """A Map of one crash image."""

    __slots__ = ("reads", "refusal", "views")

    reads: list[tuple[int, int]] | deque[tuple[int, int]]
    refusal: Exception | None
    views: list[weakref.ref[object]]

    def __init__(self, memory: VolatileMap) -> None:
        """Share the memory of another map; no range has been read yet."""
        self._handle = memory._handle
        self._address = memory._address
        self._size = memory._size
        self._config = memory._config
        self._buffer = self._memory = None
        self.reads = []
        self.refusal = None
        self.views = []

    def __getitem__(self, key: SupportsIndex | Slice, /) -> int | bytes:  # type: ignore[override] # Map has overloads
        """Note the bytes between the first and the last that are read."""
        low, length, _ = self._key_span(key)
        self.reads.append((low, length))
        return super().__getitem__(key)

    def _copied_handle(self) -> MapHandle:
        self.reads.append((0, self._size))
        return super()._copied_handle()

    def find(self, sub: SupportsIndex | Buffer, start: SupportsIndex = 0, end: SupportsIndex | None = None) -> int:
        """Note everything that may be searched."""
        result = super().find(sub, start, end)
        low, high = clip(operator.index(start), None if end is None else operator.index(end), self._size)
        self.reads.append((low, max(high - low, 0)))
        return result

    def read_into(self, buffer: Buffer, offset: SupportsIndex = 0) -> None:
        """Note the range."""
        super().read_into(buffer, offset)
        with memoryview(buffer) as view:
            self.reads.append(self._range(offset, view.nbytes))

    def load_u64(self, offset: SupportsIndex) -> int:
        """Note the 8 bytes."""
        self.reads.append(self._range(offset, WORD))
        return super().load_u64(offset)

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Note the 8 bytes."""
        self.reads.append(self._range(offset, WORD))
        return super().compare_exchange_u64(offset, expected, desired, persist)

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Note the 8 bytes."""
        self.reads.append(self._range(offset, WORD))
        return super().fetch_add_u64(offset, delta, persist)

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Note everything."""
        view = super().view(offset, length)
        self.reads.append(EVERYTHING)
        self.views.append(weakref.ref(cast("object", view.obj)))
        return view

    @property
    def address(self) -> int:
        """The address; note everything."""
        self.reads.append(EVERYTHING)
        return super().address
