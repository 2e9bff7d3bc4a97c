# SPDX-License-Identifier: BSD-3-Clause
"""The operating system's side of a source: descriptors, Windows handles, file allocation, sysfs."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Union

from pmem2._enums import ErrorCode
from pmem2._error_map import make_pmem2_error
from pmem2._ffi import ffi, lib

if TYPE_CHECKING:
    if sys.platform == "win32":
        from pmem2._ffi import Pointer

        File = Pointer
        NativePath = str
    else:
        File = int
        NativePath = bytes
    """An open file as libpmem2 takes it: a descriptor, on Windows the handle behind it."""

StrOrBytesPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
FD_RANGE = range(2**31)
SMALLEST_PIECE, FIRST_PIECE, LARGEST_PIECE = 64 * 1024, 1024 * 1024, 1024 * 1024 * 1024  # bytes
PIECE_TIME = 0.05  # seconds

if sys.platform == "win32":
    import msvcrt

    HANDLE_RANGE = range(-(2**63), 2**64)
    OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT

    def os_file_from_fd(fd: int) -> File | None:
        """Return the handle of a descriptor, `None` if it has none.

        Only the interpreter's C runtime knows the descriptor; that of libpmem2, often another one, would abort.
        """
        try:
            return os_file_from_handle(msvcrt.get_osfhandle(fd)) if fd in FD_RANGE else None
        except OSError:
            return None

    def os_file_from_handle(number: int) -> File | None:
        """Return the handle with this number, `None` if no handle can have it."""
        return ffi.cast("void *", number) if number in HANDLE_RANGE else None

else:
    # Opening never blocks, never makes a controlling terminal, and children do not inherit the descriptor.
    OPEN_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

    def os_file_from_fd(fd: int) -> File | None:
        """Return the descriptor, `None` if no descriptor can have this number."""
        return fd if fd in FD_RANGE else None


def zero(file: File, size: int, path: Union[str, bytes]) -> None:
    """Make the first *size* bytes of a file zero; they are allocated and stay so.

    Raises:
        OSError: The disk is full, and the file system copies on write: nothing has changed. Or the disk fails.
    """
    code = lib.guarded_zero(file, size)
    if code == -errno.EOPNOTSUPP:
        code = call_in_pieces(lib.guarded_write_zeros, file, 0, size)
    if code:
        raise OSError(-code, f"cannot clear {size} bytes: {os.strerror(-code)}", path)


def call_in_pieces(call: Callable[[File, int, int], int], file: File, offset: int, size: int) -> int:
    """Call *call* for one piece of a file after the other; return 0 or its first error.

    Signals wait for one piece only: a file system without fallocate writes to each block, which takes minutes.
    """
    end, piece = offset + size, FIRST_PIECE
    while offset < end:
        length, start = min(piece, end - offset), time.monotonic()
        code = call(file, offset, length)
        if code:
            return code
        offset += length
        fast = time.monotonic() - start < PIECE_TIME
        piece = min(2 * piece, LARGEST_PIECE) if fast else max(piece // 2, SMALLEST_PIECE)
    return 0


if sys.platform == "win32":

    def as_native_path(path: StrOrBytesPath) -> str:
        """Return *path* as C opens it."""
        return os.fsdecode(path)

else:

    def as_native_path(path: StrOrBytesPath) -> bytes:
        """Return *path* as C opens it."""
        return os.fsencode(path)


def allocate(file: File, size: int, path: Union[str, bytes], offset: int = 0) -> None:
    """Allocate *size* bytes of a file on disk, from *offset* on, so that a store to them cannot fail.

    Raises:
        OSError: The disk is full, or the file cannot have that size.
    """
    code = -errno.ENOSPC if lacks_space(file, size) else call_in_pieces(lib.guarded_allocate, file, offset, size)
    if code:
        raise OSError(-code, f"cannot allocate {size} bytes: {os.strerror(-code)}", path)


if sys.platform == "win32":

    def lacks_space(file: File, size: int) -> bool:
        """Return `False`: the system allocates all or nothing."""
        return False

else:

    def lacks_space(file: File, size: int) -> bool:
        """Return whether the disk has no room for *size* bytes, before an attempt in pieces fills it."""
        system = os.fstatvfs(file)
        return system.f_blocks > 0 and size - os.fstat(file).st_blocks * 512 > system.f_bfree * system.f_frsize


def sync_new_file(file: File, path: Union[str, bytes]) -> None:
    """Make a new file durable: its contents, its size and its directory entry.

    Raises:
        OSError: The disk is full, or fails.
    """
    folder = os.path.dirname(os.fsencode(os.path.realpath(path)))  # the path may be a link to the file
    code = lib.guarded_sync_new_file(file, folder)
    if code:  # pragma: no cover: in a child of tests/safety
        raise OSError(-code, f"cannot make the new file durable: {os.strerror(-code)}", path)


def truncate(file: File, size: int, path: Union[str, bytes]) -> None:
    """Set the size of a file.

    Raises:
        OSError: The file cannot have that size.
    """
    code = lib.guarded_truncate(file, size)
    if code:  # pragma: no cover: the file had that size before, or less is needed
        raise OSError(-code, f"cannot set the size to {size} bytes: {os.strerror(-code)}", path)


SYSFS: Union[str, os.PathLike[str]] = "/sys"


class DaxGeometry(NamedTuple):
    """A DAX device as sysfs describes it: size and alignment in bytes, and the NUMA node."""

    size: int
    alignment: int
    numa_node: int


if sys.platform != "win32":  # pragma: no branch: Windows has none

    def dax_device_without_nvdimm(fd: int) -> Optional[DaxGeometry]:
        """Return the DAX device behind *fd* if no NVDIMM region backs it (CXL memory), else `None`.

        libndctl crashes on such a device, so pmem2 reads sysfs itself.

        Raises:
            InvalidSizeFormatError: sysfs has no valid size.
            InvalidAlignmentFormatError: sysfs has no valid alignment.
            DaxRegionNotFoundError: sysfs has no valid NUMA node.
        """
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode):
            return None
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        device = os.path.realpath(os.path.join(SYSFS, "dev", "char", number))
        subsystem = os.path.basename(os.path.realpath(os.path.join(device, "subsystem")))
        if subsystem != "dax" or any(part.startswith("ndbus") for part in device.split(os.sep)):
            return None
        return DaxGeometry(
            read_sysfs_int(device, "size", ErrorCode.INVALID_SIZE_FORMAT),
            read_sysfs_int(device, "align", ErrorCode.INVALID_ALIGNMENT_FORMAT),
            read_sysfs_int(device, "numa_node", ErrorCode.DAX_REGION_NOT_FOUND),
        )


def read_sysfs_int(device: str, attribute: str, code: ErrorCode) -> int:
    """Return the number in a file of sysfs."""
    path = os.path.join(device, attribute)
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise make_pmem2_error(code, "pmem2_source_from_fd", f"cannot read {path}", str(error)) from None
