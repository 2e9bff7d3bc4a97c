# SPDX-License-Identifier: BSD-3-Clause
"""NumPy arrays. NumPy types them with Any; this module keeps it from the others. NumPy is an optional extra."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Callable, Literal, SupportsIndex, cast

from pmem2._checks import as_size

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

    Layout = tuple[tuple[int, ...], tuple[int, ...], int]


def view_as_array(
    view: Callable[[int, int], memoryview],
    size: int,
    dtype: DTypeLike,
    shape: SupportsIndex | tuple[SupportsIndex, ...] | list[int] | None,
    offset: SupportsIndex,
    order: Literal["C", "F"],
) -> NDArray[numpy.generic]:
    """Return a part of *size* bytes of memory as an array; see `Map.as_array`.

    Args:
        view: Returns the memory of a range (offset, length).
        size: Bytes of memory.
        dtype: The type of the items.
        shape: The shape; `None` is one dimension of all whole items.
        offset: The first item's place, in bytes.
        order: Which index changes fastest in memory: the last ("C") or the first ("F").
    """
    import numpy

    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', got {order!r}")

    item = numpy.dtype(dtype)
    if item.hasobject:
        raise TypeError(f"dtype must not hold Python objects, got {item!r}")
    if item.itemsize == 0:
        raise ValueError(f"dtype must have a size, got {item!r}")
    start = as_size(offset, "offset")
    if shape is None:
        dimensions: tuple[int, ...] = (max(size - start, 0) // item.itemsize,)
    elif isinstance(shape, (tuple, list)):
        dimensions = tuple(as_size(n, "shape") for n in shape)
    else:
        dimensions = (as_size(shape, "shape"),)
    length = math.prod(dimensions) * item.itemsize
    # frombuffer first: it keeps a read-only view read-only, while ndarray looks through it at the writable buffer.
    # (asarray copies where memory is short, and hides the error.)
    # No local variable holds the view: the traceback of a signal handler's exception would keep it alive.
    return numpy.ndarray(  # type: ignore[no-any-return, unused-ignore] # depends on the version of NumPy
        dimensions, item, buffer=numpy.frombuffer(view(start, length), numpy.uint8), order=order
    )


def bytes_as_array(
    view: Callable[[], memoryview], dtype: DTypeLike | None, copy: bool | None
) -> NDArray[numpy.generic]:
    """Return what NumPy's protocol `__array__` asks for: the bytes of a view, converted and copied as it says."""
    import numpy

    # no local variable holds the view, as above
    if copy is None:  # NumPy 1 does not know this value: copy if *dtype* needs it
        return numpy.asarray(numpy.frombuffer(view(), numpy.uint8), dtype)
    return numpy.array(numpy.frombuffer(view(), numpy.uint8), dtype, copy=copy)


def array_layout(value: object) -> tuple[Buffer, Layout] | None:
    """Return the first item of an array of NumPy as an array, and its layout; `None` for any other object.

    It need not import NumPy: without it, there are no arrays. (`__array_interface__` would have the address, but NumPy
    dies where there is no memory for that dict.)
    """
    if "numpy" not in sys.modules:
        return None
    import numpy

    if not isinstance(value, numpy.ndarray):
        return None
    first = value[(slice(0, 1),) * value.ndim] if value.ndim else value
    return cast("Buffer", first), (value.shape, value.strides, value.itemsize)


def scattered_layout(view: memoryview) -> tuple[Buffer, Layout]:
    """Return the same for a view that only NumPy can take apart: it is scattered in several dimensions."""
    import numpy

    return cast("tuple[Buffer, Layout]", array_layout(numpy.asarray(view)))


def strided_span(first: int, layout: Layout) -> tuple[int, int]:
    """Return the address of the lowest byte, and the number of bytes up to the highest one.

    Args:
        first: The address of the item at index 0.
        layout: Shape, strides and item size; a negative stride goes down in memory.
    """
    shape, strides, itemsize = layout
    if 0 in shape:
        return first, 0
    reaches = [(count - 1) * stride for count, stride in zip(shape, strides)]
    low = sum(reach for reach in reaches if reach < 0)
    high = sum(reach for reach in reaches if reach > 0)
    return first + low, high - low + itemsize
