# SPDX-License-Identifier: BSD-3-Clause
"""Inside the machine: append records to two media for ever, after checking what is there. The power is cut meanwhile.

`ledger.py PATH PATH`: a medium begins with the numbers of its first and its last record, 8 bytes each. From 4096 on
there is a record after the other: its number, its length, a checksum, the data. It is durable before it is counted.
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
LONGEST = 2000
EVERY = 10  # records between two lines on the console


def data_of(number: int) -> bytes:
    """Return what record *number* holds, which only that number tells."""
    shuffled = random.Random(number)
    return hashlib.sha512(b"%d" % number).digest() * shuffled.randrange(1, LONGEST // 64)


def record_of(number: int) -> bytes:
    """Return record *number* as it is on the medium, a whole number of 8-byte words."""
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
        """Check every record that the two counters speak of, and begin anew behind them."""
        self.map = map
        self.end = START
        first, self.last = self.map.load_u64(0) or 1, self.map.load_u64(8)
        wrong = next((number for number in range(first, self.last + 1) if not self.passes(number)), None)
        verdict = "good" if wrong is None else "bad"
        print(f"CHECK {self.name} {verdict} {self.last}: {self.last + 1 - first} records", flush=True)
        if wrong is not None:
            sys.exit(f"record {wrong} of {first} to {self.last} is torn or lost")
        self.begin_anew()

    def passes(self, number: int) -> bool:
        """Return whether the next record is whole and that one, and go past it."""
        expected = record_of(number)
        begin, self.end = self.end, self.end + len(expected)
        return self.map[begin : self.end] == expected

    def begin_anew(self) -> None:
        """Forget all records: one store of 8 bytes says that the first one is the next one."""
        self.map.store_u64(0, self.last + 1, persist=True)
        self.end = START

    def append(self) -> None:
        """Append a record: durable first, then counted."""
        record = record_of(self.last + 1)
        if self.end + len(record) > self.map.size:
            self.begin_anew()
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
            for _ in range(EVERY):
                ledger.append()
            print(f"WROTE {ledger.name} {ledger.last}", flush=True)


if __name__ == "__main__":
    main()
