# SPDX-License-Identifier: BSD-3-Clause
"""Inside the machine: check the records on two media, then append records until the power is cut.

`ledger.py PATH PATH`. A medium starts with the numbers of its first and its last record, 8 bytes each. The records
follow from offset 4096: number, length, checksum, data. A record is durable before the ledger counts it.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
import sys
import zlib

import pmem2

START = 4096
HEAD = struct.Struct("<QLL")  # number, length, checksum
MAX_DATA = 2000
RECORDS_PER_LINE = 10  # of the console


def data_of(number: int) -> bytes:
    """Return the data of record *number*, which depends on the number alone."""
    shuffled = random.Random(number)
    return hashlib.sha512(b"%d" % number).digest() * shuffled.randrange(1, MAX_DATA // 64)


def record_of(number: int) -> bytes:
    """Return record *number* in the format of the medium, a multiple of 8 bytes."""
    data = data_of(number)
    return HEAD.pack(number, len(data), zlib.crc32(data, number & 0xFFFFFFFF)) + data


class Ledger:
    """The records on one medium."""

    def __init__(self, path: str) -> None:
        """Map the medium, and recover."""
        self.name = "devdax" if path.startswith("/dev/") else "fsdax"
        if not os.path.exists(path):
            pmem2.open(path, "x+", size=256 << 20).close()
        self.recover(pmem2.open(path))

    def recover(self, map: pmem2.Map) -> None:
        """Check every record between the two counters, then empty the ledger."""
        self.map = map
        self.end = START
        first, self.last = self.map.load_u64(0) or 1, self.map.load_u64(8)
        wrong = next((number for number in range(first, self.last + 1) if not self.is_whole(number)), None)
        result = "good" if wrong is None else "bad"
        print(f"CHECK {self.name} {result} {self.last}: {self.last + 1 - first} records", flush=True)
        if wrong is not None:
            sys.exit(f"record {wrong} of {first} to {self.last} is torn or lost")
        self.clear()

    def is_whole(self, number: int) -> bool:
        """Return whether the next record is record *number*, complete; move past it."""
        expected = record_of(number)
        begin, self.end = self.end, self.end + len(expected)
        return self.map[begin : self.end] == expected

    def clear(self) -> None:
        """Remove all records with one 8-byte store: the first record is the next one to append."""
        self.map.store_u64(0, self.last + 1, persist=True)
        self.end = START

    def append(self) -> None:
        """Append a record: make it durable, then count it."""
        record = record_of(self.last + 1)
        if self.end + len(record) > self.map.size:
            self.clear()
        half = len(record) // 2
        self.map[self.end : self.end + half] = record[:half]  # a plain store ...
        self.map.persist(self.end, half)
        self.map.memcpy(self.end + half, record[half:])  # ... and a copy that is durable at return
        self.end += len(record)
        self.last += 1
        self.map.store_u64(8, self.last, persist=True)


def main() -> None:
    """Check, then write until the power is cut."""
    ledgers = [Ledger(path) for path in sys.argv[1:]]
    while True:
        for ledger in ledgers:
            for _ in range(RECORDS_PER_LINE):
                ledger.append()
            print(f"WROTE {ledger.name} {ledger.last}", flush=True)


if __name__ == "__main__":
    main()
