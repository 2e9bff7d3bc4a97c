# SPDX-License-Identifier: BSD-3-Clause
"""A Map that writes down every store, flush and drain, those through views and arrays too.

What is stored through a Map method is seen there. Views, arrays and the address give the memory away: as long as they
live, the memory that they reach is compared with a copy, after each statement and at each method.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Callable, NoReturn, SupportsIndex, cast

import attrs

from pmem2._buffers import Ranges, borrow, borrow_ranges
from pmem2._checks import NO_FLAGS
from pmem2._enums import Granularity, MemFlag, Protection
from pmem2._map import Map, borrowed
from pmem2._slices import as_slice, slice_span
from pmem2.testing._events import WORD, Drain, Event, Flush, Place, Store, Unit, whole, words
from pmem2.testing._locations import here
from pmem2.testing._shadow import Shadow
from pmem2.testing._tracing import SHARED
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from pmem2._map import Data
    from pmem2._slices import Slice


@attrs.define(eq=False)
class Exposed:
    """A part of the memory that can be stored to without our seeing it, for as long as its *view* lives."""

    low: int
    high: int
    view: Callable[[], object]

    @property
    def alive(self) -> bool:
        """Whether there is still something to store through."""
        return self.view() is not None


class Inside:
    """A Map method at work: what it stores is not to be found as if a view had stored it."""

    __slots__ = ("_map",)

    def __init__(self, map: RecordingMap) -> None:
        """Be about a map."""
        self._map = map

    def __enter__(self) -> Place:
        """Write down what views have changed so far; return what the caller is doing."""
        if threading.get_ident() != self._map._thread:
            self._map.shared = True  # for the thread that is traced: this one may swallow what is raised here
            raise RuntimeError(SHARED)
        place = here()
        self._map.found(place)
        self._map._inside = True
        return place

    def __exit__(self, *_: object) -> None:
        """Look again."""
        self._map._inside = False


class RecordingMap(VolatileMap):  # type: ignore[misc] # see VolatileMap
    """The Map that a workload gets."""

    __slots__ = ("_exposed", "_inside", "_shadow", "_thread", "_use", "events", "last", "shared")

    events: list[Event]
    _inside: bool
    _shadow: Shadow
    _exposed: list[Exposed]
    _thread: int
    _use: ExitStack
    last: Place
    shared: bool

    def __init__(self, size: int, granularity: Granularity) -> None:
        """Map *size* bytes of zeros; nothing is written down yet."""
        super().__init__(size, granularity)
        self.events = []
        self._shadow = Shadow(self._address, size)
        self._exposed = []
        self._inside = False
        self._thread = threading.get_ident()
        self._use = ExitStack()  # the address may be taken, so not even Map.close(map) may unmap it
        self._use.enter_context(self._pinned(Protection.READ, 0, 0))
        self.last = here()
        self.shared = False

    def begin(self) -> bytes:
        """Forget what was written down, and return what is in the memory: that is durable."""
        self.found(here())
        self.events.clear()
        return self._shadow.content()

    def end(self) -> None:
        """Find what the last statement has changed, and look for what none of our methods has stored.

        Raises:
            RuntimeError: There is such a thing.
        """
        self.found(self.last)
        if any(self._shadow.changed(0, self._size)):
            raise RuntimeError(
                "the memory of a workload that is explored was stored to in a way that cannot be followed: "
                "by a method of Map instead of its map's, or by another process"
            )

    def dispose(self) -> None:
        """Unmap it, unless somebody still looks into it."""
        self._use.close()
        with suppress(BufferError):
            super().close()

    # ---- what is found

    def found(self, place: Place) -> None:
        """Write down what has changed in the memory without our seeing it: *place* did that."""
        if self._exposed:
            units = [unit for part in self._exposed for unit in self._shadow.changed(part.low, part.high)]
            self._exposed = [part for part in self._exposed if part.alive]
            self._discovered(place, units)

    def statement(self, place: Place) -> None:  # pragma: no cover: what traces is not traced
        """Write down what the last statement has changed; the next is at *place*."""
        if not self._inside:
            self.found(self.last)
        self.last = place

    def _discovered(self, place: Place, units: list[Unit]) -> None:
        if units:
            low, high = min(units)[0], max(units)[0] + WORD
            self.events.append(Store(place, low, min(high, self._size) - low, tuple(units), found=True))

    def _expose(self, low: int, high: int, view: Callable[[], object]) -> None:
        if not any(part.view is for_ever for part in self._exposed):
            self._exposed.append(Exposed(low // WORD * WORD, min(-(-high // WORD) * WORD, self._size), view))

    # ---- what is seen

    def _stored(self, place: Place, offset: int, units: tuple[Unit, ...], free: bool = False) -> None:
        """Write down a store that was made."""
        if units:
            last, stored = units[-1]
            self.events.append(Store(place, offset, last + len(stored) - offset, units, free))

    def _flushed(self, place: Place, *ranges: tuple[int, int], drain: bool = True, asked: bool = False) -> None:
        self.events.append(Flush(place, ranges, asked))
        if drain:
            self.events.append(Drain(place))

    def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
        """Store as Map does."""
        with Inside(self) as place:
            super().__setitem__(key, value)
            part = as_slice(key)
            if part is None:
                low, length, step = self._index(key), 1, 1
            else:
                low, length, step = slice_span(part, self._size)
            if step == 1:
                self._stored(place, low, whole(low, self._shadow.take(low, length)))
            else:
                low, high = low // WORD * WORD, min(-(-(low + length) // WORD) * WORD, self._size)
                self._discovered(place, list(self._shadow.changed(low, high)))

    def store_u64(self, offset: SupportsIndex, value: SupportsIndex, persist: bool = False) -> None:
        """Store as Map does."""
        with Inside(self) as place:
            super().store_u64(offset, value)
            self._word(place, offset, persist)

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Exchange as Map does."""
        with Inside(self) as place:
            result = super().compare_exchange_u64(offset, expected, desired)
            self._word(place, offset, persist, stored=result[0])
            return result

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Add as Map does."""
        with Inside(self) as place:
            result = super().fetch_add_u64(offset, delta)
            self._word(place, offset, persist)
            return result

    def _word(self, place: Place, offset: SupportsIndex, persist: bool, stored: bool = True) -> None:
        start, _ = self._range(offset, WORD)
        if stored:
            self._stored(place, start, ((start, self._shadow.take(start, WORD)),))
        if persist:
            self._flushed(place, (start, WORD))

    def memcpy(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
        """Copy as Map does."""
        with Inside(self) as place:
            super().memcpy(offset, data, flags)
            with borrowed(data) as (_, length):
                self._copied(place, self._range(offset, length), flags)

    def memmove(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
        """Copy as Map does."""
        self.memcpy(offset, data, flags)

    def memset(
        self, offset: SupportsIndex, value: SupportsIndex, length: SupportsIndex, flags: SupportsIndex = NO_FLAGS
    ) -> None:
        """Fill as Map does."""
        with Inside(self) as place:
            super().memset(offset, value, length, flags)
            self._copied(place, self._range(offset, length), flags)

    def _copied(self, place: Place, where: tuple[int, int], flags: SupportsIndex) -> None:
        offset, length = where
        given = MemFlag(operator.index(flags))
        flushed = not given & MemFlag.NOFLUSH
        drained = flushed and not given & MemFlag.NODRAIN
        free = flushed and not drained
        if self.granularity is Granularity.BYTE:
            free = bool(free and given & MemFlag.NONTEMPORAL)
        elif self.granularity is Granularity.PAGE:
            free = False
        self._stored(place, offset, words(offset, self._shadow.take(offset, length)), free)
        if flushed:
            self._flushed(place, (offset, length), drain=drained)

    def memcpy_many(self, pieces: Iterable[tuple[SupportsIndex, Data]]) -> None:
        """Copy as Map does; each piece is what it was before the first was copied."""
        copies = [(offset, copy_of(data)) for offset, data in pieces]
        with Inside(self) as place:
            super().memcpy_many(copies)
            ranges = [self._range(offset, len(data)) for offset, data in copies]
            for (start, length), (_, data) in zip(ranges, copies):
                self._shadow.take(start, length)
                self._stored(place, start, words(start, data), free=True)
            self._flushed(place, *ranges)

    # ---- durability

    def persist(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Persist as Map does."""
        with Inside(self) as place:
            super().persist(offset, length)
            self._flushed(place, self._range(offset, length), asked=True)

    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Flush as Map does."""
        with Inside(self) as place:
            super().flush(offset, length)
            self._flushed(place, self._range(offset, length), drain=False, asked=True)

    def drain(self) -> None:
        """Drain as Map does."""
        with Inside(self) as place:
            super().drain()
            self.events.append(Drain(place, asked=True))

    def persist_many(self, ranges: Ranges) -> None:
        """Persist as Map does."""
        pairs = pairs_of(ranges)
        with Inside(self) as place:
            super().persist_many(pairs)
            self._flushed(place, *pairs, asked=True)

    def flush_many(self, ranges: Ranges) -> None:
        """Flush as Map does."""
        pairs = pairs_of(ranges)
        with Inside(self) as place:
            super().flush_many(pairs)
            self._flushed(place, *pairs, drain=False, asked=True)

    # ---- what gives the memory away

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Return a view as Map does, and watch its memory for as long as it lives."""
        view = super().view(offset, length)
        low, _ = self._range(offset, 0)
        self._expose(low, low + view.nbytes, weakref.ref(cast("object", view.obj)))
        return view

    @property
    def address(self) -> int:
        """The address, as Map has it; the whole memory is watched from now on."""
        address = super().address
        self._exposed = [Exposed(0, self._size, for_ever)]
        return address

    # ---- end of life

    def close(self) -> NoReturn:
        """Refuse.

        Raises:
            BufferError: Always.
        """
        raise BufferError("a workload that is explored must not close its map")


def for_ever() -> object:
    """Return that an address is alive."""
    return True


def copy_of(data: Data) -> bytes:
    """Return the bytes of what is to be copied."""
    if isinstance(data, Map):
        return data[:]
    with borrow(data):
        return memoryview(data).tobytes()


def pairs_of(ranges: Ranges) -> list[tuple[int, int]]:
    """Return ranges as a list of pairs."""
    with borrow_ranges(ranges) as numbers:
        flat = list(numbers)
    return list(zip(flat[::2], flat[1::2]))
