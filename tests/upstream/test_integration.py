# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of sources, configs and maps together: rows 173 to 187."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from _pmem2 import ffi, lib
from support import libpmem2
from support.values import SIZE

import pmem2
from pmem2 import ErrorCode, Granularity, Protection, Sharing

GIB = 1024 * libpmem2.MIB


@pytest.mark.upstream("pmem2_integration/TEST0")
@pytest.mark.medium
def test_one_config_two_maps(source: pmem2.Source, raw_source: int, granularity: Granularity) -> None:
    """One config and one source make two maps of the whole file at different addresses."""
    config = pmem2.Config()
    with source.map(config) as one, source.map(config) as other:
        assert (one.size, other.size) == (SIZE, SIZE)
        assert one.granularity is other.granularity is granularity
        assert one.address != other.address
        one[0:4] = b"both"
        assert other[0:4] == b"both"
    assert one.closed
    assert other.closed
    with (
        libpmem2.config() as shared,
        libpmem2.map(shared, raw_source) as first,
        libpmem2.map(shared, raw_source) as second,
    ):
        assert (libpmem2.map_size(first), libpmem2.map_size(second)) == (SIZE, SIZE)


@pytest.mark.upstream("pmem2_integration/TEST1")
@pytest.mark.medium
def test_one_config_two_files(file: Path, tmp_path: Path, granularity: Granularity) -> None:
    """One config maps two files, and closing one file does not affect the map of the other."""
    second = tmp_path / "second"
    second.write_bytes(b"second" + bytes(SIZE - 6))
    config = pmem2.Config()
    with pmem2.Source.from_path(file) as source, source.map(config) as map:
        with pmem2.Source.from_path(second) as other, other.map(config) as other_map:
            assert other_map[0:6] == b"second"
        assert map[0:6] == bytes(6)
        assert other.closed


@pytest.mark.upstream("pmem2_integration/TEST1")
@pytest.mark.libpmem2
@pytest.mark.medium
def test_library_config_two_files(raw_source: int, tmp_path: Path, granularity: Granularity) -> None:
    """One libpmem2 config maps two files, and closing one file does not affect the map of the other."""
    second = tmp_path / "second"
    second.write_bytes(b"second" + bytes(SIZE - 6))
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as map:
        with (
            open(second, "r+b") as opened,
            libpmem2.source(opened.fileno()) as other,
            libpmem2.map(config, other) as other_map,
        ):
            assert libpmem2.read(other_map, 6) == b"second"
        assert libpmem2.read(map, 6) == bytes(6)
        assert libpmem2.map_granularity(map) == granularity


def check_refused(source: pmem2.Source, raw_source: int, code: ErrorCode, offset: int, length: int) -> None:
    """Check that neither the façade nor libpmem2 maps that range."""
    with pytest.raises(pmem2.Pmem2Error) as caught:
        source.map(pmem2.Config(offset=offset, length=length))
    assert caught.value.code is code
    assert caught.value.function == "pmem2_map_new"
    with libpmem2.config(offset=offset, length=length) as config:
        assert libpmem2.map_new(config, raw_source) == (code, 0)


@pytest.mark.upstream("pmem2_integration/TEST14")
@pytest.mark.medium
def test_unaligned_length(source: pmem2.Source, raw_source: int) -> None:
    """An unaligned length is LENGTH_UNALIGNED, and libpmem2 sets its out-pointer to NULL."""
    check_refused(source, raw_source, ErrorCode.LENGTH_UNALIGNED, 0, SIZE - 1)


@pytest.mark.upstream("pmem2_integration/TEST16")
@pytest.mark.medium
def test_aligned_length(source: pmem2.Source, raw_source: int, granularity: Granularity) -> None:
    """An aligned length is the size of the map."""
    length = SIZE - source.alignment
    with source.map(pmem2.Config(length=length)) as map:
        assert map.size == len(map) == length
        assert map.granularity is granularity
    with libpmem2.config(length=length) as config, libpmem2.map(config, raw_source) as raw_map:
        assert libpmem2.map_size(raw_map) == length


@pytest.mark.upstream("pmem2_integration/TEST18")
@pytest.mark.medium
def test_unaligned_offset(source: pmem2.Source, raw_source: int) -> None:
    """An unaligned offset is OFFSET_UNALIGNED."""
    check_refused(source, raw_source, ErrorCode.OFFSET_UNALIGNED, source.alignment - 1, SIZE - source.alignment)


@pytest.mark.upstream("pmem2_integration/TEST20")
@pytest.mark.medium
def test_aligned_offset(source: pmem2.Source, raw_source: int, file: Path, granularity: Granularity) -> None:
    """A map can begin at any multiple of the alignment, and its stores reach that part of the file."""
    offset, length = source.alignment, SIZE // 2
    with source.map(pmem2.Config(offset=offset, length=length)) as map:
        assert map.size == length
        map.memcpy(0, b"begin")
        map.memcpy(length - 3, b"end")
    content = file.read_bytes()
    assert content[offset : offset + 5] == b"begin"
    assert content[offset + length - 3 : offset + length] == b"end"
    with libpmem2.config(offset=offset, length=length) as config, libpmem2.map(config, raw_source) as raw_map:
        assert libpmem2.map_size(raw_map) == length
        assert libpmem2.read(raw_map, 5) == b"begin"


