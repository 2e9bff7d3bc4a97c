# SPDX-License-Identifier: BSD-3-Clause
"""Data for a map: buffers of every kind, other maps, and overlapping views."""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest
from support.map_calls import OUTSIDE, map_with_protection
from support.values import CONTENT, Index

from pmem2 import Map, Protection, Source
from pmem2._buffers import merge_ranges

WRITE = Protection.WRITE
LENGTH = len(CONTENT)


BUFFER_KINDS = ["bytes", "bytearray", "memoryview", "part", "array", "two dimensions", "mmap", "view", "cast view"]
EIGHT_BYTES = b"\1\2\3\4\5\6\7\x80"


@pytest.fixture(params=BUFFER_KINDS)
def data(request: pytest.FixtureRequest, anonymous_source: Source) -> Iterator[memoryview]:
    """Eight bytes in each kind of buffer; all are typed as memoryview, because Python 3.9 has no type for buffers."""
    simple: dict[str, object] = {
        "bytes": EIGHT_BYTES,
        "bytearray": bytearray(EIGHT_BYTES),
        "memoryview": memoryview(EIGHT_BYTES),
        "part": memoryview(b"<" + EIGHT_BYTES + b">")[1:9],
        "array": array("H", EIGHT_BYTES),
        "two dimensions": memoryview(EIGHT_BYTES).cast("B", (2, 4)),
    }
    kind = str(request.param)
    if kind in simple:
        yield simple[kind]  # type: ignore[misc] # typed as memoryview
    elif kind == "mmap":
        with closing(mmap.mmap(-1, 8)) as memory:
            memory[:] = EIGHT_BYTES
            yield memory  # type: ignore[misc] # typed as memoryview
    else:
        with anonymous_source.map() as map:
            map[8:16] = EIGHT_BYTES
            with map.view(8, 8) as view, view.cast("Q" if kind == "cast view" else "B") as cast:
                yield cast


def test_slice_from_every_buffer(small_map: Map, data: memoryview) -> None:
    """Slice assignment copies the bytes of any contiguous buffer, whatever its item type."""
    small_map[3:11] = data
    assert small_map[:] == CONTENT[:3] + EIGHT_BYTES + CONTENT[11:]
    small_map[20:4:-2] = data
    assert small_map[20:4:-2] == EIGHT_BYTES


@pytest.mark.parametrize("copy", [Map.memcpy, Map.memmove])
def test_copy_from_every_buffer(small_map: Map, data: memoryview, copy: Callable[[Map, int, memoryview], None]) -> None:
    """memcpy and memmove copy the bytes of any contiguous buffer, whatever its item type."""
    copy(small_map, 3, data)
    assert small_map[:] == CONTENT[:3] + EIGHT_BYTES + CONTENT[11:]


def test_pieces_from_every_buffer(small_map: Map, data: memoryview) -> None:
    """memcpy_many copies pieces of any contiguous buffer."""
    small_map.memcpy_many([(3, data), (LENGTH - 8, data)])
    assert small_map[:] == CONTENT[:3] + EIGHT_BYTES + CONTENT[11 : LENGTH - 8] + EIGHT_BYTES


@pytest.mark.parametrize("wrong", ["12345678", 8, None, [1, 2], 1.0, object(), Index(8), True])
def test_data_of_wrong_type(small_map: Map, wrong: bytes) -> None:
    """Data without a buffer raises a TypeError that says so, and no copy stores anything."""
    text = f"^data must be a bytes-like object, not {type(wrong).__name__}"
    with pytest.raises(TypeError, match=text):
        small_map.memcpy(0, wrong)
    with pytest.raises(TypeError, match=text):
        small_map.memmove(0, wrong)
    with pytest.raises(TypeError, match=text):
        small_map.memcpy_many([(0, b"first"), (8, wrong)])
    with pytest.raises(TypeError, match=text):
        small_map[0:8] = wrong
    assert small_map[:] == CONTENT


def test_data_not_contiguous(small_map: Map) -> None:
    """A buffer that is not C-contiguous raises BufferError and nothing is stored."""
    for gaps in (memoryview(CONTENT)[:8:2], memoryview(CONTENT)[7::-1]):
        with pytest.raises(BufferError):
            small_map.memcpy(0, gaps)
        with pytest.raises(BufferError):
            small_map.memmove(0, gaps)
        with pytest.raises(BufferError):
            small_map.memcpy_many([(0, b"first"), (8, gaps)])
        with pytest.raises(BufferError):
            small_map[0 : len(gaps)] = gaps
        with pytest.raises(BufferError):
            small_map[0 : 2 * len(gaps) : 2] = gaps
    assert small_map[:] == CONTENT


