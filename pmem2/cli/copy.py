# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: a copy that is durable, whole, and under its name only when it is both."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Optional

from pmem2._buffers import merge_ranges
from pmem2._enums import MemFlag
from pmem2._source import Source
from pmem2.cli._command import Failure, add_command, checked_place
from pmem2.cli._platform import is_dax_device
from pmem2.cli._terminal import progress, size_text
from pmem2.errors import IoFailError, NoAccessError, NosuppError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pmem2._map import Map
    from pmem2.cli._command import Commands

HELP = """
DST is written under another name beside it, and gets its own name when everything is durable: whatever happens,
DST is the old file or the new one, whole. Its permissions are those that cp gives it. Holes stay holes. A DST that is
a directory gets a file of the same name in it. A DST that is a DAX device is written in place, from its beginning:
stopped half-way, it is half written.

What cannot be read because SRC has bad blocks is zeros in DST; which parts these are is told, and the exit status
is 1. A DST that existed is not replaced by such a copy.

examples:
  pmem2 copy database /mnt/pmem/             to a file system on persistent memory
  pmem2 copy --verify /dev/dax0.0 image      from a device, compared afterwards
  pmem2 copy image /dev/dax0.0               to a device; what was on it is lost"""

CHUNK = 4 * 1024 * 1024
PAGE = 4096  # what is lost around a bad block
SEEK_DATA, SEEK_HOLE = getattr(os, "SEEK_DATA", 3), getattr(os, "SEEK_HOLE", 4)  # PyPy's os has no such names
Range = tuple[int, int]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "copy", "copy a file or a DAX device, durably", HELP)
    parser.add_argument("source", metavar="SRC", help="a file or a DAX device")
    parser.add_argument("destination", metavar="DST", help="a file, new or to be replaced; a directory; a DAX device")
    parser.add_argument("--verify", action="store_true", help="read both again, and compare")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy."""
    path: str = arguments.source
    with Source.from_path(path, writable=is_writable_device(path)) as source:
        destination = os.path.realpath(checked_place(arguments.destination))
        if os.path.isdir(destination):
            destination = os.path.realpath(os.path.join(destination, os.path.basename(path)))
        before = existing(destination)
        if before is not None and is_same(before, os.fstat(source.fd)):
            raise Failure(f"{path} and {destination} are the same file")
        reader = Reader(source)
        if not reader.size and os.pread(source.fd, 1, 0):
            raise Failure(f"{path} says that it is empty, and is not: cat can read it")
        if before is not None and is_dax_device(before):  # pragma: no cover: nox -s nvdimm
            onto_device(reader, destination, bool(arguments.verify))
        else:
            into_file(reader, destination, before, bool(arguments.verify))
    if reader.lost:  # pragma: no cover: nox -s nvdimm
        raise Failure(f"{lost_text(reader.lost)} of {path}; {destination} has zeros there")
    return 0


def is_writable_device(path: str) -> bool:
    """Return whether that is a DAX device which may be opened for writing: libpmem2 reads none safely otherwise."""
    return is_dax_device(os.stat(path)) and os.access(path, os.W_OK)


def existing(destination: str) -> Optional[os.stat_result]:
    """Return what is at the destination, `None` for nothing.

    Raises:
        Failure: Nothing can be copied there.
    """
    try:
        status = os.stat(destination)
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(status.st_mode) or is_dax_device(status)):
        raise Failure(f"{destination} exists, and is neither a regular file nor a DAX device")
    if not os.access(destination, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), destination)
    return status


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two names are of one file, or two nodes of one device."""
    same_device = stat.S_ISCHR(one.st_mode) and stat.S_ISCHR(other.st_mode) and one.st_rdev == other.st_rdev
    return os.path.samestat(one, other) or same_device


class Reader:
    """Reads a source, past its bad blocks and its holes."""

    def __init__(self, source: Source) -> None:
        """Read from *source*, which has the size that it has now."""
        self.source, self.size = source, source.size
        self.lost: list[Range] = []

    def read(self, offset: int, length: int) -> bytearray:
        """Return bytes of the source; what a bad block has lost is zeros, and noted."""
        buffer = bytearray(length)
        try:
            self.source.pread_mcsafe_into(buffer, offset)
        except IoFailError:  # pragma: no cover: nox -s nvdimm
            self.salvage(offset, buffer)
        except (NosuppError, NoAccessError):  # pragma: no cover: nox -s nvdimm; a device without NVDIMM, or read-only
            with self.source.map() as map:
                buffer[:] = map[offset : offset + length]
        return buffer

    def salvage(self, offset: int, buffer: bytearray) -> None:  # pragma: no cover: nox -s nvdimm
        """Read page by page."""
        with memoryview(buffer) as view:
            for start in range(0, len(buffer), PAGE):
                with view[start : start + PAGE] as page:
                    try:
                        self.source.pread_mcsafe_into(page, offset + start)
                    except IoFailError:
                        page[:] = bytes(len(page))
                        self.lost.append((offset + start, len(page)))

    def data(self) -> list[Range]:
        """Return the parts of the source that are not holes."""
        if not stat.S_ISREG(os.fstat(self.source.fd).st_mode):  # pragma: no cover: nox -s nvdimm
            return [(0, self.size)]
        parts = []
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.source.fd, end, SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # pragma: no cover: the file system is ill
                    raise
                break
            if start >= self.size:  # it has grown
                break
            end = min(os.lseek(self.source.fd, start, SEEK_HOLE), self.size)
            parts.append((start, end - start))
        return parts


