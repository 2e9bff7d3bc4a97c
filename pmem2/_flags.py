# SPDX-License-Identifier: BSD-3-Clause
"""Which flags of a copy go together: libpmem2 itself takes any, and some of them silently mean nothing."""

from __future__ import annotations

from typing import SupportsIndex

from pmem2._enums import MemFlag
from pmem2._numbers import integer

PLAIN = MemFlag(0)
EXCLUSIVE = (
    MemFlag.NONTEMPORAL | MemFlag.TEMPORAL,
    MemFlag.WC | MemFlag.WB,
    MemFlag.NONTEMPORAL | MemFlag.NOFLUSH,
    MemFlag.WC | MemFlag.NOFLUSH,
)
VALID_FLAGS = {
    flags for flags in range(sum(MemFlag) + 1) if not any(flags & int(both) == int(both) for both in EXCLUSIVE)
}


def mem_flags(value: SupportsIndex) -> int:
    """Return *value* as flags of a copy.

    Raises:
        TypeError: It is not an integer.
        ValueError: The flags exclude each other, or are unknown.
    """
    flags = integer(value, "flags")
    if flags not in VALID_FLAGS:
        raise ValueError(f"flags {flags:#x} exclude each other, or are unknown; combine MemFlag")
    return flags
