# SPDX-License-Identifier: BSD-3-Clause
"""Making the C map of a source, and the errors of a source that cannot be mapped."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, NamedTuple

from pmem2._checks import SIZE_MAX
from pmem2._enums import ErrorCode, Granularity
from pmem2._error_map import HINTS, error_from_rc, make_pmem2_error, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._granularity import granularity_error
from pmem2._resource import NO_DESCRIPTORS, own, retry_after_gc

if TYPE_CHECKING:
    from pmem2._ffi import CharArray, MapHandle, Null, ReservationHandle, SourceHandle

INSIDE_HINT = "choose an offset and a length inside the source"
NO_FLUSH_HINT = (
    "libpmem2 does not flush the caches of this processor, so that persist() would do nothing: use PAGE granularity, "
    "on DAX with PMEM2_FORCE_GRANULARITY=PAGE; a DAX device cannot be used"
)
MAP_HINTS = HINTS if lib.HAS_CACHE_FLUSH else {**HINTS, ErrorCode.NOSUPP: NO_FLUSH_HINT}


class MapRequest(NamedTuple):
    """How to map a source; the fields of the C struct `map_request`, in its order."""

    granularity: int
    forced: int
    offset: int
    length: int
    sharing: int
    protection: int
    reservation: ReservationHandle | Null
    reservation_offset: int


def alloc_map() -> MapHandle:
    """Return an empty C map; `ffi.gc` unmaps it at the latest when it is collected."""
    return own(lib.guarded_map_alloc(), lib.guarded_map_drop)


def create_map(handle: MapHandle, source: SourceHandle, request: MapRequest, name: str) -> None:
    """Map *source* into *handle*; *name* describes it in errors.

    Raises:
        Pmem2Error, OSError, ValueError: As `Map` says.
    """
    message = new_error_buffer()
    # Dropped maps that are not collected yet own pthread keys, descriptors, or a place in the reservation.
    refusals = *NO_DESCRIPTORS, -errno.EAGAIN, ErrorCode.MAPPING_EXISTS
    rc = retry_after_gc(refusals, map_new, handle, source, request, message)
    if rc:
        raise map_error(rc, source, request, name, message)


def map_new(handle: MapHandle, source: SourceHandle, request: MapRequest, message: CharArray) -> int:
    """Map *source* into *handle* and return C's return code."""
    return lib.guarded_map_new(handle, source, [request], message)  # cffi makes the struct on the stack


def map_error(rc: int, source: SourceHandle, request: MapRequest, name: str, message: CharArray) -> Exception:
    """Return why *source* cannot be mapped."""
    offset, length = request.offset, request.length
    what = f"{length} bytes at offset {offset}" if length else f"from offset {offset} to the end"
    asked = f"cannot map {what} of {name}"
    if rc == ErrorCode.GRANULARITY_NOT_SUPPORTED and request.granularity != lib.GUARD_GRANULARITY_UNSET:
        probe = alloc_map()
        coarsest = request._replace(granularity=Granularity.PAGE)
        if map_new(probe, source, coarsest, message) == 0:  # pragma: no branch: with a cache flush, it can be mapped
            lib.guarded_map_close(probe, 0, message)
            return granularity_error(asked, Granularity(request.granularity), Granularity(probe.granularity))
    if rc == ErrorCode.SOURCE_EMPTY and is_anonymous(source):
        return make_pmem2_error(rc, "pmem2_map_new", asked, "it has no bytes", "pass a larger size to Source.from_anon")
    if rc == ErrorCode.MAP_RANGE and lib.guarded_source_size(source, size := ffi.new("size_t *"), message) == 0:
        found = f"the range lies outside the {size[0]} bytes of the source"
        hint = INSIDE_HINT if is_anonymous(source) else HINTS[rc]
        return make_pmem2_error(rc, "pmem2_map_new", asked, found, hint)
    if sys.platform == "win32" and rc == ErrorCode.NOSUPP:
        return make_pmem2_error(rc, "pmem2_map_new", asked, "Windows has no memory like that", "add Protection.READ")
    if rc in (ErrorCode.OFFSET_UNALIGNED, ErrorCode.LENGTH_UNALIGNED) and source.dax_size:
        found = f"the alignment of the device is {source.dax_alignment} bytes"
        return make_pmem2_error(rc, "pmem2_map_new", asked, found, HINTS[rc])
    return error_from_rc(rc, "pmem2_map_new", asked, message, MAP_HINTS)


def is_anonymous(source: SourceHandle) -> bool:
    """Return whether *source* has no file: its descriptor, or on Windows its handle, is -1."""
    return int(ffi.cast("uintptr_t", source.file)) == SIZE_MAX
