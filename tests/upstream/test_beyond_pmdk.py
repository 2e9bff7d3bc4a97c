# SPDX-License-Identifier: BSD-3-Clause
"""Behaviour of libpmem2 that PMDK's own suite does not test; tests/safety shows the guards that it calls for."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support import libpmem2
from support.children import RunChild
from support.values import PAGE, SIZE, not_emulated, open_fd, without_map_sync

import pmem2
from pmem2 import ErrorCode, Granularity

# ---- descriptors


def test_memfd() -> None:
    """A memory file can be mapped like any other file."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("this interpreter has no os.memfd_create")
    with open(os.memfd_create("pmem2"), "r+b") as file:
        fd = file.fileno()
        os.truncate(fd, PAGE)
        with pmem2.Source.from_fd(fd) as source, source.map() as map:
            map.memcpy(0, b"memfd")
            assert (map.size, map.granularity) == (PAGE, Granularity.PAGE)
        assert os.pread(fd, 5, 0) == b"memfd"
        with libpmem2.source(fd) as raw_source, libpmem2.config() as config:
            with libpmem2.map(config, raw_source) as raw_map:
                assert libpmem2.read(raw_map, 5) == b"memfd"


@pytest.mark.libpmem2
def test_map_path_descriptor(file: Path) -> None:
    """libpmem2 makes a source of an O_PATH descriptor but cannot map it."""
    with open_fd(file, getattr(os, "O_PATH", 0o10000000)) as fd:  # PyPy's os has no such name
        with libpmem2.source(fd) as source, libpmem2.config() as config:
            assert libpmem2.map_new(config, source) == (-errno.EBADF, 0)


@pytest.mark.libpmem2
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_character_device(device: str) -> None:
    """A character device other than a DAX device is INVALID_FILE_TYPE."""
    with open_fd(Path(device), os.O_RDWR) as fd:
        assert libpmem2.source_from_fd(fd) == (ErrorCode.INVALID_FILE_TYPE, 0)


@pytest.mark.libpmem2
def test_pipe_and_socket() -> None:
    """A pipe and a socket are INVALID_FILE_TYPE."""
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"), closing(socket.socket()) as connection:
        for fd in (reader, connection.fileno()):
            assert libpmem2.source_from_fd(fd) == (ErrorCode.INVALID_FILE_TYPE, 0)


def test_proc_file_is_empty() -> None:
    """A file in /proc is a regular file of size 0, so mapping it is SOURCE_EMPTY."""
    with open_fd(Path("/proc/self/status"), os.O_RDONLY) as fd:
        with pmem2.Source.from_fd(fd) as source, pytest.raises(pmem2.SourceEmptyError):
            source.map()
        with libpmem2.source(fd) as raw_source, libpmem2.config() as config:
            assert libpmem2.map_new(config, raw_source) == (ErrorCode.SOURCE_EMPTY, 0)


@pytest.mark.libpmem2
def test_map_outlives_source_and_config(file: Path, granularity: Granularity) -> None:
    """A libpmem2 map works after its descriptor, source and config are gone."""
    with open_fd(file, os.O_RDWR) as fd, libpmem2.source(fd) as source, libpmem2.config() as config:
        rc, map = libpmem2.map_new(config, source)
    assert rc == 0
    libpmem2.memcpy(map, b"alone")
    libpmem2.persist(map, 0, SIZE)
    assert libpmem2.map_granularity(map) == granularity
    assert libpmem2.deep_flush(map, 0, SIZE) == 0
    assert libpmem2.map_delete(map) == (0, 0)
    assert file.read_bytes()[:5] == b"alone"


# ---- error messages


@pytest.mark.libpmem2
def test_message_belongs_to_thread() -> None:
    """Each thread has its own error message, which is empty until a call fails in that thread."""
    messages: list[str] = []

    def fail() -> None:
        messages.append(libpmem2.errormsg())
        with libpmem2.config() as config:
            assert libpmem2.set_sharing(config, 777) == ErrorCode.INVALID_SHARING_VALUE
        messages.append(libpmem2.errormsg())

    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == ErrorCode.OFFSET_OUT_OF_RANGE
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        assert libpmem2.errormsg() == "offset is greater than INT64_MAX"
    assert messages[0] == ""
    assert re.search("777|sharing", messages[1])


