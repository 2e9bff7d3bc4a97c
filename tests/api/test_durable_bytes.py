# SPDX-License-Identifier: BSD-3-Clause
"""The bytes that each operation makes durable: all that were asked for, and no others.

A preloaded library records every flush, drain, copy and msync of a child; see tests/support/border.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import cast

import pytest
from support.border import LINE, Event, Kind, border_library, effect, units
from support.children import RunChild
from support.durable_child import GAP, MANY, PAGE, RANGES, SEVERAL, SINGLE, WORD, WORDS, Case, Pairs

from pmem2 import Granularity, MemFlag

if sys.platform == "win32":
    pytest.skip("needs LD_PRELOAD", allow_module_level=True)

GRANULARITIES = list(Granularity)
NO_DRAIN = {"flush", "flush_many", "flush_many of an array", "memcpy NODRAIN", "memmove NODRAIN", "memset NODRAIN"}
NO_FLUSH = {"memcpy NOFLUSH", "memset NOFLUSH", "store_u64", "compare_exchange_u64", "fetch_add_u64"}
COPIES = ("memcpy", "memmove", "memset")
NON_TEMPORAL = 256


@pytest.fixture(scope="module")
def recordings(run_child: RunChild, tmp_path_factory: pytest.TempPathFactory) -> dict[Granularity, list[Case]]:
    """The recordings of all operations, for each granularity."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("recordings")
    result = {}
    for granularity in GRANULARITIES:
        path = folder / f"pmem2-durable-{os.getpid()}"
        try:
            child = run_child(
                "from support import durable_child; durable_child.main()",
                str(path),
                LD_PRELOAD=border_library(),
                PMEM2_FORCE_GRANULARITY=granularity.name,
            )
        finally:
            path.unlink(missing_ok=True)
        assert child.returncode == 0, child.stderr
        result[granularity] = cast("list[Case]", json.loads(child.stdout))
    return result


def recordings_of(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> list[Case]:
    """Return the cases of one operation."""
    found = [case for case in recordings[granularity] if case[0] == name]
    wanted = len(RANGES) if name in SINGLE else len(WORDS) if name in WORD else len(MANY)
    assert len(found) == wanted
    return found


def wanted_units(pairs: Pairs, unit: int) -> set[int]:
    """Return the lines or pages that the ranges touch."""
    return {number for offset, length in pairs for number in units(offset, length, unit)}


def bridged(pages: set[int]) -> set[int]:
    """Return the pages in the gaps that one msync bridges."""
    ordered = sorted(pages)
    gaps = zip(ordered, ordered[1:])
    return {page for low, high in gaps if (high - low - 1) * PAGE <= GAP for page in range(low, high)}


@pytest.mark.parametrize("name", [*SINGLE, *WORD, *SEVERAL])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda g: g.name.lower())
def test_durable_bytes(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> None:
    """Each line or page of the ranges is flushed and drained, and nothing else is."""
    paged = granularity is Granularity.PAGE
    unit = PAGE if paged else LINE
    for _, pairs, events in recordings_of(recordings, granularity, name):
        drained, pending, _ = effect([Event(*event) for event in events], granularity, PAGE)
        wanted = set() if name in NO_FLUSH else wanted_units(pairs, unit)
        if paged:
            assert wanted <= drained <= wanted | bridged(wanted), (pairs, events)
        elif name in NO_DRAIN:
            assert (drained, pending) == (set(), wanted), (pairs, events)
        else:
            assert (drained, pending) == (wanted, set()), (pairs, events)


@pytest.mark.parametrize("name", [name for name in [*SINGLE, *SEVERAL] if name.startswith(COPIES)])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda g: g.name.lower())
def test_stored_bytes(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> None:
    """A copy stores to its destination once, and to nothing else."""
    for _, pairs, events in recordings_of(recordings, granularity, name):
        stored = [(offset, length) for kind, offset, length, _ in events if kind in (Kind.COPY, Kind.SET)]
        assert stored == [tuple(pair) for pair in pairs], events


BY_LINE = [Granularity.BYTE, Granularity.CACHE_LINE]


@pytest.mark.parametrize("name", ["persist_many", "flush_many", "memcpy_many"])
@pytest.mark.parametrize("granularity", BY_LINE, ids=lambda g: g.name.lower())
def test_lines_flushed_once(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> None:
    """Ranges in the order of their lines flush each line once; so do short pieces of `memcpy_many`."""
    for _, pairs, events in recordings_of(recordings, granularity, name):
        if sorted(pairs, key=lambda pair: pair[0] // LINE) != pairs:
            continue
        if name == "memcpy_many" and any(length >= NON_TEMPORAL for _, length in pairs):
            continue
        flushed = [units(offset, length, LINE) for kind, offset, length, _ in events if kind == Kind.FLUSH]
        assert sum(map(len, flushed)) == len(set().union(*flushed)), (pairs, events)


@pytest.mark.parametrize("name", ["persist_many", "flush_many"])
def test_near_pages_synced_together(recordings: dict[Granularity, list[Case]], name: str) -> None:
    """Ranges in any order need one msync for each group of near pages, and none for empty ranges."""
    for _, pairs, events in recordings_of(recordings, Granularity.PAGE, name):
        pages = sorted(wanted_units(pairs, PAGE))
        far = sum((high - low - 1) * PAGE > GAP for low, high in zip(pages, pages[1:]))
        assert len(events) == (far + 1 if pages else 0), (pairs, events)


@pytest.mark.parametrize("granularity", BY_LINE, ids=lambda g: g.name.lower())
def test_long_pieces_bypass_cache(recordings: dict[Granularity, list[Case]], granularity: Granularity) -> None:
    """`memcpy_many` lets libpmem2 flush pieces from 256 bytes on, and flushes shorter ones itself."""
    for _, _, events in recordings_of(recordings, granularity, "memcpy_many"):
        for kind, _, length, flags in events:
            if kind == Kind.COPY:
                assert flags == (MemFlag.NODRAIN if length >= NON_TEMPORAL else MemFlag.NOFLUSH)


@pytest.mark.parametrize("name", ["persist_many", "persist_many of an array", "memcpy_many", "memcpy_many of views"])
@pytest.mark.parametrize("granularity", BY_LINE, ids=lambda g: g.name.lower())
def test_one_drain(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> None:
    """Many ranges have one drain, after the last flush."""
    for _, pairs, events in recordings_of(recordings, granularity, name):
        kinds = [kind for kind, *_ in events]
        assert kinds.count(Kind.DRAIN) == 1, (pairs, events)
        assert kinds[-1] == Kind.DRAIN
        assert Kind.PERSIST not in kinds


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda g: g.name.lower())
def test_refused_range_flushes_nothing(recordings: dict[Granularity, list[Case]], granularity: Granularity) -> None:
    """An operation with a range outside the map stores and flushes nothing at all."""
    refused = [case for case in recordings[granularity] if case[0].startswith("refused")]
    assert len(refused) == 6
    for name, _, events in refused:
        assert events == [], name
