# SPDX-License-Identifier: BSD-3-Clause
"""Image: the content of the memory after a power failure, with a hash for each cell that has changed."""

from __future__ import annotations

import random
from itertools import repeat
from typing import Union

WEIGHTS: list[int] = []
"""For each cell, a random factor of its hash."""
RNG = random.Random(0)

Cells = Union[range, frozenset[int]]
"""The numbers of cells."""


class Image:
    """The content of the memory; cells can be replaced.

    Attributes:
        content: The bytes.
        hashes: For each cell that differs from the initial content, a number for its content.
    """

    __slots__ = ("_cell_size", "_initial", "content", "hashes")

    def __init__(self, initial: bytes, cell_size: int) -> None:
        """Start with the initial content."""
        self._initial = initial
        self._cell_size = cell_size
        self.content = bytearray(initial)
        self.hashes: dict[int, int] = {}
        while len(WEIGHTS) * cell_size < len(initial):
            WEIGHTS.append(RNG.getrandbits(64))

    def replace(self, index: int, content: bytes) -> None:
        """Replace the content of a cell."""
        low = index * self._cell_size
        high = low + len(content)
        self.content[low:high] = content
        if self._initial[low:high] == content:
            self.hashes.pop(index, None)
        else:
            self.hashes[index] = WEIGHTS[index] * hash(content)

    def cell(self, index: int) -> bytes:
        """Return the content of a cell."""
        return bytes(self.content[index * self._cell_size : (index + 1) * self._cell_size])

    def differences(self) -> dict[int, bytes]:
        """Return the content of each cell that differs from the initial content."""
        return {index: self.cell(index) for index in self.hashes}

    def key(self, cells: Cells) -> int:
        """Return a number that is the same for images with equal content in *cells*.

        The hashes are added up, so a cell that never differs contributes nothing. The random weights make it as good as
        impossible that two sums are equal by chance; sums of hash((index, content)) often are.
        """
        if len(self.hashes) < len(cells):
            return sum([number for index, number in self.hashes.items() if index in cells])
        return sum(map(self.hashes.get, cells, repeat(0)))

    def key_of_all(self) -> int:
        """Return a number that is the same for equal images."""
        return sum(self.hashes.values())
