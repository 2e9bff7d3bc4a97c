# SPDX-License-Identifier: BSD-3-Clause
"""Source: the file, device or anonymous memory to map."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Protocol, SupportsIndex, final

import attrs

from pmem2._badblocks import BadBlockContext
from pmem2._buffers import borrow
from pmem2._checks import as_int, as_size, int_repr, is_index
from pmem2._config import Config
from pmem2._enums import ErrorCode
from pmem2._error_map import HINTS, error_from_rc, make_pmem2_error, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._files import OPEN_FLAGS, DaxGeometry, StrOrBytesPath, as_native_path, os_file_from_fd
from pmem2._resource import NO_DESCRIPTORS, Resource, drop_attrs_init, own, retry_after_gc

if sys.platform == "win32":
    from pmem2._files import os_file_from_handle
else:
    from pmem2._files import dax_device_without_nvdimm

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pmem2._ffi import CharArray, SourceHandle
    from pmem2._files import File, NativePath
    from pmem2._map import Map


class HasFileno(Protocol):
    """A file, a socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class Source(Resource):
    """A file, a DAX device, or anonymous memory that can be mapped.

    Make it with `Source.from_path`, `Source.from_fd` or `Source.from_anon`, on Windows also with `Source.from_handle`.
    It owns a duplicate of the descriptor or handle: closing or reusing the caller's changes nothing. Maps do not need
    their source. See pmem2_source_from_fd(3).
    """

    _handle: SourceHandle
    _name: str
    _dax: DaxGeometry | None

    def __init__(self) -> None:
        """Refuse: a classmethod makes each kind of source.

        Raises:
            TypeError: Always.
        """
        raise TypeError("make a Source with Source.from_path, Source.from_fd or Source.from_anon")

    @classmethod
    def _new(cls, name: str) -> Source:
        self = cls.__new__(cls)
        self._name = name
        self._dax = None
        return self

    @classmethod
    def from_fd(cls, fd: SupportsIndex | HasFileno) -> Source:
        """Make a source from a descriptor that is open for reading, or for reading and writing.

        Args:
            fd: A descriptor, or an object with `fileno()`. The caller may close it afterwards.

        Raises:
            TypeError: *fd* is neither.
            InvalidFileHandleError: It is negative, too large, closed, or open for writing only.
            InvalidFileTypeError: It is neither a regular file nor a DAX device.
            OSError: There are no descriptors left.

        See pmem2_source_from_fd(3).
        """
        number = as_int(fd if is_index(fd) else fileno_of(fd), "fd")
        name = f"descriptor {int_repr(number)}"
        return cls._from_file(os_file_from_fd(number), "pmem2_source_from_fd", name)

    @classmethod
    def _from_file(cls, file: File | None, function: str, name: str) -> Source:
        self = cls._new(name)
        message = new_error_buffer()
        handle = alloc_source()
        rc: int = ErrorCode.INVALID_FILE_HANDLE
        try:
            if file is not None:
                rc = retry_after_gc(NO_DESCRIPTORS, lib.guarded_source_from_file, handle, file, message)
            return self._finish(handle, rc, function, message)
        except BaseException:
            lib.guarded_source_close(handle)
            raise

    @classmethod
    def from_path(cls, path: StrOrBytesPath, *, writable: bool = True) -> Source:
        """Make a source from the path of a regular file or of a DAX device.

        Opening never blocks, and children do not inherit the descriptor.

        Args:
            path: An existing file.
            writable: Whether to open it for writing too.

        Raises:
            TypeError: *path* is no path.
            InvalidFileTypeError: *path* is neither a regular file nor a DAX device.
            OSError: The file cannot be opened.
            ValueError: *path* contains a NUL.
        """
        name = repr(os.fspath(path))
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            code = ErrorCode.INVALID_FILE_TYPE
            asked = f"cannot make a source from {name}"
            found = "it is neither a regular file nor a DAX device"
            raise make_pmem2_error(code, "pmem2_source_from_fd", asked, found, HINTS[code])
        return cls._open(path, os.O_RDWR if writable else os.O_RDONLY)

    @classmethod
    def _open(cls, path: StrOrBytesPath, flags: int, name: str = "") -> Source:
        """Open a file in C, so that something owns the descriptor from its first moment.

        With `os.O_EXCL` the file is new, and is removed again unless `close` is called.
        """
        self = cls._new(name or repr(os.fspath(path)))
        if b"\0" in os.fsencode(path):
            raise ValueError("path must not contain a NUL")
        message, handle, native_path = new_error_buffer(), alloc_source(), as_native_path(path)
        try:
            rc = open_source(handle, native_path, flags | OPEN_FLAGS, message)
            if ErrorCode.UNKNOWN < rc < 0:
                raise OSError(-rc, os.strerror(-rc), os.fspath(path))
            return self._finish(handle, rc, "pmem2_source_from_fd", message)
        except BaseException:
            lib.guarded_source_discard(handle)
            raise

    def _finish(self, handle: SourceHandle, rc: int, function: str, message: CharArray) -> Source:
        """Return the source with its *handle*, or raise the error of making it."""
        if rc:
            raise error_from_rc(rc, function, f"cannot make a source from {self._name}", message)
        if sys.platform != "win32":  # pragma: no branch: which has no DAX devices
            self._dax = dax_device_without_nvdimm(handle.file)
        if self._dax is not None:
            handle.dax_size, handle.dax_alignment, _ = self._dax
        self._handle = handle
        return self

    @classmethod
    def from_anon(cls, size: SupportsIndex) -> Source:
        """Make a source of anonymous memory: each map starts zero-filled, and nothing in it is ever durable.

        Args:
            size: Bytes.

        Raises:
            TypeError: *size* is not an integer.
            ValueError: *size* is negative or too large.

        See pmem2_source_from_anon(3).
        """
        number = as_size(size, "size")
        self = cls._new(f"{number} bytes of anonymous memory")
        message = new_error_buffer()
        handle = alloc_source()
        rc = lib.guarded_source_from_anon(handle, number, message)
        if rc:  # pragma: no cover: malloc does not fail on demand
            raise error_from_rc(rc, "pmem2_source_from_anon", f"cannot make a source of {self._name}", message)
        self._handle = handle
        return self

    @classmethod
    def from_handle(cls, handle: SupportsIndex) -> Source:
        """Make a source from a Windows file handle that is open for reading, or for reading and writing.

        Args:
            handle: A number, as `msvcrt.get_osfhandle` returns it. The caller may close the handle afterwards.

        Raises:
            TypeError: *handle* is not an integer.
            InvalidFileHandleError: It is closed, open for writing only, or not a handle of a file.
            InvalidFileTypeError: It is a handle of a directory, a pipe or a console.
            NosuppError: This is not Windows.

        See pmem2_source_from_handle(3) of PMDK 1.13 or older.
        """
        if sys.platform == "win32":
            number = as_int(handle, "handle")
            return cls._from_file(os_file_from_handle(number), "pmem2_source_from_handle", f"handle {number:#x}")
        else:
            asked = "cannot make a source from a handle"
            found = f"{sys.platform} has no Windows handles"
            raise make_pmem2_error(ErrorCode.NOSUPP, "pmem2_source_from_handle", asked, found, "use Source.from_fd")

    def _error(self, rc: int, function: str, action: str, message: CharArray) -> Exception:
        return error_from_rc(rc, function, f"cannot {action} the source {self._name}", message)

    @property
    def fd(self) -> int:
        """The descriptor that this source owns; see pmem2_source_get_fd(3).

        Raises:
            FileDescriptorNotSetError: The source is anonymous, or this is Windows, where it has a `handle`.
            ValueError: It is closed.
        """
        if sys.platform == "win32":
            raise self._not_set_error(ErrorCode.FILE_DESCRIPTOR_NOT_SET, "pmem2_source_get_fd", "descriptor")
        else:
            message, value = new_error_buffer(), ffi.new("int *")
            rc = lib.guarded_source_get_file(self._handle, value, message)
            if rc:
                raise self._error(rc, "pmem2_source_get_fd", "return the descriptor of", message)
            return value[0]

    @property
    def handle(self) -> int:
        """The Windows handle that this source owns; see pmem2_source_get_handle(3) of PMDK 1.13 or older.

        Raises:
            FileHandleNotSetError: The source is anonymous, or this is not Windows, and it has an `fd`.
            ValueError: It is closed.
        """
        if sys.platform == "win32":
            message, value = new_error_buffer(), ffi.new("void **")
            rc = lib.guarded_source_get_file(self._handle, value, message)
            if rc:
                raise self._error(rc, "pmem2_source_get_handle", "return the handle of", message)
            return int(ffi.cast("uintptr_t", value[0]))
        else:
            raise self._not_set_error(ErrorCode.FILE_HANDLE_NOT_SET, "pmem2_source_get_handle", "handle")

    def _not_set_error(self, code: ErrorCode, function: str, what: str) -> Exception:
        asked = f"cannot return the {what} of the source {self._name}"
        if self.closed:
            return error_from_rc(lib.GUARD_CLOSED, function, asked)
        return make_pmem2_error(code, function, asked, f"sources on {sys.platform} have none", HINTS[code])

    @property
    def size(self) -> int:
        """The size in bytes; that of a file may change. See pmem2_source_size(3).

        Raises:
            Pmem2Error: The size cannot be read.
            ValueError: The source is closed.
        """
        message, value = new_error_buffer(), ffi.new("size_t *")
        rc = lib.guarded_source_size(self._handle, value, message)
        if rc:
            raise self._error(rc, "pmem2_source_size", "read the size of", message)
        return value[0]

    @property
    def alignment(self) -> int:
        """Bytes: the offset and the length of a map must be multiples of it; see pmem2_source_alignment(3).

        Raises:
            Pmem2Error: The alignment cannot be read.
            ValueError: The source is closed.
        """
        message, value = new_error_buffer(), ffi.new("size_t *")
        rc = lib.guarded_source_alignment(self._handle, value, message)
        if rc:
            raise self._error(rc, "pmem2_source_alignment", "read the alignment of", message)
        return value[0]

    @property
    def device_id(self) -> str:
        """The ids of the NVDIMMs behind the source, as one string; see pmem2_source_device_id(3).

        Raises:
            NosuppError: There is no NVDIMM behind it.
            OSError: libndctl failed.
            ValueError: The source is closed.
        """
        message, length = new_error_buffer(), ffi.new("size_t *")
        rc = lib.guarded_source_device_id(self._handle, ffi.NULL, length, message)
        text = ffi.new("char[]", length[0] + 1)  # zeroed: libpmem2 appends to what is there
        if not rc:  # pragma: no cover: nox -s nvdimm
            rc = lib.guarded_source_device_id(self._handle, text, length, message)
        if rc:
            raise self._error(rc, "pmem2_source_device_id", "read the device id of", message)
        return ffi.string(text).decode("ascii", "backslashreplace")  # pragma: no cover: nox -s nvdimm

    @property
    def device_usc(self) -> int:
        """The unsafe shutdown count of the NVDIMMs behind the source; see pmem2_source_device_usc(3).

        Raises:
            NosuppError: There is no NVDIMM behind it, or it has no such counter.
            OSError: libndctl failed.
            ValueError: The source is closed.
        """
        message, value = new_error_buffer(), ffi.new("uint64_t *")
        rc = lib.guarded_source_device_usc(self._handle, value, message)
        if rc:
            raise self._error(rc, "pmem2_source_device_usc", "read the unsafe shutdown count of", message)
        return value[0]  # pragma: no cover: nox -s nvdimm

    @property
    def numa_node(self) -> int:
        """The NUMA node of the medium, -1 for none; see pmem2_source_numa_node(3).

        Raises:
            DaxRegionNotFoundError: The source is an ordinary file.
            NosuppError: The source is anonymous.
            OSError: libndctl failed.
            ValueError: The source is closed.
        """
        message, value = new_error_buffer(), ffi.new("int *")
        rc = lib.guarded_source_numa_node(self._handle, value, message)
        if rc == ErrorCode.NOSUPP and self._dax is not None:
            return self._dax.numa_node
        if rc:
            raise self._error(rc, "pmem2_source_numa_node", "read the NUMA node of", message)
        return value[0]  # pragma: no cover: nox -s nvdimm

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return lib.guarded_source_closed(self._handle) != 0

    def pread_mcsafe(self, size: SupportsIndex, offset: SupportsIndex = 0) -> bytes:
        """Read a range; a bad block raises instead of killing the process.

        Args:
            size: Bytes to read.
            offset: Where in the source.

        Raises:
            IoFailError: The medium has a bad block there.
            LengthOutOfRangeError: The range does not lie inside the source.
            SourceTypeNotSupportedError: The source is anonymous.
            OSError: Reading failed otherwise.
            TypeError: A number has a wrong type.
            ValueError: A number is negative or too large, or the source is closed.

        See pmem2_source_pread_mcsafe(3).
        """
        length, start = as_size(size, "size"), as_size(offset, "offset")
        if start + length > self.size:  # before that much memory is allocated
            raise self._read_error(ErrorCode.LENGTH_OUT_OF_RANGE, length, start, new_error_buffer())
        try:
            buffer = ffi.new("char[]", length)
        except (MemoryError, OverflowError):
            self._pread(ffi.new("char[]", 0), 0, start)  # raises the precise error if the source is anonymous
            raise  # pragma: no cover: the file is larger than memory
        self._pread(buffer, length, start)
        return ffi.unpack(buffer, length)

    def pread_mcsafe_into(self, buffer: Buffer, offset: SupportsIndex = 0) -> None:
        """Read as `pread_mcsafe` does, into the whole of a writable *buffer*; after an error its bytes are undefined.

        Raises:
            TypeError: *buffer* is read-only or no buffer, or *offset* is not an integer.
            BufferError: *buffer* is not C-contiguous.
            OSError, ValueError: As `pread_mcsafe`.
        """
        start = as_size(offset, "offset")
        with borrow(buffer, "buffer", writable=True) as target, target:
            self._pread(target, len(target), start)

    def _pread(self, buffer: CharArray, length: int, offset: int) -> None:
        message = new_error_buffer()
        rc = lib.guarded_source_pread_mcsafe(self._handle, buffer, length, offset, message)
        if rc:
            raise self._read_error(rc, length, offset, message)

    def _read_error(self, code: int, length: int, offset: int, message: CharArray) -> Exception:
        return self._error(code, "pmem2_source_pread_mcsafe", f"read {length} bytes at {offset} of", message)

    def pwrite_mcsafe(self, data: Buffer, offset: SupportsIndex = 0) -> None:
        """Write a range; a bad block raises instead of killing the process. Never extends a file.

        Args:
            data: Any C-contiguous buffer.
            offset: Where in the source, in bytes.

        Raises:
            IoFailError: The medium has a bad block there.
            LengthOutOfRangeError: The range does not lie inside the source; nothing is written.
            SourceTypeNotSupportedError: The source is anonymous.
            OSError: The source is read-only (EBADF), the disk is full, the kernel cannot repair a bad block on fsdax by
                writing (EFAULT), or writing failed otherwise.
            TypeError: A number or the data has a wrong type.
            ValueError: *offset* is negative or too large, or the source is closed.
            BufferError: *data* is not C-contiguous.

        See pmem2_source_pwrite_mcsafe(3).
        """
        start = as_size(offset, "offset")
        message = new_error_buffer()
        with borrow(data) as borrowed, borrowed:
            length = len(borrowed)
            rc = lib.guarded_source_pwrite_mcsafe(self._handle, borrowed, length, start, message)
        if rc:
            what = f"write {length} bytes at {start} of"
            raise self._error(rc, "pmem2_source_pwrite_mcsafe", what, message)

    def bad_blocks(self) -> BadBlockContext:
        """Return an iterator over the known bad blocks of this source; see pmem2_badblock_context_new(3).

        Raises:
            NosuppError: The source is anonymous.
            CannotReadBoundsError: Permission is missing, or the bounds of the namespace cannot be read.
            OSError: The file system does not report its extents, or libndctl failed.
            ValueError: The source is closed.
        """
        return BadBlockContext._from_source(self._handle, repr(self))

    def map(self, config: Config = Config(), /) -> Map:
        """Map this source; the same as `Map(source, config)`."""
        from pmem2._map import Map  # here, because Map is made of a Source, and a Source makes a Map

        return Map(self, config)

    def _discard(self) -> None:
        """Close the source, and remove the file that it has created."""
        lib.guarded_source_discard(self._handle)

    def close(self) -> None:
        """Close the descriptor and free the source; maps of it stay open. See pmem2_source_delete(3)."""
        lib.guarded_source_close(self._handle)

    def __repr__(self) -> str:
        """Return the name of its file or memory, and whether it is open."""
        return f"<pmem2.Source of {self._name}{', closed' if self.closed else ''}>"


def alloc_source() -> SourceHandle:
    """Return an empty C source; `ffi.gc` deletes it at the latest when it is collected."""
    return own(lib.guarded_source_alloc(), lib.guarded_source_drop)


def open_source(handle: SourceHandle, path: NativePath, flags: int, message: CharArray) -> int:
    """Open a file and return C's return code."""
    while True:
        rc = retry_after_gc(NO_DESCRIPTORS, lib.guarded_source_open, handle, path, flags, message)
        if rc != -errno.EINTR:  # pragma: no branch: a signal arrives
            return rc  # else Python runs the signal handler now


def fileno_of(file: HasFileno) -> int:
    """Return the descriptor of an object with `fileno()`."""
    try:
        fileno = file.fileno
    except AttributeError:
        raise TypeError(f"fd must be an integer or have fileno(), not {type(file).__name__}") from None
    return fileno()
