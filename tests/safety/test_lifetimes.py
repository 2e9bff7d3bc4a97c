# SPDX-License-Identifier: BSD-3-Clause
"""Try to crash it: every order of closing, dropping and collecting; nothing may be touched that is gone."""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import mmap
import os
import pickle
import sys
import textwrap
import warnings
import weakref
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Protocol, Union

import pytest

import pmem2

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy
    from support.children import RunChild
else:
    try:
        import numpy
    except ImportError:
        numpy = None

PYPY = sys.implementation.name == "pypy"
MIB = 1024 * 1024
needs_numpy = pytest.mark.skipif(numpy is None, reason="NumPy is not installed")
Handle = Union[pmem2.Source, pmem2.Map, pmem2.VMReservation, pmem2.BadBlockContext]
ORDERS = list(itertools.permutations(("source", "map", "view", "reservation")))


class Survives(Protocol):
    """Run code in a child."""

    def __call__(self, code: str, *arguments: str) -> list[str]:
        """Return the lines that the child printed; it must end well and say nothing else."""


PRELUDE = """
import gc, os, signal, sys, threading, warnings, weakref
import pmem2
signal.alarm(150)
warnings.simplefilter("ignore", ResourceWarning)
path = sys.argv[1]
def collect():
    for _ in range(5):
        gc.collect()
def mapped():
    with open("/proc/self/maps") as maps:
        return maps.read().count(path)
"""


@pytest.fixture
def survives(run_child: RunChild, file: Path) -> Survives:
    """Run code that tries to crash the process."""

    def run(code: str, *arguments: str) -> list[str]:
        child = run_child(PRELUDE + textwrap.dedent(code), str(file), *arguments)
        assert (child.returncode, child.stderr) == (0, "")
        return child.stdout.splitlines()

    return run


@pytest.fixture
def reservation() -> Iterator[pmem2.VMReservation]:
    """A reservation of 4 MiB."""
    with pmem2.VMReservation(4 * MIB) as reserved:
        yield reserved


def collect() -> None:
    """Collect garbage until nothing is left: PyPy needs one round for each finalizer that waits for another."""
    for _ in range(5):
        gc.collect()


def mappings(path: Path) -> int:
    """Return how many mappings of a file this process has."""
    return Path("/proc/self/maps").read_text().count(str(path))


def descriptors() -> list[str]:
    """Return the descriptors of this process, but not those that reading them opens."""
    return sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))


# ---- what belongs to a Source


@pytest.mark.memcheck
def test_map_outlives_its_source_and_config(file: Path) -> None:
    """A map goes on working when its descriptor, its source and its config are gone."""
    fd = os.open(file, os.O_RDWR)
    source = pmem2.Source.from_fd(fd)
    config = pmem2.Config(length=4096)
    map = source.map(config)
    os.close(fd)
    source.close()
    del source, config
    collect()
    map.memcpy(0, b"still here")
    map.deep_flush()
    map.close()
    assert file.read_bytes()[:10] == b"still here"


@pytest.mark.memcheck
def test_source_has_a_descriptor_of_its_own(file: Path) -> None:
    """Closing the caller's descriptor changes nothing, closing the source does not close it, no child inherits."""
    fd = os.open(file, os.O_RDWR)
    with pmem2.Source.from_fd(fd) as source:
        own = source.fd
        assert own != fd
        assert own > 2
        assert not os.get_inheritable(own)
        assert os.path.sameopenfile(own, fd)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(own)
    os.fstat(fd)
    os.close(fd)


def test_source_of_a_descriptor_that_is_closed_and_reused(file: Path, tmp_path: Path) -> None:
    """When the caller's number comes to mean another file, the source does not."""
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with open(file, "r+b") as opened:
        number = opened.fileno()
        source = pmem2.Source.from_fd(opened)
    fd = os.open(other, os.O_RDWR)
    assert fd == number
    with source:
        assert source.size == file.stat().st_size
        with source.map(pmem2.Config(length=4096)) as map:
            map.memcpy(0, b"mapped")
    os.close(fd)
    assert (other.read_bytes(), file.read_bytes()[:6]) == (b"other", b"mapped")


def test_children_do_not_inherit_a_source(source: pmem2.Source, run_child: RunChild, file: Path) -> None:
    """A program that is started while a source is open has no descriptor of its file."""
    with source.bad_blocks():
        code = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')[:-1]])"
        child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert str(file) not in child.stdout


@pytest.mark.memcheck
def test_bad_blocks_outlive_their_source(file: Path) -> None:
    """A bad-block context has its own descriptor: its source may be closed and collected."""
    source = pmem2.Source.from_path(file)
    context = source.bad_blocks()
    source.close()
    del source
    collect()
    assert list(context) == []
    context.close()


def test_bad_blocks_give_their_descriptor_back(source: pmem2.Source) -> None:
    """A closed context, and one that was dropped, leave no descriptor behind."""
    before = descriptors()
    with source.bad_blocks():
        assert len(descriptors()) == len(before) + 1
    assert descriptors() == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        source.bad_blocks()
        collect()
    assert descriptors() == before


