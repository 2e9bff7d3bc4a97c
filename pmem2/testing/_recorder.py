# SPDX-License-Identifier: BSD-3-Clause
"""RecordingMap: the Map that a workload or a recovery receives. It records every store, flush and drain as an event.

Methods of the map record their own stores. A view, an array or the address gives direct access to the memory. While one
of them is alive, the recorder compares the memory within its reach with a copy, after each statement of the workload
and at each method call.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, SupportsIndex, cast

import attrs

from pmem2._buffers import Ranges, borrow, borrow_ranges
from pmem2._checks import NO_FLAGS
from pmem2._enums import Granularity, MemFlag
from pmem2._ffi import lib
from pmem2._map import Map
from pmem2._resource import new_pin
from pmem2.testing._events import WORD, Drain, Event, Flush, Store, Unit, split_assignment, split_copy
from pmem2.testing._locations import SourceLocation, caller_location
from pmem2.testing._read_tracking import ReadTrackingMap
from pmem2.testing._shadow import Shadow
from pmem2.testing._tracing import do_nothing
from pmem2.testing._volatile import VolatileMap

if TYPE_CHECKING:
    from pmem2._buffers import Memory
    from pmem2._ffi import Pin
    from pmem2._map import Data
    from pmem2._slices import Slice

NOWHERE = SourceLocation("<unknown>", 0, "<unknown>")
THREAD_START_ERROR = "an explored workload must not start threads"
OTHER_THREAD_ERROR = "an explored workload must not use its map in other threads"
UNRECORDED_STORES_ERROR = (
    "the map of an explored workload contains stores that cannot be recorded: another process made them, "
    "or a method of the class Map was called instead of a method of the map"
)


@attrs.define(eq=False)
class WatchedRange:
    """A range of the memory that the workload can store to directly, for as long as its *view* is alive."""

    low: int
    high: int
    view: Callable[[], object]

    @property
    def alive(self) -> bool:
        """Whether direct stores are still possible."""
        return self.view() is not None


class Recording:
    """A running method of the map: keeps the statement tracing from recording its stores a second time."""

    __slots__ = ("_map",)

    def __init__(self, map: RecordingMap) -> None:
        """Hold the map."""
        self._map = map

    def __enter__(self) -> SourceLocation:
        """Record earlier stores through views; return the location of the method call."""
        if self._map._recording and threading.get_ident() != self._map._thread:
            raise self._map.refuse_thread(OTHER_THREAD_ERROR)  # which may get lost in this thread
        location = caller_location()
        self._map.scan_views(location)
        self._map._in_method = True
        return location

    def __exit__(self, *_: object) -> None:
        """Let the statement tracing record again."""
        self._map._in_method = False


class RecordingMap(ReadTrackingMap):  # type: ignore[misc] # see VolatileMap
    """A Map that records events, until it is stopped. Its stores count as reads."""

    __slots__ = (
        "_in_method",
        "_pin",
        "_recording",
        "_shadow",
        "_thread",
        "_watched",
        "events",
        "last_location",
        "thread_error",
        "trace_statements",
    )

    events: list[Event]
    last_location: SourceLocation
    thread_error: Exception | None
    trace_statements: Callable[[], None]
    _in_method: bool
    _pin: Pin
    _recording: bool
    _shadow: Shadow
    _thread: int
    _watched: list[WatchedRange]

    def __init__(self, memory: VolatileMap, shadow: Shadow) -> None:
        """Share the memory of another map; *shadow* is a copy of it."""
        super().__init__(memory)
        self.events = []
        self.last_location = NOWHERE
        self.thread_error = None
        self.trace_statements = do_nothing
        self._in_method = False
        self._recording = True
        self._pin = new_pin()  # the workload may know the address: this makes Map.close(map) fail
        lib.guarded_pin_view(self._pin, self._handle, 0, 0, False)
        self._shadow = shadow
        self._thread = threading.get_ident()
        self._watched = []

    def begin(self) -> bytes:
        """Begin a workload: discard the events so far; return the content of the memory, which counts as durable."""
        self.scan_views(caller_location())
        self.events.clear()
        self.reads = deque(maxlen=0)  # the reads of a workload decide nothing
        return self._shadow.content()

    def end(self) -> None:
        """Record the stores of the last statement.

        Raises:
            RuntimeError: The memory contains stores that no event explains.
        """
        self.scan_views(self.last_location)
        if any(self._shadow.changed(0, self._size)):
            raise self.refuse(RuntimeError(UNRECORDED_STORES_ERROR))

    def check_threads(self) -> None:
        """Check that no other thread was started, or has used the map.

        Raises:
            RuntimeError: One was.
        """
        if self.thread_error is not None:
            raise self.thread_error

    def refuse_start(self) -> Exception:
        """Return and remember the error of a thread that is started."""
        return self.refuse_thread(THREAD_START_ERROR)

    def refuse_thread(self, message: str) -> Exception:
        """Return and remember an error about threads."""
        self.thread_error = self.refuse(RuntimeError(message))
        return self.thread_error

    def refuse(self, error: Exception) -> Exception:
        """Return *error*, and remember that it is no failure of the workload, but a refusal."""
        self.refusal = error
        return error

    def stop(self) -> None:
        """Stop watching views and refusing: what follows is no part of the workload or of the recovery."""
        if self._recording:
            self._recording = False
            self._watched = []
            lib.guarded_unpin(self._pin)

    def dispose(self) -> None:
        """Unmap the memory, at once or after the last view of it."""
        self.stop()
        self.close(defer=True)

    # ---- stores through views, arrays and the address

    def scan_views(self, location: SourceLocation) -> None:
        """Compare the watched ranges with the shadow; record the difference as a store at *location*."""
        if self._watched:
            units = [unit for watched in self._watched for unit in self._shadow.changed(watched.low, watched.high)]
            self._watched = [watched for watched in self._watched if watched.alive]
            self._record_diff(location, units)

    def enter_statement(self, location: SourceLocation) -> None:  # pragma: no cover: runs in a trace function
        """Record the stores of the previous statement; the next one is at *location*."""
        if not self._in_method:
            self.scan_views(self.last_location)
        self.last_location = location

    def _record_diff(self, location: SourceLocation, units: list[Unit]) -> None:
        if units:
            low, high = min(units)[0], max(units)[0] + WORD
            self.reads.extend((offset, len(stored)) for offset, stored in units)
            self.events.append(Store(location, low, min(high, self._size) - low, tuple(units), from_diff=True))

    def _watch(self, low: int, high: int, view: Callable[[], object]) -> None:
        if not self._recording:
            return
        self.last_location = caller_location()
        self.trace_statements()
        if not any(watched.view is always_alive for watched in self._watched):
            low, high = low // WORD * WORD, min(-(-high // WORD) * WORD, self._size)
            self._watched.append(WatchedRange(low, high, view))

    # ---- stores through methods

    def _record_store(
        self, location: SourceLocation, offset: int, units: tuple[Unit, ...], unordered: bool = False
    ) -> None:
        if units:
            last, stored = units[-1]
            length = last + len(stored) - offset
            self.reads.append((offset, length))
            self.events.append(Store(location, offset, length, units, unordered))

    def _record_flush(
        self, location: SourceLocation, *ranges: tuple[int, int], drain: bool = True, explicit: bool = False
    ) -> None:
        self.events.append(Flush(location, ranges, explicit))
        if drain:
            self.events.append(Drain(location))

    def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
        """Record a store."""
        with Recording(self) as location:
            super().__setitem__(key, value)  # type: ignore[assignment, index] # it has overloads
            low, length, step = self._key_span(key)
            if step == 1:
                self._record_store(location, low, split_assignment(low, self._shadow.take(low, length)))
            else:
                low, high = low // WORD * WORD, min(-(-(low + length) // WORD) * WORD, self._size)
                self._record_diff(location, list(self._shadow.changed(low, high)))

    def store_u64(self, offset: SupportsIndex, value: SupportsIndex, persist: bool = False) -> None:
        """Record a store of 8 bytes."""
        with Recording(self) as location:
            super().store_u64(offset, value)
            self._record_atomic(location, offset, persist)

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Record a store of 8 bytes, if there was one."""
        with Recording(self) as location:
            result = super().compare_exchange_u64(offset, expected, desired)
            self._record_atomic(location, offset, persist, stored=result[0])
            return result

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Record a store of 8 bytes."""
        with Recording(self) as location:
            result = super().fetch_add_u64(offset, delta)
            self._record_atomic(location, offset, persist)
            return result

    def _record_atomic(
        self, location: SourceLocation, offset: SupportsIndex, persist: bool, stored: bool = True
    ) -> None:
        start, _ = self._range(offset, WORD)
        if stored:
            self._record_store(location, start, ((start, self._shadow.take(start, WORD)),))
        if persist:
            self._record_flush(location, (start, WORD))

    def memcpy(self, offset: SupportsIndex, data: Data, flags: MemFlag = NO_FLAGS) -> None:
        """Record a copy."""
        with Recording(self) as location:
            super().memcpy(offset, data, flags)
            self._record_copy(location, self._range(offset, data_size(data)), flags)

    def memmove(self, offset: SupportsIndex, data: Data, flags: MemFlag = NO_FLAGS) -> None:
        """Record a copy."""
        self.memcpy(offset, data, flags)

    def memset(
        self, offset: SupportsIndex, value: SupportsIndex, length: SupportsIndex, flags: MemFlag = NO_FLAGS
    ) -> None:
        """Record a copy."""
        with Recording(self) as location:
            super().memset(offset, value, length, flags)
            self._record_copy(location, self._range(offset, length), flags)

    def _record_copy(self, location: SourceLocation, range_: tuple[int, int], flags: SupportsIndex) -> None:
        offset, length = range_
        mem_flags = MemFlag(operator.index(flags))
        flushed = not mem_flags & MemFlag.NOFLUSH
        drained = flushed and not mem_flags & MemFlag.NODRAIN
        unordered = flushed and not drained
        if self.granularity is Granularity.BYTE:
            unordered = bool(unordered and mem_flags & MemFlag.NONTEMPORAL)
        elif self.granularity is Granularity.PAGE:
            unordered = False
        self._record_store(location, offset, split_copy(offset, self._shadow.take(offset, length)), unordered)
        if flushed:
            self._record_flush(location, (offset, length), drain=drained)

    def memcpy_many(self, pieces: Iterable[tuple[SupportsIndex, Data]]) -> None:
        """Record one copy for each piece; a piece that overlaps its source is copied from the original content."""
        copies = [(offset, copy_data(data)) for offset, data in pieces]
        with Recording(self) as location:
            super().memcpy_many(copies)
            ranges = [self._range(offset, len(data)) for offset, data in copies]
            for (start, length), (_, data) in zip(ranges, copies):
                self._shadow.take(start, length)
                self._record_store(location, start, split_copy(start, data), unordered=True)
            self._record_flush(location, *ranges)

    # ---- durability

    def persist(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Record a flush and a drain."""
        with Recording(self) as location:
            start, count = self._span(offset, length)
            super().persist(start, count)
            self._record_flush(location, (start, count), explicit=True)

    def flush(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Record a flush."""
        with Recording(self) as location:
            start, count = self._span(offset, length)
            super().flush(start, count)
            self._record_flush(location, (start, count), drain=False, explicit=True)

    def drain(self) -> None:
        """Record a drain."""
        with Recording(self) as location:
            super().drain()
            self.events.append(Drain(location, explicit=True))

    def persist_many(self, ranges: Ranges) -> None:
        """Record one flush of all ranges, and a drain."""
        pairs = as_pairs(ranges)
        with Recording(self) as location:
            super().persist_many(pairs)
            self._record_flush(location, *pairs, explicit=True)

    def flush_many(self, ranges: Ranges) -> None:
        """Record one flush of all ranges."""
        pairs = as_pairs(ranges)
        with Recording(self) as location:
            super().flush_many(pairs)
            self._record_flush(location, *pairs, drain=False, explicit=True)

    # ---- memory that several hosts share

    def publish(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Record that the range was written back."""
        with Recording(self) as location:
            start, count = self._span(offset, length)
            super().publish(start, count)
            self._record_write_back(location, (start, count))

    def acquire(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Record that the range was written back."""
        with Recording(self) as location:
            start, count = self._span(offset, length)
            super().acquire(start, count)
            self._record_write_back(location, (start, count))

    def publish_many(self, ranges: Ranges) -> None:
        """Record that the ranges were written back."""
        pairs = as_pairs(ranges)
        with Recording(self) as location:
            super().publish_many(pairs)
            self._record_write_back(location, *pairs)

    def acquire_many(self, ranges: Ranges) -> None:
        """Record that the ranges were written back."""
        pairs = as_pairs(ranges)
        with Recording(self) as location:
            super().acquire_many(pairs)
            self._record_write_back(location, *pairs)

    def _record_write_back(self, location: SourceLocation, *ranges: tuple[int, int]) -> None:
        """Record a flush and a drain, except on PAGE: lines in the page cache are on no disk.

        The flush is not explicit: other hosts may need it even if it makes nothing durable.
        """
        if self.granularity is not Granularity.PAGE:
            self._record_flush(location, *ranges)

    # ---- direct access to the memory

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Watch the range of the view while the view is alive."""
        view = super().view(offset, length)
        low, _ = self._range(offset, 0)
        self._watch(low, low + view.nbytes, weakref.ref(cast("object", view.obj)))
        return view

    @property
    def address(self) -> int:
        """The address; watch the whole map from now on."""
        address = super().address
        if self._recording:
            self._watched = []
            self._watch(0, self._size, always_alive)
        return address

    # ---- end of life

    def close(self, *, defer: bool = False) -> bool | None:  # type: ignore[override] # it has overloads
        """Refuse while recording: the explorer closes the map.

        Raises:
            BufferError: The workload or the recovery is running.
        """
        if self._recording:
            raise self.refuse(BufferError("an explored workload must not close its map"))
        return super().close(defer=True) if defer else super().close()


def new_recording_map(size: int, granularity: Granularity) -> RecordingMap:
    """Return a map of *size* zero bytes that records."""
    memory = VolatileMap(size, granularity)
    return RecordingMap(memory, Shadow(memory._address, size))


def always_alive() -> object:
    """Return a true value: an address never expires."""
    return True


def data_size(data: Data) -> int:
    """Return the size in bytes of the data of a copy."""
    if isinstance(data, Map):
        return data.size
    with memoryview(data) as view:
        return view.nbytes


def copy_data(data: Data) -> bytes:
    """Return a snapshot of the data of a copy."""
    if isinstance(data, Map):
        return data[:]
    with borrow(data):
        return memoryview(data).tobytes()


def as_pairs(ranges: Ranges) -> list[tuple[int, int]]:
    """Return ranges as a list of pairs."""
    with borrow_ranges(ranges) as numbers:
        flat = list(numbers)
    return list(zip(flat[::2], flat[1::2]))
