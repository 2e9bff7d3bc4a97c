# SPDX-License-Identifier: BSD-3-Clause
"""Many ranges: the forms in which persist_many and flush_many accept them."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable, Literal

import pytest
from support.map_calls import OUTSIDE
from support.values import CONTENT, PAGE

import pmem2
from pmem2 import Map

LENGTH = len(CONTENT)


def one_pass(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Return a generator of ranges, which can be iterated once."""
    yield from ranges


def untyped(make: Callable[[], object]) -> Iterable[tuple[int, int]]:
    """Call *make* and hide the type of its result from mypy."""
    return make()  # type: ignore[return-value] # wrong on purpose


VALID_FORMS: dict[str, Callable[[], object]] = {
    "list": lambda: [(0, 1), (PAGE, PAGE), (LENGTH, 0)],
    "list of lists": lambda: [[0, 1], [5, 6]],
    "list of tuples and lists": lambda: [(0, 1), [5, 6]],
    "tuple of lists": lambda: ([0, 1], [5, 6]),
    "generator": lambda: one_pass([(0, 1), (5, 6)]),
    "set": lambda: {(0, 1), (5, 6)},
    "dict": lambda: {5: 6, 0: 1}.items(),
    "empty list": list,
    "empty generator": lambda: one_pass([]),
    "array of 2n": lambda: array("Q", [0, 1, PAGE, PAGE]),
    "empty array": lambda: array("Q"),
    "memoryview of 2n": lambda: memoryview(array("Q", [0, 1, 5, 6])),
    "many": lambda: [(n % LENGTH, 1) for n in range(10_000)],
}


@pytest.mark.parametrize("form", VALID_FORMS)
def test_forms_of_ranges(small_map: Map, form: str) -> None:
    """persist_many and flush_many accept any iterable of pairs and any flat buffer of unsigned 64-bit integers."""
    small_map.persist_many(untyped(VALID_FORMS[form]))
    small_map.flush_many(untyped(VALID_FORMS[form]))


def test_two_column_buffer(small_map: Map) -> None:
    """An (n, 2) buffer of unsigned 64-bit integers holds n ranges, and each of them is checked."""
    with memoryview(array("Q", [0, 1, 5, 6, PAGE, PAGE]).tobytes()).cast("Q", (3, 2)) as good:
        small_map.persist_many(good)
        small_map.flush_many(good)
    with memoryview(array("Q", [0, 1, 5, 6, PAGE, PAGE + 1]).tobytes()).cast("Q", (3, 2)) as bad:
        with pytest.raises(ValueError, match=OUTSIDE):
            small_map.persist_many(bad)
        with pytest.raises(ValueError, match=OUTSIDE):
            small_map.flush_many(bad)


WRONG_TYPES: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "int": lambda: 5,
    "strings": lambda: ["ab", "cd"],
    "bytes": lambda: b"12345678" * 2,
    "ints": lambda: [0, 1],
    "floats": lambda: [(0.0, 1.0)],
    "bools": lambda: [(False, True)],
    "None in a pair": lambda: [(0, None)],
    "a bool at the end": lambda: [(0, 1), (0, True)],
    "signed array": lambda: array("q", [0, 1]),
    "short items": lambda: array("I", [0, 1, 2, 3]),
    "array of floats": lambda: array("d", [0, 1]),
}


@pytest.mark.parametrize("form", WRONG_TYPES)
def test_ranges_of_wrong_type(small_map: Map, form: str) -> None:
    """Ranges that are not pairs of integers raise TypeError."""
    with pytest.raises(TypeError):
        small_map.persist_many(untyped(WRONG_TYPES[form]))
    with pytest.raises(TypeError):
        small_map.flush_many(untyped(WRONG_TYPES[form]))


INVALID_RANGES: dict[str, Callable[[], object]] = {
    "one number": lambda: [(0,)],
    "three numbers": lambda: [(0, 1, 2)],
    "odd array": lambda: array("Q", [0, 1, 2]),
    "single item": lambda: array("Q", [0]),
    "outside": lambda: [(0, 1), (LENGTH, 1), (0, 1)],
    "array outside": lambda: array("Q", [0, 1, LENGTH, 1]),
    "array that wraps": lambda: array("Q", [1, 2**64 - 1]),
    "array past the end": lambda: array("Q", [LENGTH + 1, 0]),
    "negative": lambda: [(0, 1), (-1, 1)],
    "too large": lambda: [(0, 1), (0, 2**64)],
    "largest": lambda: [(0, 1), (2**64 - 1, 0)],
}


@pytest.mark.parametrize("form", INVALID_RANGES)
def test_invalid_ranges(small_map: Map, form: str) -> None:
    """An incomplete pair and a range outside the map raise ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
        small_map.persist_many(untyped(INVALID_RANGES[form]))
    with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
        small_map.flush_many(untyped(INVALID_RANGES[form]))


@pytest.mark.parametrize(
    ("items", "shape"), [("Q", (2, 3)), ("Q", (2, 1)), ("q", (3, 2)), ("I", (6, 2)), ("Q", (3, 1, 2))]
)
def test_buffer_of_other_shape(small_map: Map, items: Literal["Q", "q", "I"], shape: tuple[int, ...]) -> None:
    """A buffer of another shape or item type that cannot be iterated raises TypeError or ValueError."""
    with memoryview(bytes(48)[: math.prod(shape) * struct.calcsize(items)]).cast(items, shape) as columns:
        with pytest.raises((TypeError, ValueError)):
            small_map.persist_many(columns)
        with pytest.raises((TypeError, ValueError)):
            small_map.flush_many(columns)


def test_buffer_not_contiguous(small_map: Map) -> None:
    """A memoryview with gaps raises TypeError and is not read as if it were contiguous."""
    numbers = array("Q", [0, LENGTH + 1, 1, LENGTH + 1, 5, LENGTH + 1, 6, LENGTH + 1])
    with memoryview(numbers)[::2] as gaps, pytest.raises(TypeError):
        small_map.persist_many(gaps)  # type: ignore[arg-type, unused-ignore] # wrong on purpose


def test_iterable_raises(small_map: Map) -> None:
    """An exception of the iterable reaches the caller, and the caller's buffer is released."""

    def failing() -> Iterator[tuple[int, int]]:
        yield 0, 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        small_map.persist_many(failing())
    numbers = array("Q", [0, 1])
    small_map.persist_many(numbers)
    numbers.append(1)
    with pytest.raises(ValueError, match="pairs"):
        small_map.persist_many(numbers)
    numbers.append(1)
    assert len(numbers) == 4


def test_iterable_closes_map(path: Path) -> None:
    """persist_many raises ValueError if the iterable closes the map."""
    map = pmem2.open(path)

    def close_between() -> Iterator[tuple[int, int]]:
        yield 0, 1
        map.close()
        yield 0, 1

    with pytest.raises(ValueError, match="closed"):
        map.persist_many(close_between())


def test_refused_range_is_named(small_map: Map) -> None:
    """The error names the first range that ends beyond the map, not one that ends with it."""
    whole = (0, LENGTH)
    for many in (small_map.persist_many, small_map.flush_many):
        with pytest.raises(ValueError, match=rf"range 8\+{LENGTH} ends beyond"):
            many([whole, (LENGTH, 0), (8, LENGTH), (16, LENGTH)])
    with pytest.raises(ValueError, match=r"range 8\+"):
        small_map.memcpy_many([(0, bytes(LENGTH)), (LENGTH - 1, b"x"), (8, bytes(LENGTH)), (16, bytes(LENGTH))])
