# SPDX-License-Identifier: BSD-3-Clause
"""Correct programs pass; the same programs with a bug fail, with the reason that fits the bug."""

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
AT = 640  # the record lies in another line and another sector than its length
RECORD = b"a record that needs more than one line of 64 bytes, so that it can be torn between them"


def word(number: int) -> bytes:
    """Return a number as 8 bytes."""
    return number.to_bytes(8, "little")


class Case(NamedTuple):
    """A program, its check, and the reason of the failure on each granularity; `None` if it passes."""

    workload: Callable[[Map], Optional[Iterator[object]]]
    check: Callable[..., None]
    byte: str | None
    line: str | None
    page: str | None


def check_record(map: Map, _acknowledged: object = None) -> None:
    """Check that the record has the length at 0."""
    length = map.load_u64(0)
    assert length in (0, len(RECORD))
    assert map[AT : AT + length] == RECORD[:length]


def log(map: Map) -> None:
    """Correct: the record is durable before its length."""
    map.memcpy(AT, RECORD)
    map.store_u64(0, len(RECORD), persist=True)


def log_not_flushed(map: Map) -> None:
    """Bug: the record is not flushed."""
    map.memcpy(AT, RECORD, NOFLUSH)
    map.store_u64(0, len(RECORD), persist=True)


def log_not_drained(map: Map) -> None:
    """Bug: the record is not drained before the length is stored."""
    map.memcpy(AT, RECORD, NODRAIN)
    map.store_u64(0, len(RECORD), persist=True)


def log_flushed_short(map: Map) -> None:
    """Bug: the last line of the record is not flushed."""
    map[AT : AT + len(RECORD)] = RECORD
    map.persist(AT, 64)
    map.store_u64(0, len(RECORD), persist=True)


def log_flushed_before(map: Map) -> None:
    """Bug: the flush comes before the record."""
    map.persist(AT, len(RECORD))
    map[AT : AT + len(RECORD)] = RECORD
    map.store_u64(0, len(RECORD), persist=True)


def log_too_early(map: Map) -> None:
    """Bug: the length comes before the record."""
    map.store_u64(0, len(RECORD), persist=True)
    map.memcpy(AT, RECORD)


def log_one_barrier(map: Map) -> None:
    """Bug: no drain separates the record from its length."""
    map[AT : AT + len(RECORD)] = RECORD
    map.flush(AT, len(RECORD))
    map.store_u64(0, len(RECORD))
    map.flush(0, 8)
    map.drain()


def log_through_views(map: Map) -> None:
    """Correct, with stores through a view."""
    with map.view() as view:
        view[AT : AT + len(RECORD)] = RECORD
        map.persist(AT, len(RECORD))
        view[0:8] = word(len(RECORD))
    map.persist(0, 8)


def log_through_views_not_flushed(map: Map) -> None:
    """Bug: the record is flushed after the length is stored."""
    with map.view() as view:
        view[AT : AT + len(RECORD)] = RECORD
        view.cast("Q")[0] = len(RECORD)
    map.persist()


def log_in_pieces(map: Map) -> None:
    """Correct: memcpy_many drains."""
    map.memcpy_many([(AT, RECORD[:30]), (AT + 30, RECORD[30:])])
    map.store_u64(0, len(RECORD), persist=True)


def log_with_length_as_piece(map: Map) -> None:
    """Bug: the length is one of the pieces, which are unordered."""
    map.memcpy_many([(AT, RECORD), (0, word(len(RECORD)))])


def check_record_with_sum(map: Map, _acknowledged: object = None) -> None:
    """Check the record if its checksum matches."""
    record = map[AT : AT + len(RECORD)]
    assert map.load_u64(0) != zlib.crc32(record) or record in (RECORD, bytes(len(RECORD)))


def checksummed(map: Map) -> None:
    """Correct in any order: the checksum shows whether the record is complete."""
    map.store_u64(0, zlib.crc32(RECORD))
    map.memcpy(AT, RECORD, NODRAIN)
    map.drain()


def check_pair(map: Map, _acknowledged: object = None) -> None:
    """Check that two numbers are equal, or the first is ahead by one."""
    assert map.load_u64(0) - map.load_u64(8) in (0, 1)


def same_line(map: Map) -> None:
    """Correct: stores to one line keep their order."""
    for number in (1, 2):
        map.store_u64(0, number)
        map.store_u64(8, number)
    map.persist(0, 16)


def same_line_wrong_order(map: Map) -> None:
    """Bug: the second number comes first, so the workload itself passes through the bad state."""
    map.store_u64(8, 1)
    map.store_u64(0, 1)
    map.persist(0, 16)


def same_line_not_drained(map: Map) -> None:
    """Bug: nothing orders a copy that is not drained, not even within its line."""
    map.memcpy(0, word(1), NODRAIN)
    map.store_u64(8, 1)
    map.persist(0, 16)


