# SPDX-License-Identifier: BSD-3-Clause
"""A header that hosts share: `python shared_header.py FILE write TEXT...`, `python shared_header.py FILE read`.

FILE is a DAX device, such as CXL memory that several hosts see, or any file. One process publishes messages. Others, on
this host and on other hosts, poll for them without a system call. Only the writer stores to the memory.

The writer fills the slot that readers do not use and publishes it, then its number, 8 bytes that are never torn. A
reader acquires the number and the slot, copies the message, acquires the number again, and retries if it has changed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from struct import Struct

import pmem2

HEADER, MAGIC, VERSION = Struct("=8s2Q"), b"PMSHARE\n", 1  # at offset 0, then the size in bytes
NUMBER, SLOTS, SLOT_SIZE = 24, 64, 256  # offsets of the number of the last message and of the slots; bytes of a slot
SIZE = SLOTS + 2 * SLOT_SIZE
MAX_LENGTH, END = SLOT_SIZE - 8, b"end"  # the latter ends a reader


def slot_offset(number: int) -> int:
    """Return the offset of the slot of message *number*."""
    return SLOTS + number % 2 * SLOT_SIZE


def is_new(map: pmem2.Map) -> bool:
    """Return whether a map has no header yet; raise ValueError if it contains something else."""
    map.acquire(0, SIZE)
    found = map[: HEADER.size]
    if found == HEADER.pack(MAGIC, VERSION, SIZE):
        return False
    if (found[:8] + map[HEADER.size : SIZE]).strip(b"\0"):
        raise ValueError(f"not a shared header: magic, version and size are {HEADER.unpack(found)}")
    return True


class Writer:
    """Publishes messages; only one writer may exist at a time, on all hosts together."""

    def __init__(self, map: pmem2.Map) -> None:
        """Continue after the last message; raise ValueError if the map contains something else."""
        if is_new(map):
            header = HEADER.pack(MAGIC, VERSION, SIZE)
            map.memcpy(8, header[8:])
            map.memcpy(0, header[:8])  # the magic comes last
            map.publish(0, HEADER.size)
        self.map = map
        self.number = map.load_u64(NUMBER)
        map.persist(NUMBER, 8)  # a killed writer may have stored the number without persisting and publishing it
        map.publish(NUMBER, 8)

    def publish(self, message: bytes) -> None:
        """Make a message durable and visible to all hosts, then its number, which makes it the last message."""
        if len(message) > MAX_LENGTH:
            raise ValueError(f"message must have at most {MAX_LENGTH} bytes, got {len(message)}")
        self.number += 1
        slot = slot_offset(self.number)
        self.map.memcpy(slot, len(message).to_bytes(8, "little") + message)
        self.map.publish(slot, SLOT_SIZE)
        self.map.store_u64(NUMBER, self.number, persist=True)
        self.map.publish(NUMBER, 8)


def latest(map: pmem2.Map) -> tuple[int, bytes]:
    """Return the number and the text of the last message."""
    while True:
        map.acquire(NUMBER, 8)
        number = map.load_u64(NUMBER)
        start = slot_offset(number)
        map.acquire(start, SLOT_SIZE)
        slot = map[start : start + SLOT_SIZE]
        map.acquire(NUMBER, 8)
        if map.load_u64(NUMBER) == number:  # so the writer can only have changed the other slot
            return number, slot[8 : 8 + int.from_bytes(slot[:8], "little")]


def follow(map: pmem2.Map, interval: float = 0.001) -> Iterator[tuple[int, bytes]]:
    """Yield the last message and newer ones; skip those that are replaced between two polls."""
    while is_new(map):
        time.sleep(interval)
    seen = -1
    while True:
        number, message = latest(map)
        if number != seen:
            yield number, message
        seen = number
        time.sleep(interval)


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) < 3 or argv[2] not in ("write", "read"):
        print(f"usage: {argv[0]} file write text... | file read", file=sys.stderr)
        return 1
    try:
        with pmem2.open(argv[1], "r" if argv[2] == "read" else "r+") as map:
            if map.size < SIZE:
                raise ValueError(f"{argv[1]} has {map.size} bytes, but needs {SIZE}")
            if argv[2] == "write":
                publish = Writer(map).publish
                for text in argv[3:]:
                    publish(text.encode())
                return 0
            for number, message in follow(map):
                print(number, message.decode(), flush=True)
                if message == END:
                    return 0
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
