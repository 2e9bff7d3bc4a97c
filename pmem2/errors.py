# SPDX-License-Identifier: BSD-3-Clause
"""The exceptions of libpmem2: one class for each of its codes."""

from __future__ import annotations

import errno
from typing import Optional, Union

from pmem2._enums import ErrorCode


class Pmem2Error(OSError):
    """A call of libpmem2 failed with one of the library's own codes.

    Attributes:
        code: The `ErrorCode`, or the bare number if this build does not know it.
        errno: The number that libpmem2 maps the code to: `ENOTSUP` for `NOSUPP`, `EINVAL` for all others.
        strerror: A sentence that says what was asked for, what was found and what to do.
        function: The C function that failed.
    """

    code: Union[ErrorCode, int]
    function: str

    def __init__(self, code: Union[ErrorCode, int], strerror: str, function: str) -> None:
        """Make the error for a *code* that the C *function* returned."""
        number = errno.ENOTSUP if code == ErrorCode.NOSUPP else errno.EINVAL
        super().__init__(number, strerror)
        self.code = code
        self.function = function

    def __reduce__(self) -> tuple[type[Pmem2Error], tuple[Union[ErrorCode, int], Optional[str], str]]:
        """Pickle by the arguments of `__init__`."""
        return type(self), (self.code, self.strerror, self.function)


class UnknownError(Pmem2Error):
    """libpmem2 does not know what failed."""


class NosuppError(Pmem2Error):
    """The medium, the platform or this build of libpmem2 does not support it."""


class FileHandleNotSetError(Pmem2Error):
    """The source was not made from a Windows handle."""


class InvalidFileHandleError(Pmem2Error):
    """The descriptor or handle is closed, not of a file, or open for writing only."""


class InvalidFileTypeError(Pmem2Error):
    """The file is neither a regular file nor a DAX device."""


class MapRangeError(Pmem2Error):
    """The range to map lies outside the source."""


class MappingExistsError(Pmem2Error):
    """Something is already mapped at this address."""


class GranularityNotSetError(Pmem2Error):
    """The Config requires no granularity."""


class GranularityNotSupportedError(Pmem2Error):
    """The source cannot give the granularity that the Config requires."""


class OffsetOutOfRangeError(Pmem2Error):
    """The offset is larger than any file."""


class OffsetUnalignedError(Pmem2Error):
    """The offset is not a multiple of the alignment of the source."""


class InvalidAlignmentFormatError(Pmem2Error):
    """The kernel reports an invalid alignment of the DAX device."""


class InvalidAlignmentValueError(Pmem2Error):
    """The alignment of a DAX device is not a power of two."""


class InvalidSizeFormatError(Pmem2Error):
    """The kernel reports an invalid size of the DAX device."""


class LengthUnalignedError(Pmem2Error):
    """The length is not a multiple of the alignment of the source."""


class MappingNotFoundError(Pmem2Error):
    """Nothing is mapped in this range."""


class BufferTooSmallError(Pmem2Error):
    """The buffer is too small for the device id."""


class SourceEmptyError(Pmem2Error):
    """The source has no bytes to map."""


class InvalidSharingValueError(Pmem2Error):
    """The number is not a Sharing."""


class SrcDevdaxPrivateError(Pmem2Error):
    """A DAX device cannot be mapped PRIVATE."""


class InvalidAddressRequestTypeError(Pmem2Error):
    """The code is from libpmem2 1.9; no later release returns it."""


class AddressUnalignedError(Pmem2Error):
    """The address is not a multiple of the alignment."""


class AddressNullError(Pmem2Error):
    """The code is from libpmem2 1.9; no later release returns it."""


class DeepFlushRangeError(Pmem2Error):
    """The range to deep-flush lies outside the mapping."""


class InvalidRegionFormatError(Pmem2Error):
    """The kernel reports an invalid region of the DAX device."""


class DaxRegionNotFoundError(Pmem2Error):
    """No region of persistent memory backs the source."""


class InvalidDevFormatError(Pmem2Error):
    """The kernel reports an invalid device number."""


class CannotReadBoundsError(Pmem2Error):
    """The bounds of the namespace cannot be read, often because permission is missing."""


