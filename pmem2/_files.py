# SPDX-License-Identifier: BSD-3-Clause
"""The operating system's side of a source: descriptors, Windows handles, file allocation, sysfs."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from pmem2._enums import ErrorCode
from pmem2._error_map import make_pmem2_error
from pmem2._ffi import lib

if TYPE_CHECKING:
    from pathlib import Path

    if sys.platform == "win32":
        from pmem2._ffi import Pointer

        File = Pointer
    else:
        File = int

FD_RANGE = range(2**31)

if sys.platform == "win32":
    import msvcrt

    from pmem2._ffi import ffi

    HANDLE_RANGE = range(-(2**63), 2**64)
    # children do not inherit it
    OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT

    def os_file_from_fd(fd: int) -> File | None:
        """Return the handle of a descriptor, `None` if it has none.

        The C runtime that knows the descriptor is the interpreter's; that of libpmem2, often another one, would abort.
        """
        try:
            return os_file_from_handle(msvcrt.get_osfhandle(fd)) if fd in FD_RANGE else None
        except OSError:
            return None

    def os_file_from_handle(read_sysfs_int: int) -> File | None:
        """Return a handle that is given as a number, `None` if it can be none."""
        return ffi.cast("void *", read_sysfs_int) if read_sysfs_int in HANDLE_RANGE else None

else:
    # never blocks, is not inherited by children, and becomes nobody's terminal
    OPEN_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

    def os_file_from_fd(fd: int) -> File | None:
        """Return a descriptor, `None` if it can be none."""
        return fd if fd in FD_RANGE else None


def allocate(file: File, size: int, path: Union[str, bytes], offset: int = 0) -> None:
    """Give *size* bytes of a file disk space, from *offset* on, so that a store to them cannot fail."""
    code = lib.guarded_allocate(file, offset, size)
    if code:
        raise OSError(-code, f"cannot allocate {size} bytes: {os.strerror(-code)}", path)


SYSFS: Union[str, os.PathLike[str]] = "/sys"


class DaxDevice(NamedTuple):
    """What sysfs tells of a DAX device: bytes, and a NUMA node."""

    size: int
    alignment: int
    numa_node: int


if sys.platform != "win32":  # pragma: no branch: Windows has none

    def dax_device_without_nvdimm(fd: int) -> Optional[DaxDevice]:
        """Return the device behind *fd* if it is a DAX device outside every NVDIMM bus, else `None`.

        Raises:
            InvalidSizeFormatError: The kernel tells no size.
            InvalidAlignmentFormatError: The kernel tells no alignment.
            DaxRegionNotFoundError: The kernel tells no NUMA node.
        """
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode):
            return None
        from pathlib import Path  # which takes a tenth of the time of importing all of pmem2

        device = (Path(SYSFS) / "dev" / "char" / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve()
        if (device / "subsystem").resolve().name != "dax" or any(part.startswith("ndbus") for part in device.parts):
            return None
        return DaxDevice(
            read_sysfs_int(device / "size", ErrorCode.INVALID_SIZE_FORMAT),
            read_sysfs_int(device / "align", ErrorCode.INVALID_ALIGNMENT_FORMAT),
            read_sysfs_int(device / "numa_node", ErrorCode.DAX_REGION_NOT_FOUND),
        )


def read_sysfs_int(attribute: Path, code: ErrorCode) -> int:
    """Return the number in a file of sysfs."""
    try:
        return int(attribute.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise make_pmem2_error(code, "pmem2_source_from_fd", f"cannot read {attribute}", str(error)) from None
