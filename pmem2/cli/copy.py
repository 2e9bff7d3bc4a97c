# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: an atomic, durable copy of a file or a DAX device."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Callable, Optional, Union

import attrs

from pmem2._buffers import merge_ranges
from pmem2._enums import MemFlag
from pmem2._ffi import lib
from pmem2._files import OPEN_FLAGS, sync_new_file
from pmem2._source import Source
from pmem2.cli._attributes import copy_attributes, has_acl, remove_acl
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._extents import Range, allocated_ranges, data_ranges, nonzero_ranges
from pmem2.cli._output import (
    allocate_ranges,
    check_output_path,
    remove_if_exists,
    resolve_links,
    source_of,
    warn_if_volatile,
    with_filename,
)
from pmem2.cli._platform import is_dax_device
from pmem2.cli._terminal import is_terminal, print_warning, progress
from pmem2.cli._text import RATES, TIMES, format_decimal, format_size, printable
from pmem2.errors import IoFailError, NoAccessError, NosuppError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pmem2.cli._command import Commands

HELP = """
The copy is atomic: it is written to a hidden file beside DST and renamed to DST when all of it is durable. Whatever
happens, DST is the old file or the complete new one. If DST is a directory, the copy gets the name of SRC in it. Mode,
owner, ACL and extended attributes of an existing DST stay, those of a new one are SRC's, as far as the user may set
them.

A DST that nothing can replace is overwritten in place, as cp does: a DAX device, a mount point, another user's file in
a sticky directory, a file in a directory without write permission, and /proc/self/fd/N. The command says so; an
interrupted copy leaves such a DST half written.

With --sparse, "auto" (the default) allocates disk space in DST for what has space in SRC; "always" makes holes of all
blocks of zeros; "never" allocates all of DST, so that no later store can meet a full disk.

Data that SRC has lost to bad blocks becomes zeros in DST; the command reports these parts and exits with status 1.
Such a copy does not replace an existing DST.

examples:
  pmem2 copy database /mnt/pmem/             copy to persistent memory
  pmem2 copy --sparse=never database copy    allocate the holes, too
  pmem2 copy --verify /dev/dax0.0 image      copy a device, then compare
  pmem2 copy image /dev/dax0.0               replace the content of a device"""

CHUNK = 4 * 1024 * 1024
PAGE = 4096  # bytes that become zeros around a bad block
# A directory that forbids new files, a sticky one with another user's DST, a mount point as DST
CANNOT_REPLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)

Data = Union[bytes, memoryview]
Writer = Callable[[int, Data], object]


@attrs.frozen
class Options:
    """The options of the command."""

    sparse: str
    verify: bool
    quiet: bool


