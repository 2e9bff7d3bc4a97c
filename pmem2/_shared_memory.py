# SPDX-License-Identifier: BSD-3-Clause
"""publish and acquire: the cache lines of memory that other code has mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmem2._buffers import borrow
from pmem2._enums import ErrorCode
from pmem2._error_map import error_from_rc
from pmem2._ffi import lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

CACHE_HINTS: dict[int, str] = {
    ErrorCode.NOSUPP: "only x86-64, 64-bit ARM and POWER let programs write back and drop cache lines"
}


def publish(buffer: Buffer) -> None:
    """Write a buffer back to memory, past every cache of this host, as `Map.publish` does.

    It is for memory that other code has mapped, such as an mmap; a slice of a memoryview is a part of it.

    Args:
        buffer: Any writable C-contiguous buffer.

    Raises:
        NosuppError: The processor has no instruction for it.
        TypeError: *buffer* is read-only, or no buffer.
        BufferError: *buffer* is not C-contiguous.
    """
    with borrow(buffer, "buffer", writable=True) as memory, memory:
        rc = lib.guarded_publish_memory(memory, len(memory))
    raise_cache_error(rc, "publish")


def acquire(buffer: Buffer) -> None:
    """Drop a buffer from every cache of this host, changed lines written back first, as `Map.acquire` does.

    It is for memory that other code has mapped, such as an mmap; a slice of a memoryview is a part of it.

    Args:
        buffer: Any C-contiguous buffer.

    Raises:
        NosuppError: The processor has no instruction for it.
        TypeError: *buffer* is no buffer.
        BufferError: *buffer* is not C-contiguous.
    """
    with borrow(buffer, "buffer") as memory, memory:
        rc = lib.guarded_acquire_memory(memory, len(memory))
    raise_cache_error(rc, "acquire")


def raise_cache_error(rc: int, action: str) -> None:
    """Raise the exception of a failed call; x86-64 and ARM have none."""
    if rc:  # pragma: no cover: nox -s tests-debian, on riscv64
        raise error_from_rc(rc, f"guarded_{action}_memory", f"cannot {action} a buffer", hints=CACHE_HINTS)
