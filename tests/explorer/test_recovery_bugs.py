# SPDX-License-Identifier: BSD-3-Clause
"""Bugs of recoveries as they were published for logs, journals, allocators and tables, each with a correct twin.

Each case is a class: `setup`, `workload`, `recover`, `check`. The parameter of the class selects the bug or the twin.
Without `recover`, most of these bugs pass: only a second power failure shows them.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Generator
from typing import Callable

import pytest

from explorer.helpers import NODRAIN
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, explore

SIZE = 4096
GRANULARITIES = list(Granularity) if sys.implementation.name == "cpython" else [Granularity.CACHE_LINE]
NOFLUSH = MemFlag.NOFLUSH


class Case:
    """A program; `fixed` selects its correct twin."""

    def __init__(self, fixed: bool) -> None:
        """Keep the choice."""
        self.fixed = fixed

    def setup(self, map: Map) -> None:
        """Prepare the map."""

    def workload(self, map: Map) -> object:
        """Store."""

    def recover(self, map: Map) -> None:
        """Recover."""

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check."""


class UndoLog(Case):
    """Two accounts with a constant sum; an undo log of both. VALID at 0, old values from 8."""

    def setup(self, map: Map) -> None:
        """Open the accounts."""
        map.store_u64(64, 100)
        map.store_u64(128, 50)

    def workload(self, map: Map) -> None:
        """Transfer 30."""
        map.store_u64(8, map.load_u64(64))
        map.store_u64(16, map.load_u64(128))
        map.persist(8, 16)
        map.store_u64(0, 1, persist=True)
        map.store_u64(64, 70)
        map.store_u64(128, 80)
        map.persist_many([(64, 8), (128, 8)])
        map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the sum."""
        assert map.load_u64(64) + map.load_u64(128) == 150


class UndoClearsTooEarly(UndoLog):
    """The recovery clears the log before the old values are durable."""

    def recover(self, map: Map) -> None:
        """Restore the old values."""
        if map.load_u64(0):
            map.store_u64(64, map.load_u64(8))
            map.store_u64(128, map.load_u64(16))
            if self.fixed:
                map.persist_many([(64, 8), (128, 8)])
            map.store_u64(0, 0, persist=True)


class UndoFlushesWithoutDrain(UndoLog):
    """The recovery flushes the old values, but nothing waits for the flush before the log is cleared."""

    def recover(self, map: Map) -> None:
        """Restore the old values."""
        if map.load_u64(0):
            map.memcpy(64, map[8:16], NODRAIN)
            map.memcpy(128, map[16:24], NODRAIN)
            if self.fixed:
                map.drain()
            map.store_u64(0, 0)
            map.flush(0, 8)
            map.drain()


class UndoFlushesOneOfTwo(UndoLog):
    """The recovery persists only the first of the values that it restores."""

    def recover(self, map: Map) -> None:
        """Restore the old values."""
        if map.load_u64(0):
            map.store_u64(64, map.load_u64(8))
            map.store_u64(128, map.load_u64(16))
            map.persist(64, 72 if self.fixed else 64)
            map.store_u64(0, 0, persist=True)


class UndoClearsLogFirst(UndoLog):
    """The recovery invalidates the log first, and then restores the values durably."""

    def recover(self, map: Map) -> None:
        """Restore the old values."""
        if map.load_u64(0):
            if not self.fixed:
                map.store_u64(0, 0, persist=True)
            for place, saved in ((64, 8), (128, 16)):
                map.store_u64(place, map.load_u64(saved), persist=True)
            if self.fixed:
                map.store_u64(0, 0, persist=True)


class UndoErasesOldValues(UndoLog):
    """The recovery erases each saved value after it was restored, before the log is invalid."""

    def recover(self, map: Map) -> None:
        """Restore the old values."""
        if map.load_u64(0):
            for place, saved in ((64, 8), (128, 16)):
                map.store_u64(place, map.load_u64(saved), persist=True)
                if not self.fixed:
                    map.store_u64(saved, 0, persist=True)
            map.store_u64(0, 0, persist=True)


class RelativeRedo(Case):
    """A redo log of differences: replaying it twice adds twice. COMMITTED at 0, entries (place, amount) from 64."""

    def setup(self, map: Map) -> None:
        """Open the accounts."""
        map.store_u64(256, 100)
        map.store_u64(320, 50)

    def workload(self, map: Map) -> None:
        """Log a transfer and commit it."""
        values = ((256, 2**64 - 30), (320, 30)) if not self.fixed else ((256, 70), (320, 80))
        for number, (place, value) in enumerate(values):
            map.store_u64(64 + 16 * number, place)
            map.store_u64(72 + 16 * number, value)
        map.persist(64, 32)
        map.store_u64(0, 1, persist=True)

    def recover(self, map: Map) -> None:
        """Apply the log."""
        if map.load_u64(0):
            for entry in (64, 80):
                place, value = map.load_u64(entry), map.load_u64(entry + 8)
                if self.fixed:
                    map.store_u64(place, value, persist=True)
                else:
                    map.fetch_add_u64(place, value - 2**64 if value > 2**63 else value, persist=True)
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that the transfer is done once or not at all."""
        assert (map.load_u64(256), map.load_u64(320)) in ((100, 50), (70, 80))


