# SPDX-License-Identifier: BSD-3-Clause
"""Return codes of C functions become exceptions here, with a hint that says what to do."""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import TYPE_CHECKING

from pmem2 import errors
from pmem2._enums import ErrorCode
from pmem2._ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmem2._ffi import CharArray

GUARD_ERRORS: dict[int, tuple[type[Exception], str]] = {
    lib.GUARD_CLOSED: (ValueError, "it is closed"),
    lib.GUARD_RANGE: (ValueError, "the range is outside"),
    lib.GUARD_UNREADABLE: (TypeError, "it was mapped without READ"),
    lib.GUARD_UNWRITABLE: (TypeError, "it was mapped without WRITE"),
    lib.GUARD_INACCESSIBLE: (TypeError, "it was mapped with neither READ nor WRITE"),
    lib.GUARD_UNALIGNED: (ValueError, "the address is not a multiple of 8"),
    lib.GUARD_BUSY: (
        BufferError,
        "an operation of it has not returned, in another thread or under this signal handler; close it after that",
    ),
    lib.GUARD_EXPORTED: (BufferError, "views or arrays of it are alive; release or delete them first"),
    lib.GUARD_WRONG_RESERVATION: (ValueError, "the map lies outside this reservation, or the reservation is closed"),
    lib.GUARD_OVERFLOW: (BufferError, "too many views or operations of it are alive at once"),
}

# Some failing paths of libpmem2 write no text; the buffer then still holds that of an earlier call.
CODES_WITHOUT_MESSAGE = {
    ErrorCode.INVALID_FILE_HANDLE,
    ErrorCode.INVALID_FILE_TYPE,
    ErrorCode.LENGTH_OUT_OF_RANGE,
    ErrorCode.NOSUPP,
    ErrorCode.NO_BAD_BLOCK_FOUND,
    ErrorCode.MAP_RANGE,
}

if sys.platform == "win32":
    CODES_WITHOUT_MESSAGE.add(ErrorCode.IO_FAIL)  # the guards read and write there, not libpmem2

# What each code means; not read from the docstrings of the exceptions, which python -OO removes.
MEANINGS: dict[int, str] = {
    ErrorCode.UNKNOWN: "libpmem2 does not know what failed",
    ErrorCode.NOSUPP: "the medium, the platform or this build of libpmem2 does not support it",
    ErrorCode.FILE_HANDLE_NOT_SET: "the source was not made from a Windows handle",
    ErrorCode.INVALID_FILE_HANDLE: "the descriptor or handle is closed, not of a file, or open for writing only",
    ErrorCode.INVALID_FILE_TYPE: "the file is neither a regular file nor a DAX device",
    ErrorCode.MAP_RANGE: "the range to map lies outside the source",
    ErrorCode.MAPPING_EXISTS: "something is already mapped at this address",
    ErrorCode.GRANULARITY_NOT_SET: "the Config requires no granularity",
    ErrorCode.GRANULARITY_NOT_SUPPORTED: "the source cannot give the granularity that the Config requires",
    ErrorCode.OFFSET_OUT_OF_RANGE: "the offset is larger than any file",
    ErrorCode.OFFSET_UNALIGNED: "the offset is not a multiple of the alignment of the source",
    ErrorCode.INVALID_ALIGNMENT_FORMAT: "the kernel reports an invalid alignment of the DAX device",
    ErrorCode.INVALID_ALIGNMENT_VALUE: "the alignment of a DAX device is not a power of two",
    ErrorCode.INVALID_SIZE_FORMAT: "the kernel reports an invalid size of the DAX device",
    ErrorCode.LENGTH_UNALIGNED: "the length is not a multiple of the alignment of the source",
    ErrorCode.MAPPING_NOT_FOUND: "nothing is mapped in this range",
    ErrorCode.BUFFER_TOO_SMALL: "the buffer is too small for the device id",
    ErrorCode.SOURCE_EMPTY: "the source has no bytes to map",
    ErrorCode.INVALID_SHARING_VALUE: "the number is not a Sharing",
    ErrorCode.SRC_DEVDAX_PRIVATE: "a DAX device cannot be mapped PRIVATE",
    ErrorCode.INVALID_ADDRESS_REQUEST_TYPE: "the code is from libpmem2 1.9; no later release returns it",
    ErrorCode.ADDRESS_UNALIGNED: "the address is not a multiple of the alignment",
    ErrorCode.ADDRESS_NULL: "the code is from libpmem2 1.9; no later release returns it",
    ErrorCode.DEEP_FLUSH_RANGE: "the range to deep-flush lies outside the mapping",
    ErrorCode.INVALID_REGION_FORMAT: "the kernel reports an invalid region of the DAX device",
    ErrorCode.DAX_REGION_NOT_FOUND: "no region of persistent memory backs the source",
    ErrorCode.INVALID_DEV_FORMAT: "the kernel reports an invalid device number",
    ErrorCode.CANNOT_READ_BOUNDS: "the bounds of the namespace cannot be read, often because permission is missing",
    ErrorCode.NO_BAD_BLOCK_FOUND: "there are no more bad blocks",
    ErrorCode.LENGTH_OUT_OF_RANGE: "the range lies outside the source or the reservation",
    ErrorCode.INVALID_PROT_FLAG: "the number is not a Protection",
    ErrorCode.NO_ACCESS: "the descriptor or the file system does not allow the protection",
    ErrorCode.VM_RESERVATION_NOT_EMPTY: "the reservation still holds mappings",
    ErrorCode.MAP_EXISTS: "the memory already belongs to another Map",
    ErrorCode.FILE_DESCRIPTOR_NOT_SET: "the source was not made from a descriptor",
    ErrorCode.SOURCE_TYPE_NOT_SUPPORTED: "the operation needs a file or a device; the source is anonymous",
    ErrorCode.IO_FAIL: "the medium has a bad block that could not be read or written",
}

