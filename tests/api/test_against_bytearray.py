# SPDX-License-Identifier: BSD-3-Clause
"""Property-based tests: Hypothesis compares maps with a bytearray as the model."""

from __future__ import annotations

import gc
import sys
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.map_calls import OUTSIDE
from support.values import ALL_GRANULARITIES, ON_PYPY, PAGE

import pmem2
from pmem2 import Config, Granularity, Map, Source

SIZE = 3 * PAGE - 5  # ends inside a page, a cache line and a word


@pytest.fixture(scope="module", params=ALL_GRANULARITIES, ids=str)
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Map]:
    """A map of each granularity; all examples share it, so each example fills it first."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PMEM2_FORCE_GRANULARITY", Granularity(request.param).name)
        path = tmp_path_factory.mktemp("arena") / "file"
        yield stack.enter_context(pmem2.open(path, "w+", size=SIZE))


def fill(map: Map, seed: int) -> bytearray:
    """Fill a map with bytes that depend on their offset, and return the same bytes as the model."""
    model = bytearray((seed + 7 * i + i // 251) % 256 for i in range(SIZE))
    with map.view() as view:
        view[:] = model
    return model


NEAR = (0, 1, 7, 8, 63, 64, 65, 255, 256, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, SIZE - 8, SIZE - 1, SIZE, SIZE + 1)
FAR = (2**31, 2**32, 2**63 - 1, 2**63, 2**64 - PAGE, 2**64 - 1)
inside = st.one_of(st.integers(0, SIZE), st.sampled_from([n for n in NEAR if n <= SIZE]))
anywhere = st.one_of(st.integers(0, SIZE + 100), st.sampled_from(NEAR + FAR))
numbers = st.one_of(anywhere, st.integers(-(2**70), 2**70))
indexes = st.one_of(st.none(), st.integers(-SIZE - 10, SIZE + 10), st.sampled_from([2**63, -(2**63), 2**70, -(2**70)]))
steps = st.one_of(st.none(), st.integers(-70, 70).filter(bool), st.sampled_from([PAGE, -PAGE, 2**64, -(2**70)]))
slices = st.builds(slice, indexes, indexes, steps)
seeds = st.integers(0, 255)
data = st.one_of(st.binary(max_size=300), st.builds(lambda n, seed: bytes([seed]) * n, st.integers(0, SIZE), seeds))
words = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


def fits(offset: int, length: int) -> bool:
    """Return whether a range lies inside the map."""
    return offset >= 0 and length >= 0 and offset + length <= SIZE


def expect(valid: bool, call: Callable[[], object]) -> None:
    """Check that a call succeeds if it is valid, and raises ValueError if it is not."""
    if valid:
        call()
    else:
        with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
            call()


@given(seed=seeds, key=slices)
def test_read_slices(arena: Map, seed: int, key: slice) -> None:
    """Any slice of a map equals that of a bytearray."""
    model = fill(arena, seed)
    assert arena[key] == model[key]


@given(seed=seeds, key=slices, value=data)
def test_store_slices(arena: Map, seed: int, key: slice, value: bytes) -> None:
    """Assignment to any slice accepts data of the same length, as for a bytearray, and no other data."""
    model = fill(arena, seed)
    length = len(model[key])
    if len(value) != length:
        with pytest.raises(ValueError, match="bytes"):
            arena[key] = value
        assert arena[:] == model
        value = bytes((seed + 3 * i) % 256 for i in range(length))
    arena[key] = value
    for index, byte in zip(range(SIZE)[key], value):
        model[index] = byte
    assert arena[:] == model


@given(seed=seeds, index=st.integers(-SIZE - 2, SIZE + 1), value=st.integers(-2, 257))
def test_items(arena: Map, seed: int, index: int, value: int) -> None:
    """Reading and storing any item gives the result or the exception of a bytearray."""
    model = fill(arena, seed)
    outcomes: list[list[object]] = [[], []]
    memories: list[Map | bytearray] = [arena, model]
    for outcome, memory in zip(outcomes, memories):
        try:
            outcome.append(memory[index])
            memory[index] = value
        except (IndexError, ValueError) as error:
            outcome.append(type(error))
    assert outcomes[0] == outcomes[1]
    assert arena[:] == model


@given(offset=numbers, length=numbers)
@example(offset=SIZE, length=0)
@example(offset=SIZE + 1, length=2**64 - 1)
@example(offset=1, length=2**64 - 1)
def test_durable_ranges(arena: Map, offset: int, length: int) -> None:
    """Every durability call accepts a range exactly if it lies inside the map."""
    valid = fits(offset, length)
    expect(valid, lambda: arena.persist(offset, length))
    expect(valid, lambda: arena.flush(offset, length))
    expect(valid, lambda: arena.persist_many([(0, 1), (offset, length)]))
    expect(valid, lambda: arena.flush_many(iter([(offset, length), (SIZE, 0)])))
    expect(valid, lambda: arena.view(offset, length).release())
    if not valid:
        expect(valid, lambda: arena.deep_flush(offset, length))
    expect(fits(offset, 0), lambda: arena.persist(offset))
    expect(fits(offset, 0), lambda: arena.flush(offset))


@given(pairs=st.lists(st.tuples(anywhere, anywhere), max_size=20))
def test_many_durable_ranges(arena: Map, pairs: list[tuple[int, int]]) -> None:
    """persist_many and flush_many accept ranges in every form exactly if all of them lie inside the map."""
    valid = all(fits(offset, length) for offset, length in pairs)
    packed = array("Q", [number for pair in pairs for number in pair])
    expect(valid, lambda: arena.persist_many(pairs))
    expect(valid, lambda: arena.flush_many(iter(pairs)))
    expect(valid, lambda: arena.persist_many(packed))
    expect(valid, lambda: arena.flush_many(packed))


@given(seed=seeds, pairs=st.lists(st.tuples(inside, inside), max_size=10))
def test_durability_keeps_bytes(arena: Map, seed: int, pairs: list[tuple[int, int]]) -> None:
    """Durability calls leave the bytes unchanged."""
    model = fill(arena, seed)
    ranges = [(min(pair), max(pair) - min(pair)) for pair in pairs]
    arena.persist_many(ranges)
    arena.flush_many(ranges)
    for offset, length in ranges:
        arena.persist(offset, length)
        arena.flush(offset, length)
    arena.drain()
    assert arena[:] == model


@given(seed=seeds, offset=numbers, value=data, bits=st.integers(-1, 64))
def test_copies(arena: Map, seed: int, offset: int, value: bytes, bits: int) -> None:
    """A copy stores its data if the range fits and the flags are valid, and otherwise stores nothing."""
    conflicts = ((2, 4), (8, 16), (2, 32), (8, 32))
    valid_flags = 0 <= bits < 64 and not any(bits & one and bits & other for one, other in conflicts)
    copies: list[Callable[..., None]] = [arena.memcpy, arena.memmove]
    for copy in copies:
        model = fill(arena, seed)
        valid = valid_flags and fits(offset, len(value))
        expect(valid, lambda: copy(offset, value, bits))  # noqa: B023 # called at once
        if valid:
            model[offset : offset + len(value)] = value
        arena.drain()
        assert arena[:] == model


@given(seed=seeds, offset=numbers, value=st.integers(-3, 258), length=numbers)
def test_memset(arena: Map, seed: int, offset: int, value: int, length: int) -> None:
    """memset fills a valid range with a valid byte, and otherwise raises ValueError."""
    model = fill(arena, seed)
    valid = fits(offset, length) and 0 <= value <= 255
    expect(valid, lambda: arena.memset(offset, value, length))
    if valid:
        model[offset : offset + length] = bytes([value]) * length
    assert arena[:] == model


@given(seed=seeds, source=inside, target=inside, length=inside)
def test_overlapping_moves(arena: Map, seed: int, source: int, target: int, length: int) -> None:
    """memmove from a view of the same map equals a bytearray assignment from a copy."""
    length = min(length, SIZE - source, SIZE - target)
    model = fill(arena, seed)
    with arena.view(source, length) as view:
        arena.memmove(target, view)
    model[target : target + length] = bytes(model[source : source + length])
    assert arena[:] == model


@given(seed=seeds, pieces=st.lists(st.tuples(anywhere, st.binary(max_size=100)), max_size=10))
def test_many_copies(arena: Map, seed: int, pieces: list[tuple[int, bytes]]) -> None:
    """memcpy_many copies all pieces in order, or none if one does not fit."""
    model = fill(arena, seed)
    valid = all(fits(offset, len(piece)) for offset, piece in pieces)
    expect(valid, lambda: arena.memcpy_many(pieces))
    if valid:
        for offset, piece in pieces:
            model[offset : offset + len(piece)] = piece
    assert arena[:] == model


@given(seed=seeds, offset=numbers, value=words, delta=st.integers(-(2**63), 2**64 - 1), persist=st.booleans())
def test_words(arena: Map, seed: int, offset: int, value: int, delta: int, persist: bool) -> None:
    """Atomics on aligned words inside the map behave as integers modulo 2**64."""
    model = fill(arena, seed)
    valid = fits(offset, 8) and offset % 8 == 0
    before = int.from_bytes(model[offset : offset + 8], sys.byteorder) if valid else 0
    expect(valid, lambda: arena.load_u64(offset))
    expect(valid, lambda: arena.store_u64(offset, before, persist))
    expect(valid, lambda: arena.compare_exchange_u64(offset, before, value, persist))
    expect(valid, lambda: arena.fetch_add_u64(offset, delta, persist))
    if valid:
        after = (value + delta) % 2**64
        model[offset : offset + 8] = after.to_bytes(8, sys.byteorder)
        assert arena.load_u64(offset) == after
        assert arena.compare_exchange_u64(offset, (after + 1) % 2**64, 0) == (False, after)
    assert arena[:] == model


# ---- lifecycle


class OpenMap:
    """A map or None if it was dropped, its range in the model, and its live views with their offsets in the model."""

    def __init__(self, map: Map | None, offset: int, length: int) -> None:
        """Start without views."""
        self.map = map
        self.offset = offset
        self.length = length
        self.views: list[tuple[memoryview, int]] = []


PAGES = 4
selectors = st.integers(0, 2**16)
offsets = st.integers(0, PAGES * PAGE)
small_data = st.binary(max_size=80)


class MapLifecycle(RuleBasedStateMachine):
    """Sources, maps and views that are made, used, closed and dropped in any order have the bytes of the model."""

    def __init__(self) -> None:
        """Make a file and a model with the same bytes."""
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "file"
        self.model = bytearray(i % 251 for i in range(PAGES * PAGE))
        self.path.write_bytes(self.model)
        self.sources: list[Source] = []
        self.maps: list[OpenMap] = []
        self.closed: list[Map] = []

    # selection of an open map

    def select_map(self, number: int) -> tuple[OpenMap, Map]:
        """Return a map that was not dropped."""
        held = [entry for entry in self.maps if entry.map is not None]
        entry = held[number % len(held)]
        assert entry.map is not None
        return entry, entry.map

    def has_map(self) -> bool:
        """Return whether there is a map that was not dropped."""
        return any(entry.map is not None for entry in self.maps)

    def has_view(self) -> bool:
        """Return whether there is a live view."""
        return any(entry.views for entry in self.maps)

    # sources and maps

    @rule()
    def open_source(self) -> None:
        """Make a source."""
        self.sources.append(Source.from_path(self.path))

    @precondition(lambda self: self.sources)
    @rule(number=selectors)
    def close_source(self, number: int) -> None:
        """Close a source, which keeps its maps; mapping it then raises ValueError."""
        source = self.sources.pop(number % len(self.sources))
        source.close()
        with pytest.raises(ValueError, match="closed"):
            source.map()

    @precondition(lambda self: self.sources and len(self.maps) < 20)
    @rule(number=selectors, first=st.integers(0, PAGES), pages=st.integers(1, PAGES + 1))
    def map_source(self, number: int, first: int, pages: int) -> None:
        """Map a range of a source, or check that a range outside raises MapRangeError."""
        source = self.sources[number % len(self.sources)]
        config = Config(offset=first * PAGE, length=pages * PAGE)
        if first + pages > PAGES:
            with pytest.raises(pmem2.MapRangeError):
                source.map(config)
        else:
            self.maps.append(OpenMap(source.map(config), first * PAGE, pages * PAGE))

    @precondition(lambda self: len(self.maps) < 20)
    @rule()
    def open_path(self) -> None:
        """Map the whole file with pmem2.open."""
        self.maps.append(OpenMap(pmem2.open(self.path), 0, PAGES * PAGE))

    # stores

    @precondition(has_map)
    @rule(
        number=selectors,
        offset=offsets,
        data=small_data,
        method=st.sampled_from(["slice", "memcpy", "memmove", "pieces"]),
    )
    def store(self, number: int, offset: int, data: bytes, method: str) -> None:
        """Store bytes if they fit, with one of four methods."""
        entry, map = self.select_map(number)
        methods: dict[str, Callable[[], None]] = {
            "slice": lambda: map.__setitem__(slice(offset, offset + len(data)), data),
            "memcpy": lambda: map.memcpy(offset, data),
            "memmove": lambda: map.memmove(offset, bytearray(data)),
            "pieces": lambda: map.memcpy_many([(offset, data)]),
        }
        valid = offset + len(data) <= entry.length
        expect(valid or (method == "slice" and not data), methods[method])
        if valid:
            start = entry.offset + offset
            self.model[start : start + len(data)] = data

    @precondition(has_map)
    @rule(number=selectors, offset=st.integers(0, PAGES * PAGE // 8), delta=words)
    def add(self, number: int, offset: int, delta: int) -> None:
        """Add to an aligned word, if it lies inside."""
        entry, map = self.select_map(number)
        valid = 8 * offset + 8 <= entry.length
        expect(valid, lambda: map.fetch_add_u64(8 * offset, delta, persist=True))
        if valid:
            start = entry.offset + 8 * offset
            sum = int.from_bytes(self.model[start : start + 8], sys.byteorder) + delta
            self.model[start : start + 8] = (sum % 2**64).to_bytes(8, sys.byteorder)

    @precondition(has_map)
    @rule(number=selectors, offset=offsets, length=offsets)
    def make_durable(self, number: int, offset: int, length: int) -> None:
        """Persist and flush a range, if it lies inside."""
        entry, map = self.select_map(number)
        valid = offset + length <= entry.length
        expect(valid, lambda: map.persist(offset, length))
        expect(valid, lambda: map.flush(offset, length))
        map.drain()

    # views

    @precondition(has_map)
    @rule(number=selectors, offset=offsets, length=offsets)
    def make_view(self, number: int, offset: int, length: int) -> None:
        """View a range, if it lies inside."""
        entry, map = self.select_map(number)
        if offset + length > entry.length:
            with pytest.raises(ValueError, match=OUTSIDE):
                map.view(offset, length)
        else:
            entry.views.append((map.view(offset, length), entry.offset + offset))

    def select_view(self, number: int) -> tuple[OpenMap, int]:
        """Return the map and the index of a live view."""
        views = [(entry, index) for entry in self.maps for index in range(len(entry.views))]
        return views[number % len(views)]

    @precondition(has_view)
    @rule(number=selectors, start=offsets)
    def slice_view(self, number: int, start: int) -> None:
        """Slice a view, which makes another view."""
        entry, index = self.select_view(number)
        view, offset = entry.views[index]
        start = min(start, len(view))
        entry.views.append((view[start:], offset + start))

    @precondition(has_view)
    @rule(number=selectors, start=offsets, data=small_data)
    def store_through_view(self, number: int, start: int, data: bytes) -> None:
        """Store bytes through a view, also of a map that was dropped."""
        entry, index = self.select_view(number)
        view, offset = entry.views[index]
        part = view[start : start + len(data)]
        part[:] = data[: len(part)]
        self.model[offset + start : offset + start + len(part)] = data[: len(part)]
        part.release()

    @precondition(has_view)
    @rule(number=selectors, release=st.booleans())
    def end_view(self, number: int, release: bool) -> None:
        """Release or drop a view; a dropped map goes with its last view."""
        entry, index = self.select_view(number)
        view, _ = entry.views.pop(index)
        if release:
            view.release()
        del view
        self.maps = [entry for entry in self.maps if entry.map is not None or entry.views]

    # closing and dropping maps

    @precondition(has_map)
    @rule(number=selectors, with_statement=st.booleans())
    def close_map(self, number: int, with_statement: bool) -> None:
        """Close a map, or check that its views make close() raise BufferError."""
        entry, map = self.select_map(number)
        if entry.views:
            with pytest.raises(BufferError):
                map.__exit__(None, None, None) if with_statement else map.close()
            assert not map.closed
        else:
            map.__exit__(None, None, None) if with_statement else map.close()
            self.maps.remove(entry)
            self.closed.append(map)

    @precondition(has_map)
    @rule(number=selectors)
    def drop_map(self, number: int) -> None:
        """Drop an open map; its views stay valid."""
        entry, map = self.select_map(number)
        entry.map = None
        del map
        if not entry.views:
            self.maps.remove(entry)

    @precondition(lambda self: self.closed)
    @rule(number=selectors)
    def use_closed_map(self, number: int) -> None:
        """Use a closed map, which raises ValueError; close it again, which has no effect."""
        map = self.closed[number % len(self.closed)]
        calls: list[Callable[[], object]] = [
            map.view,
            map.persist,
            map.drain,
            lambda: map[0],
            lambda: map.memcpy(0, b""),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="closed"):
                call()
        map.close()
        assert map.closed

    @rule()
    def collect(self) -> None:
        """Collect garbage."""
        gc.collect()

    # invariants

    @invariant()
    def bytes_equal_the_model(self) -> None:
        """All maps, views and the file have the bytes of the model."""
        for entry in self.maps:
            if entry.map is not None:
                assert not entry.map.closed
                assert entry.map[:] == self.model[entry.offset : entry.offset + entry.length]
            for view, offset in entry.views:
                assert view == self.model[offset : offset + len(view)]
        assert self.path.read_bytes() == self.model

    def teardown(self) -> None:
        """Release the views, close maps and sources, and check that the file has the bytes of the model."""
        for entry in self.maps:
            for view, _ in entry.views:
                view.release()
            entry.views.clear()
            if entry.map is not None:
                entry.map.close()
        self.maps.clear()
        for source in self.sources:
            source.close()
        assert self.path.read_bytes() == self.model
        self.folder.cleanup()
        if ON_PYPY:  # so that dropped maps do not warn in another test
            for _ in range(3):
                gc.collect()


TestMapLifecycle = pytest.mark.filterwarnings("ignore:unclosed <pmem2.Map:ResourceWarning")(MapLifecycle.TestCase)
FRACTION = 20 if ON_PYPY else 3  # each close collects garbage, which takes PyPy long
TestMapLifecycle.settings = settings(max_examples=settings().max_examples // FRACTION, stateful_step_count=30)
