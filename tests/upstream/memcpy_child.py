# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's checks of memcpy, memmove and memset, for the façade and for libpmem2 itself.

libpmem2 chooses its copy functions from the environment when it is loaded, so most checks run in a child process: a
test calls `main` there with the arguments CHECK FILE, which runs one check at every granularity.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Callable, Union

from _pmem2 import ffi, lib
from support import libpmem2
from support.values import ALL_GRANULARITIES

import pmem2
from pmem2 import MemFlag

SIZE = 4 * 1024 * 1024
PAGE = 4096
NT, T = MemFlag.NONTEMPORAL, MemFlag.TEMPORAL
EVERY_FLAG = MemFlag(lib.PMEM2_F_MEM_VALID_FLAGS)
FLAGS = [MemFlag(0), MemFlag.NODRAIN, NT, T, NT | T, NT | MemFlag.NODRAIN, MemFlag.WC, MemFlag.WB, MemFlag.NOFLUSH]
FLAGS.append(EVERY_FLAG)
CONFLICTING = [NT | T, EVERY_FLAG]  # undefined according to the man page, and refused by the façade
VARIANT_FLAGS = [MemFlag(0), NT, T, NT | T, MemFlag.WC, MemFlag.WB, MemFlag.NOFLUSH, EVERY_FLAG]


class Library:
    """libpmem2's own copy functions, which accept any address."""

    def __init__(self, map: int) -> None:
        """Get the functions of *map*; they stay valid after it is deleted."""
        pointer = ffi.cast("struct pmem2_map *", map)
        self.map = map
        self.flags = FLAGS
        self.address = libpmem2.map_address(map)
        self._memcpy = lib.pmem2_get_memcpy_fn(pointer)
        self._memmove = lib.pmem2_get_memmove_fn(pointer)
        self._memset = lib.pmem2_get_memset_fn(pointer)

    def memcpy(self, target: int, source: int, size: int, flags: int) -> None:
        """Copy from one address to another."""
        returned = self._memcpy(ffi.cast("void *", target), ffi.cast("void *", source), size, flags)
        assert int(ffi.cast("uintptr_t", returned)) == target

    def memmove(self, target: int, source: int, size: int, flags: int) -> None:
        """Copy from one address to another that may overlap."""
        returned = self._memmove(ffi.cast("void *", target), ffi.cast("void *", source), size, flags)
        assert int(ffi.cast("uintptr_t", returned)) == target

    def memset(self, target: int, value: int, size: int, flags: int) -> None:
        """Fill memory at an address."""
        returned = self._memset(ffi.cast("void *", target), value, size, flags)
        assert int(ffi.cast("uintptr_t", returned)) == target


class Facade:
    """The copy methods of a Map, called with addresses inside it."""

    def __init__(self, map: pmem2.Map) -> None:
        """Use *map*."""
        self.map = map
        self.flags = [flags for flags in FLAGS if flags not in CONFLICTING]
        self.address = map.address

    def memcpy(self, target: int, source: int, size: int, flags: int) -> None:
        """Copy from one address to another."""
        with self.map.view(source - self.address, size) as data:
            self.map.memcpy(target - self.address, data, flags)  # type: ignore[arg-type]

    def memmove(self, target: int, source: int, size: int, flags: int) -> None:
        """Copy from one address to another that may overlap."""
        with self.map.view(source - self.address, size) as data:
            self.map.memmove(target - self.address, data, flags)  # type: ignore[arg-type]

    def memset(self, target: int, value: int, size: int, flags: int) -> None:
        """Fill memory at an address."""
        self.map.memset(target - self.address, value, size, flags)  # type: ignore[arg-type]


Copier = Union[Library, Facade]


def make_noise(size: int) -> bytes:
    """Return pseudo-random bytes that depend on *size* only."""
    return random.Random(size).getrandbits(8 * size).to_bytes(size, "little")


@contextmanager
def copiers(fd: int) -> Iterator[list[Copier]]:
    """Yield libpmem2 itself and the façade, each with its own map of the file."""
    with ExitStack() as stack:
        raw_source, config = stack.enter_context(libpmem2.source(fd)), stack.enter_context(libpmem2.config())
        raw_map = stack.enter_context(libpmem2.map(config, raw_source))
        source = stack.enter_context(pmem2.Source.from_fd(fd))
        yield [Library(raw_map), Facade(stack.enter_context(source.map()))]


