# SPDX-License-Identifier: BSD-3-Clause
"""NumPy arrays. NumPy types them with Any; this module keeps it from the others. NumPy is an optional extra."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable, SupportsIndex

from pmem2._checks import as_size

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike, NDArray


def view_as_array(
    view: Callable[[int, int], memoryview],
    size: int,
    dtype: DTypeLike,
    shape: SupportsIndex | tuple[SupportsIndex, ...] | None,
    offset: SupportsIndex,
) -> NDArray[numpy.generic]:
    """Return a part of *size* bytes of memory as an array; see `Map.as_array`.

    Args:
        view: Returns the memory of a range (offset, length).
        size: Bytes of memory.
        dtype: The type of the items.
        shape: The shape; `None` is one dimension of all whole items.
        offset: The first item's place, in bytes.
    """
    import numpy

    item = numpy.dtype(dtype)
    if item.hasobject:
        raise TypeError(f"dtype must not hold Python objects, got {item!r}")
    if item.itemsize == 0:
        raise ValueError(f"dtype must have a size, got {item!r}")
    start = as_size(offset, "offset")
    if shape is None:
        dimensions: tuple[int, ...] = (max(size - start, 0) // item.itemsize,)
    elif isinstance(shape, tuple):
        dimensions = tuple(as_size(n, "shape") for n in shape)
    else:
        dimensions = (as_size(shape, "shape"),)
    length = math.prod(dimensions) * item.itemsize
    # asarray first: it keeps a read-only view read-only, while ndarray looks through it at the writable buffer.
    # No local variable holds the view: the traceback of a signal handler's exception would keep it alive.
    return numpy.ndarray(  # type: ignore[no-any-return, unused-ignore] # depends on the version of NumPy
        dimensions, item, buffer=numpy.asarray(view(start, length))
    )
