# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of persist, flush, drain and deep flush: pmem2_persist, pmem2_deep_flush and pmem2_integration.

The counts run on one interpreter: libpmem2 and the C code are the same for all, and tests/api/test_durable_bytes.py
compares the bytes and the drains of each operation on every interpreter.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Protocol, cast

import pytest
from support import libpmem2
from support.children import RunChild
from support.compiled import border_library
from support.values import SIZE, waits_once

import pmem2
from pmem2 import ErrorCode, Granularity

Counts = tuple[int, int, int]
AllCounts = dict[str, "tuple[list[int], list[int] | None]"]

BYTE, CACHE_LINE, PAGE = Granularity


class Count(Protocol):
    """Count the system calls and instructions of an operation."""

    def __call__(self, operation: str) -> tuple[Counts, Counts | None]:
        """Return the msyncs, cache flushes and fences of the façade's *operation*, and those of libpmem2's own."""


@pytest.fixture(scope="session")
def all_counts(
    run_child: RunChild, debug_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Granularity], AllCounts]:
    """Count all operations of a granularity in one child, on a file of 20 MiB and 5 KiB."""
    folder = tmp_path_factory.mktemp("counted")
    path = folder / "file"
    path.touch()
    os.truncate(path, 20 * 1024 * 1024 + 5 * 1024)

    @functools.cache
    def run(granularity: Granularity) -> AllCounts:
        child = run_child(
            "from upstream import count_child; count_child.print_counts()",
            str(path),
            LD_PRELOAD=border_library(),
            LD_LIBRARY_PATH=str(debug_library),
            PMEM2_LOG_LEVEL="15",
            PMEM2_LOG_FILE=str(tmp_path_factory.mktemp("log") / "log"),
        )
        assert child.returncode == 0, child.stderr
        return cast("AllCounts", json.loads(child.stdout))

    return run


@pytest.fixture
def count(granularity: Granularity, all_counts: Callable[[Granularity], AllCounts]) -> Count:
    """Count at the forced granularity."""

    def find(operation: str) -> tuple[Counts, Counts | None]:
        facade, library = all_counts(granularity)[operation]
        return cast("Counts", tuple(facade)), None if library is None else cast("Counts", tuple(library))

    return find