def check_memcpy(copier: Copier, fd: int) -> None:
    """Copy between the halves of the file: onto itself, 0 bytes, half of the length; compare memory and file."""
    start, middle = copier.address, copier.address + SIZE // 2
    for base, other in ((start, middle), (middle, start)):
        for target_offset, source_offset, length in ((0, 0, PAGE), (7, 0, PAGE), (7, 9, PAGE), (0, 9, PAGE)):
            target, source = base + target_offset, other + source_offset
            pattern = two_quarters(length)
            blank = bytes(length)
            for flags in copier.flags:
                libpmem2.store(target, blank)
                libpmem2.store(source, pattern + blank[len(pattern) :])
                copier.memcpy(target, target, length // 2, flags)
                assert libpmem2.load(target, length) == blank, (target_offset, source_offset, flags)
                copier.memcpy(target, source, 0, flags)
                assert libpmem2.load(target, length) == blank, (target_offset, source_offset, flags)
                copier.memcpy(target, source, length // 2, flags)
                expected = pattern + blank[len(pattern) :]
                assert libpmem2.load(target, length) == expected, (target_offset, source_offset, flags)
                assert os.pread(fd, length, target - start) == expected, (target_offset, source_offset, flags)


def two_quarters(length: int) -> bytes:
    """Return half of *length* bytes: a quarter with one value, a quarter with another."""
    return b"\x5a" * (length // 4) + b"\x46" * (length // 4)


# target offset, source offset, length, overlap
MOVES = [
    (0, 0, 4096, False),
    (0, 7, 4096, False),
    (7, 13, 4096, False),
    (0, 23, 4096, True),
    (21, 0, 4096, False),
    (21, 7, 4096, False),
    (0, 20, 4096, True),
    (13, 20, 4096, True),
    (33, 0, 2048, True),
    (20, 0, 4096, True),
    (0, 0, 8, False),
    (63, 0, 4, False),
    (2, 0, 8, True),
]
REGION = 4 * PAGE


def check_memmove(copier: Copier, fd: int) -> None:
    """Move in both directions and compare the whole region with the same moves in a bytearray."""
    noise = make_noise(2 * REGION)
    for target_offset, source_offset, length, overlap in MOVES:
        low, high = target_offset, source_offset + (0 if overlap else REGION // 2)
        for target, source in ((low, high), (high, low)):
            for flags in copier.flags:
                shadow = bytearray(noise[flags : flags + REGION])
                libpmem2.store(copier.address, bytes(shadow))
                start = copier.address
                copier.memmove(start + target, start + target, length // 2, flags)
                copier.memmove(start + target, start + source, 0, flags)
                assert libpmem2.load(start, REGION) == shadow, (target, source, length, flags)
                copier.memmove(start + target, start + source, length // 2, flags)
                shadow[target : target + length // 2] = shadow[source : source + length // 2]
                assert libpmem2.load(start, REGION) == shadow, (target, source, length, flags)
                assert os.pread(fd, REGION, 0) == shadow, (target, source, length, flags)


def check_memset(copier: Copier, fd: int) -> None:
    """Set 0 bytes, a quarter and the next quarter; compare memory and file."""
    for offset, length in ((0, 8), (13, PAGE)):
        target, quarter = copier.address + offset, length // 4
        for flags in copier.flags:
            libpmem2.store(copier.address, bytes(offset + length))
            copier.memset(target, 0x5A, 0, flags)
            assert libpmem2.load(copier.address, offset + length) == bytes(offset + length), (offset, length, flags)
            copier.memset(target, 0x5A, quarter, flags)
            copier.memset(target + quarter, 0x46, quarter, flags)
            pattern = two_quarters(length)
            expected = bytes(offset) + pattern + bytes(length - len(pattern))
            assert libpmem2.load(copier.address, offset + length) == expected, (offset, length, flags)
            assert os.pread(fd, offset + length, 0) == expected, (offset, length, flags)


def check_movnt(copier: Copier, fd: int) -> None:
    """Copy, move and set every power of two up to a page; check that the next byte is unchanged."""
    noise = make_noise(2 * PAGE)
    target, source = copier.address, copier.address + 2 * PAGE
    memory = None
    if isinstance(copier, Library):  # libpmem2's functions also work outside of maps
        memory = ffi.new("char[]", 5 * PAGE)
        target = -(-int(ffi.cast("uintptr_t", memory)) // PAGE) * PAGE
        source = target + 2 * PAGE
    for flags in copier.flags:
        for power in range(13):
            size = 2**power
            data = noise[power : power + size]
            for copy in (copier.memcpy, copier.memmove):
                libpmem2.store(target, bytes(2 * PAGE))
                libpmem2.store(source, data)
                copy(target, source, size, flags)
                assert libpmem2.load(target, size + 1) == data + b"\0", (size, flags)
            copier.memset(target, size % 251, size, flags)
            assert libpmem2.load(target, size + 1) == bytes([size % 251]) * size + b"\0", (size, flags)
    del memory


CHECKS: dict[str, Callable[[Copier, int], None]] = {
    "memcpy": check_memcpy,
    "memmove": check_memmove,
    "memset": check_memset,
    "movnt": check_movnt,
}

GUARDED = 2 * PAGE


@contextmanager
def guarded_memory(size: int) -> Iterator[int]:
    """Yield the address of memory between two inaccessible pages."""
    with libpmem2.reservation(size + 2 * PAGE) as reservation:
        rc, source = libpmem2.source_from_anon(size)
        assert rc == 0
        byte = lib.PMEM2_GRANULARITY_BYTE
        with libpmem2.config(byte, reservation=reservation, reservation_offset=PAGE) as config:
            with libpmem2.map(config, source) as map:
                yield libpmem2.map_address(map)
        assert libpmem2.source_delete(source) == (0, 0)


def check_movnt_align(fd: int) -> None:
    """Copy, move and set next to guard pages with the functions of a deleted map, at 64 alignments."""
    with libpmem2.source(fd) as source, libpmem2.config() as config, libpmem2.map(config, source) as map:
        library = Library(map)
    data = make_noise(GUARDED)
    with guarded_memory(GUARDED) as target, guarded_memory(GUARDED) as other, guarded_memory(GUARDED + PAGE) as both:
        libpmem2.store(other, data)
        for flags in FLAGS:
            for skip in range(64):
                for begin, end in ((0, GUARDED - skip), (skip, GUARDED), (skip, GUARDED - skip)):
                    check_one_alignment(library, target, other, both, data, begin, end, flags)
            for copy in (library.memcpy, library.memmove):
                copy(target + GUARDED, other + GUARDED, 0, flags)
            library.memset(target + GUARDED, 1, 0, flags)


def check_one_alignment(
    library: Library, target: int, other: int, both: int, data: bytes, begin: int, end: int, flags: int
) -> None:
    """Copy, move forward, move backward and set from *begin* to *end*."""
    size = end - begin
    blank = bytes(GUARDED)
    libpmem2.store(target, blank)
    library.memcpy(target + begin, other + begin, size, flags)
    assert libpmem2.load(target, GUARDED) == blank[:begin] + data[begin:end] + blank[end:], (begin, end, flags)
    for target_page, source_page in ((PAGE, 0), (0, PAGE)):
        shadow = bytearray(GUARDED + PAGE)
        shadow[source_page + begin : source_page + end] = data[begin:end]
        libpmem2.store(both, bytes(shadow))
        library.memmove(both + target_page + begin, both + source_page + begin, size, flags)
        shadow[target_page + begin : target_page + end] = data[begin:end]
        assert libpmem2.load(both, GUARDED + PAGE) == shadow, (begin, end, flags)
    library.memset(target + begin, 0xA5, size, flags)
    assert libpmem2.load(target, GUARDED) == blank[:begin] + b"\xa5" * size + blank[end:], (begin, end, flags)


def main() -> None:
    """Run a check at every forced granularity."""
    name, path = sys.argv[1:]
    fd = os.open(path, os.O_RDWR)
    for granularity in ALL_GRANULARITIES:
        os.environ["PMEM2_FORCE_GRANULARITY"] = granularity.name
        if name == "movnt_align":
            check_movnt_align(fd)
            continue
        with copiers(fd) as both:
            for copier in both:
                CHECKS[name](copier, fd)
    os.close(fd)
    print("checked")
