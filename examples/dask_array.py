# SPDX-License-Identifier: BSD-3-Clause
"""A dask array over a file or a DAX device, larger than memory: `python dask_array.py FILE DTYPE [STEP]`.

It prints the sum of every STEP-th item, computed by worker processes. A task carries the path and the Config, no data:
each worker maps the file once and works on the mapped memory without a copy. dask sends the data of a chunk to another
process only where two tasks need the same chunk: compute one result at a time.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
from typing import TYPE_CHECKING

import attrs
import dask.array
import numpy

import pmem2

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 64 << 20  # bytes
MAPS: dict[tuple[str, pmem2.Config], pmem2.Map] = {}
"""The maps of this process, which all its tasks share."""


def open_once(path: str, config: pmem2.Config) -> pmem2.Map:
    """Return the map of a file; the first task of a process opens it."""
    key = path, config
    if key not in MAPS:
        MAPS[key] = pmem2.open(path, "r", config=config)
    return MAPS[key]


@attrs.frozen
class MappedArray:
    """What dask needs to know of an array: it is pickled as a few hundred bytes, and opened where it is read."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    config: pmem2.Config = pmem2.Config()

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[numpy.generic]:
        """Return a part of the array: the memory itself."""
        map = open_once(self.path, self.config)
        # Drop the pages of earlier chunks, which would count as this process's memory; the file keeps its contents.
        map.madvise(mmap.MADV_DONTNEED)
        part: NDArray[numpy.generic] = map.as_array(self.dtype, self.shape)[key]
        return part


def as_dask_array(source: MappedArray, chunk: int = CHUNK) -> dask.array.Array:
    """Return a dask array whose tasks carry *source*; its chunks have up to *chunk* bytes and whole rows."""
    row = math.prod(source.shape[1:]) * numpy.dtype(source.dtype).itemsize
    chunks = (max(chunk // row, 1), *source.shape[1:])
    return dask.array.from_array(source, chunks=chunks, name=False, inline_array=True)


def items_in(path: str, dtype: str) -> int:
    """Return how many whole items a file or a DAX device has."""
    with pmem2.Source.from_path(path, writable=False) as source:
        return source.size // numpy.dtype(dtype).itemsize


def main(argv: list[str], scheduler: str = "processes") -> int:
    """Run the example and return its exit status."""
    if len(argv) not in (3, 4):
        print(f"usage: {argv[0]} file dtype [step]", file=sys.stderr)
        return 1
    path, dtype = os.path.abspath(argv[1]), argv[2]
    try:
        array = as_dask_array(MappedArray(path, dtype, (items_in(path, dtype),)))
        every = array[:: int(argv[3]) if len(argv) == 4 else 1]
        total = every.sum().compute(scheduler=scheduler)
    except (OSError, TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"sum of {every.size} items, in {array.npartitions} chunks: {total}")
    return 0


if __name__ == "__main__":
    import dask_array  # under this name the workers find it too, and share its cache among their tasks

    sys.exit(dask_array.main(sys.argv))
