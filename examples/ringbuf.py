# SPDX-License-Identifier: BSD-3-Clause
"""A ring buffer for one producer and one consumer, at their speed: `python ringbuf.py FILE ENTRY_SIZE OPERATIONS`.

A position must not be seen before it is durable. So it is stored with its highest bit set, which tells whoever loads it
to persist it first, and again without once it is durable. On BYTE granularity what is seen is durable already.
"""

from __future__ import annotations

import re
import sys
import time
from threading import Thread

import pmem2

SIGNATURE = b"my_fast_ringbuf\0"  # at 0
ENTRIES, ENTRY_SIZE, READ, WRITE, DATA = 16, 24, 64, 72, 128
NOT_DURABLE = 1 << 63
LARGEST = 2 << 20  # bytes of an entry


class RingBuffer:
    """A ring buffer in a map, which becomes one if it is not. One entry always stays free."""

    def __init__(self, map: pmem2.Map, entry_size: int) -> None:
        """Open or make it; a ValueError says that it is one of another size."""
        self.map, self.size = map, entry_size
        self.entries = (map.size - DATA) // entry_size
        if map[: len(SIGNATURE)] != SIGNATURE:
            for place, number in ((READ, 0), (WRITE, 0), (ENTRIES, self.entries), (ENTRY_SIZE, entry_size)):
                map.store_u64(place, number)
            map.persist(0, DATA)
            map.memcpy(0, SIGNATURE)
        checks = (ENTRY_SIZE, entry_size, "entry size"), (ENTRIES, self.entries, "number of entries")
        for place, number, what in checks:
            if (found := map.load_u64(place)) != number:
                raise ValueError(f"{what} ({found}) different than provided ({number})")
        for place in range(0, map.size - DATA, 4096):  # so that no store meets a hole and a full disk later
            map[place] = map[place]

    def load(self) -> tuple[int, int]:
        """Return the positions of the reader and of the writer, durable."""
        write, read = self.map.load_u64(WRITE), self.map.load_u64(READ)
        if (write | read) & NOT_DURABLE:
            self.map.persist(READ, 16)
        return read & ~NOT_DURABLE, write & ~NOT_DURABLE

    def store(self, place: int, position: int) -> None:
        """Store a position."""
        if self.map.granularity is not pmem2.Granularity.BYTE:
            self.map.store_u64(place, position | NOT_DURABLE, persist=True)
        self.map.store_u64(place, position, persist=True)

    def enqueue(self, entry: bytes) -> bool:
        """Add an entry unless the buffer is full; return whether it was added."""
        read, write = self.load()
        after = (write + 1) % self.entries
        if after == read:
            return False
        self.map.memcpy(DATA + write * self.size, entry, pmem2.MemFlag.NONTEMPORAL)
        self.store(WRITE, after)
        return True

    def dequeue(self) -> bytes | None:
        """Remove and return the oldest entry, `None` when there is none."""
        read, write = self.load()
        if read == write:
            return None
        entry = self.map[DATA + read * self.size : DATA + (read + 1) * self.size]
        self.store(READ, (read + 1) % self.entries)
        return entry


def produce(ring: RingBuffer, operations: int) -> None:
    """Add so many entries."""
    for _ in range(operations):
        while not ring.enqueue(b"\x0c" * ring.size):
            time.sleep(0)  # let the consumer go on


def consume(ring: RingBuffer, operations: int) -> None:
    """Remove so many entries."""
    for _ in range(operations):
        while ring.dequeue() is None:
            time.sleep(0)


def main(argv: list[str]) -> int:
    """Return the exit status."""
    try:
        if len(argv) != 4:
            raise ValueError(f"usage: {argv[0]} file entry_size nops")
        # as C's atoll, which stops at what is no digit
        size, operations = (int(re.sub(r"(?s)[ \t-\r]*\+?([0-9]*).*", r"\1", text) or 0) for text in argv[2:])
        if not 0 < size <= LARGEST:
            raise ValueError("invalid entry size, must be between 0 and 2MB")
        if operations == 0:
            raise ValueError("invalid number of operations")
        with pmem2.open(argv[1]) as map:
            ring = RingBuffer(map, size)
            threads = [Thread(target=work, args=(ring, operations)) for work in (produce, consume)]
            begin = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            elapsed = time.monotonic() - begin
        print(f"Time elapsed: {elapsed:f} seconds")
        print(f"Bandwidth: {operations * 2 * size / elapsed / 2**20:f} megabytes per second")
    except (OSError, ValueError) as error:
        known = f"{getattr(error, 'function', 'open')}: {error.strerror}" if isinstance(error, OSError) else error
        print(known, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
