# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of sources, configs and maps together: pmem2_integration."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path
from typing import Callable

import pytest
from _pmem2 import ffi, lib
from support import libpmem2
from support.values import PAGE, SIZE, open_fd

import pmem2
from pmem2 import ErrorCode, Granularity, Protection, Sharing

GIB = 1024 * libpmem2.MIB


@pytest.mark.upstream("pmem2_integration/TEST0")
@pytest.mark.medium
def test_one_config_two_maps(source: pmem2.Source, raw_source: int, granularity: Granularity) -> None:
    """One config and one source make two maps of the whole file at different addresses."""
    config = pmem2.Config()
    with source.map(config) as first, source.map(config) as second:
        assert (first.size, second.size) == (SIZE, SIZE)
        assert first.granularity is second.granularity is granularity
        assert first.address != second.address
        first[0:4] = b"both"
        assert second[0:4] == b"both"
    assert first.closed
    assert second.closed
    with libpmem2.config() as raw_config:
        with libpmem2.map(raw_config, raw_source) as raw_first, libpmem2.map(raw_config, raw_source) as raw_second:
            assert (libpmem2.map_size(raw_first), libpmem2.map_size(raw_second)) == (SIZE, SIZE)


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
        with open_fd(second, os.O_RDWR) as fd, libpmem2.source(fd) as other, libpmem2.map(config, other) as other_map:
            assert libpmem2.read(other_map, 6) == b"second"
        assert libpmem2.read(map, 6) == bytes(6)
        assert libpmem2.map_granularity(map) == granularity


def check_refused(source: pmem2.Source, raw_source: int, code: ErrorCode, offset: int, length: int) -> None:
    """Check that the façade and libpmem2 refuse to map a range."""
    with pytest.raises(pmem2.Pmem2Error) as caught:
        source.map(pmem2.Config(offset=offset, length=length))
    assert caught.value.code is code
    assert caught.value.function == "pmem2_map_new"
    with libpmem2.config(offset=offset, length=length) as config:
        assert libpmem2.map_new(config, raw_source) == (code, 0)


@pytest.mark.upstream("pmem2_integration/TEST4")
def test_every_offset_and_length(tmp_path: Path, granularity: Granularity) -> None:
    """Every aligned range of a file can be mapped, and each map shows that range."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(13).getrandbits(8 * 5 * PAGE).to_bytes(5 * PAGE, "little"))
    content = path.read_bytes()
    ranges = [(start, end - start) for end in range(PAGE, 6 * PAGE, PAGE) for start in range(0, end, PAGE)]
    with open(path, "r+b") as file, pmem2.Source.from_fd(file) as source, libpmem2.source(file.fileno()) as raw_source:
        for offset, length in ranges:
            expected = content[offset : offset + length]
            with source.map(pmem2.Config(offset=offset, length=length)) as map:
                assert map[:] == expected
                assert map.granularity is granularity
            with libpmem2.config(offset=offset, length=length) as config, libpmem2.map(config, raw_source) as raw_map:
                assert libpmem2.read(raw_map, length) == expected


@pytest.mark.upstream("pmem2_integration/TEST14")
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


@pytest.mark.upstream("pmem2_integration/TEST22")
def test_copies_to_private_map(file: Path, granularity: Granularity) -> None:
    """The copy methods write to a private map of a read-only descriptor, and the next map has the file's content."""
    word = b"Nonpersistent memory"
    blank = bytes(len(word))
    with open_fd(file, os.O_RDONLY) as fd, libpmem2.source(fd) as raw_source, pmem2.Source.from_fd(fd) as source:
        with libpmem2.config(sharing=lib.PMEM2_PRIVATE) as config:
            with libpmem2.map(config, raw_source) as raw_map:
                assert libpmem2.read(raw_map, len(word)) == blank
                libpmem2.memcpy(raw_map, word)
                assert libpmem2.read(raw_map, len(word)) == word
            with libpmem2.map(config, raw_source) as raw_map:
                assert libpmem2.read(raw_map, len(word)) == blank
        private = pmem2.Config(sharing=Sharing.PRIVATE)
        copies: list[tuple[Callable[[pmem2.Map], None], bytes]] = [
            (lambda map: map.memcpy(0, word), word),
            (lambda map: map.memmove(0, word), word),
            (lambda map: map.memset(0, ord("X"), len(word)), b"X" * len(word)),
        ]
        for copy, expected in copies:
            with source.map(private) as map:
                assert map[: len(word)] == blank
                copy(map)
                assert map[: len(word)] == expected