HINTS: dict[int, str] = {
    ErrorCode.NOSUPP: "ordinary files and anonymous memory have no NVDIMM behind them",
    ErrorCode.INVALID_FILE_HANDLE: "pass a descriptor that is open for reading, or for reading and writing",
    ErrorCode.INVALID_FILE_TYPE: "pass a regular file or a DAX device",
    ErrorCode.MAP_RANGE: "choose an offset and a length inside the source, or make the file larger first",
    ErrorCode.MAPPING_EXISTS: "choose another address, or let the system choose one",
    ErrorCode.GRANULARITY_NOT_SET: "give the Config a required_granularity; PAGE accepts every medium",
    ErrorCode.OFFSET_OUT_OF_RANGE: "no file is larger than 2**63 - 1 bytes",
    ErrorCode.OFFSET_UNALIGNED: "use a multiple of Source.alignment",
    ErrorCode.LENGTH_UNALIGNED: "use a multiple of Source.alignment, or None for the rest of the source",
    ErrorCode.SOURCE_EMPTY: "give the file a size first; pmem2.open(path, 'w+', size=...) does",
    ErrorCode.INVALID_SHARING_VALUE: "use Sharing.SHARED or Sharing.PRIVATE",
    ErrorCode.INVALID_PROT_FLAG: "combine Protection.READ, WRITE and EXEC",
    ErrorCode.SRC_DEVDAX_PRIVATE: "map the device SHARED",
    ErrorCode.MAPPING_NOT_FOUND: "list(reservation) returns the maps that lie in it",
    ErrorCode.ADDRESS_UNALIGNED: "use a multiple of the page size, or of the device's alignment",
    ErrorCode.DAX_REGION_NOT_FOUND: "only files and devices on persistent memory have a region",
    ErrorCode.CANNOT_READ_BOUNDS: "run it as root, which most systems require",
    ErrorCode.LENGTH_OUT_OF_RANGE: "stay inside the source or the reservation",
    ErrorCode.NO_ACCESS: "open the file for reading and writing, or ask for protection=Protection.READ",
    ErrorCode.VM_RESERVATION_NOT_EMPTY: "close the maps in it first",
    ErrorCode.MAP_EXISTS: "close the other Map of that memory first",
    ErrorCode.FILE_HANDLE_NOT_SET: "only a source of a file on Windows has a handle",
    ErrorCode.FILE_DESCRIPTOR_NOT_SET: "only a source of a file has a descriptor, and no source on Windows",
    ErrorCode.SOURCE_TYPE_NOT_SUPPORTED: "make the source from a file or a device",
    ErrorCode.IO_FAIL: "the medium has a bad block there: see Source.bad_blocks()",
}

