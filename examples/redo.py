# SPDX-License-Identifier: BSD-3-Clause
"""A sorted list with a redo log against power failures: `python redo.py add POOL KEY VALUE...`, print, check, dump.

Every change is logged first. A flag marks the log as complete; then it is applied, at the next start if necessary.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from struct import Struct

import pmem2

LAST, APPLY, STATE = 0, 8, 64  # offsets of the number of entries and of the flag; size of both (C on POWER: 128)
ENTRIES, HEAD, CAPACITY, USED, NODES = 64, 128, 136, 144, 152  # offsets
ENTRY, NODE = Struct("=2Q"), Struct("=5Q")  # offset, value; id, previous, next, key, value
NONE, MINIMUM = 2**64 - 1, NODES + 100 * NODE.size
USAGE = "usage: {0} add pool key value\n       {0} print pool\n       {0} check pool\n       {0} dump pool"


class Pool:
    """A sorted list in a map."""

    def __init__(self, map: pmem2.Map) -> None:
        """Open the list; apply the log of an interrupted run."""
        if map.size < MINIMUM:
            raise ValueError(f"pool size({map.size}) smaller than minimum size({MINIMUM})")
        self.map, self.capacity = map, (map.size - NODES) // NODE.size
        self.apply()
        if (used := map.load_u64(USED)) > self.capacity:
            raise ValueError(f"pool of {used} nodes: there is room for {self.capacity}")
        map.store_u64(CAPACITY, self.capacity, persist=True)

    def apply(self) -> None:
        """Apply the log if it is complete, and reset it."""
        if self.map[APPLY]:
            if (last := self.map.load_u64(LAST)) > 4:
                raise ValueError(f"redo log of {last} entries: there is room for 4")
            for offset, value in ENTRY.iter_unpack(self.map[ENTRIES : ENTRIES + last * ENTRY.size]):
                self.map.store_u64(offset, value, persist=True)
        self.map.memset(0, 0, STATE, pmem2.MemFlag.WC)  # like the C program, keep the applied entries

    def add(self, key: int, value: int) -> None:
        """Insert a node before the first one whose key is not smaller."""
        if (number := self.map.load_u64(USED)) == self.capacity:
            raise ValueError("pool is full")
        before = [NONE, *(node[0] for node in self if node[3] < key)][-1]
        after = next((node[0] for node in self if node[3] >= key), NONE)
        node = NODE.pack(number, before, after, key, value)
        self.map.memcpy(NODES + number * NODE.size, node, pmem2.MemFlag.NODRAIN)
        changes = [(USED, number + 1)]
        changes += [(NODES + after * NODE.size + 8, number)] * (after != NONE)
        changes += [(HEAD if before == NONE else NODES + before * NODE.size + 16, number)]
        self.map.memcpy(ENTRIES, b"".join(ENTRY.pack(*change) for change in changes), pmem2.MemFlag.NOFLUSH)
        self.map.store_u64(LAST, len(changes))
        self.map.persist(0, ENTRIES + len(changes) * ENTRY.size)
        self.map.memcpy(APPLY, b"\1")
        self.apply()

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Yield the nodes in the order of their keys."""
        number, used = self.map.load_u64(HEAD), self.map.load_u64(USED)
        for _ in range(used):  # bounded: a broken list may have a cycle
            if number >= used:
                break
            node = NODE.unpack(self.map[NODES + number * NODE.size : NODES + (number + 1) * NODE.size])
            yield node
            number = node[2]

    def dump(self) -> None:
        """Print all nodes in the order of their creation."""
        print(f"allocated entries: {(used := self.map.load_u64(USED))}")
        for id, *neighbours, key, value in NODE.iter_unpack(self.map[NODES : NODES + used * NODE.size]):
            before, after = ("NULL" if other == NONE else other for other in neighbours)
            print(f"{before}<---{id}--->{after}\t\t\tkey={key} value={value}")

    def check(self) -> None:
        """Raise ValueError unless the list holds every node once and has two ends."""
        used, nodes = self.map.load_u64(USED), list(self)
        if len({node[0] for node in nodes}) != used or (used and (nodes[0][1], nodes[-1][2]) != (NONE, NONE)):
            self.dump()
            raise ValueError("consistency check failed")


def parse_number(text: str) -> int:
    """Parse an unsigned 64-bit integer like C's strtoull."""
    found = re.fullmatch(r"[ \t-\r]*([+-]?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)", text or "0", re.IGNORECASE)
    if found is None or (value := int(re.sub("^0(?=[0-7])", "0o", found[2]), 0)) > NONE:
        raise ValueError(f"invalid argument {text}")
    return (-value if found[1] == "-" else value) % 2**64


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    command, path, *rest = argv[1:] if len(argv) > 2 else ("", "", "")
    try:
        if len(rest) % 2 if command == "add" else rest:
            raise ValueError(USAGE.format(argv[0]))
        with pmem2.open(path, "r+" if command == "add" else "c") as map:
            pool = Pool(map)
            for key, value in zip(rest[::2], rest[1::2]):
                pool.add(parse_number(key), parse_number(value))
            if command == "print":
                print(*(f"{node[3]} = {node[4]}\n" for node in pool), sep="", end="")
            elif command in ("check", "dump"):
                getattr(pool, command)()
            elif command != "add":
                raise ValueError(f"invalid command {command}\n{USAGE.format(argv[0])}")
    except (OSError, ValueError) as error:
        message = f"{getattr(error, 'function', 'open')}: {error.strerror}" if isinstance(error, OSError) else error
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
