# SPDX-License-Identifier: BSD-3-Clause
"""Types that a user of NumPy sees. A type checker checks this file; it never runs."""

import sys

import numpy
from numpy.typing import NDArray
from typing_extensions import assert_type

from pmem2 import Map


def as_array(m: Map) -> None:
    """The array has the item type of the dtype, if a type checker knows it."""
    assert_type(m.as_array(numpy.uint64), NDArray[numpy.uint64])
    assert_type(m.as_array(numpy.dtype(numpy.float32), 8), NDArray[numpy.float32])
    assert_type(m.as_array(numpy.int8, shape=(4, 8), offset=64), NDArray[numpy.int8])
    assert_type(m.as_array("<u8"), NDArray[numpy.generic])
    assert_type(m.as_array([("key", "<u8"), ("value", "<f8")]), NDArray[numpy.generic])
    assert_type(m.as_array(numpy.int8, [4, 8], order="F"), NDArray[numpy.int8])
    m.as_array(numpy.uint64, shape=1.5)  # type: ignore[call-overload]
    m.as_array(numpy.uint64, order="A")  # type: ignore[call-overload]


def arrays_are_ranges(m: Map, array: NDArray[numpy.float64], record: NDArray[numpy.void]) -> None:
    """An array of the map stands for its range."""
    m.persist(array)
    m.flush(array[::2])
    m.deep_flush(record)
    m.persist(m.as_array("<u8"))


def map_as_array(m: Map) -> None:
    """NumPy converts a map to an array."""
    numpy.asarray(m)


if sys.version_info >= (3, 12):  # earlier NumPy types do not declare an array as a buffer

    def arrays_are_data(m: Map, data: NDArray[numpy.uint64]) -> None:
        """An array serves as data for copies and as packed ranges."""
        m.memcpy(0, data)
        m[0:8] = data
        m.persist_many(data)
