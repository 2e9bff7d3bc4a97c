# SPDX-License-Identifier: BSD-3-Clause
"""Calls every operation that makes bytes durable, with border.c preloaded, and prints the recordings as JSON.

`python -c "from support import durable_child; durable_child.main()" FILE`; the environment forces the granularity.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Callable, Union

import pmem2
from pmem2 import Granularity, MemFlag
from support.border import Border

PAGE = 4096
SIZE = 1 << 21
GAP = 256 << 10
"""Pages that are no further apart are synced with one msync, together with the pages between them."""
OFFSETS = (0, 1, 8, 63, 64, 65, 127, PAGE - 1, PAGE, PAGE + 1)
LENGTHS = (*range(10), 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 1)
AT_THE_END = ((SIZE - 1, 1), (SIZE - 1, 0), (SIZE, 0), (SIZE - 64, 64), (SIZE - 65, 65), (SIZE - PAGE - 1, PAGE + 1))
RANGES = [*((offset, length) for offset in OFFSETS for length in LENGTHS), *AT_THE_END]
WORDS = (0, 8, 56, 64, 120, PAGE - 8, PAGE, 2 * PAGE + 8, SIZE - 8)

MANY: tuple[list[tuple[int, int]], ...] = (
    [],
    [(0, 0)],
    [(5, 0)],
    [(SIZE, 0)],
    [(0, 3), (200, 0), (PAGE + 5, 0)],
    [(0, 3)],
    [(8, 3), (0, 3)],
    [(0, 3), (8, 3)],
    [(0, 3), (64, 3)],
    [(0, 64), (64, 64)],
    [(64, 64), (0, 64)],
    [(0, 3 * PAGE), (8, 1)],  # contained
    [(8, 1), (0, 3 * PAGE)],
    [(0, 300), (100, 8), (500, 8)],
    [(100, 300), (0, 200)],  # overlapping
    [(0, PAGE), (0, PAGE)],  # twice
    [(0, 2 * PAGE + 1), (PAGE, PAGE), (2 * PAGE, 100)],
    [(10 * PAGE, 3), (0, 3), (5 * PAGE, 3)],
    [(0, 3), (GAP + PAGE, 3)],  # the gap between two runs is just bridged
    [(0, 3), (GAP + 2 * PAGE, 3)],  # just too far
    [(3 * GAP + 17, 5), (PAGE - 1, 2), (3 * GAP + PAGE, 1), (0, 1)],
    [(0, 3), (2 * GAP, 3), (8, 3)],  # far away and back
    [(0, 255)],
    [(0, 256)],
    [(1, 257)],
    [(0, 255), (255, 256), (511, 257), (768, 255)],
    [(3, 256), (40, 8), (300, 255)],
    [(SIZE - 1, 1), (0, 1)],
    [(SIZE - 257, 257), (SIZE - 1, 1)],
    [(0, SIZE)],
    [(i * 24, 8) for i in range(200)],
    [(i * 4000, 300) for i in range(100)],
)


def flush_and_drain(map: pmem2.Map, offset: int, length: int) -> None:
    """Persist in two steps."""
    map.flush(offset, length)
    map.drain()


def data_map(length: int) -> pmem2.Map:
    """Return a map of other memory, as the data of a copy."""
    with pmem2.Source.from_anon(PAGE) as source:
        return pmem2.Map.from_existing(source, bytearray(length), Granularity.BYTE)


def copy_map(map: pmem2.Map, offset: int, length: int) -> None:
    """Copy from another Map; there is no empty one."""
    if not length:
        map.memcpy(offset, b"")
        return
    with data_map(length) as data:
        map.memcpy(offset, data)


def move_view(map: pmem2.Map, offset: int, length: int) -> None:
    """Copy from an overlapping view of the same map."""
    with map.view(min(offset + 1, SIZE - length), length) as view:
        map.memmove(offset, view)


def copy_views(map: pmem2.Map, pairs: list[tuple[int, int]]) -> None:
    """Copy from views of the same map."""
    with ExitStack() as stack:
        views = [stack.enter_context(map.view(SIZE - length, length)) for _, length in pairs]
        map.memcpy_many([(offset, view) for (offset, _), view in zip(pairs, views)])


def numbers(pairs: list[tuple[int, int]]) -> array[int]:
    """Return ranges as a buffer of unsigned 64-bit integers."""
    return array("Q", [number for pair in pairs for number in pair])


Operation = Callable[[pmem2.Map, int, int], object]
SINGLE: dict[str, Operation] = {
    "persist": lambda m, o, n: m.persist(o, n),
    "flush": lambda m, o, n: m.flush(o, n),
    "flush and drain": flush_and_drain,
    "deep_flush": lambda m, o, n: m.deep_flush(o, n),
    "memcpy": lambda m, o, n: m.memcpy(o, b"x" * n),
    "memcpy of a buffer": lambda m, o, n: m.memcpy(o, bytearray(n)),
    "memcpy of a Map": copy_map,
    "memcpy NODRAIN": lambda m, o, n: m.memcpy(o, b"x" * n, MemFlag.NODRAIN),
    "memcpy NOFLUSH": lambda m, o, n: m.memcpy(o, b"x" * n, MemFlag.NOFLUSH),
    "memcpy NONTEMPORAL": lambda m, o, n: m.memcpy(o, b"x" * n, MemFlag.NONTEMPORAL),
    "memmove": lambda m, o, n: m.memmove(o, b"x" * n),
    "memmove of a view": move_view,
    "memmove NODRAIN": lambda m, o, n: m.memmove(o, b"x" * n, MemFlag.NODRAIN),
    "memset": lambda m, o, n: m.memset(o, 1, n),
    "memset NODRAIN": lambda m, o, n: m.memset(o, 1, n, MemFlag.NODRAIN),
    "memset NOFLUSH": lambda m, o, n: m.memset(o, 1, n, MemFlag.NOFLUSH),
}
WORD: dict[str, Operation] = {
    "store_u64": lambda m, o, n: m.store_u64(o, 1),
    "store_u64 persist": lambda m, o, n: m.store_u64(o, 1, persist=True),
    "compare_exchange_u64": lambda m, o, n: m.compare_exchange_u64(o, 1, 2),
    "fetch_add_u64": lambda m, o, n: m.fetch_add_u64(o, 1),
    "compare_exchange_u64 persist": lambda m, o, n: m.compare_exchange_u64(o, 1, 2, persist=True),
    "compare_exchange_u64 persist, not swapped": lambda m, o, n: m.compare_exchange_u64(o, 99, 2, persist=True),
    "fetch_add_u64 persist": lambda m, o, n: m.fetch_add_u64(o, 1, persist=True),
}
Pairs = list[tuple[int, int]]
SEVERAL: dict[str, Callable[[pmem2.Map, Pairs], object]] = {
    "persist_many": lambda m, pairs: m.persist_many(pairs),
    "persist_many of a generator": lambda m, pairs: m.persist_many(pair for pair in pairs),
    "persist_many of an array": lambda m, pairs: m.persist_many(numbers(pairs)),
    "flush_many": lambda m, pairs: m.flush_many(pairs),
    "flush_many of an array": lambda m, pairs: m.flush_many(numbers(pairs)),
    "memcpy_many of views": copy_views,
    "memcpy_many": lambda m, pairs: m.memcpy_many([(offset, b"x" * length) for offset, length in pairs]),
}
REFUSED: dict[str, Callable[[pmem2.Map], object]] = {
    "persist_many": lambda m: m.persist_many([(0, 3), (SIZE + 1, 1)]),
    "flush_many": lambda m: m.flush_many([(0, 3), (SIZE - 1, 2)]),
    "memcpy_many": lambda m: m.memcpy_many([(0, b"abc"), (SIZE, b"d")]),
    "persist": lambda m: m.persist(SIZE - 1, 2),
    "memcpy": lambda m: m.memcpy(SIZE - 1, b"ab"),
    "memset": lambda m: m.memset(SIZE - 1, 0, 2),
}

Case = tuple[str, Pairs, list[tuple[int, int, int, int]]]


def cases(border: Border, map: pmem2.Map) -> Iterator[Case]:
    """Yield (operation, ranges, recorded events) for each case."""
    for table, ranges in ((SINGLE, RANGES), (WORD, [(offset, 8) for offset in WORDS])):
        for name, operation in table.items():
            for offset, length in ranges:
                with border.recording(map) as events:
                    operation(map, offset, length)
                yield name, [(offset, length)], list(events)
    for name, several in SEVERAL.items():
        for pairs in MANY:
            with border.recording(map) as events:
                several(map, pairs)
            yield name, pairs, list(events)
    for name, refused in REFUSED.items():
        with border.recording(map) as events:
            error: Union[str, None] = None
            try:
                refused(map)
            except ValueError as raised:
                error = str(raised)
        assert error is not None, name
        yield f"refused {name}", [], list(events)


def main() -> None:
    """Print all cases."""
    with pmem2.open(sys.argv[1], "w+", size=SIZE) as map:
        print(json.dumps([*cases(Border(), map)]))
