# SPDX-License-Identifier: BSD-3-Clause
"""Views and arrays keep their map open, however they were made and held."""

from __future__ import annotations

import ctypes
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

import pmem2
from safety.process_state import collect_garbage, count_mappings

if TYPE_CHECKING:
    import numpy
    from support.children import RunChild
else:
    try:
        import numpy
    except ImportError:
        numpy = None

needs_numpy = pytest.mark.skipif(numpy is None, reason="NumPy is not installed")


def test_close_can_be_retried(map: pmem2.Map, file: Path) -> None:
    """A refused close changes nothing, and close succeeds once the views are gone."""
    view = map.view(0, 8)
    for _ in range(3):
        with pytest.raises(BufferError, match="views"):
            map.close()
        assert not map.closed
        map.memset(0, 7, 8)
    assert view[7] == 7
    view.release()
    map.close()
    assert map.closed
    assert count_mappings(file) == 0


def drop(views: list[memoryview]) -> None:
    """Drop views and what only they keep alive."""
    views.clear()
    collect_garbage()


def test_view_keeps_its_map(source: pmem2.Source) -> None:
    """A view keeps its Map object alive, and the last slice of it lets the Map go."""
    with pmem2.VMReservation(1 << 20) as reservation:
        map = source.map(pmem2.Config(reservation=reservation, length=4096))
        address, views = map.address, [map.view(0, 8)[2:4]]
        del map
        collect_garbage()
        assert reservation.first().address == address
        with pytest.warns(ResourceWarning, match="unclosed"):
            drop(views)
        assert list(reservation) == []


def test_view_in_a_traceback(source: pmem2.Source) -> None:
    """A view in a traceback keeps the map open until the exception is gone."""

    def fail(map: pmem2.Map) -> None:
        view = map.view()
        raise RuntimeError(view.nbytes)

    map = source.map()
    with pytest.raises(RuntimeError) as caught:
        fail(map)
    with pytest.raises(BufferError):
        map.close()
    del caught
    map.close()
    assert map.closed


@pytest.mark.parametrize("kind", ["slice", "cast", "toreadonly", "memoryview", "ctypes", "backwards"])
@pytest.mark.memcheck
def test_derived_views_count(source: pmem2.Source, kind: str) -> None:
    """An object made from a view keeps the map open after the view was released."""
    make: dict[str, Callable[[memoryview], object]] = {
        "slice": lambda view: view[1:5],
        "cast": lambda view: view.cast("I"),
        "toreadonly": memoryview.toreadonly,
        "memoryview": memoryview,
        "ctypes": (ctypes.c_uint8 * 8).from_buffer,
        "backwards": lambda view: view[::-1],
    }
    map = source.map()
    view = map.view(0, 8)
    derived = make[kind](view)
    if kind != "ctypes":
        view.release()
    del view
    collect_garbage()
    with pytest.raises(BufferError, match="views"):
        map.close()
    del derived
    collect_garbage()
    map.close()
    assert map.closed


@needs_numpy
def test_arrays_count_as_views(source: pmem2.Source, file: Path) -> None:
    """An array and its parts keep the map open; a copy does not."""
    map = source.map()
    array = map.as_array("u8", (4, 4))
    part = array[1:, ::2].T
    copy = part.copy()
    del array
    with pytest.raises(BufferError):
        map.close()
    part[0, 0] = 7
    assert map.load_u64(32) == 7
    del part
    map.close()
    assert copy.shape == (2, 3)
    assert count_mappings(file) == 0


@needs_numpy
def test_array_outlives_map_object(source: pmem2.Source, file: Path) -> None:
    """An array keeps the memory mapped after its Map object was dropped."""
    array = source.map().as_array("u1", 16)
    collect_garbage()
    array[3] = 9
    assert source.pread_mcsafe(4) == b"\0\0\0\x09"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del array
        collect_garbage()
    assert count_mappings(file) == 0


CROWD = """
import os, pmem2
from _pmem2 import ffi, lib
source = pmem2.Source.from_anon(4096)
map = source.map()
map.load_u64(0)  # from now on the gate counts the operations of this process, which is a forked one
gate = ffi.cast("uint64_t *", map._handle)  # the first field of the C struct
OPERATIONS, VIEWS = (1 << 20) - 1, ((1 << 25) - 1) << 36
for full, acts in (
    (OPERATIONS, (lambda: map[0:1], lambda: map.persist(0, 1), lambda: map.load_u64(0), map.close)),
    (VIEWS - (1 << 36), (map.view, map.close)),
):
    view = map.view() if full & VIEWS else memoryview(b"")
    gate[0] += full
    for act in acts:
        try:
            act()
        except BufferError as error:
            print(str(error).split(": ")[1])
    gate[0] -= full
    view.release()
map.close()
"""


def test_operation_count_has_a_limit(run_child: RunChild) -> None:
    """A map refuses the next operation when its gate counts as many as it can."""
    child = run_child(CROWD)
    overflow = "too many views or operations of it are alive at once\n"
    busy = "an operation of it has not returned, in another thread or under this signal handler; close it after that\n"
    exported = "views or arrays of it are alive; release or delete them first\n"
    assert child.stdout == 3 * overflow + busy + overflow + exported


def test_many_pieces_of_a_map(source: pmem2.Source, map: pmem2.Map) -> None:
    """memcpy_many keeps a source map open once, however many pieces it has."""
    with source.map(pmem2.Config(length=4096)) as other:
        view = other.view()
        view[:] = b"x" * 4096
        map.memcpy_many([(0, other)] * ((1 << 20) + 5))  # more than a gate can count
        with pytest.raises(BufferError, match="alive"):
            other.close()
        assert view[0] == map[4095] == ord("x")
        view.release()
