# SPDX-License-Identifier: BSD-3-Clause
"""A persistent hash table: `python table.py FILE set KEY VALUE`, `... FILE get KEY`, `... del KEY`, `... list`.

A record is written to unused space, made durable, and then published with one 8-byte store of its offset. A reader,
also after a power failure, finds the old value or the new one. Records are never overwritten; to reclaim the space of
old ones, copy the table to a new file.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, MutableMapping
from struct import Struct

import pmem2

HEADER, MAGIC, VERSION = Struct("=8s2Q"), b"PMTABLE\n", 1  # at offset 0, then the size of the map
USED, BUCKETS = 24, 64  # offsets of the size of all records, and of the buckets: 8 bytes each, the offset of a record
LENGTHS = Struct("<2I")  # of key and value, which follow
EMPTY, REMOVED, SIZE = 0, 1, 1 << 20  # content of buckets without a record; size of a new file


class Table(MutableMapping[bytes, bytes]):
    """A hash table in a map; a map of zeros becomes an empty table. One process may write, others read."""

    def __init__(self, map: pmem2.Map) -> None:
        """Use the whole *map*, with one bucket for each 128 bytes; raise ValueError if it contains something else."""
        self.map = map
        self.buckets = map.size // 128
        self.records = BUCKETS + 8 * self.buckets
        if not self.buckets or self.records >= map.size:
            raise ValueError(f"a map of {map.size} bytes is too small for a table")
        header = HEADER.pack(MAGIC, VERSION, map.size)
        if not (map[:8] + map[HEADER.size : SIZE]).strip(b"\0"):  # new; the magic comes last
            map.memcpy(8, header[8:])
            map.memcpy(0, header[:8])
        if (found := map[: HEADER.size]) != header:
            raise ValueError(f"not a table: magic, version and size are {HEADER.unpack(found)}")

    def read_record(self, offset: int) -> tuple[bytes, bytes]:
        """Return the key and the value of a record."""
        key, value = LENGTHS.unpack(self.map[offset : offset + LENGTHS.size])
        start = offset + LENGTHS.size
        return self.map[start : start + key], self.map[start + key : start + key + value]

    def probe(self, key: bytes) -> Iterator[tuple[int, int]]:
        """Yield the offset and the content of each bucket that a key may use, up to the first empty one."""
        for step in range(self.buckets):
            bucket = BUCKETS + 8 * ((zlib.crc32(key) + step) % self.buckets)
            content = self.map.load_u64(bucket)
            yield bucket, content
            if content == EMPTY:
                return

    def find(self, key: bytes) -> tuple[int, bytes]:
        """Return the bucket and the value of a key; raise KeyError if the key is missing."""
        for bucket, content in self.probe(key):
            if content > REMOVED:
                found, value = self.read_record(content)
                if found == key:
                    return bucket, value
        raise KeyError(key)

    def __getitem__(self, key: bytes) -> bytes:
        """Return the value of a key."""
        return self.find(key)[1]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Set the value of a key durably; raise ValueError if the table is full, which leaves it unchanged."""
        unused = (bucket for bucket, content in self.probe(key) if content <= REMOVED)
        bucket = self.find(key)[0] if key in self else next(unused, 0)
        record = LENGTHS.pack(len(key), len(value)) + key + value
        room = len(record) + -len(record) % 8
        if not bucket or self.records + self.map.load_u64(USED) + room > self.map.size:
            raise ValueError("the table is full")
        offset = self.records + self.map.fetch_add_u64(USED, room, persist=True)
        self.map.memcpy(offset, record)
        self.map.store_u64(bucket, offset, persist=True)

    def __delitem__(self, key: bytes) -> None:
        """Remove a key durably."""
        self.map.store_u64(self.find(key)[0], REMOVED, persist=True)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys."""
        contents = (self.map.load_u64(BUCKETS + 8 * number) for number in range(self.buckets))
        return (self.read_record(content)[0] for content in contents if content > REMOVED)

    def __len__(self) -> int:
        """Return the number of keys."""
        return sum(1 for _ in self)


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
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
