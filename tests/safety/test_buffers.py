# SPDX-License-Identifier: BSD-3-Clause
"""Buffers of the caller: C reads no more than they have, and pmem2 releases them when a call ends."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.children import RunChild

    import pmem2


class Liar(bytes):
    """Bytes with a false class and a false length."""

    @property  # type: ignore[misc] # read-only, and object's is not
    def __class__(self) -> type[bytes]:  # type: ignore[override]
        """Pretend to be no subclass."""
        return bytes

    def __len__(self) -> int:
        """Pretend to be longer than the memory of the process."""
        return 1 << 40


def test_bytes_with_false_length(map: pmem2.Map) -> None:
    """A copy uses the real length of its data, whatever the class and the length pretend."""
    for copy in (map.memcpy, map.memmove):
        map.memset(0, 0, 8)
        copy(0, Liar(b"x"))
        assert map[0:8] == b"x" + bytes(7)
    map.memcpy_many([(8, Liar(b"y"))])
    assert map[8:16] == b"y" + bytes(7)
    map[16:17] = Liar(b"z")
    assert map[16:24] == b"z" + bytes(7)


FALSE_MAP = """
import contextlib, sys
import pmem2
map = pmem2.open(sys.argv[1])
class FalseMap:
    "Pretends to be a Map, and to be larger than its memory."
    __class__ = property(lambda self: pmem2.Map)
    _size = size = 1 << 28
    _handle = map._handle
    _operation = _pinned = contextlib.contextmanager(lambda self, *_: (yield b"x"))
    def __len__(self):
        return self._size
for act in (
    lambda: map.memcpy(0, FalseMap()),
    lambda: map.memcpy_many([(0, FalseMap())]),
    lambda: map.__setitem__(slice(None), FalseMap()),
):
    try:
        act()
    except TypeError:
        print("refused")
map.close()
"""


def test_object_with_false_class(run_child: RunChild, file: Path) -> None:
    """A copy refuses an object that only pretends to be a Map."""
    child = run_child(FALSE_MAP, str(file))
    assert (child.returncode, child.stdout, child.stderr) == (0, 3 * "refused\n", "")


def test_calls_release_buffers(source: pmem2.Source, map: pmem2.Map) -> None:
    """A buffer can be resized after the call, whether the call succeeded or raised."""
    memory, ranges = bytearray(64), array("Q", [0, 64])
    map.memcpy(0, memory)
    map.memmove(0, memory)
    map.memcpy_many([(0, memory)])
    map[0:64] = memory
    source.pwrite_mcsafe(memory)
    source.pread_mcsafe_into(memory)
    with pytest.raises(ValueError, match="ends beyond"):
        map.memcpy(len(map), memory)
    memory.append(0)
    map.persist_many(ranges)
    map.flush_many(ranges)
    ranges.append(0)
    with pytest.raises(ValueError, match="pairs"):
        map.persist_many(ranges)
    ranges.append(0)
