# SPDX-License-Identifier: BSD-3-Clause
"""The memory model: what a power cut can leave, after each event of a workload.

Memory is cut into cells that do not know of each other: lines of 64 bytes, or sectors of 512 where pages are written
back. A cell has bytes that are durable, and behind them a queue of stores. What survives in it is a beginning of the
queue, and of the store after that any combination of its units; stores that are free may be missing from the
beginning. So the states of a cell can be numbered, and need not be listed: a store of n units is 2**n of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from mmap import PAGESIZE

import attrs

from pmem2._enums import Granularity
from pmem2.testing._events import Drain, Event, Flush, Store, Unit

LINE = 64
SECTOR = 512
MANY = 16
"""Cells: a store of more is one moment, not one moment for each cell."""
FEW = 4
"""Units: to a store of no more it is found out in each cell which states have the same content."""
MANY_STATES = 1024
"""States of a cell: of more it is not looked up which have the same content."""


class Piece:
    """The part of a store that lies in one cell; what it would not change there is left out."""

    __slots__ = ("everything", "free", "store", "units")

    def __init__(self, store: Store, units: tuple[Unit, ...]) -> None:
        """Be these units of a store."""
        self.store = store
        self.units = units
        self.free = store.free
        self.everything = (1 << len(units)) - 1  # a mask of all units


Lost = dict[Store, list[Unit]]
"""Stores, and what of them does not survive."""


class Cell:
    """A line or a sector: what is durable there, and what was stored since."""

    def __init__(self, offset: int, durable: bytes) -> None:
        """Begin with what is durable."""
        self.offset = offset
        self.shown: bytes | None = None  # what of it is in the image that is checked, for whoever makes that
        self.settle(durable, ())

    def settle(self, durable: bytes, queue: Iterable[Piece]) -> None:
        """Begin anew: with other bytes that are durable, and with these stores waiting."""
        self.durable = durable
        self.key = hash((self.offset, durable))  # two cells of the same key have the same states
        self.queue: list[Piece] = []
        self.chain: list[Piece] = []  # those of the queue that are not free
        self.captured = 0  # how many of the queue have been flushed, and become durable at the next drain
        self.certain = 0  # how many of the chain survive whatever happens, because free ones before them do not
        # The states are numbered by how many of the chain survive, then by the units after those, then by free units.
        self._loose = [0]  # for each number of the chain that survives, how many free units may
        self._starts = [0]
        self.states = 1
        self.full = durable  # what it is if everything survives
        # The options are the states of different content; all states where it would take too long to tell which.
        self._options: list[int] | None = [0]
        self.options = 1
        self._index = {durable: 0}
        self._contents = {0: durable}
        for piece in queue:
            self.append(piece)

    def append(self, piece: Piece, compare: bool = True) -> None:
        """Let one more store wait; the states, and the options, that there are keep their numbers.

        Args:
            piece: What of it is in this cell.
            compare: Whether it is worth while to find out which states have the same content.
        """
        before, count = self.states, len(piece.units)
        self.key = hash((self.key, piece.free, piece.units))
        if piece.free:
            self._loose[-1] += count
        else:
            self._starts.append(self._starts[-1] + (((1 << count) - 1) << self._loose[-1]))
            self._loose.append(self._loose[-1])
            self.chain.append(piece)
        self.queue.append(piece)
        self.states = self._starts[-1] + (1 << self._loose[-1])
        content = bytearray(self.full)
        apply(content, self.offset, piece.units)
        self.full = self._contents[self.states - 1] = bytes(content)
        self._choose(before, compare)

    def _choose(self, first: int, compare: bool) -> None:
        """Add those states, from *first* on, of which the content is new to the options."""
        if compare and self._options is not None and len(self._options) + self.states - first <= MANY_STATES:
            for state in range(first, self.states):
                content = self.content(state)
                if content not in self._index:
                    self._index[content] = len(self._options)
                    self._options.append(state)
            self.options = len(self._options)
        else:
            self._options = None
            self.options = self.states - self._starts[self.certain]

    def confirm(self) -> None:
        """Let all of the chain survive whatever happens."""
        self.certain = len(self.chain)
        self.key = hash((self.key, self.certain))
        self._options = []
        self._index = {}
        self._choose(self._starts[-1], True)

    @property
    def highest(self) -> int:
        """The option in which everything survives."""
        return self.options - 1 if self._options is None else self._index[self.full]

    def option(self, number: int) -> bytes:
        """Return the bytes of an option."""
        return self.content(self._starts[self.certain] + number if self._options is None else self._options[number])

    def _picture(self, state: int) -> tuple[int, int, int]:
        """Return what a number means: how many of the chain survive, which units after them, which free units."""
        length = bisect_right(self._starts, state) - 1
        torn, free = divmod(state - self._starts[length], 1 << self._loose[length])
        return length, torn, free

    def _number(self, length: int, torn: int, free: int) -> int:
        return self._starts[length] + (torn << self._loose[length]) + free

    def content(self, state: int) -> bytes:
        """Return the bytes of a state."""
        result = self._contents.get(state)
        if result is None:
            content = bytearray(self.durable)
            for piece, mask in self._surviving(*self._picture(state)):
                apply(content, self.offset, (unit for bit, unit in enumerate(piece.units) if mask >> bit & 1))
            result = self._contents[state] = bytes(content)
        return result

    def _surviving(self, length: int, torn: int, free: int) -> Iterator[tuple[Piece, int]]:
        """Yield each piece of the queue, with a mask of the units of it that survive."""
        before = 0
        for piece in self.queue:
            if piece.free:
                yield piece, free & piece.everything if before <= length else 0
                free >>= len(piece.units)
            else:
                yield piece, piece.everything if before < length else torn if before == length else 0
                before += 1

    def lost(self, state: int) -> Lost:
        """Return the stores of which something does not survive in a state, each with that."""
        surviving = self._surviving(*self._picture(state))
        missing = ((piece, piece.everything & ~mask) for piece, mask in surviving)
        return {
            piece.store: [unit for bit, unit in enumerate(piece.units) if mask >> bit & 1]
            for piece, mask in missing
            if mask
        }

    def without(self, stores: Collection[Store]) -> int | None:
        """Return the state in which those of *stores* that are here are lost wholly, and no others."""
        length = next((n for n, piece in enumerate(self.chain) if piece.store in stores), len(self.chain))
        free = bit = 0
        for piece in self.queue:
            if piece.free:
                free |= (0 if piece.store in stores else piece.everything) << bit
                bit += len(piece.units)
        state = self._number(length, 0, free & ((1 << self._loose[length]) - 1))
        return state if length >= self.certain and self.lost(state).keys() <= set(stores) else None

    def parts(self, store: Store) -> Iterator[int]:
        """Yield states in which only *store* is lost, and only one unit of it, or all but one, or all from one on."""
        loose = 0
        last = len(self.chain) - 1
        for piece in self.queue:
            masks = [
                mask for n in range(len(piece.units)) for mask in (piece.everything ^ 1 << n, 1 << n, (1 << n) - 1)
            ]
            if piece.store is store and piece.free:
                yield from (self.states - 1 - ((piece.everything ^ mask) << loose) for mask in masks)
            elif piece.store is store and piece is self.chain[-1] and last >= self.certain:
                everything = (1 << self._loose[last]) - 1
                yield from (self._number(last, mask, everything) for mask in masks if mask != piece.everything)
            if piece.free:
                loose += len(piece.units)

    def closest(self, content: bytes) -> int | None:
        """Return the state of *content* in which the fewest stores are lost; `None` if it cannot be found here."""
        matching = [self._matching(length, content) for length in range(self.certain, len(self.chain) + 1)]
        return min((state for state in matching if state is not None), key=self._losses, default=None)

    def _losses(self, state: int) -> int:
        return len(self.lost(state))

    def _matching(self, length: int, content: bytes) -> int | None:
        """Return the state of *content* in which *length* of the chain and as many units as possible survive."""
        torn = free = 0
        decided = bytearray(len(content))  # the bytes of which the last writer is known
        loose = self._loose[length]
        for piece, mask in reversed(list(self._surviving(length, -1, -1))):
            if piece.free and mask:
                loose -= len(piece.units)
            for bit, (offset, stored) in reversed(list(enumerate(piece.units))):
                low = offset - self.offset
                high = low + len(stored)
                fits = all(decided[n] or content[n] == stored[n - low] for n in range(low, high))
                if mask == 0 or not (fits or (mask > 0 and not piece.free)):
                    continue
                decided[low:high] = b"\1" * len(stored)
                if piece.free:
                    free |= 1 << (loose + bit)
                elif mask < 0:
                    torn |= 1 << bit
        if length < len(self.chain) and torn == self.chain[length].everything:
            return None  # that is the next length
        state = self._number(length, torn, free)
        return state if self.content(state) == content else None


def apply(content: bytearray, offset: int, units: Iterable[Unit]) -> None:
    """Store units into bytes that begin at *offset*."""
    for place, stored in units:
        content[place - offset : place - offset + len(stored)] = stored


@attrs.frozen(eq=False)
class Moment:
    """A time at which the power may fail, and what of it was not possible before.

    Attributes:
        event: The number of the event that is being done; -1 before the first.
        acknowledged: How often the workload had yielded.
        cells: Those that have more than one state.
        new: The index of the one of them that was stored to, or -1 if all images are new.
        first: The first of its options that is new.
        complete: Whether the store was done; else it goes on in other cells.
        key: Two moments of the same key have the same images, so that after the first none is new.
    """

    event: int
    acknowledged: int
    cells: Sequence[Cell]
    new: int = -1
    first: int = 0
    complete: bool = True
    key: int = 0

    def images(self, most: int) -> int:
        """Return how many images there are, those of the same content counted more than once; *most* if it is more."""
        count = 1
        for index, cell in enumerate(self.cells):
            count *= cell.options - (self.first if index == self.new else 0)
            if count > most:
                return most
        return count


Changes = dict[int, dict[int, tuple[Unit, ...]]]
"""By the number of a store, and that of a cell: what it changes there."""


def flushed_size(granularity: Granularity) -> int:
    """Return how many aligned bytes are always flushed together."""
    return PAGESIZE if granularity is Granularity.PAGE else LINE


class Memory:
    """Memory in which a workload is replayed."""

    def __init__(self, content: bytes, granularity: Granularity, changes: Changes) -> None:
        """Begin with what is durable; *changes* saves work when the same events are replayed again."""
        self._changes = changes
        self.content = bytearray(content)
        self.granularity = granularity
        self.cell = SECTOR if granularity is Granularity.PAGE else LINE
        self.flushed = flushed_size(granularity)
        self.cells: dict[int, Cell] = {}  # those that were ever stored to
        self.pending: dict[int, Cell] = {}  # those in which something is not durable
        self.settled: list[Cell] = []  # those that have become durable since somebody looked
        self.acknowledged = 0
        self._key = 0  # of all cells, those that are as in the beginning left out

    def replay(self, events: Iterable[Event]) -> Iterator[Moment]:
        """Do what the workload did; yield each moment that brings new images."""
        yield self._moment(-1)
        for number, event in enumerate(events):
            if isinstance(event, Store):
                yield from self._store(number, event)
            elif isinstance(event, Flush):
                self._flush(event)
            elif isinstance(event, Drain):
                self._drain()
            else:
                self.acknowledged += 1
                yield self._moment(number)

    def _moment(self, event: int, new: Cell | None = None, first: int = 0, complete: bool = True) -> Moment:
        cells = list(self.pending.values())
        index = -1 if new is None else cells.index(new)
        return Moment(event, self.acknowledged, cells, index, first, complete, hash((self.acknowledged, self._key)))

    def _store(self, event: int, store: Store) -> Iterator[Moment]:
        touched = self._changes.get(event)
        if touched is None:
            touched = self._changes[event] = self._by_cells(store)
        for number, (index, units) in enumerate(touched.items(), 1):
            cell = self.pending.get(index) or self.cells.get(index)
            if cell is None:
                low = index * self.cell
                cell = self.cells[index] = Cell(low, bytes(self.content[low : low + self.cell]))
            before = cell.options
            self._key ^= cell.key
            cell.append(Piece(store, units), compare=len(touched) <= MANY or len(units) <= FEW)
            self._key ^= cell.key
            self.pending[index] = cell
            if len(touched) <= MANY:
                yield self._moment(event, cell, before, number == len(touched))
        apply(self.content, 0, store.units)
        if len(touched) > MANY:
            yield self._moment(event)
        if self.granularity is Granularity.BYTE and not store.free:
            for index in touched:
                cell = self.pending[index]
                if len(cell.chain) == len(cell.queue):
                    self._settle(cell, len(cell.queue))
                else:
                    self._key ^= cell.key
                    cell.confirm()
                    self._key ^= cell.key

    def _by_cells(self, store: Store) -> dict[int, tuple[Unit, ...]]:
        """Return the units of a store by cells, but not those that change nothing."""
        touched: dict[int, list[Unit]] = {}
        for offset, stored in store.units:
            index = offset // self.cell
            cell = self.pending.get(index)
            overtaking = cell is not None and len(cell.chain) < len(cell.queue)  # what is free may yet be lost
            if overtaking or self.content[offset : offset + len(stored)] != stored:
                touched.setdefault(index, []).append((offset, stored))
        return {index: tuple(units) for index, units in touched.items()}

    def _settle(self, cell: Cell, count: int) -> None:
        """Make the first pieces of a queue durable."""
        content = bytearray(cell.durable)
        for piece in cell.queue[:count]:
            apply(content, cell.offset, piece.units)
        self._key ^= cell.key
        cell.settle(bytes(content), cell.queue[count:])
        self._key ^= cell.key
        self.settled.append(cell)
        if not cell.queue:
            del self.pending[cell.offset // self.cell]

    def _flush(self, flush: Flush) -> None:
        for offset, length in flush.ranges:
            if length == 0:
                continue
            low = offset // self.flushed * self.flushed
            high = -(-(offset + length) // self.flushed) * self.flushed
            indexes = range(low // self.cell, high // self.cell)
            for index in indexes if len(indexes) < len(self.pending) else list(self.pending):
                cell = self.pending.get(index) if index in indexes else None
                if cell is not None and self.granularity is Granularity.PAGE:
                    self._settle(cell, len(cell.queue))
                elif cell is not None:
                    cell.captured = len(cell.queue)

    def _drain(self) -> None:
        if self.granularity is Granularity.PAGE:
            return
        for cell in list(self.pending.values()):
            if cell.captured:
                self._settle(cell, cell.captured if self.granularity is Granularity.CACHE_LINE else len(cell.queue))
