# SPDX-License-Identifier: BSD-3-Clause
"""The rules of the memory model, one by one: the images that each of them allows."""

from __future__ import annotations

import sys
from collections.abc import Generator

from explorer.helpers import NODRAIN, SIZE, images_of, values_of
from pmem2 import Granularity, Map
from pmem2.testing import explore


def test_lines_are_independent() -> None:
    """Stores to two lines survive in any combination."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 2)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (0, 2), (1, 2)}


def test_line_keeps_program_order() -> None:
    """The second of two stores to one line never survives without the first."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(8, 2)

    assert values_of(workload, 0, 8) == {(0, 0), (1, 0), (1, 2)}


def test_persisted_store_survives() -> None:
    """A store survives every power failure after its persist."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.store_u64(64, 2, persist=True)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (1, 2)}


def test_flush_covers_whole_line() -> None:
    """A flush of one byte covers its whole line, but no store made after the flush."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.flush(63, 1)
        map.store_u64(8, 2)
        map.drain()
        map.store_u64(64, 3)

    assert values_of(workload, 0, 8, 64) == {(0, 0, 0), (1, 0, 0), (1, 2, 0), (1, 0, 3), (1, 2, 3)}


def test_copy_tears_between_words() -> None:
    """A copy tears between aligned words and, at its unaligned ends, between bytes; an aligned assignment does not."""
    assert len(images_of(lambda map: map.memcpy(0, b"\1" * 16, NODRAIN))) == 4
    assert len(images_of(lambda map: map.memcpy(2, b"\1" * 2, NODRAIN))) == 4
    assert len(images_of(lambda map: map.__setitem__(slice(2, 4), b"\1\1"))) == 2
    assert len(images_of(lambda map: map.__setitem__(slice(3, 5), b"\1\1"))) == 4


def test_nodrain_copy_is_unordered() -> None:
    """A NODRAIN copy may be lost although a later store to its line survives, until the next drain."""

    def workload(map: Map) -> None:
        map.store_u64(16, 9)  # earlier than the copy: the copy never survives without this store
        map.memcpy(0, (1).to_bytes(8, sys.byteorder), NODRAIN)
        map.store_u64(8, 2)
        map.drain()
        map.store_u64(64, 3, persist=True)

    expected = {(0, 0, 0, 0), (9, 0, 0, 0), (9, 1, 0, 0), (9, 0, 2, 0), (9, 1, 2, 0), (9, 1, 0, 3), (9, 1, 2, 3)}
    assert values_of(workload, 16, 0, 8, 64) == expected


def test_memcpy_many_pieces_are_unordered() -> None:
    """The pieces of memcpy_many survive in any combination, and all of them once it has returned."""

    def workload(map: Map) -> None:
        map.memcpy_many([(0, b"\1" * 8), (8, b"\1" * 8)])
        map.store_u64(64, 1)

    assert len(images_of(workload)) == 5


def test_byte_granularity_needs_no_flush() -> None:
    """Stores survive in program order on BYTE, and a copy may be torn."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 2)
        map.memcpy(128, b"\1" * 16, NODRAIN)

    seen = images_of(workload, Granularity.BYTE)
    assert len(seen) == 3 + 3
    assert values_of(workload, 0, 64, granularity=Granularity.BYTE) == {(0, 0), (1, 0), (1, 2)}


def test_page_granularity_writes_back_sectors() -> None:
    """Sectors are written back independently on PAGE; a flush makes whole pages durable, a drain does nothing."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.drain()
        map.store_u64(512, 2)
        map.flush(4088, 8)
        map.store_u64(1024, 3)

    expected = {(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 0), (1, 2, 3)}
    assert values_of(workload, 0, 512, 1024, granularity=Granularity.PAGE) == expected


def test_setup_is_durable() -> None:
    """The stores of setup are durable without a flush, those through a view that the workload goes on to use too."""
    views: list[memoryview] = []

    def setup(map: Map) -> None:
        map.store_u64(0, 7)
        views.append(map.view(8, 8))
        views[0][0] = 9

    def workload(map: Map) -> None:
        views.pop()[0] = 1

    seen: list[tuple[int, int]] = []
    report = explore(workload, lambda map: seen.append((map[0], map[8])), size=SIZE, setup=setup)
    assert seen == [(7, 9), (7, 1)] or seen == [(7, 1), (7, 9)]
    assert report.images == 2


def test_yield_acknowledges() -> None:
    """The check receives the values yielded so far; the moment after the last yield is a crash point too."""

    def workload(map: Map) -> Generator[int, None, None]:
        map.store_u64(0, 1)
        yield 1
        map.persist(0, 8)
        yield 2

    seen: set[tuple[int, tuple[int, ...]]] = set()
    report = explore(workload, lambda map, acks: seen.add((map.load_u64(0), tuple(acks))), size=SIZE)
    assert seen == {(0, ()), (1, ()), (0, (1,)), (1, (1,)), (1, (1, 2))}
    assert report.images == 5


def test_yielded_value_is_copied() -> None:
    """A yielded list keeps its content although the workload and the check change it later."""

    def workload(map: Map) -> Generator[list[int], None, None]:
        done: list[int] = []
        for number in range(2):
            done.append(number)
            yield done

    seen: list[list[list[int]]] = []

    def check(map: Map, acknowledged: list[list[int]]) -> None:
        seen.append([done.copy() for done in acknowledged])
        for done in acknowledged:
            done.clear()

    explore(workload, check, size=SIZE)
    assert sorted(seen) == [[], [[0]], [[0], [0, 1]]]
