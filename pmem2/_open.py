# SPDX-License-Identifier: BSD-3-Clause
"""open: from a path to a Map in one step."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import Literal, NamedTuple, Optional, SupportsIndex

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_positive
from pmem2._config import Config
from pmem2._enums import ErrorCode, Protection, Sharing
from pmem2._error_map import HINTS, make_pmem2_error
from pmem2._files import OPEN_FLAGS, allocate
from pmem2._map import Map
from pmem2._map_create import READ_WRITE
from pmem2._source import Source, StrOrBytesPath

Mode = Literal["r", "r+", "w+", "x+", "c"]


class ModeSpec(NamedTuple):
    """What a mode means."""

    writable: bool
    sharing: Sharing
    protection: Protection
    creates: bool = False


MODES = {
    "r": ModeSpec(False, Sharing.SHARED, Protection.READ),
    "r+": ModeSpec(True, Sharing.SHARED, READ_WRITE),
    "w+": ModeSpec(True, Sharing.SHARED, READ_WRITE, creates=True),
    "x+": ModeSpec(True, Sharing.SHARED, READ_WRITE, creates=True),
    "c": ModeSpec(False, Sharing.PRIVATE, READ_WRITE),
}


def open(
    path: StrOrBytesPath, mode: Mode = "r+", *, size: Optional[SupportsIndex] = None, config: Config = Config()
) -> Map:
    """Open a file or a DAX device and map it; the file itself is closed again.

    Args:
        path: The file.
        mode: As `numpy.memmap`: "r" read only, "r+" read and write, "w+" create or truncate, "x+" create a file that
            does not exist yet, "c" copy on write: writable in memory, and the file stays as it is.
        size: Bytes, for "w+" and "x+" only: the file gets them on disk, so that no store can fail for lack of space.
            A DAX device keeps its own size, which must not be smaller.
        config: The rest; the mode decides sharing and protection.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The mode is unknown, the config contradicts it, *size* is missing, not wanted, 0 or too large.
        OSError: The file cannot be opened, created or allocated.
        Pmem2Error: It cannot be mapped, as `Map` says. An existing file has not been truncated then.
    """
    access = MODES.get(mode)
    if access is None:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, and {mode!r} is not")
    if not isinstance(config, Config):
        raise TypeError(f"a Config is needed, not {type(config).__name__}")
    if config.sharing is Sharing.PRIVATE and mode != "c":
        raise ValueError(f"mode {mode!r} is SHARED, and the config says PRIVATE; mode 'c' is copy on write")
    if config.protection not in (None, access.protection):
        raise ValueError(f"mode {mode!r} maps with {access.protection!r}, and the config says {config.protection!r}")
    config = attrs.evolve(config, sharing=access.sharing, protection=access.protection)
    if access.creates:
        if size is None:
            raise ValueError(f"mode {mode!r} needs a size")
        return create(path, as_positive(size, "size", FILE_SIZE_MAX), config, exclusive=mode == "x+")
    if size is not None:
        raise ValueError(f"mode {mode!r} takes no size: the file has one")
    with Source.from_path(path, writable=access.writable) as source:
        return Map(source, config)


def create(path: StrOrBytesPath, size: int, config: Config, *, exclusive: bool) -> Map:
    """Map a file of *size* bytes of zeros, new or emptied, but change nothing before all that can fail was tried."""
    flags = os.O_RDWR | OPEN_FLAGS
    path = os.fspath(path)
    if not exclusive and os.path.islink(path):  # to a file that is to be made, perhaps
        path = os.path.realpath(path)
    with ExitStack() as remove, ExitStack() as close, ExitStack() as undo:
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            remove.callback(os.unlink, path)
        except FileExistsError:
            if exclusive:
                raise
            Source.from_path(path).close()  # refuses what is no file, and does not block on it
            fd = os.open(path, flags)
        close.callback(os.close, fd)
        source = close.enter_context(Source._from_fd(fd, repr(path)))
        if stat.S_ISREG(os.fstat(fd).st_mode):  # pragma: no branch: nox -s nvdimm
            before = source.size
            undo.callback(os.ftruncate, fd, before)
            allocate(source._handle.file, size, path)
            if before:
                Map(source, probe_config(config, size, source)).close()
                check_range(size, config, source)
                os.ftruncate(fd, 0)
                allocate(source._handle.file, size, path)
        elif size > source.size:  # pragma: no cover: nox -s nvdimm
            raise out_of_range(size, source, f"the device has {source.size} bytes")
        result = Map(source, config)
        undo.pop_all()
        remove.pop_all()
        return result


def probe_config(config: Config, size: int, source: Source) -> Config:
    """Return a config that maps as many pages of a file that may still be longer as *config* will of *size* bytes."""
    if config.length is not None or config.offset >= size:
        return config
    pages = -(-(size - config.offset) // source.alignment) * source.alignment
    return attrs.evolve(config, length=pages) if config.offset + pages <= source.size else config


def check_range(size: int, config: Config, source: Source) -> None:
    """Check the range of *config* against the *size* that the file is going to have."""
    end = config.offset if config.length is None else config.offset + config.length
    if config.offset >= size or end > size:
        raise out_of_range(end, source, f"it is going to have {size} bytes")


def out_of_range(end: int, source: Source, found: str) -> Exception:
    """Return the exception for what would reach up to *end*."""
    asked = f"cannot map up to {end} of {source!r}"
    return make_pmem2_error(ErrorCode.MAP_RANGE, "pmem2_map_new", asked, found, HINTS[ErrorCode.MAP_RANGE])
