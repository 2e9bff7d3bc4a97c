# SPDX-License-Identifier: BSD-3-Clause
"""Pruning by what a check reads: skips images in which a check would read only what an earlier check has read.

A check that starts by reading cell 3 (a line or sector of the memory model) does so for every image. The content that
it finds there decides what it reads next, and so on. These reads form a decision tree, and each image follows one path
in it. If the path of an image ends at a leaf, a check of that image sees nothing new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

import attrs

MAX_INLINE_KEY = 256
"""Bytes: longer content is replaced by its digest."""


Children = dict[bytes, Optional["ReadNode"]]
"""The next read for each content found by the previous one; `None` is a leaf, where the check has ended."""


@attrs.define(eq=False)
class ReadNode:
    """A read of one or more cells."""

    cells: tuple[int, ...]
    spans: list[tuple[int, int]]
    children: Children = attrs.Factory(dict)

    def key(self, image: bytearray) -> bytes:
        """Return the content of these cells in *image*, or its digest."""
        content = b"".join([image[low:high] for low, high in self.spans])
        return content if len(content) <= MAX_INLINE_KEY else hashlib.blake2b(content, digest_size=16).digest()


class CheckedImages:
    """The decision tree of all images that were checked."""

    def __init__(self, cells: Sequence[int], cell_size: int) -> None:
        """Start with an empty tree.

        Args:
            cells: The numbers of the cells that differ between images; the reads of all others are ignored.
            cell_size: The size of a cell in bytes.
        """
        self._cells: dict[int, None] = dict.fromkeys(cells)  # an ordered set
        self._cell_size = cell_size
        self._roots: Children = {}
        self._deterministic = True

    def cells_if_checked(self, image: bytearray, acknowledged: int) -> list[int] | None:
        """Return the cells that a check of *image* would read; `None` if that check would see something new."""
        cells: list[int] = []
        children, key = self._roots, str(acknowledged).encode()
        while key in children:
            node = children[key]
            if node is None:
                return cells
            cells += node.cells
            children, key = node.children, node.key(image)
        return None

    def add(self, image: bytearray, acknowledged: int, reads: Iterable[tuple[int, int]]) -> list[int]:
        """Add the *reads* (ranges, in order) that a check of *image* made; return the cells that they touch."""
        steps = list(self._steps(reads)) if self._deterministic else [tuple(self._cells)]
        children, key = self._roots, str(acknowledged).encode()
        for step in steps:
            node = children.get(key)
            if node is None:
                node = children[key] = ReadNode(step, cell_spans(step, self._cell_size))
            elif node.cells != step:
                # The check found the same content and read on elsewhere. From now on each check counts as a read of
                # all cells.
                self._deterministic = False
                self._roots = {}
                return self.add(image, acknowledged, reads)
            children, key = node.children, node.key(image)
        children[key] = None
        return [cell for step in steps for cell in step]

    def _steps(self, reads: Iterable[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
        """Yield the cells that each range touches; skip cells that never differ and cells that were read before."""
        unread = self._cells.copy()
        for offset, length in reads:
            low, high = offset // self._cell_size, -(-(offset + length) // self._cell_size)
            if high - low <= len(unread):
                step = [n for n in range(low, high) if n in unread]
            else:
                step = [n for n in unread if low <= n < high]
            if step:
                yield tuple(step)
                for cell in step:
                    del unread[cell]
                if not unread:
                    return


def cell_spans(cells: Iterable[int], cell_size: int) -> list[tuple[int, int]]:
    """Return the byte ranges (start, end) of cells; neighbours are merged."""
    result: list[tuple[int, int]] = []
    for index in sorted(cells):
        if result and result[-1][1] == index * cell_size:
            result[-1] = result[-1][0], (index + 1) * cell_size
        else:
            result.append((index * cell_size, (index + 1) * cell_size))
    return result