@pytest.fixture
def raw_map(raw_source: int, granularity: Granularity) -> Iterator[int]:
    """A libpmem2 map of 16 MiB with that granularity."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_granularity(pointer) == granularity
        yield pointer


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
def test_persist_counts(count: Count, granularity: Granularity) -> None:
    """A persist is one msync on PAGE, one flush and one fence on CACHE_LINE, one fence on BYTE."""
    expected = {PAGE: (1, 0, 0), CACHE_LINE: (0, 1, 1), BYTE: (0, 0, 1)}[granularity]
    assert count("persist") == (expected, expected)


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
def test_persist_empty_range(count: Count) -> None:
    """Persisting an empty range calls no msync."""
    (msyncs, _, _), _ = count("persist, empty range")
    assert msyncs == 0


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.parametrize(
    ("ranges", "pages", "lines"),
    [("none", 0, 0), ("near", 1, 1), ("adjacent", 1, 2), ("a few pages apart", 1, 2), ("far", 2, 2)],
    ids=str,
)
@pytest.mark.libpmem2
def test_persist_many_counts(
    count: Count, granularity: Granularity, tmp_path: Path, ranges: str, pages: int, lines: int
) -> None:
    """`persist_many` flushes a line once, syncs nearby pages together and drains once; ext4 and XFS need one msync."""
    pages = min(pages, 1) if waits_once(tmp_path) else pages
    expected = {PAGE: (pages, 0, 0), CACHE_LINE: (0, lines, 1), BYTE: (0, 0, 1)}[granularity]
    assert count(f"persist_many, {ranges}")[0] == expected


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
def test_memcpy_counts(count: Count, granularity: Granularity) -> None:
    """A copy is durable at return: one msync on PAGE, one fence on the others."""
    facade, library = count("memcpy")
    assert library is not None
    expected = (1, 0) if granularity is PAGE else (0, 1)
    assert facade[::2] == library[::2] == expected


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
def test_memcpy_nodrain_counts(count: Count, granularity: Granularity) -> None:
    """NODRAIN omits the fence and has no effect on PAGE."""
    facade, library = count("memcpy, NODRAIN")
    assert library is not None
    assert facade[::2] == library[::2] == (int(granularity is PAGE), 0)


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
def test_memcpy_noflush_counts(count: Count) -> None:
    """NOFLUSH omits msync, flush and fence."""
    assert count("memcpy, NOFLUSH") == ((0, 0, 0), (0, 0, 0))


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.parametrize("operation", ["memset", "store_u64"])
@pytest.mark.libpmem2
def test_memset_and_atomic_counts(count: Count, granularity: Granularity, operation: str) -> None:
    """A memset and a persisting atomic store are also one msync or one fence."""
    (msyncs, _, fences), _ = count(operation)
    assert (msyncs, fences) == ((1, 0) if granularity is PAGE else (0, 1))


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.parametrize(("ranges", "units"), [("near", 1), ("far", 2)])
@pytest.mark.libpmem2
def test_memcpy_many_counts(count: Count, granularity: Granularity, tmp_path: Path, ranges: str, units: int) -> None:
    """`memcpy_many` drains once; short pieces share one flush per line and one msync per page."""
    syncs = 1 if waits_once(tmp_path) else units
    expected = {PAGE: (syncs, 0, 0), CACHE_LINE: (0, units, 1), BYTE: (0, 0, 1)}[granularity]
    assert count(f"memcpy_many, {ranges}")[0] == expected


@pytest.mark.upstream("pmem2_persist/TEST0")
@pytest.mark.libpmem2
@pytest.mark.medium
def test_functions_depend_on_granularity(raw_map: int, raw_source: int) -> None:
    """Maps of one granularity share their functions; persist equals flush on PAGE only."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as other:
        assert libpmem2.functions(other) == libpmem2.functions(raw_map)
    persist, flush, _, memmove, memcpy, _ = libpmem2.functions(raw_map)
    assert memmove == memcpy
    assert (persist == flush) == (libpmem2.map_granularity(raw_map) == PAGE)


@pytest.mark.upstream("pmem2_persist/TEST1")
@pytest.mark.libpmem2
def test_flush_counts(count: Count, granularity: Granularity) -> None:
    """A flush is one msync on PAGE, one flush without a fence on CACHE_LINE, nothing on BYTE."""
    expected = {PAGE: (1, 0, 0), CACHE_LINE: (0, 1, 0), BYTE: (0, 0, 0)}[granularity]
    assert count("flush") == (expected, expected)


@pytest.mark.upstream("pmem2_persist/TEST1")
@pytest.mark.parametrize(("ranges", "units"), [("near", 1), ("far", 2)])
@pytest.mark.libpmem2
def test_flush_many_counts(count: Count, granularity: Granularity, tmp_path: Path, ranges: str, units: int) -> None:
    """`flush_many` flushes each line or page once and drains nothing."""
    syncs = 1 if waits_once(tmp_path) else units
    expected = {PAGE: (syncs, 0, 0), CACHE_LINE: (0, units, 0), BYTE: (0, 0, 0)}[granularity]
    assert count(f"flush_many, {ranges}")[0] == expected


@pytest.mark.upstream("pmem2_persist/TEST2")
@pytest.mark.libpmem2
def test_drain_counts(count: Count, granularity: Granularity) -> None:
    """A drain is nothing on PAGE, one fence on the others."""
    expected = {PAGE: (0, 0, 0), CACHE_LINE: (0, 0, 1), BYTE: (0, 0, 1)}[granularity]
    assert count("drain") == (expected, expected)


