# SPDX-License-Identifier: BSD-3-Clause
"""Shadow: a copy of the memory. A comparison with it finds stores that no method of the map has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmem2._ffi import ffi, lib
from pmem2.testing._events import WORD, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmem2._ffi import CBuffer

CHUNK = 4096
"""Bytes: only chunks that differ are compared word by word."""


class Shadow:
    """The content of the memory at the last comparison."""

    def __init__(self, address: int, size: int) -> None:
        """Start with zeros for the *size* bytes at *address*."""
        self._address = address
        self._size = size
        self._memory = ffi.cast("char *", address)
        self._copy = ffi.new("char[]", size)
        self._copy_address = int(ffi.cast("uintptr_t", self._copy))

    def load(self) -> None:
        """Copy the whole memory."""
        ffi.memmove(self._copy, self._memory, self._size)

    def content(self) -> bytes:
        """Return the whole copy."""
        return ffi.buffer(self._copy, self._size)[:]

    def take(self, offset: int, length: int) -> bytes:
        """Copy a range of the memory into the shadow; return its bytes."""
        now = bytes_at(self._address + offset, length)[:]
        bytes_at(self._copy_address + offset, length)[:] = now
        return now

    def changed(self, low: int, high: int) -> Iterator[Unit]:
        """Yield the words between two offsets that differ from the shadow, and update the shadow."""
        if self._same(low, high - low):
            return
        for start in range(low, high, CHUNK):
            length = min(CHUNK, high - start)
            if not self._same(start, length):
                before = bytes_at(self._copy_address + start, length)[:]
                now = self.take(start, length)
                for word in range(0, length, WORD):
                    if now[word : word + WORD] != before[word : word + WORD]:
                        yield start + word, now[word : word + WORD]

    def _same(self, offset: int, length: int) -> bool:
        memory = ffi.cast("char *", self._address + offset)
        return lib.memcmp(memory, ffi.cast("char *", self._copy_address + offset), length) == 0


def bytes_at(address: int, length: int) -> CBuffer:
    """Return a buffer over raw memory, without a bounds check."""
    return ffi.buffer(ffi.cast("char *", address), length)
