# SPDX-License-Identifier: BSD-3-Clause
"""Views: memoryviews that share the memory of a map."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.children import RunChild
from support.map_calls import OUTSIDE, range_outside
from support.values import CONTENT, Index

import pmem2
from pmem2 import Map

LENGTH = len(CONTENT)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (1, 5), (5, LENGTH - 5), (LENGTH, 0), (0, LENGTH)])
def test_view_shares_memory(small_map: Map, offset: int, length: int) -> None:
    """A view and its map see each other's stores."""
    with small_map.view(offset, length) as view:
        assert type(view) is memoryview
        assert (view.nbytes, view.format, view.itemsize, view.ndim) == (length, "B", 1, 1)
        assert not view.readonly
        assert view == CONTENT[offset : offset + length]
        if length:
            view[0] ^= 0xFF
            assert small_map[offset] == CONTENT[offset] ^ 0xFF
            small_map[offset] = 7
            assert view[0] == 7


def test_view_defaults(small_map: Map) -> None:
    """The offset of a view defaults to 0 and its length to the rest of the map."""
    with (
        small_map.view() as whole,
        small_map.view(100) as rest,
        small_map.view(length=Index(3), offset=Index(2)) as part,
    ):
        assert whole == CONTENT
        assert rest == CONTENT[100:]
        assert part == CONTENT[2:5]
    with small_map.view(LENGTH) as empty, small_map.view(LENGTH, None) as also_empty:
        assert empty.nbytes == also_empty.nbytes == 0


@range_outside
def test_view_range_outside(small_map: Map, offset: int, length: int | None) -> None:
    """A view of a range outside the map raises ValueError."""
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.view(offset, length)


def test_view_is_read_only(path: Path) -> None:
    """A view of a map without WRITE is read-only."""
    with pmem2.open(path, "r") as map, map.view(1, 3) as view:
        assert view.readonly
        assert view == CONTENT[1:4]
        with pytest.raises(TypeError):
            view[0] = 0


def test_read_only_view_never_crashes(path: Path, run_child: RunChild) -> None:
    """A store through a read-only view, or a view made from it, raises TypeError instead of crashing the process."""
    child = run_child(
        """
        import sys, pmem2
        with pmem2.open(sys.argv[1], "r") as map, map.view() as view:
            for derived in (view, memoryview(view), view.cast("Q")):  # not view.obj: it is writable
                with derived:
                    for value in (1, b"1"):
                        try:
                            derived[0] = value
                        except TypeError:
                            print("TypeError")
        """,
        str(path),
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.split() == ["TypeError"] * 6
    assert path.read_bytes() == CONTENT


def test_view_cast(small_map: Map) -> None:
    """A view can be cast to another item type."""
    with small_map.view(8, 16) as view, view.cast("Q") as words:
        words[1] = 2**64 - 1
        assert words[0] == int.from_bytes(CONTENT[8:16], sys.byteorder)
    assert small_map[8:32] == CONTENT[8:16] + b"\xff" * 8 + CONTENT[24:32]


def test_close_with_live_view(path: Path) -> None:
    """close() and `with` raise BufferError while a view or a slice of it is alive, and the map stays open."""
    map = pmem2.open(path)
    view = map.view()
    part = view[3:5]
    with pytest.raises(BufferError, match="view"):
        map.close()
    view.release()
    with pytest.raises(BufferError, match="view"), map:
        pass
    assert not map.closed
    assert part == map[3:5] == CONTENT[3:5]
    part.release()
    map.close()
    assert map.closed


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688 is of Python 3.12")
def test_memoryview_of_map(small_map: Map, path: Path) -> None:
    """From Python 3.12 on `memoryview(map)` is a view of the whole map, and functions that take a buffer take a map."""
    with memoryview(small_map) as view:  # type: ignore[arg-type, unused-ignore] # only from 3.12
        assert view == CONTENT
        view[0] = 42
        with pytest.raises(BufferError):
            small_map.close()
    assert small_map[0] == 42
    assert bytes(small_map) == small_map[:]  # type: ignore[call-overload, unused-ignore] # only from 3.12
    with pmem2.open(path, "r") as read_only, memoryview(read_only) as view:  # type: ignore[arg-type, unused-ignore]
        assert view.readonly


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="PEP 688 is of Python 3.12")
def test_memoryview_before_pep_688(small_map: Map) -> None:
    """Before Python 3.12 `memoryview(map)` raises TypeError."""
    with pytest.raises(TypeError):
        memoryview(small_map)  # type: ignore[arg-type, unused-ignore] # wrong on purpose