def test_map_as_data(small_map: Map) -> None:
    """A Map is valid data for copies and slices, also of itself, on every interpreter."""
    with Source.from_anon(8) as source, source.map() as other:
        other[:] = EIGHT_BYTES
        small_map.memcpy(0, other)
        small_map.memmove(8, other)
        small_map.memcpy_many([(16, other), (24, other)])
        small_map[32:40] = other
        small_map[40:56:2] = other
    assert small_map[:40] == EIGHT_BYTES * 5
    assert small_map[40:56:2] == EIGHT_BYTES
    before = small_map[:]
    small_map.memmove(0, small_map)
    small_map[:] = small_map
    small_map[::-1] = small_map
    assert small_map[:] == before[::-1]


def test_map_as_invalid_data(small_map: Map, path: Path) -> None:
    """A Map that is too large or closed raises ValueError as data, and one without READ raises TypeError."""
    with Source.from_anon(LENGTH + 1) as source, source.map() as large:
        with pytest.raises(ValueError, match=OUTSIDE):
            small_map.memcpy(0, large)
        with pytest.raises(ValueError, match="bytes"):
            small_map[:] = large
    with pytest.raises(ValueError, match="closed"):
        small_map.memcpy(0, large)
    with pytest.raises(ValueError, match="closed"):
        small_map[:] = large
    with map_with_protection(path, WRITE) as unreadable:
        with pytest.raises(TypeError, match="READ"):
            small_map.memcpy(0, unreadable)
        with pytest.raises(TypeError, match="READ"):
            small_map[:] = unreadable
    assert small_map[:] == CONTENT


@pytest.mark.parametrize(("source", "target"), [(0, 0), (0, 1), (1, 0), (0, 64), (64, 0), (5, 300), (300, 5)])
def test_memmove_overlapping(small_map: Map, source: int, target: int) -> None:
    """memmove copies correctly from an overlapping view of the same map."""
    for length in (0, 1, 8, 255, 256, 257, 5000):
        small_map[:] = CONTENT
        expected = bytearray(CONTENT)
        expected[target : target + length] = expected[source : source + length]
        with small_map.view(source, length) as view:
            small_map.memmove(target, view)
        assert small_map[:] == expected, length


@pytest.mark.parametrize("target", [0, 3, 8, 13, 200])
def test_slice_overlapping(small_map: Map, target: int) -> None:
    """Slice assignment copies correctly from an overlapping view of the same map."""
    expected = bytearray(CONTENT)
    expected[target : target + 16] = CONTENT[8:24]
    with small_map.view(8, 16) as view:
        small_map[target : target + 16] = view
    assert small_map[:] == expected


def test_strided_slice_overlapping(small_map: Map) -> None:
    """Assignment to a strided slice copies an overlapping view as it was before."""
    with small_map.view(0, 16) as view:
        small_map[0:32:2] = view
    assert small_map[0:32:2] == CONTENT[:16]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 introduced __buffer__")
def test_buffer_raises_overflow_error(small_map: Map) -> None:
    """An exception raised by `__buffer__` reaches the caller after a single call."""
    calls = []

    class Overflows:
        def __buffer__(self, flags: int) -> memoryview:
            calls.append(flags)
            raise OverflowError("mine")

    with pytest.raises(OverflowError, match="mine"):
        small_map.memcpy(0, Overflows())  # type: ignore[arg-type, unused-ignore] # before 3.12
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([(3, 4)], [(3, 4)]),
        ([(0, 4), (4, 4)], [(0, 8)]),
        ([(0, 4), (5, 4)], [(0, 4), (5, 4)]),
        ([(0, 100), (10, 5)], [(0, 100)]),
        ([(0, 100), (10, 5), (90, 20)], [(0, 110)]),
        ([(50, 10), (0, 10), (5, 10)], [(0, 15), (50, 10)]),
    ],
    ids=["none", "one", "touching", "apart", "contained", "behind a contained one", "unordered"],
)
def test_merged_ranges(ranges: list[tuple[int, int]], merged: list[tuple[int, int]]) -> None:
    """Merged ranges cover the bytes of all ranges once, in order, also where one contains another."""
    assert merge_ranges(ranges) == merged