@pytest.mark.upstream("pmem2_deep_flush/TEST0")
@pytest.mark.libpmem2
def test_deep_flush_counts(count: Count, granularity: Granularity) -> None:
    """A deep flush of a file is one msync; on PAGE libpmem2 does nothing and the façade persists."""
    assert count("deep_flush") == ((1, 0, 0), (0, 0, 0) if granularity is PAGE else (1, 0, 0))


@pytest.mark.upstream("pmem2_deep_flush/TEST2", "pmem2_integration/TEST27")
@pytest.mark.medium
@pytest.mark.parametrize(
    ("offset", "length"),
    [(SIZE, 1), (SIZE // 2, SIZE), (0, SIZE + 1)],
    ids=["at the end", "from the middle", "whole map and one byte"],
)
def test_deep_flush_outside_map(
    map: pmem2.Map, granularity: Granularity, raw_map: int, offset: int, length: int
) -> None:
    """The façade refuses a range outside the map with ValueError, libpmem2 with DEEP_FLUSH_RANGE."""
    with pytest.raises(ValueError, match="ends beyond the map"):
        map.deep_flush(offset, length)
    assert libpmem2.deep_flush(raw_map, offset, length) == ErrorCode.DEEP_FLUSH_RANGE


@pytest.mark.upstream("pmem2_integration/TEST23")
@pytest.mark.medium
def test_deep_flush_valid_range(granularity: Granularity, source: pmem2.Source, raw_map: int, file: Path) -> None:
    """Persisted data can be deep-flushed, and so can the empty range at the end."""
    with source.map() as map:
        assert map.granularity is granularity
        map.memset(0, 0, map.size)
        map[0:4] = b"deep"
        map.persist()
        map.deep_flush()
        map.deep_flush(map.size, 0)
    assert file.read_bytes()[:8] == b"deep\0\0\0\0"
    assert libpmem2.deep_flush(raw_map, 0, SIZE) == 0
    assert libpmem2.deep_flush(raw_map, SIZE, 0) == 0


@pytest.mark.upstream("pmem2_integration/TEST26")
def test_deep_flush_slice(map: pmem2.Map, granularity: Granularity, raw_map: int) -> None:
    """A part of a map can be deep-flushed."""
    map.memset(0, 0, SIZE // 4)
    map.deep_flush(SIZE // 4, SIZE // 4)
    assert libpmem2.deep_flush(raw_map, SIZE // 4, SIZE // 4) == 0


@pytest.mark.upstream("pmem2_integration/TEST38")
@pytest.mark.medium
def test_persist_unaligned_range(map: pmem2.Map, granularity: Granularity, raw_map: int, file: Path) -> None:
    """A range that begins inside a page can be persisted and deep-flushed."""
    map[:] = b"\7" * SIZE
    map.persist(256, SIZE - 256)
    map.deep_flush(256, SIZE - 256)
    libpmem2.persist(raw_map, 256, SIZE - 256)
    assert libpmem2.deep_flush(raw_map, 256, SIZE - 256) == 0
    assert file.read_bytes()[256:] == b"\7" * (SIZE - 256)


@pytest.mark.upstream("pmem2_integration/TEST24")
@pytest.mark.medium
def test_deep_flush_behind_map(map: pmem2.Map, granularity: Granularity, raw_map: int) -> None:
    """A range behind the map is refused."""
    with pytest.raises(ValueError, match="ends beyond the map"):
        map.deep_flush(map.size + 1, 64)
    assert libpmem2.deep_flush(raw_map, SIZE + 1, 64) == ErrorCode.DEEP_FLUSH_RANGE


@pytest.mark.upstream("pmem2_integration/TEST25")
@pytest.mark.medium
def test_deep_flush_before_map(map: pmem2.Map, granularity: Granularity, raw_map: int) -> None:
    """A range before the map is refused."""
    with pytest.raises(ValueError, match="offset must be >= 0"):
        map.deep_flush(-map.size, 64)
    assert libpmem2.deep_flush(raw_map, -SIZE, 64) == ErrorCode.DEEP_FLUSH_RANGE