class CannotReplaceError(Exception):
    """A file cannot be replaced by another one, but perhaps overwritten."""

    def __init__(self, error: OSError) -> None:
        """Keep the *error* of the system."""
        super().__init__(error)
        self.error = error


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "copy", "copy a file or a DAX device durably", HELP)
    parser.add_argument("source", metavar="SRC", help="a file or a DAX device")
    parser.add_argument("destination", metavar="DST", help="a new file, a file to replace, a directory or a DAX device")
    parser.add_argument(
        "--sparse",
        metavar="WHEN",
        choices=["auto", "always", "never"],
        default="auto",
        help="what becomes a hole: auto, always or never",
    )
    parser.add_argument("--verify", action="store_true", help="read both again and compare")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy."""
    path: str = arguments.source
    options = Options(arguments.sparse, bool(arguments.verify), bool(arguments.quiet))
    began = time.monotonic()
    with Source.from_path(path, writable=is_writable_device(path)) as source:
        destination = check_output_path(arguments.destination)
        if os.path.isdir(destination):
            destination = os.path.join(destination, os.path.basename(path))
        destination, is_name = resolve_links(destination)
        existing = stat_destination(destination)
        if existing is not None and is_same_file(existing, os.fstat(source.fd)):
            raise CommandError(f"{path} and {destination} are the same file")
        with spool_if_size_lies(source, path) as content:
            reader = Reader(content)
            if existing is not None and is_dax_device(existing):  # pragma: no cover: nox -s nvdimm
                copy_to_device(reader, destination, options)
            else:
                copy_to_file(reader, source.fd, destination, existing, is_name, options)
            if reader.lost:  # pragma: no cover: nox -s nvdimm
                raise CommandError(f"{describe_lost(reader.lost)} of {path}; {destination} has zeros there")
            if not options.quiet:
                report(reader, destination, time.monotonic() - began, options)
    return 0


def report(reader: Reader, destination: str, seconds: float, options: Options) -> None:
    """Warn if the copy is in memory only; on a terminal, sum up what was copied."""
    durable = not warn_if_volatile(destination)
    if not is_terminal(sys.stderr):
        return
    size, data = reader.size, sum(length for _, length in reader.data_ranges())
    facts = [f"copied {format_size(size)} to {printable(destination)} in {format_decimal(seconds * 1e9, TIMES)}"]
    facts += [f"{format_decimal(data / seconds, RATES)}"] * bool(data)
    facts += [f"{format_size(size - data)} of holes"] * (data < size)
    facts += ["durable"] * durable + ["verified"] * options.verify
    print(", ".join(facts), file=sys.stderr)


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


@contextmanager
def spool_if_size_lies(source: Source, path: str) -> Iterator[Source]:
    """Yield *source*, or a temporary file of all that it contains if its size is only a guess (procfs, sysfs, FUSE)."""
    if reports_true_size(source.fd):
        yield source
        return
    with tempfile.TemporaryFile() as spool:
        try:
            with open(os.dup(source.fd), "rb") as file:
                shutil.copyfileobj(file, spool)
            spool.flush()
        except OSError as error:
            raise with_filename(error, "cannot be copied to a temporary file", path) from None
        with source_of(spool.fileno(), repr(path)) as content:
            yield content


def reports_true_size(fd: int) -> bool:
    """Return whether a file ends where its size says, as far as two reads can tell."""
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):  # pragma: no cover: nox -s nvdimm
        return True
    try:
        beyond = os.pread(fd, 1, before.st_size) and os.fstat(fd).st_size == before.st_size  # else it has grown
        return not beyond and (before.st_size == 0 or bool(os.pread(fd, 1, before.st_size - 1)))
    except OSError:  # a bad block, or an empty file that is none, such as /proc/self/mem
        return before.st_size > 0


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
        return data_ranges(self.source.fd, self.size)


def split_into_chunks(ranges: list[Range]) -> Iterator[Range]:
    """Yield the ranges in chunks of at most `CHUNK` bytes."""
    for offset, length in ranges:
        for start in range(offset, offset + length, CHUNK):
            yield start, min(CHUNK, offset + length - start)


def holes_between(ranges: list[Range], size: int) -> list[Range]:
    """Return what lies between sorted *ranges* and the *size* of the file."""
    ends = [0, *(offset + length for offset, length in ranges)]
    starts = [*(offset for offset, _ in ranges), size]
    return [(end, start - end) for end, start in zip(ends, starts) if start > end]


def copy_to_file(
    reader: Reader, source: int, destination: str, existing: Optional[os.stat_result], is_name: bool, options: Options
) -> None:
    """Replace a file, or overwrite it where it cannot be replaced.

    Args:
        reader: Reads the content.
        source: A descriptor of the file that a new file gets its attributes from.
        destination: The path of the copy.
        existing: The status of the file that is there, or `None`.
        is_name: Whether the path is the name of the file in a directory.
        options: Those of the command.
    """
    folder = os.path.dirname(destination) or "."
    try:
        if not is_name:
            reason = "the path is a descriptor's"
        elif is_append_only(folder):
            reason = f"{folder} is append-only"
            if existing is None:
                fd = create_file(destination, source, existing, destination)
                set_attributes(fd, source, destination, existing)
                os.close(fd)
        else:
            replace_file(reader, source, destination, existing, options)
            return
    except CannotReplaceError as refusal:
        if existing is None:
            raise refusal.error from None
        reason = f"it cannot be replaced: {os.strerror(refusal.error.errno or 0)}"
    overwrite_file(reader, destination, reason, options)


def is_append_only(folder: str) -> bool:
    """Return whether files can be created in a directory but not renamed or removed (chattr +a)."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # missing or unreadable
        return False
    try:
        return bool(lib.guarded_inode_flags(fd) & lib.FS_APPEND_FL)
    finally:
        os.close(fd)


