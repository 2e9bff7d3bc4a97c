# SPDX-License-Identifier: BSD-3-Clause
"""Memory of the caller, borrowed for one call into C without a copy: buffers, and ranges as pairs of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsIndex, Union, cast

from pmem2._checks import as_int, as_size
from pmem2._ffi import ffi, lib
from pmem2._resource import CPYTHON

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pmem2._ffi import Borrowed, Uint64Array

CHAR_ARRAY = ffi.typeof("char[]")
UINT64_ARRAY = ffi.typeof("uint64_t[]")
UINT64_FORMATS = {order + kind for order in ("", "@", "=", "<") for kind in "QL"}  # of 8 bytes, that is
Range = tuple[SupportsIndex, SupportsIndex]
Ranges = Union[Iterable[Range], "Buffer"]


def borrow(data: Buffer, *, writable: bool = False) -> Borrowed:
    """Return the bytes of *data*, to be given back by `ffi.release` or by a `with` block, whatever happens meanwhile.

    (A borrowed buffer that is left to the garbage collector can crash CPython.)

    Raises:
        TypeError: *data* has no buffer, or a read-only one and it is to be *writable*.
        BufferError: *data* is not C-contiguous.
    """
    try:
        if not CPYTHON:  # pragma: no cover: PyPy lends what lies scattered too
            with memoryview(data) as view:  # PyPy 8 keeps a bytearray from being resized until it is released
                if not view.c_contiguous:
                    raise BufferError
        return ffi.from_buffer(CHAR_ARRAY, data, writable)
    except (BufferError, TypeError, ValueError):  # which of them it is depends on the kind of the buffer
        with memoryview(data) as view:
            if writable and view.readonly:
                raise TypeError("the buffer is read-only, and it is to be written") from None
        raise BufferError("the data must be C-contiguous; make a copy of it first") from None


def borrow_ranges(ranges: Ranges) -> Uint64Array:
    """Return offset, length, offset, length, ... which the caller releases.

    A C-contiguous buffer of unsigned 64-bit integers, of the shape (n, 2) or (2n,), is lent without a copy.

    Raises:
        TypeError: *ranges* is not iterable, or a number is not an integer.
        ValueError: A number is negative or too large, or there is one without its partner.
    """
    view = as_uint64_view(ranges)
    if view is not None:
        return ffi.from_buffer(UINT64_ARRAY, view)
    if ranges.__class__ in (list, tuple):
        pairs = pack_pairs(list(cast("Iterable[Range]", ranges)))  # our own, which nobody changes meanwhile
        if pairs is not None:
            return pairs
    numbers: list[int] = []
    add = numbers.append
    try:
        for offset, length in cast("Iterable[Range]", ranges):
            add(offset if offset.__class__ is int else as_int(offset, "offset"))
            add(length if length.__class__ is int else as_int(length, "length"))
    except NotImplementedError:  # a memoryview of several dimensions
        raise TypeError("a buffer of ranges must be C-contiguous, of the shape (n, 2), and unsigned 64-bit") from None
    try:
        return ffi.new(UINT64_ARRAY, numbers)
    except OverflowError:
        for index, number in enumerate(numbers):
            as_size(number, "length" if index % 2 else "offset")
        raise  # pragma: no cover: one of them is too large or negative, and that was told


def pack_pairs(ranges: list[Range]) -> Uint64Array | None:
    """Return the numbers of a list of tuples of two ints; None if it is anything else.

    That is what most callers have, and both ways are several times as fast as the general one.
    """
    numbers = ffi.new(UINT64_ARRAY, 2 * len(ranges))
    if not CPYTHON:  # pragma: no cover: PyPy's objects have no address
        return pack_pairs_pypy(ranges, numbers)
    return numbers if lib.guarded_pack_pairs(id(ranges), numbers, len(ranges)) else None


def pack_pairs_pypy(ranges: list[Range], numbers: Uint64Array) -> Uint64Array | None:  # pragma: no cover: PyPy
    """Return the numbers, in words that PyPy compiles well."""
    index = 0
    for pair in ranges:
        if pair.__class__ is not tuple or len(pair) != 2:
            return None
        offset, length = pair
        if offset.__class__ is not int or length.__class__ is not int:
            return None
        try:
            numbers[index], numbers[index + 1] = offset, length
        except OverflowError:
            return None
        index += 2
    return numbers


def as_uint64_view(ranges: Ranges) -> memoryview | None:
    """Return a view of *ranges* if that is a buffer which C can read as it is."""
    try:
        view = memoryview(cast("Buffer", ranges))
    except TypeError:
        return None
    if view.format not in UINT64_FORMATS or view.itemsize != 8 or not view.c_contiguous:
        return None
    if view.ndim == 1 and view.nbytes % 16:
        raise ValueError(f"{view.nbytes // 8} numbers are no pairs of offset and length")
    pairs = view.ndim == 1 or (view.ndim == 2 and view.shape is not None and view.shape[1] == 2)
    return view if pairs else None


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one."""
    result: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if result and offset <= sum(result[-1]):
            low = result[-1][0]
            result[-1] = low, max(sum(result[-1]), offset + length) - low
        else:
            result.append((offset, length))
    return result
