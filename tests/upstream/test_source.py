# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of sources: pmem2_source, pmem2_source_size, pmem2_source_alignment and pmem2_source_numa."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.values import PAGE, SIZE, open_fd

import pmem2

WORDS = b"Write content"


def same_file(one: int, other: int) -> bool:
    """Return whether two descriptors refer to the same file."""
    return os.path.samestat(os.fstat(one), os.fstat(other))


def check_made_and_deleted(file: Path, mode: int) -> None:
    """Check that a descriptor opened in *mode* makes a source, which returns it and can be deleted."""
    with open_fd(file, mode) as fd:
        rc, pointer = libpmem2.source_from_fd(fd)
        assert rc == 0
        assert pointer != 0
        assert libpmem2.source_file(pointer) == (0, libpmem2.file_of(fd))
        assert libpmem2.source_delete(pointer) == (0, 0)
        with pmem2.Source.from_fd(fd) as source:
            assert source.size == os.fstat(fd).st_size
        assert source.closed
        os.fstat(fd)  # the caller's descriptor is still open


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
    with open_fd(file, os.O_WRONLY) as fd:
        check_refused(fd, pmem2.ErrorCode.INVALID_FILE_HANDLE)


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
    with open_fd(tmp_path, os.O_RDONLY) as fd:
        check_refused(fd, pmem2.ErrorCode.INVALID_FILE_TYPE)
    with pytest.raises(pmem2.InvalidFileTypeError):
        pmem2.Source.from_path(tmp_path, writable=False)


@pytest.mark.upstream("pmem2_source/TEST13")
@pytest.mark.medium
def test_get_descriptor(file: Path) -> None:
    """libpmem2 returns the caller's descriptor, a Source its own duplicate."""
    with open_fd(file, os.O_RDONLY) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        assert libpmem2.source_file(pointer) == (0, libpmem2.file_of(fd))
        assert source.fd != fd
        assert same_file(source.fd, fd)


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
    data = bytes(SIZE + 1)
    assert libpmem2.pread_mcsafe(raw_source, SIZE + 1, 0)[0] == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    assert libpmem2.pwrite_mcsafe(raw_source, data, 0) == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe(SIZE + 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe_into(bytearray(SIZE + 1))
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pwrite_mcsafe(data)
    assert source.size == SIZE


@pytest.mark.upstream("pmem2_source/TEST22")
def test_mcsafe_on_anonymous_memory() -> None:
    """Anonymous memory supports neither mcsafe reads nor mcsafe writes."""
    rc, pointer = libpmem2.source_from_anon(len(WORDS))
    assert rc == 0
    assert libpmem2.pwrite_mcsafe(pointer, WORDS, 0) == lib.PMEM2_E_SOURCE_TYPE_NOT_SUPPORTED
    assert libpmem2.pread_mcsafe(pointer, len(WORDS), 0)[0] == lib.PMEM2_E_SOURCE_TYPE_NOT_SUPPORTED
    assert libpmem2.source_delete(pointer) == (0, 0)
    with pmem2.Source.from_anon(len(WORDS)) as source:
        with pytest.raises(pmem2.SourceTypeNotSupportedError):
            source.pwrite_mcsafe(WORDS)
        with pytest.raises(pmem2.SourceTypeNotSupportedError):
            source.pread_mcsafe(len(WORDS))


@pytest.mark.upstream("pmem2_source_size/TEST0")
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


@pytest.mark.upstream("pmem2_source_size/TEST4")
def test_size_of_unnamed_file(tmp_path: Path) -> None:
    """The size of a source is that of its file, also if the file has no name."""
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.truncate(SIZE)
        with libpmem2.source(file.fileno()) as pointer, pmem2.Source.from_fd(file) as source:
            assert libpmem2.source_size(pointer) == (0, SIZE)
            assert source.size == SIZE


@pytest.mark.upstream("pmem2_source_alignment/TEST0")
@pytest.mark.medium
def test_alignment_of_file(source: pmem2.Source, raw_source: int) -> None:
    """The alignment of a file is the page size."""
    assert libpmem2.source_alignment(raw_source) == (0, PAGE)
    assert source.alignment == PAGE


@pytest.mark.upstream("pmem2_source_numa/TEST0")
def test_numa_node_of_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file has no persistent memory region and so no NUMA node."""
    assert libpmem2.source_numa_node(raw_source) == lib.PMEM2_E_DAX_REGION_NOT_FOUND
    with pytest.raises(pmem2.DaxRegionNotFoundError):
        _ = source.numa_node
