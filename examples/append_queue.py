# SPDX-License-Identifier: BSD-3-Clause
"""A queue between two processes that survives crashes of both: `append_queue.py FILE put TEXT...`, `... FILE take`.

The queue is a log in a ring buffer. The producer appends a record, makes it durable, and then moves the tail past it.
The consumer moves the head after it has processed a record. So a crash loses no record; a record that was being
processed is delivered again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from struct import Struct

import pmem2

HEADER, MAGIC, VERSION = Struct("=8s2Q"), b"PMQUEUE\n", 1  # at offset 0, then the size of the map
HEAD, TAIL, DATA = 24, 64, 128  # offsets: total bytes taken, total bytes put, each in its own cache line; the ring
WORD = 8
SIZE = 1 << 20


class AppendQueue:
    """A queue in a map; a map of zeros becomes an empty queue. One process may put while another one takes."""

    def __init__(self, map: pmem2.Map) -> None:
        """Use the whole *map*; raise ValueError if it contains something else."""
        if map.size < DATA + 2 * WORD:
            raise ValueError(f"a queue needs at least {DATA + 2 * WORD} bytes, got {map.size}")
        header = HEADER.pack(MAGIC, VERSION, map.size)
        if not (map[:WORD] + map[HEADER.size : SIZE]).strip(b"\0"):  # new; the magic comes last
            map.memcpy(WORD, header[WORD:])
            map.memcpy(0, header[:WORD])
        if (found := map[: HEADER.size]) != header:
            raise ValueError(f"not a queue: magic, version and size are {HEADER.unpack(found)}")
        self.map = map
        self.capacity = (map.size - DATA) // WORD * WORD

    def put(self, record: bytes) -> None:
        """Append a record durably.

        Raises:
            ValueError: The queue is full; it is unchanged.
        """
        framed = len(record).to_bytes(WORD, "little") + record + bytes(-len(record) % WORD)
        head, tail = self.map.load_u64(HEAD), self.map.load_u64(TAIL)
        if tail + len(framed) - head > self.capacity:
            raise ValueError("the queue is full")
        self.map.persist(HEAD, WORD)  # the other process's store is visible before it is durable
        start = tail % self.capacity
        until_end = self.capacity - start
        self.map.memcpy_many([(DATA + start, framed[:until_end]), (DATA, framed[until_end:])])
        self.map.store_u64(TAIL, tail + len(framed), persist=True)

    def first(self) -> bytes | None:
        """Return the oldest record without removing it, or `None` if the queue is empty."""
        head, tail = self.map.load_u64(HEAD), self.map.load_u64(TAIL)
        if head == tail:
            return None
        self.map.persist(TAIL, WORD)  # as in put
        length = int.from_bytes(self.read(head, WORD), "little")
        return self.read(head + WORD, length)

    def remove_first(self) -> None:
        """Remove the oldest record durably."""
        head = self.map.load_u64(HEAD)
        length = int.from_bytes(self.read(head, WORD), "little")
        self.map.store_u64(HEAD, head + WORD + length + -length % WORD, persist=True)

    def read(self, position: int, length: int) -> bytes:
        """Return bytes of the ring, which may wrap around its end."""
        start = position % self.capacity
        until_end = min(length, self.capacity - start)
        return self.map[DATA + start : DATA + start + until_end] + self.map[DATA : DATA + length - until_end]

    def take_all(self) -> Iterator[bytes]:
        """Yield each record, and remove it when the caller asks for the next one."""
        while (record := self.first()) is not None:
            yield record
            self.remove_first()


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) < 3 or argv[2] not in ("put", "take"):
        print(f"usage: {argv[0]} file put text... | file take", file=sys.stderr)
        return 1
    new = not os.path.exists(argv[1])
    try:
        with pmem2.open(argv[1], "x+", size=SIZE) if new else pmem2.open(argv[1]) as map:
            queue = AppendQueue(map)
            for text in argv[3:]:
                queue.put(os.fsencode(text))
            if argv[2] == "take":
                for record in queue.take_all():
                    print(os.fsdecode(record), flush=True)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
