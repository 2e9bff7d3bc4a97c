# SPDX-License-Identifier: BSD-3-Clause
"""A persistent NumPy array: `python numpy_array.py FILE set ROW VALUE...`, `python numpy_array.py FILE show`.

The array uses the mapped memory without a copy. Saving makes only the changed rows durable, with one drain for all. A
power failure before that may tear a row; table.py shows atomic updates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy

import pmem2

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, COLUMNS = 1024, 4


class Matrix:
    """Rows of numbers in a map, and the rows that have changed since the last save."""

    def __init__(self, map: pmem2.Map) -> None:
        """Use the whole *map*; call `close` before you close the map."""
        self.map = map
        rows = map.size // (COLUMNS * numpy.dtype(numpy.float64).itemsize)
        self.array: NDArray[numpy.float64] = map.as_array(numpy.float64, (rows, COLUMNS))
        self.changed: set[int] = set()

    def __setitem__(self, row: int, values: Iterable[float]) -> None:
        """Store a row; `save` makes it durable."""
        self.array[row] = list(values)
        self.changed.add(row % len(self.array))

    def save(self) -> None:
        """Make the changed rows durable."""
        width = self.array.strides[0]
        self.map.persist_many((row * width, width) for row in sorted(self.changed))
        self.changed.clear()

    def close(self) -> None:
        """Release the memory."""
        del self.array


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) < 3 or argv[2] not in ("set", "show") or (argv[2] == "set" and len(argv) != 4 + COLUMNS):
        print(f"usage: {argv[0]} file set row {'value ' * COLUMNS}| file show", file=sys.stderr)
        return 1
    new = not os.path.exists(argv[1])
    try:
        with pmem2.open(argv[1], "x+", size=ROWS * COLUMNS * 8) if new else pmem2.open(argv[1]) as map:
            matrix = Matrix(map)
            try:
                if argv[2] == "set":
                    matrix[int(argv[3])] = [float(text) for text in argv[4:]]
                    matrix.save()
                for row in numpy.flatnonzero(matrix.array.any(axis=1)):
                    print(row, *matrix.array[row].tolist())
            finally:
                matrix.close()
    except (OSError, ValueError, IndexError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
