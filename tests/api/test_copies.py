# SPDX-License-Identifier: BSD-3-Clause
"""Copies: memcpy, memmove, memset and memcpy_many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable

import pytest
from support.map_calls import OUTSIDE
from support.values import CONTENT

from pmem2 import Map, MemFlag

LENGTH = len(CONTENT)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (LENGTH, 0), (0, LENGTH), (LENGTH - 1, 1), (1, 255), (7, 4096)])
def test_copy_stores_data(small_map: Map, offset: int, length: int) -> None:
    """memcpy and memmove store their data and change no other byte."""
    data = bytes((7 * i) % 256 for i in range(length))
    small_map.memcpy(offset, data)
    assert small_map[:] == CONTENT[:offset] + data + CONTENT[offset + length :]
    small_map.memcpy(offset=offset, data=CONTENT[offset : offset + length])
    assert small_map[:] == CONTENT
    small_map.memmove(offset=offset, data=bytearray(data))
    assert small_map[:] == CONTENT[:offset] + data + CONTENT[offset + length :]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, LENGTH + 1), (1, LENGTH), (LENGTH, 1), (LENGTH + 1, 0), (2**63, 1), (2**64 - 1, 1)]
)
def test_copy_outside(small_map: Map, offset: int, length: int) -> None:
    """A copy that does not fit raises ValueError and stores nothing."""
    calls: list[Callable[[], None]] = [
        lambda: small_map.memcpy(offset, bytes(length)),
        lambda: small_map.memcpy(offset, bytearray(length)),
        lambda: small_map.memcpy(offset, bytes(length), MemFlag.NOFLUSH),
        lambda: small_map.memmove(offset, bytes(length)),
        lambda: small_map.memset(offset, 0, length),
        lambda: small_map.memcpy_many([(0, b"first"), (offset, bytes(length))]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=OUTSIDE):
            call()
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
@pytest.mark.parametrize(("offset", "length"), [(0, 0), (LENGTH, 0), (0, LENGTH), (LENGTH - 1, 1), (1, 255), (7, 4096)])
def test_memset(small_map: Map, value: int, offset: int, length: int) -> None:
    """memset fills its range with one byte and changes no other byte."""
    small_map.memset(offset, value, length)
    assert small_map[:] == CONTENT[:offset] + bytes([value]) * length + CONTENT[offset + length :]


@pytest.mark.parametrize("value", [256, 257, 2**31, 2**32, 2**63, -1, -256])
@pytest.mark.parametrize("length", [0, 1])
def test_memset_value_out_of_range(small_map: Map, value: int, length: int) -> None:
    """A memset value outside 0..255 raises ValueError, also for a length of 0."""
    with pytest.raises(ValueError, match="value"):
        small_map.memset(0, value, length)
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("outside", [(0, 2**63), (1, 2**64 - 1), (2**64 - 1, 2**64 - 1), (LENGTH, 2**64 - LENGTH)])
def test_memset_range_wraps(small_map: Map, outside: tuple[int, int]) -> None:
    """A memset range that wraps around the address space raises ValueError."""
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.memset(outside[0], 0, outside[1])


def one_pass_pieces(given: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Return a generator of pieces, which can be iterated once."""
    yield from given


@pytest.mark.parametrize("kind", [list, tuple, set, one_pass_pieces])
def test_pieces_are_copied(small_map: Map, kind: Callable[[object], Iterable[tuple[int, bytes]]]) -> None:
    """memcpy_many copies all pieces of any iterable of pairs."""
    small_map.memcpy_many(kind([(0, b"one"), (10, b"three"), (LENGTH - 3, b"two"), (LENGTH, b""), (20, b"")]))
    assert small_map[:] == b"one" + CONTENT[3:10] + b"three" + CONTENT[15 : LENGTH - 3] + b"two"


def test_no_pieces(small_map: Map) -> None:
    """memcpy_many without pieces copies nothing."""
    small_map.memcpy_many([])
    small_map.memcpy_many(one_pass_pieces([]))
    assert small_map[:] == CONTENT


def test_many_pieces(small_map: Map) -> None:
    """memcpy_many accepts thousands of pieces."""
    small_map.memcpy_many((n, bytes([255 - n % 256])) for n in range(LENGTH))
    assert small_map[:] == bytes(255 - n for n in CONTENT)


@pytest.mark.parametrize(
    "wrong", [None, 5, b"ab", [0, 1], ["ab"], [(0, "text")], [(0, 1)], [("0", b"text")], [(0, None)]]
)
def test_pieces_of_wrong_type(small_map: Map, wrong: list[tuple[int, bytes]]) -> None:
    """Pieces that are not pairs of an offset and data raise TypeError."""
    with pytest.raises(TypeError):
        small_map.memcpy_many(wrong)
    assert small_map[:] == CONTENT


@pytest.mark.parametrize("wrong", [[(0,)], [(0, b"text", 0)], [()]])
def test_pieces_are_not_pairs(small_map: Map, wrong: list[tuple[int, bytes]]) -> None:
    """A piece with more or fewer than two items raises ValueError."""
    with pytest.raises(ValueError, match="unpack"):
        small_map.memcpy_many(wrong)


def test_pieces_checked_before_copying(small_map: Map) -> None:
    """An invalid last piece prevents every copy, and the buffers of the other pieces are released."""
    first = bytearray(b"first")
    wrong: list[tuple[type[Exception], tuple[int, bytes]]] = [
        (ValueError, (LENGTH, b"1")),
        (ValueError, (-1, b"1")),
        (ValueError, (2**64, b"1")),
        (TypeError, (True, b"1")),
        (TypeError, (0, "1")),  # type: ignore[list-item] # wrong on purpose
        (BufferError, (0, memoryview(b"1234")[::2])),  # type: ignore[list-item, unused-ignore] # before 3.12
    ]
    for kind, piece in wrong:
        with pytest.raises(kind):
            small_map.memcpy_many([(0, first), (100, b"second"), piece])
        first.append(0)
    assert small_map[:] == CONTENT