def chunks(parts: list[Range]) -> Iterator[Range]:
    """Yield parts in pieces that are not too large."""
    for offset, length in parts:
        for start in range(offset, offset + length, CHUNK):
            yield start, min(CHUNK, offset + length - start)


def into_file(reader: Reader, destination: str, before: Optional[os.stat_result], verify: bool) -> None:
    """Copy into a file that gets its name when it is whole."""
    folder = os.path.dirname(destination)
    hidden = os.path.join(folder, f".pmem2-copy-{secrets.token_hex(8)}")
    parts = reader.data()
    with ExitStack() as undo:
        undo.callback(remove, hidden)  # from now on: a signal may come at any moment
        fd = create(hidden, destination, before or os.fstat(reader.source.fd))
        undo.callback(os.close, fd)
        if before is not None:
            with suppress(PermissionError):
                os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, stat.S_IMODE(before.st_mode))
        allocate(fd, reader.size, parts, destination)
        if parts:
            with Source.from_fd(fd) as target, target.map() as map:
                transfer(reader, map, parts)
        os.fsync(fd)
        if verify:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the medium is read, not the page cache
            with Source.from_fd(fd) as target:
                compare(reader, Reader(target), destination)
        if reader.lost and before is not None:  # pragma: no cover: nox -s nvdimm
            raise Failure(f"{lost_text(reader.lost)}; {destination} is left as it was: copy to a new file")
        os.replace(hidden, destination)
        sync_folder(folder)


def create(hidden: str, destination: str, like: os.stat_result) -> int:
    """Return a descriptor of a new file with the permissions of another one, as far as the umask lets it have them."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(hidden, flags, stat.S_IMODE(like.st_mode) & 0o777)
    except OSError as error:
        raise renamed(error, "cannot be created", destination) from None


def allocate(fd: int, size: int, parts: list[Range], destination: str) -> None:
    """Give a file its size, and space on disk for its parts, so that no store into it can fail."""
    try:
        os.ftruncate(fd, size)
        for offset, length in parts:
            code: object = os.posix_fallocate(fd, offset, length)  # type: ignore[func-returns-value]
            if isinstance(code, int) and code:  # pragma: no cover: PyPy returns what CPython raises
                raise OSError(code, os.strerror(code))
    except OSError as error:
        needed = size_text(sum(length for _, length in parts))
        raise renamed(error, f"cannot allocate {needed}", destination) from None


def renamed(error: OSError, what: str, destination: str) -> OSError:
    """Return an error that names the file which the user knows."""
    number = error.errno or errno.EIO
    return OSError(number, f"{what}: {os.strerror(number)}", destination)


def transfer(reader: Reader, map: Map, parts: list[Range]) -> None:
    """Copy parts into a map; each piece is durable before the next is read."""
    with progress("copying", sum(length for _, length in parts)) as advance:
        for offset, length in chunks(parts):
            map.memcpy(offset, reader.read(offset, length), MemFlag.NONTEMPORAL)
            advance(length)


def compare(one: Reader, other: Reader, destination: str) -> None:
    """Compare what was copied.

    Raises:
        Failure: There is a difference.
    """
    with progress("verifying", one.size) as advance:
        for offset, length in chunks([(0, one.size)]):
            wanted, found = one.read(offset, length), other.read(offset, length)
            if wanted != found:
                place = offset + next(place for place in range(length) if wanted[place] != found[place])
                raise Failure(f"{destination} differs at byte {place}: the medium fails, or SRC has changed meanwhile")
            advance(length)


def onto_device(reader: Reader, destination: str, verify: bool) -> None:  # pragma: no cover: nox -s nvdimm
    """Copy onto a DAX device; the holes of the source are zeros there."""
    with Source.from_path(destination) as target:
        if reader.size > target.size:
            raise Failure(f"{destination} has {target.size} bytes, and SRC has {reader.size}")
        if reader.size:
            with target.map() as map:
                end = 0
                for offset, length in [*reader.data(), (reader.size, 0)]:
                    map.memset(end, 0, offset - end, MemFlag.NONTEMPORAL)
                    end = offset + length
                transfer(reader, map, reader.data())
        if verify:
            compare(reader, Reader(target), destination)


def lost_text(lost: list[Range]) -> str:
    """Return what was lost."""
    where = ", ".join(f"{length} at {offset}" for offset, length in merge_ranges(lost))
    return f"bad blocks: lost {where} (bytes)"


def remove(path: str) -> None:
    """Remove a file, if it is there, or could have been made there."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EROFS):
            raise


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
