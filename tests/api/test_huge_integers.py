# SPDX-License-Identifier: BSD-3-Clause
"""Integers of thousands of digits raise pmem2's own errors: Python refuses to convert them to decimal."""

from __future__ import annotations

from typing import Callable

import pytest

import pmem2

HUGE = 10**5000
CALLS: dict[str, tuple[type[Exception], Callable[[pmem2.Map, pmem2.Source, int], object]]] = {
    "index": (IndexError, lambda map, _source, huge: map[huge]),
    "granularity": (
        pmem2.GranularityNotSupportedError,
        lambda _map, _source, huge: pmem2.Config(required_granularity=huge),  # type: ignore[arg-type]
    ),
    "existing": (ValueError, lambda _map, source, huge: pmem2.Map.from_existing(source, bytearray(8), huge)),  # type: ignore[arg-type]
    "sharing": (pmem2.InvalidSharingValueError, lambda _map, _source, huge: pmem2.Config(sharing=huge)),  # type: ignore[arg-type]
    "protection": (pmem2.InvalidProtFlagError, lambda _map, _source, huge: pmem2.Config(protection=huge)),  # type: ignore[arg-type]
    "descriptor": (pmem2.InvalidFileHandleError, lambda _map, _source, huge: pmem2.Source.from_fd(huge)),
    "length": (ValueError, lambda _map, _source, huge: pmem2.Config(length=huge)),
    "anonymous": (ValueError, lambda _map, _source, huge: pmem2.Source.from_anon(huge)),
    "reservation": (ValueError, lambda _map, _source, huge: pmem2.VMReservation(huge)),
    "persist": (ValueError, lambda map, _source, huge: map.persist(huge, 1)),
    "memset": (ValueError, lambda map, _source, huge: map.memset(0, huge, 1)),
    "memcpy": (ValueError, lambda map, _source, huge: map.memcpy(huge, b"")),
    "delta": (ValueError, lambda map, _source, huge: map.fetch_add_u64(0, huge)),
    "flags": (ValueError, lambda map, _source, huge: map.memcpy(0, b"", huge)),  # type: ignore[arg-type]
    "ranges": (ValueError, lambda map, _source, huge: map.persist_many([(0, 1), (huge, 1)])),
    "array": (ValueError, lambda map, _source, huge: map.as_array("u1", huge)),
    "read": (ValueError, lambda _map, source, huge: source.pread_mcsafe(huge)),
}


@pytest.mark.parametrize("huge", [HUGE, -HUGE], ids=["huge", "negative"])
@pytest.mark.parametrize("name", CALLS)
def test_error_of_huge_integer(map: pmem2.Map, source: pmem2.Source, name: str, huge: int) -> None:
    """A huge integer raises the same exception as any other number out of range, with pmem2's own text."""
    if name == "array":
        pytest.importorskip("numpy")
    error, call = CALLS[name]
    with pytest.raises(error) as caught:
        call(map, source, huge)
    assert "digits" not in str(caught.value)  # Python's own error: "Exceeds the limit (4300 digits)"


def test_config_offset_of_thousands_digits() -> None:
    """A huge Config offset raises libpmem2's error, and a negative one raises ValueError."""
    with pytest.raises(pmem2.OffsetOutOfRangeError, match=r"offset.* 0x[0-9a-f]{4000,}"):
        pmem2.Config(offset=HUGE)
    with pytest.raises(ValueError, match="offset"):
        pmem2.Config(offset=-HUGE)
