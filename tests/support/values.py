# SPDX-License-Identifier: BSD-3-Clause
"""Invalid values for every numeric parameter, and small helpers."""

from __future__ import annotations

import mmap
import os
import platform
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pmem2 import lib

import pmem2

SIZE = 16 * 1024 * 1024
PAGE = mmap.ALLOCATIONGRANULARITY  # the alignment of maps: a page, on Windows 16 pages
MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (2 * PAGE // 256)
# `nox -s nvdimm` sets this when the temporary files are on persistent memory
MEDIUM_GRANULARITY = os.environ.get("PMEM2_TEST_GRANULARITY")
# the exit status of a child that accesses protected memory
SEGFAULT = 0xC0000005 if sys.platform == "win32" else -signal.SIGSEGV
ON_PYPY = sys.implementation.name == "pypy"
weekly_on_pypy = pytest.mark.skipif(
    ON_PYPY and "PMEM2_TEST_ROUNDS" not in os.environ, reason="takes long on PyPy: set PMEM2_TEST_ROUNDS"
)
KERNEL_MACHINE = Path("/proc/sys/kernel/arch")  # Linux 6.1 and newer
# Whether another processor emulates this one for single programs, as qemu-user does; uname(2) is emulated too.
EMULATED = (
    sys.platform == "linux"
    and KERNEL_MACHINE.exists()
    and KERNEL_MACHINE.read_text(encoding="ascii").strip() != platform.machine()
)
# Whether maps can have CACHE_LINE granularity
HAS_CACHE_LINE = bool(lib.HAS_CACHE_FLUSH)
needs_cache_line = pytest.mark.skipif(not HAS_CACHE_LINE, reason="libpmem2 cannot flush the caches of this processor")
# a forced granularity that needs no msync
WITHOUT_MSYNC = "CACHE_LINE" if HAS_CACHE_LINE else "BYTE"
ALL_GRANULARITIES = [each for each in pmem2.Granularity if HAS_CACHE_LINE or each.name != "CACHE_LINE"]
GRANULARITIES = [pmem2.Granularity[MEDIUM_GRANULARITY]] if MEDIUM_GRANULARITY else ALL_GRANULARITIES
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def not_emulated(reason: str) -> pytest.MarkDecorator:
    """Skip a test under QEMU's user emulation; *reason* continues a sentence about it."""
    return pytest.mark.skipif(EMULATED, reason=f"QEMU's user emulation {reason}")


without_map_sync = not_emulated("before 8.2 ignores MAP_SYNC, so libpmem2 takes each file for DAX")
# QEMU keeps a lock while it translates a path (util/path.c), and a forked child inherits it locked.
forks_while_opening = not_emulated("7.2 hangs in a child that was forked while another thread opened a file")


class Index:
    """An integer-like object that is not an int."""

    def __init__(self, value: int) -> None:
        """Store *value*."""
        self.value = value

    def __index__(self) -> int:
        """Return the value."""
        return self.value


class OwnPath:
    """A path-like object that is not a str."""

    def __init__(self, path: Path) -> None:
        """Store *path*."""
        self.path = path

    def __fspath__(self) -> str:
        """Return the path."""
        return str(self.path)


NON_INTEGERS = (True, False, 1.0, 0.5, "1", b"1", [1], 1j)
INVALID_SIZES = (-1, -(2**31), -(2**63), -(2**70), 2**64, 2**70)

non_integers = pytest.mark.parametrize("wrong", NON_INTEGERS, ids=repr)
invalid_sizes = pytest.mark.parametrize("outside", INVALID_SIZES)


def waits_once(folder: Path) -> bool:
    """Return whether pmem2 waits once for many ranges of a file there: on ext4 and XFS, see workaround_msync.c."""
    kind = subprocess.run(["stat", "-f", "-c", "%t", folder], capture_output=True, text=True, check=True).stdout
    return kind.strip() in ("ef53", "58465342")


def rounds(n: int) -> int:
    """Return how often a test repeats a race: *n* times, more often in the weekly session."""
    return n * int(os.environ.get("PMEM2_TEST_ROUNDS", "1"))


def descriptors() -> list[str]:
    """Return the open descriptors of this process."""
    if sys.platform == "win32":
        return [str(number) for number in range(256) if is_open(number)]
    else:
        return sorted(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def open_fd(path: Path, flags: int) -> Iterator[int]:
    """Open *path*, yield the descriptor and close it."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)
