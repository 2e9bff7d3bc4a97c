# SPDX-License-Identifier: BSD-3-Clause
"""Properties that hold for whatever ranges, data and orders Hypothesis thinks of, against a bytearray as the model."""

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
from support.values import ON_PYPY, PAGE

import pmem2
from pmem2 import Config, Granularity, Map, Source

SIZE = 3 * PAGE - 5  # ends inside a page, a cache line and a word


@pytest.fixture(scope="module", params=list(Granularity), ids=str)
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Map]:
    """A map of each granularity, which all examples share: each begins by filling it."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PMEM2_FORCE_GRANULARITY", Granularity(request.param).name)
        path = tmp_path_factory.mktemp("arena") / "file"
        yield stack.enter_context(pmem2.open(path, "w+", size=SIZE))


def filled(map: Map, seed: int) -> bytearray:
    """Fill a map with bytes that tell where they are, and return the same as a bytearray."""
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


def expect(ok: bool, act: Callable[[], object]) -> None:
    """Do something that must succeed, or must be a ValueError."""
    if ok:
        act()
    else:
        with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
            act()


@given(seed=seeds, key=slices)
def test_read_slices(arena: Map, seed: int, key: slice) -> None:
    """Any slice of a map equals that of a bytearray."""
    model = filled(arena, seed)
    assert arena[key] == model[key]


@given(seed=seeds, key=slices, value=data)
def test_store_slices(arena: Map, seed: int, key: slice, value: bytes) -> None:
    """Assignment to any slice accepts data of the same length, as for a bytearray, and no other data."""
    model = filled(arena, seed)
    length = len(model[key])
    if len(value) != length:
        with pytest.raises(ValueError, match="bytes"):
            arena[key] = value
        assert arena[:] == model
        value = bytes((seed + 3 * i) % 256 for i in range(length))
    arena[key] = value
    for place, byte in zip(range(SIZE)[key], value):
        model[place] = byte
    assert arena[:] == model


@given(seed=seeds, index=st.integers(-SIZE - 2, SIZE + 1), value=st.integers(-2, 257))
def test_items(arena: Map, seed: int, index: int, value: int) -> None:
    """Reading and storing any item gives the result or the exception of a bytearray."""
    model = filled(arena, seed)
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
    ok = fits(offset, length)
    expect(ok, lambda: arena.persist(offset, length))
    expect(ok, lambda: arena.flush(offset, length))
    expect(ok, lambda: arena.persist_many([(0, 1), (offset, length)]))
    expect(ok, lambda: arena.flush_many(iter([(offset, length), (SIZE, 0)])))
    expect(ok, lambda: arena.view(offset, length).release())
    if not ok:
        expect(ok, lambda: arena.deep_flush(offset, length))
    expect(fits(offset, 0), lambda: arena.persist(offset))
    expect(fits(offset, 0), lambda: arena.flush(offset))


@given(pairs=st.lists(st.tuples(anywhere, anywhere), max_size=20))
def test_many_durable_ranges(arena: Map, pairs: list[tuple[int, int]]) -> None:
    """persist_many and flush_many accept ranges in every form exactly if all of them lie inside the map."""
    ok = all(fits(offset, length) for offset, length in pairs)
    packed = array("Q", [number for pair in pairs for number in pair])
    expect(ok, lambda: arena.persist_many(pairs))
    expect(ok, lambda: arena.flush_many(iter(pairs)))
    expect(ok, lambda: arena.persist_many(packed))
    expect(ok, lambda: arena.flush_many(packed))


@given(seed=seeds, pairs=st.lists(st.tuples(inside, inside), max_size=10))
def test_durability_keeps_bytes(arena: Map, seed: int, pairs: list[tuple[int, int]]) -> None:
    """Durability calls leave the bytes unchanged."""
    model = filled(arena, seed)
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
    pairs = ((2, 4), (8, 16), (2, 32), (8, 32))
    good = 0 <= bits < 64 and not any(bits & one and bits & other for one, other in pairs)
    copies: list[Callable[[int, bytes, int], None]] = [arena.memcpy, arena.memmove]
    for copy in copies:
        model = filled(arena, seed)
        ok = good and fits(offset, len(value))
        expect(ok, lambda: copy(offset, value, bits))  # noqa: B023 # called at once
        if ok:
            model[offset : offset + len(value)] = value
        arena.drain()
        assert arena[:] == model


@given(seed=seeds, offset=numbers, value=st.integers(-3, 258), length=numbers)
def test_memset(arena: Map, seed: int, offset: int, value: int, length: int) -> None:
    """memset fills a valid range with a valid byte, and otherwise raises ValueError."""
    model = filled(arena, seed)
    ok = fits(offset, length) and 0 <= value <= 255
    expect(ok, lambda: arena.memset(offset, value, length))
    if ok:
        model[offset : offset + length] = bytes([value]) * length
    assert arena[:] == model


@given(seed=seeds, source=inside, target=inside, length=inside)
def test_overlapping_moves(arena: Map, seed: int, source: int, target: int, length: int) -> None:
    """memmove from a view of the same map equals a bytearray assignment from a copy."""
    length = min(length, SIZE - source, SIZE - target)
    model = filled(arena, seed)
    with arena.view(source, length) as view:
        arena.memmove(target, view)
    model[target : target + length] = bytes(model[source : source + length])
    assert arena[:] == model


@given(seed=seeds, pieces=st.lists(st.tuples(anywhere, st.binary(max_size=100)), max_size=10))
def test_many_copies(arena: Map, seed: int, pieces: list[tuple[int, bytes]]) -> None:
    """memcpy_many copies all pieces in order, or none if one does not fit."""
    model = filled(arena, seed)
    ok = all(fits(offset, len(piece)) for offset, piece in pieces)
    expect(ok, lambda: arena.memcpy_many(pieces))
    if ok:
        for offset, piece in pieces:
            model[offset : offset + len(piece)] = piece
    assert arena[:] == model


@given(seed=seeds, offset=numbers, value=words, delta=st.integers(-(2**63), 2**64 - 1), persist=st.booleans())
def test_words(arena: Map, seed: int, offset: int, value: int, delta: int, persist: bool) -> None:
    """Atomics on aligned words inside the map behave as integers modulo 2**64."""
    model = filled(arena, seed)
    ok = fits(offset, 8) and offset % 8 == 0
    before = int.from_bytes(model[offset : offset + 8], sys.byteorder) if ok else 0
    expect(ok, lambda: arena.load_u64(offset))
    expect(ok, lambda: arena.store_u64(offset, before, persist))
    expect(ok, lambda: arena.compare_exchange_u64(offset, before, value, persist))
    expect(ok, lambda: arena.fetch_add_u64(offset, delta, persist))
    if ok:
        after = (value + delta) % 2**64
        model[offset : offset + 8] = after.to_bytes(8, sys.byteorder)
        assert arena.load_u64(offset) == after
        assert arena.compare_exchange_u64(offset, (after + 1) % 2**64, 0) == (False, after)
    assert arena[:] == model


# ---- the life of maps


class Opened:
    """A map, the views of it that are alive, and where in the model it lies."""

    def __init__(self, map: Map | None, offset: int, length: int) -> None:
        """Begin without views."""
        self.map = map
        self.offset = offset
        self.length = length
        self.views: list[tuple[memoryview, int]] = []


PAGES = 4
few = st.integers(0, 2**16)
places = st.integers(0, PAGES * PAGE)
small_data = st.binary(max_size=80)


class Lives(RuleBasedStateMachine):
    """Open, map, view, write, flush, close and drop in any order: the bytes and the refusals are the model's."""

    def __init__(self) -> None:
        """Make a file, and the same bytes as the model."""
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "file"
        self.model = bytearray(i % 251 for i in range(PAGES * PAGE))
        self.path.write_bytes(self.model)
        self.sources: list[Source] = []
        self.maps: list[Opened] = []
        self.closed: list[Map] = []

    # which of the open ones

    def chosen(self, number: int) -> tuple[Opened, Map]:
        """Return a map that somebody still holds."""
        held = [opened for opened in self.maps if opened.map is not None]
        opened = held[number % len(held)]
        assert opened.map is not None
        return opened, opened.map

    def held(self) -> bool:
        """Return whether there is a map that somebody still holds."""
        return any(opened.map is not None for opened in self.maps)

    def viewed(self) -> bool:
        """Return whether there is a view."""
        return any(opened.views for opened in self.maps)

    # sources and maps

    @rule()
    def open_source(self) -> None:
        """Make a source."""
        self.sources.append(Source.from_path(self.path))

    @precondition(lambda self: self.sources)
    @rule(number=few)
    def close_source(self, number: int) -> None:
        """Close a source, which its maps do not mind; afterwards it cannot be mapped."""
        source = self.sources.pop(number % len(self.sources))
        source.close()
        with pytest.raises(ValueError, match="closed"):
            source.map()

    @precondition(lambda self: self.sources and len(self.maps) < 20)
    @rule(number=few, first=st.integers(0, PAGES), pages=st.integers(1, PAGES + 1))
    def map_source(self, number: int, first: int, pages: int) -> None:
        """Map a part of a source, if it lies inside."""
        source = self.sources[number % len(self.sources)]
        config = Config(offset=first * PAGE, length=pages * PAGE)
        if first + pages > PAGES:
            with pytest.raises(pmem2.MapRangeError):
                source.map(config)
        else:
            self.maps.append(Opened(source.map(config), first * PAGE, pages * PAGE))

    @precondition(lambda self: len(self.maps) < 20)
    @rule()
    def open_path(self) -> None:
        """Map all of the file at once."""
        self.maps.append(Opened(pmem2.open(self.path), 0, PAGES * PAGE))

    # stores

    @precondition(held)
    @rule(number=few, offset=places, data=small_data, how=st.sampled_from(["slice", "memcpy", "memmove", "pieces"]))
    def store(self, number: int, offset: int, data: bytes, how: str) -> None:
        """Store bytes in one way or another, if they fit."""
        opened, map = self.chosen(number)
        ways: dict[str, Callable[[], None]] = {
            "slice": lambda: map.__setitem__(slice(offset, offset + len(data)), data),
            "memcpy": lambda: map.memcpy(offset, data),
            "memmove": lambda: map.memmove(offset, bytearray(data)),
            "pieces": lambda: map.memcpy_many([(offset, data)]),
        }
        ok = offset + len(data) <= opened.length
        expect(ok or (how == "slice" and not data), ways[how])
        if ok:
            place = opened.offset + offset
            self.model[place : place + len(data)] = data

    @precondition(held)
    @rule(number=few, offset=st.integers(0, PAGES * PAGE // 8), delta=words)
    def add(self, number: int, offset: int, delta: int) -> None:
        """Add to a word."""
        opened, map = self.chosen(number)
        ok = 8 * offset + 8 <= opened.length
        expect(ok, lambda: map.fetch_add_u64(8 * offset, delta, persist=True))
        if ok:
            place = opened.offset + 8 * offset
            sum = int.from_bytes(self.model[place : place + 8], sys.byteorder) + delta
            self.model[place : place + 8] = (sum % 2**64).to_bytes(8, sys.byteorder)

    @precondition(held)
    @rule(number=few, offset=places, length=places)
    def make_durable(self, number: int, offset: int, length: int) -> None:
        """Flush a range, if it lies inside."""
        opened, map = self.chosen(number)
        ok = offset + length <= opened.length
        expect(ok, lambda: map.persist(offset, length))
        expect(ok, lambda: map.flush(offset, length))
        map.drain()

    # views

    @precondition(held)
    @rule(number=few, offset=places, length=places)
    def make_view(self, number: int, offset: int, length: int) -> None:
        """View a range, if it lies inside."""
        opened, map = self.chosen(number)
        if offset + length > opened.length:
            with pytest.raises(ValueError, match="outside"):
                map.view(offset, length)
        else:
            opened.views.append((map.view(offset, length), opened.offset + offset))

    def some_view(self, number: int) -> tuple[Opened, int]:
        """Return a view, by its map and its place there."""
        places = [(opened, place) for opened in self.maps for place in range(len(opened.views))]
        return places[number % len(places)]

    @precondition(viewed)
    @rule(number=few, start=places)
    def slice_view(self, number: int, start: int) -> None:
        """Take a part of a view, which is a view too."""
        opened, place = self.some_view(number)
        view, offset = opened.views[place]
        start = min(start, len(view))
        opened.views.append((view[start:], offset + start))

    @precondition(viewed)
    @rule(number=few, start=places, data=small_data)
    def store_through_view(self, number: int, start: int, data: bytes) -> None:
        """Store bytes through a view, even of a map that nobody holds any more."""
        opened, place = self.some_view(number)
        view, offset = opened.views[place]
        part = view[start : start + len(data)]
        part[:] = data[: len(part)]
        self.model[offset + start : offset + start + len(part)] = data[: len(part)]
        part.release()

    @precondition(viewed)
    @rule(number=few, release=st.booleans())
    def end_view(self, number: int, release: bool) -> None:
        """Release a view, or just drop it; the last one may take its map with it."""
        opened, place = self.some_view(number)
        view, _ = opened.views.pop(place)
        if release:
            view.release()
        del view
        self.maps = [opened for opened in self.maps if opened.map is not None or opened.views]

    # the end of maps

    @precondition(held)
    @rule(number=few, with_statement=st.booleans())
    def close_map(self, number: int, with_statement: bool) -> None:
        """Close a map: refused while there are views of it."""
        opened, map = self.chosen(number)
        if opened.views:
            with pytest.raises(BufferError):
                map.__exit__(None, None, None) if with_statement else map.close()
            assert not map.closed
        else:
            map.__exit__(None, None, None) if with_statement else map.close()
            self.maps.remove(opened)
            self.closed.append(map)

    @precondition(held)
    @rule(number=few)
    def drop_map(self, number: int) -> None:
        """Drop a map that nobody has closed: its views go on."""
        opened, map = self.chosen(number)
        opened.map = None
        del map
        if not opened.views:
            self.maps.remove(opened)

    @precondition(lambda self: self.closed)
    @rule(number=few)
    def use_closed_map(self, number: int) -> None:
        """Use a closed map: refused; closing it again is nothing."""
        map = self.closed[number % len(self.closed)]
        uses: list[Callable[[], object]] = [
            map.view,
            map.persist,
            map.drain,
            lambda: map[0],
            lambda: map.memcpy(0, b""),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="closed"):
                use()
        map.close()
        assert map.closed

    @rule()
    def collect(self) -> None:
        """Collect the garbage."""
        gc.collect()

    # what always holds

    @invariant()
    def bytes_are_those_of_the_model(self) -> None:
        """All maps, all views and the file have the bytes of the model."""
        for opened in self.maps:
            if opened.map is not None:
                assert not opened.map.closed
                assert opened.map[:] == self.model[opened.offset : opened.offset + opened.length]
            for view, offset in opened.views:
                assert view == self.model[offset : offset + len(view)]
        assert self.path.read_bytes() == self.model

    def teardown(self) -> None:
        """Close everything, views first; the file has what was stored."""
        for opened in self.maps:
            for view, _ in opened.views:
                view.release()
            opened.views.clear()
            if opened.map is not None:
                opened.map.close()
        self.maps.clear()
        for source in self.sources:
            source.close()
        assert self.path.read_bytes() == self.model
        self.folder.cleanup()
        if ON_PYPY:  # nothing of what was dropped on purpose is to be warned of in another test
            for _ in range(3):
                gc.collect()


TestLives = pytest.mark.filterwarnings("ignore:unclosed <pmem2.Map:ResourceWarning")(Lives.TestCase)
TestLives.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=30)
