# SPDX-License-Identifier: BSD-3-Clause
"""Keys and values that survive: `python table.py FILE set KEY VALUE`, `... FILE get KEY`, `... del KEY`, `... list`.

A record is written where nobody looks, made durable, and then published by one 8-byte store of where it is: a reader,
and whoever comes after a power cut, sees the old value or the new one. Nothing is ever overwritten; what no longer
counts is space lost, until the table is copied to a new file.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, MutableMapping
from struct import Struct

import pmem2

USED, BUCKETS = 0, 64  # how many bytes of records there are; where the buckets are, 8 bytes each: the place of a record
LENGTHS = Struct("<2I")  # of the key and of the value, which follow
EMPTY, REMOVED = 0, 1  # of a bucket
SIZE = 1 << 20


class Table(MutableMapping[bytes, bytes]):
    """Keys and values in a map; a map of zeros is an empty table. One process may write, any number read."""

    def __init__(self, map: pmem2.Map) -> None:
        """Use all of *map*: one bucket for 128 bytes."""
        self.map = map
        self.buckets = map.size // 128
        self.records = BUCKETS + 8 * self.buckets
        if not self.buckets or self.records >= map.size:
            raise ValueError(f"{map.size} bytes are too small for a table")

    def record(self, place: int) -> tuple[bytes, bytes]:
        """Return the key and the value of a record."""
        key, value = LENGTHS.unpack(self.map[place : place + LENGTHS.size])
        start = place + LENGTHS.size
        return self.map[start : start + key], self.map[start + key : start + key + value]

    def probe(self, key: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the buckets are in which a key may be, and what is in them, up to an empty one."""
        first = zlib.crc32(key)
        for step in range(self.buckets):
            bucket = BUCKETS + 8 * ((first + step) % self.buckets)
            content = self.map.load_u64(bucket)
            yield bucket, content
            if content == EMPTY:
                return

    def find(self, key: bytes) -> tuple[int, bytes]:
        """Return the bucket and the value of a key; a KeyError says that there is none."""
        for bucket, content in self.probe(key):
            if content > REMOVED:
                found, value = self.record(content)
                if found == key:
                    return bucket, value
        raise KeyError(key)

    def __getitem__(self, key: bytes) -> bytes:
        """Return the value of a key."""
        return self.find(key)[1]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Set the value of a key; durable at return. A ValueError says that the table is full, and nothing changed."""
        try:
            bucket = self.find(key)[0]
        except KeyError:
            bucket = next((bucket for bucket, content in self.probe(key) if content <= REMOVED), 0)
        record = LENGTHS.pack(len(key), len(value)) + key + value
        room = len(record) + -len(record) % 8
        if not bucket or self.records + self.map.load_u64(USED) + room > self.map.size:
            raise ValueError("the table is full")
        place = self.records + self.map.fetch_add_u64(USED, room, persist=True)
        self.map.memcpy(place, record)
        self.map.store_u64(bucket, place, persist=True)

    def __delitem__(self, key: bytes) -> None:
        """Remove a key; durable at return."""
        self.map.store_u64(self.find(key)[0], REMOVED, persist=True)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys."""
        contents = (self.map.load_u64(BUCKETS + 8 * number) for number in range(self.buckets))
        return (self.record(content)[0] for content in contents if content > REMOVED)

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self)


def main(argv: list[str]) -> int:
    """Return the exit status."""
    if len(argv) - 3 != {"set": 2, "get": 1, "del": 1, "list": 0}.get(argv[2] if len(argv) > 2 else ""):
        print(f"usage: {argv[0]} file set key value | file get key | file del key | file list", file=sys.stderr)
        return 1
    path, command = argv[1:3]
    key, value = [*(os.fsencode(text) for text in argv[3:]), b"", b""][:2]
    try:
        with pmem2.open(path, "r+") if os.path.exists(path) else pmem2.open(path, "x+", size=SIZE) as memory:
            table = Table(memory)
            if command == "set":
                table[key] = value
            elif command == "del":
                del table[key]
            for name in sorted(table) if command == "list" else [key] if command == "get" else []:
                print(f"{os.fsdecode(name)} = {os.fsdecode(table[name])}")
    except (OSError, ValueError, KeyError) as error:
        print(f"no such key: {error}" if isinstance(error, KeyError) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