def replace_file(
    reader: Reader, source: int, destination: str, existing: Optional[os.stat_result], options: Options
) -> None:
    """Copy to a hidden file, then rename it to its destination.

    Raises:
        CannotReplaceError: The directory or the destination does not allow that; nothing has changed.
    """
    folder = os.path.dirname(destination)
    hidden = os.path.join(folder, f".pmem2-copy-{secrets.token_hex(8)}")
    with ExitStack() as undo:
        undo.callback(remove_if_exists, hidden)  # registered first: a signal may arrive at any moment
        fd = create_file(hidden, source, existing, destination)
        undo.callback(os.close, fd)
        allocate_ranges(fd, reader.size, ranges_to_allocate(reader, options), destination)
        with open_writer(fd, destination) as write:
            transfer(reader, write, options)
        set_attributes(fd, source, destination, existing)
        sync_new_file(fd, destination)
        if options.verify:
            verify(reader, fd, destination, options)
        if reader.lost and existing is not None:  # pragma: no cover: nox -s nvdimm
            raise CommandError(f"{describe_lost(reader.lost)}; {destination} is unchanged: copy to a new file")
        with name_in_errors(destination, "cannot be replaced"):
            os.replace(hidden, destination)
        sync_new_file(fd, destination)


def create_file(path: str, source: int, existing: Optional[os.stat_result], destination: str) -> int:
    """Create a file, under a hidden name or its own, and return its descriptor.

    A file that will get an ACL or the permissions of another file has none for others until then.
    """
    private = existing is not None or has_acl(source)
    mode = 0o600 if private else stat.S_IMODE(os.fstat(source).st_mode) & 0o777  # less the umask
    with name_in_errors(destination, "cannot be created"):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def set_attributes(fd: int, source: int, destination: str, existing: Optional[os.stat_result]) -> None:
    """Give the new file the attributes of the file that it replaces, or those of the source."""
    if existing is not None:
        remove_acl(fd)
        copy_attributes(destination, fd, stat.S_IMODE(existing.st_mode))
    else:
        like = source if has_acl(source) else fd
        copy_attributes(source, fd, stat.S_IMODE(os.fstat(like).st_mode) & 0o777)


@contextmanager
def name_in_errors(destination: str, failure: str) -> Iterator[None]:
    """Name the user's path in an error of the block, and mark errors that mean that DST cannot be replaced."""
    try:
        yield
    except OSError as error:
        named = with_filename(error, failure, destination)
        if error.errno in CANNOT_REPLACE:
            raise CannotReplaceError(named) from None
        raise named from None


def ranges_to_allocate(reader: Reader, options: Options) -> list[Range]:
    """Return the ranges of the copy that get disk space before anything is written."""
    if options.sparse == "always":
        return []
    if options.sparse == "never":
        return [(0, reader.size)] if reader.size else []
    return merge_ranges([*reader.data_ranges(), *allocated_ranges(reader.source.fd, reader.size)])