def test_source_that_fails_leaves_no_descriptor(tmp_path: Path) -> None:
    """A source that cannot be made, or cannot be mapped, leaves nothing behind."""
    empty = tmp_path / "empty"
    empty.touch()
    before = descriptors()
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(pmem2.InvalidFileTypeError):
            pmem2.Source.from_path(path)
    with pmem2.Source.from_path(empty) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map()
    with pytest.raises(pmem2.SourceEmptyError):
        pmem2.open(empty)
    collect()
    assert descriptors() == before


# ---- what was dropped


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_dropped_map_is_unmapped(file: Path) -> None:
    """A Map that is merely dropped is unmapped when it is collected, and the descriptor of a Source closed."""
    before = descriptors()
    source = pmem2.Source.from_path(file)
    map = source.map()
    assert mappings(file) == 1
    del map
    collect()
    assert mappings(file) == 0
    assert len(descriptors()) == len(before) + 1
    del source
    collect()
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_dropped_map_with_a_view(source: pmem2.Source, file: Path) -> None:
    """A view keeps its Map alive; when the last slice of it is dropped, all is unmapped."""
    map = source.map()
    reference = weakref.ref(map)
    view = map.view()
    part = view[8:16]
    words = part.cast("Q")
    del map, view, part
    collect()
    assert reference() is not None
    words[0] = 0x0102030405060708
    assert source.pread_mcsafe(8, 8) == words.tobytes()
    del words
    collect()
    assert reference() is None
    assert mappings(file) == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("order", ORDERS)
def test_dropped_in_any_order(file: Path, order: tuple[str, ...]) -> None:
    """Source, Map, view and reservation may be dropped in any order; in the end nothing is left."""
    before = descriptors()
    source = pmem2.Source.from_path(file)
    reservation = pmem2.VMReservation(32 * MIB)
    map = source.map(pmem2.Config(reservation=reservation))
    things: dict[str, object] = {"source": source, "map": map, "reservation": reservation, "view": map.view(0, 8)}
    del source, map, reservation
    for name in order:
        del things[name]
        collect()
        view = things.get("view")
        if isinstance(view, memoryview):
            view[0] = 1
        del view
    assert mappings(file) == 0
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("order", ORDERS)
def test_closed_in_any_order(file: Path, order: tuple[str, ...]) -> None:
    """Whatever is closed first: what others still use refuses, and everything closes when its turn has come."""
    source = pmem2.Source.from_path(file)
    reservation = pmem2.VMReservation(32 * MIB)
    map = source.map(pmem2.Config(reservation=reservation))
    view = map.view()
    part = view[:8]
    closes: dict[str, Callable[[], None]] = {
        "source": source.close,
        "map": map.close,
        "reservation": reservation.close,
        "view": lambda: [memory.release() for memory in (part, view)].clear(),  # type: ignore[func-returns-value]
    }
    closed: set[str] = set()
    for name in order:
        if name == "map" and "view" not in closed:
            with pytest.raises(BufferError):
                closes[name]()
        elif name == "reservation" and "map" not in closed:
            with pytest.raises(pmem2.VmReservationNotEmptyError):
                closes[name]()
        else:
            closes[name]()
            closed.add(name)
        if "view" not in closed:
            part[0] = 2
            assert map[0] == 2
        collect()
    for name in ("view", "map", "reservation"):
        closes[name]()
    assert source.closed
    assert map.closed
    assert reservation.closed
    assert mappings(file) == 0


def test_map_of_existing_memory_that_is_initialised_again(source: pmem2.Source) -> None:
    """That is refused, and nothing has changed: the memory would go before the map."""
    buffer = mmap.mmap(-1, 4096)
    map = pmem2.Map.from_existing(source, buffer, pmem2.Granularity.PAGE)
    del buffer
    with pytest.raises(ValueError, match="is made already; make another Map"):
        map.__init__(source)
    collect()
    map[0] = 42
    assert (map[0], map.size) == (42, 4096)
    map.close()


class Liar(bytes):
    """Bytes that say nothing true of themselves."""

    @property  # type: ignore[misc] # read-only, and object's is not
    def __class__(self) -> type[bytes]:  # type: ignore[override]
        """Say that it is no subclass."""
        return bytes

    def __len__(self) -> int:
        """Say that it is longer than the process has memory."""
        return 1 << 40


def test_bytes_that_lie(map: pmem2.Map) -> None:
    """What is copied is what the buffer has, whatever its class and its length say."""
    for copied in (map.memcpy, map.memmove):
        map.memset(0, 0, 8)
        copied(0, Liar(b"x"))
        assert map[0:8] == b"x" + bytes(7)
    map.memcpy_many([(8, Liar(b"y"))])
    assert map[8:16] == b"y" + bytes(7)
    map[16:17] = Liar(b"z")
    assert map[16:24] == b"z" + bytes(7)


def test_failed_close_can_be_tried_again(map: pmem2.Map, file: Path) -> None:
    """A close that was refused changes nothing, and succeeds once the views are gone."""
    view = map.view(0, 8)
    for _ in range(3):
        with pytest.raises(BufferError, match="views"):
            map.close()
        assert not map.closed
        map.memset(0, 7, 8)
    assert view[7] == 7
    view.release()
    map.close()
    assert map.closed
    assert mappings(file) == 0


