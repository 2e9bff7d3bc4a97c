# SPDX-License-Identifier: BSD-3-Clause
"""Config: an immutable value that validates its fields."""

from __future__ import annotations

import copy
import pickle
from typing import Callable

import attrs
import pytest
from _pmem2 import lib
from support.values import PAGE, SIZE, Index, non_integers

import pmem2
from pmem2 import Config, ErrorCode, Granularity, Protection, Sharing, VMReservation

FIELDS = ("required_granularity", "offset", "length", "sharing", "protection", "reservation", "reservation_offset")
INTEGER_FIELDS: dict[str, Callable[[int], Config]] = {
    "required_granularity": lambda value: Config(required_granularity=value),  # type: ignore[arg-type]
    "offset": lambda value: Config(offset=value),
    "length": lambda value: Config(length=value),
    "sharing": lambda value: Config(sharing=value),  # type: ignore[arg-type]
    "protection": lambda value: Config(protection=value),  # type: ignore[arg-type]
    "reservation_offset": lambda value: Config(reservation_offset=value),
}
every_field = pytest.mark.parametrize("name", INTEGER_FIELDS)
not_a_member = pytest.mark.parametrize("outside", [-1, -(2**31), -(2**70), 17, 2**31 - 1, 2**32, 2**63, 2**64, 2**70])


# ---- a value


def test_defaults() -> None:
    """A default Config requires PAGE and maps the whole source SHARED."""
    config = Config()
    assert config.required_granularity is Granularity.PAGE
    assert config.offset == 0
    assert config.length is None
    assert config.sharing is Sharing.SHARED
    assert config.protection is None
    assert config.reservation is None
    assert config.reservation_offset == 0


def test_fields() -> None:
    """Config is an attrs class with these fields."""
    assert tuple(field.name for field in attrs.fields(Config)) == FIELDS


def test_keyword_only() -> None:
    """A positional argument raises TypeError."""
    with pytest.raises(TypeError):
        Config(Granularity.PAGE)  # type: ignore[call-arg] # wrong on purpose


def test_unknown_keyword() -> None:
    """An unknown keyword raises TypeError."""
    with pytest.raises(TypeError):
        Config(size=1)  # type: ignore[call-arg] # wrong on purpose


@pytest.mark.parametrize("name", FIELDS)
def test_frozen(name: str) -> None:
    """Fields cannot be set or deleted, and attributes cannot be added."""
    config = Config()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(config, name, None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        delattr(config, name)
    with pytest.raises(AttributeError):
        setattr(config, f"{name}_", None)
    assert config == Config()


def test_equal_and_hashable() -> None:
    """Configs with equal values are equal and have equal hashes, also if an enum was passed as an int."""
    one = Config(required_granularity=Granularity.BYTE, offset=PAGE, sharing=Sharing.PRIVATE)
    two = Config(required_granularity=0, offset=Index(PAGE), sharing=1)  # type: ignore[arg-type]
    assert one == two
    assert hash(one) == hash(two)
    assert {one: "found"}[two] == "found"


DIFFERENT = [
    Config(required_granularity=None),
    Config(offset=1),
    Config(length=1),
    Config(sharing=Sharing.PRIVATE),
    Config(protection=Protection.READ),
    Config(reservation_offset=1),
]


@pytest.mark.parametrize("other", DIFFERENT)
def test_unequal(other: Config) -> None:
    """Configs that differ in one field are unequal, and a Config is unequal to any other type."""
    assert other != Config()
    values: object = attrs.astuple(other)
    assert other != values
    assert len({other, Config(), other}) == 2


def test_evolve() -> None:
    """`attrs.evolve` returns a new Config, converts and validates its arguments, and leaves the original unchanged."""
    config = Config(offset=PAGE)
    evolved = attrs.evolve(config, required_granularity=1, length=3 * PAGE)  # type: ignore[arg-type]
    assert evolved == Config(required_granularity=Granularity.CACHE_LINE, offset=PAGE, length=3 * PAGE)
    assert evolved.required_granularity is Granularity.CACHE_LINE
    assert config == Config(offset=PAGE)
    with pytest.raises(ValueError, match="length"):
        attrs.evolve(config, length=0)


def test_pickle() -> None:
    """A pickled Config is equal to the original, in every protocol, and its enums are enums."""
    config = Config(required_granularity=Granularity.BYTE, offset=PAGE, length=PAGE, protection=Protection.READ)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for original in (config, Config(), Config(required_granularity=None, sharing=Sharing.PRIVATE)):
            copied = pickle.loads(pickle.dumps(original, protocol))
            assert (copied, hash(copied), repr(copied)) == (original, hash(original), repr(original))
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                copied.offset = 0
    assert copy.deepcopy(config) == config


def test_pickle_with_reservation() -> None:
    """A Config with a reservation cannot be pickled or deep-copied, and the error says what to do."""
    with VMReservation(2 * PAGE) as reservation:
        config = Config(reservation=reservation)
        assert copy.copy(config) == config
        for duplicate in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="VMReservation: its addresses belong to this process"):
                duplicate(config)


