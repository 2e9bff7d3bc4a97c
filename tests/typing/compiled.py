# SPDX-License-Identifier: BSD-3-Clause
# mypy: disallow-any-expr
"""Types in the stubs of the compiled module. A type checker checks this file; it never runs."""

from _pmem2 import CharPointer, Out, Pointer, RawConfig, RawMap, RawSource, SizePointer, SourceHandle, ffi, lib
from typing_extensions import assert_type

assert_type(lib.PMEM2_E_NOSUPP, int)
lib.PMEM2_E_NOSUPP = 0  # type: ignore[misc]


def libpmem2(config: RawConfig, source: RawSource) -> None:
    """Pointers to different structs have different types, and so does a pointer to a pointer."""
    out = ffi.new("struct pmem2_map **")
    assert_type(out, Out[RawMap])
    assert_type(lib.pmem2_map_new(out, config, source), int)
    assert_type(out[0], RawMap)
    assert_type(lib.pmem2_map_get_address(out[0]), Pointer)
    lib.pmem2_get_persist_fn(out[0])(lib.pmem2_map_get_address(out[0]), 8)
    lib.pmem2_map_new(out, source, config)  # type: ignore[arg-type]
    lib.pmem2_map_new(out[0], config, source)  # type: ignore[arg-type]
    lib.pmem2_map_new(ffi.new("struct pmem2_source **"), config, source)  # type: ignore[arg-type]
    lib.pmem2_map_new(map_ptr=out, cfg=config, src=source)  # type: ignore[call-arg]
    lib.pmem2_map_get_size(source)  # type: ignore[arg-type]
    lib.pmem2_map_get_size(ffi.NULL)  # type: ignore[arg-type]


def guards(source: SourceHandle, raw: RawSource) -> None:
    """The guards accept only their own structs."""
    size, message = ffi.new("size_t *"), ffi.new("char[]", 256)
    assert_type(size, SizePointer)
    assert_type(lib.guarded_source_size(source, size, message), int)
    assert_type(size[0], int)
    assert_type(ffi.string(message), bytes)
    lib.guarded_source_device_id(source, ffi.NULL, size, message)
    lib.guarded_source_size(raw, size, message)  # type: ignore[arg-type]
    lib.guarded_source_size(source, ffi.new("int *"), message)  # type: ignore[arg-type]
    lib.guarded_source_size(source, size)  # type: ignore[call-arg]
    lib.guarded_drain(source)  # type: ignore[arg-type]


def memory(map: RawMap) -> None:
    """A destructor accepts only its own type, and type names follow C."""
    pointer = ffi.cast("char *", lib.pmem2_map_get_address(map))
    assert_type(ffi.gc(pointer, print), CharPointer)
    assert_type(ffi.buffer(pointer, 8)[:], bytes)
    assert_type(memoryview(ffi.buffer(pointer, 8)), memoryview)
    assert_type(int(ffi.cast("uintptr_t", pointer)), int)
    with ffi.from_buffer("uint64_t[]", b"") as numbers:
        assert_type(len(numbers), int)
    ffi.gc(pointer, lib.guarded_source_drop)  # type: ignore[arg-type]
    ffi.new("struct pmem2_map *")  # type: ignore[call-overload]
    ffi.string(map)  # type: ignore[call-overload]
