# SPDX-License-Identifier: BSD-3-Clause
"""A Map of one state after a power cut, which knows what of it was looked at."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, SupportsIndex, cast

from pmem2._slices import as_slice, slice_span
from pmem2.testing._events import WORD
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pmem2._enums import Protection
    from pmem2._ffi import CharPointer
    from pmem2._slices import Slice

EVERYTHING = (0, 2**64)


class CheckedMap(VolatileMap):  # type: ignore[misc] # see VolatileMap
    """The Map that a check gets: reading is noted, as ranges."""

    __slots__ = ("borrowed", "reads")

    reads: list[tuple[int, int]]
    borrowed: list[weakref.ref[object]]

    def __init__(self, memory: VolatileMap) -> None:
        """Be another Map of the same memory; nothing was read yet."""
        self._handle = memory._handle
        self._address = memory._address
        self._size = memory._size
        self._config = memory._config
        self._buffer = None
        self.reads = []
        self.borrowed = []

    def __getitem__(self, key: SupportsIndex | Slice, /) -> int | bytes:  # type: ignore[override] # as Map, of which each overload
        """Return what Map returns."""
        part = as_slice(key)
        if part is None:
            self.reads.append((self._index(key), 1))
        else:
            low, length, _ = slice_span(part, self._size)
            self.reads.append((low, length))
        return super().__getitem__(key)

    def _pinned(  # type: ignore[override] # no generator of our own, which takes time
        self, need: Protection, offset: int, length: int
    ) -> AbstractContextManager[CharPointer]:
        self.reads.append((offset, length))
        return super()._pinned(need, offset, length)

    def load_u64(self, offset: SupportsIndex) -> int:
        """Load as Map does."""
        self.reads.append(self._range(offset, WORD))
        return super().load_u64(offset)

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Exchange as Map does."""
        self.reads.append(self._range(offset, WORD))
        return super().compare_exchange_u64(offset, expected, desired, persist)

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Add as Map does."""
        self.reads.append(self._range(offset, WORD))
        return super().fetch_add_u64(offset, delta, persist)

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Return a view as Map does; what is read through it is not seen."""
        view = super().view(offset, length)
        self.reads.append(EVERYTHING)
        self.borrowed.append(weakref.ref(cast("object", view.obj)))
        return view

    @property
    def address(self) -> int:
        """The address, as Map has it; what is read there is not seen."""
        self.reads.append(EVERYTHING)
        return super().address
