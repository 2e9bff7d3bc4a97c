# SPDX-License-Identifier: BSD-3-Clause
"""The rules of the memory model, one by one: the images that each of them allows."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

from explorer.helpers import NODRAIN, SIZE, discard, images_of, values_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import explore
from pmem2.testing._events import Acknowledgement
from pmem2.testing._memory_model import Memory
from pmem2.testing._recorder import new_recording_map


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
    report = explore(workload, discard(lambda map, acks: seen.add((map.load_u64(0), tuple(acks)))), size=SIZE)
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


def set_twice(map: Map, line: int) -> None:
    """Set two words of a line and clear them again: first in order, then the first of them by a NODRAIN copy."""
    for number, flags in ((1, None), (3, None), (1, NODRAIN | MemFlag.NONTEMPORAL)):
        if flags is None:
            map.store_u64(line, number)
        else:
            map.memcpy(line, number.to_bytes(8, sys.byteorder), flags)
        map.store_u64(line + 8, 2)
        map.persist(line, 16)
        map.store_u64(line + 8, 0, persist=True)
        map.store_u64(line, 0, persist=True)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_keys_identify_states(granularity: Granularity) -> None:
    """Two crash points have equal keys if and only if the content and the pending stores of all cells are equal."""
    map = new_recording_map(SIZE, granularity)
    for turn in range(2):
        for line in (0, 1024):
            set_twice(map, line)
        map.store_u64(512, 1 - turn, persist=True)
        map.store_u64(1536, 1 - turn, persist=True)
        set_twice(map, 2048)
        map.events.append(Acknowledgement(map.last_location))
        set_twice(map, 0)
    memory = Memory(bytes(SIZE), granularity, {})
    states = []
    for point in memory.replay(map.events):
        cells = [
            (cell.offset, cell.durable, tuple((piece.unordered, piece.units) for piece in cell.queue), cell.guaranteed)
            for _, cell in sorted(memory.cells.items())
            if cell.queue or any(cell.durable)
        ]
        states.append((point.key, (point.acknowledged, tuple(cells))))
    map.dispose()
    assert len({key for key, _ in states}) == len({state for _, state in states}) == len(set(states)) < len(states)


def test_unordered_store_is_distinguished() -> None:
    """A copy without drain brings new images although an ordered store of the same bytes came before it."""
    expected = {(0, 0), (1, 0), (1, 2), (3, 0), (3, 2), (0, 2)}
    assert values_of(lambda map: set_twice(map, 0), 0, 8) == expected


def test_other_lines_are_distinguished() -> None:
    """A store brings new images if other lines have changed since the same store was made before."""

    def workload(map: Map) -> None:
        map.store_u64(128, 1, persist=True)
        map.store_u64(128, 0, persist=True)
        map.store_u64(0, 1, persist=True)
        map.store_u64(64, 1, persist=True)
        map.store_u64(128, 1)

    assert values_of(workload, 0, 64, 128) == {(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1)}


def test_drain_completes_flush_once() -> None:
    """A drain does not make a store durable that was made after the flush, even if the line was drained before."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.store_u64(0, 2)
        map.drain()
        map.store_u64(64, 3)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (2, 0), (1, 3), (2, 3)}


def test_second_flush_covers_more() -> None:
    """A drain completes the last of two flushes of a line, not only the first."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.flush(0, 8)
        map.store_u64(0, 2)
        map.flush(0, 8)
        map.drain()
        map.store_u64(64, 3)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (2, 0), (2, 3)}


@pytest.mark.parametrize("granularity", [Granularity.CACHE_LINE, Granularity.PAGE])
def test_empty_flush_covers_nothing(granularity: Granularity) -> None:
    """A persist of 0 bytes inside a line makes nothing durable."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.persist(8, 0)
        map.store_u64(512, 3)

    assert values_of(workload, 0, 512, granularity=granularity) == {(0, 0), (1, 0), (0, 3), (1, 3)}


