# SPDX-License-Identifier: BSD-3-Clause
"""Memory of the caller, lent to C for the length of one call, without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _pmem2 import ffi

from pmem2._lifetime import CPYTHON

if TYPE_CHECKING:
    from _pmem2 import Borrowed
    from typing_extensions import Buffer

BYTES = ffi.typeof("char[]")


def lend(data: Buffer, *, writable: bool = False) -> Borrowed:
    """Return the bytes of *data*, to be given back by `ffi.release` or by a `with` block, whatever happens meanwhile.

    (A borrowed buffer that is left to the garbage collector can crash CPython.)

    Raises:
        TypeError: *data* has no buffer, or a read-only one and it is to be *writable*.
        BufferError: *data* is not C-contiguous.
    """
    try:
        if not CPYTHON:  # pragma: no cover: PyPy lends what lies scattered too
            with memoryview(data) as view:  # PyPy 8 keeps a bytearray from being resized until it is released
                if not view.c_contiguous:
                    raise BufferError
        return ffi.from_buffer(BYTES, data, writable)
    except (BufferError, TypeError, ValueError):  # which of them it is depends on the kind of the buffer
        with memoryview(data) as view:
            if writable and view.readonly:
                raise TypeError("the buffer is read-only, and it is to be written") from None
        raise BufferError("the data must be C-contiguous; make a copy of it first") from None
