# SPDX-License-Identifier: BSD-3-Clause
"""Many ranges at once: pairs of offset and length, as C reads them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsIndex, Union, cast

from _pmem2 import ffi

from pmem2._lifetime import CPYTHON
from pmem2._numbers import integer, size

if TYPE_CHECKING:
    from _pmem2 import Uint64Array
    from typing_extensions import Buffer

NUMBERS = ffi.typeof("uint64_t[]")
Range = tuple[SupportsIndex, SupportsIndex]
Ranges = Union[Iterable[Range], "Buffer"]


def lend_ranges(ranges: Ranges) -> Uint64Array:
    """Return offset, length, offset, length, ... for a `with` block.

    A C-contiguous buffer of unsigned 64-bit integers, of the shape (n, 2) or (2n,), is lent without a copy.

    Raises:
        TypeError: *ranges* is not iterable, or a number is not an integer.
        ValueError: A number is negative or too large, or there is one without its partner.
    """
    view = packed(ranges)
    if view is not None:
        return ffi.from_buffer(NUMBERS, view)
    numbers: list[int] = []
    add = numbers.append
    try:
        for offset, length in cast("Iterable[Range]", ranges):
            if offset.__class__ is int and length.__class__ is int:
                add(offset)
                add(length)
            else:
                add(integer(offset, "offset"))
                add(integer(length, "length"))
    except NotImplementedError:  # a memoryview of several dimensions
        raise TypeError("a buffer of ranges must be C-contiguous, of the shape (n, 2), and unsigned 64-bit") from None
    try:
        return as_c(numbers)
    except OverflowError:
        for index, number in enumerate(numbers):
            size(number, "length" if index % 2 else "offset")
        raise  # pragma: no cover: one of them is too large or negative, and that was told


def as_c(numbers: list[int]) -> Uint64Array:
    """Return numbers as C reads them, by what is quickest here.

    Raises:
        OverflowError: A number is negative or too large.
    """
    return ffi.from_buffer(NUMBERS, array("Q", numbers)) if CPYTHON else ffi.new(NUMBERS, numbers)


def packed(ranges: Ranges) -> memoryview | None:
    """Return a view of *ranges* if that is a buffer which C can read as it is."""
    try:
        view = memoryview(cast("Buffer", ranges))
    except TypeError:
        return None
    if view.itemsize != 8 or view.format.lstrip("@=<") not in ("Q", "L") or not view.c_contiguous:
        return None
    if view.ndim == 1 and view.nbytes % 16:
        raise ValueError(f"{view.nbytes // 8} numbers are no pairs of offset and length")
    pairs = view.ndim == 1 or (view.ndim == 2 and view.shape is not None and view.shape[1] == 2)
    return view if pairs else None
