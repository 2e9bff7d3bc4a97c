# SPDX-License-Identifier: BSD-3-Clause
"""Every public call of pmem2, for harnesses that disturb each of them.

A key of `CALLS` names a callable, and after a space the variant of its use: "Map.memcpy of a Map". `public_names` walks
the classes, so a test notices a public method without a row.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import pickle
import re
import sys
import sysconfig
from array import array
from contextlib import AbstractContextManager, suppress
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any, Callable

import attrs
from _pmem2 import lib

import pmem2
from pmem2 import BadBlock, BadBlockContext, Config, Granularity, Map, MemFlag, Source, VMReservation

HAS_NUMPY = importlib.util.find_spec("numpy") is not None  # PyPy has no wheels of it
PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE
GIB = 1 << 30  # of anonymous memory and addresses: a leak of that size stands out
PLACES = 4  # maps in the reservation
PADDING = 2 << 20  # addresses behind each reservation of that size that libpmem2 itself never unmaps
CLASSES = (Source, Config, Map, VMReservation, BadBlockContext, BadBlock)
FUNCTIONS = ("open", "dax_devices", "publish", "acquire")
REFUSALS = (OSError, ValueError, TypeError, BufferError, LookupError)
MACHINERY_RE = re.compile(
    r"__(attrs_\w+|annotate\w*|annotations\w*|conditional_annotations|del|final|firstlineno|match_args"
    r"|replace|[gs]etstate|slots|static_attributes|weakref)__"
)


class World:
    """The objects that the calls act on."""

    def __init__(self, folder: Path) -> None:
        """Create files in *folder*, and map them."""
        self.path, self.old, self.new = (str(folder / name) for name in ("file", "old", "new"))
        self.created = False  # whether the call that creates `new` has returned
        for path in (self.path, self.old):
            Path(path).write_bytes(bytes(SIZE))
        self.data = bytearray(64)
        self.pairs = array("Q", [0, 8, 64, 8])
        self.descriptor = os.open(self.path, os.O_RDWR)
        self.source = Source.from_path(self.path)
        self.anonymous = Source.from_anon(GIB)
        self.map = self.source.map()
        self.context = self.source.bad_blocks()
        self.padding = 0
        self.reservation = self.reserve()
        self.placed = [self.source.map(self.place(number)) for number in range(PLACES)]

    def place(self, number: int) -> Config:
        """Return the Config of a page in the reservation."""
        return Config(length=PAGE, reservation=self.reservation, reservation_offset=number * PAGE)

    def reserve(self) -> VMReservation:
        """Return a new reservation."""
        self.padding += PADDING
        return VMReservation(GIB)

    def create(self, mode: str) -> None:
        """Create the file `new` with `pmem2.open`, and remove it."""
        self.created = mode == "a+"  # it stays: another process may use it
        map = pmem2.open(self.new, mode, size=PAGE)  # type: ignore[call-overload, unused-ignore, arg-type]
        self.created = True
        map.close()
        os.unlink(self.new)

    def remove_new(self) -> None:
        """Remove the file `new` if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self.new)

    def release(self) -> None:
        """Close all objects; a pin that was left makes this fail."""
        for resource in (self.map, *self.placed, self.reservation, self.context, self.anonymous, self.source):
            resource.close()
        os.close(self.descriptor)

    def find_borrowed(self) -> list[str]:
        """Describe the buffers that are still borrowed."""
        problems = []
        for buffer in (self.data, self.pairs):
            try:
                buffer.append(0)
            except BufferError as error:
                problems.append(f"left a {type(buffer).__name__} borrowed: {error}")
        return problems


Call = Callable[[World], object]


def refuse(call: Callable[..., object], *arguments: object, **options: object) -> None:
    """Make a call that must be refused: the code that explains errors is public behaviour too.

    The calls make no closures: CPython 3.12 and 3.13.0 die when the allocation of one fails.
    """
    try:
        call(*arguments, **options)
    except REFUSALS:
        return
    raise AssertionError(f"{call} accepted {arguments}")


def with_map(call: Callable[[Any], object]) -> Call:
    """Return the call of a method of the map that older versions lack."""
    return lambda w: call(w.map)


def cache_call(name: str, *arguments: object) -> Call:
    """Return the call of `publish`, `acquire` and the like, which some processors refuse."""
    call = methodcaller(name, *arguments)
    return (lambda w: call(w.map)) if lib.HAS_CACHE_CONTROL else (lambda w: refuse(call, w.map))


