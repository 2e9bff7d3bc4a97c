# SPDX-License-Identifier: BSD-3-Clause
"""Sources: rows 1 to 34 of PMDK's own suite."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.values import SIZE

import pmem2

WORDS = b"Write content"


def same_file(one: int, other: int) -> bool:
    """Return whether two descriptors are of the same file."""
    return os.path.samestat(os.fstat(one), os.fstat(other))


def check_made_and_deleted(file: Path, mode: int) -> None:
    """Check that a descriptor open in *mode* makes a source, which keeps it and can be deleted."""
    fd = os.open(file, mode)
    try:
        rc, pointer = libpmem2.source_from_fd(fd)
        assert rc == 0
        assert pointer != 0
        assert libpmem2.source_file(pointer) == (0, libpmem2.file_of(fd))
        assert libpmem2.source_delete(pointer) == (0, 0)
        with pmem2.Source.from_fd(fd) as source:
            assert source.size == os.fstat(fd).st_size
        assert source.closed
        os.fstat(fd)  # it is still the caller's
    finally:
        os.close(fd)


@pytest.mark.upstream("pmem2_source/TEST0")
@pytest.mark.medium
def test_read_write_descriptor(file: Path) -> None:
    """A read-write descriptor makes a source."""
    check_made_and_deleted(file, os.O_RDWR)


@pytest.mark.upstream("pmem2_source/TEST1")
@pytest.mark.medium
def test_read_only_descriptor(file: Path) -> None:
    """A read-only descriptor makes a source."""
    check_made_and_deleted(file, os.O_RDONLY)


def check_refused(fd: int, code: pmem2.ErrorCode) -> None:
    """Check that neither libpmem2 nor the façade makes a source of *fd*."""
    assert libpmem2.source_from_fd(fd) == (code, 0)
    with pytest.raises(pmem2.Pmem2Error) as caught:
        pmem2.Source.from_fd(fd)
    assert caught.value.code is code
    assert caught.value.function == "pmem2_source_from_fd"


@pytest.mark.upstream("pmem2_source/TEST2")
def test_closed_descriptor(file: Path) -> None:
    """A closed descriptor is refused."""
    fd = os.open(file, os.O_WRONLY)
    os.close(fd)
    check_refused(fd, pmem2.ErrorCode.INVALID_FILE_HANDLE)


@pytest.mark.upstream("pmem2_source/TEST3")
def test_write_only_descriptor(file: Path) -> None:
    """A write-only descriptor is refused."""
    fd = os.open(file, os.O_WRONLY)
    try:
        check_refused(fd, pmem2.ErrorCode.INVALID_FILE_HANDLE)
    finally:
        os.close(fd)


@pytest.mark.upstream("pmem2_source/TEST5")
def test_delete_null(file: Path) -> None:
    """Deleting a NULL source succeeds, and so does closing a Source twice."""
    assert libpmem2.source_delete(0) == (0, 0)
    source = pmem2.Source.from_path(file)
    source.close()
    source.close()
    assert source.closed


@pytest.mark.upstream("pmem2_source/TEST11")
def test_directory(tmp_path: Path) -> None:
    """A directory is refused, as a descriptor and as a path."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        check_refused(fd, pmem2.ErrorCode.INVALID_FILE_TYPE)
    finally:
        os.close(fd)
    with pytest.raises(pmem2.InvalidFileTypeError):
        pmem2.Source.from_path(tmp_path, writable=False)


@pytest.mark.upstream("pmem2_source/TEST13")
@pytest.mark.medium
def test_get_descriptor(file: Path) -> None:
    """libpmem2 returns the caller's descriptor, a Source its own duplicate."""
    fd = os.open(file, os.O_RDONLY)
    try:
        with libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
            assert libpmem2.source_file(pointer) == (0, libpmem2.file_of(fd))
            assert source.fd != fd
            assert same_file(source.fd, fd)
    finally:
        os.close(fd)


@pytest.mark.upstream("pmem2_source/TEST15")
def test_anonymous_has_no_descriptor() -> None:
    """A source of anonymous memory has no descriptor."""
    rc, pointer = libpmem2.source_from_anon(0)
    assert rc == 0
    assert libpmem2.source_file(pointer)[0] == lib.PMEM2_E_FILE_DESCRIPTOR_NOT_SET
    assert libpmem2.source_delete(pointer) == (0, 0)
    with pmem2.Source.from_anon(0) as source, pytest.raises(pmem2.FileDescriptorNotSetError):
        _ = source.fd


