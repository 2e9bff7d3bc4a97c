# SPDX-License-Identifier: BSD-3-Clause
"""Programs that are right, and the same with a bug in them: each bug is found, and nothing is said of the others."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import pytest

from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, explore

SIZE = 8192
NODRAIN, NOFLUSH = MemFlag.NODRAIN, MemFlag.NOFLUSH
BYTE, LINE, PAGE = Granularity
AT = 640  # another line than the length, and another sector
RECORD = b"a record that needs more than one line of 64 bytes, so that it can be torn between them"


def word(number: int) -> bytes:
    """Return 8 bytes."""
    return number.to_bytes(8, "little")


class Case(NamedTuple):
    """A program, what must hold after a power cut, and what is found on each granularity: the reason, or `None`."""

    workload: Callable[[Map], Optional[Iterator[object]]]
    check: Callable[..., None]
    byte: str | None
    line: str | None
    page: str | None


def record(map: Map, _acknowledged: object = None) -> None:
    """What the length at 0 promises is there."""
    length = map.load_u64(0)
    assert length in (0, len(RECORD))
    assert map[AT : AT + length] == RECORD[:length]


def log(map: Map) -> None:
    """Right."""
    map.memcpy(AT, RECORD)
    map.store_u64(0, len(RECORD), persist=True)


def log_not_flushed(map: Map) -> None:
    """The record is only copied."""
    map.memcpy(AT, RECORD, NOFLUSH)
    map.store_u64(0, len(RECORD), persist=True)


def log_not_drained(map: Map) -> None:
    """The record is on its way when the length is stored."""
    map.memcpy(AT, RECORD, NODRAIN)
    map.store_u64(0, len(RECORD), persist=True)


def log_flushed_short(map: Map) -> None:
    """The last line is not flushed."""
    map[AT : AT + len(RECORD)] = RECORD
    map.persist(AT, 64)
    map.store_u64(0, len(RECORD), persist=True)


def log_flushed_before(map: Map) -> None:
    """What is flushed is what was there before."""
    map.persist(AT, len(RECORD))
    map[AT : AT + len(RECORD)] = RECORD
    map.store_u64(0, len(RECORD), persist=True)


def log_too_early(map: Map) -> None:
    """The length comes first."""
    map.store_u64(0, len(RECORD), persist=True)
    map.memcpy(AT, RECORD)


def log_one_barrier(map: Map) -> None:
    """Both are flushed, and nothing is between them."""
    map[AT : AT + len(RECORD)] = RECORD
    map.flush(AT, len(RECORD))
    map.store_u64(0, len(RECORD))
    map.flush(0, 8)
    map.drain()


def log_of_views(map: Map) -> None:
    """Right, through views."""
    with map.view() as view:
        view[AT : AT + len(RECORD)] = RECORD
        map.persist(AT, len(RECORD))
        view[0:8] = word(len(RECORD))
    map.persist(0, 8)


def log_of_views_not_flushed(map: Map) -> None:
    """The record is flushed too late."""
    with map.view() as view:
        view[AT : AT + len(RECORD)] = RECORD
        view.cast("Q")[0] = len(RECORD)
    map.persist()


def log_in_pieces(map: Map) -> None:
    """Right: memcpy_many has a drain."""
    map.memcpy_many([(AT, RECORD[:30]), (AT + 30, RECORD[30:])])
    map.store_u64(0, len(RECORD), persist=True)


def log_in_one_piece_too_many(map: Map) -> None:
    """The pieces are unordered, the length is one of them."""
    map.memcpy_many([(AT, RECORD), (0, word(len(RECORD)))])


def record_with_sum(map: Map, _acknowledged: object = None) -> None:
    """A record counts if its sum is right; nothing else is promised."""
    record = map[AT : AT + len(RECORD)]
    assert map.load_u64(0) != zlib.crc32(record) or record in (RECORD, bytes(len(RECORD)))


def summed(map: Map) -> None:
    """Right in any order, since the sum is of what is there."""
    map.store_u64(0, zlib.crc32(RECORD))
    map.memcpy(AT, RECORD, NODRAIN)
    map.drain()


def pair(map: Map, _acknowledged: object = None) -> None:
    """Two numbers in one line are equal, or the first is ahead by one."""
    assert map.load_u64(0) - map.load_u64(8) in (0, 1)


def same_line(map: Map) -> None:
    """Right: stores to one line keep their order."""
    for number in (1, 2):
        map.store_u64(0, number)
        map.store_u64(8, number)
    map.persist(0, 16)


def same_line_wrong_order(map: Map) -> None:
    """The second first: the workload itself goes through that."""
    map.store_u64(8, 1)
    map.store_u64(0, 1)
    map.persist(0, 16)


def same_line_not_drained(map: Map) -> None:
    """Nothing orders a copy that is not drained, not even in its line."""
    map.memcpy(0, word(1), NODRAIN)
    map.store_u64(8, 1)
    map.persist(0, 16)


def sectors(map: Map, _acknowledged: object = None) -> None:
    """The number in the second sector is never ahead of the one in the first."""
    assert map.load_u64(0) >= map.load_u64(512)


def two_sectors(map: Map) -> None:
    """Right on BYTE only: nothing is between the two."""
    map.store_u64(0, 1)
    map.store_u64(512, 1)
    map.persist()


def two_sectors_flushed(map: Map) -> None:
    """Right everywhere."""
    map.store_u64(0, 1, persist=True)
    map.store_u64(512, 1, persist=True)


def two_sectors_drained_for_nothing(map: Map) -> None:
    """A drain without a flush."""
    map.store_u64(0, 1)
    map.drain()
    map.store_u64(512, 1, persist=True)


def acknowledged_numbers(map: Map, acknowledged: list[int]) -> None:
    """The last number that was acknowledged is there, or the next."""
    assert map.load_u64(0) - len(acknowledged) in (0, 1)


def acknowledging(map: Map) -> Iterator[int]:
    """Right."""
    for number in (1, 2, 3):
        map.store_u64(0, number, persist=True)
        yield number


def acknowledging_too_early(map: Map) -> Iterator[int]:
    """What was acknowledged is not durable yet."""
    for number in (1, 2, 3):
        map.store_u64(0, number)
        yield number
        map.persist(0, 8)


def swapped(map: Map, _acknowledged: object = None) -> None:
    """The number that the index at 0 selects is one that was stored there wholly."""
    place = 64 + 64 * (map.load_u64(0) % 2)
    assert len(set(map[place : place + 16])) == 1


def two_copies(map: Map) -> None:
    """Right: the copy that is not in use is written."""
    for number in (1, 2, 3):
        map.memcpy(64 + 64 * (number % 2), bytes([number]) * 16)
        map.store_u64(0, number, persist=True)


def one_copy(map: Map) -> None:
    """The copy that is in use is written."""
    for number in (1, 2, 3):
        map.memcpy(64 + 64 * (map.load_u64(0) % 2), bytes([number]) * 16)
        map.store_u64(0, number, persist=True)


def counted(map: Map, acknowledged: list[int]) -> None:
    """What was added is there."""
    assert map.load_u64(0) >= sum(acknowledged)


def adding(map: Map) -> Iterator[int]:
    """Right: each addition is persisted by the exchange that follows, even if that does not swap."""
    for number in (1, 2):
        map.fetch_add_u64(0, number)
        map.compare_exchange_u64(0, 0, 9, persist=True)
        yield number


def adding_not_persisted(map: Map) -> Iterator[int]:
    """Nothing is."""
    for number in (1, 2):
        map.fetch_add_u64(0, number)
        yield number


NEVER, FLUSHED, LATE, ITSELF = "never flushed", "flushed, not drained", "overtaken", "itself"
CASES = [
    Case(log, record, None, None, None),
    Case(log_not_flushed, record, None, NEVER, LATE),
    Case(log_not_drained, record, None, FLUSHED, None),
    Case(log_flushed_short, record, None, NEVER, None),
    Case(log_flushed_before, record, None, NEVER, LATE),
    Case(log_too_early, record, ITSELF, ITSELF, ITSELF),
    Case(log_one_barrier, record, None, FLUSHED, None),
    Case(log_of_views, record, None, None, None),
    Case(log_of_views_not_flushed, record, None, LATE, LATE),
    Case(log_in_pieces, record, None, None, None),
    Case(log_in_one_piece_too_many, record, LATE, LATE, LATE),
    Case(summed, record_with_sum, None, None, None),
    Case(same_line, pair, None, None, None),
    Case(same_line_wrong_order, pair, ITSELF, ITSELF, ITSELF),
    Case(same_line_not_drained, pair, None, FLUSHED, None),
    Case(two_sectors, sectors, None, LATE, LATE),
    Case(two_sectors_flushed, sectors, None, None, None),
    Case(two_sectors_drained_for_nothing, sectors, None, NEVER, LATE),
    Case(acknowledging, acknowledged_numbers, None, None, None),
    Case(acknowledging_too_early, acknowledged_numbers, None, LATE, LATE),
    Case(two_copies, swapped, None, None, None),
    Case(one_copy, swapped, LATE, LATE, LATE),
    Case(adding, counted, None, None, None),
    Case(adding_not_persisted, counted, None, NEVER, NEVER),
]


@pytest.mark.parametrize("granularity", [BYTE, LINE, PAGE], ids=["byte", "line", "page"])
@pytest.mark.parametrize("case", CASES, ids=[case.workload.__name__ for case in CASES])
def test_each_bug_is_found_and_no_other(case: Case, granularity: Granularity) -> None:
    """With the reason, and a line of the workload as its place."""
    expected = (case.byte, case.line, case.page)[granularity]
    if expected is None:
        assert explore(case.workload, case.check, size=SIZE, granularity=granularity, budget=2000).images > 1
        return
    with pytest.raises(CrashConsistencyError) as raised:
        explore(case.workload, case.check, size=SIZE, granularity=granularity, budget=2000)
    error = raised.value
    assert error.crash_point[0] == __file__
    assert {store.function for store in error.lost} <= {case.workload.__name__}
    assert {store.reason for store in error.lost} == ({expected} - {ITSELF})
