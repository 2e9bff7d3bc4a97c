# SPDX-License-Identifier: BSD-3-Clause
"""open: from a path to a Map in one step."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Literal, NamedTuple, Optional, SupportsIndex, Union

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_positive, check_type
from pmem2._config import Config
from pmem2._enums import ErrorCode, Protection, Sharing
from pmem2._error_map import HINTS, make_pmem2_error
from pmem2._ffi import lib
from pmem2._files import StrOrBytesPath, allocate, sync_new_file, truncate, zero
from pmem2._map import READ_WRITE, Map, check_mappable
from pmem2._source import Source

CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL
Mode = Literal["r", "r+", "w+", "x+", "a+", "c"]


class ModeSpec(NamedTuple):
    """The sharing and protection of a mode, and how it opens the file."""

    writable: bool
    sharing: Sharing
    protection: Protection
    creates: bool = False


MODES = {
    "r": ModeSpec(False, Sharing.SHARED, Protection.READ),
    "r+": ModeSpec(True, Sharing.SHARED, READ_WRITE),
    "w+": ModeSpec(True, Sharing.SHARED, READ_WRITE, creates=True),
    "x+": ModeSpec(True, Sharing.SHARED, READ_WRITE, creates=True),
    "a+": ModeSpec(True, Sharing.SHARED, READ_WRITE, creates=True),
    "c": ModeSpec(False, Sharing.PRIVATE, READ_WRITE),
}


def open(
    path: StrOrBytesPath, mode: Mode = "r+", *, size: Optional[SupportsIndex] = None, config: Config = Config()
) -> Map:
    """Open a file or a DAX device, map it, and close the file again.

    A file that is created or truncated is durable at return: its size, its zeros and its directory entry.

    Args:
        path: The file.
        mode: As `numpy.memmap`: "r" reads, "r+" reads and writes, "w+" creates or truncates, "x+" creates a file that
            does not exist, "c" is copy-on-write: writable in memory, which is not reserved before it is written, while
            the file stays as it is. "a+" opens a file and keeps its contents, or creates it; processes may do so at the
            same time.
        size: Bytes, only for "w+", "x+" and "a+". They are allocated on disk, so that no store can fail for lack of
            space. With "a+", a smaller file grows by zeros, a larger one stays as it is, and the size may be left out
            if the file exists and is not empty. A DAX device keeps its own size, which must not be smaller.
        config: Everything else; the mode decides sharing and protection.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The mode is unknown, the config contradicts it, or *size* is missing, unwanted, 0 or too large.
        OSError: The file cannot be opened, created or allocated.
        Pmem2Error: It cannot be mapped, as `Map` says; an existing file is then not truncated.
    """
    spec = MODES.get(mode)
    if spec is None:
        raise ValueError(f"invalid mode {mode!r}: use {', '.join(repr(known) for known in MODES)}")
    check_type(config, Config, "config")
    if config.sharing is Sharing.PRIVATE and mode != "c":
        raise ValueError(f"mode {mode!r} needs sharing=Sharing.SHARED, got PRIVATE; mode 'c' is copy-on-write")
    if config.protection not in (None, spec.protection):
        raise ValueError(f"mode {mode!r} needs protection=None or {spec.protection!r}, got {config.protection!r}")
    config = attrs.evolve(config, sharing=spec.sharing, protection=spec.protection)
    if not spec.creates:
        if size is not None:
            raise ValueError(f"mode {mode!r} takes no size: it maps the file as it is")
        with Source.from_path(path, writable=spec.writable) as source:
            return Map(source, config)
    if size is None and mode != "a+":
        raise ValueError(f"mode {mode!r} needs a size")
    path, wanted = os.fspath(path), 0 if size is None else as_positive(size, "size", FILE_SIZE_MAX)
    made, map = None, None
    try:
        try:
            if mode == "a+":
                made = open_or_extend(path, wanted, config)
                map = Map(made, config)
            else:
                made = Source._open(path, CREATE_FLAGS) if mode == "x+" else open_or_create(path)
                map = map_zeros(made, path, wanted, config)
            made.close()
            return map
        except BaseException:
            undo(made, map)
            raise
    except BaseException:
        undo(made, map)  # again: a signal handler may have ended the first one
        raise


def undo(source: Optional[Source], map: Optional[Map]) -> None:
    """Close what was made, and remove a new file."""
    if map is not None:  # pragma: no cover: an exception of a signal handler
        map.close(defer=True)
    if source is not None:
        source._discard()


def map_zeros(source: Source, path: Union[str, bytes], size: int, config: Config) -> Map:
    """Map *size* zeros in a new or old file; touch the contents of an old one only after every step that can fail."""
    if source._handle.device:  # pragma: no cover: nox -s nvdimm
        if size > source.size:
            raise range_error(size, source, f"the device has {source.size} bytes")
        return Map(source, config)
    before = source.size
    try:
        allocate(source._handle.file, size, path)
        if before:
            check_mappable(source, probe_config(config, size, source))
            check_range(size, config, source)
            zero(source._handle.file, size, path)
            truncate(source._handle.file, size, path)
        sync_new_file(source._handle.file, path)
        return Map(source, config)
    except BaseException:
        truncate(source._handle.file, before, path)
        raise


def open_or_create(path: Union[str, bytes]) -> Source:
    """Return the source of a file, which is created if it does not exist; the path is opened as it is given."""
    while True:  # until no other process creates or removes the file in between
        try:
            return Source.from_path(path)
        except FileNotFoundError:
            pass
        with suppress(FileExistsError):
            # O_EXCL follows no link, and a link may name a file that does not exist yet.
            return Source._open(os.path.realpath(path) if os.path.islink(path) else path, CREATE_FLAGS)


def open_or_extend(path: Union[str, bytes], size: int, config: Config) -> Source:
    """Return the source of a file of at least *size* bytes, 0 for those that it has; create it if it does not exist."""
    while True:  # until no other process creates or removes the file in between
        source = None
        with suppress(FileNotFoundError):
            source = Source.from_path(path)
        if source is not None:
            return extend(source, path, size, config)
        if not size:
            raise ValueError(f"mode 'a+' needs a size: {path!r} does not exist")
        # Not in an `except` block: where a signal comes before its end, CPython 3.9 would keep the source.
        source = create_whole(os.path.realpath(path) if os.path.islink(path) else path, size, config)
        if source is not None:
            return source


def extend(source: Source, path: Union[str, bytes], size: int, config: Config) -> Source:
    """Return *source*; its file grows to *size* bytes, unless it has as many. Close it if that fails."""
    before = source.size
    try:
        if not before and not size:
            raise ValueError(f"mode 'a+' needs a size: {path!r} is empty")
        if before < size:
            if source._handle.device:  # pragma: no cover: nox -s nvdimm
                raise range_error(size, source, f"the device has {before} bytes")
            check_range(size, config, source)
            if before:
                check_mappable(source, attrs.evolve(config, offset=0, length=None, reservation=None))
            allocate(source._handle.file, size - before, path, before)
            if not before:
                check_mappable(source, config)
            sync_new_file(source._handle.file, path)
    except BaseException:
        source.close()
        raise
    return source


def create_whole(path: Union[str, bytes], size: int, config: Config) -> Optional[Source]:
    """Return the source of a new file, `None` if another process has created one.

    The file gets its name when it is complete, so that no other process sees less of it, and an error leaves nothing
    behind. Where a file cannot be made without a name, it has its name from the beginning. A file that has its name
    stays: another process may use it.
    """
    source = create_unnamed(path)
    if source is None:
        return extend(Source._open(path, os.O_RDWR | os.O_CREAT), path, size, config)
    extend(source, path, size, config)
    code = link_source(source, path)
    if code == 0:
        sync_new_file(source._handle.file, path)
        return source
    source.close()
    if code == -errno.EEXIST:
        return None
    return extend(Source._open(path, os.O_RDWR | os.O_CREAT), path, size, config)  # pragma: no cover: there is no /proc


if sys.platform == "win32":

    def create_unnamed(path: Union[str, bytes]) -> Optional[Source]:
        """Return `None`: files cannot be made without a name."""
        return None

    def link_source(source: Source, path: Union[str, bytes]) -> int:
        """Return an error."""
        return -errno.ENOSYS

else:

    def create_unnamed(path: Union[str, bytes]) -> Optional[Source]:
        """Return the source of a file without a name in the folder of *path*, `None` where there is no such file."""
        folder = os.path.dirname(os.fsencode(path)) or os.fsencode(os.curdir)
        try:
            return Source._open(folder, os.O_RDWR | lib.O_TMPFILE, repr(path))
        except OSError:
            return None  # the file systems that have none say so in several ways

    def link_source(source: Source, path: Union[str, bytes]) -> int:
        """Give the file without a name its name; return 0 or -errno."""
        return lib.guarded_source_link(source._handle, os.fsencode(path))


def probe_config(config: Config, size: int, source: Source) -> Config:
    """Return a config that maps as many pages of a file that may be longer as *config* will map of *size* bytes."""
    if config.length is not None or config.offset >= size:
        return config
    pages = -(-(size - config.offset) // source.alignment) * source.alignment
    return attrs.evolve(config, length=pages) if config.offset + pages <= source.size else config


def check_range(size: int, config: Config, source: Source) -> None:
    """Check the range of *config* against the new *size* of the file."""
    end = config.offset if config.length is None else config.offset + config.length
    if config.offset >= size or end > size:
        raise range_error(end, source, f"the file will have {size} bytes")


def range_error(end: int, source: Source, found: str) -> Exception:
    """Return the exception for a range that ends at *end*, beyond the source."""
    asked = f"cannot map up to {end} of {source!r}"
    return make_pmem2_error(ErrorCode.MAP_RANGE, "pmem2_map_new", asked, found, HINTS[ErrorCode.MAP_RANGE])
