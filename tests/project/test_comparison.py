# SPDX-License-Identifier: BSD-3-Clause
"""What the README says of the standard library, NumPy and ctypes, where it says that pmem2 is different."""

from __future__ import annotations

import inspect
import mmap
import signal
import sys
from pathlib import Path

import pytest
from support.children import RunChild
from support.values import PAGE

import pmem2

PYPY = sys.implementation.name == "pypy"
BY_CTYPES = """
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
GONE = (
    BY_CTYPES
    + """
assert not lib.pmem2_map_delete(ctypes.byref(map))
print("deleted", flush=True)
view.raw
"""
)
FAILING = (
    BY_CTYPES
    + """
lib.pmem2_get_persist_fn.restype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
persist = lib.pmem2_get_persist_fn(map)
ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(8192))  # so that msync fails
print("unmapped", flush=True)
persist(address, 8)
"""
)


@pytest.fixture
def libpmem2() -> None:
    """Skip where ctypes finds no libpmem2."""
    ctypes = pytest.importorskip("ctypes")
    try:
        ctypes.CDLL("libpmem2.so.1")
    except OSError:
        pytest.skip("libpmem2 is not installed")


def test_mmap_flushes_pages_only(path: Path) -> None:
    """An offset inside a page is refused, where pmem2 takes it."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped.flush(0, PAGE)
        with pytest.raises((OSError, ValueError)):
            mapped.flush(8, 8)
    with pmem2.open(path) as m:
        m.persist(8, 8)


def test_mmap_closed(path: Path) -> None:
    """It refuses to be used, and to be closed under a view, as pmem2 does; PyPy's closes all the same."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    view = memoryview(mapped)
    if not PYPY:
        with pytest.raises(BufferError):
            mapped.close()
    view.release()
    mapped.close()
    with pytest.raises(ValueError, match="closed"):
        mapped[0]


def test_memmap_flushes_the_whole_array_and_cannot_be_closed() -> None:
    """`flush` takes no range, and there is no `close`."""
    numpy = pytest.importorskip("numpy")
    assert list(inspect.signature(numpy.memmap.flush).parameters) == ["self"]
    assert not hasattr(numpy.memmap, "close")


@pytest.mark.usefixtures("libpmem2")
def test_ctypes_reads_memory_that_is_gone(path: Path, run_child: RunChild) -> None:
    """A view that outlives its map ends the process."""
    child = run_child(GONE, str(path))
    assert "deleted" in child.stdout
    assert child.returncode == -signal.SIGSEGV


@pytest.mark.usefixtures("libpmem2")
def test_ctypes_dies_of_a_failing_write_back(path: Path, run_child: RunChild) -> None:
    """libpmem2 aborts."""
    child = run_child(FAILING, str(path))
    assert "unmapped" in child.stdout
    assert child.returncode == -signal.SIGABRT
