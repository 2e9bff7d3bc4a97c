# SPDX-License-Identifier: BSD-3-Clause
"""Config: how a source is to be mapped."""

from __future__ import annotations

from typing import Optional, SupportsIndex, final

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_int, as_size, int_repr
from pmem2._enums import ErrorCode, Granularity, Protection, Sharing
from pmem2._error_map import HINTS, make_pmem2_error
from pmem2._reservation import VMReservation

EVERY_PROTECTION = Protection.READ | Protection.WRITE | Protection.EXEC


def config_error(code: ErrorCode, setter: str, found: str) -> Exception:
    """Return what the setter of libpmem2 would have raised."""
    return make_pmem2_error(code, f"pmem2_config_set_{setter}", "cannot make this Config", found, HINTS.get(code, ""))


def granularity(value: SupportsIndex | None) -> Granularity | None:
    """Convert what a caller gave as a granularity; `None` stays unset."""
    if value is None:
        return None
    number = as_int(value, "required_granularity")
    try:
        return Granularity(number)
    except ValueError:
        raise config_error(
            ErrorCode.GRANULARITY_NOT_SUPPORTED,
            "required_store_granularity",
            f"{int_repr(number)} is no granularity; use Granularity.BYTE, CACHE_LINE or PAGE",
        ) from None


def sharing(value: SupportsIndex) -> Sharing:
    """Convert what a caller gave as a sharing."""
    number = as_int(value, "sharing")
    try:
        return Sharing(number)
    except ValueError:
        raise config_error(ErrorCode.INVALID_SHARING_VALUE, "sharing", f"{int_repr(number)} is no sharing") from None


def protection(value: SupportsIndex | None) -> Protection | None:
    """Convert what a caller gave as a protection; `None` stays open until mapping."""
    if value is None:
        return None
    number = as_int(value, "protection")
    if number & ~int(EVERY_PROTECTION):
        raise config_error(ErrorCode.INVALID_PROT_FLAG, "protection", f"{number:#x} is no protection")
    return Protection(number)


def offset(value: SupportsIndex) -> int:
    """Convert what a caller gave as an offset."""
    number = as_int(value, "offset")
    if number > FILE_SIZE_MAX:
        raise config_error(ErrorCode.OFFSET_OUT_OF_RANGE, "offset", f"the offset {int_repr(number)} is beyond any file")
    return as_size(number, "offset")


def length(value: SupportsIndex | None) -> int | None:
    """Convert what a caller gave as a length; `None` is the rest of the source."""
    if value is None:
        return None
    number = as_size(value, "length")
    if number == 0:
        raise ValueError("length must not be 0; None is the rest of the source")
    return number


def reservation_offset(value: SupportsIndex) -> int:
    """Convert what a caller gave as an offset into a reservation."""
    return as_size(value, "reservation_offset")


@final
@attrs.frozen(kw_only=True)
class Config:
    """How a source is to be mapped: a value, to be compared, hashed, and changed with `attrs.evolve`.

    What libpmem2's setters refuse is refused here; what depends on the source, when it is mapped.
    See pmem2_config_new(3) and the pages of its setters.

    Attributes:
        required_granularity: The coarsest `Granularity` that will do; the map gets the best there is. `None` leaves it
            unset, and mapping then fails.
        offset: Where in the source the map begins, in bytes; a multiple of its alignment.
        length: How long the map is, in bytes; `None` is to the end of the source.
        sharing: Whether stores reach the source.
        protection: What the map is for; `None` is what the descriptor allows.
        reservation: Where in memory to map; `None` lets the system choose.
        reservation_offset: Where in the reservation, in bytes.

    Raises:
        TypeError: A field of a wrong type.
        ValueError: A negative number, a number too large, a length of 0, a closed reservation, a reservation_offset
            past the end of the reservation.
        GranularityNotSupportedError: *required_granularity* is no granularity.
        OffsetOutOfRangeError: *offset* is 2**63 or more.
        InvalidSharingValueError: *sharing* is no sharing.
        InvalidProtFlagError: *protection* has other bits.
    """

    required_granularity: Optional[Granularity] = attrs.field(default=Granularity.PAGE, converter=granularity)
    offset: int = attrs.field(default=0, converter=offset)
    length: Optional[int] = attrs.field(default=None, converter=length)
    sharing: Sharing = attrs.field(default=Sharing.SHARED, converter=sharing)
    protection: Optional[Protection] = attrs.field(default=None, converter=protection)
    reservation: Optional[VMReservation] = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(VMReservation))
    )
    reservation_offset: int = attrs.field(default=0, converter=reservation_offset)

    def __attrs_post_init__(self) -> None:
        """Check what two fields decide together."""
        if self.reservation is not None and self.reservation_offset > self.reservation.size:
            raise ValueError(
                f"reservation_offset {self.reservation_offset} is past the end of the reservation, "
                f"which has {self.reservation.size} bytes"
            )