def test_page_flush_covers_every_store() -> None:
    """A flush on PAGE makes all earlier stores to a sector durable, not only the first."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(8, 2)
        map.flush(16, 8)
        map.store_u64(512, 3)

    assert values_of(workload, 0, 8, 512, granularity=Granularity.PAGE) == {(0, 0, 0), (1, 0, 0), (1, 2, 0), (1, 2, 3)}


def test_byte_drain_settles_line() -> None:
    """A drain on BYTE makes a non-temporal copy durable, and the later stores to its line too."""

    def workload(map: Map) -> None:
        map.memcpy(0, (1).to_bytes(8, sys.byteorder), NODRAIN | MemFlag.NONTEMPORAL)
        map.store_u64(8, 2)
        map.drain()
        map.store_u64(64, 3)

    expected = {(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 0), (1, 2, 3)}
    assert values_of(workload, 0, 8, 64, granularity=Granularity.BYTE) == expected


def test_sector_keeps_program_order() -> None:
    """Stores to two lines of one sector survive in program order on PAGE."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(448, 2)

    assert values_of(workload, 0, 448, granularity=Granularity.PAGE) == {(0, 0), (1, 0), (1, 2)}


def test_equal_store_orders_its_line() -> None:
    """A store of the content of an earlier NODRAIN copy survives before every later store to its line."""

    def workload(map: Map) -> None:
        map.memcpy(0, (1).to_bytes(8, sys.byteorder), NODRAIN)
        map.store_u64(0, 1)
        map.store_u64(8, 2)

    assert values_of(workload, 0, 8) == {(0, 0), (1, 0), (1, 2)}


def test_byte_store_survives_behind_copy() -> None:
    """An ordered store on BYTE survives once the next store begins, although a copy before it in its line may not."""

    def workload(map: Map) -> None:
        map.memcpy(0, (1).to_bytes(8, sys.byteorder), NODRAIN | MemFlag.NONTEMPORAL)
        map.store_u64(8, 2)
        map.store_u64(64, 3)

    expected = {(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 0), (0, 2, 3), (1, 2, 3)}
    assert values_of(workload, 0, 8, 64, granularity=Granularity.BYTE) == expected


def test_equal_copy_brings_no_images() -> None:
    """A large copy of equal content brings no states, so that the search stays exhaustive."""
    assert images_of(lambda map: map.memset(0, 0, SIZE), Granularity.PAGE) == {bytes(SIZE)}


def test_ragged_ends_tear_by_byte() -> None:
    """The unaligned head and tail of a copy tear at any byte, and so do 16 aligned and 8 misaligned bytes."""
    assert len(images_of(lambda map: map.memcpy(5, b"\1" * 11, NODRAIN))) == 2 ** (3 + 1)
    assert len(images_of(lambda map: map.memcpy(8, b"\1" * 11, NODRAIN))) == 2 ** (1 + 3)
    assert len(images_of(lambda map: map.__setitem__(slice(0, 16), b"\1" * 16))) == 2**2
    assert len(images_of(lambda map: map.__setitem__(slice(4, 12), b"\1" * 8))) == 2**8


def test_guarantee_is_distinguished() -> None:
    """A torn store on BYTE brings new images although the same stores came before in another order."""
    flags = NODRAIN | MemFlag.NONTEMPORAL

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 8, flags)
        map[8:24] = b"\1" * 16  # guaranteed from here on
        map.memcpy(128, b"\1" * 8, flags)
        map.drain()
        for offset in (128, 16, 8, 0):
            map.store_u64(offset, 0)
        map.memcpy(128, b"\1" * 8, flags)
        map.memcpy(0, b"\1" * 8, flags)
        map[8:24] = b"\1" * 16

    images = images_of(workload, Granularity.BYTE)
    assert {(image[8], image[16]) for image in images if image[128]} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_many_states_keep_guarantee() -> None:
    """A store on BYTE survives behind copies with too many states to merge; the image that keeps all is checked."""

    def workload(map: Map) -> None:
        for number in (1, 2):
            map.memcpy(0, bytes([number]) * 56, NODRAIN | MemFlag.NONTEMPORAL)
        map.store_u64(56, 1)
        map.store_u64(64, 1)

    seen: list[bytes] = []
    explore(workload, lambda map: seen.append(map[:65]), size=SIZE, granularity=Granularity.BYTE, budget=60)
    assert b"\2" * 56 + (1).to_bytes(8, sys.byteorder) + b"\1" in seen
    assert {image[56] for image in seen if image[64]} == {1}
    map = new_recording_map(SIZE, Granularity.BYTE)
    workload(map)
    *_, last = Memory(bytes(SIZE), Granularity.BYTE, {}).replay(map.events)
    assert max(cell.options for cell in last.cells) == 2**14
    map.dispose()