def check_sectors(map: Map, _acknowledged: object = None) -> None:
    """Check that the number in the second sector is not ahead of the one in the first."""
    assert map.load_u64(0) >= map.load_u64(512)


def two_sectors(map: Map) -> None:
    """Correct on BYTE only: nothing orders the two stores elsewhere."""
    map.store_u64(0, 1)
    map.store_u64(512, 1)
    map.persist()


def two_sectors_flushed(map: Map) -> None:
    """Correct on every granularity."""
    map.store_u64(0, 1, persist=True)
    map.store_u64(512, 1, persist=True)


def two_sectors_without_flush(map: Map) -> None:
    """Bug: a drain without a flush."""
    map.store_u64(0, 1)
    map.drain()
    map.store_u64(512, 1, persist=True)


def check_acknowledged(map: Map, acknowledged: list[int]) -> None:
    """Check that the last acknowledged number, or the next one, is stored."""
    assert map.load_u64(0) - len(acknowledged) in (0, 1)


def acknowledging(map: Map) -> Iterator[int]:
    """Correct: each number is durable before its acknowledgement."""
    for number in (1, 2, 3):
        map.store_u64(0, number, persist=True)
        yield number


def acknowledging_too_early(map: Map) -> Iterator[int]:
    """Bug: the acknowledged number is not durable yet."""
    for number in (1, 2, 3):
        map.store_u64(0, number)
        yield number
        map.persist(0, 8)


def check_selected_copy(map: Map, _acknowledged: object = None) -> None:
    """Check that the copy selected by the index at 0 is complete."""
    place = 64 + 64 * (map.load_u64(0) % 2)
    assert len(set(map[place : place + 16])) == 1


def two_copies(map: Map) -> None:
    """Correct: the program writes the copy that is not selected."""
    for number in (1, 2, 3):
        map.memcpy(64 + 64 * (number % 2), bytes([number]) * 16)
        map.store_u64(0, number, persist=True)


def one_copy(map: Map) -> None:
    """Bug: the program writes the copy that is selected."""
    for number in (1, 2, 3):
        map.memcpy(64 + 64 * (map.load_u64(0) % 2), bytes([number]) * 16)
        map.store_u64(0, number, persist=True)


def check_sum(map: Map, acknowledged: list[int]) -> None:
    """Check that every acknowledged number was added."""
    assert map.load_u64(0) >= sum(acknowledged)


def adding(map: Map) -> Iterator[int]:
    """Correct: the exchange persists the addition, even if it does not swap."""
    for number in (1, 2):
        map.fetch_add_u64(0, number)
        map.compare_exchange_u64(0, 0, 9, persist=True)
        yield number


def adding_not_persisted(map: Map) -> Iterator[int]:
    """Bug: the addition is not persisted."""
    for number in (1, 2):
        map.fetch_add_u64(0, number)
        yield number


NEVER, FLUSHED, LATE, ITSELF = "never flushed", "flushed, not drained", "overtaken", "itself"
CASES = [
    Case(log, check_record, None, None, None),
    Case(log_not_flushed, check_record, None, NEVER, LATE),
    Case(log_not_drained, check_record, None, FLUSHED, None),
    Case(log_flushed_short, check_record, None, NEVER, None),
    Case(log_flushed_before, check_record, None, NEVER, LATE),
    Case(log_too_early, check_record, ITSELF, ITSELF, ITSELF),
    Case(log_one_barrier, check_record, None, FLUSHED, None),
    Case(log_through_views, check_record, None, None, None),
    Case(log_through_views_not_flushed, check_record, None, LATE, LATE),
    Case(log_in_pieces, check_record, None, None, None),
    Case(log_with_length_as_piece, check_record, LATE, LATE, LATE),
    Case(checksummed, check_record_with_sum, None, None, None),
    Case(same_line, check_pair, None, None, None),
    Case(same_line_wrong_order, check_pair, ITSELF, ITSELF, ITSELF),
    Case(same_line_not_drained, check_pair, None, FLUSHED, None),
    Case(two_sectors, check_sectors, None, LATE, LATE),
    Case(two_sectors_flushed, check_sectors, None, None, None),
    Case(two_sectors_without_flush, check_sectors, None, NEVER, LATE),
    Case(acknowledging, check_acknowledged, None, None, None),
    Case(acknowledging_too_early, check_acknowledged, None, LATE, LATE),
    Case(two_copies, check_selected_copy, None, None, None),
    Case(one_copy, check_selected_copy, LATE, LATE, LATE),
    Case(adding, check_sum, None, None, None),
    Case(adding_not_persisted, check_sum, None, NEVER, NEVER),
]


@pytest.mark.parametrize("granularity", [BYTE, LINE, PAGE], ids=["byte", "line", "page"])
@pytest.mark.parametrize("case", CASES, ids=[case.workload.__name__ for case in CASES])
def test_bugs_are_found(case: Case, granularity: Granularity) -> None:
    """explore finds each bug, with its reason and a location in the workload, and passes correct programs."""
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