def overwrite_file(reader: Reader, destination: str, reason: str, options: Options) -> None:
    """Copy into an existing file. Its space is allocated first, so that a full disk leaves it as it was."""
    for offset, length in split_into_chunks(reader.data_ranges()):
        reader.read(offset, length)
    if reader.lost:  # pragma: no cover: nox -s nvdimm
        raise CommandError(f"{describe_lost(reader.lost)}; {destination} is unchanged: copy to a new file")
    if not options.quiet:
        print_warning(f"{destination}: written in place, not atomically: {reason}")
    fd = os.open(destination, os.O_RDWR | OPEN_FLAGS)
    with ExitStack() as undo, ExitStack() as restore_size:
        undo.callback(os.close, fd)
        restore_size.callback(os.ftruncate, fd, os.fstat(fd).st_size)
        if reader.size:
            allocate_ranges(fd, max(reader.size, os.fstat(fd).st_size), [(0, reader.size)], destination)
        restore_size.pop_all()
        os.ftruncate(fd, reader.size)
        with open_writer(fd, destination) as write:
            for offset, length in split_into_chunks(holes_between(reader.data_ranges(), reader.size)):
                write(offset, bytes(length))
            transfer(reader, write, attrs.evolve(options, sparse="never"))
        sync_new_file(fd, destination)
        if options.verify:
            verify(reader, fd, destination, options)


@contextmanager
def open_writer(fd: int, destination: str) -> Iterator[Writer]:
    """Yield a function that writes at an offset: through a map on hugetlbfs and on devices, which have no write(2)."""
    with source_of(fd, repr(destination)) as target:
        if target.alignment == os.sysconf("SC_PAGESIZE") or not target.size:
            yield lambda offset, data: write_at(fd, offset, data, destination)
        else:
            with target.map() as map:
                yield lambda offset, data: map.memcpy(offset, data, MemFlag.NONTEMPORAL)


def write_at(fd: int, offset: int, data: Data, destination: str) -> None:
    """Write all bytes at an offset of a file."""
    with memoryview(data) as view:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(fd, view[done:], offset + done)
        except OSError as error:
            raise with_filename(error, "cannot be written", destination) from None


def transfer(reader: Reader, write: Writer, options: Options) -> None:
    """Copy the data of the source, piece by piece; with --sparse=always, leave out blocks of zeros."""
    ranges = reader.data_ranges()
    with progress("copying", sum(length for _, length in ranges), options.quiet) as advance:
        for offset, length in split_into_chunks(ranges):
            data = reader.read(offset, length)
            pieces = nonzero_ranges(data) if options.sparse == "always" else [(0, length)]
            with memoryview(data) as view:
                for start, count in pieces:
                    with view[start : start + count] as piece:
                        write(offset + start, piece)
            advance(length)


def verify(reader: Reader, fd: int, destination: str, options: Options) -> None:
    """Compare the copy on the medium, not in the page cache, with its source."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with source_of(fd, repr(destination)) as target:
        compare(reader, Reader(target), destination, options)


def compare(one: Reader, other: Reader, destination: str, options: Options) -> None:
    """Compare the copy with its source, except for common holes.

    Raises:
        CommandError: They differ.
    """
    ranges = merge_ranges([*one.data_ranges(), *data_ranges(other.source.fd, one.size)])
    with progress("verifying", sum(length for _, length in ranges), options.quiet) as advance:
        for offset, length in split_into_chunks(ranges):
            expected, found = one.read(offset, length), other.read(offset, length)
            if expected != found:
                index = next(index for index in range(length) if expected[index] != found[index])
                raise CommandError(
                    f"{destination} differs at byte {offset + index}: a faulty medium, or SRC changed during the copy"
                )
            advance(length)


def copy_to_device(reader: Reader, destination: str, options: Options) -> None:  # pragma: no cover: nox -s nvdimm
    """Copy to a DAX device; holes of the source become zeros."""
    with Source.from_path(destination) as target:
        if reader.size > target.size:
            raise CommandError(f"{destination} has {target.size} bytes, SRC has {reader.size}")
        if reader.size:
            with target.map() as map:
                for offset, length in holes_between(reader.data_ranges(), reader.size):
                    map.memset(offset, 0, length, MemFlag.NONTEMPORAL)
                transfer(reader, lambda offset, data: map.memcpy(offset, data, MemFlag.NONTEMPORAL), options)
        if options.verify:
            compare(reader, Reader(target), destination, options)


def describe_lost(lost: list[Range]) -> str:
    """Describe the lost ranges."""
    ranges = ", ".join(f"{length} at {offset}" for offset, length in merge_ranges(lost))
    return f"bad blocks: lost {ranges} (bytes)"
