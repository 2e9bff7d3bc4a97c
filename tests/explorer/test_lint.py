# SPDX-License-Identifier: BSD-3-Clause
"""The findings of `lint=True`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Callable

from explorer.helpers import NODRAIN, SIZE, discard, line_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import explore


def test_mistakes_are_found() -> None:
    """Stores never made durable, flushes of clean lines and drains of nothing are found with their locations."""

    def workload(map: Map) -> Generator[None, None, None]:
        map.store_u64(0, 1)
        map.persist(64, 64)
        map.drain()
        for _ in range(2):
            map.store_u64(128, 1)
            map.flush(128, 8)
            yield

    def findings(granularity: Granularity) -> list[tuple[str, int]]:
        report = explore(workload, lambda map, acks: None, size=SIZE, granularity=granularity, lint=True)
        assert all(finding.filename == __file__ for finding in report.findings)
        return [(finding.kind, finding.lineno) for finding in report.findings]

    stored, flushed = line_of(workload, "(0, 1)"), line_of(workload, "persist")
    drained, again = line_of(workload, "drain"), line_of(workload, "(128, 1)")
    assert findings(Granularity.CACHE_LINE) == [
        ("flush of clean lines", flushed),
        ("drain of nothing", drained),
        ("never made durable", stored),
        ("never made durable", again),
    ]
    assert findings(Granularity.PAGE) == []
    assert findings(Granularity.BYTE) == []


def test_correct_code_has_no_findings() -> None:
    """Copies, atomics, an exchange that swaps nothing and a persist of nothing give no findings."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"x" * 100)
        map.memcpy(0, b"y", NODRAIN)
        map.drain()
        map.compare_exchange_u64(0, 5, 6, persist=True)
        map.persist(0, 0)
        map.store_u64(0, 1)
        map.flush(0, 8)
        map.drain()

    assert explore(workload, lambda map: None, size=SIZE, lint=True).findings == ()
    assert explore(workload, lambda map: None, size=SIZE).findings == ()


def kinds_of(workload: Callable[[Map], object], granularity: Granularity = Granularity.CACHE_LINE) -> list[str]:
    """Return the kind and the offset of each finding."""
    report = explore(workload, lambda map: None, size=SIZE, granularity=granularity, lint=True)
    return [f"{finding.kind} at {finding.offset}" for finding in report.findings]


def test_each_line_is_linted() -> None:
    """A copy over two lines is never made durable if one of them is not; two stores to one line count each."""

    def first_line(map: Map) -> None:
        map.memcpy(0, b"x" * 128, MemFlag.NOFLUSH)
        map.persist(0, 64)

    def not_drained(map: Map) -> None:
        for offset in (64, 72):
            map.store_u64(offset, 1)
            map.flush(offset, 8)

    assert kinds_of(first_line) == ["never made durable at 0"]
    assert kinds_of(not_drained) == ["never made durable at 64", "never made durable at 72"]


def test_drains_are_linted() -> None:
    """A drain is a finding if nothing was flushed since the last one, and none if any range was."""

    def twice(map: Map) -> None:
        map.store_u64(0, 1)
        map.flush(0, 8)
        map.drain()
        map.drain()

    def partly_clean(map: Map) -> None:
        map.store_u64(0, 1)
        map.flush_many([(0, 8), (64, 8)])
        map.drain()

    assert kinds_of(twice) == ["drain of nothing at 0"]
    assert kinds_of(partly_clean) == ["flush of clean lines at 64"]


def test_copy_needs_drain_on_byte() -> None:
    """A non-temporal copy that is not drained is never made durable on BYTE either."""
    flags = NODRAIN | MemFlag.NONTEMPORAL
    assert kinds_of(lambda map: map.memcpy(0, b"x", flags), Granularity.BYTE) == ["never made durable at 0"]
    assert kinds_of(lambda map: map.memcpy(0, b"x", NODRAIN), Granularity.BYTE) == []


def test_repeated_persists_are_linted() -> None:
    """Three persists of one line in a row are a finding, unless a yield or a store elsewhere needs them."""

    def repeated(map: Map) -> None:
        for offset in (0, 8, 16, 24):
            map.store_u64(offset, 1, persist=True)

    def twice(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.store_u64(8, 1, persist=True)

    def elsewhere(map: Map) -> None:
        for offset in (0, 8, 16):
            map.store_u64(offset, 1, persist=True)
            map.store_u64(SIZE + offset, 1, persist=True)

    def acknowledged(map: Map) -> Generator[None, None, None]:
        for offset in (0, 8, 16):
            map.store_u64(offset, 1, persist=True)
            yield

    def drained(map: Map) -> None:
        for number in (1, 2, 3):
            map.memcpy(0, bytes([number]) * 16, NODRAIN)
            map.drain()

    def two_lines(map: Map) -> None:
        for number in (1, 2, 3):
            map.memset(32, number, 64)

    def findings(workload: Callable[[Map], object], granularity: Granularity) -> list[str]:
        def check(map: Map, acknowledged: object = None) -> None:
            """Accept everything."""

        report = explore(workload, check, size=2 * SIZE, granularity=granularity, lint=True)
        return [f"{finding.kind} at {finding.offset}+{finding.length}" for finding in report.findings]

    assert findings(repeated, Granularity.CACHE_LINE) == ["repeated persist at 0+64"]
    assert findings(repeated, Granularity.PAGE) == ["repeated persist at 0+4096"]
    assert findings(repeated, Granularity.BYTE) == []
    assert findings(two_lines, Granularity.PAGE) == ["repeated persist at 0+4096"]
    assert findings(two_lines, Granularity.CACHE_LINE) == []
    for granularity in Granularity:
        for workload in (twice, elsewhere, acknowledged):
            assert findings(workload, granularity) == []
    assert findings(drained, Granularity.CACHE_LINE) == []


def test_storing_check_is_linted() -> None:
    """A check that stores is a finding without `recover`, by a method or through a view; it may close its map."""

    def storing(map: Map) -> None:
        if map.load_u64(0):
            map.store_u64(64, 1, persist=True)
            map.close()

    def viewing(map: Map) -> None:
        with map.view() as view:
            view[64] = 1

    def findings(check: Callable[[Map], None], **options: bool) -> list[tuple[str, str]]:
        recover = discard(lambda map: None) if options else None
        report = explore(lambda map: map.store_u64(0, 1, persist=True), check, size=SIZE, recover=recover, lint=True)
        return [(finding.kind, f"{finding.function}:{finding.lineno}") for finding in report.findings]

    kind = "check without recover stores"
    assert findings(storing) == [(kind, f"storing:{line_of(storing, 'store_u64')}")]
    assert findings(viewing) == [(kind, f"viewing:{line_of(viewing, 'def ')}")]
    assert findings(storing, recover=True) == []
    assert findings(discard(lambda map: map[:])) == []
