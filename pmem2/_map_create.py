# SPDX-License-Identifier: BSD-3-Clause
"""How a source is mapped, and why it cannot be."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from pmem2._enums import ErrorCode, Granularity, Protection, Sharing
from pmem2._error_map import HINTS, error_from_rc, make_pmem2_error, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._granularity import granularity_error
from pmem2._resource import gc_collect, own

if TYPE_CHECKING:
    from pmem2._config import Config
    from pmem2._ffi import CharArray, MapHandle
    from pmem2._source import Source

READ_WRITE = Protection.READ | Protection.WRITE


def alloc_map() -> MapHandle:
    """Return room for a map; `ffi.gc` unmaps it at the latest when it is collected."""
    return own(lib.guarded_map_alloc(), lib.guarded_map_drop)


def create_map(source: Source, config: Config) -> MapHandle:
    """Return *source*, mapped as *config* says.

    Raises:
        Pmem2Error, OSError, ValueError: As `Map` says.
    """
    handle = alloc_map()
    message = new_error_buffer()
    rc = map_new(handle, source, config, config.required_granularity, message)
    if rc == -errno.EAGAIN:  # pragma: no cover: in a child, test_pitfalls
        gc_collect()  # maps that were dropped still have their pthread keys
        rc = map_new(handle, source, config, config.required_granularity, message)
    if rc:
        raise map_error(rc, source, config, message)
    return handle


def map_new(handle: MapHandle, source: Source, config: Config, required: Granularity | None, message: CharArray) -> int:
    """Map *source* as *config* says, but for the granularity; return what C returned."""
    protection = config.protection
    if protection is None:
        read_only = config.sharing is Sharing.SHARED and not source._handle.writable
        protection = Protection.READ if read_only else READ_WRITE
    request = (  # the fields of struct map_request, in order: positions are faster than names
        lib.GUARD_GRANULARITY_UNSET if required is None else required,
        config.offset,
        config.length or 0,
        config.sharing,
        protection,
        ffi.NULL if config.reservation is None else config.reservation._handle,
        config.reservation_offset,
    )
    return lib.guarded_map_new(handle, source._handle, ffi.new("struct map_request *", request), message)


def map_error(code: int, source: Source, config: Config, message: CharArray) -> Exception:
    """Return why *source* cannot be mapped as *config* says."""
    length = "everything" if config.length is None else f"{config.length} bytes"
    asked = f"cannot map {length} at {config.offset} of {source!r}"
    if code == ErrorCode.GRANULARITY_NOT_SUPPORTED and config.required_granularity is not None:
        probe = alloc_map()
        if map_new(probe, source, config, Granularity.PAGE, message) == 0:  # pragma: no branch: it can be mapped
            lib.guarded_map_close(probe, message)
            return granularity_error(asked, config.required_granularity, Granularity(probe.granularity))
    if sys.platform == "win32" and code == ErrorCode.NOSUPP:
        return make_pmem2_error(code, "pmem2_map_new", asked, "Windows has no memory like that", "add Protection.READ")
    if code in (ErrorCode.OFFSET_UNALIGNED, ErrorCode.LENGTH_UNALIGNED) and source._dax is not None:
        found = f"the device has an alignment of {source._dax.alignment} bytes"
        return make_pmem2_error(code, "pmem2_map_new", asked, found, HINTS[code])
    return error_from_rc(code, "pmem2_map_new", asked, message)