class RedoTruncatesTooEarly(Case):
    """The recovery truncates the redo log when its stores are flushed, not when they are durable."""

    def workload(self, map: Map) -> None:
        """Log three stores and commit them."""
        for number in range(3):
            map.memcpy(64 + 16 * number, (256 + 64 * number).to_bytes(8, "little") + (7).to_bytes(8, "little"))
        map.store_u64(0, 3, persist=True)

    def recover(self, map: Map) -> None:
        """Apply the log."""
        for number in range(map.load_u64(0)):
            map.store_u64(map.load_u64(64 + 16 * number), map.load_u64(72 + 16 * number))
        if self.fixed:
            map.persist(256, 192)
        map.store_u64(0, 0, persist=True)
        map.persist(256, 192)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that all stores are applied, or none."""
        assert {map.load_u64(256 + 64 * number) for number in range(3)} in ({0}, {7})


class ReplayCountsPosition(Case):
    """The recovery stores how far it has come before the entry is applied durably, and goes on from there."""

    def workload(self, map: Map) -> None:
        """Log three stores and commit them."""
        map.store_u64(0, 3, persist=True)

    def recover(self, map: Map) -> None:
        """Apply what is left."""
        for number in range(map.load_u64(8), map.load_u64(0)):
            map.store_u64(256 + 64 * number, 7)
            if self.fixed:
                map.persist(256 + 64 * number, 8)
            map.store_u64(8, number + 1, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that everything committed is applied."""
        assert {map.load_u64(256 + 64 * number) for number in range(map.load_u64(0))} <= {7}


