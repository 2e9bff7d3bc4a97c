# SPDX-License-Identifier: BSD-3-Clause
"""The public API of pmem2 as operations on a few objects, picked by number.

Every operation raises only documented exceptions and must neither kill nor hang the process. Three operations are
documented to kill and therefore missing: truncating a mapped file, writing to a hole on a full disk, and, on PyPy,
closing the mmap under a map.
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
MAX_OBJECTS = 6  # of a kind: few objects meet again and again; a new one replaces the oldest
DOCUMENTED = (ValueError, TypeError, IndexError, BufferError, OSError)


def memory_mapped(folder: Path) -> list[str]:
    """Return the mappings of this process that belong to files in a folder."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


def descriptors() -> int:
    """Return the number of descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


class Model:
    """The objects of a program, and its operations."""

    def __init__(self, folder: Path) -> None:
        """Create two files."""
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

    # ---- objects

    def pick(self, objects: list[T], number: int) -> T:
        """Return an object; raise a documented exception if there is none."""
        if not objects:
            raise ValueError("there is no such object")
        return objects[number % len(objects)]

    def keep(self, objects: list[T], new: T) -> None:
        """Add an object; drop the oldest one if there are too many."""
        objects.append(new)
        if len(objects) > MAX_OBJECTS:
            del objects[0]

    def handles(self) -> list[Any]:
        """Return the objects that can be closed."""
        return [*self.maps, *self.sources, *self.contexts, *self.reservations]

    def do(self, name: str, arguments: dict[str, Any]) -> None:
        """Do one operation; it may raise a documented exception.

        Raises:
            Exception: The operation raised an undocumented exception.
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
        """Make a source of a descriptor, a file object, or any number."""
        with open(self.pick(self.paths, which), mode, buffering=0) as file:
            self.keep(self.sources, pmem2.Source.from_fd((file, file.fileno(), number)[which % 3]))

    def source_from_anon(self, size: Any) -> None:
        """Make an anonymous source."""
        self.keep(self.sources, pmem2.Source.from_anon(size))

    def inspect_source(self, which: int) -> None:
        """Read every property of a source."""
        source = self.pick(self.sources, which)
        repr(source)
        for name in ("fd", "size", "alignment", "device_id", "device_usc", "numa_node", "closed"):
            with suppress(*DOCUMENTED):
                getattr(source, name)

    def read_source(self, which: int, size: Any, offset: Any, into: int) -> None:
        """Read with the protection against bad blocks."""
        source = self.pick(self.sources, which)
        if into % 2:
            source.pread_mcsafe_into((bytearray(into), b"read-only", array("Q", [0] * 9))[into % 3], offset)
        else:
            assert len(source.pread_mcsafe(size, offset)) == size

    def read_source_into_view(self, which: int, view: int, offset: Any) -> None:
        """Read a source into a view of a map, maybe of the same file."""
        self.pick(self.sources, which).pread_mcsafe_into(self.pick(self.views, view), offset)

    def write_source(self, which: int, data: bytes, offset: Any) -> None:
        """Write with the protection against bad blocks."""
        self.pick(self.sources, which).pwrite_mcsafe(data, offset)

    def write_source_from_view(self, which: int, view: int, offset: Any) -> None:
        """Write a source from a view of a map, maybe of the same file."""
        self.pick(self.sources, which).pwrite_mcsafe(self.pick(self.views, view), offset)

    def bad_blocks(self, which: int) -> None:
        """Make a bad-block context."""
        self.keep(self.contexts, self.pick(self.sources, which).bad_blocks())

    def use_bad_blocks(self, which: int, offset: int, length: int) -> None:
        """Iterate, and try to clear a block that the iteration did not produce."""
        context = self.pick(self.contexts, which)
        list(context)
        context.clear(pmem2.BadBlock(offset, length))

    # ---- configs

    def make_config(self, fields: dict[str, Any]) -> None:
        """Make a config with any values."""
        self.keep(self.configs, pmem2.Config(**fields))

    def place_config(self, which: int, reservation: int, page: int, pages: int) -> None:
        """Make a config that maps into a reservation."""
        position: dict[str, Any] = {
            "reservation": self.pick(self.reservations, reservation),
            "reservation_offset": page * PAGE,
        }
        self.keep(self.configs, attrs.evolve(self.pick(self.configs, which), length=pages * PAGE or None, **position))

    def use_config(self, which: int, other: int, fields: dict[str, Any]) -> None:
        """Compare, hash, copy and evolve."""
        one, two = self.pick(self.configs, which), self.pick(self.configs, other)
        assert (one == two) <= (hash(one) == hash(two))
        self.keep(self.configs, attrs.evolve(one, **fields))

    # ---- maps

    def map_source(self, which: int, config: int) -> None:
        """Map a source."""
        self.keep(self.maps, self.pick(self.sources, which).map(self.pick(self.configs, config)))

    def map_open(self, which: int, mode: Any, size: Any, config: int) -> None:
        """Open a file; modes that truncate get a new one, because mapped files must not be truncated."""
        path = self.pick(self.paths, which)
        if mode in ("w+", "x+"):
            self.files += 1
            path = self.folder / f"new{os.getpid()}-{self.files}"
        picked = self.pick(self.configs, config) if which % 2 else pmem2.Config()
        self.keep(self.maps, pmem2.open(path, mode, size=size, config=picked))

    def map_existing(self, which: int, buffer: int, granularity: Any) -> None:
        """Make a map of mapped memory or of an ordinary buffer."""
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

    def inspect_map(self, which: int) -> None:
        """Read every property of a map."""
        map = self.pick(self.maps, which)
        repr(map)
        _ = (map.granularity, map.protection, map.sharing, map.config, map.closed)
        assert map.size == len(map)
        assert map.address

    def init_map_again(self, which: int, source: int, config: int) -> None:
        """Call `__init__` of an initialised map."""
        self.pick(self.maps, which).__init__(self.pick(self.sources, source), self.pick(self.configs, config))

    def view_map(self, which: int, offset: Any, length: Any) -> None:
        """Make a view."""
        self.keep(self.views, self.pick(self.maps, which).view(offset, length))

    def slice_view(self, which: int, start: int, stop: int, step: int) -> None:
        """Make a view of a view."""
        self.keep(self.views, self.pick(self.views, which)[start : stop : step or 1])

    def cast_view(self, which: int, code: str) -> None:
        """Cast a view to another type."""
        self.keep(self.views, self.pick(self.views, which).cast("B").cast(code))  # type: ignore[call-overload]

    def store_in_view(self, which: int, value: int) -> None:
        """Store through a view, and read it."""
        view = self.pick(self.views, which)
        view[0:1] = bytes([value % 256])
        view.tobytes()

    def remove_view(self, which: int, release: bool) -> None:
        """Release a view, or drop it."""
        view = self.pick(self.views, which)
        self.views.remove(view)
        if release:
            view.release()

    def as_array(self, which: int, dtype: str, shape: Any, offset: Any) -> None:
        """Make a NumPy array and use it."""
        array = self.pick(self.maps, which).as_array(dtype, shape, offset)
        self.keep(self.arrays, array)
        if array.size and array.flags.writeable:
            array[...] = array[::-1] if array.ndim else array

    def remove_array(self, which: int) -> None:
        """Drop an array."""
        array = self.pick(self.arrays, which)
        self.arrays = [other for other in self.arrays if other is not array]

    def read_map(self, which: int, key: Any) -> None:
        """Read an item or a slice."""
        _ = self.pick(self.maps, which)[key]

    def write_map(self, which: int, key: Any, value: Any) -> None:
        """Store an item or a slice."""
        self.pick(self.maps, which)[key] = value

    def sync_range(self, which: int, how: str, offset: Any, length: Any) -> None:
        """Persist, flush, deep-flush, publish or acquire a range, and drain."""
        map = self.pick(self.maps, which)
        getattr(map, how)(offset, length)
        map.drain()

    def sync_ranges(self, which: int, how: str, pairs: Any, packed: bool) -> None:
        """Persist, flush, publish or acquire many ranges."""
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
        """Search a reservation in every way: each result is one of its maps, as the same object."""
        reservation = self.pick(self.reservations, which)
        repr(reservation)
        maps = list(reservation)
        searches: list[Callable[[], pmem2.Map]] = [
            lambda: reservation.find(offset, length),
            reservation.first,
            reservation.last,
            lambda: reservation.next(self.pick(self.maps, map)),
            lambda: reservation.prev(self.pick(self.maps, map)),
        ]
        for find in searches:
            try:
                found = find()
            except DOCUMENTED:
                continue
            assert found.config.reservation is reservation
            assert threading.active_count() > 1 or any(found is other for other in maps)

    # ---- closing

    def close(self, which: int, with_statement: bool) -> None:
        """Close an object: it is closed afterwards, and can be closed again."""
        handle = self.pick(self.handles(), which)
        if with_statement:
            handle.__exit__(None, None, None)
        else:
            handle.close()
        assert handle.closed
        handle.close()

    def drop(self, which: int, watch: bool) -> None:
        """Drop an object, maybe in a garbage cycle."""
        handle = self.pick(self.handles(), which)
        if watch:
            self.weak.append(weakref.ref(handle))
        else:
            cycle: list[object] = [handle]
            cycle.append(cycle)
        kinds: list[list[Any]] = [self.maps, self.sources, self.contexts, self.reservations]
        for things in kinds:
            things[:] = [thing for thing in things if thing is not handle]

    def use_weak_reference(self, which: int) -> None:
        """Use the object of a weak reference, which may be gone."""
        repr(self.pick(self.weak, which)())

    def collect(self) -> None:
        """Collect garbage."""
        gc.collect()

    # ---- the process

    def pickle(self, which: int, how: int) -> None:
        """Pickling and copying raise an exception that suggests an alternative."""
        handle = self.pick(self.handles(), which)
        try:
            (pickle.dumps, copy.copy, copy.deepcopy)[how % 3](handle)
        except TypeError as error:
            assert "open it there" in str(error)
        else:
            raise AssertionError(f"{handle!r} was copied")

    def fork(self, stay: bool) -> None:
        """Fork; parent or child closes everything and exits, the other one continues the program."""
        if self.children > 3:
            return
        self.children += 1
        pid = os.fork()
        if pid == 0 and stay:
            status = 1
            try:
                self.close_all()
                status = 0
            finally:
                os._exit(status)
        if pid:
            _, ended = os.waitpid(pid, 0)
            status = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 100 + os.WTERMSIG(ended)
            if not stay:
                os._exit(status)  # the child has run the rest of the program
            assert status == 0, f"the child ended with {status}"

    def run_in_threads(self, programs: list[list[tuple[str, dict[str, Any]]]]) -> None:
        """Do operations in several threads at the same time."""
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

    # ---- end of the program

    def close_all(self) -> None:
        """Close everything, views first.

        Raises:
            AssertionError: Something is still mapped or open.
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
                pass  # dropped views or garbage keep its maps open
            except BufferError:
                pass
        kinds: list[list[Any]] = [self.maps, self.sources, self.contexts, self.reservations, self.configs, self.buffers]
        for things in kinds:
            things.clear()
        for _ in range(4):
            gc.collect()
        left = memory_mapped(self.folder)
        assert not left, f"still mapped: {left}"
        assert descriptors() == self.descriptors, f"{self.descriptors} descriptors before, {descriptors()} now"


def run(program: list[tuple[str, dict[str, Any]]], folder: Path) -> tuple[int, int]:
    """Run a program; return the numbers of operations that succeeded and that raised a documented exception."""
    warnings.simplefilter("ignore", ResourceWarning)
    model = Model(folder)
    for name, arguments in program:
        model.do(name, arguments)
    model.close_all()
    return model.done, model.refused
