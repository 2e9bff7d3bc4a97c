# SPDX-License-Identifier: BSD-3-Clause
"""Persistent memory for Python: map a file or a DAX device, write to it, make the writes durable.

Map a `Source` as a `Config` says, and the result is a `Map`; `pmem2.open` takes all three steps at once:

    with pmem2.open("counter", "w+", size=4096) as m:
        m.store_u64(0, 42, persist=True)

Python bindings for PMDK's libpmem2; see libpmem2(7).
"""

from pmem2 import _ffi  # noqa: F401 # first: it explains a library that does not load
from pmem2 import errors as errors
from pmem2._badblocks import BadBlock, BadBlockContext
from pmem2._config import Config
from pmem2._dax_devices import DaxDevice, dax_devices
from pmem2._enums import ErrorCode, Granularity, MemFlag, Protection, Sharing
from pmem2._map import Map
from pmem2._open import open
from pmem2._reservation import VMReservation
from pmem2._shared_memory import acquire, publish
from pmem2._source import Source
from pmem2._version import __version__
from pmem2.errors import (
    AddressNullError,
    AddressUnalignedError,
    BufferTooSmallError,
    CannotReadBoundsError,
    DaxRegionNotFoundError,
    DeepFlushRangeError,
    FileDescriptorNotSetError,
    FileHandleNotSetError,
    GranularityNotSetError,
    GranularityNotSupportedError,
    InvalidAddressRequestTypeError,
    InvalidAlignmentFormatError,
    InvalidAlignmentValueError,
    InvalidDevFormatError,
    InvalidFileHandleError,
    InvalidFileTypeError,
    InvalidProtFlagError,
    InvalidRegionFormatError,
    InvalidSharingValueError,
    InvalidSizeFormatError,
    IoFailError,
    LengthOutOfRangeError,
    LengthUnalignedError,
    MapExistsError,
    MappingExistsError,
    MappingNotFoundError,
    MapRangeError,
    NoAccessError,
    NoBadBlockFoundError,
    NosuppError,
    OffsetOutOfRangeError,
    OffsetUnalignedError,
    Pmem2Error,
    SourceEmptyError,
    SourceTypeNotSupportedError,
    SrcDevdaxPrivateError,
    UnknownError,
    VmReservationNotEmptyError,
)

for public in (BadBlock, BadBlockContext, Config, DaxDevice, Map, Source, VMReservation):
    public.__module__ = __name__  # pickles and tracebacks name what users import
for function in (acquire, dax_devices, open, publish):
    function.__module__ = __name__
for enumeration in (ErrorCode, Granularity, MemFlag, Protection, Sharing):
    enumeration.__module__ = __name__
del public, function, enumeration

__all__ = [
    "AddressNullError",
    "AddressUnalignedError",
    "BadBlock",
    "BadBlockContext",
    "BufferTooSmallError",
    "CannotReadBoundsError",
    "Config",
    "DaxDevice",
    "DaxRegionNotFoundError",
    "DeepFlushRangeError",
    "ErrorCode",
    "FileDescriptorNotSetError",
    "FileHandleNotSetError",
    "Granularity",
    "GranularityNotSetError",
    "GranularityNotSupportedError",
    "InvalidAddressRequestTypeError",
    "InvalidAlignmentFormatError",
    "InvalidAlignmentValueError",
    "InvalidDevFormatError",
    "InvalidFileHandleError",
    "InvalidFileTypeError",
    "InvalidProtFlagError",
    "InvalidRegionFormatError",
    "InvalidSharingValueError",
    "InvalidSizeFormatError",
    "IoFailError",
    "LengthOutOfRangeError",
    "LengthUnalignedError",
    "Map",
    "MapExistsError",
    "MapRangeError",
    "MappingExistsError",
    "MappingNotFoundError",
    "MemFlag",
    "NoAccessError",
    "NoBadBlockFoundError",
    "NosuppError",
    "OffsetOutOfRangeError",
    "OffsetUnalignedError",
    "Pmem2Error",
    "Protection",
    "Sharing",
    "Source",
    "SourceEmptyError",
    "SourceTypeNotSupportedError",
    "SrcDevdaxPrivateError",
    "UnknownError",
    "VMReservation",
    "VmReservationNotEmptyError",
    "__version__",
    "acquire",
    "dax_devices",
    "open",
    "publish",
]
