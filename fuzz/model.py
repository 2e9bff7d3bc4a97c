# SPDX-License-Identifier: BSD-3-Clause
"""Everything that can be done with pmem2, as operations on a few objects picked by number.

No operation may raise anything but what the documentation names, and none may end or hang the process. Excluded is
only what is documented to kill: truncating a file that is mapped, holes on a full disk, and closing, on PyPy, the mmap
under a map.
"""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import threading
import warnings
import weakref
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, TypeVar

import attrs

import pmem2

T = TypeVar("T")

PAGE = mmap.PAGESIZE
FILE_SIZE = 8 * PAGE
MOST = 6  # objects of a kind: beyond that the oldest goes, so that the same ones meet again and again
DOCUMENTED = (ValueError, TypeError, IndexError, BufferError, OSError)


def memory_mapped(folder: Path) -> list[str]:
    """Return what of a folder this process has mapped."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


class World:
    """The objects that a program has made, and what it can do with them."""

    def __init__(self, folder: Path) -> None:
        """Begin with two files, one of them read-only."""
        self.folder = folder
        self.paths = [folder / "one", folder / "two"]
        for number, path in enumerate(self.paths):
            path.write_bytes(bytes(range(number, 256)) + b"x" * (FILE_SIZE - 256 + number))
        self.sources: list[pmem2.Source] = []
        self.configs: list[pmem2.Config] = [pmem2.Config()]
        self.maps: list[pmem2.Map] = []
        self.views: list[memoryview] = []
        self.arrays: list[Any] = []
        self.reservations: list[pmem2.VMReservation] = []
        self.contexts: list[pmem2.BadBlockContext] = []
        self.buffers: list[mmap.mmap] = []
        self.weak: list[weakref.ref[object]] = []
        self.done = self.refused = self.files = 0
        self.children = 0
        self.descriptors = descriptors()

    # ---- picking

    def pick(self, things: list[T], number: int) -> T:
        """Return one of some things; a refusal where there is none."""
        if not things:
            raise ValueError("there is none yet")
        return things[number % len(things)]

    def keep(self, things: list[T], thing: T) -> None:
        """Add a thing, and drop the oldest when there are too many."""
        things.append(thing)
        if len(things) > MOST:
            del things[0]

    def handles(self) -> list[Any]:
        """Return all that can be closed."""
        return [*self.maps, *self.sources, *self.contexts, *self.reservations]

    def do(self, name: str, arguments: dict[str, Any]) -> None:
        """Do one operation; a documented refusal is as good as success.

        Raises:
            Exception: It raised what no documentation names.
        """
        try:
            getattr(self, name)(**arguments)
            self.done += 1
        except DOCUMENTED:
            self.refused += 1

    # ---- sources

    def source_from_path(self, which: int, writable: bool) -> None:
        """Make a source of a file."""
        self.keep(self.sources, pmem2.Source.from_path(self.pick(self.paths, which), writable=writable))

    def source_from_fd(self, which: int, mode: str, number: Any) -> None:
        """Make a source of a descriptor, of a file object, or of any number."""
        with open(self.pick(self.paths, which), mode, buffering=0) as file:
            self.keep(self.sources, pmem2.Source.from_fd((file, file.fileno(), number)[which % 3]))

    def source_from_anon(self, size: Any) -> None:
        """Make an anonymous source; one of sensible size, for the sake of the machine."""
        self.keep(self.sources, pmem2.Source.from_anon(size))

    def look_at_source(self, which: int) -> None:
        """Read every property of a source."""
        source = self.pick(self.sources, which)
        repr(source)
        for name in ("fd", "size", "alignment", "device_id", "device_usc", "numa_node", "closed"):
            with suppress(*DOCUMENTED):
                getattr(source, name)

    def read_source(self, which: int, size: Any, offset: Any, into: int) -> None:
        """Read past bad blocks."""
        source = self.pick(self.sources, which)
        if into % 2:
            source.pread_mcsafe_into((bytearray(into), b"read-only", array("Q", [0] * 9))[into % 3], offset)
        else:
            assert len(source.pread_mcsafe(size, offset)) == size

    def read_source_into_view(self, which: int, view: int, offset: Any) -> None:
        """Read a source into a map of, maybe, the same file."""
        self.pick(self.sources, which).pread_mcsafe_into(self.pick(self.views, view), offset)

    def write_source(self, which: int, data: bytes, offset: Any) -> None:
        """Write past bad blocks."""
        self.pick(self.sources, which).pwrite_mcsafe(data, offset)

    def write_source_from_view(self, which: int, view: int, offset: Any) -> None:
        """Write a source from a map of, maybe, the same file."""
        self.pick(self.sources, which).pwrite_mcsafe(self.pick(self.views, view), offset)

    def bad_blocks(self, which: int) -> None:
        """Make a context."""
        self.keep(self.contexts, self.pick(self.sources, which).bad_blocks())

    def use_bad_blocks(self, which: int, offset: int, length: int) -> None:
        """Iterate, and try to clear what was never produced."""
        context = self.pick(self.contexts, which)
        list(context)
        context.clear(pmem2.BadBlock(offset, length))

    # ---- configs

    def make_config(self, fields: dict[str, Any]) -> None:
        """Make a config of any values."""
        self.keep(self.configs, pmem2.Config(**fields))

    def place_config(self, which: int, reservation: int, page: int, pages: int) -> None:
        """Make a config that maps into a reservation."""
        where: dict[str, Any] = {
            "reservation": self.pick(self.reservations, reservation),
            "reservation_offset": page * PAGE,
        }
        self.keep(self.configs, attrs.evolve(self.pick(self.configs, which), length=pages * PAGE or None, **where))

    def use_config(self, which: int, other: int, fields: dict[str, Any]) -> None:
        """Compare, hash, copy and evolve."""
        one, two = self.pick(self.configs, which), self.pick(self.configs, other)
        assert (one == two) <= (hash(one) == hash(two))
        self.keep(self.configs, attrs.evolve(one, **fields))

    # ---- maps

    def map_source(self, which: int, config: int) -> None:
        """Map."""
        self.keep(self.maps, self.pick(self.sources, which).map(self.pick(self.configs, config)))

    def map_open(self, which: int, mode: Any, size: Any, config: int) -> None:
        """Open a file, or a new one: one that is mapped is not to be truncated."""
        path = self.pick(self.paths, which)
        if mode in ("w+", "x+"):
            self.files += 1
            path = self.folder / f"new{os.getpid()}-{self.files}"
        chosen = self.pick(self.configs, config) if which % 2 else pmem2.Config()
        self.keep(self.maps, pmem2.open(path, mode, size=size, config=chosen))

    def map_existing(self, which: int, buffer: int, granularity: Any) -> None:
        """Make a map of what is mapped already, or is an ordinary buffer."""
        kinds: list[Callable[[], Any]] = [
            lambda: mmap.mmap(-1, PAGE),
            lambda: self.pick(self.buffers, buffer),
            lambda: self.pick(self.views, buffer),
            lambda: bytearray(100),
            lambda: b"",
            lambda: memoryview(bytearray(64))[::2],
        ]
        memory = kinds[buffer % len(kinds)]()
        if isinstance(memory, mmap.mmap) and memory not in self.buffers:
            self.keep(self.buffers, memory)
        self.keep(self.maps, pmem2.Map.from_existing(self.pick(self.sources, which), memory, granularity))

    def look_at_map(self, which: int) -> None:
        """Read every property of a map."""
        map = self.pick(self.maps, which)
        repr(map)
        _ = (map.granularity, map.protection, map.sharing, map.config, map.closed)
        assert map.size == len(map)
        assert map.address

    def make_again(self, which: int, source: int, config: int) -> None:
        """Call `__init__` of a map that is made already."""
        self.pick(self.maps, which).__init__(self.pick(self.sources, source), self.pick(self.configs, config))

    def view_map(self, which: int, offset: Any, length: Any) -> None:
        """Make a view."""
        self.keep(self.views, self.pick(self.maps, which).view(offset, length))

    def slice_view(self, which: int, start: int, stop: int, step: int) -> None:
        """Make a view of a view."""
        self.keep(self.views, self.pick(self.views, which)[start : stop : step or 1])

    def cast_view(self, which: int, code: str) -> None:
        """Make a view of another type."""
        self.keep(self.views, self.pick(self.views, which).cast("B").cast(code))  # type: ignore[call-overload]

    def store_in_view(self, which: int, value: int) -> None:
        """Store through a view, and read it."""
        view = self.pick(self.views, which)
        view[0:1] = bytes([value % 256])
        view.tobytes()

    def end_view(self, which: int, release: bool) -> None:
        """Release a view, or drop it."""
        view = self.pick(self.views, which)
        self.views.remove(view)
        if release:
            view.release()

    def as_array(self, which: int, dtype: str, shape: Any, offset: Any) -> None:
        """Make a NumPy array, use it."""
        array = self.pick(self.maps, which).as_array(dtype, shape, offset)
        self.keep(self.arrays, array)
        if array.size and array.flags.writeable:
            array[...] = array[::-1] if array.ndim else array

    def end_array(self, which: int) -> None:
        """Drop an array."""
        array = self.pick(self.arrays, which)
        self.arrays = [other for other in self.arrays if other is not array]

    def read_map(self, which: int, key: Any) -> None:
        """Read an item or a slice."""
        _ = self.pick(self.maps, which)[key]

    def write_map(self, which: int, key: Any, value: Any) -> None:
        """Store an item or a slice."""
        self.pick(self.maps, which)[key] = value

    def make_durable(self, which: int, how: str, offset: Any, length: Any) -> None:
        """Persist, flush, deep-flush; and drain."""
        map = self.pick(self.maps, which)
        getattr(map, how)(offset, length)
        map.drain()

    def many_ranges(self, which: int, how: str, pairs: Any, packed: bool) -> None:
        """Make many ranges durable."""
        if packed:
            pairs = array("Q", [number for pair in pairs for number in pair if 0 <= number < 2**64])
        getattr(self.pick(self.maps, which), how)(pairs)

    def copy(self, which: int, how: str, offset: Any, data: Any, flags: Any) -> None:
        """Copy bytes into a map."""
        getattr(self.pick(self.maps, which), how)(offset, data, flags)

    def copy_map(self, which: int, other: int, how: str, offset: Any) -> None:
        """Copy a map into a map, maybe itself."""
        getattr(self.pick(self.maps, which), how)(offset, self.pick(self.maps, other))

    def copy_view(self, which: int, view: int, how: str, offset: Any) -> None:
        """Copy a view into a map, maybe of the same memory."""
        getattr(self.pick(self.maps, which), how)(offset, self.pick(self.views, view))

    def copy_pieces(self, which: int, pieces: Any, view: int) -> None:
        """Copy many pieces into a map."""
        if self.views and view % 2:
            pieces = [*pieces, (0, self.pick(self.views, view))]
        if view % 3 == 0:
            pieces = [*pieces, *[(0, self.pick(self.maps, view))] * 5]
        self.pick(self.maps, which).memcpy_many(pieces)

    def fill(self, which: int, offset: Any, value: Any, length: Any, flags: Any) -> None:
        """Fill a range."""
        self.pick(self.maps, which).memset(offset, value, length, flags)

    def atomics(self, which: int, offset: Any, one: Any, two: Any, persist: bool) -> None:
        """Load, store, exchange and add."""
        map = self.pick(self.maps, which)
        map.load_u64(offset)
        map.store_u64(offset, one, persist)
        map.compare_exchange_u64(offset, one, two, persist)
        map.fetch_add_u64(offset, two, persist)

    # ---- reservations

    def reserve(self, size: Any, address: Any) -> None:
        """Reserve addresses."""
        self.keep(self.reservations, pmem2.VMReservation(size, address))

    def resize(self, which: int, grow: bool, offset: Any, size: Any) -> None:
        """Extend or shrink a reservation."""
        reservation = self.pick(self.reservations, which)
        if grow:
            reservation.extend(size)
        else:
            reservation.shrink(offset, size)

    def search(self, which: int, map: int, offset: Any, length: Any) -> None:
        """Search a reservation in every way: what is found is one of the maps that made it."""
        reservation = self.pick(self.reservations, which)
        repr(reservation)
        here = list(reservation)
        looks: list[Callable[[], pmem2.Map]] = [
            lambda: reservation.find(offset, length),
            reservation.first,
            reservation.last,
            lambda: reservation.next(self.pick(self.maps, map)),
            lambda: reservation.prev(self.pick(self.maps, map)),
        ]
        for look in looks:
            try:
                found = look()
            except DOCUMENTED:
                continue
            assert found.config.reservation is reservation
            assert threading.active_count() > 1 or any(found is other for other in here)

    # ---- ends

    def close(self, which: int, with_statement: bool) -> None:
        """Close anything: if that succeeds it is closed, and remains so."""
        handle = self.pick(self.handles(), which)
        if with_statement:
            handle.__exit__(None, None, None)
        else:
            handle.close()
        assert handle.closed
        handle.close()

    def drop(self, which: int, watch: bool) -> None:
        """Drop anything, maybe in a garbage cycle."""
        handle = self.pick(self.handles(), which)
        if watch:
            self.weak.append(weakref.ref(handle))
        else:
            cycle: list[object] = [handle]
            cycle.append(cycle)
        kinds: list[list[Any]] = [self.maps, self.sources, self.contexts, self.reservations]
        for things in kinds:
            things[:] = [thing for thing in things if thing is not handle]

    def follow(self, which: int) -> None:
        """Take what a weak reference still has."""
        repr(self.pick(self.weak, which)())

    def collect(self) -> None:
        """Collect the garbage."""
        gc.collect()

    # ---- the process

    def pickle(self, which: int, how: int) -> None:
        """Try to pickle or to copy anything: refused, with advice."""
        handle = self.pick(self.handles(), which)
        try:
            (pickle.dumps, copy.copy, copy.deepcopy)[how % 3](handle)
        except TypeError as error:
            assert "open it again" in str(error)
        else:
            raise AssertionError(f"{handle!r} was copied")

    def fork(self, stay: bool) -> None:
        """Fork. The one side closes all it can and leaves; the other goes on, be it the parent or the child."""
        if self.children > 3:
            return
        self.children += 1
        pid = os.fork()
        if pid == 0 and stay:
            status = 1
            try:
                self.leave()
                status = 0
            finally:
                os._exit(status)
        if pid:
            _, ended = os.waitpid(pid, 0)
            status = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 100 + os.WTERMSIG(ended)
            if not stay:
                os._exit(status)  # the child has done the rest
            assert status == 0, f"the child ended with {status}"

    def together(self, programs: list[list[tuple[str, dict[str, Any]]]]) -> None:
        """Do some operations in threads, all at once."""
        errors: list[BaseException] = []

        def run(program: list[tuple[str, dict[str, Any]]]) -> None:
            for name, arguments in program * 3:
                try:
                    self.do(name, arguments)
                except BaseException as error:
                    errors.append(error)

        threads = [threading.Thread(target=run, args=(program,)) for program in programs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    # ---- the end

    def leave(self) -> None:
        """End everything, views first: nothing remains mapped or open.

        Raises:
            AssertionError: Something does.
        """
        self.arrays.clear()
        for view in self.views:
            view.release()
        self.views.clear()
        gc.collect()
        for handle in self.handles():
            try:
                handle.close()
            except pmem2.VmReservationNotEmptyError:
                pass  # maps in it lie in dropped views or in garbage
            except BufferError:
                pass
        kinds: list[list[Any]] = [self.maps, self.sources, self.contexts, self.reservations, self.configs, self.buffers]
        for things in kinds:
            things.clear()
        for _ in range(4):
            gc.collect()
        left = memory_mapped(self.folder)
        assert not left, f"still mapped: {left}"
        assert descriptors() == self.descriptors, f"{self.descriptors} descriptors have become {descriptors()}"


def run(program: list[tuple[str, dict[str, Any]]], folder: Path) -> tuple[int, int]:
    """Do the operations of a program; return how many succeeded and how many were refused."""
    warnings.simplefilter("ignore", ResourceWarning)
    world = World(folder)
    for name, arguments in program:
        world.do(name, arguments)
    world.leave()
    return world.done, world.refused