def test_with_keeps_a_viewed_map_open(source: pmem2.Source) -> None:
    """Leaving `with` while a view is alive raises BufferError, and the map stays open."""
    map = source.map()
    with pytest.raises(BufferError, match="views"), map:
        view = map.view()
    assert not map.closed
    view[0] = 1
    with map:
        view.release()
    assert map.closed


def test_with_of_a_failing_block(source: pmem2.Source) -> None:
    """When the block fails the map is closed all the same, and the failure is seen."""
    with pytest.raises(KeyError, match="mine"), source.map() as map:
        raise KeyError("mine")
    assert map.closed


def test_view_held_by_a_traceback(source: pmem2.Source) -> None:
    """A view that only a traceback still holds keeps the map open until the exception is gone."""

    def fail(map: pmem2.Map) -> None:
        view = map.view()
        raise RuntimeError(view.nbytes)

    map = source.map()
    with pytest.raises(RuntimeError) as caught:
        fail(map)
    with pytest.raises(BufferError):
        map.close()
    del caught
    map.close()
    assert map.closed


@pytest.mark.parametrize("kind", ["slice", "cast", "toreadonly", "memoryview", "ctypes", "backwards"])
@pytest.mark.memcheck
def test_everything_made_of_a_view_counts(source: pmem2.Source, kind: str) -> None:
    """Whatever was made of a view keeps the map open when the view itself is released."""
    make: dict[str, Callable[[memoryview], object]] = {
        "slice": lambda view: view[1:5],
        "cast": lambda view: view.cast("I"),
        "toreadonly": memoryview.toreadonly,
        "memoryview": memoryview,
        "ctypes": (ctypes.c_uint8 * 8).from_buffer,
        "backwards": lambda view: view[::-1],
    }
    map = source.map()
    view = map.view(0, 8)
    made = make[kind](view)
    if kind != "ctypes":
        view.release()
    del view
    collect()
    with pytest.raises(BufferError, match="views"):
        map.close()
    del made
    collect()
    map.close()
    assert map.closed


@needs_numpy
def test_arrays_count_as_views(source: pmem2.Source, file: Path) -> None:
    """An array and what was made of it keep the map open; a copy does not."""
    map = source.map()
    array = map.as_array("u8", (4, 4))
    part = array[1:, ::2].T
    taken = part.copy()
    del array
    with pytest.raises(BufferError):
        map.close()
    part[0, 0] = 7
    assert map.load_u64(32) == 7
    del part
    map.close()
    assert taken.shape == (2, 3)
    assert mappings(file) == 0


@needs_numpy
def test_array_outlives_its_map_object(source: pmem2.Source, file: Path) -> None:
    """An array is enough to keep the memory."""
    array = source.map().as_array("u1", 16)
    collect()
    array[3] = 9
    assert source.pread_mcsafe(4) == b"\0\0\0\x09"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del array
        collect()
    assert mappings(file) == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688 is in Python 3.12 and later")
def test_memoryview_of_a_map(source: pmem2.Source) -> None:
    """memoryview(map) is a view as any other."""
    map = source.map()
    view = memoryview(map)  # type: ignore[arg-type,unused-ignore] # in the types from 3.12 only
    with pytest.raises(BufferError):
        map.close()
    view[0] = 3
    assert map[0] == 3
    view.release()
    map.close()


# ---- garbage cycles


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("first", ["list", "map"])
@pytest.mark.parametrize("viewed", [False, True])
def test_map_in_a_garbage_cycle(source: pmem2.Source, file: Path, first: str, viewed: bool) -> None:
    """A Map in a cycle, with and without views, is unmapped when the cycle is collected, whichever is older."""

    def garbage() -> None:
        cycle: list[object] = []
        map = source.map()
        if first == "map":
            cycle = []
        cycle.append(map)
        if viewed:
            cycle.append(map.view()[8:16].cast("Q"))
        cycle.append(cycle)

    garbage()
    assert mappings(file) == 1
    collect()
    assert mappings(file) == 0


def test_close_collects_garbage_views(source: pmem2.Source) -> None:
    """A view that is only in a garbage cycle does not keep the map from being closed."""
    map = source.map()
    cycle: list[object] = [map.view()]
    cycle.append(cycle)
    del cycle
    map.close()
    assert map.closed


def test_close_after_a_view_in_an_object_with_a_finalizer(source: pmem2.Source) -> None:
    """A dead view does not keep the map open, not even on PyPy where its dead owner is finalized before it."""

    class Owner:
        def __init__(self, view: memoryview) -> None:
            self.view = view

        def __del__(self) -> None:
            self.view[0] = 5

    map = source.map()
    owner = Owner(map.view())
    del owner
    map.close()
    assert map.closed
    assert source.pread_mcsafe(1) == b"\x05"


