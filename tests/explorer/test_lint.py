# SPDX-License-Identifier: BSD-3-Clause
"""The findings of `lint=True`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Callable

from explorer.helpers import NODRAIN, SIZE, line_of
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
