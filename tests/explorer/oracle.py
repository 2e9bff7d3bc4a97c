# SPDX-License-Identifier: BSD-3-Clause
"""The oracle: an independent implementation of the memory model, which tries every subset of the pending parts.

It shares no code with `pmem2.testing`: a mistake in one of the two makes test_against_oracle.py fail.
"""

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
class SetInView:
    """An assignment through a view, to two offsets in one statement."""

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
class CopyMany:
    """`m.memcpy_many(...)`."""

    pieces: list[tuple[int, bytes]]


@dataclass
class Flush:
    """`m.flush(...)` or `m.persist(...)`."""

    offset: int
    length: int
    persist: bool


@dataclass
class Drain:
    """`m.drain()`."""


@dataclass
class Yield:
    """`yield`."""


Step = Union[Set, SetInView, Atomic, Copy, CopyMany, Flush, Drain, Yield]


def run(map: pmem2.Map, steps: Iterable[Step]) -> Iterator[int]:
    """Apply the steps to a map; yield where a step acknowledges."""
    for number, step in enumerate(steps):
        if isinstance(step, Set):
            map[step.offset : step.offset + len(step.data)] = step.data
        elif isinstance(step, SetInView):
            with map.view() as view:
                size = len(step.data)
                view[step.other : step.other + size] = view[step.offset : step.offset + size] = step.data
        elif isinstance(step, Atomic):
            map.store_u64(step.offset, step.value, persist=step.persist)
        elif isinstance(step, Copy):
            map.memcpy(step.offset, step.data, step.flags)
        elif isinstance(step, CopyMany):
            map.memcpy_many(step.pieces)
        elif isinstance(step, Flush):
            (map.persist if step.persist else map.flush)(step.offset, step.length)
        elif isinstance(step, Drain):
            map.drain()
        else:
            yield number


@dataclass
class Rule:
    """A statement of a recovery: `if m[offset] == value:` followed by a step."""

    offset: int
    value: int
    step: Step


def recover(map: pmem2.Map, rules: Iterable[Rule]) -> None:
    """Apply the rules to a map."""
    for rule in rules:
        if map[rule.offset] == rule.value:
            assert not list(run(map, [rule.step]))


@dataclass
class Part:
    """Bytes that survive together or not at all."""

    store: int
    offset: int
    data: bytes
    unordered: bool
    flushed: bool = False
    durable: bool = False


class TooMany(Exception):
    """The subsets are too many for brute force."""


