# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: an atomic, durable copy of a file or a DAX device."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Optional

from pmem2._buffers import merge_ranges
from pmem2._enums import MemFlag
from pmem2._files import sync_new_file
from pmem2._source import Source
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._output import (
    Range,
    allocate_ranges,
    check_output_path,
    remove_if_exists,
    with_filename,
)
from pmem2.cli._platform import is_dax_device
from pmem2.cli._terminal import progress
from pmem2.errors import IoFailError, NoAccessError, NosuppError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pmem2._map import Map
    from pmem2.cli._command import Commands

HELP = """
The copy is atomic: it is written to a hidden file beside DST and renamed to DST when all of it is durable. Whatever
happens, DST is the old file or the complete new one. DST gets the permissions that cp would give it. Holes stay holes.
If DST is a directory, the copy gets the name of SRC in it. A DST that is a DAX device is overwritten in place, from
its beginning: an interrupted copy leaves it half written.

Data that SRC has lost to bad blocks becomes zeros in DST; the command reports these parts and exits with status 1.
Such a copy does not replace an existing DST.

examples:
  pmem2 copy database /mnt/pmem/             copy to a file system on persistent memory
  pmem2 copy --verify /dev/dax0.0 image      copy from a device, then compare
  pmem2 copy image /dev/dax0.0               copy to a device; its old content is lost"""

CHUNK = 4 * 1024 * 1024
PAGE = 4096  # bytes that become zeros around a bad block
SEEK_DATA, SEEK_HOLE = getattr(os, "SEEK_DATA", 3), getattr(os, "SEEK_HOLE", 4)  # missing in PyPy's os


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "copy", "copy a file or a DAX device durably", HELP)
    parser.add_argument("source", metavar="SRC", help="a file or a DAX device")
    parser.add_argument("destination", metavar="DST", help="a new file, a file to replace, a directory or a DAX device")
    parser.add_argument("--verify", action="store_true", help="read both again and compare")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy."""
    path: str = arguments.source
    with Source.from_path(path, writable=is_writable_device(path)) as source:
        destination = os.path.realpath(check_output_path(arguments.destination))
        if os.path.isdir(destination):
            destination = os.path.realpath(os.path.join(destination, os.path.basename(path)))
        existing = stat_destination(destination)
        if existing is not None and is_same_file(existing, os.fstat(source.fd)):
            raise CommandError(f"{path} and {destination} are the same file")
        reader = Reader(source)
        if not reader.size and os.pread(source.fd, 1, 0):
            raise CommandError(f"{path} reports size 0 but has content; use cat to read it")
        if existing is not None and is_dax_device(existing):  # pragma: no cover: nox -s nvdimm
            copy_to_device(reader, destination, bool(arguments.verify))
        else:
            copy_to_file(reader, destination, existing, bool(arguments.verify))
    if reader.lost:  # pragma: no cover: nox -s nvdimm
        raise CommandError(f"{describe_lost(reader.lost)} of {path}; {destination} has zeros there")
    return 0


def is_writable_device(path: str) -> bool:
    """Return whether *path* is a DAX device that allows writing: libpmem2 reads safely only from a writable one."""
    return is_dax_device(os.stat(path)) and os.access(path, os.W_OK)


def stat_destination(destination: str) -> Optional[os.stat_result]:
    """Return the status of an existing destination, or `None` if it does not exist.

    Raises:
        CommandError: The destination cannot take a copy.
    """
    try:
        status = os.stat(destination)
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(status.st_mode) or is_dax_device(status)):
        raise CommandError(f"{destination} exists and is neither a regular file nor a DAX device")
    if not os.access(destination, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), destination)
    return status


def is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two paths name one file, or two device nodes name one device."""
    same_device = stat.S_ISCHR(one.st_mode) and stat.S_ISCHR(other.st_mode) and one.st_rdev == other.st_rdev
    return os.path.samestat(one, other) or same_device


