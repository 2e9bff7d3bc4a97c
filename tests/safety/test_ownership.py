# SPDX-License-Identifier: BSD-3-Clause
"""Maps, sources and bad-block contexts own what they need, and release it exactly once."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.values import ON_PYPY, descriptors

import pmem2
from safety.process_state import collect_garbage

if TYPE_CHECKING:
    from support.children import RunChild


@pytest.mark.memcheck
def test_map_outlives_source_and_config(file: Path) -> None:
    """A map works after its descriptor, its source and its config are gone."""
    fd = os.open(file, os.O_RDWR)
    source = pmem2.Source.from_fd(fd)
    config = pmem2.Config(length=4096)
    map = source.map(config)
    os.close(fd)
    source.close()
    del source, config
    collect_garbage()
    map.memcpy(0, b"still here")
    map.deep_flush()
    map.close()
    assert file.read_bytes()[:10] == b"still here"


def test_source_avoids_standard_streams(file: Path) -> None:
    """A source never takes the number of a standard stream."""
    with pmem2.Source.from_path(file) as source:
        assert source.fd > 2


def test_children_inherit_no_descriptor(source: pmem2.Source, run_child: RunChild, file: Path) -> None:
    """A program that starts while a source is open inherits no descriptor of its file."""
    with source.bad_blocks():
        code = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')[:-1]])"
        child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert str(file) not in child.stdout


@pytest.mark.memcheck
def test_bad_blocks_outlive_source(file: Path) -> None:
    """A bad-block context works after its source was closed and collected."""
    source = pmem2.Source.from_path(file)
    context = source.bad_blocks()
    source.close()
    del source
    collect_garbage()
    assert list(context) == []
    context.close()


def test_bad_blocks_close_their_descriptor(source: pmem2.Source) -> None:
    """A closed or dropped bad-block context leaves no descriptor open."""
    before = descriptors()
    with source.bad_blocks():
        assert len(descriptors()) == len(before) + 1
    assert descriptors() == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        source.bad_blocks()
        collect_garbage()
    assert descriptors() == before


def test_dropped_reservation_is_unmapped(source: pmem2.Source) -> None:
    """A reservation that is dropped together with its map is unmapped."""
    size = 1 << 30  # so that no other mapping takes the whole range
    reservation = pmem2.VMReservation(size)
    map = source.map(pmem2.Config(reservation=reservation))
    low, high = reservation.address, reservation.address + reservation.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del map, reservation
        collect_garbage()
    mapped = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        mapped.append(max(0, min(end, high) - max(start, low)))
    assert sum(mapped) < size // 2


def test_failures_leave_no_descriptor(tmp_path: Path) -> None:
    """A source that cannot be made or mapped leaves no descriptor open."""
    empty = tmp_path / "empty"
    empty.touch()
    before = descriptors()
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(pmem2.InvalidFileTypeError):
            pmem2.Source.from_path(path)
    with pmem2.Source.from_path(empty) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map()
    with pytest.raises(pmem2.SourceEmptyError):
        pmem2.open(empty)
    collect_garbage()
    assert descriptors() == before


COUNT_BYTES = """
import ctypes, gc, sys, warnings
warnings.simplefilter("ignore")
import pmem2
path = sys.argv[1]
class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_int) for name in names]
mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = Mallinfo
source = pmem2.Source.from_path(path)
def act():
    {act}
def repeat(count):
    for _ in range(count):
        try:
            act()
        except pmem2.Pmem2Error:
            pass
    gc.collect()
    return mallinfo().uordblks
totals = [repeat(200) for _ in range(5)]
# A leak grows in every round; the interpreter's own caches grow in some.
print(max(min(after - before for before, after in zip(totals, totals[1:])), 0) // 200)
"""

ALLOCATIONS = {
    "source": "pmem2.Source.from_path(path).close()",
    "anonymous source": "pmem2.Source.from_anon(4096).close()",
    "dropped source": "pmem2.Source.from_anon(4096)",
    "failed source": "pmem2.Source.from_fd(2**31 - 1)",
    "map": "source.map().close()",
    "dropped map": "source.map()",
    "failed map": "source.map(pmem2.Config(offset=1))",
    "map in a reservation": "source.map(pmem2.Config(reservation=pmem2.VMReservation(1 << 20), length=4096)).close()",
    "bad blocks": "source.bad_blocks().close()",
    "dropped bad blocks": "source.bad_blocks()",
    "reservation": "pmem2.VMReservation(4096).close()",
    "dropped reservation": "pmem2.VMReservation(4096)",
}


@pytest.mark.skipif(ON_PYPY or not sys.platform.startswith("linux"), reason="counts bytes in CPython with glibc")
@pytest.mark.parametrize("name", ALLOCATIONS)
def test_memory_is_freed(run_child: RunChild, file: Path, name: str) -> None:
    """No operation keeps memory of malloc, whether its object was closed, dropped or never made."""
    child = run_child(COUNT_BYTES.format(act=ALLOCATIONS[name]), str(file))
    assert (child.returncode, child.stdout) == (0, "0\n"), child.stderr


def test_dropped_reservation_frees_addresses(run_child: RunChild) -> None:
    """A reservation that is dropped without `close` gives its addresses back."""
    child = run_child("""
        import gc, warnings
        warnings.simplefilter("ignore")
        import pmem2
        address = pmem2.VMReservation(1 << 30).address
        for _ in range(3): gc.collect()
        with open("/proc/self/maps") as maps:
            ranges = [[int(bound, 16) for bound in line.split()[0].split("-")] for line in maps]
        print(any(low <= address < high for low, high in ranges))
    """)
    assert (child.returncode, child.stdout) == (0, "False\n"), child.stderr
