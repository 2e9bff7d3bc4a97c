# SPDX-License-Identifier: BSD-3-Clause
"""Indexes and slices of a map, which behave as those of a bytearray of fixed size."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from support.values import CONTENT, Index

if TYPE_CHECKING:
    from pmem2 import Map

LENGTH = len(CONTENT)


BOUNDS = [None, 0, 1, 2, 7, 63, 64, LENGTH - 1, LENGTH, LENGTH + 1, 2**63, 2**70, -1, -2, -64, -LENGTH, -LENGTH - 1]
BOUNDS += [-(2**63), -(2**70)]
STEPS = [None, 1, 2, 3, 63, 64, LENGTH - 1, LENGTH, 2**70, -1, -2, -7, -LENGTH, -(2**70)]
SLICES = [slice(*key) for key in itertools.product(BOUNDS, BOUNDS, [None, -1, 3])]
SLICES += [slice(*key) for key in itertools.product([None, 5, -5], [None, 5, -5, LENGTH], STEPS)]


def test_read_every_index(small_map: Map) -> None:
    """Every valid index, a negative one included, returns its byte as an int."""
    assert [small_map[i] for i in range(-LENGTH, LENGTH)] == list(CONTENT) * 2
    assert type(small_map[0]) is int


@pytest.mark.parametrize("index", [LENGTH, LENGTH + 1, -LENGTH - 1, 2**63, 2**64, 2**64 - 1, 2**70, -(2**63), -(2**70)])
def test_index_out_of_range(small_map: Map, index: int) -> None:
    """An index out of range raises IndexError for reads and for writes."""
    with pytest.raises(IndexError):
        _ = small_map[index]
    with pytest.raises(IndexError):
        small_map[index] = 0
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("wrong", [1.0, "1", b"1", None, (1, 2), [1], object(), ...])
def test_index_of_wrong_type(small_map: Map, wrong: int) -> None:
    """An index that is neither an integer nor a slice raises TypeError for reads and for writes."""
    with pytest.raises(TypeError):
        _ = small_map[wrong]
    with pytest.raises(TypeError):
        small_map[wrong] = 0
    assert small_map[:] == CONTENT


def test_index_objects(small_map: Map) -> None:
    """An object with `__index__` and a bool are valid indexes, as for a bytearray."""
    assert small_map[Index(7)] == CONTENT[7]
    assert small_map[True] == CONTENT[1]
    assert small_map[Index(2) : Index(5)] == CONTENT[2:5]
    small_map[Index(7)] = Index(0)
    assert small_map[7] == 0
    small_map[1 : 7 : Index(3)] = b"ab"
    assert small_map[1 : 7 : Index(3)] == b"ab"


def test_read_every_slice(small_map: Map) -> None:
    """Slices clip, count from the end and step as those of a bytearray, and return bytes."""
    for key in SLICES:
        assert small_map[key] == CONTENT[key], key
    assert type(small_map[0:1]) is bytes
    assert type(small_map[::2]) is bytes
    assert type(small_map[0:0]) is bytes


def test_slices_are_copies(small_map: Map) -> None:
    """A slice keeps its bytes when the map changes."""
    before, gaps = small_map[:], small_map[::2]
    small_map.memset(0, 0, LENGTH)
    assert before == CONTENT
    assert gaps == CONTENT[::2]


@pytest.mark.parametrize("key", [slice(1.0), slice("1"), slice(0, 1, 1.0), slice(0, 1, "1")])
def test_slice_bounds_of_wrong_type(small_map: Map, key: slice) -> None:
    """A slice bound or step that is not an integer raises TypeError for reads and for writes."""
    with pytest.raises(TypeError):
        _ = small_map[key]
    with pytest.raises(TypeError):
        small_map[key] = b""


def test_slice_step_zero(small_map: Map) -> None:
    """A slice step of 0 raises ValueError for reads and for writes."""
    with pytest.raises(ValueError, match="zero"):
        _ = small_map[::0]
    with pytest.raises(ValueError, match="zero"):
        small_map[::0] = b""


def test_iteration(small_map: Map) -> None:
    """A map iterates over its bytes, forwards and in reverse."""
    assert list(iter(small_map)) == list(CONTENT)
    assert list(reversed(small_map)) == list(CONTENT[::-1])


@pytest.mark.parametrize("index", [0, 1, 5, LENGTH - 1, -1, -2, -LENGTH])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_store_byte(small_map: Map, index: int, value: int) -> None:
    """Assigning to an index stores one byte and changes no other."""
    expected = bytearray(CONTENT)
    small_map[index] = expected[index] = value
    assert small_map[:] == expected


@pytest.mark.parametrize("value", [-1, 256, 2**31, 2**63, 2**64, -(2**63), 2**70])
def test_byte_out_of_range(small_map: Map, value: int) -> None:
    """A value outside 0..255 raises ValueError and stores nothing."""
    with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
        small_map[0] = value
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("wrong", [True, False, 1.0, "1", b"1", bytearray(b"1"), None, [1], memoryview(b"1")])
def test_byte_of_wrong_type(small_map: Map, wrong: int) -> None:
    """A value that is a bool or not an integer raises TypeError and stores nothing."""
    with pytest.raises(TypeError):
        small_map[0] = wrong
    assert small_map[:] == CONTENT


def test_store_every_slice(small_map: Map) -> None:
    """Assigning to a slice of any step stores what a bytearray of fixed size would store."""
    expected = bytearray(CONTENT)
    for number, key in enumerate(SLICES):
        data = bytes((number + i) % 251 for i in range(len(expected[key])))
        if len(data) or key.step not in (None, 1):
            expected[key] = data
        small_map[key] = data
        assert small_map[:] == expected, key


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16])
@pytest.mark.parametrize("start", range(9))
def test_store_short_slices(small_map: Map, start: int, length: int) -> None:
    """Slices of 1 to 16 bytes at any alignment, which have code of their own, store the right bytes."""
    expected = bytearray(CONTENT)
    small_map[start : start + length] = expected[start : start + length] = b"\xee" * length
    assert small_map[:] == expected


@pytest.mark.parametrize("key", [slice(0, 4), slice(None, None, 2), slice(9, 1, -1), slice(5, 5), slice(LENGTH, None)])
@pytest.mark.parametrize("difference", [-1, 1, 100])
def test_slice_length_mismatch(small_map: Map, key: slice, difference: int) -> None:
    """Data of another length than the slice raises ValueError and stores nothing."""
    length = len(CONTENT[key]) + difference
    if length < 0:
        length = 200
    with pytest.raises(ValueError, match="bytes"):
        small_map[key] = bytes(length)
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("wrong", [[1, 2], (1, 2), 2, True, 2.0, "12", None, {1, 2}, object(), Index(2), range(2)])
@pytest.mark.parametrize("key", [slice(0, 2), slice(0, 4, 2)])
def test_slice_data_of_wrong_type(small_map: Map, wrong: bytes, key: slice) -> None:
    """Data without a buffer raises TypeError and stores nothing."""
    with pytest.raises(TypeError):
        small_map[key] = wrong
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("count", [0, 1, 2, 8, 63, 64, 65, 999])
@pytest.mark.parametrize("step", [2, 3, -1, -2])
def test_slices_with_a_step(small_map: Map, count: int, step: int) -> None:
    """Slices with a step, short and long, store and read the right bytes, before and after the first use."""
    expected, data = bytearray(CONTENT), bytes(i % 251 for i in range(100, 100 + count))
    start = 1 if step > 0 else 1 - step * count
    key = slice(start, start + step * count, step)
    expected[key] = data
    for _ in range(2):
        small_map[key] = data
        assert small_map[:] == expected
        assert small_map[key] == data
        with pytest.raises(ValueError, match="bytes"):
            small_map[key] = bytes(count + 1)
        assert small_map[:] == expected


def test_items_cannot_be_deleted(small_map: Map) -> None:
    """Deleting an item or a slice raises an error, because the size of a map is fixed."""
    with pytest.raises((TypeError, AttributeError)):
        del small_map[0]  # type: ignore[attr-defined] # wrong on purpose
    with pytest.raises((TypeError, AttributeError)):
        del small_map[0:2]  # type: ignore[attr-defined] # wrong on purpose
    assert small_map[:] == CONTENT


class Failing:
    """The end of a slice that raises."""

    def __index__(self) -> int:
        """Raise."""
        raise ValueError("raised by the index")


def test_error_of_an_index(map: Map) -> None:
    """An exception of an index object reaches the caller, once."""
    assert map[0] == 0
    for use in (
        lambda: map[Failing() :],
        lambda: map[: Failing()],
        lambda: map.__setitem__(slice(Failing(), 4), b"abcd"),
    ):
        with pytest.raises(ValueError, match="raised by the index"):
            use()
