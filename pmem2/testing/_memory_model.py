# SPDX-License-Identifier: BSD-3-Clause
"""The memory model: the states that a power failure can leave, after each event of a workload.

Memory consists of independent cells: cache lines of 64 bytes, or sectors of 512 bytes on PAGE granularity. A cell has
durable content and a queue of later stores. A power failure keeps a prefix of the queue, and of the next store any
subset of its units. Unordered stores are the exception: each of their units may be missing from the prefix. The states
of a cell are numbered, not listed, because a single store of n units makes 2**n of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from mmap import PAGESIZE

import attrs

from pmem2._enums import Granularity
from pmem2.testing._events import Drain, Event, Flush, Store, Unit

LINE = 64
SECTOR = 512
MAX_CELLS_STEPWISE = 16
"""Cells: a store that touches more is one crash point, not one crash point for each cell."""
MAX_UNITS_DEDUP = 4
"""Units: for a larger part of such a store, states with equal content are not merged."""
MAX_STATES_DEDUP = 1024
"""States: in a cell with more, states with equal content are not merged."""


class Piece:
    """The part of a store in one cell, without the units that would not change the cell."""

    __slots__ = ("full_mask", "store", "units", "unordered")

    def __init__(self, store: Store, units: tuple[Unit, ...]) -> None:
        """Hold *units* of *store*."""
        self.store = store
        self.units = units
        self.unordered = store.unordered
        self.full_mask = (1 << len(units)) - 1  # one bit for each unit


LostUnits = dict[Store, list[Unit]]
"""For each store that loses something, the units that do not survive."""


class Cell:
    """A line or a sector: its durable content, and the stores since."""

    def __init__(self, offset: int, durable: bytes) -> None:
        """Start with durable content and no stores."""
        self.offset = offset
        self.rendered: bytes | None = None  # the content that the search has put into its image
        self.reset(durable, ())

    def reset(self, durable: bytes, queue: Iterable[Piece]) -> None:
        """Start again from other durable content and another queue."""
        self.durable = durable
        self.key = hash((self.offset, durable))  # cells with equal keys have the same states
        self.queue: list[Piece] = []
        self.ordered: list[Piece] = []  # the queue without unordered pieces
        self.flushed_count = 0  # the length of the prefix of the queue that becomes durable at the next drain
        self.guaranteed = 0  # how many ordered pieces always survive; they stay queued behind unordered ones
        # A state number encodes the count of surviving ordered pieces, then the surviving units of the next ordered
        # piece, then the surviving unordered units.
        self._unordered_bits = [0]  # for each count of ordered pieces: how many unordered units may survive
        self._first_states = [0]  # for each count of ordered pieces: its first state number
        self.states = 1
        self.newest = durable  # the content if everything survives
        # The options are the states with distinct content, or all states if merging them takes too long.
        self._options: list[int] | None = [0]
        self.options = 1
        self._option_by_content = {durable: 0}
        self._contents = {0: durable}
        for piece in queue:
            self.append(piece)

    def append(self, piece: Piece, dedup: bool = True) -> None:
        """Queue one more store; existing states and options keep their numbers.

        Args:
            piece: The part of the store in this cell.
            dedup: Whether to merge states with equal content.
        """
        before, count = self.states, len(piece.units)
        self.key = hash((self.key, piece.unordered, piece.units))
        if piece.unordered:
            self._unordered_bits[-1] += count
        else:
            self._first_states.append(self._first_states[-1] + (((1 << count) - 1) << self._unordered_bits[-1]))
            self._unordered_bits.append(self._unordered_bits[-1])
            self.ordered.append(piece)
        self.queue.append(piece)
        self.states = self._first_states[-1] + (1 << self._unordered_bits[-1])
        content = bytearray(self.newest)
        apply(content, self.offset, piece.units)
        self.newest = self._contents[self.states - 1] = bytes(content)
        self._add_options(before, dedup)

    def _add_options(self, first: int, dedup: bool) -> None:
        """Extend the options by the states from *first* on that have new content."""
        if dedup and self._options is not None and len(self._options) + self.states - first <= MAX_STATES_DEDUP:
            for state in range(first, self.states):
                content = self.content(state)
                if content not in self._option_by_content:
                    self._option_by_content[content] = len(self._options)
                    self._options.append(state)
            self.options = len(self._options)
        else:
            self._options = None
            self.options = self.states - self._first_states[self.guaranteed]

    def guarantee_ordered(self) -> None:
        """Make all ordered pieces survive in every state."""
        self.guaranteed = len(self.ordered)
        self.key = hash((self.key, self.guaranteed))
        self._options = []
        self._option_by_content = {}
        self._add_options(self._first_states[-1], True)

    @property
    def highest(self) -> int:
        """The option in which everything survives."""
        return self.options - 1 if self._options is None else self._option_by_content[self.newest]

    def option(self, number: int) -> bytes:
        """Return the content of an option."""
        options = self._options
        state = self._first_states[self.guaranteed] + number if options is None else options[number]
        return self._contents.get(state) or self.content(state)

    def _decode(self, state: int) -> tuple[int, int, int]:
        """Return the count of surviving ordered pieces, and the masks of the next one and of the unordered units."""
        length = bisect_right(self._first_states, state) - 1
        torn, unordered = divmod(state - self._first_states[length], 1 << self._unordered_bits[length])
        return length, torn, unordered

    def _encode(self, length: int, torn: int, unordered: int) -> int:
        """Return the number of a state; the inverse of `_decode`."""
        return self._first_states[length] + (torn << self._unordered_bits[length]) + unordered

    def content(self, state: int) -> bytes:
        """Return the content of a state."""
        result = self._contents.get(state)
        if result is None:
            content = bytearray(self.durable)
            for piece, mask in self._surviving(*self._decode(state)):
                apply(content, self.offset, (unit for bit, unit in enumerate(piece.units) if mask >> bit & 1))
            result = self._contents[state] = bytes(content)
        return result

    def _surviving(self, length: int, torn: int, unordered: int) -> Iterator[tuple[Piece, int]]:
        """Yield each piece of the queue with the mask of its surviving units."""
        before = 0
        for piece in self.queue:
            if piece.unordered:
                yield piece, unordered & piece.full_mask if before <= length else 0
                unordered >>= len(piece.units)
            else:
                yield piece, piece.full_mask if before < length else torn if before == length else 0
                before += 1

    def lost(self, state: int) -> LostUnits:
        """Return the units that a state loses, by store."""
        surviving = self._surviving(*self._decode(state))
        missing = ((piece, piece.full_mask & ~mask) for piece, mask in surviving)
        return {
            piece.store: [unit for bit, unit in enumerate(piece.units) if mask >> bit & 1]
            for piece, mask in missing
            if mask
        }

    def state_losing(self, stores: Collection[Store]) -> int | None:
        """Return the state that loses all units of *stores* in this cell and no others; `None` if there is none."""
        length = next((n for n, piece in enumerate(self.ordered) if piece.store in stores), len(self.ordered))
        unordered = bit = 0
        for piece in self.queue:
            if piece.unordered:
                unordered |= (0 if piece.store in stores else piece.full_mask) << bit
                bit += len(piece.units)
        state = self._encode(length, 0, unordered & ((1 << self._unordered_bits[length]) - 1))
        return state if length >= self.guaranteed and self.lost(state).keys() <= set(stores) else None

    def states_losing_part(self, store: Store) -> Iterator[int]:
        """Yield states that lose only *store*, and of it: one unit, all but one, or all from one unit on."""
        shift = 0
        last = len(self.ordered) - 1
        for piece in self.queue:
            masks = [mask for n in range(len(piece.units)) for mask in (piece.full_mask ^ 1 << n, 1 << n, (1 << n) - 1)]
            if piece.store is store and piece.unordered:
                yield from (self.states - 1 - ((piece.full_mask ^ mask) << shift) for mask in masks)
            elif piece.store is store and piece is self.ordered[-1] and last >= self.guaranteed:
                all_unordered = (1 << self._unordered_bits[last]) - 1
                yield from (self._encode(last, mask, all_unordered) for mask in masks if mask != piece.full_mask)
            if piece.unordered:
                shift += len(piece.units)

    def closest_state(self, content: bytes) -> int | None:
        """Return the state with this content that loses the fewest stores; `None` if none was found."""
        lengths = range(self.guaranteed, len(self.ordered) + 1)
        matching = [self._matching_state(length, content) for length in lengths]
        return min((state for state in matching if state is not None), key=self._lost_count, default=None)

    def _lost_count(self, state: int) -> int:
        return len(self.lost(state))

    def _matching_state(self, length: int, content: bytes) -> int | None:
        """Return the state with this content that keeps *length* ordered pieces, and as many other units as possible.

        The pieces are visited from the newest to the oldest, so that the last writer of each byte is found first.
        """
        torn = unordered = 0
        written = bytearray(len(content))  # 1 for each byte whose last writer is known
        shift = self._unordered_bits[length]
        for piece, mask in reversed(list(self._surviving(length, -1, -1))):
            if piece.unordered and mask:
                shift -= len(piece.units)
            for bit, (offset, stored) in reversed(list(enumerate(piece.units))):
                low = offset - self.offset
                high = low + len(stored)
                fits = all(written[n] or content[n] == stored[n - low] for n in range(low, high))
                if mask == 0 or not (fits or (mask > 0 and not piece.unordered)):
                    continue
                written[low:high] = b"\1" * len(stored)
                if piece.unordered:
                    unordered |= 1 << (shift + bit)
                elif mask < 0:
                    torn |= 1 << bit
        if length < len(self.ordered) and torn == self.ordered[length].full_mask:
            return None  # this state belongs to the next length
        state = self._encode(length, torn, unordered)
        return state if self.content(state) == content else None


class FreeCell:
    """A cell that the power failed in and no recovery has read since: each of its options is still possible."""

    __slots__ = ("_cell", "_low", "highest", "index", "key", "offset", "options", "rendered")

    _cell: Cell | FreeCell
    _low: int
    highest: int
    index: int
    key: int
    offset: int
    options: int
    rendered: bytes | None

    def __init__(self, index: int, cell: Cell | FreeCell, low: int) -> None:
        """Keep the options of *cell* from the number *low* on; the cell itself may change later."""
        self._cell = copy(cell)
        self._low = low
        self.index = index
        self.offset = cell.offset
        self.options = cell.options - low
        self.highest = max(cell.highest - low, 0)  # the option in which everything survives
        self.key = free_key(cell, low)
        self.rendered = None

    def option(self, number: int) -> bytes:
        """Return the content of an option."""
        return self._cell.option(self._low + number)


def free_key(cell: Cell | FreeCell, low: int) -> int:
    """Return a number that is the same for cells with equal options from the number *low* on."""
    return hash((cell.key, low)) if low else cell.key


def apply(content: bytearray, offset: int, units: Iterable[Unit]) -> None:
    """Store units into *content*, whose first byte is at *offset* of the map."""
    for start, stored in units:
        content[start - offset : start - offset + len(stored)] = stored


@attrs.frozen(eq=False)
class CrashPoint:
    """A moment at which the power may fail, and the images that are new at that moment.

    Attributes:
        event: The number of the event in progress; -1 before the first.
        acknowledged: How often the workload had yielded.
        cells: The cells with more than one state.
        changed: The index in *cells* of the cell that the event stored to; -1 if all images are new.
        first_new: The first new option of that cell.
        complete: Whether the store is complete; otherwise it continues in other cells.
        key: Crash points with equal keys have the same images, so that only the first of them brings new ones.
    """

    event: int
    acknowledged: int
    cells: Sequence[Cell]
    changed: int = -1
    first_new: int = 0
    complete: bool = True
    key: int = 0

    def image_count(self, limit: int) -> int:
        """Return the number of new images, at most *limit*; images with equal content may count more than once."""
        count = 1
        for index, cell in enumerate(self.cells):
            count *= cell.options - (self.first_new if index == self.changed else 0)
            if count > limit:
                return limit
        return count


def stored_cells(events: Iterable[Event], bytes_in_cell: int) -> frozenset[int]:
    """Return the numbers of the cells that the events store to."""
    stores = (event for event in events if isinstance(event, Store))
    return frozenset([offset // bytes_in_cell for store in stores for offset, _ in store.units])


UnitsByCell = dict[int, dict[int, tuple[Unit, ...]]]
"""For the number of each store event, its units by cell number."""


def cell_size(granularity: Granularity) -> int:
    """Return the size of the cells."""
    return SECTOR if granularity is Granularity.PAGE else LINE


def flush_size(granularity: Granularity) -> int:
    """Return the size of the aligned block that one flush writes back as a whole."""
    return PAGESIZE if granularity is Granularity.PAGE else LINE


class Memory:
    """The memory in which the events of a workload are replayed."""

    def __init__(self, content: bytes | bytearray, granularity: Granularity, cache: UnitsByCell) -> None:
        """Start with durable content; *cache* saves work when the same events are replayed again."""
        self._units_by_cell = cache
        self.content = bytearray(content)
        self.granularity = granularity
        self.cell_size = cell_size(granularity)
        self.flush_size = flush_size(granularity)
        self.cells: dict[int, Cell] = {}  # every cell that was ever stored to
        self.pending: dict[int, Cell] = {}  # the cells that are not durable
        self.newly_durable: list[Cell] = []  # the search takes and clears them
        self.acknowledged = 0
        self._key = 0  # combines the keys of all pending cells

    def replay(self, events: Iterable[Event]) -> Iterator[CrashPoint]:
        """Apply the events; yield each crash point that may bring new images."""
        yield self._crash_point(-1)
        for number, event in enumerate(events):
            if isinstance(event, Store):
                yield from self._store(number, event)
            elif isinstance(event, Flush):
                self._flush(event)
            elif isinstance(event, Drain):
                self._drain()
            else:
                self.acknowledged += 1
                yield self._crash_point(number)

    def _crash_point(
        self, event: int, changed: Cell | None = None, first_new: int = 0, complete: bool = True
    ) -> CrashPoint:
        cells = list(self.pending.values())
        index = -1 if changed is None else cells.index(changed)
        key = hash((self.acknowledged, self._key))
        return CrashPoint(event, self.acknowledged, cells, index, first_new, complete, key)

    def _store(self, event: int, store: Store) -> Iterator[CrashPoint]:
        touched = self._units_by_cell.get(event)
        if touched is None:
            touched = self._units_by_cell[event] = self._split_by_cell(store)
        stepwise = len(touched) <= MAX_CELLS_STEPWISE
        for number, (index, units) in enumerate(touched.items(), 1):
            cell = self.pending.get(index) or self.cells.get(index)
            if cell is None:
                low = index * self.cell_size
                cell = self.cells[index] = Cell(low, bytes(self.content[low : low + self.cell_size]))
            options_before = cell.options
            self._key ^= cell.key
            cell.append(Piece(store, units), dedup=stepwise or len(units) <= MAX_UNITS_DEDUP)
            self._key ^= cell.key
            self.pending[index] = cell
            if stepwise:
                yield self._crash_point(event, cell, options_before, number == len(touched))
        apply(self.content, 0, store.units)
        if not stepwise:
            yield self._crash_point(event)
        if self.granularity is Granularity.BYTE and not store.unordered:
            for index in touched:
                cell = self.pending[index]
                if len(cell.ordered) == len(cell.queue):
                    self._make_durable(cell, len(cell.queue))
                else:
                    self._key ^= cell.key
                    cell.guarantee_ordered()
                    self._key ^= cell.key

    def _split_by_cell(self, store: Store) -> dict[int, tuple[Unit, ...]]:
        """Return the units of a store by cell number, without units that change nothing."""
        touched: dict[int, list[Unit]] = {}
        for offset, stored in store.units:
            index = offset // self.cell_size
            cell = self.pending.get(index)
            # Equal content matters behind an unordered store, which may still be lost.
            behind_unordered = cell is not None and len(cell.ordered) < len(cell.queue)
            if behind_unordered or self.content[offset : offset + len(stored)] != stored:
                touched.setdefault(index, []).append((offset, stored))
        return {index: tuple(units) for index, units in touched.items()}

    def _make_durable(self, cell: Cell, count: int) -> None:
        """Make the first *count* pieces of a queue durable."""
        content = bytearray(cell.durable)
        for piece in cell.queue[:count]:
            apply(content, cell.offset, piece.units)
        self._key ^= cell.key
        cell.reset(bytes(content), cell.queue[count:])
        self._key ^= cell.key
        self.newly_durable.append(cell)
        if not cell.queue:
            del self.pending[cell.offset // self.cell_size]

    def _flush(self, flush: Flush) -> None:
        for offset, length in flush.ranges:
            if length == 0:
                continue
            low = offset // self.flush_size * self.flush_size
            high = -(-(offset + length) // self.flush_size) * self.flush_size
            indexes = range(low // self.cell_size, high // self.cell_size)
            for index in indexes if len(indexes) < len(self.pending) else list(self.pending):
                cell = self.pending.get(index) if index in indexes else None
                if cell is not None and self.granularity is Granularity.PAGE:
                    self._make_durable(cell, len(cell.queue))
                elif cell is not None:
                    cell.flushed_count = len(cell.queue)

    def _drain(self) -> None:
        if self.granularity is Granularity.PAGE:
            return
        for cell in list(self.pending.values()):
            if cell.flushed_count:
                whole_queue = self.granularity is Granularity.BYTE
                self._make_durable(cell, len(cell.queue) if whole_queue else cell.flushed_count)
