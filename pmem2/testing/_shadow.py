# SPDX-License-Identifier: BSD-3-Clause
"""A copy of a memory, to find what has been changed without our seeing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmem2._ffi import ffi, lib
from pmem2.testing._events import WORD, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmem2._ffi import CBuffer

CHUNK = 4096
"""Bytes that are looked at more closely where something has changed."""


class Shadow:
    """What a memory was when it was looked at last."""

    def __init__(self, address: int, size: int) -> None:
        """Begin with zeros; the memory has *size* bytes at *address*."""
        self._address = address
        self._size = size
        self._copy = ffi.new("char[]", size)
        self._copied = int(ffi.cast("uintptr_t", self._copy))

    def content(self) -> bytes:
        """Return what the memory was."""
        return ffi.buffer(self._copy, self._size)[:]

    def take(self, offset: int, length: int) -> bytes:
        """Return what a range is, and remember that."""
        now = bytes_at(self._address + offset, length)[:]
        bytes_at(self._copied + offset, length)[:] = now
        return now

    def changed(self, low: int, high: int) -> Iterator[Unit]:
        """Yield the words between two offsets that are not what they were, and remember what they are."""
        if self._same(low, high - low):
            return
        for start in range(low, high, CHUNK):
            length = min(CHUNK, high - start)
            if not self._same(start, length):
                before = bytes_at(self._copied + start, length)[:]
                now = self.take(start, length)
                for word in range(0, length, WORD):
                    if now[word : word + WORD] != before[word : word + WORD]:
                        yield start + word, now[word : word + WORD]

    def _same(self, offset: int, length: int) -> bool:
        memory = ffi.cast("char *", self._address + offset)
        return lib.memcmp(memory, ffi.cast("char *", self._copied + offset), length) == 0


def bytes_at(address: int, length: int) -> CBuffer:
    """Return memory itself, which nothing watches over."""
    return ffi.buffer(ffi.cast("char *", address), length)
