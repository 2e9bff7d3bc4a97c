# SPDX-License-Identifier: BSD-3-Clause
"""NumPy arrays, whose types hold Any: only here, so that it goes no further. NumPy is an optional extra."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, SupportsIndex

from pmem2._checks import as_size

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike, NDArray

    from pmem2._map import Map


def view_as_array(
    map: Map, dtype: DTypeLike, shape: SupportsIndex | tuple[SupportsIndex, ...] | None, offset: SupportsIndex
) -> NDArray[numpy.generic]:
    """Return a part of *map* as an array; see `Map.as_array`."""
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"{kind!r} holds Python objects, which cannot live in a map")
    if kind.itemsize == 0:
        raise ValueError(f"{kind!r} has no size")
    start = as_size(offset, "offset")
    if shape is None:
        dimensions: tuple[int, ...] = (max(map.size - start, 0) // kind.itemsize,)
    elif isinstance(shape, tuple):
        dimensions = tuple(as_size(n, "shape") for n in shape)
    else:
        dimensions = (as_size(shape, "shape"),)
    view = map.view(start, math.prod(dimensions) * kind.itemsize)
    memory = numpy.asarray(view)  # stays read-only; ndarray itself would see through a read-only view
    array: NDArray[numpy.generic] = numpy.ndarray(dimensions, kind, buffer=memory)
    return array
