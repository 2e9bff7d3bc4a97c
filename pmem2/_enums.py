# SPDX-License-Identifier: BSD-3-Clause
"""The constants of libpmem2.h under Python names; every value comes from the compiled module."""

from __future__ import annotations

import enum

from pmem2._ffi import lib


class Granularity(enum.IntEnum):
    """The unit in which stores become durable: the finer, the better; see libpmem2(7)."""

    BYTE = lib.PMEM2_GRANULARITY_BYTE
    """A store is durable once visible: the platform flushes its caches on power failure (eADR)."""
    CACHE_LINE = lib.PMEM2_GRANULARITY_CACHE_LINE
    """A store is durable once its cache line has been flushed and the flush drained."""
    PAGE = lib.PMEM2_GRANULARITY_PAGE
    """A store is durable once its page has been written back by the operating system (msync)."""


class Sharing(enum.IntEnum):
    """Whether stores through a mapping reach the source; see pmem2_config_set_sharing(3)."""

    SHARED = lib.PMEM2_SHARED
    """Stores reach the source and every other mapping of it."""
    PRIVATE = lib.PMEM2_PRIVATE
    """Copy on write: stores stay in this mapping and never reach the source."""


class Protection(enum.IntFlag):
    """The permitted uses of a mapping; see pmem2_config_set_protection(3)."""

    NONE = lib.PMEM2_PROT_NONE
    READ = lib.PMEM2_PROT_READ
    WRITE = lib.PMEM2_PROT_WRITE
    EXEC = lib.PMEM2_PROT_EXEC


class MemFlag(enum.IntFlag):
    """How a copy treats the caches; see pmem2_get_memcpy_fn(3)."""

    NODRAIN = lib.PMEM2_F_MEM_NODRAIN
    """Flush, but leave the drain to a later call."""
    NONTEMPORAL = lib.PMEM2_F_MEM_NONTEMPORAL
    """Store past the caches; best for large copies that are not read again soon."""
    TEMPORAL = lib.PMEM2_F_MEM_TEMPORAL
    """Store through the caches."""
    WC = lib.PMEM2_F_MEM_WC
    """Prefer write combining; a hint."""
    WB = lib.PMEM2_F_MEM_WB
    """Prefer write back; a hint."""
    NOFLUSH = lib.PMEM2_F_MEM_NOFLUSH
    """Only copy: neither flush nor drain."""


class ErrorCode(enum.IntEnum):
    """The codes of libpmem2, without their prefix `PMEM2_E_`; see libpmem2(7)."""

    UNKNOWN = lib.PMEM2_E_UNKNOWN
    NOSUPP = lib.PMEM2_E_NOSUPP
    FILE_HANDLE_NOT_SET = lib.PMEM2_E_FILE_HANDLE_NOT_SET
    INVALID_FILE_HANDLE = lib.PMEM2_E_INVALID_FILE_HANDLE
    INVALID_FILE_TYPE = lib.PMEM2_E_INVALID_FILE_TYPE
    MAP_RANGE = lib.PMEM2_E_MAP_RANGE
    MAPPING_EXISTS = lib.PMEM2_E_MAPPING_EXISTS
    GRANULARITY_NOT_SET = lib.PMEM2_E_GRANULARITY_NOT_SET
    GRANULARITY_NOT_SUPPORTED = lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED
    OFFSET_OUT_OF_RANGE = lib.PMEM2_E_OFFSET_OUT_OF_RANGE
    OFFSET_UNALIGNED = lib.PMEM2_E_OFFSET_UNALIGNED
    INVALID_ALIGNMENT_FORMAT = lib.PMEM2_E_INVALID_ALIGNMENT_FORMAT
    INVALID_ALIGNMENT_VALUE = lib.PMEM2_E_INVALID_ALIGNMENT_VALUE
    INVALID_SIZE_FORMAT = lib.PMEM2_E_INVALID_SIZE_FORMAT
    LENGTH_UNALIGNED = lib.PMEM2_E_LENGTH_UNALIGNED
    MAPPING_NOT_FOUND = lib.PMEM2_E_MAPPING_NOT_FOUND
    BUFFER_TOO_SMALL = lib.PMEM2_E_BUFFER_TOO_SMALL
    SOURCE_EMPTY = lib.PMEM2_E_SOURCE_EMPTY
    INVALID_SHARING_VALUE = lib.PMEM2_E_INVALID_SHARING_VALUE
    SRC_DEVDAX_PRIVATE = lib.PMEM2_E_SRC_DEVDAX_PRIVATE
    INVALID_ADDRESS_REQUEST_TYPE = lib.PMEM2_E_INVALID_ADDRESS_REQUEST_TYPE
    ADDRESS_UNALIGNED = lib.PMEM2_E_ADDRESS_UNALIGNED
    ADDRESS_NULL = lib.PMEM2_E_ADDRESS_NULL
    DEEP_FLUSH_RANGE = lib.PMEM2_E_DEEP_FLUSH_RANGE
    INVALID_REGION_FORMAT = lib.PMEM2_E_INVALID_REGION_FORMAT
    DAX_REGION_NOT_FOUND = lib.PMEM2_E_DAX_REGION_NOT_FOUND
    INVALID_DEV_FORMAT = lib.PMEM2_E_INVALID_DEV_FORMAT
    CANNOT_READ_BOUNDS = lib.PMEM2_E_CANNOT_READ_BOUNDS
    NO_BAD_BLOCK_FOUND = lib.PMEM2_E_NO_BAD_BLOCK_FOUND
    LENGTH_OUT_OF_RANGE = lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    INVALID_PROT_FLAG = lib.PMEM2_E_INVALID_PROT_FLAG
    NO_ACCESS = lib.PMEM2_E_NO_ACCESS
    VM_RESERVATION_NOT_EMPTY = lib.PMEM2_E_VM_RESERVATION_NOT_EMPTY
    MAP_EXISTS = lib.PMEM2_E_MAP_EXISTS
    FILE_DESCRIPTOR_NOT_SET = lib.PMEM2_E_FILE_DESCRIPTOR_NOT_SET
    SOURCE_TYPE_NOT_SUPPORTED = lib.PMEM2_E_SOURCE_TYPE_NOT_SUPPORTED
    IO_FAIL = lib.PMEM2_E_IO_FAIL
