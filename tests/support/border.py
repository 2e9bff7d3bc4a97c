# SPDX-License-Identifier: BSD-3-Clause
"""The border between pmem2 and the system: records each flush and msync, and injects faults; see border.c.

Tests start a child with `LD_PRELOAD=border_library()` (compiled.py). The child makes a `Border` and uses it around
calls of pmem2. It imports no pytest, which takes long.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional

import pmem2
from pmem2 import Granularity, MemFlag

LINE = 64
MS_SYNC = 4
ALWAYS = -1


class Kind(enum.IntEnum):
    """The recorded functions, in the order of border.c."""

    MSYNC = 0
    FLUSH = 1
    DRAIN = 2
    PERSIST = 3
    COPY = 4
    SET = 5
    DEEP_FLUSH = 6
    READ = 7
    WRITE = 8
    SUBMIT = 9


class Call(enum.IntEnum):
    """The functions that can fail, in the order of border.c."""

    MSYNC = 0
    MMAP = 1
    MUNMAP = 2
    PREAD = 3
    PWRITE = 4
    FALLOCATE = 5
    FCNTL = 6
    MALLOC = 7
    FSYNC = 8
    SUBMIT = 9
    FSTAT = 10
    SYNCFS = 11


class Fault(enum.IntEnum):
    """The ways of failing, in the order of border.c."""

    FAIL = 1
    SHORT = 2
    BLOCK = 3
    PRETEND = 4
    SIGNAL = 5


class Event(NamedTuple):
    """One recorded call; the offset is relative to the map."""

    kind: int
    offset: int
    length: int
    flags: int


class RawEvent(ctypes.Structure):
    """`struct event` of border.c."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("kind", "address", "length", "flags")]
    kind: int
    address: int
    length: int
    flags: int


class Border:
    """The preloaded library of this process."""

    def __init__(self) -> None:
        """Find the library."""
        self._library = ctypes.CDLL(None)
        self._library.border_stop.restype = ctypes.c_uint64
        self._library.border_seen.restype = ctypes.c_long

    @contextmanager
    def recording(self, map: Optional[pmem2.Map] = None) -> Iterator[list[Event]]:
        """Record while the block runs; the list is filled at its end.

        Offsets of reads, writes and submits are in the file.
        """
        events: list[Event] = []
        address = map.address if map else 0
        self._library.border_start()
        try:
            yield events
        finally:
            first = ctypes.POINTER(RawEvent)()
            count = self._library.border_stop(ctypes.byref(first))
            for raw in first[:count]:
                in_map = raw.kind not in (Kind.DRAIN, Kind.READ, Kind.WRITE, Kind.SUBMIT)
                events.append(Event(raw.kind, raw.address - address if in_map else raw.address, raw.length, raw.flags))

    @contextmanager
    def failing(
        self, call: Call, error: int = errno.EIO, *, how: Fault = Fault.FAIL, skip: int = 0, times: int = 1
    ) -> Iterator[None]:
        """Let a function fail while the block runs: after *skip* calls, *times* times."""
        self.inject(call, error, how=how, skip=skip, times=times)
        try:
            yield
        finally:
            self._library.border_clear()

    def inject(
        self, call: Call, error: int = errno.EIO, *, how: Fault = Fault.FAIL, skip: int = 0, times: int = 1
    ) -> None:
        """Let a function fail from now on."""
        self._library.border_inject(int(call), int(how), error, ctypes.c_long(skip), ctypes.c_long(times))

    def seen(self, call: Call) -> int:
        """Return how often the function was called since the fault was set."""
        return int(self._library.border_seen(int(call)))

    def wait_until_blocked(self, call: Call) -> None:
        """Wait until a thread is inside the function."""
        while not self._library.border_blocked(int(call)):
            time.sleep(0.001)

    def release(self, call: Call) -> None:
        """Let the blocked thread go on."""
        self._library.border_release(int(call))


# ---- the meaning of a recording


class Durable(NamedTuple):
    """The effect of a recording, as sets of whole units: cache lines, or pages on PAGE."""

    drained: set[int]
    pending: set[int]
    stored: list[tuple[int, int]]


def units(offset: int, length: int, unit: int) -> set[int]:
    """Return the numbers of the units that a range touches."""
    return set(range(offset // unit, -(-(offset + length) // unit))) if length else set()


def effect(events: Sequence[Event], granularity: Granularity, page: int) -> Durable:
    """Return the units that are durable and those that are flushed but not drained, and all stored ranges."""
    drained: set[int] = set()
    pending: set[int] = set()
    stored: list[tuple[int, int]] = []
    for kind, offset, length, flags in events:
        if kind in (Kind.COPY, Kind.SET):
            stored.append((offset, length))
        if granularity is Granularity.PAGE:
            if kind == Kind.MSYNC:
                assert flags == MS_SYNC
                assert offset % page == 0
                drained |= units(offset, length, page)
            elif kind in (Kind.COPY, Kind.SET):
                assert flags == MemFlag.NOFLUSH
            else:
                raise AssertionError(f"{Kind(kind).name} on a PAGE map")
            continue
        if kind == Kind.MSYNC:  # libpmem2's own, of a deep flush on a file that is not on DAX
            assert Kind.DEEP_FLUSH in {event.kind for event in events}
        if kind in (Kind.FLUSH, Kind.PERSIST, Kind.DEEP_FLUSH) or (
            kind in (Kind.COPY, Kind.SET) and not flags & MemFlag.NOFLUSH
        ):
            pending |= units(offset, length, LINE)
        if kind in (Kind.DRAIN, Kind.PERSIST, Kind.DEEP_FLUSH) or (
            kind in (Kind.COPY, Kind.SET) and not flags & (MemFlag.NOFLUSH | MemFlag.NODRAIN)
        ):
            drained |= pending
            pending = set()
    return Durable(drained, pending, stored)