class NoBadBlockFoundError(Pmem2Error):
    """There are no more bad blocks."""


class LengthOutOfRangeError(Pmem2Error):
    """The range lies outside the source or the reservation."""


class InvalidProtFlagError(Pmem2Error):
    """The number is not a Protection."""


class NoAccessError(Pmem2Error):
    """The descriptor or the file system does not allow the protection."""


class VmReservationNotEmptyError(Pmem2Error):
    """The reservation still holds mappings."""


class MapExistsError(Pmem2Error):
    """The memory already belongs to another Map."""


class FileDescriptorNotSetError(Pmem2Error):
    """The source was not made from a descriptor."""


class SourceTypeNotSupportedError(Pmem2Error):
    """The operation needs a file or a device; the source is anonymous."""


class IoFailError(Pmem2Error):
    """The medium has a bad block that could not be read or written."""


BY_CODE: dict[int, type[Pmem2Error]] = {
    ErrorCode.UNKNOWN: UnknownError,
    ErrorCode.NOSUPP: NosuppError,
    ErrorCode.FILE_HANDLE_NOT_SET: FileHandleNotSetError,
    ErrorCode.INVALID_FILE_HANDLE: InvalidFileHandleError,
    ErrorCode.INVALID_FILE_TYPE: InvalidFileTypeError,
    ErrorCode.MAP_RANGE: MapRangeError,
    ErrorCode.MAPPING_EXISTS: MappingExistsError,
    ErrorCode.GRANULARITY_NOT_SET: GranularityNotSetError,
    ErrorCode.GRANULARITY_NOT_SUPPORTED: GranularityNotSupportedError,
    ErrorCode.OFFSET_OUT_OF_RANGE: OffsetOutOfRangeError,
    ErrorCode.OFFSET_UNALIGNED: OffsetUnalignedError,
    ErrorCode.INVALID_ALIGNMENT_FORMAT: InvalidAlignmentFormatError,
    ErrorCode.INVALID_ALIGNMENT_VALUE: InvalidAlignmentValueError,
    ErrorCode.INVALID_SIZE_FORMAT: InvalidSizeFormatError,
    ErrorCode.LENGTH_UNALIGNED: LengthUnalignedError,
    ErrorCode.MAPPING_NOT_FOUND: MappingNotFoundError,
    ErrorCode.BUFFER_TOO_SMALL: BufferTooSmallError,
    ErrorCode.SOURCE_EMPTY: SourceEmptyError,
    ErrorCode.INVALID_SHARING_VALUE: InvalidSharingValueError,
    ErrorCode.SRC_DEVDAX_PRIVATE: SrcDevdaxPrivateError,
    ErrorCode.INVALID_ADDRESS_REQUEST_TYPE: InvalidAddressRequestTypeError,
    ErrorCode.ADDRESS_UNALIGNED: AddressUnalignedError,
    ErrorCode.ADDRESS_NULL: AddressNullError,
    ErrorCode.DEEP_FLUSH_RANGE: DeepFlushRangeError,
    ErrorCode.INVALID_REGION_FORMAT: InvalidRegionFormatError,
    ErrorCode.DAX_REGION_NOT_FOUND: DaxRegionNotFoundError,
    ErrorCode.INVALID_DEV_FORMAT: InvalidDevFormatError,
    ErrorCode.CANNOT_READ_BOUNDS: CannotReadBoundsError,
    ErrorCode.NO_BAD_BLOCK_FOUND: NoBadBlockFoundError,
    ErrorCode.LENGTH_OUT_OF_RANGE: LengthOutOfRangeError,
    ErrorCode.INVALID_PROT_FLAG: InvalidProtFlagError,
    ErrorCode.NO_ACCESS: NoAccessError,
    ErrorCode.VM_RESERVATION_NOT_EMPTY: VmReservationNotEmptyError,
    ErrorCode.MAP_EXISTS: MapExistsError,
    ErrorCode.FILE_DESCRIPTOR_NOT_SET: FileDescriptorNotSetError,
    ErrorCode.SOURCE_TYPE_NOT_SUPPORTED: SourceTypeNotSupportedError,
    ErrorCode.IO_FAIL: IoFailError,
}