@pytest.mark.libpmem2
def test_stale_message(fd: int) -> None:
    """In the release build a success keeps the old message, and so does a failure without a message."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == ErrorCode.OFFSET_OUT_OF_RANGE
        message = libpmem2.errormsg()
        assert message == "offset is greater than INT64_MAX"
        expected = "" if libpmem2.is_debug_build() else message
        with libpmem2.source(fd) as source:
            assert libpmem2.source_size(source) == (0, SIZE)
            assert libpmem2.errormsg() == expected
        assert libpmem2.source_from_fd(-1) == (ErrorCode.INVALID_FILE_HANDLE, 0)
        assert libpmem2.errormsg() == expected


# ---- device queries and bad blocks


@pytest.mark.libpmem2
def test_device_queries_of_file(raw_source: int) -> None:
    """An ordinary file has no device id, no unsafe shutdown count and no NUMA node."""
    assert libpmem2.source_device_usc(raw_source) == ErrorCode.NOSUPP
    assert libpmem2.source_device_id(raw_source) == ErrorCode.NOSUPP
    assert libpmem2.source_numa_node(raw_source) == ErrorCode.DAX_REGION_NOT_FOUND


@pytest.mark.libpmem2
def test_clear_good_data(raw_source: int, file: Path) -> None:
    """pmem2_badblock_clear overwrites good data with zeros, and refuses only impossible ranges."""
    assert libpmem2.pwrite_mcsafe(raw_source, b"D" * 2 * PAGE, 0) == 0
    with libpmem2.badblocks(raw_source) as context:
        assert libpmem2.badblock_next(context) == ErrorCode.NO_BAD_BLOCK_FOUND
        assert libpmem2.badblock_clear(context, 0, PAGE) == 0
        assert libpmem2.badblock_clear(context, 0, 0) == -errno.EINVAL
        assert libpmem2.badblock_clear(context, 2**63, PAGE) == ErrorCode.OFFSET_OUT_OF_RANGE
        assert libpmem2.badblock_clear(context, 0, 2**63) == ErrorCode.LENGTH_OUT_OF_RANGE
    assert file.read_bytes()[: 2 * PAGE] == bytes(PAGE) + b"D" * PAGE


# ---- unusual sizes and numbers


@without_map_sync
def test_persist_after_truncate(map: pmem2.Map, raw_source: int, file: Path) -> None:
    """The rest of a truncated file can be persisted, and persisting past its end is not an error."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as raw_map:
        map[0:4] = b"left"
        os.truncate(file, PAGE)
        map.persist()
        libpmem2.persist(raw_map, 0, SIZE)
        assert map[0:4] == b"left"
        assert map.size == SIZE
    assert file.read_bytes() == b"left" + bytes(PAGE - 4)


MANY_MAPS = """
import ctypes, errno, os, sys
from support import libpmem2

def new_key():
    key = ctypes.c_uint()
    return ctypes.CDLL(None).pthread_key_create(ctypes.byref(key), None)

has_movers = hasattr(ctypes.CDLL("libpmem2.so.1"), "pmem2_memcpy_async")
fd = os.open(sys.argv[1], os.O_RDWR)
with libpmem2.source(fd) as source, libpmem2.config() as config:
    codes = {libpmem2.map_new(config, source)[0] for _ in range(1200)}
    os.write(1, f"{codes} {new_key() == (errno.EAGAIN if has_movers else 0)}".encode())
    os._exit(0)
"""


@pytest.mark.libpmem2
def test_many_maps_exhaust_keys(run_child: RunChild, file: Path) -> None:
    """1,200 maps use up the process's pthread keys in libpmem2 1.12 and 1.13, but not in 2.0."""
    child = run_child(MANY_MAPS, str(file))
    assert (child.returncode, child.stdout) == (0, "{0} True"), child.stderr


@not_emulated("keeps data on each page of a map, which is too much for 8 TiB")
def test_huge_sparse_file(file: Path, granularity: Granularity) -> None:
    """A sparse file of 8 TiB can be mapped and written at its end."""
    size = 8 * 1024**4
    try:
        os.truncate(file, size)
    except OSError as error:
        pytest.skip(f"the file system has no files of 8 TiB: {error}")
    with pmem2.Source.from_path(file) as source, source.map() as map:
        assert map.size == len(map) == size
        assert map.granularity is granularity
        map.memcpy(size - 3, b"end")
        map.persist(size - PAGE, PAGE)
        assert map[-3:] == b"end"
    with open_fd(file, os.O_RDWR) as fd, libpmem2.source(fd) as raw_source, libpmem2.config() as config:
        assert os.pread(fd, 3, size - 3) == b"end"
        with libpmem2.map(config, raw_source) as raw_map:
            assert libpmem2.map_size(raw_map) == size
    os.truncate(file, 0)
