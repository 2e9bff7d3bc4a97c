# SPDX-License-Identifier: BSD-3-Clause
"""Values that everything which takes a number must refuse, and small helpers of several test files."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import pmem2

SIZE = 16 * 1024 * 1024
PAGE = mmap.ALLOCATIONGRANULARITY  # maps are aligned to this: a page, and on Windows 16 pages
CONTENT = bytes(range(256)) * (2 * PAGE // 256)
# set by `nox -s nvdimm` where the temporary files are on persistent memory
MEDIUM_GRANULARITY = os.environ.get("PMEM2_TEST_GRANULARITY")
GRANULARITIES = [pmem2.Granularity[MEDIUM_GRANULARITY]] if MEDIUM_GRANULARITY else list(pmem2.Granularity)
SEGFAULT = 0xC0000005 if sys.platform == "win32" else -signal.SIGSEGV  # how a child ends that touches what it may not
ON_PYPY = sys.implementation.name == "pypy"


class Index:
    """An integer that is no int."""

    def __init__(self, value: int) -> None:
        """Stand for *value*."""
        self.value = value

    def __index__(self) -> int:
        """Return the value."""
        return self.value


class OwnPath:
    """A path that is no str."""

    def __init__(self, path: Path) -> None:
        """Stand for *path*."""
        self.path = path

    def __fspath__(self) -> str:
        """Return the path."""
        return str(self.path)


NO_INTEGERS = (True, False, 1.0, 0.5, "1", b"1", [1], 1j)
NO_SIZES = (-1, -(2**31), -(2**63), -(2**70), 2**64, 2**70)

no_integer = pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
no_size = pytest.mark.parametrize("outside", NO_SIZES)


def descriptors() -> list[str]:
    """Return the descriptors that this process has open."""
    if sys.platform == "win32":
        return [str(number) for number in range(256) if is_open(number)]
    return sorted(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Yield a descriptor."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def make_fifo(path: Path) -> None:
    """Make a FIFO that nobody has open."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Make the file of a socket."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        folder = os.getcwd()
        os.chdir(path.parent)  # the path of a socket is at most 108 bytes long
        try:
            server.bind(path.name)
        finally:
            os.chdir(folder)


def make_device(path: Path) -> None:
    """Make a name for the null device."""
    path.symlink_to(os.devnull)