def map_existing(world: World, memory: bytes | bytearray) -> Map:
    """Return a Map of memory of Python."""
    return Map.from_existing(world.source, memory, Granularity.BYTE)


def enter(resource: AbstractContextManager[object]) -> None:
    """Use a `with` block."""
    with resource:
        pass


def extend_and_shrink(reservation: VMReservation) -> None:
    """Change the size of a reservation."""
    with reservation:
        reservation.extend(PAGE)
        reservation.shrink(GIB, PAGE)


def refuse_closing(map: Map, _view: memoryview) -> None:
    """Close a map that has a view."""
    refuse(map.close)


def drop_cycle(member: object) -> None:
    """Drop an object in a garbage cycle."""
    cycle = [member]
    cycle.append(cycle)


FUNCTION_CALLS: dict[str, Call] = {
    "open": lambda w: pmem2.open(w.path).close(),
    "open r": lambda w: pmem2.open(w.path, "r").close(),
    "open c": lambda w: pmem2.open(w.path, "c").close(),
    "open w+": lambda w: w.create("w+"),
    "open x+": lambda w: w.create("x+"),
    "open a+": lambda w: w.create("a+"),
    "open w+ of an old file": lambda w: pmem2.open(w.old, "w+", size=SIZE).close(),
    "open x+ of an old file": lambda w: refuse(pmem2.open, w.old, "x+", size=SIZE),
    "open and drop": lambda w: pmem2.open(w.path),
    "open of nothing": lambda w: refuse(pmem2.open, w.new),
    "open too much": lambda w: refuse(pmem2.open, w.path, config=Config(length=2 * SIZE)),
    "dax_devices": lambda w: pmem2.dax_devices(),  # type: ignore[attr-defined, unused-ignore]
    "publish": lambda w: pmem2.publish(w.data),
    "publish of read-only memory": lambda w: refuse(pmem2.publish, b"data"),
    "acquire": lambda w: pmem2.acquire(w.data),
}
SOURCE_CALLS: dict[str, Call] = {
    "Source.from_path": lambda w: Source.from_path(w.path).close(),
    "Source.from_path and drop": lambda w: Source.from_path(w.path),
    "Source.from_path of a folder": lambda w: refuse(Source.from_path, os.path.dirname(w.path)),
    "Source.from_path of nothing": lambda w: refuse(Source.from_path, w.new),
    "Source.from_fd": lambda w: Source.from_fd(w.descriptor).close(),
    "Source.from_fd and drop": lambda w: Source.from_fd(w.descriptor),
    "Source.from_fd closed": lambda w: refuse(Source.from_fd, 2**31 - 1),
    "Source.from_anon": lambda w: Source.from_anon(GIB).close(),
    "Source.from_handle": lambda w: refuse(Source.from_handle, 0),
    "Source.close": lambda w: Source.from_anon(PAGE).close(),
    "Source.__enter__": lambda w: enter(Source.from_path(w.path)),
    "Source.__exit__": lambda w: enter(Source.from_fd(w.descriptor)),
    "Source.__repr__": lambda w: repr(w.source),
    "Source.__reduce__": lambda w: refuse(pickle.dumps, w.source),
    "Source.fd": lambda w: w.source.fd,
    "Source.size": lambda w: w.source.size,
    "Source.alignment": lambda w: w.source.alignment,
    "Source.closed": lambda w: w.source.closed,
    "Source.handle": lambda w: refuse(getattr, w.source, "handle"),
    "Source.device_id": lambda w: refuse(getattr, w.source, "device_id"),
    "Source.device_usc": lambda w: refuse(getattr, w.source, "device_usc"),
    "Source.numa_node": lambda w: refuse(getattr, w.source, "numa_node"),
    "Source.map": lambda w: w.source.map().close(),
    "Source.map and drop": lambda w: w.source.map(),
    "Source.map in a cycle": lambda w: drop_cycle(w.source.map()),
    "Source.map of anonymous memory": lambda w: w.anonymous.map().close(),
    "Source.map of anonymous memory and drop": lambda w: w.anonymous.map(),
    "Source.map in a reservation": lambda w: w.source.map(w.place(PLACES)).close(),
    "Source.map in a reservation and drop": lambda w: w.source.map(w.place(PLACES)),
    "Source.map of nothing": lambda w: refuse(w.source.map, Config(offset=SIZE)),
    "Source.pread_mcsafe": lambda w: w.source.pread_mcsafe(64),
    "Source.pread_mcsafe outside": lambda w: refuse(w.source.pread_mcsafe, 64, SIZE),
    "Source.pread_mcsafe_into": lambda w: w.source.pread_mcsafe_into(w.data),
    "Source.pread_mcsafe_into a view": lambda w: w.source.pread_mcsafe_into(memoryview(w.data)),
    "Source.pread_mcsafe_into bytes": lambda w: refuse(w.source.pread_mcsafe_into, b"1234"),
    "Source.pwrite_mcsafe": lambda w: w.source.pwrite_mcsafe(b"1234", PAGE),
    "Source.pwrite_mcsafe of a view": lambda w: w.source.pwrite_mcsafe(memoryview(w.data)),
    "Source.pwrite_mcsafe outside": lambda w: refuse(w.source.pwrite_mcsafe, w.data, SIZE),
    "Source.bad_blocks": lambda w: w.source.bad_blocks().close(),
    "Source.bad_blocks and drop": lambda w: w.source.bad_blocks(),
}
CONFIG_CALLS: dict[str, Call] = {
    "Config": lambda w: Config(length=PAGE, offset=PAGE),
    "Config with a reservation": lambda w: w.place(PLACES),
    "Config refused": lambda w: refuse(Config, length=0),
    "Config.__replace__": lambda w: attrs.evolve(Config(), length=PAGE),
    "BadBlock": lambda w: BadBlock(0, PAGE),
}
MAP_CALLS: dict[str, Call] = {
    "Map": lambda w: Map(w.source).close(),
    "Map.from_existing": lambda w: map_existing(w, w.data).close(),
    "Map.from_existing and drop": lambda w: map_existing(w, w.data),
    "Map.from_existing of nothing": lambda w: refuse(map_existing, w, b""),
    "Map.close": lambda w: w.source.map().close(),
    "Map.close with a view": lambda w: refuse_closing(w.placed[0], w.placed[0].view()),
    "Map.__enter__": lambda w: enter(w.source.map()),
    "Map.__exit__": lambda w: enter(pmem2.open(w.path)),
    "Map.__repr__": lambda w: repr(w.map),
    "Map.__reduce__": lambda w: refuse(pickle.dumps, w.map),
    "Map.__len__": lambda w: len(w.map),
    **{
        f"Map.{name}": attrgetter(f"map.{name}")
        for name in ("address", "size", "granularity", "protection", "sharing", "config", "closed")
    },
    "Map.__getitem__": lambda w: w.map[5],
    "Map.__getitem__ outside": lambda w: refuse(w.map.__getitem__, SIZE),
    "Map.__getitem__ slice": lambda w: w.map[0:64],
    "Map.__getitem__ large slice": lambda w: w.map[:],
    "Map.__getitem__ stepped slice": lambda w: w.map[0:192:3],
    "Map.__getitem__ sparse slice": lambda w: w.map[::PAGE],
    "Map.__setitem__": lambda w: w.map.__setitem__(5, 1),
    "Map.__setitem__ slice": lambda w: w.map.__setitem__(slice(0, 64), b"x" * 64),
    "Map.__setitem__ slice of a view": lambda w: w.map.__setitem__(slice(0, 64), memoryview(w.data)),
    "Map.__setitem__ slice of a Map": lambda w: w.map.__setitem__(slice(0, PAGE), w.placed[0]),
    "Map.__setitem__ stepped slice": lambda w: w.map.__setitem__(slice(0, 192, 3), memoryview(w.data)),
    "Map.__setitem__ other length": lambda w: refuse(w.map.__setitem__, slice(0, 4), b"12345"),
    "Map.__contains__": lambda w: b"abc" in w.map,  # type: ignore[operator, unused-ignore]
    "Map.find": with_map(methodcaller("find", b"abc")),
    "Map.read_into": lambda w: with_map(methodcaller("read_into", w.data))(w),
    "Map.view": lambda w: w.map.view(0, 64).release(),
    "Map.view and drop": lambda w: w.map.view(),
    "Map.view in a cycle": lambda w: drop_cycle(w.map.view()),
    "Map.view of a dropped Map": lambda w: w.source.map().view(),
    "Map.view with slices": lambda w: w.map.view()[8:16].cast("Q")[0],
    "Map.view outside": lambda w: refuse(w.map.view, SIZE, 1),
    "Map.__buffer__": lambda w: memoryview(w.map).release(),  # type: ignore[arg-type, unused-ignore]
    "Map.__buffer__ and drop": lambda w: memoryview(w.map),  # type: ignore[arg-type, unused-ignore]
    "Map.persist": lambda w: w.map.persist(0, 8),
    "Map.persist outside": lambda w: refuse(w.map.persist, 0, SIZE + 1),
    "Map.persist of a view": lambda w: w.map.persist(w.map.view(0, 8)),
    "Map.persist of a stepped view": lambda w: w.map.persist(w.map.view(0, 8)[::-2]),
    "Map.persist of other memory": lambda w: refuse(w.map.persist, w.data),
    "Map.flush": lambda w: w.map.flush(0, 8),
    "Map.drain": lambda w: w.map.drain(),
    "Map.deep_flush": lambda w: w.map.deep_flush(0, 8),
    "Map.persist_many": lambda w: w.map.persist_many([(0, 8), (64, 8)]),
    "Map.persist_many of an array": lambda w: w.map.persist_many(w.pairs),
    "Map.persist_many of a view": lambda w: w.map.persist_many(memoryview(w.pairs)),
    "Map.persist_many of a generator": lambda w: w.map.persist_many((64 * n, 8) for n in range(5)),
    "Map.persist_many outside": lambda w: refuse(w.map.persist_many, [(0, 8), (SIZE, 8)]),
    "Map.flush_many": lambda w: w.map.flush_many([[0, 8], [64, 8]]),  # type: ignore[list-item]
    "Map.publish": cache_call("publish", 0, 64),
    "Map.acquire": cache_call("acquire", 0, 64),
    "Map.publish_many": cache_call("publish_many", [(0, 64)]),
    "Map.acquire_many": cache_call("acquire_many", [(0, 64)]),
    "Map.prefault": lambda w: w.map.prefault(0, PAGE),
    "Map.prefault outside": lambda w: refuse(w.map.prefault, 0, SIZE + 1),
    "Map.madvise": lambda w: w.map.madvise(0, 0, PAGE),  # MADV_NORMAL
    "Map.madvise refused": lambda w: refuse(w.map.madvise, 9),  # MADV_REMOVE
    "Map.memcpy": lambda w: w.map.memcpy(0, b"1234"),
    "Map.memcpy with flags": lambda w: w.map.memcpy(0, b"1234", MemFlag.NODRAIN | MemFlag.TEMPORAL),
    "Map.memcpy of a bytearray": lambda w: w.map.memcpy(0, w.data),
    "Map.memcpy of a view": lambda w: w.map.memcpy(0, memoryview(w.data)),
    "Map.memcpy of itself": lambda w: w.map.memcpy(0, w.map),
    "Map.memcpy of a Map": lambda w: w.map.memcpy(0, w.placed[0]),
    "Map.memcpy outside": lambda w: refuse(w.map.memcpy, SIZE, b"1"),
    "Map.memcpy of text": lambda w: refuse(w.map.memcpy, 0, "text"),
    "Map.memcpy of scattered memory": lambda w: refuse(w.map.memcpy, 0, memoryview(w.data)[::2]),
    "Map.memmove": lambda w: w.map.memmove(8, w.placed[0].view(0, 64)),
    "Map.memset": lambda w: w.map.memset(0, 1, 64),
    "Map.memcpy_many": lambda w: w.map.memcpy_many([(0, b"1234"), (64, w.data), (256, w.placed[0])]),
    "Map.memcpy_many of views": lambda w: w.map.memcpy_many([(0, memoryview(w.data)), (128, w.placed[0].view(0, 8))]),
    "Map.memcpy_many of a generator": lambda w: w.map.memcpy_many((64 * n, b"1234") for n in range(5)),
    "Map.memcpy_many outside": lambda w: refuse(w.map.memcpy_many, [(0, w.data), (SIZE, w.data)]),
    "Map.load_u64": lambda w: w.map.load_u64(0),
    "Map.load_u64 unaligned": lambda w: refuse(w.map.load_u64, 1),
    "Map.store_u64": lambda w: w.map.store_u64(0, 1),
    "Map.store_u64 and persist": lambda w: w.map.store_u64(0, 1, persist=True),
    "Map.compare_exchange_u64": lambda w: w.map.compare_exchange_u64(0, 0, 1),
    "Map.fetch_add_u64": lambda w: w.map.fetch_add_u64(0, 1),
}
NUMPY_CALLS: dict[str, Call] = {
    "Map.as_array": lambda w: w.map.as_array("u8", 8),
    "Map.as_array too large": lambda w: refuse(w.map.as_array, "u8", SIZE),
    "Map.as_array in other order": lambda w: w.map.as_array("u8", [2, 4], order="F"),
    "Map.persist of an array": lambda w: w.map.persist(w.map.as_array("u8", 8)),
    "Map.__array__": lambda w: w.map.__array__(),  # numpy.asarray itself loses an exception of `__buffer__`
}
RESERVATION_CALLS: dict[str, Call] = {
    "VMReservation": lambda w: w.reserve().close(),
    "VMReservation and drop": lambda w: w.reserve(),
    "VMReservation of no page": lambda w: refuse(VMReservation, 1),
    "VMReservation.close": lambda w: w.reserve().close(),
    "VMReservation.close with maps": lambda w: refuse(w.reservation.close),
    "VMReservation.__enter__": lambda w: enter(w.reserve()),
    "VMReservation.__exit__": lambda w: enter(w.reserve()),
    "VMReservation.__repr__": lambda w: repr(w.reservation),
    "VMReservation.__reduce__": lambda w: refuse(pickle.dumps, w.reservation),
    **{f"VMReservation.{name}": attrgetter(f"reservation.{name}") for name in ("address", "size", "closed")},
    "VMReservation.extend": lambda w: extend_and_shrink(w.reserve()),
    "VMReservation.shrink": lambda w: refuse(w.reservation.shrink, 0, PAGE),
    "VMReservation.find": lambda w: w.reservation.find(PAGE, 1),
    "VMReservation.find nothing": lambda w: refuse(w.reservation.find, GIB - PAGE, 1),
    "VMReservation.first": lambda w: w.reservation.first(),
    "VMReservation.last": lambda w: w.reservation.last(),
    "VMReservation.next": lambda w: w.reservation.next(w.placed[0]),
    "VMReservation.prev": lambda w: w.reservation.prev(w.placed[1]),
    "VMReservation.__iter__": lambda w: list(w.reservation),
}
BAD_BLOCK_CALLS: dict[str, Call] = {
    "BadBlockContext.__iter__": lambda w: iter(w.context),
    "BadBlockContext.__next__": lambda w: next(w.context, None),
    "BadBlockContext.__enter__": lambda w: enter(w.source.bad_blocks()),
    "BadBlockContext.__exit__": lambda w: enter(w.source.bad_blocks()),
    "BadBlockContext.__repr__": lambda w: repr(w.context),
    "BadBlockContext.__reduce__": lambda w: refuse(pickle.dumps, w.context),
    "BadBlockContext.clear": lambda w: refuse(w.context.clear, BadBlock(0, PAGE)),
    "BadBlockContext.close": lambda w: w.source.bad_blocks().close(),
    "BadBlockContext.closed": lambda w: w.context.closed,
}
COLLECTING = {"VMReservation.close with maps", "Map.close with a view"}
"""These collect garbage, which takes long where nothing is frozen."""
FREEZES = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
ALL_CALLS = {
    **FUNCTION_CALLS,
    **SOURCE_CALLS,
    **CONFIG_CALLS,
    **MAP_CALLS,
    **NUMPY_CALLS,
    **RESERVATION_CALLS,
    **BAD_BLOCK_CALLS,
}


def exists(name: str) -> bool:
    """Return whether this version and interpreter have the callable that a key names."""
    try:
        attrgetter(name.partition(" ")[0])(pmem2)
    except AttributeError:
        return False
    return (HAS_NUMPY or name not in NUMPY_CALLS) and (FREEZES or name not in COLLECTING)


CALLS = {name: call for name, call in ALL_CALLS.items() if exists(name)}


def public_names() -> set[str]:
    """Return the names of all public callables and properties, those that Python's syntax calls included."""
    names = {name for name in FUNCTIONS if hasattr(pmem2, name)}
    for kind in CLASSES:
        fields = {field.name for field in attrs.fields(kind)}  # plain values: reading them runs no code
        own = {name for name in dir(kind) if not hasattr(object, name)}
        public = {name for name in own - fields if not name.startswith("_") or name.endswith("__")}
        names |= {f"{kind.__name__}.{name}" for name in public if not MACHINERY_RE.fullmatch(name)}
    return names | {kind.__name__ for kind in (Config, Map, VMReservation, BadBlock)}
