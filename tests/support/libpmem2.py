# SPDX-License-Identifier: BSD-3-Clause
"""Direct calls of libpmem2, without the façade and its guards.

Pointers are plain ints, 0 for NULL. A function with an out-pointer returns the return code and the pointer. A context
manager asserts that the object is created, and deletes it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _pmem2 import ffi, lib

MIB = 1024 * 1024
DEBUG_LIBRARY = r"/pmdk_(dbg|debug)/libpmem2"  # Debian's folder, PMDK's own


# ---- sources


if sys.platform == "win32":
    import msvcrt

    def source_from_handle(handle: int) -> tuple[int, int]:
        """Call pmem2_source_from_handle with an out-pointer that is not NULL."""
        out = ffi.new("struct pmem2_source **", ffi.cast("struct pmem2_source *", 7))
        rc = lib.pmem2_source_from_handle(out, ffi.cast("void *", handle))
        return rc, int(ffi.cast("uintptr_t", out[0]))

    def source_from_fd(fd: int) -> tuple[int, int]:
        """Call pmem2_source_from_handle, since libpmem2's C runtime does not know the interpreter's descriptors."""
        return source_from_handle(file_of(fd))

    def file_of(fd: int) -> int:
        """Return the handle of a descriptor, or INVALID_HANDLE_VALUE."""
        try:
            return msvcrt.get_osfhandle(fd)
        except OSError:
            return -1

    def source_file(source: int) -> tuple[int, int]:
        """Call pmem2_source_get_handle."""
        handle = ffi.new("void **")
        rc = lib.pmem2_source_get_handle(ffi.cast("struct pmem2_source *", source), handle)
        return rc, int(ffi.cast("uintptr_t", handle[0]))

    def source_device_id(source: int) -> int:
        """Call pmem2_source_device_idU for the length and for the id; return the code."""
        pointer, size = ffi.cast("struct pmem2_source *", source), ffi.new("size_t *")
        rc = lib.pmem2_source_device_idU(pointer, ffi.NULL, size)
        return rc or lib.pmem2_source_device_idU(pointer, ffi.new("char[]", size[0]), size)

    def errormsg() -> str:
        """Call pmem2_errormsgU."""
        return ffi.string(lib.pmem2_errormsgU()).decode(errors="replace")

else:

    def source_from_fd(fd: int) -> tuple[int, int]:
        """Call pmem2_source_from_fd with an out-pointer that is not NULL."""
        out = ffi.new("struct pmem2_source **", ffi.cast("struct pmem2_source *", 7))
        rc = lib.pmem2_source_from_fd(out, fd)
        return rc, int(ffi.cast("uintptr_t", out[0]))

    def file_of(fd: int) -> int:
        """Return the descriptor itself, which libpmem2 uses on POSIX."""
        return fd

    def source_file(source: int) -> tuple[int, int]:
        """Call pmem2_source_get_fd."""
        fd = ffi.new("int *", -1)
        rc = lib.pmem2_source_get_fd(ffi.cast("struct pmem2_source *", source), fd)
        return rc, fd[0]

    def source_device_id(source: int) -> int:
        """Call pmem2_source_device_id for the length; return the code."""
        return lib.pmem2_source_device_id(ffi.cast("struct pmem2_source *", source), ffi.NULL, ffi.new("size_t *"))

    def errormsg() -> str:
        """Call pmem2_errormsg."""
        return ffi.string(lib.pmem2_errormsg()).decode(errors="replace")


def source_from_anon(size: int) -> tuple[int, int]:
    """Call pmem2_source_from_anon."""
    out = ffi.new("struct pmem2_source **")
    rc = lib.pmem2_source_from_anon(out, size)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def source_delete(source: int) -> tuple[int, int]:
    """Call pmem2_source_delete."""
    out = ffi.new("struct pmem2_source **", ffi.cast("struct pmem2_source *", source))
    rc = lib.pmem2_source_delete(out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


@contextmanager
def source(fd: int) -> Iterator[int]:
    """Create a source of a descriptor, yield and delete it."""
    rc, pointer = source_from_fd(fd)
    assert rc == 0
    try:
        yield pointer
    finally:
        assert source_delete(pointer) == (0, 0)


def source_size(source: int) -> tuple[int, int]:
    """Call pmem2_source_size."""
    size = ffi.new("size_t *", 7)
    rc = lib.pmem2_source_size(ffi.cast("struct pmem2_source *", source), size)
    return rc, size[0]


def source_alignment(source: int) -> tuple[int, int]:
    """Call pmem2_source_alignment."""
    alignment = ffi.new("size_t *", 7)
    rc = lib.pmem2_source_alignment(ffi.cast("struct pmem2_source *", source), alignment)
    return rc, alignment[0]


def source_numa_node(source: int) -> int:
    """Call pmem2_source_numa_node; return the code."""
    return lib.pmem2_source_numa_node(ffi.cast("struct pmem2_source *", source), ffi.new("int *"))


def pread_mcsafe(source: int, size: int, offset: int) -> tuple[int, bytes]:
    """Call pmem2_source_pread_mcsafe; return the code and the data."""
    buffer = ffi.new("char[]", size)
    rc = lib.pmem2_source_pread_mcsafe(ffi.cast("struct pmem2_source *", source), buffer, size, offset)
    return rc, ffi.buffer(buffer, size)[:]


def pwrite_mcsafe(source: int, data: bytes, offset: int) -> int:
    """Call pmem2_source_pwrite_mcsafe."""
    return lib.pmem2_source_pwrite_mcsafe(
        ffi.cast("struct pmem2_source *", source), ffi.from_buffer("char[]", data), len(data), offset
    )


# ---- configs


def config_new() -> tuple[int, int]:
    """Call pmem2_config_new."""
    out = ffi.new("struct pmem2_config **")
    rc = lib.pmem2_config_new(out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def config_delete(config: int) -> tuple[int, int]:
    """Call pmem2_config_delete."""
    out = ffi.new("struct pmem2_config **", ffi.cast("struct pmem2_config *", config))
    rc = lib.pmem2_config_delete(out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def set_granularity(config: int, granularity: int) -> int:
    """Call pmem2_config_set_required_store_granularity."""
    return lib.pmem2_config_set_required_store_granularity(ffi.cast("struct pmem2_config *", config), granularity)


def set_offset(config: int, offset: int) -> int:
    """Call pmem2_config_set_offset."""
    return lib.pmem2_config_set_offset(ffi.cast("struct pmem2_config *", config), offset)


def set_length(config: int, length: int) -> int:
    """Call pmem2_config_set_length."""
    return lib.pmem2_config_set_length(ffi.cast("struct pmem2_config *", config), length)


def set_sharing(config: int, sharing: int) -> int:
    """Call pmem2_config_set_sharing."""
    return lib.pmem2_config_set_sharing(ffi.cast("struct pmem2_config *", config), sharing)


def set_protection(config: int, protection: int) -> int:
    """Call pmem2_config_set_protection."""
    return lib.pmem2_config_set_protection(ffi.cast("struct pmem2_config *", config), protection)


@contextmanager
def config(
    granularity: int | None = lib.PMEM2_GRANULARITY_PAGE,
    *,
    offset: int = 0,
    length: int = 0,
    sharing: int = lib.PMEM2_SHARED,
    protection: int | None = None,
    reservation: int = 0,
    reservation_offset: int = 0,
) -> Iterator[int]:
    """Create a config, yield and delete it; `None` keeps a default."""
    rc, pointer = config_new()
    assert rc == 0
    try:
        if granularity is not None:
            assert set_granularity(pointer, granularity) == 0
        assert set_offset(pointer, offset) == 0
        assert set_length(pointer, length) == 0
        assert set_sharing(pointer, sharing) == 0
        if protection is not None:
            assert set_protection(pointer, protection) == 0
        rc = lib.pmem2_config_set_vm_reservation(
            ffi.cast("struct pmem2_config *", pointer),
            ffi.cast("struct pmem2_vm_reservation *", reservation),
            reservation_offset,
        )
        assert rc == 0
        yield pointer
    finally:
        assert config_delete(pointer) == (0, 0)


# ---- maps


def map_new(config: int, source: int) -> tuple[int, int]:
    """Call pmem2_map_new with an out-pointer that is not NULL."""
    out = ffi.new("struct pmem2_map **", ffi.cast("struct pmem2_map *", 7))
    rc = lib.pmem2_map_new(out, ffi.cast("struct pmem2_config *", config), ffi.cast("struct pmem2_source *", source))
    return rc, int(ffi.cast("uintptr_t", out[0]))


def map_from_existing(source: int, address: int, length: int, granularity: int) -> tuple[int, int]:
    """Call pmem2_map_from_existing with an out-pointer that is NULL."""
    out = ffi.new("struct pmem2_map **")
    memory = ffi.cast("void *", address)
    rc = lib.pmem2_map_from_existing(out, ffi.cast("struct pmem2_source *", source), memory, length, granularity)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def map_delete(map: int) -> tuple[int, int]:
    """Call pmem2_map_delete."""
    out = ffi.new("struct pmem2_map **", ffi.cast("struct pmem2_map *", map))
    rc = lib.pmem2_map_delete(out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


@contextmanager
def map(config: int, source: int) -> Iterator[int]:
    """Create a map, yield and delete it."""
    rc, pointer = map_new(config, source)
    assert rc == 0, errormsg()
    try:
        yield pointer
    finally:
        assert map_delete(pointer) == (0, 0)


@contextmanager
def existing(source: int, address: int, length: int, granularity: int) -> Iterator[int]:
    """Create a map of existing memory, yield and delete it."""
    rc, pointer = map_from_existing(source, address, length, granularity)
    assert rc == 0
    try:
        yield pointer
    finally:
        assert map_delete(pointer) == (0, 0)


def map_address(map: int) -> int:
    """Call pmem2_map_get_address."""
    return int(ffi.cast("uintptr_t", lib.pmem2_map_get_address(ffi.cast("struct pmem2_map *", map))))


def map_size(map: int) -> int:
    """Call pmem2_map_get_size."""
    return lib.pmem2_map_get_size(ffi.cast("struct pmem2_map *", map))


def map_granularity(map: int) -> int:
    """Call pmem2_map_get_store_granularity."""
    return lib.pmem2_map_get_store_granularity(ffi.cast("struct pmem2_map *", map))


def memcpy(map: int, data: bytes) -> None:
    """Copy to the beginning of a map with the function that pmem2_get_memcpy_fn returns."""
    pointer = ffi.cast("struct pmem2_map *", map)
    source = ffi.from_buffer("char[]", data)
    lib.pmem2_get_memcpy_fn(pointer)(lib.pmem2_map_get_address(pointer), source, len(data), 0)


def memcpy_out(map: int, size: int) -> bytes:
    """Copy from the beginning of a map to the heap with the function that pmem2_get_memcpy_fn returns."""
    pointer = ffi.cast("struct pmem2_map *", map)
    buffer = ffi.new("char[]", size)
    lib.pmem2_get_memcpy_fn(pointer)(buffer, lib.pmem2_map_get_address(pointer), size, 0)
    return ffi.buffer(buffer, size)[:]


def read(map: int, size: int) -> bytes:
    """Return the first *size* bytes of a map."""
    return ffi.buffer(ffi.cast("char *", map_address(map)), size)[:]


def call(address: int) -> int:
    """Call machine code as a function without arguments that returns an int."""
    return ffi.cast("int (*)(void)", address)()


if sys.platform == "win32":
    import ctypes

    # PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY, and the same with PAGE_EXECUTE
    PERMISSIONS = {2: "r--s", 4: "rw-s", 8: "rw-p", 0x20: "r-xs", 0x40: "rwxs", 0x80: "rwxp"}

    def permissions(address: int) -> str | None:
        """Return the permissions of the mapping that begins at *address*, such as `rw-s`, or `None`."""
        information = (ctypes.c_uint32 * 12)()  # a MEMORY_BASIC_INFORMATION
        assert ctypes.windll.kernel32.VirtualQuery(ctypes.c_void_p(address), information, 48)
        begins = information[2] | information[3] << 32 == address
        return PERMISSIONS.get(information[9]) if begins else None

else:

    def permissions(address: int) -> str | None:
        """Return the permissions of the mapping that begins at *address*, such as `r--p`, or `None`."""
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            extent, allowed = line.split()[:2]
            if int(extent.split("-")[0], 16) == address:
                return allowed
        return None


# ---- reservations


def reservation_new(address: int, size: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_new with an out-pointer that is not NULL."""
    out = ffi.new("struct pmem2_vm_reservation **", ffi.cast("struct pmem2_vm_reservation *", 7))
    rc = lib.pmem2_vm_reservation_new(out, ffi.cast("void *", address), size)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def reservation_delete(reservation: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_delete."""
    out = ffi.new("struct pmem2_vm_reservation **", ffi.cast("struct pmem2_vm_reservation *", reservation))
    rc = lib.pmem2_vm_reservation_delete(out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


@contextmanager
def reservation(size: int, address: int = 0) -> Iterator[int]:
    """Create a reservation, yield and delete it."""
    rc, pointer = reservation_new(address, size)
    assert rc == 0, errormsg()
    try:
        yield pointer
    finally:
        assert reservation_delete(pointer) == (0, 0)


def reservation_address(reservation: int) -> int:
    """Call pmem2_vm_reservation_get_address."""
    pointer = ffi.cast("struct pmem2_vm_reservation *", reservation)
    return int(ffi.cast("uintptr_t", lib.pmem2_vm_reservation_get_address(pointer)))


def reservation_size(reservation: int) -> int:
    """Call pmem2_vm_reservation_get_size."""
    return lib.pmem2_vm_reservation_get_size(ffi.cast("struct pmem2_vm_reservation *", reservation))


def extend(reservation: int, size: int) -> int:
    """Call pmem2_vm_reservation_extend."""
    return lib.pmem2_vm_reservation_extend(ffi.cast("struct pmem2_vm_reservation *", reservation), size)


def shrink(reservation: int, offset: int, size: int) -> int:
    """Call pmem2_vm_reservation_shrink."""
    return lib.pmem2_vm_reservation_shrink(ffi.cast("struct pmem2_vm_reservation *", reservation), offset, size)


def find(reservation: int, offset: int, length: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_map_find."""
    out = ffi.new("struct pmem2_map **")
    pointer = ffi.cast("struct pmem2_vm_reservation *", reservation)
    rc = lib.pmem2_vm_reservation_map_find(pointer, offset, length, out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def find_first(reservation: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_map_find_first."""
    out = ffi.new("struct pmem2_map **")
    rc = lib.pmem2_vm_reservation_map_find_first(ffi.cast("struct pmem2_vm_reservation *", reservation), out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def find_last(reservation: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_map_find_last."""
    out = ffi.new("struct pmem2_map **")
    rc = lib.pmem2_vm_reservation_map_find_last(ffi.cast("struct pmem2_vm_reservation *", reservation), out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def find_prev(reservation: int, map: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_map_find_prev."""
    out = ffi.new("struct pmem2_map **")
    pointer = ffi.cast("struct pmem2_vm_reservation *", reservation)
    rc = lib.pmem2_vm_reservation_map_find_prev(pointer, ffi.cast("struct pmem2_map *", map), out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


def find_next(reservation: int, map: int) -> tuple[int, int]:
    """Call pmem2_vm_reservation_map_find_next."""
    out = ffi.new("struct pmem2_map **")
    pointer = ffi.cast("struct pmem2_vm_reservation *", reservation)
    rc = lib.pmem2_vm_reservation_map_find_next(pointer, ffi.cast("struct pmem2_map *", map), out)
    return rc, int(ffi.cast("uintptr_t", out[0]))


# ---- errors


def is_debug_build() -> bool:
    """Return whether this process has the debug build of libpmem2, which clears old messages and checks assertions."""
    return re.search(DEBUG_LIBRARY, Path("/proc/self/maps").read_text(encoding="utf-8")) is not None


# ---- flushing


def persist(map: int, offset: int, size: int) -> None:
    """Call the function that pmem2_get_persist_fn returns."""
    lib.pmem2_get_persist_fn(ffi.cast("struct pmem2_map *", map))(ffi.cast("void *", map_address(map) + offset), size)


def flush(map: int, offset: int, size: int) -> None:
    """Call the function that pmem2_get_flush_fn returns."""
    lib.pmem2_get_flush_fn(ffi.cast("struct pmem2_map *", map))(ffi.cast("void *", map_address(map) + offset), size)


def drain(map: int) -> None:
    """Call the function that pmem2_get_drain_fn returns."""
    lib.pmem2_get_drain_fn(ffi.cast("struct pmem2_map *", map))()


def deep_flush(map: int, offset: int, size: int) -> int:
    """Call pmem2_deep_flush; *offset* may be negative."""
    pointer = ffi.cast("struct pmem2_map *", map)
    return lib.pmem2_deep_flush(pointer, ffi.cast("void *", map_address(map) + offset), size)


def functions(map: int) -> tuple[int, int, int, int, int, int]:
    """Return the addresses of the functions of a map: persist, flush, drain, memmove, memcpy, memset."""
    pointer = ffi.cast("struct pmem2_map *", map)
    return (
        int(ffi.cast("uintptr_t", lib.pmem2_get_persist_fn(pointer))),
        int(ffi.cast("uintptr_t", lib.pmem2_get_flush_fn(pointer))),
        int(ffi.cast("uintptr_t", lib.pmem2_get_drain_fn(pointer))),
        int(ffi.cast("uintptr_t", lib.pmem2_get_memmove_fn(pointer))),
        int(ffi.cast("uintptr_t", lib.pmem2_get_memcpy_fn(pointer))),
        int(ffi.cast("uintptr_t", lib.pmem2_get_memset_fn(pointer))),
    )


# ---- copying


def load(address: int, size: int) -> bytes:
    """Return the bytes at an address."""
    return ffi.buffer(ffi.cast("char *", address), size)[:]


def store(address: int, data: bytes) -> None:
    """Store bytes at an address, without libpmem2."""
    ffi.memmove(ffi.cast("char *", address), data, len(data))


def memcpy_flags(map: int, data: bytes, flags: int) -> None:
    """Copy to the beginning of a map with *flags*."""
    pointer = ffi.cast("struct pmem2_map *", map)
    source = ffi.from_buffer("char[]", data)
    lib.pmem2_get_memcpy_fn(pointer)(lib.pmem2_map_get_address(pointer), source, len(data), flags)


# ---- bad blocks, devices


def source_device_usc(source: int) -> int:
    """Call pmem2_source_device_usc; return the code."""
    return lib.pmem2_source_device_usc(ffi.cast("struct pmem2_source *", source), ffi.new("uint64_t *"))


def badblock_context_new(source: int) -> tuple[int, int]:
    """Call pmem2_badblock_context_new with an out-pointer that is NULL."""
    out = ffi.new("struct pmem2_badblock_context **")
    rc = lib.pmem2_badblock_context_new(out, ffi.cast("struct pmem2_source *", source))
    return rc, int(ffi.cast("uintptr_t", out[0]))


@contextmanager
def badblocks(source: int) -> Iterator[int]:
    """Create a bad-block context, yield and delete it."""
    rc, pointer = badblock_context_new(source)
    assert rc == 0, errormsg()
    out = ffi.new("struct pmem2_badblock_context **", ffi.cast("struct pmem2_badblock_context *", pointer))
    try:
        yield pointer
    finally:
        lib.pmem2_badblock_context_delete(out)


def badblock_next(context: int) -> int:
    """Call pmem2_badblock_next; return the code."""
    block = ffi.new("struct pmem2_badblock *")
    return lib.pmem2_badblock_next(ffi.cast("struct pmem2_badblock_context *", context), block)


def badblock_clear(context: int, offset: int, length: int) -> int:
    """Call pmem2_badblock_clear."""
    block = ffi.new("struct pmem2_badblock *", (offset, length))
    return lib.pmem2_badblock_clear(ffi.cast("struct pmem2_badblock_context *", context), block)