# ---- valid fields


@pytest.mark.parametrize("granularity", list(Granularity))
def test_granularity_as_int(granularity: Granularity) -> None:
    """A plain int becomes the Granularity of that value."""
    assert Config(required_granularity=int(granularity)).required_granularity is granularity  # type: ignore[arg-type]


@pytest.mark.parametrize("sharing", list(Sharing))
def test_sharing_as_int(sharing: Sharing) -> None:
    """A plain int becomes the Sharing of that value."""
    assert Config(sharing=int(sharing)).sharing is sharing  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", range(8))
def test_protection_as_int(bits: int) -> None:
    """Every combination of READ, WRITE and EXEC becomes a Protection, a plain int too."""
    flags = (Protection.READ, Protection.WRITE, Protection.EXEC)
    expected = Protection.NONE
    for bit, flag in enumerate(flags):
        expected |= flag if bits >> bit & 1 else Protection.NONE
    protection = Config(protection=int(expected)).protection  # type: ignore[arg-type]
    assert protection == expected
    assert isinstance(protection, Protection)


@pytest.mark.parametrize("offset", [0, 1, PAGE, 2**63 - 1])
def test_offset(offset: int) -> None:
    """Every offset that a file can have is accepted and converted to int."""
    config = Config(offset=Index(offset))
    assert config.offset == offset
    assert type(config.offset) is int


@pytest.mark.parametrize("length", [1, PAGE, 2**63, 2**64 - 1])
def test_length(length: int) -> None:
    """Every length that fits 64 bits is accepted, because only the source decides whether it fits."""
    assert Config(length=Index(length)).length == length


def test_unset_granularity(source: pmem2.Source) -> None:
    """Mapping with required_granularity=None raises GranularityNotSetError."""
    config = Config(required_granularity=None)
    assert config.required_granularity is None
    with pytest.raises(pmem2.GranularityNotSetError) as caught:
        source.map(config)
    assert caught.value.code is ErrorCode.GRANULARITY_NOT_SET


# ---- invalid fields


@every_field
@non_integers
def test_field_of_wrong_type(name: str, wrong: int) -> None:
    """A bool, a float, a string or another non-integer raises TypeError in every integer field."""
    with pytest.raises(TypeError, match=name):
        INTEGER_FIELDS[name](wrong)


@pytest.mark.parametrize("name", ["offset", "sharing", "reservation_offset"])
def test_none_instead_of_integer(name: str) -> None:
    """None raises TypeError in fields where it has no meaning."""
    with pytest.raises(TypeError, match=name):
        INTEGER_FIELDS[name](None)  # type: ignore[arg-type] # wrong on purpose


@not_a_member
def test_unknown_granularity(outside: int) -> None:
    """A number outside Granularity raises the error of libpmem2's setter."""
    with pytest.raises(pmem2.GranularityNotSupportedError, match=str(outside)) as caught:
        Config(required_granularity=outside)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.GRANULARITY_NOT_SUPPORTED
    assert hasattr(lib, caught.value.function)


@not_a_member
def test_unknown_sharing(outside: int) -> None:
    """A number outside Sharing raises the error of libpmem2's setter."""
    with pytest.raises(pmem2.InvalidSharingValueError, match=str(outside)) as caught:
        Config(sharing=outside)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INVALID_SHARING_VALUE
    assert hasattr(lib, caught.value.function)


