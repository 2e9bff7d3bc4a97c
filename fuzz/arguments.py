# SPDX-License-Identifier: BSD-3-Clause
"""Programs that call Config, Map and VMReservation with arguments of every kind, decoded from bytes.

Any bytes decode to a short program, so that libFuzzer can search for bytes that reach new code (guided.py). Every call
must succeed or raise a documented exception, and every object can be closed at the end.

    python fuzz/arguments.py fuzz/corpus/*       run the programs that earlier searches found
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

import model

import pmem2

T = TypeVar("T")

PAGE = model.PAGE
SIZE = model.FILE_SIZE
MAX_STEPS = 12  # of one program
MAX_EXISTING = 500  # libpmem2 1.12 leaks a pthread key for each

FIELDS = (
    "required_granularity",
    "offset",
    "length",
    "sharing",
    "protection",
    "reservation",
    "reservation_offset",
)
# method names, with their numbers of arguments
MAP_METHODS = {
    "__getitem__": 1,
    "__setitem__": 2,
    "view": 2,
    "persist": 2,
    "flush": 2,
    "deep_flush": 2,
    "drain": 0,
    "persist_many": 1,
    "flush_many": 1,
    "publish": 2,
    "acquire": 2,
    "publish_many": 1,
    "acquire_many": 1,
    "memcpy": 3,
    "memmove": 3,
    "memset": 4,
    "memcpy_many": 1,
    "load_u64": 1,
    "store_u64": 3,
    "compare_exchange_u64": 4,
    "fetch_add_u64": 3,
    "close": 0,
}
if importlib.util.find_spec("numpy") is not None:  # optional
    MAP_METHODS["as_array"] = 3
RESERVATION_METHODS = {"extend": 1, "shrink": 2, "find": 2, "first": 0, "last": 0, "next": 1, "prev": 1, "close": 0}


class ArgumentError(Exception):
    """Raised by an argument that is converted to an integer."""


class SideEffect:
    """An integer whose conversion has a side effect."""

    def __init__(self, value: int, act: Callable[[], object]) -> None:
        """Convert to *value*, after calling *act*."""
        self.value, self.act = value, act

    def __index__(self) -> int:
        """Cause the side effect, then return the value."""
        with contextlib.suppress(*model.DOCUMENTED):
            self.act()
        return self.value


class Program:
    """One program: a map, maybe a reservation, and bytes that choose the operations on them."""

    existing = 0

    def __init__(self, data: bytes, source: pmem2.Source) -> None:
        """Map the source."""
        self.data, self.source = data, source
        self.at = 0
        self.reservation: pmem2.VMReservation | None = None
        self.views: list[Any] = []
        self.maps = [source.map()]

    # ---- bytes as choices

    def byte(self) -> int:
        """Return the next byte; zero after the last one."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def one_of(self, choices: list[T]) -> T:
        """Return an element, chosen by the next byte."""
        return choices[self.byte() % len(choices)]

    def integer(self) -> int:
        """Return an integer, preferring small ones and multiples of 8 and of a page."""
        width = self.one_of([0, 1, 1, 1, 2, 8, 9])
        number = int.from_bytes(bytes(self.byte() for _ in range(width)), "little", signed=width > 1)
        return number * self.one_of([1, 8, PAGE]) if width < 8 else number

    def map(self) -> pmem2.Map:
        """Return a map; it may be closed."""
        return self.one_of(self.maps)

    def buffer(self) -> Any:
        """Return an object with a buffer, sometimes an unsuitable one."""
        length = self.byte()
        kinds: list[Callable[[], Any]] = [
            lambda: bytes(length),
            lambda: bytearray(length),
            lambda: memoryview(bytearray(length))[::-1],
            lambda: array("Q", [length, self.byte()] * self.one_of([0, 1, 9])),
            self.map,
            lambda: self.one_of(self.views or [b""]),
            lambda: self.map().view(),
        ]
        return self.one_of(kinds)()

    def pairs(self) -> Iterator[Any]:
        """Yield pairs, and values that are no pairs."""
        for _ in range(self.byte() % 4):
            yield self.one_of([lambda: (self.integer(), self.value()), self.buffer, self.value])()

    def side_effect(self) -> Callable[[], object]:
        """Return a function for an argument to call while pmem2 converts it."""

        def fail() -> None:
            raise ArgumentError

        reservation = self.reservation
        return self.one_of([self.map().close, self.map().view, fail, reservation.close if reservation else gc.collect])

    def value(self, depth: int = 0) -> Any:
        """Return an argument of any kind, mostly an integer or a buffer."""
        kind = self.byte() % 16
        if kind < 6:
            return self.integer()
        if kind < 9:
            return self.buffer()
        if kind == 9:
            return self.one_of([None, True, 1.5, float("nan"), "1", "u1", "<u8", (), {}, object(), int, ..., 1j])
        if kind == 10:
            return SideEffect(self.integer(), self.side_effect())
        if kind == 11:
            return slice(*(self.one_of([None, self.integer()]) for _ in range(3)))
        if kind == 12:
            return self.one_of([self.pairs(), list(self.pairs())])
        if kind == 13:
            return self.one_of([*pmem2.Granularity, *pmem2.Sharing, *pmem2.Protection, *pmem2.MemFlag])
        if kind == 14 and depth < 3:
            return (self.value(depth + 1), self.value(depth + 1))
        return self.one_of([self.reservation, self.map(), self.source])

    # ---- operations

    def reserve(self) -> None:
        """Reserve addresses."""
        if self.reservation is None or self.byte() % 4 == 0:
            if self.reservation is not None:
                self.reservation.close()
            sizes = [(4 * PAGE,), (4 * PAGE,), (self.value(),), (self.value(), self.value())]
            self.reservation = pmem2.VMReservation(*self.one_of(sizes))

    def configure(self) -> None:
        """Make a Config with some fields, and map with it."""
        chosen = {name: self.value() for name in FIELDS if self.byte() % 4 == 0}
        if self.reservation is not None and self.byte() % 2:
            chosen["reservation"] = self.reservation
            chosen.setdefault("length", PAGE)
        self.maps.append(self.source.map(pmem2.Config(**chosen)))

    def adopt(self) -> None:
        """Make a map of an existing buffer."""
        if Program.existing < MAX_EXISTING:
            Program.existing += 1
            buffer, granularity = self.buffer(), self.one_of([pmem2.Granularity.BYTE, self.value()])
            self.maps.append(pmem2.Map.from_existing(self.source, buffer, granularity))

    def call(self, target: Any, methods: dict[str, int]) -> None:
        """Call a method with arguments of any kind; now and then with too few or too many."""
        name = self.one_of(sorted(methods))
        count = max(0, methods[name] + self.one_of([0, 0, 0, 0, 0, -1, -2, 1]))
        result = getattr(target, name)(*(self.value() for _ in range(count)))
        if name in ("view", "as_array"):
            self.views.append(result)

    def step(self) -> None:
        """Do one operation."""
        kind = self.byte() % 8
        if kind == 0:
            self.configure()
        elif kind == 1:
            self.reserve()
        elif kind == 2:
            self.adopt()
        elif kind == 3 and self.reservation is not None:
            self.call(self.reservation, RESERVATION_METHODS)
        else:
            self.call(self.map(), MAP_METHODS)

    def run(self) -> None:
        """Do the operations, then close everything.

        Raises:
            Exception: A call raised an undocumented exception, or an object cannot be closed.
        """
        steps = 0
        while self.at < len(self.data) and steps < MAX_STEPS:
            steps += 1
            with contextlib.suppress(ArgumentError, *model.DOCUMENTED):
                self.step()
        self.views.clear()
        try:
            self.close_all()
        except (BufferError, pmem2.VmReservationNotEmptyError):
            gc.collect()  # garbage may contain views, and maps that an exception kept alive
            self.close_all()

    def close_all(self) -> None:
        """Close everything; maps of other maps' memory first."""
        for map in reversed(self.maps):
            map.close()
        if self.reservation is not None:
            self.reservation.close()


def runner(folder: Path) -> Callable[[bytes], None]:
    """Return a function that decodes and runs a program, on a file in this folder."""
    path = folder / "file"
    path.write_bytes(bytes(SIZE))
    source = pmem2.Source.from_path(path)
    return lambda data: Program(data, source).run()


def main() -> None:
    """Run the programs in the files that the command line names."""
    with tempfile.TemporaryDirectory() as folder:
        run = runner(Path(folder))
        for name in sys.argv[1:]:
            run(Path(name).read_bytes())
    print(f"{len(sys.argv) - 1} programs, no crash")


if __name__ == "__main__":
    main()