# errno texts that mislead here.
ERRNO_HINTS: dict[tuple[str, int], str] = {
    ("pmem2_source_pwrite_mcsafe", errno.EFAULT): (
        "; most likely the medium has a bad block there that the kernel cannot repair by writing: "
        "see Source.bad_blocks(), which can clear it"
    ),
    ("pmem2_source_pwrite_mcsafe", errno.EOPNOTSUPP): (
        "; the descriptor is open with O_APPEND, which ignores offsets, and opening the file again without it failed; "
        "it needs /proc"
    ),
    ("pmem2_source_pwrite_mcsafe", errno.EINVAL): "; hugetlbfs has no write(2): store through a map",
    ("pmem2_map_new", errno.ENODEV): (
        "; its file system does not let programs map it: procfs, sysfs, and FUSE with direct_io do not"
    ),
    ("pmem2_map_new", errno.EAGAIN): (
        "; the process has no pthread keys left for one more map: close some; or mlockall(2) is in force, and the "
        "RLIMIT_MEMLOCK too small"
    ),
    ("prefault", errno.EFAULT): "; the disk is full, the file was truncated, or the medium has a bad block there",
    ("pmem2_badblock_clear", errno.ENXIO): "; the platform cannot clear it: leave that part of the device unused",
}

# The C functions that make data durable. On a PAGE map, their first OSError is the map's last word.
DURABILITY_FUNCTIONS = {
    "pmem2_deep_flush",
    "pmem2_get_drain_fn",
    "pmem2_get_flush_fn",
    "pmem2_get_memcpy_fn",
    "pmem2_get_memset_fn",
    "pmem2_get_persist_fn",
}
WRITE_BACK_HINT = "; this map cannot make anything durable any more: write the data to a new file"
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
DESCRIPTOR_HINT = (
    "; a PAGE map opens its file again for this call and keeps that descriptor: close others or raise RLIMIT_NOFILE "
    "(ulimit -n), then make the call again"
)

CHAR_ARRAY = ffi.typeof("char[]")
MESSAGE_SIZE = lib.GUARD_MESSAGE_SIZE


class ThreadBuffer(threading.local):
    """Memory of one thread for libpmem2's error text. A new one for each call would be the collector's on PyPy."""

    def __init__(self) -> None:
        """Allocate it."""
        self.text = ffi.new(CHAR_ARRAY, MESSAGE_SIZE)


THREAD_BUFFER = ThreadBuffer()


def new_error_buffer() -> CharArray:
    """Return the empty buffer for libpmem2's error text of this thread's next call."""
    text = THREAD_BUFFER.text
    ffi.memmove(text, b"\0", 1)
    return text


def make_pmem2_error(code: int, function: str, asked: str, found: str, hint: str = "") -> errors.Pmem2Error:
    """Return the exception for one of libpmem2's own codes."""
    kind = errors.BY_CODE.get(code, errors.Pmem2Error)
    known = ErrorCode(code) if code in errors.BY_CODE else code
    text = f"{asked}: {found}; {hint}" if hint else f"{asked}: {found}"
    return kind(known, text, function)


def error_from_rc(
    rc: int, function: str, asked: str, message: CharArray | None = None, hints: Mapping[int, str] = HINTS
) -> Exception:
    """Return the exception for the return code of a C function.

    Args:
        rc: An error of a guard (positive), one of libpmem2's codes, or -errno.
        function: The C function.
        asked: What was asked for, as the beginning of a sentence.
        message: libpmem2's own text, copied on the thread that failed.
        hints: What to do about each code.
    """
    if rc > 0:
        kind, found = GUARD_ERRORS[rc]
        return kind(f"{asked}: {found}")
    if rc > ErrorCode.UNKNOWN:
        not_durable = DESCRIPTOR_HINT if -rc in NO_DESCRIPTOR else WRITE_BACK_HINT
        hint = not_durable if function in DURABILITY_FUNCTIONS else ERRNO_HINTS.get((function, -rc), "")
        return OSError(-rc, f"{asked}: {os.strerror(-rc)}{hint}")
    text = "" if message is None or rc in CODES_WITHOUT_MESSAGE else ffi.string(message).decode(errors="replace")
    meaning = MEANINGS.get(rc, "libpmem2 returned a code that this build does not know")
    return make_pmem2_error(rc, function, asked, text or meaning, hints.get(rc, ""))