@pytest.mark.parametrize(
    "outside", [-1, -(2**31), -(2**70), 1, 7, int(Protection.READ) | 1, 2**28, 2**32, 2**63, 2**64, 2**70]
)
def test_unknown_protection(outside: int) -> None:
    """Bits outside Protection raise the error of libpmem2's setter."""
    with pytest.raises(pmem2.InvalidProtFlagError) as caught:
        Config(protection=outside)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INVALID_PROT_FLAG
    assert hasattr(lib, caught.value.function)


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1, 2**64, 2**70])
def test_offset_too_large(offset: int) -> None:
    """An offset of 2**63 or more raises the error of libpmem2's setter."""
    with pytest.raises(pmem2.OffsetOutOfRangeError, match=str(offset)) as caught:
        Config(offset=offset)
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert hasattr(lib, caught.value.function)


@pytest.mark.parametrize("name", ["offset", "length", "reservation_offset"])
@pytest.mark.parametrize("negative", [-1, -PAGE, -(2**63), -(2**70)])
def test_negative_field(name: str, negative: int) -> None:
    """A negative number raises ValueError."""
    with pytest.raises(ValueError, match=name):
        INTEGER_FIELDS[name](negative)


@pytest.mark.parametrize("name", ["length", "reservation_offset"])
@pytest.mark.parametrize("huge", [2**64, 2**70])
def test_field_too_large(name: str, huge: int) -> None:
    """A number that exceeds 64 bits raises ValueError."""
    with pytest.raises(ValueError, match=name):
        INTEGER_FIELDS[name](huge)


def test_length_zero() -> None:
    """A length of 0 raises ValueError."""
    with pytest.raises(ValueError, match="length"):
        Config(length=0)


# ---- reservations


@pytest.mark.parametrize("wrong", [0, 4096, "reservation", b"", object(), pmem2.VMReservation, True])
def test_reservation_of_wrong_type(wrong: pmem2.VMReservation) -> None:
    """A reservation that is not a VMReservation raises TypeError."""
    with pytest.raises(TypeError):
        Config(reservation=wrong)


def test_map_as_reservation(map: pmem2.Map) -> None:
    """A Map as the reservation raises TypeError."""
    with pytest.raises(TypeError):
        Config(reservation=map)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("offset", [0, 1, PAGE, 2 * PAGE])
def test_reservation(offset: int) -> None:
    """A Config keeps the reservation object, accepts any offset up to its end, and stays hashable."""
    with pmem2.VMReservation(2 * PAGE) as reservation:
        config = Config(reservation=reservation, reservation_offset=offset)
        assert config.reservation is reservation
        assert config.reservation_offset == offset
        assert hash(config) == hash(attrs.evolve(config))
        assert config == attrs.evolve(config)
        with pmem2.VMReservation(2 * PAGE) as other:
            assert config != attrs.evolve(config, reservation=other)


@pytest.mark.parametrize("offset", [2 * PAGE + 1, 3 * PAGE, 2**63, 2**64 - PAGE, 2**64 - 1, 2**64])
def test_past_reservation_end(offset: int) -> None:
    """An offset past the end of the reservation raises ValueError."""
    with pmem2.VMReservation(2 * PAGE) as reservation, pytest.raises(ValueError, match="reservation_offset"):
        Config(reservation=reservation, reservation_offset=offset)


def test_reservation_closed_later(source: pmem2.Source) -> None:
    """Mapping raises ValueError if the reservation was closed after the Config was made."""
    with pmem2.VMReservation(SIZE) as reservation:
        config = Config(reservation=reservation)
    with pytest.raises(ValueError, match="closed"):
        source.map(config)


def test_reservation_shrunk_later(source: pmem2.Source) -> None:
    """Mapping raises ValueError if the reservation was shrunk below the offset of the Config."""
    with pmem2.VMReservation(4 * PAGE) as reservation:
        config = Config(reservation=reservation, reservation_offset=3 * PAGE, length=PAGE)
        reservation.shrink(2 * PAGE, 2 * PAGE)
        with pytest.raises(ValueError, match=r"outside|beyond|past"):
            source.map(config)