class Oracle:
    """The memory, and every image that a power failure can leave."""

    def __init__(self, initial: bytes, granularity: Granularity, yields: int = 0) -> None:
        """Start with durable content."""
        self.granularity = granularity
        self.size = len(initial)
        self.initial = initial
        self.cell = 512 if granularity is Granularity.PAGE else 64
        self.grain = PAGE if granularity is Granularity.PAGE else 64
        self.parts: list[Part] = []
        self.stores = 0
        self.yields = yields
        self.images: set[tuple[int, bytes]] = set()
        self.add_images()

    def add_images(self) -> None:
        """Add every image that is possible at this moment."""
        pending = [part for part in self.parts if not part.durable]
        if len(pending) > 8:
            raise TooMany
        for choice in product((False, True), repeat=len(pending)):
            surviving = {id(part) for part, survives in zip(pending, choice) if survives}
            surviving |= {id(part) for part in self.parts if part.durable}
            if all(self.predecessors_survive(part, surviving) for part in pending if id(part) in surviving):
                image = bytearray(self.initial)
                for part in self.parts:
                    if id(part) in surviving:
                        image[part.offset : part.offset + len(part.data)] = part.data
                self.images.add((self.yields, bytes(image)))

    def predecessors_survive(self, part: Part, surviving: set[int]) -> bool:
        """Whether *surviving* contains every predecessor of a part."""
        return all(id(other) in surviving for other in self.predecessors(part))

    def predecessors(self, part: Part) -> list[Part]:
        """Return the parts in the same cell from earlier ordered stores."""
        cell = part.offset // self.cell
        return [p for p in self.parts if p.offset // self.cell == cell and p.store < part.store and not p.unordered]

    def store(self, parts: Iterable[tuple[int, bytes]], unordered: bool = False) -> None:
        """Store bytes that may tear between *parts*; the power may fail during the store."""
        self.stores += 1
        new = [Part(self.stores, offset, data, unordered) for offset, data in parts]
        self.parts += new
        self.add_images()
        if self.granularity is Granularity.BYTE and not unordered:
            for part in new:
                part.durable = True

    def flush(self, offset: int, length: int) -> None:
        """Flush every line or page that a range touches."""
        if length:
            low, high = offset // self.grain, (offset + length - 1) // self.grain
            for part in self.parts:
                if low <= part.offset // self.grain <= high:
                    part.flushed = True
                    part.durable = part.durable or self.granularity is Granularity.PAGE

    def drain(self) -> None:
        """Make flushed and unordered parts durable, and the parts that precede them."""
        if self.granularity is Granularity.PAGE:
            return
        for part in self.parts:
            if part.flushed or part.unordered:
                part.durable = True
                for other in self.predecessors(part):
                    other.durable = True

    def current(self) -> bytearray:
        """Return the content that the program sees."""
        now = bytearray(self.initial)
        for part in self.parts:
            now[part.offset : part.offset + len(part.data)] = part.data
        return now

    def step(self, step: Step) -> None:
        """Apply a step."""
        if isinstance(step, Set):
            size = len(step.data)
            atomic = size in (1, 2, 4, 8) and step.offset % size == 0
            self.store([(step.offset, step.data)] if atomic else torn(step.offset, step.data))
        elif isinstance(step, SetInView):
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
            unordered = flushed and not drained
            if self.granularity is Granularity.BYTE:
                unordered = unordered and bool(step.flags & MemFlag.NONTEMPORAL)
            self.store(torn(step.offset, step.data), unordered)
            if flushed:
                self.flush(step.offset, len(step.data))
            if drained:
                self.drain()
        elif isinstance(step, CopyMany):
            for offset, data in step.pieces:
                self.store(torn(offset, data), unordered=True)
            for offset, data in step.pieces:
                self.flush(offset, len(data))
            self.drain()
        elif isinstance(step, Flush):
            self.flush(step.offset, step.length)
            if step.persist:
                self.drain()
        elif isinstance(step, Drain):
            self.drain()
        else:
            self.yields += 1
            self.add_images()


Image = tuple[int, bytes]
"""How often the workload had yielded, and the content of the memory."""


class Closure:
    """Every image that power failures can leave in a workload, in the recoveries after it, and so on.

    Attributes:
        depths: For each image, after how many power failures it comes first.
        recovered: For each image, the content of the memory after its recovery.
    """

    def __init__(
        self, steps: Iterable[Step], rules: list[Rule], size: int, granularity: Granularity, limit: int
    ) -> None:
        """Follow every power failure; stop when no new image comes, or more than *limit* have come."""
        workload = Oracle(bytes(size), granularity)
        for step in steps:
            workload.step(step)
        self.depths: dict[Image, int] = {}
        self.recovered: dict[Image, bytes] = {}
        new, depth = workload.images, 1
        while new:
            self.depths.update(dict.fromkeys(new, depth))
            if len(self.depths) > limit:
                raise TooMany
            found: set[Image] = set()
            for yields, image in new:
                recovery = Oracle(image, granularity, yields)
                for rule in rules:
                    if recovery.current()[rule.offset] == rule.value:
                        recovery.step(rule.step)
                self.recovered[yields, image] = bytes(recovery.current())
                found |= recovery.images
            new, depth = found - self.depths.keys(), depth + 1


def torn(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """Return aligned words, and single bytes at the unaligned ends."""
    parts: list[tuple[int, bytes]] = []
    place = offset
    while place < offset + len(data):
        size = 8 if place % 8 == 0 and place + 8 <= offset + len(data) else 1
        parts.append((place, data[place - offset : place - offset + size]))
        place += size
    return parts
