# SPDX-License-Identifier: BSD-3-Clause
"""A header that processes share: `python shared_header.py FILE write TEXT...`, `python shared_header.py FILE read`.

FILE is a DAX device, as CXL memory is one, or any file. One process publishes messages, others poll for them without a
system call. There are two slots: a message is written to the one that nobody reads, made durable, and published with
one 8-byte store of its number. A reader that was overtaken while it copied sees that the number has moved on, and
tries again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pmem2

NUMBER, SLOTS, SLOT = 0, 64, 256  # where the number of the last message is, where the slots are, bytes of a slot
SIZE = SLOTS + 2 * SLOT
LONGEST = SLOT - 8
END = b"end"  # a reader ends when it sees that


def place(number: int) -> int:
    """Return where the message of that number is."""
    return SLOTS + number % 2 * SLOT


class Writer:
    """Publishes messages; there may be one at a time."""

    def __init__(self, map: pmem2.Map) -> None:
        """Go on after the last message that is durable."""
        self.map = map
        self.number = map.load_u64(NUMBER)
        map.persist(NUMBER, 8)  # a writer that was killed may have stored it only

    def publish(self, message: bytes) -> None:
        """Make a message durable, then visible, then its being there durable."""
        if len(message) > LONGEST:
            raise ValueError(f"a message has at most {LONGEST} bytes")
        self.number += 1
        self.map.memcpy(place(self.number), len(message).to_bytes(8, "little") + message)
        self.map.store_u64(NUMBER, self.number, persist=True)


def latest(map: pmem2.Map) -> tuple[int, bytes]:
    """Return the number of the last message and the message, whole."""
    while True:
        number = map.load_u64(NUMBER)
        slot = map[place(number) : place(number) + SLOT]
        if map.load_u64(NUMBER) == number:  # the writer has at most begun with the other slot
            length = int.from_bytes(slot[:8], "little")
            return number, slot[8 : 8 + length]


def follow(map: pmem2.Map, interval: float = 0.001) -> Iterator[tuple[int, bytes]]:
    """Yield the last message, and each newer one that is seen; of many in a short time only the last."""
    seen = -1
    while True:
        number, message = latest(map)
        if number != seen:
            seen = number
            yield number, message
        time.sleep(interval)


def main(argv: list[str]) -> int:
    """Return the exit status."""
    if len(argv) < 3 or argv[2] not in ("write", "read"):
        print(f"usage: {argv[0]} file write text... | file read", file=sys.stderr)
        return 1
    try:
        with pmem2.open(argv[1]) as map:
            if map.size < SIZE:
                raise ValueError(f"{argv[1]} has {map.size} bytes, and {SIZE} are needed")
            if argv[2] == "write":
                writer = Writer(map)
                for text in argv[3:]:
                    writer.publish(text.encode())
            else:
                for number, message in follow(map):
                    print(number, message.decode(), flush=True)
                    if message == END:
                        break
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
