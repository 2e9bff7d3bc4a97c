# SPDX-License-Identifier: BSD-3-Clause
"""Which images need no check, because all that a check looks at in them is as in one that was checked.

A check that begins by reading cell 3 reads cell 3 of every image. What it reads next depends on what it found there,
and so on: a tree, in which an image leads along one way. Where that way ends, the check would see nothing new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

import attrs

SHORT = 256
"""Bytes; of what is longer a digest is kept."""


Found = dict[bytes, Optional["Reading"]]
"""What was read next, by what was found before; `None` where the check was over."""


@attrs.define(eq=False)
class Reading:
    """Cells that were read at once."""

    cells: tuple[int, ...]
    spans: list[tuple[int, int]]
    found: Found = attrs.Factory(dict)

    def key(self, image: bytearray) -> bytes:
        """Return what is found in *image*."""
        content = b"".join([image[low:high] for low, high in self.spans])
        return content if len(content) <= SHORT else hashlib.blake2b(content, digest_size=16).digest()


class Known:
    """The images that were checked, as far as the check looked at them."""

    def __init__(self, cells: Sequence[int], size: int) -> None:
        """Nothing is known yet.

        Args:
            cells: The numbers of those that are not the same in all images.
            size: How large a cell is, in bytes.
        """
        self._cells: dict[int, None] = dict.fromkeys(cells)  # a set that keeps its order
        self._size = size
        self._found: Found = {}
        self._steady = True

    def way(self, image: bytearray, acknowledged: int) -> list[int] | None:
        """Return the cells that a check of *image* would read, or `None` if that would see something new."""
        cells: list[int] = []
        found, key = self._found, str(acknowledged).encode()
        while key in found:
            reading = found[key]
            if reading is None:
                return cells
            cells += reading.cells
            found, key = reading.found, reading.key(image)
        return None

    def add(self, image: bytearray, acknowledged: int, reads: Iterable[tuple[int, int]]) -> list[int]:
        """Remember what a check of *image* has read, as ranges in that order; return the cells of that."""
        steps = list(self._steps(reads)) if self._steady else [tuple(self._cells)]
        found, key = self._found, str(acknowledged).encode()
        for step in steps:
            reading = found.get(key)
            if reading is None:
                reading = found[key] = Reading(step, spans(step, self._size))
            elif reading.cells != step:  # it has found the same and read something else: nothing can be said of it
                self._steady = False
                self._found = {}
                return self.add(image, acknowledged, reads)
            found, key = reading.found, reading.key(image)
        found[key] = None
        return [cell for step in steps for cell in step]

    def _steps(self, reads: Iterable[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
        """Yield the cells that each range touches, each cell once, and only those that are not always the same."""
        left = self._cells.copy()
        for offset, length in reads:
            low, high = offset // self._size, -(-(offset + length) // self._size)
            few = high - low <= len(left)
            step = [n for n in range(low, high) if n in left] if few else [n for n in left if low <= n < high]
            if step:
                yield tuple(step)
                for cell in step:
                    del left[cell]
                if not left:
                    return


def spans(cells: Iterable[int], size: int) -> list[tuple[int, int]]:
    """Return the ranges from one byte to another that cells take, neighbours together."""
    result: list[tuple[int, int]] = []
    for index in sorted(cells):
        if result and result[-1][1] == index * size:
            result[-1] = result[-1][0], (index + 1) * size
        else:
            result.append((index * size, (index + 1) * size))
    return result
