# SPDX-License-Identifier: BSD-3-Clause
"""Dropped objects: the garbage collector releases them in any order, and views never lose their memory."""

from __future__ import annotations

import mmap
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from support.values import ON_PYPY, descriptors

import pmem2
from safety.process_state import collect_garbage, count_mappings, is_mapped
from safety.test_views import needs_numpy

if TYPE_CHECKING:
    from support.children import RunChild

MIB = 1024 * 1024
PRELUDE = """
import gc, itertools, os, signal, sys, warnings
import pmem2
signal.alarm(1500)  # emulation is slow; elsewhere children.TIMEOUT comes first
if hasattr(gc, "freeze"):
    gc.freeze()  # collect only objects of the test
warnings.simplefilter("ignore", ResourceWarning)
path = sys.argv[1]
def collect_garbage():
    for _ in range(5 if sys.implementation.name == "pypy" else 2):
        gc.collect()
def count_mappings():
    with open("/proc/self/maps") as maps:
        return maps.read().count(path)
"""


def output_of(run_child: RunChild, code: str, *arguments: str) -> list[str]:
    """Run code in a child that must end well without errors; return the lines that it printed."""
    child = run_child(PRELUDE + code, *arguments)
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout.splitlines()


# ---- dropped objects


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_dropped_map_is_unmapped(file: Path) -> None:
    """The collector unmaps a dropped Map and closes the descriptor of a dropped Source."""
    before = descriptors()
    source = pmem2.Source.from_path(file)
    map = source.map()
    assert count_mappings(file) == 1
    del map
    collect_garbage()
    assert count_mappings(file) == 0
    assert len(descriptors()) == len(before) + 1
    del source
    collect_garbage()
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_view_keeps_dropped_map(source: pmem2.Source, file: Path) -> None:
    """A view keeps its Map alive until the last slice of the view is dropped."""
    map = source.map()
    reference = weakref.ref(map)
    view = map.view()
    part = view[8:16]
    words = part.cast("Q")
    del map, view, part
    collect_garbage()
    assert reference() is not None
    words[0] = 0x0102030405060708
    assert source.pread_mcsafe(8, 8) == words.tobytes()
    del words
    collect_garbage()
    assert reference() is None
    assert count_mappings(file) == 0


DROPPED_IN_ORDER = """
def drop(order):
    source = pmem2.Source.from_path(path)
    reservation = pmem2.VMReservation(32 << 20)
    map = source.map(pmem2.Config(reservation=reservation))
    objects = {"source": source, "map": map, "reservation": reservation, "view": map.view(0, 8)}
    del source, map, reservation
    for name in order:
        del objects[name]
        gc.collect()
        if "view" in objects:
            objects["view"][0] = 1
    collect_garbage()
    assert count_mappings() == 0, order
    assert sorted(os.listdir("/proc/self/fd")) == before, order

before = sorted(os.listdir("/proc/self/fd"))
for order in itertools.permutations(("source", "map", "view", "reservation")):
    drop(order)
"""


def test_dropping_in_any_order(run_child: RunChild, file: Path) -> None:
    """Source, Map, view and reservation may be dropped in any order, and nothing stays behind."""
    assert output_of(run_child, DROPPED_IN_ORDER, str(file)) == []  # in a child: PyPy collects its small heap fast


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_existing_memory(source: pmem2.Source) -> None:
    """A dropped Map of existing memory releases the memory, which can be mapped again."""
    memory = mmap.mmap(-1, 8192)
    for _ in range(3):
        map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
        with pytest.raises(pmem2.MapExistsError):
            pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
        map[0] = 1
        del map
        collect_garbage()
    memory.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_view_keeps_existing_memory(source: pmem2.Source) -> None:
    """A view of a Map of existing memory keeps both the Map and the memory alive."""

    def make_view() -> memoryview:
        return pmem2.Map.from_existing(source, bytearray(b"kept".ljust(64)), pmem2.Granularity.BYTE).view()

    view = make_view()
    collect_garbage()
    filler = [bytearray(64) for _ in range(1000)]
    assert bytes(view[:4]) == b"kept"
    assert len(filler) == 1000
    del view
    collect_garbage()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_reservation_closes_over_garbage(source: pmem2.Source) -> None:
    """A reservation closes although maps in it were only dropped."""
    reservation = pmem2.VMReservation(4 * MIB)
    for offset in (0, MIB):
        source.map(pmem2.Config(reservation=reservation, reservation_offset=offset, length=4096))
    reservation.close()
    assert reservation.closed


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.memcheck
def test_map_keeps_dropped_reservation(source: pmem2.Source) -> None:
    """A dropped reservation keeps its addresses until its last map is gone."""
    reservation = pmem2.VMReservation(4 * MIB)
    address = reservation.address
    map = source.map(pmem2.Config(reservation=reservation, reservation_offset=MIB, length=4096))
    del reservation
    collect_garbage()
    map[0] = 1
    assert map.address == address + MIB
    assert is_mapped(address)
    map.close()
    del map
    collect_garbage()


