# SPDX-License-Identifier: BSD-3-Clause
"""Views and arrays in place of an offset: persist, flush, publish and others take the range of their memory."""

from __future__ import annotations

import ctypes
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from _pmem2 import lib
from support.values import CONTENT, PAGE

import pmem2
from pmem2 import Config, Granularity, Map, Sharing, Source
from pmem2.testing import CrashConsistencyError, explore

if TYPE_CHECKING:
    from pmem2._buffers import Memory

CALLS: dict[str, Callable[[Map, Memory], object]] = {
    "persist": Map.persist,
    "flush": Map.flush,
    "deep_flush": Map.deep_flush,
    **({"publish": Map.publish, "acquire": Map.acquire} if lib.HAS_CACHE_CONTROL else {}),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))

VIEWS: dict[str, tuple[Callable[[memoryview], memoryview], tuple[int, int]]] = {
    "all": (lambda view: view, (64, 256)),
    "slice": (lambda view: view[8:24], (72, 16)),
    "nothing": (lambda view: view[8:8], (72, 0)),
    "items": (lambda view: view.cast("Q")[2:4], (80, 16)),
    "backwards": (lambda view: view[10::-1], (64, 11)),
    "steps": (lambda view: view[1:12:5], (65, 11)),
    "steps back": (lambda view: view.cast("I")[8:2:-3], (84, 16)),
    "matrix": (lambda view: view.cast("B", (16, 16)), (64, 256)),
    "rows": (lambda view: view.cast("B", (16, 16))[2:7:2], (96, 80)),
}


def span(map: Map, memory: Memory) -> tuple[int, int]:
    """Return the range of *memory* as the map sees it."""
    return map._span(memory, None)


@pytest.mark.parametrize("name", VIEWS)
def test_range_of_view(small_map: Map, name: str) -> None:
    """The range of a view begins at its first byte in memory and ends at its last."""
    cut, expected = VIEWS[name]
    with small_map.view(64, 256) as whole:
        part = cut(whole)
        assert span(small_map, part) == expected
        for call in CALLS.values():
            call(small_map, part)
        del part


def test_range_of_other_buffers(small_map: Map) -> None:
    """Everything that exports memory of the map has a range, with or without a length."""
    with small_map.view(64, 64) as view:
        number = ctypes.c_uint64.from_buffer(view, 8)
        numbers = (ctypes.c_uint16 * 4).from_buffer(view, 16)
        assert span(small_map, number) == (72, 8)
        assert span(small_map, numbers) == (80, 8)
        small_map.persist(number)
        del number, numbers
        assert span(small_map, view.toreadonly()) == (64, 64)
    assert span(small_map, small_map) == (0, len(CONTENT))


@every_call
def test_other_memory(small_map: Map, call: Callable[[Map, Memory], object]) -> None:
    """Memory that does not lie in the map, also that of another map of the file, is a ValueError."""
    with Source.from_anon(PAGE) as source, source.map() as other, other.view() as view:
        for memory in (view, other, bytearray(8), b"12345678", array("Q", [1]), memoryview(b"")):
            with pytest.raises(ValueError, match="view or an array of this map, got"):
                call(small_map, memory)


def test_overhanging_memory(anonymous_source: Source) -> None:
    """A view that begins or ends outside of the map is a ValueError."""
    memory = bytearray(4 * PAGE)
    with Map.from_existing(anonymous_source, memoryview(memory)[100:300], Granularity.BYTE) as map:
        assert span(map, memoryview(memory)[100:300]) == (0, 200)
        for low, high in ((99, 101), (299, 301), (99, 301), (0, 1), (301, 301)):
            with pytest.raises(ValueError, match="of other memory"):
                map.persist(memoryview(memory)[low:high])


@every_call
@pytest.mark.parametrize("wrong", ["12345678", None, [0, 8], (0, 8), 1.0, {}], ids=repr)
def test_neither_number_nor_memory(small_map: Map, call: Callable[[Map, Memory], object], wrong: bytes) -> None:
    """Anything else is a TypeError that names the wanted types."""
    with pytest.raises(TypeError, match="offset must be an integer"):
        call(small_map, wrong)


def test_length_with_a_view(small_map: Map) -> None:
    """A view has its own length: another one is a TypeError."""
    with small_map.view(0, 8) as view, pytest.raises(TypeError, match="if there is a length"):
        small_map.persist(view, 8)  # type: ignore[call-overload]


def test_released_and_closed(path: Path) -> None:
    """A released view is a ValueError, and so is a view of a map that was closed with `defer`."""
    map = pmem2.open(path)
    view = map.view()
    released = map.view()
    released.release()
    with pytest.raises(ValueError, match="released"):
        map.persist(released)
    assert not map.close(defer=True)
    with pytest.raises(ValueError, match="closed"):
        map.persist(view)
    view.release()


def test_map_without_access(anonymous_source: Source) -> None:
    """A PRIVATE map takes its views too."""
    with anonymous_source.map(Config(sharing=Sharing.PRIVATE)) as map, map.view(8, 8) as view:
        map.persist(view)


def test_explorer_records_views() -> None:
    """The crash explorer knows the range of a view: what lies outside is lost."""

    def workload(map: Map, persisted: int) -> None:
        map[0] = 1
        with map.view() as view:
            map.persist(view[persisted : persisted + 1])
            map.flush(view[64:65])
            map.deep_flush(view[64:65])
        map[128] = 1

    def check(map: Map) -> None:
        assert not map[128] or map[0]

    assert explore(lambda map: workload(map, 0), check, size=PAGE).exhaustive
    with pytest.raises(CrashConsistencyError):
        explore(lambda map: workload(map, 64), check, size=PAGE)


def test_views_without_numpy(small_map: Map, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views have ranges whether NumPy is there or not."""
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    with small_map.view(64, 256) as view:
        small_map.persist(view[8:24])
        assert span(small_map, view[8:24]) == (72, 16)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy has no NumPy wheels")
def test_only_numpy_can_describe(small_map: Map) -> None:
    """A view that is scattered in every dimension has a range too."""
    numpy = pytest.importorskip("numpy")
    matrix = small_map.as_array("u2", (8, 16), 64)
    assert span(small_map, memoryview(matrix.T[2:4])) == (68, 228)
    assert numpy.shares_memory(matrix, matrix.T)
