# SPDX-License-Identifier: BSD-3-Clause
"""Effects on a map from outside: other processes, record locks, overlay file systems, the limit of locked memory.

docs/guide/guarantees.md describes them.
"""

from __future__ import annotations

import fcntl
import signal
from pathlib import Path

import pytest
from support.children import RunChild
from support.filesystems import mounted
from support.values import PAGE, not_emulated

import pmem2

TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("locked")
"""
TRUNCATE = """
import os, sys, pmem2
path, size = sys.argv[1], int(sys.argv[2])
m = pmem2.open(path)
m.memset(0, 7, m.size)
if os.fork() == 0:
    pmem2.open(path, "w+", size=size).close()
    os._exit(0)
os.wait()
print(m[0], flush=True)
print(m[m.size - 1])
"""
LOCK_MEMORY = """
import ctypes, os, pmem2
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # the limit does not apply to root
libc = ctypes.CDLL(None)
with pmem2.Source.from_anon(1 << 30) as source:
    assert libc.mlockall(2) == 0  # MCL_FUTURE
    try:
        source.map()
    except OSError as error:
        number = error.errno
    libc.munlockall()
    source.map().close()
print(os.strerror(number))
"""


@pytest.mark.parametrize(("function", "expected"), [("lockf", ""), ("flock", "locked\n")])
def test_open_drops_record_locks(path: Path, run_child: RunChild, function: str, expected: str) -> None:
    """Opening a file drops this process's record locks on it, and keeps a `flock`."""
    with path.open("r+b") as file:
        getattr(fcntl, function)(file, fcntl.LOCK_EX)
        assert run_child(TRY_LOCK, str(path), function).stdout == "locked\n"
        with pmem2.open(path):
            assert run_child(TRY_LOCK, str(path), function).stdout == expected


def test_persist_keeps_record_locks(path: Path, run_child: RunChild) -> None:
    """`persist` opens no descriptor, so it keeps a record lock."""
    with pmem2.open(path) as m, path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        m.persist()
        assert run_child(TRY_LOCK, str(path), "lockf").stdout == "locked\n"


@pytest.mark.parametrize(("size", "printed", "status"), [(2 * PAGE, "0\n0\n", 0), (1, "0\n", -signal.SIGBUS)])
def test_other_process_truncates(path: Path, run_child: RunChild, size: int, printed: str, status: int) -> None:
    """Mode `w+` of another process zeroes a mapped file, and access beyond a smaller size is a SIGBUS."""
    child = run_child(TRUNCATE, str(path), str(size))
    assert (child.stdout, child.returncode) == (printed, status), child.stderr


def test_overlay_copies_up(tmp_path: Path) -> None:
    """A reader that maps a file of an overlay before its first writer never sees a later store."""
    lower, upper, work, point = (tmp_path / name for name in ("lower", "upper", "work", "point"))
    for folder in (lower, upper, work, point):
        folder.mkdir()
    pmem2.open(lower / "file", "w+", size=PAGE).close()
    with mounted(point, "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay"):
        with pmem2.open(point / "file", "r") as early, pmem2.open(point / "file") as writer:
            writer[0] = 1
            with pmem2.open(point / "file", "r") as late:
                assert (early[0], late[0]) == (0, 1)


@not_emulated("reports ENOMEM")
def test_locked_memory_limit(run_child: RunChild) -> None:
    """A map that exceeds the limit of locked memory after `mlockall` raises EAGAIN."""
    child = run_child(LOCK_MEMORY)
    assert child.stdout == "Resource temporarily unavailable\n", child.stderr
