# SPDX-License-Identifier: BSD-3-Clause
"""DAX devices that no NVDIMM region backs (CXL, soft-reserved memory): libndctl crashes on them, sysfs does not."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from pmem2._enums import ErrorCode
from pmem2._failure import library_error

if TYPE_CHECKING:
    from pathlib import Path

SYSFS: Union[str, os.PathLike[str]] = "/sys"


class DaxDevice(NamedTuple):
    """What sysfs tells of a DAX device: bytes, and a NUMA node."""

    size: int
    alignment: int
    numa_node: int


if sys.platform != "win32":  # pragma: no branch: Windows has none

    def unbacked_dax(fd: int) -> Optional[DaxDevice]:
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
            number(device / "size", ErrorCode.INVALID_SIZE_FORMAT),
            number(device / "align", ErrorCode.INVALID_ALIGNMENT_FORMAT),
            number(device / "numa_node", ErrorCode.DAX_REGION_NOT_FOUND),
        )


def number(attribute: Path, code: ErrorCode) -> int:
    """Return the number in a file of sysfs."""
    try:
        return int(attribute.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise library_error(code, "pmem2_source_from_fd", f"cannot read {attribute}", str(error)) from None
