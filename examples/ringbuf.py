# SPDX-License-Identifier: BSD-3-Clause
"""A ring buffer for one producer and one consumer: `python ringbuf.py FILE ENTRY_SIZE OPERATIONS`.

No thread may act on a position that is not durable. So a position is stored twice: first with its highest bit set,
which makes a reader persist it, and without that bit once it is durable. BYTE granularity needs only the second store.
"""

from __future__ import annotations

import re
import sys
import time
from threading import Thread

import pmem2

SIGNATURE = b"my_fast_ringbuf\0"  # at offset 0
ENTRIES, ENTRY_SIZE, READ, WRITE, DATA = 16, 24, 64, 72, 128  # offsets
NOT_DURABLE = 1 << 63
MAX_ENTRY_SIZE = 2 << 20


class RingBuffer:
    """A ring buffer in a map; a map without one becomes an empty one. One entry always stays free."""

    def __init__(self, map: pmem2.Map, entry_size: int) -> None:
        """Open or create the ring buffer; raise ValueError if its sizes are different."""
        self.map, self.size = map, entry_size
        self.entries = (map.size - DATA) // entry_size
        if map[: len(SIGNATURE)] != SIGNATURE:
            for offset, number in ((READ, 0), (WRITE, 0), (ENTRIES, self.entries), (ENTRY_SIZE, entry_size)):
                map.store_u64(offset, number)
            map.persist(0, DATA)
            map.memcpy(0, SIGNATURE)
        checks = (ENTRY_SIZE, entry_size, "entry size"), (ENTRIES, self.entries, "number of entries")
        for offset, number, name in checks:
            if (found := map.load_u64(offset)) != number:
                raise ValueError(f"{name} ({found}) different than provided ({number})")
        for offset in range(0, map.size - DATA, 4096):  # touch every page, so that later stores need no disk space
            map[offset] = map[offset]

    def load(self) -> tuple[int, int]:
        """Return the positions of the reader and of the writer, after making them durable."""
        write, read = self.map.load_u64(WRITE), self.map.load_u64(READ)
        if (write | read) & NOT_DURABLE:
            self.map.persist(READ, 16)
        return read & ~NOT_DURABLE, write & ~NOT_DURABLE

    def store(self, offset: int, position: int) -> None:
        """Store a position durably."""
        if self.map.granularity is not pmem2.Granularity.BYTE:
            self.map.store_u64(offset, position | NOT_DURABLE, persist=True)
        self.map.store_u64(offset, position, persist=True)

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
        """Remove and return the oldest entry, or return `None` if there is none."""
        read, write = self.load()
        if read == write:
            return None
        entry = self.map[DATA + read * self.size : DATA + (read + 1) * self.size]
        self.store(READ, (read + 1) % self.entries)
        return entry


def produce(ring: RingBuffer, operations: int) -> None:
    """Add entries."""
    for _ in range(operations):
        while not ring.enqueue(b"\x0c" * ring.size):
            time.sleep(0)  # let the consumer run


def consume(ring: RingBuffer, operations: int) -> None:
    """Remove entries."""
    for _ in range(operations):
        while ring.dequeue() is None:
            time.sleep(0)


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    try:
        if len(argv) != 4:
            raise ValueError(f"usage: {argv[0]} file entry_size nops")
        # like C's atoll, which stops at the first other character
        size, operations = (int(re.sub(r"(?s)[ \t-\r]*\+?([0-9]*).*", r"\1", text) or 0) for text in argv[2:])
        if not 0 < size <= MAX_ENTRY_SIZE:
            raise ValueError("invalid entry size, must be between 0 and 2MB")
        if operations == 0:
            raise ValueError("invalid number of operations")
        with pmem2.open(argv[1]) as map:
            ring = RingBuffer(map, size)
            threads = [Thread(target=work, args=(ring, operations)) for work in (produce, consume)]
            start = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            elapsed = time.monotonic() - start
        print(f"Time elapsed: {elapsed:f} seconds")
        print(f"Bandwidth: {operations * 2 * size / elapsed / 2**20:f} megabytes per second")
    except (OSError, ValueError) as error:
        message = f"{getattr(error, 'function', 'open')}: {error.strerror}" if isinstance(error, OSError) else error
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
