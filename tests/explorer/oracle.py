# SPDX-License-Identifier: BSD-3-Clause
"""The memory model of `pmem2.testing` once more, by brute force: every subset of what is not durable is tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Union

import pmem2
from pmem2 import Granularity, MemFlag

PAGE = 4096


@dataclass
class Set:
    """`m[offset : offset + len(data)] = data`."""

    offset: int
    data: bytes


@dataclass
class Viewed:
    """The same through a view, in two places at once."""

    offset: int
    data: bytes
    other: int


@dataclass
class Atomic:
    """`m.store_u64(...)`."""

    offset: int
    value: int
    persist: bool


@dataclass
class Copy:
    """`m.memcpy(...)`."""

    offset: int
    data: bytes
    flags: MemFlag


@dataclass
class Many:
    """`m.memcpy_many(...)`."""

    pieces: list[tuple[int, bytes]]


@dataclass
class Flushed:
    """`m.flush(...)`, or `m.persist(...)`."""

    offset: int
    length: int
    persist: bool


@dataclass
class Drained:
    """`m.drain()`."""


@dataclass
class Yielded:
    """`yield`."""


Step = Union[Set, Viewed, Atomic, Copy, Many, Flushed, Drained, Yielded]


def run(map: pmem2.Map, steps: Iterable[Step]) -> Iterator[int]:
    """Do the steps; a generator, as a workload is that acknowledges."""
    for number, step in enumerate(steps):
        if isinstance(step, Set):
            map[step.offset : step.offset + len(step.data)] = step.data
        elif isinstance(step, Viewed):
            with map.view() as view:
                size = len(step.data)
                view[step.other : step.other + size] = view[step.offset : step.offset + size] = step.data
        elif isinstance(step, Atomic):
            map.store_u64(step.offset, step.value, persist=step.persist)
        elif isinstance(step, Copy):
            map.memcpy(step.offset, step.data, step.flags)
        elif isinstance(step, Many):
            map.memcpy_many(step.pieces)
        elif isinstance(step, Flushed):
            (map.persist if step.persist else map.flush)(step.offset, step.length)
        elif isinstance(step, Drained):
            map.drain()
        else:
            yield number


@dataclass
class Part:
    """Bytes that survive together, or do not."""

    store: int
    offset: int
    data: bytes
    free: bool
    flushed: bool = False
    durable: bool = False


class TooMany(Exception):
    """There are too many subsets for brute force."""


class Oracle:
    """Memory, and all that can be left of it."""

    def __init__(self, size: int, granularity: Granularity) -> None:
        """Begin with zeros."""
        self.granularity = granularity
        self.size = size
        self.cell = 512 if granularity is Granularity.PAGE else 64
        self.grain = PAGE if granularity is Granularity.PAGE else 64
        self.parts: list[Part] = []
        self.stores = 0
        self.yields = 0
        self.images: set[tuple[int, bytes]] = set()
        self.look()

    def look(self) -> None:
        """Add every image that is possible now."""
        open_parts = [part for part in self.parts if not part.durable]
        if len(open_parts) > 8:
            raise TooMany
        for choice in product((False, True), repeat=len(open_parts)):
            alive = {id(part) for part, lives in zip(open_parts, choice) if lives}
            alive |= {id(part) for part in self.parts if part.durable}
            if all(self.possible(part, alive) for part in open_parts if id(part) in alive):
                image = bytearray(self.size)
                for part in self.parts:
                    if id(part) in alive:
                        image[part.offset : part.offset + len(part.data)] = part.data
                self.images.add((self.yields, bytes(image)))

    def possible(self, part: Part, alive: set[int]) -> bool:
        """Whether all that had to reach the medium before a part has."""
        return all(id(other) in alive for other in self.before(part))

    def before(self, part: Part) -> list[Part]:
        """Return what lies in the same line and was stored earlier, in order."""
        cell = part.offset // self.cell
        return [p for p in self.parts if p.offset // self.cell == cell and p.store < part.store and not p.free]

    def store(self, parts: Iterable[tuple[int, bytes]], free: bool = False) -> None:
        """Store bytes that may be torn between *parts*; the power may fail while they are stored."""
        self.stores += 1
        new = [Part(self.stores, offset, data, free) for offset, data in parts]
        self.parts += new
        self.look()
        if self.granularity is Granularity.BYTE and not free:
            for part in new:
                part.durable = True

    def flush(self, offset: int, length: int) -> None:
        """Flush every whole line, or page, of a range."""
        if length:
            low, high = offset // self.grain, (offset + length - 1) // self.grain
            for part in self.parts:
                if low <= part.offset // self.grain <= high:
                    part.flushed = True
                    part.durable = part.durable or self.granularity is Granularity.PAGE

    def drain(self) -> None:
        """Wait for what was flushed, and for what is free."""
        if self.granularity is Granularity.PAGE:
            return
        for part in self.parts:
            if part.flushed or part.free:
                part.durable = True
                for other in self.before(part):
                    other.durable = True

    def current(self) -> bytearray:
        """Return what the program sees."""
        now = bytearray(self.size)
        for part in self.parts:
            now[part.offset : part.offset + len(part.data)] = part.data
        return now

    def step(self, step: Step) -> None:
        """Do a step."""
        if isinstance(step, Set):
            size = len(step.data)
            atomic = size in (1, 2, 4, 8) and step.offset % size == 0
            self.store([(step.offset, step.data)] if atomic else torn(step.offset, step.data))
        elif isinstance(step, Viewed):
            now = self.current()
            now[step.other : step.other + len(step.data)] = step.data
            now[step.offset : step.offset + len(step.data)] = step.data
            words = range(0, self.size, 8)
            before = self.current()
            self.store([(w, bytes(now[w : w + 8])) for w in words if now[w : w + 8] != before[w : w + 8]])
        elif isinstance(step, Atomic):
            self.store([(step.offset, step.value.to_bytes(8, "little"))])
            if step.persist:
                self.flush(step.offset, 8)
                self.drain()
        elif isinstance(step, Copy):
            flushed = not step.flags & MemFlag.NOFLUSH
            drained = flushed and (not step.flags & MemFlag.NODRAIN or self.granularity is Granularity.PAGE)
            free = flushed and not drained
            if self.granularity is Granularity.BYTE:
                free = free and bool(step.flags & MemFlag.NONTEMPORAL)
            self.store(torn(step.offset, step.data), free)
            if flushed:
                self.flush(step.offset, len(step.data))
            if drained:
                self.drain()
        elif isinstance(step, Many):
            for offset, data in step.pieces:
                self.store(torn(offset, data), free=True)
            for offset, data in step.pieces:
                self.flush(offset, len(data))
            self.drain()
        elif isinstance(step, Flushed):
            self.flush(step.offset, step.length)
            if step.persist:
                self.drain()
        elif isinstance(step, Drained):
            self.drain()
        else:
            self.yields += 1
            self.look()


def torn(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """Return aligned words, and the bytes that are left over on both sides."""
    parts: list[tuple[int, bytes]] = []
    place = offset
    while place < offset + len(data):
        size = 8 if place % 8 == 0 and place + 8 <= offset + len(data) else 1
        parts.append((place, data[place - offset : place - offset + size]))
        place += size
    return parts