EVIL = """
class Evil:
    view = None

    def __del__(self):
        try:
            self.map.close()
            print("closed")
        except BufferError:
            print("BufferError")
        try:
            self.map.persist(0, 8)
        except ValueError:
            print("ValueError")
        if self.view is not None:
            self.view[0] += 1

def evil_first():
    e = Evil(); e.e = e; e.map = source.map(); e.view = e.map.view()

def map_first():
    m = source.map(); e = Evil(); e.e = e; e.map = m; e.view = m.view()

def view_first():
    m = source.map(); v = m.view(); e = Evil(); e.e = e; e.map = m; e.view = v

def slice_only():
    m = source.map(); v = m.view()[8:16].cast("Q"); e = Evil(); e.e = e; e.map = m; e.view = v

def two():
    m = source.map(); v = m.view(); e, f = Evil(), Evil(); e.map = f.map = m; e.view = f.view = v; e.f = f; f.e = e

def without_a_view():
    m = source.map(); e = Evil(); e.e = e; e.map = m

def reserved():
    r = pmem2.VMReservation(32 << 20); m = source.map(pmem2.Config(reservation=r))
    v = m.view(); e = Evil(); e.e = e; e.map = m; e.view = v; e.r = r

class Memory(bytearray):
    pass

def existing():
    b = Memory(8192); m = pmem2.Map.from_existing(source, b, 2); e = Evil(); e.map = m; e.view = m.view(); b.e = e

def existing_evil_first():
    e = Evil(); b = Memory(8192); b.e = e; m = pmem2.Map.from_existing(source, b, 2); e.map = m; e.view = m.view()

def array():
    import numpy
    m = source.map(); a = m.as_array("u1"); e = Evil(); e.e = e; e.map = m; e.view = a

gc.disable()
with pmem2.Source.from_path(path) as source:
    globals()[sys.argv[2]]()
    collect()
    print(mapped())
"""
SHAPES = [
    "evil_first",
    "map_first",
    "view_first",
    "slice_only",
    "two",
    "without_a_view",
    "reserved",
    "existing",
    "existing_evil_first",
    pytest.param("array", marks=needs_numpy),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_finalizer_in_a_cycle_that_closes_and_touches(survives: Survives, shape: str) -> None:
    """A finalizer in a garbage cycle that closes a map and then uses a view of it finds memory, never a crash."""
    said = survives(EVIL, shape)
    said.remove("0")  # mappings left
    assert set(said) <= ({"closed", "ValueError"} if shape == "without_a_view" else {"BufferError"})
    assert said or shape.startswith("existing")  # a cycle through the memory itself may stay until the end


RISEN = """
kept = []

class Riser:
    def __del__(self):
        kept.append(self)

def make():
    things = [pmem2.Source.from_path(path), pmem2.VMReservation(32 << 20)]
    things.append(things[0].map(pmem2.Config(reservation=things[1])))
    things.append(things[0].bad_blocks())
    things.append(things[2].view())
    riser = Riser()
    riser.things, riser.riser = things, riser

gc.disable()
make()
collect()
source, reservation, map, context, view = kept[0].things
view[0] = 1
map[1] = 2
map.persist(0, 8)
print(source.pread_mcsafe(2), reservation.first() is map, list(context))
print(map.closed, source.closed, reservation.closed, context.closed)
try:
    map.close()
except BufferError:
    view.release()
map.close()
for thing in (source, reservation, context):
    thing.close()
print(mapped())
"""


def test_objects_that_a_finalizer_brings_back(survives: Survives) -> None:
    """What a finalizer saves from a garbage cycle works as before: nothing has been freed under it."""
    assert survives(RISEN) == ["b'\\x01\\x02' True []", "False False False False", "0"]


# ---- buffers that are lent for one call


def test_buffers_are_given_back(source: pmem2.Source, map: pmem2.Map) -> None:
    """A buffer is not exported any more when the call returns, or has refused it: it can be resized."""
    memory, ranges = bytearray(64), array("Q", [0, 64])
    map.memcpy(0, memory)
    map.memmove(0, memory)
    map.memcpy_many([(0, memory)])
    map[0:64] = memory
    source.pwrite_mcsafe(memory)
    source.pread_mcsafe_into(memory)
    with pytest.raises(ValueError, match="outside"):
        map.memcpy(len(map), memory)
    memory.append(0)
    map.persist_many(ranges)
    map.flush_many(ranges)
    ranges.append(0)
    with pytest.raises(ValueError, match="pairs"):
        map.persist_many(ranges)
    ranges.append(0)


# ---- existing memory


@pytest.mark.memcheck
def test_existing_memory_is_kept(source: pmem2.Source) -> None:
    """A Map of existing memory keeps the buffer alive and exported until it is closed."""
    memory = bytearray(8192)
    map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
    if not PYPY:  # there a bytearray can be resized at any time
        with pytest.raises(BufferError):
            memory.append(0)
    map.memcpy(0, b"existing")
    assert memory[:8] == b"existing"
    map.close()
    memory.append(0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_existing_memory_that_is_dropped(source: pmem2.Source) -> None:
    """A dropped Map of existing memory lets go of it, and the same memory can be mapped again."""
    memory = mmap.mmap(-1, 8192)
    for _ in range(3):
        map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
        with pytest.raises(pmem2.MapExistsError):
            pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
        map[0] = 1
        del map
        collect()
    memory.close()


def test_existing_memory_stays_for_its_views(source: pmem2.Source) -> None:
    """A view of a Map of existing memory keeps both, when everything else is dropped."""

    def view_of() -> memoryview:
        return pmem2.Map.from_existing(source, bytearray(b"kept".ljust(64)), pmem2.Granularity.BYTE).view()

    view = view_of()
    collect()
    filler = [bytearray(64) for _ in range(1000)]
    assert bytes(view[:4]) == b"kept"
    assert len(filler) == 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del view
        collect()


# ---- reservations


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_reservation_closes_over_dropped_maps(source: pmem2.Source) -> None:
    """Maps that were dropped, not closed, do not keep a reservation from being closed."""
    reservation = pmem2.VMReservation(4 * MIB)
    for offset in (0, MIB):
        source.map(pmem2.Config(reservation=reservation, reservation_offset=offset, length=4096))
    reservation.close()
    assert reservation.closed


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_reservation_lives_as_long_as_its_maps(source: pmem2.Source) -> None:
    """The addresses of a dropped reservation are kept until its last map is gone."""
    reservation = pmem2.VMReservation(4 * MIB)
    address = reservation.address
    map = source.map(pmem2.Config(reservation=reservation, reservation_offset=MIB, length=4096))
    del reservation
    collect()
    map[0] = 1
    assert map.address == address + MIB
    assert f"{address:x}-" in Path("/proc/self/maps").read_text()
    map.close()
    del map
    collect()


@pytest.mark.memcheck
def test_refused_granularity_leaves_the_place_free(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """After a map in a reservation was refused, the next attempt finds the place free, on PyPy too."""
    config = pmem2.Config(reservation=reservation, length=4096, required_granularity=pmem2.Granularity.BYTE)
    with pytest.raises(pmem2.GranularityNotSupportedError):
        source.map(config)
    with source.map(pmem2.Config(reservation=reservation, length=4096)) as map:
        assert reservation.first() is map
        assert list(reservation) == [map]


def test_find_returns_no_map_that_is_gone(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """A closed map is not found any more, and neither is one that was dropped."""
    config = pmem2.Config(reservation=reservation, length=4096)
    with source.map(config) as map:
        assert reservation.find(0, 1) is map
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.find(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        source.map(config)
        collect()
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.first()
    assert list(reservation) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_find_returns_no_map_that_is_dying(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """In a finalizer of a cycle the map still lies in the reservation, but Python may have let go of it already."""
    found: list[bool] = []

    class Searcher:
        def __init__(self, map: pmem2.Map) -> None:
            self.itself, self.map = self, map

        def __del__(self) -> None:
            try:
                found.append(reservation.first() is self.map)
            except pmem2.MappingNotFoundError:
                found.append(True)

    Searcher(source.map(pmem2.Config(reservation=reservation, length=4096)))
    collect()
    assert found == [True]


# ---- every public method of a closed object

SOURCE: dict[str, Callable[[pmem2.Source], object]] = {
    "fd": lambda s: s.fd,
    "handle": lambda s: s.handle,
    "size": lambda s: s.size,
    "alignment": lambda s: s.alignment,
    "device_id": lambda s: s.device_id,
    "device_usc": lambda s: s.device_usc,
    "numa_node": lambda s: s.numa_node,
    "pread_mcsafe": lambda s: s.pread_mcsafe(1),
    "pread_mcsafe_into": lambda s: s.pread_mcsafe_into(bytearray(1)),
    "pwrite_mcsafe": lambda s: s.pwrite_mcsafe(b"x"),
    "bad_blocks": lambda s: s.bad_blocks(),
    "map": lambda s: s.map(),
    "from_existing": lambda s: pmem2.Map.from_existing(s, bytearray(64), pmem2.Granularity.BYTE),
    "__enter__": lambda s: s.__enter__(),
}
MAP: dict[str, Callable[[pmem2.Map], object]] = {
    "address": lambda m: m.address,
    "size": lambda m: m.size,
    "__len__": len,
    "__getitem__": lambda m: m[0],
    "slice": lambda m: m[0:8],
    "empty slice": lambda m: m[0:0],
    "stepped slice": lambda m: m[0:8:2],
    "index outside": lambda m: m[2**40],
    "iteration": lambda m: list(m),  # type: ignore[call-overload]
    "__setitem__": lambda m: m.__setitem__(0, 1),
    "slice assignment": lambda m: m.__setitem__(slice(0, 2), b"xx"),
    "empty slice assignment": lambda m: m.__setitem__(slice(0, 0), b""),
    "stepped slice assignment": lambda m: m.__setitem__(slice(0, 4, 2), b"xx"),
    "slice of another length": lambda m: m.__setitem__(slice(0, 2), b"x"),
    "view": lambda m: m.view(),
    "persist": lambda m: m.persist(),
    "persist range": lambda m: m.persist(0, 8),
    "flush": lambda m: m.flush(),
    "flush range": lambda m: m.flush(0, 8),
    "drain": lambda m: m.drain(),
    "deep_flush": lambda m: m.deep_flush(),
    "persist_many": lambda m: m.persist_many([(0, 8)]),
    "flush_many": lambda m: m.flush_many([(0, 8)]),
    "persist_many of nothing": lambda m: m.persist_many([]),
    "memcpy": lambda m: m.memcpy(0, b"x"),
    "memcpy of nothing": lambda m: m.memcpy(0, b""),
    "memcpy of itself": lambda m: m.memcpy(0, m),
    "memmove": lambda m: m.memmove(0, bytearray(8)),
    "memset": lambda m: m.memset(0, 0, 1),
    "memcpy_many": lambda m: m.memcpy_many([(0, b"x")]),
    "memcpy_many of nothing": lambda m: m.memcpy_many([]),
    "load_u64": lambda m: m.load_u64(0),
    "store_u64": lambda m: m.store_u64(0, 1),
    "store_u64 persist": lambda m: m.store_u64(0, 1, persist=True),
    "compare_exchange_u64": lambda m: m.compare_exchange_u64(0, 0, 1),
    "fetch_add_u64": lambda m: m.fetch_add_u64(0, 1),
    "__enter__": lambda m: m.__enter__(),
}
RESERVATION: dict[str, Callable[[pmem2.VMReservation], object]] = {
    "address": lambda r: r.address,
    "size": lambda r: r.size,
    "extend": lambda r: r.extend(4096),
    "shrink": lambda r: r.shrink(0, 4096),
    "find": lambda r: r.find(0, 1),
    "first": lambda r: r.first(),
    "last": lambda r: r.last(),
    "__iter__": iter,
    "Config": lambda r: pmem2.Config(reservation=r),
    "__enter__": lambda r: r.__enter__(),
}
BAD_BLOCKS: dict[str, Callable[[pmem2.BadBlockContext], object]] = {
    "__next__": next,
    "list": list,
    "clear": lambda b: b.clear(pmem2.BadBlock(0, 4096)),
    "__enter__": lambda b: b.__enter__(),
}


@pytest.mark.parametrize("name", SOURCE)
@pytest.mark.memcheck
def test_closed_source(file: Path, name: str) -> None:
    """Everything that is done with a closed Source raises ValueError."""
    source = pmem2.Source.from_path(file)
    source.close()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        SOURCE[name](source)
    assert source.closed
    assert "closed" in repr(source)


@pytest.mark.parametrize("name", MAP)
def test_closed_map(source: pmem2.Source, name: str) -> None:
    """Everything that is done with a closed Map raises ValueError, but reading what it was."""
    map = source.map()
    map.close()
    map.close()
    with pytest.raises(ValueError, match="closed"):
        MAP[name](map)
    assert map.closed
    assert "closed" in repr(map)
    assert map.granularity is pmem2.Granularity.PAGE
    assert map.protection == pmem2.Protection.READ | pmem2.Protection.WRITE
    assert map.sharing is pmem2.Sharing.SHARED
    assert map.config == pmem2.Config()


@needs_numpy
def test_closed_map_gives_no_array(source: pmem2.Source) -> None:
    """A closed Map makes no array."""
    map = source.map()
    map.close()
    for shape in (None, 8, (2, 2)):
        with pytest.raises(ValueError, match="closed"):
            map.as_array("u1", shape)


@pytest.mark.parametrize("name", RESERVATION)
def test_closed_reservation(name: str) -> None:
    """Everything that is done with a closed VMReservation raises ValueError."""
    reservation = pmem2.VMReservation(MIB)
    reservation.close()
    reservation.close()
    with pytest.raises(ValueError, match="closed"):
        RESERVATION[name](reservation)
    assert reservation.closed
    assert "closed" in repr(reservation)


def test_closed_map_among_neighbours(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """A closed map has no neighbours in its reservation, and a closed reservation tells none."""
    map = source.map(pmem2.Config(reservation=reservation, length=4096))
    map.close()
    other = pmem2.VMReservation(MIB)
    other.close()
    for look in (reservation.next, reservation.prev, other.next, other.prev):
        with pytest.raises(ValueError, match="closed"):
            look(map)


@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_closed_bad_blocks(source: pmem2.Source, name: str) -> None:
    """Everything that is done with a closed BadBlockContext raises ValueError."""
    context = source.bad_blocks()
    context.close()
    context.close()
    with pytest.raises(ValueError, match="closed"):
        BAD_BLOCKS[name](context)
    assert context.closed
    assert "closed" in repr(context)


MEMBERS = {
    pmem2.Source: set(SOURCE),
    pmem2.Map: set(MAP) | {"as_array", "granularity", "protection", "sharing", "config", "from_existing"},
    pmem2.VMReservation: set(RESERVATION) | {"next", "prev"},
    pmem2.BadBlockContext: set(BAD_BLOCKS),
}


@pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.__name__)
def test_every_public_member_is_tried(kind: type[Handle]) -> None:
    """No public method or property of a class is missing above."""
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert public - MEMBERS[kind] - {"close", "closed", "from_fd", "from_path", "from_anon", "from_handle"} == set()


# ---- warnings, copies, the end of the process


def dropped_source(source: pmem2.Source) -> None:
    """Drop a Source that is open."""
    pmem2.Source.from_fd(source.fd)


def dropped_map(source: pmem2.Source) -> None:
    """Drop a Map that is open."""
    source.map()


def dropped_existing(source: pmem2.Source) -> None:
    """Drop a Map of existing memory that is open."""
    pmem2.Map.from_existing(source, bytearray(64), pmem2.Granularity.BYTE)


def dropped_reservation(source: pmem2.Source) -> None:
    """Drop a VMReservation that is open."""
    pmem2.VMReservation(4096)


def dropped_bad_blocks(source: pmem2.Source) -> None:
    """Drop a BadBlockContext that is open."""
    source.bad_blocks()


DROPPED = [dropped_source, dropped_map, dropped_existing, dropped_reservation, dropped_bad_blocks]


@pytest.mark.parametrize("drop", DROPPED)
@pytest.mark.memcheck
def test_dropping_what_is_open_warns(source: pmem2.Source, drop: Callable[[pmem2.Source], None]) -> None:
    """An object that is collected open raises a ResourceWarning, once, that says what it is."""

    def dropped() -> None:
        drop(source)
        collect()

    with pytest.warns(ResourceWarning, match="unclosed <pmem2") as caught:
        dropped()
    assert len(caught) == 1


def test_dropping_what_is_closed_does_not_warn(source: pmem2.Source) -> None:
    """An object that was closed, or never came to be, is collected in silence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for handle in (source.map(), pmem2.VMReservation(4096), source.bad_blocks(), pmem2.Source.from_anon(4096)):
            handle.close()
        del handle
        for fail in (lambda: source.map(pmem2.Config(offset=1)), lambda: pmem2.Source.from_fd(-1)):
            with pytest.raises(pmem2.Pmem2Error):
                fail()
        with pytest.raises(pmem2.LengthUnalignedError):
            pmem2.VMReservation(1)
        with pytest.raises(ValueError, match="empty"):
            pmem2.Map.from_existing(source, b"", pmem2.Granularity.PAGE)
        with pmem2.Source.from_anon(4096) as anonymous, pytest.raises(pmem2.NosuppError):
            anonymous.bad_blocks()
        collect()
    assert [str(warning.message) for warning in caught] == []


PICKLERS: list[Callable[[object], object]] = [pickle.dumps, copy.copy, copy.deepcopy]


@pytest.mark.parametrize("duplicate", PICKLERS)
def test_handles_are_not_copied(
    source: pmem2.Source, map: pmem2.Map, reservation: pmem2.VMReservation, duplicate: Callable[[object], object]
) -> None:
    """A second owner of the same C object cannot be made: TypeError, with advice."""
    with source.bad_blocks() as context:
        for handle in (source, map, reservation, context):
            with pytest.raises(TypeError, match="open it again"):
                duplicate(handle)
    with pytest.raises(TypeError):
        duplicate(map.view())


def test_config_is_copied_as_any_value() -> None:
    """A Config without a reservation is a plain value."""
    config = pmem2.Config(offset=4096, length=8192, sharing=pmem2.Sharing.PRIVATE)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_classes_have_no_back_door() -> None:
    """Source and BadBlockContext are not made by calling the class."""
    for kind in (pmem2.Source, pmem2.BadBlockContext):
        with pytest.raises(TypeError, match="make a"):
            kind()


def test_what_is_initialised_twice(source: pmem2.Source, reservation: pmem2.VMReservation, file: Path) -> None:
    """That is refused, open or closed, and everything is what it was."""
    config = pmem2.Config(reservation=reservation, length=MIB)
    private = pmem2.Config(sharing=pmem2.Sharing.PRIVATE, length=4096)
    with source.map(config) as map:
        for again in (config, private):
            with pytest.raises(ValueError, match="is made already; make another Map"):
                map.__init__(source, again)
        assert (map.config, map.sharing, len(map)) == (config, pmem2.Sharing.SHARED, MIB)
        before = reservation.address
        with pytest.raises(ValueError, match="is made already; make another VMReservation"):
            reservation.__init__(4096)
        assert (list(reservation), reservation.first(), reservation.address) == ([map], map, before)
        assert mappings(file) == 1
    with pytest.raises(ValueError, match="is made already; make another Map"):
        map.__init__(source)
    assert map.closed
    assert mappings(file) == 0


def test_what_was_not_made_can_be_made_later(source: pmem2.Source) -> None:
    """An `__init__` that has raised has done nothing."""
    map = pmem2.Map.__new__(pmem2.Map)
    with pytest.raises(pmem2.MapRangeError):
        map.__init__(source, pmem2.Config(length=source.size + 4096))
    map.__init__(source)
    assert len(map) == source.size
    map.close()
    reservation = pmem2.VMReservation.__new__(pmem2.VMReservation)
    with pytest.raises(pmem2.LengthUnalignedError):
        reservation.__init__(1)
    reservation.__init__(4096)
    assert reservation.size == 4096
    reservation.close()


def test_fields_are_not_set_from_outside(
    source: pmem2.Source, map: pmem2.Map, reservation: pmem2.VMReservation
) -> None:
    """No method sets all fields of a handle: what they hold is in use."""
    with source.bad_blocks() as context:
        for handle in (source, map, reservation, context):
            for name in ("__attrs_init__", "__setstate__"):
                assert not hasattr(handle, name)


def test_pieces_out_of_one_map(source: pmem2.Source, map: pmem2.Map) -> None:
    """However many pieces are of one map: it is kept open once, and its views stay good."""
    with source.map(pmem2.Config(length=4096)) as other:
        view = other.view()
        view[:] = b"x" * 4096
        map.memcpy_many([(0, other)] * ((1 << 20) + 5))
        with pytest.raises(BufferError, match="alive"):
            other.close()
        assert view[0] == map[4095] == ord("x")
        view.release()


CROWD = """
import os, pmem2
from _pmem2 import ffi, lib
source = pmem2.Source.from_anon(4096)
map = source.map()
view = map.view()
pin = ffi.new("struct guarded_pin *")
entered = 0
while lib.guarded_pin_operation(pin, map._handle, 0, 0, 0) == 0:
    entered += 1
for act in (lambda: map[0], lambda: map[0:1], lambda: map.persist(0, 1), map.close):
    try:
        act()
    except BufferError as error:
        print(str(error).split(": ")[1])
print(entered == (1 << 20) - 1, view[0], map.view()[0], flush=True)
os._exit(0)
"""


def test_more_operations_than_can_be_counted(run_child: RunChild) -> None:
    """Once there are as many at once as a gate can count, the next is refused."""
    child = run_child(CROWD)
    crowded = "too many views or operations of it are alive at once\n"
    assert child.stdout == 3 * crowded + "views or arrays of it are alive; release or delete them first\nTrue 0 0\n"


OPEN = """
import pmem2, sys
path = sys.argv[1]
source = pmem2.Source.from_path(path)
reservation = pmem2.VMReservation(32 << 20)
map = source.map(pmem2.Config(reservation=reservation))
other = source.map()
existing = pmem2.Map.from_existing(source, bytearray(4096), 2)
context = source.bad_blocks()
view = map.view()
part = view[1:5]
class Last:
    def __del__(self):
        self.view[0] = 1
        self.map.persist(0, 1)
last = Last()
last.view, last.map = other.view(), other
cycle = [map, view, source]
cycle.append(cycle)
"""
ENDS = ["", "raise SystemExit(0)", "del source", "del map, reservation", "import threading; part.release()"]


@pytest.mark.parametrize("end", ENDS)
def test_exit_with_everything_open(run_child: RunChild, file: Path, end: str) -> None:
    """An interpreter that ends with everything open ends well, and says nothing."""
    child = run_child(OPEN + end, str(file), PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


INTERPRETERS = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters
    create = lambda: _interpreters.create("legacy")
elif sys.version_info >= (3, 12):
    import _xxsubinterpreters as _interpreters
    create = lambda: _interpreters.create(isolated=False)
else:
    import _xxsubinterpreters as _interpreters
    create = _interpreters.create
import pmem2
path, code = sys.argv[1:]
code = f"import sys; sys.argv = ['', {path!r}]; " + code
with pmem2.Source.from_anon(4096) as source, source.map() as map:
    view = map.view()
    for _ in range(3):
        inner = create()
        assert _interpreters.run_string(inner, code) is None
        _interpreters.destroy(inner)
        view[0] += 1
        map.persist_many([(0, 8)])
    del view
    print(map[0])
print(path in open("/proc/self/maps").read())
"""


@pytest.mark.skipif(PYPY, reason="PyPy has one interpreter in a process")
def test_interpreters_that_end_earlier(run_child: RunChild, file: Path) -> None:
    """A subinterpreter that ends with everything open ends well, and the main one goes on as before."""
    code = "import warnings; warnings.simplefilter('ignore')" + OPEN
    child = run_child(INTERPRETERS, str(file), code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "3\nFalse\n", "")


FORGOTTEN = """
import gc, sys, typing
import pmem2
source = pmem2.Source.from_anon(4096)
view = source.map().view()
del source, pmem2
for name in [name for name in sys.modules if name.partition(".")[0] in ("pmem2", "_pmem2")]:
    del sys.modules[name]
for forget in typing._cleanups:  # keeps some of the classes
    forget()
for _ in range(3):
    gc.collect()
view[0] = 1
print(view[0])
"""


def test_view_that_outlives_the_modules(run_child: RunChild) -> None:
    """A view stays good when nothing but it is left of pmem2, as after modules were made to be imported anew."""
    child = run_child(FORGOTTEN, PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout, child.stderr) == (0, "1\n", "")


def test_exit_with_warnings_on(run_child: RunChild, file: Path) -> None:
    """What is still open when the interpreter ends is warned of, and nothing worse."""
    child = run_child(OPEN, str(file), PYTHONWARNINGS="always::ResourceWarning")
    assert child.returncode == 0
    assert "Traceback" not in child.stderr
    assert "unclosed <pmem2.Map" in child.stderr or PYPY  # which finalizes nothing at the end