@pytest.mark.upstream("pmem2_integration/TEST28")
def test_anonymous_private() -> None:
    """Anonymous memory maps privately at BYTE, and device queries are NOSUPP."""
    with pmem2.Source.from_anon(GIB) as source:
        assert source.size == GIB
        page = source.alignment
        assert page >= mmap.ALLOCATIONGRANULARITY
        with pytest.raises(pmem2.NosuppError):
            _ = source.device_id
        with pytest.raises(pmem2.NosuppError):
            _ = source.device_usc
        with pytest.raises(pmem2.NosuppError):
            _ = source.numa_node
        with pytest.raises(pmem2.NosuppError):
            source.bad_blocks()
        config = pmem2.Config(
            required_granularity=Granularity.BYTE, offset=page, length=libpmem2.MIB, sharing=Sharing.PRIVATE
        )
        with source.map(config) as map:
            assert map.size == libpmem2.MIB
            assert map.granularity is Granularity.BYTE
            assert map.sharing is Sharing.PRIVATE
            assert map[0:page] == bytes(page)
            with pytest.raises(pmem2.NosuppError) as caught:
                map.deep_flush(0, page)
            assert caught.value.function == "pmem2_deep_flush"


@pytest.mark.upstream("pmem2_integration/TEST28")
@pytest.mark.libpmem2
def test_library_anonymous() -> None:
    """libpmem2 maps anonymous memory at BYTE and answers device queries with NOSUPP."""
    rc, source = libpmem2.source_from_anon(GIB)
    assert rc == 0
    pointer = ffi.cast("struct pmem2_source *", source)
    assert libpmem2.source_device_id(source) == ErrorCode.NOSUPP
    assert lib.pmem2_source_device_usc(pointer, ffi.NULL) == ErrorCode.NOSUPP  # type: ignore[arg-type]
    assert lib.pmem2_source_numa_node(pointer, ffi.NULL) == ErrorCode.NOSUPP  # type: ignore[arg-type]
    assert libpmem2.badblock_context_new(source)[0] == ErrorCode.NOSUPP
    assert libpmem2.source_size(source) == (0, GIB)
    rc, page = libpmem2.source_alignment(source)
    assert rc == 0
    assert page >= mmap.ALLOCATIONGRANULARITY
    private = libpmem2.config(lib.PMEM2_GRANULARITY_BYTE, offset=page, length=libpmem2.MIB, sharing=lib.PMEM2_PRIVATE)
    with private as config, libpmem2.map(config, source) as map:
        assert libpmem2.map_size(map) == libpmem2.MIB
        assert libpmem2.map_granularity(map) == Granularity.BYTE
        assert libpmem2.deep_flush(map, 0, page) == ErrorCode.NOSUPP
    assert libpmem2.source_delete(source) == (0, 0)


@pytest.mark.upstream("pmem2_integration/TEST39")
@pytest.mark.medium
def test_from_existing(source: pmem2.Source, file: Path, granularity: Granularity) -> None:
    """Memory from `mmap` becomes a Map with the granularity that the caller gives."""
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as memory:
        with ffi.from_buffer("char[]", memory) as borrowed:
            address = int(ffi.cast("uintptr_t", borrowed))
        with pmem2.Map.from_existing(source, memory, granularity) as map:
            assert (map.address, map.size, map.granularity) == (address, SIZE, granularity)
            assert map.protection == Protection.READ | Protection.WRITE
            assert map.config == pmem2.Config(required_granularity=granularity)
            map.memcpy(0, b"existing")
            map.persist(0, 8)
            assert memory[0:8] == b"existing"
        assert memory[0:8] == b"existing"
    assert file.read_bytes()[:8] == b"existing"


@pytest.mark.upstream("pmem2_integration/TEST39")
@pytest.mark.libpmem2
@pytest.mark.medium
def test_from_existing_has_same_functions(fd: int, raw_source: int, granularity: Granularity) -> None:
    """A map of existing memory has the same functions as one that libpmem2 mapped itself."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as made:
        assert libpmem2.map_granularity(made) == granularity
        functions = libpmem2.functions(made)
    with mmap.mmap(fd, SIZE) as memory, ffi.from_buffer("char[]", memory) as borrowed:
        address = int(ffi.cast("uintptr_t", borrowed))
        with libpmem2.existing(raw_source, address, SIZE, granularity) as map:
            assert libpmem2.map_address(map) == address
            assert libpmem2.map_size(map) == SIZE
            assert libpmem2.map_granularity(map) == granularity
            assert libpmem2.functions(map) == functions


@pytest.mark.upstream("pmem2_integration/TES40")
def test_from_existing_releases_refused_memory(source: pmem2.Source) -> None:
    """A refused buffer is released, even while the exception is alive."""
    memory = mmap.mmap(-1, libpmem2.MIB)
    with pmem2.Map.from_existing(source, memory, Granularity.BYTE), pytest.raises(pmem2.MapExistsError) as caught:
        pmem2.Map.from_existing(source, memory, Granularity.BYTE)
    memory.close()
    assert memory.closed
    assert caught.value.function == "pmem2_map_from_existing"


@pytest.mark.upstream("pmem2_integration/TES40")
@pytest.mark.medium
def test_from_existing_over_live_map(source: pmem2.Source, raw_source: int, granularity: Granularity) -> None:
    """The memory of a live map cannot become a second Map."""
    with source.map() as map, map.view() as memory, pytest.raises(pmem2.MapExistsError):
        pmem2.Map.from_existing(source, memory, granularity)
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as raw_map:
        rc, other = libpmem2.map_from_existing(raw_source, libpmem2.map_address(raw_map), SIZE, granularity)
        assert (rc, other) == (ErrorCode.MAP_EXISTS, 0)