anonymous_maps = pytest.mark.parametrize(
    ("sharing", "granularity", "length"),
    [
        pytest.param(Sharing.PRIVATE, Granularity.BYTE, libpmem2.MIB, id="private"),
        pytest.param(Sharing.SHARED, Granularity.BYTE, libpmem2.MIB, id="shared"),
        pytest.param(Sharing.SHARED, Granularity.PAGE, libpmem2.MIB, id="page"),
        pytest.param(Sharing.SHARED, Granularity.BYTE, 0, id="whole source"),
    ],
)


@pytest.mark.upstream(
    "pmem2_integration/TEST28", "pmem2_integration/TEST29", "pmem2_integration/TEST30", "pmem2_integration/TEST32"
)
@anonymous_maps
def test_anonymous(sharing: Sharing, granularity: Granularity, length: int) -> None:
    """Anonymous memory maps at BYTE, whatever the offset, and device queries are NOSUPP."""
    with pmem2.Source.from_anon(GIB) as source:
        assert source.size == GIB
        page = source.alignment
        assert page >= PAGE
        with pytest.raises(pmem2.NosuppError):
            _ = source.device_id
        with pytest.raises(pmem2.NosuppError):
            _ = source.device_usc
        with pytest.raises(pmem2.NosuppError):
            _ = source.numa_node
        with pytest.raises(pmem2.NosuppError):
            source.bad_blocks()
        config = pmem2.Config(required_granularity=granularity, offset=page, length=length or None, sharing=sharing)
        with source.map(config) as map:
            assert map.size == (length or GIB)
            assert map.granularity is Granularity.BYTE
            assert map.sharing is sharing
            assert map[0:page] == bytes(page)
            with pytest.raises(pmem2.NosuppError) as caught:
                map.deep_flush(0, page)
            assert caught.value.function == "pmem2_deep_flush"


@pytest.mark.upstream(
    "pmem2_integration/TEST28", "pmem2_integration/TEST29", "pmem2_integration/TEST30", "pmem2_integration/TEST32"
)
@pytest.mark.libpmem2
@anonymous_maps
def test_library_anonymous(sharing: Sharing, granularity: Granularity, length: int) -> None:
    """libpmem2 maps anonymous memory at BYTE, whatever the offset, and answers device queries with NOSUPP."""
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
    assert page >= PAGE
    with libpmem2.config(granularity, offset=page, length=length, sharing=sharing) as config:
        with libpmem2.map(config, source) as map:
            assert libpmem2.map_size(map) == (length or GIB)
            assert libpmem2.map_granularity(map) == Granularity.BYTE
            assert libpmem2.deep_flush(map, 0, page) == ErrorCode.NOSUPP
    assert libpmem2.source_delete(source) == (0, 0)


@pytest.mark.upstream("pmem2_integration/TEST31")
def test_anonymous_length_too_small() -> None:
    """Anonymous memory cannot be mapped with a length of less than a page."""
    rc, pointer = libpmem2.source_from_anon(GIB)
    assert rc == 0
    with libpmem2.config(lib.PMEM2_GRANULARITY_BYTE, length=1024) as config:
        assert libpmem2.map_new(config, pointer) == (ErrorCode.LENGTH_UNALIGNED, 0)
    assert libpmem2.source_delete(pointer) == (0, 0)
    with pmem2.Source.from_anon(GIB) as source, pytest.raises(pmem2.LengthUnalignedError):
        source.map(pmem2.Config(length=1024))


@pytest.mark.upstream("pmem2_integration/TEST39")
@pytest.mark.medium
def test_from_existing(source: pmem2.Source, file: Path, granularity: Granularity) -> None:
    """Memory from `mmap` becomes a Map with the granularity that the caller gives."""
    with open_fd(file, os.O_RDWR) as fd, mmap.mmap(fd, SIZE) as memory:
        with ffi.from_buffer("char[]", memory) as borrowed:
            address = int(ffi.cast("uintptr_t", borrowed))
        with pmem2.Map.from_existing(source, memory, granularity) as map:
            assert (map.address, map.size, map.granularity) == (address, SIZE, granularity)
            assert map.protection == Protection.READ | Protection.WRITE
            assert map.config == pmem2.Config(required_granularity=granularity)
            map.memcpy(0, b"existing")
            map.persist(0, 8)
            map.deep_flush()
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
