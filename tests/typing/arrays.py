# SPDX-License-Identifier: BSD-3-Clause
"""What a type checker tells a user of NumPy: checked, never run."""

import sys

import numpy
from numpy.typing import NDArray
from typing_extensions import assert_type

from pmem2 import Map


def as_array(m: Map) -> None:
    """The type of the items decides the type of the array, where it is one for a type checker."""
    assert_type(m.as_array(numpy.uint64), NDArray[numpy.uint64])
    assert_type(m.as_array(numpy.dtype(numpy.float32), 8), NDArray[numpy.float32])
    assert_type(m.as_array(numpy.int8, shape=(4, 8), offset=64), NDArray[numpy.int8])
    assert_type(m.as_array("<u8"), NDArray[numpy.generic])
    assert_type(m.as_array([("key", "<u8"), ("value", "<f8")]), NDArray[numpy.generic])
    m.as_array(numpy.uint64, shape=1.5)  # type: ignore[call-overload]


if sys.version_info >= (3, 12):  # before, NumPy does not say that an array is a buffer

    def arrays_are_data(m: Map, data: NDArray[numpy.uint64]) -> None:
        """An array is data to be copied, and packed ranges."""
        m.memcpy(0, data)
        m[0:8] = data
        m.persist_many(data)
