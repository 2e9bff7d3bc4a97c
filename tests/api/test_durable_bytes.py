# SPDX-License-Identifier: BSD-3-Clause
"""The bytes that each operation makes durable: all that were asked for, and no others.

A preloaded library records every flush, drain, copy and msync of a child; see tests/support/border.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Callable, cast

import pytest
from support.border import LINE, MS_SYNC, Event, Kind, effect, units
from support.children import RunChild
from support.compiled import border_library
from support.durable_child import GAP, MANY, PAGE, RANGES, SEVERAL, SINGLE, WORD, WORDS, Case, Pairs
from support.values import ALL_GRANULARITIES, waits_once

from pmem2 import Granularity, MemFlag

if sys.platform == "win32":
    pytest.skip("needs LD_PRELOAD", allow_module_level=True)

NO_DRAIN = {"flush", "flush_many", "flush_many of an array", "memcpy NODRAIN", "memmove NODRAIN", "memset NODRAIN"}
NO_FLUSH = {"memcpy NOFLUSH", "memset NOFLUSH", "store_u64", "compare_exchange_u64", "fetch_add_u64"}
COPIES = ("memcpy", "memmove", "memset")
NON_TEMPORAL = 256


@pytest.fixture(scope="module")
def recordings(run_child: RunChild, tmp_path_factory: pytest.TempPathFactory) -> dict[Granularity, list[Case]]:
    """The recordings of all operations, for each granularity."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("recordings")
    result = {}
    for granularity in ALL_GRANULARITIES:
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
@pytest.mark.parametrize("granularity", ALL_GRANULARITIES, ids=lambda g: g.name.lower())
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
@pytest.mark.parametrize("granularity", ALL_GRANULARITIES, ids=lambda g: g.name.lower())
def test_stored_bytes(recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str) -> None:
    """A copy stores to its destination once, and to nothing else."""
    for _, pairs, events in recordings_of(recordings, granularity, name):
        stored = [(offset, length) for kind, offset, length, _ in events if kind in (Kind.COPY, Kind.SET)]
        assert stored == [tuple(pair) for pair in pairs], events


BY_LINE = [each for each in ALL_GRANULARITIES if each is not Granularity.PAGE]


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
@pytest.mark.parametrize("granularity", BY_LINE, ids=lambda g: g.name.lower())
def test_flushes_are_whole_lines(
    recordings: dict[Granularity, list[Case]], granularity: Granularity, name: str
) -> None:
    """Many ranges are flushed from the beginning of a line to the end of one."""
    for _, pairs, events in recordings_of(recordings, granularity, name):
        ends = [end for kind, offset, length, _ in events if kind == Kind.FLUSH for end in (offset, offset + length)]
        assert all(end % LINE == 0 for end in ends), (pairs, events)


@pytest.mark.parametrize("name", ["persist_many", "flush_many"])
def test_near_pages_synced_together(recordings: dict[Granularity, list[Case]], name: str) -> None:
    """Ranges in any order need one msync for each group of near pages, and none for empty ranges."""
    for _, pairs, events in recordings_of(recordings, Granularity.PAGE, name):
        pages = sorted(wanted_units(pairs, PAGE))
        far = sum((high - low - 1) * PAGE > GAP for low, high in zip(pages, pages[1:]))
        assert len(events) == (far + 1 if pages else 0), (pairs, events)


SUBMIT, SUBMIT_AND_WAIT = 2, 7  # flags of sync_file_range
FAR_CALLS = {
    "persist_many": "m.persist_many(ranges)",
    "flush_many": "m.flush_many(ranges)",
    "memcpy_many": "m.memcpy_many([(offset, bytes(length)) for offset, length in ranges])",
}
FAR_PRELUDE = """
import errno, json, os, sys
import pmem2
from support.border import Border, Call
border, path = Border(), sys.argv[1]
ranges = [(3 << 20, 9), ((1 << 20) - 1, 2), (5 << 20, 8), (0, 1), ((5 << 20) + 8192, 8)]
"""


@pytest.fixture
def far_events(run_child: RunChild, tmp_path: Path) -> Callable[[str], str]:
    """A function that runs code in a child, with a file on a file system that waits once."""
    if not waits_once(tmp_path):
        pytest.skip("the temporary folder is neither on ext4 nor on XFS")

    def run(code: str) -> str:
        child = run_child(FAR_PRELUDE + code, str(tmp_path / "far"), LD_PRELOAD=border_library())
        assert child.returncode == 0, child.stderr
        return child.stdout

    return run


