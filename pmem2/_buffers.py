# SPDX-License-Identifier: BSD-3-Clause
"""Memory of the caller, borrowed for one call into C without a copy: buffers, and ranges as pairs of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, Protocol, SupportsIndex, Union, cast

from pmem2._arrays import array_layout, scattered_layout, strided_span
from pmem2._checks import as_int, as_size, raise_if_deeper
from pmem2._ffi import ffi, lib
from pmem2._resource import CPYTHON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from typing_extensions import Buffer, TypeIs

    from pmem2._ffi import Borrowed, CharArray, CharPointer, Uint64Array

    class Array(Protocol):
        """An array of NumPy, which declares itself a buffer only from Python 3.12 on."""

        @property
        def __array_interface__(self) -> Mapping[str, object]:
            """Its memory."""

    class PyPyView(Protocol):
        """A memoryview of PyPy."""

        def _pypy_raw_address(self) -> int:
            """Return the address of its first item."""

    Memory = Union[Buffer, Array]

CHAR_ARRAY = ffi.typeof("char[]")
UINT64_ARRAY = ffi.typeof("uint64_t[]")
UINT64_FORMATS = {order + code for order in ("", "@", "=", "<") for code in "QL"}  # where an item has 8 bytes
SCRATCH_SIZE = 4096
_spare_arrays: list[CharArray] = []
ENCODE_HINT = ": encode it first, for example with .encode()"
Range = tuple[SupportsIndex, SupportsIndex]
Ranges = Union[Iterable[Range], "Buffer"]


def borrow(data: Buffer, name: str = "data", *, writable: bool = False) -> Borrowed:
    """Borrow the bytes of *data*, which errors call *name*; give them back on every path.

    Write `with borrow(data) as memory, memory`. CPython's garbage collector can crash on a borrowed buffer that was not
    given back, and CPython 3.9 and 3.10 can handle a signal between a `with` block and its `__exit__`, which then does
    not run. The outer of two blocks gives it back.

    Raises:
        TypeError: *data* is no buffer, or a read-only one where *writable* is asked for.
        BufferError: *data* is not C-contiguous.
    """
    try:
        if not CPYTHON:  # pragma: no cover: PyPy borrows scattered memory too
            with memoryview(data) as view:  # PyPy 8 refuses to resize a bytearray until the view is released
                if not view.c_contiguous:
                    raise BufferError
        return ffi.from_buffer(CHAR_ARRAY, data, writable)
    except (BufferError, TypeError, ValueError):  # the kind of buffer decides which
        with view_of(data, name) as view:
            if writable and view.readonly:
                raise TypeError(f"{name} must be writable, got a read-only buffer") from None
            if not view.c_contiguous:
                raise_scattered(name)
        raise  # pragma: no cover: an exception of a signal handler


def view_of(data: Buffer, name: str, wanted: str = "a bytes-like object") -> memoryview:
    """Return a view of *data*.

    Raises:
        TypeError: *data* is no buffer, but should be *wanted*.
    """
    try:
        return memoryview(data)
    except TypeError as error:
        raise_if_deeper(error)
        hint = ENCODE_HINT if issubclass(type(data), str) else ""
        raise TypeError(f"{name} must be {wanted}, not {type(data).__name__}{hint}") from None


def raise_scattered(name: str) -> NoReturn:
    """Refuse memory that is not C-contiguous.

    Raises:
        BufferError: Always.
    """
    raise BufferError(f"{name} must be C-contiguous: copy it first, for example with bytes()") from None


class Scratch:
    """A small array of bytes that is used again: PyPy frees an array only when it collects garbage."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        """Take an array that is not in use."""
        try:
            self._array = _spare_arrays.pop()
        except IndexError:
            self._array = ffi.new(CHAR_ARRAY, SCRATCH_SIZE)

    def __enter__(self) -> CharArray:
        """Return the array."""
        return self._array

    def __exit__(self, *_: object) -> None:
        """Let others use the array."""
        _spare_arrays.append(self._array)


def scratch(length: int) -> AbstractContextManager[CharArray]:
    """Return an array of at least *length* bytes for a `with` block."""
    return Scratch() if length <= SCRATCH_SIZE else ffi.new(CHAR_ARRAY, length)


def copy_of(memory: CharArray) -> bytes:
    """Return the bytes of a borrowed buffer; that of an empty one may have no address."""
    return ffi.unpack(memory, len(memory)) if len(memory) else b""


def export(data: Buffer, views: list[memoryview]) -> None:
    """Append a view of the bytes of *data* to *views*; they stay in place until it is released.

    No variable holds the view: the frame would keep it when a signal handler raises.

    Raises:
        TypeError: *data* is no buffer.
        BufferError: *data* is not C-contiguous.
    """
    try:
        views.append(view_of(data, "data"))
    except ValueError:  # NumPy does not describe dates and times
        with borrow(data) as memory, memory:
            views.append(memoryview(copy_of(memory)))
    if not views[-1].c_contiguous:
        raise_scattered("data")


def pointer_to(view: memoryview) -> tuple[CharPointer, int]:
    """Return the address of an exported view and its length in bytes."""
    with borrow(view) as memory, memory:
        return ffi.cast("char *", memory), len(memory)


def is_memory(value: SupportsIndex | Memory) -> TypeIs[Memory]:
    """Return whether *value* is meant to be a view or an array, and no number, right or wrong.

    Arrays of NumPy convert to numbers too, and its numbers are buffers too; the former have a length.
    """
    kind = type(value)
    if issubclass(kind, int):
        return False
    return hasattr(kind, "__len__") or not (hasattr(kind, "__index__") or hasattr(kind, "__int__"))


def span_of(memory: Memory, name: str) -> tuple[int, int]:
    """Return the address of the first byte of a view or an array, and the number of bytes up to its last one.

    Raises:
        TypeError: *memory* is neither; the error calls it *name*.
    """
    found = array_layout(memory)
    if found is not None:
        first, layout = found
        return strided_span(address_of(first), layout)
    with view_of(cast("Buffer", memory), name, "an integer, or a view or an array of this map") as view, view:
        return strided_span(address_of_view(view), (view.shape or (), view.strides or (), view.itemsize))


def address_of_view(view: memoryview) -> int:
    """Return the address of the first item of a view; cffi refuses one that is scattered."""
    if not CPYTHON:  # pragma: no cover: where cffi would return the address of a copy
        return cast("PyPyView", view)._pypy_raw_address()  # it must not be released: PyPy does not check
    if view.c_contiguous:
        return address_of(view)
    with view[:1] as first:
        return address_of(first if first.c_contiguous else scattered_layout(view)[0])


def address_of(memory: Buffer) -> int:
    """Return the address of a contiguous buffer."""
    with borrow(memory) as borrowed, borrowed:
        return int(ffi.cast("uintptr_t", borrowed))


def release_all(views: list[memoryview]) -> None:
    """Release views.

    This is no loop in the `try` block of a caller: CPython 3.12 and 3.13.0 skip `finally` if a signal handler raises at
    the end of such a loop.
    """
    for view in views:
        view.release()


def borrow_ranges(ranges: Ranges) -> Uint64Array:
    """Return *ranges* as the numbers offset, length, offset, length, ...; the caller releases them.

    A C-contiguous buffer of unsigned 64-bit integers of the shape (n, 2) or (2n,) is borrowed without a copy.

    Raises:
        TypeError: *ranges* is not iterable, or a number is not an integer.
        ValueError: A number is negative or too large, or the last offset has no length.
    """
    view = as_uint64_view(ranges)
    if view is not None:
        return ffi.from_buffer(UINT64_ARRAY, view)
    if ranges.__class__ in (list, tuple):
        # Copy: another thread may mutate the caller's list.
        packed = pack_pairs(list(cast("Iterable[Range]", ranges)))
        if packed is not None:
            return packed
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
        raise  # pragma: no cover: as_size has raised


def pack_pairs(pairs: list[Range]) -> Uint64Array | None:
    """Return the numbers of a list of tuples of two ints, `None` if an item is anything else.

    Most callers pass such a list, and this is several times as fast as the general loop.
    """
    numbers = ffi.new(UINT64_ARRAY, 2 * len(pairs))
    if not CPYTHON:  # pragma: no cover: PyPy's objects have no address
        return pack_pairs_pypy(pairs, numbers)
    return numbers if lib.guarded_pack_pairs(id(pairs), numbers, len(pairs)) else None


def pack_pairs_pypy(pairs: list[Range], numbers: Uint64Array) -> Uint64Array | None:  # pragma: no cover: PyPy
    """Store the numbers of *pairs* in *numbers* with statements that PyPy compiles well."""
    index = 0
    for pair in pairs:
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
    """Return a view of *ranges* if C can read the buffer as it is, else `None`."""
    try:
        view = memoryview(cast("Buffer", ranges))
    except TypeError:
        return None
    if view.format not in UINT64_FORMATS or view.itemsize != 8 or not view.c_contiguous:
        return None
    if view.ndim == 1 and view.nbytes % 16:
        raise ValueError(f"ranges must be pairs of offset and length, got {view.nbytes // 8} numbers")
    is_pairs = view.ndim == 1 or (view.ndim == 2 and view.shape is not None and view.shape[1] == 2)
    return view if is_pairs else None


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return *ranges* in order of their offsets, with those that touch or overlap merged."""
    merged: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if merged and offset <= sum(merged[-1]):
            low = merged[-1][0]
            merged[-1] = low, max(sum(merged[-1]), offset + length) - low
        else:
            merged.append((offset, length))
    return merged
