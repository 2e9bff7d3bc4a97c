# SPDX-License-Identifier: BSD-3-Clause
"""BadBlockContext: the unreadable parts of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import attrs

from pmem2._checks import check_type
from pmem2._enums import ErrorCode
from pmem2._error_map import error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._resource import NO_DESCRIPTORS, Resource, drop_attrs_init, own, retry_after_gc

if TYPE_CHECKING:
    from typing_extensions import Self

    from pmem2._ffi import BadBlocksHandle, SourceHandle


@final
@attrs.frozen()
class BadBlock:
    """A part of a source that cannot be read.

    Attributes:
        offset: Where it begins in the source, in bytes.
        length: Length in bytes.
    """

    offset: int
    length: int


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class BadBlockContext(Resource):
    """An iterator over the bad blocks of a source; made by `Source.bad_blocks`.

    It owns a descriptor and may outlive its source. See pmem2_badblock_context_new(3).
    """

    _COPY_HINT: ClassVar[str] = "pass the path, open it there, and call Source.bad_blocks()"

    _handle: BadBlocksHandle
    _seen: set[BadBlock]

    def __init__(self) -> None:
        """Refuse: a context belongs to a source.

        Raises:
            TypeError: Always.
        """
        raise TypeError("make a BadBlockContext with Source.bad_blocks()")

    @classmethod
    def _from_source(cls, source: SourceHandle, name: str) -> BadBlockContext:
        self = cls.__new__(cls)
        message = new_error_buffer()
        handle = own(lib.guarded_badblocks_alloc(), lib.guarded_badblocks_drop)
        rc = retry_after_gc(NO_DESCRIPTORS, lib.guarded_badblocks_new, handle, source, message)
        if rc:
            asked = f"cannot look for bad blocks in {name}"
            raise error_from_rc(rc, "pmem2_badblock_context_new", asked, message)
        self._handle = handle
        self._seen = set()
        return self

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return lib.guarded_badblocks_closed(self._handle) != 0

    def __iter__(self) -> Self:
        """Return the context itself, which iterates once."""
        return self

    def __next__(self) -> BadBlock:
        """Return the next bad block; see pmem2_badblock_next(3).

        Raises:
            StopIteration: There are no more.
            OSError: libndctl failed.
            ValueError: The context is closed.
        """
        message, found = new_error_buffer(), ffi.new("struct pmem2_badblock *")
        rc = lib.guarded_badblocks_next(self._handle, found, message)
        if rc == ErrorCode.NO_BAD_BLOCK_FOUND:
            raise StopIteration
        if rc:
            raise error_from_rc(rc, "pmem2_badblock_next", "cannot read the next bad block", message)
        block = BadBlock(found.offset, found.length)  # pragma: no cover: nox -s nvdimm
        self._seen.add(block)  # pragma: no cover: nox -s nvdimm
        return block  # pragma: no cover: nox -s nvdimm

    def clear(self, block: BadBlock) -> None:
        """Clear a bad block: its contents are lost, and it reads as zeros. See pmem2_badblock_clear(3).

        Args:
            block: A block that this context has returned: on an ordinary file libpmem2 would clear good data too.

        Raises:
            TypeError: *block* is no BadBlock.
            ValueError: This context has not returned it, or is closed.
            OSError: The source is read-only (EBADF), or the system refused.
        """
        check_type(block, BadBlock, "block")
        if self.closed:
            raise ValueError(f"cannot clear {block}: the context is closed")
        if block not in self._seen:
            raise ValueError(f"block must come from this context, got {block}; clearing it would destroy good data")
        message = new_error_buffer()  # pragma: no cover: nox -s nvdimm
        c_block = ffi.new("struct pmem2_badblock *", (block.offset, block.length))  # pragma: no cover: nox -s nvdimm
        rc = lib.guarded_badblocks_clear(self._handle, c_block, message)  # pragma: no cover: nox -s nvdimm
        if rc:  # pragma: no cover: nox -s nvdimm
            raise error_from_rc(rc, "pmem2_badblock_clear", f"cannot clear {block}", message)

    def close(self) -> None:
        """Free the context and its descriptor; see pmem2_badblock_context_delete(3)."""
        lib.guarded_badblocks_close(self._handle)

    def __repr__(self) -> str:
        """Return whether it is open."""
        return f"<pmem2.BadBlockContext{', closed' if self.closed else ''}>"