@pytest.mark.libpmem2
@pytest.mark.parametrize("offset", [0, 4 * PAGE])
@pytest.mark.parametrize("call", FAR_CALLS.values(), ids=list(FAR_CALLS))
def test_far_pages_synced_once(far_events: Callable[[str], str], call: str, offset: int) -> None:
    """Far pages on ext4 or XFS, and nothing between them, are all submitted, waited for and synced once."""
    output = far_events(f"""
pmem2.open(path, "w+", size=8 << 20).close()
with pmem2.open(path, config=pmem2.Config(offset={offset})) as m:
    with border.recording(m) as events:
        {call}
    print(json.dumps(events))
""")
    groups = [(0, PAGE), ((1 << 20) - PAGE, 2 * PAGE), (3 << 20, PAGE), (5 << 20, 3 * PAGE)]
    submits = [[Kind.SUBMIT, begin + offset, length, SUBMIT] for begin, length in groups]
    waits = [[*submit[:3], SUBMIT_AND_WAIT] for submit in submits]
    events = [event for event in json.loads(output) if event[0] != Kind.COPY]
    assert events == [*submits, *waits, [Kind.MSYNC, *groups[-1], MS_SYNC]]


@pytest.mark.libpmem2
@pytest.mark.parametrize("skip", [0, 7])
@pytest.mark.parametrize("call", FAR_CALLS.values(), ids=list(FAR_CALLS))
def test_failed_submit_stays(far_events: Callable[[str], str], call: str, skip: int) -> None:
    """A failing submit or wait raises OSError, and so does every later durability call."""
    output = far_events(f"""
with pmem2.open(path, "w+", size=8 << 20) as m:
    with border.failing(Call.SUBMIT, errno.EIO, skip={skip}):
        for act in (lambda: {call}, m.persist, lambda: {call}):
            try:
                act()
            except OSError as error:
                print(error.errno == errno.EIO)
""")
    assert output == "True\n" * 3


def test_far_pages_keep_descriptor(far_events: Callable[[str], str]) -> None:
    """The first call that waits once for far pages opens the file; the map closes it."""
    output = far_events("""
count = lambda: len(os.listdir("/proc/self/fd"))
before = count()
with pmem2.open(path, "w+", size=8 << 20) as m:
    m.persist()
    m.persist_many(ranges[:1])
    print(count() - before)
    for _ in range(3):
        m.persist_many(ranges)
    print(count() - before)
print(count() - before)
""")
    assert output.splitlines() == ["0", "1", "0"]


def test_far_pages_without_descriptor(far_events: Callable[[str], str]) -> None:
    """Without a descriptor for one wait, far pages are an error that says so; with one, the same calls work."""
    output = far_events(f"""
import resource
with pmem2.open(path, "w+", size=8 << 20) as m:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    for free in range(3):
        for call in {list(FAR_CALLS.values())!r}:
            try:
                exec(call)
                print(free, "works")
            except OSError as error:
                print(free, error.errno == errno.EMFILE, "keeps that descriptor" in str(error))
        os.close(taken.pop())
    m.persist()
""")
    assert output == "0 True True\n" * 3 + "1 True True\n" * 3 + "2 works\n" * 3


@pytest.mark.parametrize("obstacle", ["os.rename(path, path + '.moved')", "os.unlink(path)"])
def test_far_pages_without_file(far_events: Callable[[str], str], obstacle: str) -> None:
    """A file that has moved or is deleted is synced range by range."""
    output = far_events(f"""
with pmem2.open(path, "w+", size=8 << 20) as m:
    {obstacle}
    open(path, "w").close()  # another file with that name
    with border.recording(m) as events:
        m.persist_many(ranges)
    print([event.kind for event in events])
""")
    assert output == f"{[int(Kind.MSYNC)] * 4}\n"


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


@pytest.mark.parametrize("granularity", ALL_GRANULARITIES, ids=lambda g: g.name.lower())
def test_refused_range_flushes_nothing(recordings: dict[Granularity, list[Case]], granularity: Granularity) -> None:
    """An operation with a range outside the map stores and flushes nothing at all."""
    refused = [case for case in recordings[granularity] if case[0].startswith("refused")]
    assert len(refused) == 6
    for name, _, events in refused:
        assert events == [], name