@pytest.mark.memcheck
def test_refused_map_frees_its_place(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """A map that was refused leaves its place in the reservation free at once, on PyPy too."""
    config = pmem2.Config(reservation=reservation, length=4096, required_granularity=pmem2.Granularity.BYTE)
    with pytest.raises(pmem2.GranularityNotSupportedError):
        source.map(config)
    with source.map(pmem2.Config(reservation=reservation, length=4096)) as map:
        assert reservation.first() is map
        assert list(reservation) == [map]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_map_is_not_found(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """A reservation does not find a map that was dropped."""
    source.map(pmem2.Config(reservation=reservation, length=4096))
    collect_garbage()
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.first()
    assert list(reservation) == []


# ---- garbage cycles


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("first", ["list", "map"])
@pytest.mark.parametrize("viewed", [False, True])
def test_map_in_a_cycle(source: pmem2.Source, file: Path, first: str, viewed: bool) -> None:
    """The collector unmaps a Map in a cycle, with or without views, whichever object is older."""

    def make_garbage() -> None:
        cycle: list[object] = []
        map = source.map()
        if first == "map":
            cycle = []
        cycle.append(map)
        if viewed:
            cycle.append(map.view()[8:16].cast("Q"))
        cycle.append(cycle)

    make_garbage()
    assert count_mappings(file) == 1
    collect_garbage()
    assert count_mappings(file) == 0


def test_close_collects_garbage_views(source: pmem2.Source) -> None:
    """close collects views in garbage cycles instead of refusing."""
    map = source.map()
    cycle: list[object] = [map.view()]
    cycle.append(cycle)
    del cycle
    map.close()
    assert map.closed


def test_close_after_a_finalizer(source: pmem2.Source) -> None:
    """close succeeds after the finalizer of a dead object used its view, on PyPy too."""

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


FINALIZER = """
class Finalizer:
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

def finalizer_first():
    f = Finalizer(); f.f = f; f.map = source.map(); f.view = f.map.view()

def map_first():
    m = source.map(); f = Finalizer(); f.f = f; f.map = m; f.view = m.view()

def view_first():
    m = source.map(); v = m.view(); f = Finalizer(); f.f = f; f.map = m; f.view = v

def slice_only():
    m = source.map(); v = m.view()[8:16].cast("Q"); f = Finalizer(); f.f = f; f.map = m; f.view = v

def two():
    m = source.map(); v = m.view(); f, g = Finalizer(), Finalizer()
    f.map = g.map = m; f.view = g.view = v; f.g = g; g.f = f

def without_a_view():
    m = source.map(); f = Finalizer(); f.f = f; f.map = m

def reserved():
    r = pmem2.VMReservation(32 << 20); m = source.map(pmem2.Config(reservation=r))
    v = m.view(); f = Finalizer(); f.f = f; f.map = m; f.view = v; f.r = r

class Memory(bytearray):
    pass

def existing():
    b = Memory(8192); m = pmem2.Map.from_existing(source, b, 2)
    f = Finalizer(); f.map = m; f.view = m.view(); b.f = f

def existing_finalizer_first():
    f = Finalizer(); b = Memory(8192); b.f = f
    m = pmem2.Map.from_existing(source, b, 2); f.map = m; f.view = m.view()

def array():
    import numpy
    m = source.map(); a = m.as_array("u1"); f = Finalizer(); f.f = f; f.map = m; f.view = a

gc.disable()
with pmem2.Source.from_path(path) as source:
    globals()[sys.argv[2]]()
    collect_garbage()
    print(count_mappings())
"""
SHAPES = [
    "finalizer_first",
    "map_first",
    "view_first",
    "slice_only",
    "two",
    "without_a_view",
    "reserved",
    "existing",
    "existing_finalizer_first",
    pytest.param("array", marks=needs_numpy),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_finalizer_in_a_cycle(run_child: RunChild, file: Path, shape: str) -> None:
    """A finalizer in a cycle may close a map and then use a view of it."""
    lines = output_of(run_child, FINALIZER, str(file), shape)
    lines.remove("0")  # mappings left
    # PyPy finalizes a cycle in any order; only in "existing" the view is a part of it, and its memory is not unmapped.
    is_unordered = shape == "without_a_view" or (ON_PYPY and shape == "existing")
    assert set(lines) <= ({"closed", "ValueError"} if is_unordered else {"BufferError"})
    assert lines or shape.startswith("existing")  # a cycle through the memory itself may stay until the end


RESURRECTED = """
kept = []

class Resurrected:
    def __del__(self):
        kept.append(self)

def make_garbage():
    objects = [pmem2.Source.from_path(path), pmem2.VMReservation(32 << 20)]
    objects.append(objects[0].map(pmem2.Config(reservation=objects[1])))
    objects.append(objects[0].bad_blocks())
    objects.append(objects[2].view())
    garbage = Resurrected()
    garbage.objects, garbage.itself = objects, garbage

gc.disable()
make_garbage()
collect_garbage()
source, reservation, map, context, view = kept[0].objects
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
for closable in (source, reservation, context):
    closable.close()
print(count_mappings())
"""


def test_resurrected_objects_work(run_child: RunChild, file: Path) -> None:
    """Objects that a finalizer resurrects work as before."""
    lines = output_of(run_child, RESURRECTED, str(file))
    assert lines == ["b'\\x01\\x02' True []", "False False False False", "0"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dying_map_is_not_found(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """A finalizer finds in a reservation its own live map or none, never a map that Python has freed."""
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
    collect_garbage()
    assert found == [True]


# ---- warnings


def drop_source(source: pmem2.Source) -> None:
    """Drop an open Source."""
    pmem2.Source.from_fd(source.fd)


def drop_map(source: pmem2.Source) -> None:
    """Drop an open Map."""
    source.map()


def drop_existing(source: pmem2.Source) -> None:
    """Drop an open Map of existing memory."""
    pmem2.Map.from_existing(source, bytearray(64), pmem2.Granularity.BYTE)


def drop_reservation(source: pmem2.Source) -> None:
    """Drop an open VMReservation."""
    pmem2.VMReservation(4096)


def drop_bad_blocks(source: pmem2.Source) -> None:
    """Drop an open BadBlockContext."""
    source.bad_blocks()


DROPS = [drop_source, drop_map, drop_existing, drop_reservation, drop_bad_blocks]


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.memcheck
def test_dropping_open_object_warns(source: pmem2.Source, drop: Callable[[pmem2.Source], None]) -> None:
    """An object that is collected while open warns once, with its repr."""

    def drop_and_collect() -> None:
        drop(source)
        collect_garbage()

    with pytest.warns(ResourceWarning, match="unclosed <pmem2") as caught:
        drop_and_collect()
    assert len(caught) == 1


def test_dropping_closed_object(source: pmem2.Source) -> None:
    """An object that was closed, or was never made, is collected without a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for closable in (source.map(), pmem2.VMReservation(4096), source.bad_blocks(), pmem2.Source.from_anon(4096)):
            closable.close()
        del closable
        for fail in (lambda: source.map(pmem2.Config(offset=1)), lambda: pmem2.Source.from_fd(-1)):
            with pytest.raises(pmem2.Pmem2Error):
                fail()
        with pytest.raises(pmem2.LengthUnalignedError):
            pmem2.VMReservation(1)
        with pytest.raises(ValueError, match="empty"):
            pmem2.Map.from_existing(source, b"", pmem2.Granularity.PAGE)
        with pmem2.Source.from_anon(4096) as anonymous, pytest.raises(pmem2.NosuppError):
            anonymous.bad_blocks()
        collect_garbage()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize(
    "what", ["Source.from_path(path)", "Source.from_fd(kept_fd)", "kept.bad_blocks()", "kept.map()"]
)
def test_dropped_objects_free_descriptors(run_child: RunChild, path: Path, what: str) -> None:
    """When descriptors run out, those of dropped objects are freed first, also where only the collector finds them."""
    code = f"""
        import gc, resource, sys, warnings, pmem2
        from pmem2 import Source

        warnings.simplefilter("ignore")
        path = sys.argv[1]
        gc.disable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = Source.from_path(path)
        kept_fd = kept.fd
        for _ in range(200):
            cycle = [{what}]
            cycle.append(cycle)
        print("all")
    """
    done = run_child(code, str(path))
    assert done.stdout == "all\n", done.stderr
