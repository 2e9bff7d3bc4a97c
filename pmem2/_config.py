# SPDX-License-Identifier: BSD-3-Clause
"""Config: how to map a source, and the validation of its fields."""

from typing import Optional, SupportsIndex, final

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_int, as_size, int_repr
from pmem2._enums import ErrorCode, Granularity, Protection, Sharing
from pmem2._error_map import HINTS, make_pmem2_error
from pmem2._reservation import VMReservation

ALL_PROTECTION = Protection.READ | Protection.WRITE | Protection.EXEC


def config_error(code: ErrorCode, setter: str, found: str) -> Exception:
    """Return the error of the libpmem2 setter that refuses this value."""
    return make_pmem2_error(code, f"pmem2_config_set_{setter}", "invalid Config", found, HINTS.get(code, ""))


def to_granularity(value: Optional[Granularity]) -> Optional[Granularity]:
    """Convert a required granularity; `None` leaves it unset."""
    if value is None:
        return None
    number = as_int(value, "required_granularity")
    try:
        return Granularity(number)
    except ValueError:
        found = f"required_granularity must be Granularity.BYTE, CACHE_LINE or PAGE, got {int_repr(number)}"
        raise config_error(ErrorCode.GRANULARITY_NOT_SUPPORTED, "required_store_granularity", found) from None


def to_sharing(value: Sharing) -> Sharing:
    """Convert a sharing."""
    number = as_int(value, "sharing")
    try:
        return Sharing(number)
    except ValueError:
        found = f"sharing must be Sharing.SHARED or PRIVATE, got {int_repr(number)}"
        raise config_error(ErrorCode.INVALID_SHARING_VALUE, "sharing", found) from None


def to_protection(value: Optional[Protection]) -> Optional[Protection]:
    """Convert a protection; `None` stays open until mapping."""
    if value is None:
        return None
    number = as_int(value, "protection")
    if number & ~int(ALL_PROTECTION):
        found = f"protection must be a combination of Protection, got {number:#x}"
        raise config_error(ErrorCode.INVALID_PROT_FLAG, "protection", found)
    return Protection(number)


def to_offset(value: SupportsIndex) -> int:
    """Convert an offset in the source."""
    number = as_int(value, "offset")
    if number > FILE_SIZE_MAX:
        found = f"offset must be <= {FILE_SIZE_MAX}, got {int_repr(number)}"
        raise config_error(ErrorCode.OFFSET_OUT_OF_RANGE, "offset", found)
    return as_size(number, "offset")


def to_length(value: Optional[SupportsIndex]) -> Optional[int]:
    """Convert a length; `None` is the rest of the source."""
    if value is None:
        return None
    number = as_size(value, "length")
    if number == 0:
        raise ValueError("length must be >= 1, got 0; None maps to the end of the source")
    return number


def to_reservation_offset(value: SupportsIndex) -> int:
    """Convert an offset in the reservation."""
    return as_size(value, "reservation_offset")


@final
@attrs.frozen(kw_only=True)
class Config:
    """How to map a source: a value that can be compared, hashed, and changed with `attrs.evolve`.

    A value that libpmem2's setters refuse is refused here. The rest depends on the source and is checked when it is
    mapped. See pmem2_config_new(3) and the man pages of its setters.

    Attributes:
        required_granularity: The coarsest acceptable `Granularity`; the map gets the finest available. `None` leaves it
            unset, and mapping fails.
        offset: Where the map begins in the source, in bytes; a multiple of the source's alignment.
        length: Length of the map in bytes; `None` is to the end of the source.
        sharing: Whether stores reach the source.
        protection: What the map may be used for; `None` is what the descriptor allows.
        reservation: Where in memory to map; `None` lets the system choose.
        reservation_offset: Where in the reservation, in bytes.

    Raises:
        TypeError: A field has a wrong type.
        ValueError: A number is negative or too large, the length is 0, the reservation is closed, or
            *reservation_offset* is past its end.
        GranularityNotSupportedError: *required_granularity* is no granularity.
        OffsetOutOfRangeError: *offset* is 2**63 or more.
        InvalidSharingValueError: *sharing* is no sharing.
        InvalidProtFlagError: *protection* has other bits.
    """

    required_granularity: Optional[Granularity] = attrs.field(default=Granularity.PAGE, converter=to_granularity)
    offset: int = attrs.field(default=0, converter=to_offset)
    length: Optional[int] = attrs.field(default=None, converter=to_length)
    sharing: Sharing = attrs.field(default=Sharing.SHARED, converter=to_sharing)
    protection: Optional[Protection] = attrs.field(default=None, converter=to_protection)
    reservation: Optional[VMReservation] = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(VMReservation))
    )
    reservation_offset: int = attrs.field(default=0, converter=to_reservation_offset)

    def __attrs_post_init__(self) -> None:
        """Check the two fields that depend on each other."""
        if self.reservation is not None and self.reservation_offset > self.reservation.size:
            raise ValueError(
                f"reservation_offset must be <= {self.reservation.size}, the size of the reservation, "
                f"got {self.reservation_offset}"
            )