@pytest.mark.upstream("pmem2_source/TEST16")
@pytest.mark.libpmem2
@pytest.mark.medium
@pytest.mark.usefixtures("granularity")
def test_library_mcsafe_read(raw_source: int) -> None:
    """pmem2_source_pread_mcsafe returns the data that was copied through a map."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as map:
        libpmem2.memcpy(map, WORDS)
    assert libpmem2.pread_mcsafe(raw_source, len(WORDS), 0) == (0, WORDS)


@pytest.mark.upstream("pmem2_source/TEST16")
@pytest.mark.medium
def test_mcsafe_read(source: pmem2.Source, granularity: pmem2.Granularity) -> None:
    """`pread_mcsafe` and `pread_mcsafe_into` return the data that was copied through a Map."""
    with source.map() as map:
        assert map.granularity is granularity
        map.memcpy(0, WORDS)
    assert source.pread_mcsafe(len(WORDS)) == WORDS
    buffer = bytearray(len(WORDS))
    source.pread_mcsafe_into(buffer)
    assert buffer == WORDS


@pytest.mark.upstream("pmem2_source/TEST17")
@pytest.mark.libpmem2
@pytest.mark.medium
@pytest.mark.usefixtures("granularity")
def test_library_mcsafe_write(raw_source: int) -> None:
    """The data that pmem2_source_pwrite_mcsafe writes can be copied out of a map."""
    assert libpmem2.pwrite_mcsafe(raw_source, WORDS, 0) == 0
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as map:
        assert libpmem2.memcpy_out(map, len(WORDS)) == WORDS


@pytest.mark.upstream("pmem2_source/TEST17")
@pytest.mark.medium
def test_mcsafe_write(source: pmem2.Source, granularity: pmem2.Granularity) -> None:
    """The data that `pwrite_mcsafe` writes can be read from a Map."""
    source.pwrite_mcsafe(WORDS)
    with source.map() as map:
        assert map.granularity is granularity
        assert map[: len(WORDS)] == WORDS


@pytest.mark.upstream("pmem2_source/TEST20")
@pytest.mark.medium
def test_mcsafe_past_end(source: pmem2.Source, raw_source: int) -> None:
    """A read or a write of one byte more than the source has is refused, and the file does not grow."""
    much = bytes(SIZE + 1)
    assert libpmem2.pread_mcsafe(raw_source, SIZE + 1, 0)[0] == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    assert libpmem2.pwrite_mcsafe(raw_source, much, 0) == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe(SIZE + 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe_into(bytearray(SIZE + 1))
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pwrite_mcsafe(much)
    assert source.size == SIZE


@pytest.mark.upstream("pmem2_source_size/TEST0")
@pytest.mark.medium
def test_size_of_empty_file(fd: int) -> None:
    """A source of an empty file has the size 0."""
    os.ftruncate(fd, 0)
    with libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        assert libpmem2.source_size(pointer) == (0, 0)
        assert source.size == 0


@pytest.mark.upstream("pmem2_source_size/TEST2")
@pytest.mark.medium
def test_size_of_file(source: pmem2.Source, raw_source: int) -> None:
    """The size of a source is the size of its file."""
    assert libpmem2.source_size(raw_source) == (0, SIZE)
    assert source.size == SIZE


@pytest.mark.upstream("pmem2_source_alignment/TEST0")
@pytest.mark.medium
def test_alignment_of_file(source: pmem2.Source, raw_source: int) -> None:
    """The alignment of a file is the page size."""
    assert libpmem2.source_alignment(raw_source) == (0, mmap.ALLOCATIONGRANULARITY)
    assert source.alignment == mmap.ALLOCATIONGRANULARITY


@pytest.mark.upstream("pmem2_source_numa/TEST0")
def test_numa_node_of_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file has no persistent memory region and so no NUMA node."""
    assert libpmem2.source_numa_node(raw_source) == lib.PMEM2_E_DAX_REGION_NOT_FOUND
    with pytest.raises(pmem2.DaxRegionNotFoundError):
        _ = source.numa_node
