# SPDX-License-Identifier: BSD-3-Clause
"""The comparison table of the README: `mmap`, `numpy.memmap` and ctypes behave as it says."""

from __future__ import annotations

import inspect
import mmap
import signal
import sys
from pathlib import Path

import pytest
from support.children import RunChild
from support.values import PAGE, without_map_sync

import pmem2

PYPY = sys.implementation.name == "pypy"
MAP_WITH_CTYPES = """
import ctypes, os, sys
lib = ctypes.CDLL("libpmem2.so.1")
source, config, map = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
assert not lib.pmem2_source_from_fd(ctypes.byref(source), os.open(sys.argv[1], os.O_RDWR))
assert not lib.pmem2_config_new(ctypes.byref(config))
assert not lib.pmem2_config_set_required_store_granularity(config, 2)
assert not lib.pmem2_map_new(ctypes.byref(map), config, source)
lib.pmem2_map_get_address.restype = ctypes.c_void_p
address = lib.pmem2_map_get_address(map)
view = (ctypes.c_char * 8).from_address(address)
"""
USE_AFTER_UNMAP = (
    MAP_WITH_CTYPES
    + """
assert not lib.pmem2_map_delete(ctypes.byref(map))
print("deleted", flush=True)
view.raw
"""
)
FAILING_WRITE_BACK = (
    MAP_WITH_CTYPES
    + """
lib.pmem2_get_persist_fn.restype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
persist = lib.pmem2_get_persist_fn(map)
ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(8192))  # makes msync fail
print("unmapped", flush=True)
persist(address, 8)
"""
)


@pytest.fixture
def libpmem2() -> None:
    """Skip the test if ctypes cannot load libpmem2."""
    ctypes = pytest.importorskip("ctypes")
    try:
        ctypes.CDLL("libpmem2.so.1")
    except OSError:
        pytest.skip("libpmem2 is not installed")


def test_mmap_flushes_pages_only(path: Path) -> None:
    """`mmap.flush` refuses an offset inside a page, and `persist` accepts it."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mm:
        mm.flush(0, PAGE)
        with pytest.raises((OSError, ValueError)):
            mm.flush(8, 8)
    with pmem2.open(path) as m:
        m.persist(8, 8)


def test_mmap_close_and_use_after(path: Path) -> None:
    """A closed `mmap` raises `ValueError`; with a live view, `close` raises `BufferError`, but not on PyPy."""
    with path.open("r+b") as file:
        mm = mmap.mmap(file.fileno(), 0)
    view = memoryview(mm)
    if not PYPY:
        with pytest.raises(BufferError):
            mm.close()
    view.release()
    mm.close()
    with pytest.raises(ValueError, match="closed"):
        mm[0]


def test_memmap_flush_and_close() -> None:
    """`numpy.memmap.flush` takes no range, and `numpy.memmap` has no `close`."""
    numpy = pytest.importorskip("numpy")
    assert list(inspect.signature(numpy.memmap.flush).parameters) == ["self"]
    assert not hasattr(numpy.memmap, "close")


@pytest.mark.usefixtures("libpmem2")
def test_ctypes_view_outlives_map(path: Path, run_child: RunChild) -> None:
    """With ctypes, reading a view after unmapping ends the process."""
    child = run_child(USE_AFTER_UNMAP, str(path))
    assert "deleted" in child.stdout
    assert child.returncode == -signal.SIGSEGV


@without_map_sync
@pytest.mark.usefixtures("libpmem2")
def test_ctypes_failing_write_back(path: Path, run_child: RunChild) -> None:
    """With ctypes, a failing write-back aborts the process."""
    child = run_child(FAILING_WRITE_BACK, str(path))
    assert "unmapped" in child.stdout
    assert child.returncode == -signal.SIGABRT