class JournalWithoutChecksum(Case):
    """A journal block is longer than a word: a torn one is replayed, unless a checksum shows it."""

    BLOCK = b"a block of more than 8 bytes"

    def workload(self, map: Map) -> None:
        """Write the block and its checksum with one barrier."""
        map[128 : 128 + len(self.BLOCK)] = self.BLOCK
        map.store_u64(72, zlib.crc32(self.BLOCK))
        map.store_u64(64, len(self.BLOCK))
        map.persist(64, 192)

    def recover(self, map: Map) -> None:
        """Replay the block if it is there."""
        length = map.load_u64(64)
        if length:
            block = map[128 : 128 + length]
            if not self.fixed or zlib.crc32(block) == map.load_u64(72):
                map.memcpy(512, block)
            map.store_u64(64, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that the block is replayed in whole or not at all."""
        assert map[512 : 512 + len(self.BLOCK)] in (self.BLOCK, bytes(len(self.BLOCK)))


class ChecksumOfZeros(Case):
    """The sum of no bytes is 0: an empty entry with checksum 0 counts as valid."""

    def setup(self, map: Map) -> None:
        """Publish the first entry."""
        map.store_u64(512, 1)

    def workload(self, map: Map) -> None:
        """Write the next entry and its checksum with one barrier."""
        map.store_u64(64, 2)
        map.store_u64(128, self.sum_of(2))
        map.persist(64, 128)

    def sum_of(self, value: int) -> int:
        """Return the checksum of an entry."""
        return value * 3 + (1 if self.fixed else 0)

    def recover(self, map: Map) -> None:
        """Publish the entry if its checksum is right, and empty it."""
        value = map.load_u64(64)
        if map.load_u64(128) == self.sum_of(value):
            map.store_u64(512, value, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that an entry is published."""
        assert map.load_u64(512) in (1, 2)


class CountBeforeRecord(Case):
    """A log counts a record before the record is durable."""

    def workload(self, map: Map) -> Generator[int, None, None]:
        """Append two records."""
        for number in (1, 2):
            place = 64 * number
            if not self.fixed:
                map.store_u64(0, number, persist=True)
            map.memcpy(place, bytes([number]) * 24)
            if self.fixed:
                map.store_u64(0, number, persist=True)
            yield number

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check all counted records."""
        count = map.load_u64(0)
        assert count >= len(acknowledged)
        assert all(map[64 * number : 64 * number + 24] == bytes([number]) * 24 for number in range(1, count + 1))


class TornCommitRecord(Case):
    """A commit record of two words is written with one copy; the recovery looks at one of them."""

    def workload(self, map: Map) -> None:
        """Write the data, and a commit record of sequence and place."""
        map.memcpy(256, b"data" * 4)
        if self.fixed:
            map.store_u64(8, 256)
            map.store_u64(0, 1)
            map.persist(0, 16)
        else:
            map.memcpy(0, (1).to_bytes(8, "little") + (256).to_bytes(8, "little"))

    def recover(self, map: Map) -> None:
        """Copy what was committed."""
        if map.load_u64(0) and not map.load_u64(512):
            place = map.load_u64(8)
            map.memcpy(512, map[place : place + 8])

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the copy."""
        assert map[512:520] in (bytes(8), b"datadata")


class LengthNotFlushed(Case):
    """The length of a record lies in the line before, which is not flushed."""

    def workload(self, map: Map) -> None:
        """Write a record that begins at the end of a line."""
        map.store_u64(120, 16)
        map[128:144] = b"0123456789abcdef"
        map.persist(120 if self.fixed else 128, 24)
        map.store_u64(0, 1, persist=True)

    def recover(self, map: Map) -> None:
        """Nothing is to be recovered."""

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the record."""
        if map.load_u64(0):
            assert map[128 : 128 + map.load_u64(120)] == b"0123456789abcdef"


class RingForgetsHead(Case):
    """A ring buffer whose recovery resets the head before the tail, which depends on it."""

    def setup(self, map: Map) -> None:
        """Start with five records put and five taken."""
        map.store_u64(64, 5)
        map.store_u64(128, 5)

    def workload(self, map: Map) -> Generator[int, None, None]:
        """Put a record."""
        map.store_u64(256, 6, persist=True)
        map.store_u64(128, 6, persist=True)
        yield 6

    def recover(self, map: Map) -> None:
        """Count from 0 again; correct: both numbers in one line, which keeps the order of its stores."""
        if not map.load_u64(192):
            tail, head = (200, 208) if self.fixed else (128, 64)
            count = map.load_u64(128) - map.load_u64(64)
            map.store_u64(head, 0, persist=True)
            map.store_u64(tail, count, persist=True)
            map.store_u64(192, 1, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the number of records."""
        tail, head = (200, 208) if self.fixed else (128, 64)
        assert map.load_u64(tail) - map.load_u64(head) in ((1,) if acknowledged else (0, 1))


class AllocatorLeaks(Case):
    """The recovery frees a half-made allocation: it clears the intent before the bitmap is durable."""

    def workload(self, map: Map) -> None:
        """Allocate block 3: intent at 64, bitmap at 0, pointer at 128."""
        map.store_u64(64, 3, persist=True)
        map.store_u64(0, 1 << 3, persist=True)
        map.store_u64(128, 3, persist=True)
        map.store_u64(64, 0, persist=True)

    def recover(self, map: Map) -> None:
        """Free the block of the intent unless a pointer refers to it."""
        block = map.load_u64(64)
        if block:
            if map.load_u64(128) != block:
                map.store_u64(0, map.load_u64(0) & ~(1 << block), persist=self.fixed)
            map.store_u64(64, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that a block is allocated if and only if a pointer refers to it."""
        block = map.load_u64(128)
        assert map.load_u64(0) == (1 << block if block else 0)


class DoubleFree(Case):
    """The recovery returns a block to the list of free ones; interrupted, it returns the block again."""

    def setup(self, map: Map) -> None:
        """No block is free; block 1 is in use."""
        map.store_u64(64, 1)

    def workload(self, map: Map) -> None:
        """Mark block 1 as to be freed."""
        map.store_u64(0, 1, persist=True)

    def recover(self, map: Map) -> None:
        """Push the block to the free list: count at 128, blocks from 192."""
        block = map.load_u64(0)
        if block:
            count = map.load_u64(128)
            if not (self.fixed and count and map.load_u64(192 + 8 * (count - 1)) == block):
                map.store_u64(192 + 8 * count, block, persist=True)
                map.store_u64(128, count + 1, persist=True)
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that no block is free twice."""
        free = [map.load_u64(192 + 8 * number) for number in range(map.load_u64(128))]
        assert len(set(free)) == len(free)


class RehashMovesTwice(Case):
    """A hash table grows in the recovery: an entry is removed from the old bucket before it is durable in the new."""

    def setup(self, map: Map) -> None:
        """Put an entry into the old table."""
        map.store_u64(64, 42)

    def workload(self, map: Map) -> None:
        """Begin to grow."""
        map.store_u64(0, 1, persist=True)

    def recover(self, map: Map) -> None:
        """Move all entries."""
        if map.load_u64(0):
            for number in range(4):
                entry = map.load_u64(64 + 8 * number)
                if entry:
                    map.store_u64(512 + 64 * number, entry, persist=self.fixed)
                    map.store_u64(64 + 8 * number, 0, persist=True)
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that the entry is somewhere."""
        assert 42 in [map.load_u64(64)] + [map.load_u64(512 + 64 * number) for number in range(4)]


class ListUnlinks(Case):
    """A doubly linked list is repaired from its forward links; the recovery trusts a flag that it clears too early."""

    def workload(self, map: Map) -> None:
        """Insert node 2 between 1 and 3: next pointers at 64 * n, previous ones 8 behind; dirty flag at 0."""
        map.store_u64(0, 1, persist=True)
        map.store_u64(128, 3)
        map.store_u64(136, 1)
        map.persist(128, 16)
        map.store_u64(64, 2, persist=True)
        map.store_u64(200, 2, persist=True)
        map.store_u64(0, 0, persist=True)

    def setup(self, map: Map) -> None:
        """Link 1 and 3."""
        map.store_u64(64, 3)
        map.store_u64(200, 1)

    def recover(self, map: Map) -> None:
        """Rebuild the backward link of node 3."""
        if map.load_u64(0):
            before = 2 if map.load_u64(64) == 2 else 1
            map.store_u64(200, before)
            if self.fixed:
                map.persist(200, 8)
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that both directions agree."""
        assert map.load_u64(200) == (2 if map.load_u64(64) == 2 else 1)


class MountCounter(Case):
    """The recovery stores its count of runs: the third run overwrites the copy that is still needed."""

    def workload(self, map: Map) -> None:
        """Write a value."""
        map.store_u64(64, 7, persist=True)

    def recover(self, map: Map) -> None:
        """Count; the count also selects the line for a note, which must not be the one of the value."""
        count = map.load_u64(8) + 1
        map.store_u64(8, count, persist=True)
        map.store_u64(64 * (3 - count % 3 if not self.fixed else 4), count, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the value."""
        assert map.load_u64(64) in (0, 7)


class AcknowledgedIsUndone(Case):
    """The recovery rolls back a transaction that was committed: the log is not cleared before the acknowledgement."""

    def workload(self, map: Map) -> Generator[int, None, None]:
        """Change a value with an undo log."""
        map.store_u64(8, map.load_u64(64), persist=True)
        map.store_u64(0, 1, persist=True)
        map.store_u64(64, 5, persist=True)
        map.store_u64(0, 0, persist=self.fixed)
        yield 5

    def recover(self, map: Map) -> None:
        """Roll back."""
        if map.load_u64(0):
            map.store_u64(64, map.load_u64(8), persist=True)
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that what was acknowledged is there."""
        assert not acknowledged or map.load_u64(64) == 5


class SnapshotSwitch(Case):
    """The recovery copies a snapshot back in two parts and drops it after the first."""

    def setup(self, map: Map) -> None:
        """Data in two lines, version 1."""
        for place in (512, 576):
            map.store_u64(place, 1)

    def workload(self, map: Map) -> None:
        """Save the data, change it, drop the snapshot."""
        for place in (512, 576):
            map.store_u64(place + 512, map.load_u64(place), persist=True)
        map.store_u64(0, 1, persist=True)
        for place in (512, 576):
            map.store_u64(place, 2, persist=True)
        map.store_u64(0, 0, persist=True)

    def recover(self, map: Map) -> None:
        """Restore the snapshot."""
        if map.load_u64(0):
            map.memcpy(512, map[1024:1032], NOFLUSH if not self.fixed else MemFlag(0))
            map.memcpy(576, map[1088:1096])
            map.store_u64(0, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that the data has one version."""
        assert map.load_u64(512) == map.load_u64(576)


class RecoveryFlagTooLate(Case):
    """Two stages of a recovery: the second trusts a flag of the first that is not durable when the second acts."""

    def workload(self, map: Map) -> None:
        """Ask for a migration."""
        map.store_u64(0, 1, persist=True)

    def setup(self, map: Map) -> None:
        """The old format."""
        map.store_u64(64, 9)

    def recover(self, map: Map) -> None:
        """Migrate: copy, mark as migrated, erase the old."""
        if map.load_u64(0) and not map.load_u64(128):
            map.store_u64(192, map.load_u64(64), persist=True)
            map.store_u64(128, 1, persist=self.fixed)
        if map.load_u64(128):
            map.store_u64(64, 0, persist=True)

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check the value in the format that the flag names."""
        assert map.load_u64(192 if map.load_u64(128) else 64) == 9


class NodrainCommit(Case):
    """A commit with a copy that is not drained may overtake nothing, but may be lost after the acknowledgement."""

    def workload(self, map: Map) -> Generator[int, None, None]:
        """Store a value, and acknowledge it."""
        map.memcpy(64, b"value---", NODRAIN)
        map.memcpy(0, (1).to_bytes(8, "little"), MemFlag(0) if self.fixed else NODRAIN)
        yield 1

    def check(self, map: Map, acknowledged: list[int]) -> None:
        """Check that what was acknowledged is there."""
        assert not acknowledged or (map.load_u64(0) and map[64:72] == b"value---")


CASES: list[tuple[type[Case], int]] = [
    (UndoClearsTooEarly, 2),
    (UndoFlushesWithoutDrain, 2),
    (UndoFlushesOneOfTwo, 2),
    (UndoClearsLogFirst, 2),
    (UndoErasesOldValues, 2),
    (RelativeRedo, 2),
    (RedoTruncatesTooEarly, 2),
    (ReplayCountsPosition, 2),
    (JournalWithoutChecksum, 1),
    (ChecksumOfZeros, 1),
    (CountBeforeRecord, 1),
    (TornCommitRecord, 1),
    (LengthNotFlushed, 1),
    (RingForgetsHead, 2),
    (AllocatorLeaks, 2),
    (DoubleFree, 2),
    (RehashMovesTwice, 2),
    (ListUnlinks, 2),
    (MountCounter, 2),
    (AcknowledgedIsUndone, 1),
    (SnapshotSwitch, 2),
    (RecoveryFlagTooLate, 2),
    (NodrainCommit, 1),
]
"""Each case with the power failures that show the bug."""


def explore_case(case: Case, granularity: Granularity, budget: int = 10_000) -> None:
    """Explore a case."""
    acknowledging = hasattr(case.workload, "__wrapped__") or case.workload.__code__.co_flags & 0x20
    check: Callable[..., None] = case.check if acknowledging else lambda map: case.check(map, [])
    report = explore(
        case.workload, check, size=SIZE, setup=case.setup, recover=case.recover, granularity=granularity, budget=budget
    )
    assert report.exhaustive or isinstance(case, MountCounter)


@pytest.mark.parametrize(("kind", "cuts"), CASES, ids=[kind.__name__ for kind, _ in CASES])
def test_bug_is_found(kind: type[Case], cuts: int) -> None:
    """explore finds the bug with as many power failures as it needs."""
    with pytest.raises(CrashConsistencyError) as raised:
        explore_case(kind(False), Granularity.CACHE_LINE)
    assert len(raised.value.crash_points) == cuts


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", [kind for kind, _ in CASES], ids=lambda kind: kind.__name__)
def test_fixed_twin_passes(kind: type[Case], granularity: Granularity) -> None:
    """explore accepts the correct twin on every granularity."""
    explore_case(kind(True), granularity, 300 if kind is MountCounter else 10_000)