class Reader:
    """Reads a source; bad blocks read as zeros."""

    def __init__(self, source: Source) -> None:
        """Read from *source*; bytes that are appended later are ignored."""
        self.source, self.size = source, source.size
        self.lost: list[Range] = []

    def read(self, offset: int, length: int) -> bytearray:
        """Return bytes of the source; replace bad pages with zeros and record them in `lost`."""
        buffer = bytearray(length)
        try:
            self.source.pread_mcsafe_into(buffer, offset)
        except IoFailError:  # pragma: no cover: nox -s nvdimm
            self.read_by_page(offset, buffer)
        except (NosuppError, NoAccessError):  # pragma: no cover: nox -s nvdimm; a device without NVDIMM, or read-only
            with self.source.map() as map:
                buffer[:] = map[offset : offset + length]
        return buffer

    def read_by_page(self, offset: int, buffer: bytearray) -> None:  # pragma: no cover: nox -s nvdimm
        """Fill *buffer* page by page, so that a bad block costs only its page."""
        with memoryview(buffer) as view:
            for start in range(0, len(buffer), PAGE):
                with view[start : start + PAGE] as page:
                    try:
                        self.source.pread_mcsafe_into(page, offset + start)
                    except IoFailError:
                        page[:] = bytes(len(page))
                        self.lost.append((offset + start, len(page)))

    def data_ranges(self) -> list[Range]:
        """Return the ranges of the source that are not holes."""
        if not stat.S_ISREG(os.fstat(self.source.fd).st_mode):  # pragma: no cover: nox -s nvdimm
            return [(0, self.size)]
        ranges = []
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.source.fd, end, SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # pragma: no cover: a broken file system
                    raise
                break
            if start >= self.size:  # the source has grown
                break
            end = min(os.lseek(self.source.fd, start, SEEK_HOLE), self.size)
            ranges.append((start, end - start))
        return ranges


def split_into_chunks(ranges: list[Range]) -> Iterator[Range]:
    """Yield the ranges in chunks of at most `CHUNK` bytes."""
    for offset, length in ranges:
        for start in range(offset, offset + length, CHUNK):
            yield start, min(CHUNK, offset + length - start)


def copy_to_file(reader: Reader, destination: str, existing: Optional[os.stat_result], verify: bool) -> None:
    """Copy to a hidden file, then rename it to its destination."""
    folder = os.path.dirname(destination)
    hidden = os.path.join(folder, f".pmem2-copy-{secrets.token_hex(8)}")
    ranges = reader.data_ranges()
    with ExitStack() as undo:
        undo.callback(remove_if_exists, hidden)  # registered first: a signal may arrive at any moment
        fd = create_hidden_file(hidden, destination, existing or os.fstat(reader.source.fd))
        undo.callback(os.close, fd)
        if existing is not None:
            with suppress(PermissionError):
                os.fchown(fd, existing.st_uid, existing.st_gid)
            os.fchmod(fd, stat.S_IMODE(existing.st_mode))
        allocate_ranges(fd, reader.size, ranges, destination)
        if ranges:
            with Source.from_fd(fd) as target, target.map() as map:
                transfer(reader, map, ranges)
        sync_new_file(fd, destination)
        if verify:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # read the medium, not the page cache
            with Source.from_fd(fd) as target:
                compare(reader, Reader(target), destination)
        if reader.lost and existing is not None:  # pragma: no cover: nox -s nvdimm
            raise CommandError(f"{describe_lost(reader.lost)}; {destination} is unchanged: copy to a new file")
        os.replace(hidden, destination)
        sync_new_file(fd, destination)


def create_hidden_file(hidden: str, destination: str, like: os.stat_result) -> int:
    """Create a file with the permissions of *like* less the umask, and return its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(hidden, flags, stat.S_IMODE(like.st_mode) & 0o777)
    except OSError as error:
        raise with_filename(error, "cannot be created", destination) from None


def transfer(reader: Reader, map: Map, ranges: list[Range]) -> None:
    """Copy ranges into a map; each chunk is durable before the next one is read."""
    with progress("copying", sum(length for _, length in ranges)) as advance:
        for offset, length in split_into_chunks(ranges):
            map.memcpy(offset, reader.read(offset, length), MemFlag.NONTEMPORAL)
            advance(length)


def compare(one: Reader, other: Reader, destination: str) -> None:
    """Compare the copy with its source.

    Raises:
        CommandError: They differ.
    """
    with progress("verifying", one.size) as advance:
        for offset, length in split_into_chunks([(0, one.size)]):
            expected, found = one.read(offset, length), other.read(offset, length)
            if expected != found:
                index = next(index for index in range(length) if expected[index] != found[index])
                raise CommandError(
                    f"{destination} differs at byte {offset + index}: a faulty medium, or SRC changed during the copy"
                )
            advance(length)


def copy_to_device(reader: Reader, destination: str, verify: bool) -> None:  # pragma: no cover: nox -s nvdimm
    """Copy to a DAX device; holes of the source become zeros."""
    with Source.from_path(destination) as target:
        if reader.size > target.size:
            raise CommandError(f"{destination} has {target.size} bytes, SRC has {reader.size}")
        if reader.size:
            with target.map() as map:
                end = 0
                for offset, length in [*reader.data_ranges(), (reader.size, 0)]:
                    map.memset(end, 0, offset - end, MemFlag.NONTEMPORAL)
                    end = offset + length
                transfer(reader, map, reader.data_ranges())
        if verify:
            compare(reader, Reader(target), destination)


def describe_lost(lost: list[Range]) -> str:
    """Describe the lost ranges."""
    ranges = ", ".join(f"{length} at {offset}" for offset, length in merge_ranges(lost))
    return f"bad blocks: lost {ranges} (bytes)"
