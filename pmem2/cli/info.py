# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 info`: what a file, a file system or a DAX device can do, and why."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Optional, TypeVar

import attrs

from pmem2._config import Config
from pmem2._enums import Granularity, Protection
from pmem2._granularity import FORCE_GRANULARITY_ENV
from pmem2._source import Source
from pmem2._version import __version__
from pmem2.cli import _platform
from pmem2.cli._command import add_command
from pmem2.cli._terminal import complain, show_table, size_text
from pmem2.errors import CannotReadBoundsError, DaxRegionNotFoundError, NosuppError, SourceEmptyError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from pmem2._badblocks import BadBlock
    from pmem2.cli._command import Commands
    from pmem2.cli._platform import Mount, Region

HELP = """
Granularity is what a flush costs: BYTE, nothing needs to be flushed; CACHE_LINE, an instruction for each line;
PAGE, a system call that writes pages back. Nothing is written to PATH, and nothing blocks. Any user may ask; what
only root can be told is named. Of a directory the figures are those of a new file in it.

The keys of --json are those of docs/command-line.md; each is always there, null where the medium has no such thing.
The exit status is 1 if a PATH cannot be examined; the others are shown all the same.

examples:
  pmem2 info /mnt/pmem                   a file system
  pmem2 info database /dev/dax0.0        a file and a device
  pmem2 info --json /mnt/pmem | jq '.paths[0].granularity'"""

TMPFS = ("tmpfs", "ramfs")
DAX_FILESYSTEMS = ("ext2", "ext4", "xfs")
O_TMPFILE = getattr(os, "O_TMPFILE", 0o20000000 | os.O_DIRECTORY)  # PyPy's os has no such name
TYPES = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}
# what only a source tells
OF_SOURCES = ("granularity", "unforced_granularity", "flush", "alignment")
OF_FILES = ("bad_blocks",)
OF_NVDIMMS = ("numa_node", "device_id", "unsafe_shutdown_count")
T = TypeVar("T")


@attrs.frozen
class Platform:
    """What is the same for all paths."""

    pmem2_version: str
    libpmem2_version: Optional[str]
    libpmem2_path: Optional[str]
    flush_instruction: Optional[str]
    forced_granularity: Optional[str]
    regions: list[Region]
    eadr: Optional[bool]


@attrs.define
class Info:
    """What is known of a path; `None` where there is no such thing, or it cannot be known."""

    path: str
    error: Optional[str] = None
    type: Optional[str] = None
    kind: Optional[str] = None
    filesystem: Optional[str] = None
    mount_point: Optional[str] = None
    mount_source: Optional[str] = None
    mount_options: Optional[list[str]] = None
    granularity: Optional[str] = None
    unforced_granularity: Optional[str] = None
    granularity_reason: Optional[str] = None
    flush: Optional[str] = None
    size: Optional[int] = None
    alignment: Optional[int] = None
    region: Optional[str] = None
    persistence_domain: Optional[str] = None
    numa_node: Optional[int] = None
    device_id: Optional[str] = None
    unsafe_shutdown_count: Optional[int] = None
    bad_blocks: Optional[list[BadBlock]] = None
    needs_root: list[str] = attrs.Factory(list)
    notes: list[str] = attrs.Factory(list)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "info", "tell what a file, a file system or a DAX device can do, and why", HELP)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, a directory, a DAX device, anything")
    parser.add_argument("--json", action="store_true", help="print JSON, with always the same keys")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine each path, and show what was found."""
    platform = examine_platform()
    found = [examine(path, platform) for path in arguments.paths]
    if arguments.json:
        print(
            json.dumps({"platform": attrs.asdict(platform), "paths": [attrs.asdict(info) for info in found]}, indent=2)
        )
    else:
        show_platform(platform)
        for info in found:
            show(info)
    for info in found:
        if info.error is not None:
            complain(f"{info.path}: {info.error}")
    return int(any(info.error is not None for info in found))


def examine_platform() -> Platform:
    """Return what is the same for all paths."""
    regions = _platform.regions()
    path, version = _platform.library(_platform.content(_platform.PROC / "self/maps") or "")
    cpuinfo = _platform.content(_platform.PROC / "cpuinfo") or ""
    return Platform(
        pmem2_version=__version__,
        libpmem2_version=version,
        libpmem2_path=path,
        flush_instruction=_platform.flush_instruction(cpuinfo, os.environ),
        forced_granularity=_platform.forced_granularity(os.environ),
        regions=regions,
        eadr=all(region.persistence_domain == "cpu_cache" for region in regions) if regions else None,
    )


def examine(path: str, platform: Platform) -> Info:
    """Return what is known of a path."""
    info = Info(path)
    try:
        status = os.stat(path)
    except OSError as error:
        info.error = error.strerror
        return info
    info.type = TYPES[stat.S_IFMT(status.st_mode)]
    info.kind = "not mappable"
    mount = _platform.mount_of(path)
    if mount is not None:
        info.filesystem, info.mount_point, info.mount_source = mount.filesystem, mount.point, mount.source
        info.mount_options = list(mount.options)
    if _platform.is_dax_device(status):  # pragma: no cover: nox -s nvdimm
        examine_device(info, status)
    elif stat.S_ISREG(status.st_mode):
        info.size = status.st_size
        info.kind = kind_of_file(mount, None)
    elif not stat.S_ISDIR(status.st_mode):
        info.granularity_reason = f"a {info.type} cannot be mapped"
        return info
    info.region = _platform.region_of(status)
    domains = {region.name: region.persistence_domain for region in platform.regions}
    info.persistence_domain = None if info.region is None else domains.get(info.region)
    folder = info.type == "directory"
    try:
        with opened(path, status) as source:
            examine_source(info, source, mount, platform)
    except OSError as error:
        info.granularity_reason = f"no new file in it: {error.strerror}" if folder else error.strerror
        if is_refusal(error):
            told = [*OF_SOURCES, *OF_FILES * (not folder), *OF_NVDIMMS * (info.region is not None)]
            info.needs_root += [name for name in told if getattr(info, name) is None]
    return info


def kind_of_file(mount: Optional[Mount], granularity: Optional[Granularity]) -> str:
    """Return what kind a regular file is; with no granularity known, by its mount."""
    if mount is not None and mount.filesystem in TMPFS:
        return "tmpfs"
    dax = (mount is not None and mount.dax) if granularity is None else granularity < Granularity.PAGE
    return "fsdax" if dax else "regular file"


def examine_device(info: Info, status: os.stat_result) -> None:  # pragma: no cover: nox -s nvdimm
    """Add what sysfs tells any user of a DAX device."""
    info.kind = "devdax"
    device = _platform.device_of(status)
    for name, key in (("size", "size"), ("align", "alignment"), ("numa_node", "numa_node")):
        text = _platform.content(device / name)
        setattr(info, key, None if text is None else int(text))


@contextmanager
def opened(path: str, status: os.stat_result) -> Iterator[Source]:
    """Yield a source to be examined: the path itself, or of a directory a file in it that has no name."""
    if not stat.S_ISDIR(status.st_mode):
        with Source.from_path(path, writable=False) as source:
            yield source
        return
    fd = os.open(path, O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, os.sysconf("SC_PAGESIZE"))
        with Source.from_fd(fd) as source:
            yield source
    finally:
        os.close(fd)


def examine_source(info: Info, source: Source, mount: Optional[Mount], platform: Platform) -> None:
    """Add what libpmem2 tells."""
    info.alignment = source.alignment
    try:
        granularity = granularity_of(source)
        with unforced():
            own = granularity_of(source)
    except SourceEmptyError:
        info.granularity_reason = "the file is empty: give it a size"
        return
    except OSError as error:
        info.kind = "not mappable"
        info.granularity_reason = error.strerror
        return
    if info.type == "directory":
        info.notes.append("the granularity is that of a new file in this directory")
    info.granularity, info.unforced_granularity = granularity.name, own.name
    info.granularity_reason = reason(granularity, own, info.kind, mount, platform)
    info.flush = {
        Granularity.PAGE: "msync",
        Granularity.CACHE_LINE: platform.flush_instruction,
        Granularity.BYTE: "none",
    }[granularity]
    if info.type == "regular file":
        info.kind = kind_of_file(mount, own)
    info.device_id = asked(info, "device_id", lambda: source.device_id)
    info.unsafe_shutdown_count = asked(info, "unsafe_shutdown_count", lambda: source.device_usc)
    if info.type != "directory":
        info.bad_blocks = asked(info, "bad_blocks", lambda: bad_blocks_of(source))
    if info.numa_node is None:  # pragma: no branch: nox -s nvdimm
        info.numa_node = asked(info, "numa_node", lambda: source.numa_node)


def granularity_of(source: Source) -> Granularity:
    """Return the granularity that a shared map has."""
    length = None if source.size < source.alignment else source.alignment
    with source.map(Config(length=length, protection=Protection.READ)) as map:
        return map.granularity


@contextmanager
def unforced() -> Iterator[None]:
    """Take the variable out of the environment for a while."""
    value = os.environ.pop(FORCE_GRANULARITY_ENV, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[FORCE_GRANULARITY_ENV] = value


def bad_blocks_of(source: Source) -> list[BadBlock]:
    """Return all bad blocks of a source."""
    with source.bad_blocks() as blocks:
        return list(blocks)


def asked(info: Info, name: str, ask: Callable[[], T]) -> Optional[T]:
    """Return what libpmem2 answers, `None` if there is no such thing; what is refused is noted."""
    try:
        return ask()
    except (NosuppError, DaxRegionNotFoundError):
        return None
    except OSError as error:
        note(info, name, error)
        return None


def note(info: Info, name: str, error: OSError) -> None:
    """Note that something cannot be known, and whether root could know it."""
    if is_refusal(error):
        info.needs_root.append(name)
    info.notes.append(f"{name}: {error.strerror}")


def is_refusal(error: OSError) -> bool:
    """Return whether root would be told."""
    return isinstance(error, (PermissionError, CannotReadBoundsError)) and os.geteuid() != 0


def reason(
    granularity: Granularity, own: Granularity, kind: Optional[str], mount: Optional[Mount], platform: Platform
) -> str:
    """Return why a map has its granularity, *own* being what it has when none is forced."""
    because = reason_of_medium(own, kind, mount, platform)
    if platform.forced_granularity is None:
        return because
    return f"{FORCE_GRANULARITY_ENV} forces {granularity.name}; the medium itself gives {own.name}: {because}"


def reason_of_medium(granularity: Granularity, kind: Optional[str], mount: Optional[Mount], platform: Platform) -> str:
    """Return why a medium gives its granularity."""
    if granularity is not Granularity.PAGE:
        where = "a DAX device" if kind == "devdax" else "a file on DAX: the kernel accepts MAP_SYNC"
        domains = ", ".join(f"{region.name} {region.persistence_domain or 'unknown'}" for region in platform.regions)
        told = f"persistence domains: {domains}" if domains else "no NVDIMM region tells a persistence domain"
        if granularity is Granularity.BYTE:
            return f"{where}, and the platform flushes its caches when power fails (eADR; {told})"
        return f"{where}, but the platform does not flush its caches when power fails (no eADR; {told})"
    if mount is None:
        return "the kernel refuses MAP_SYNC: stores go through the page cache"
    if mount.filesystem in TMPFS:
        return f"{mount.filesystem} keeps files in the page cache, and loses them when power fails"
    if mount.dax:
        return f"{mount.filesystem} at {mount.point} is mounted with DAX, but the kernel refuses MAP_SYNC for it"
    if mount.filesystem in DAX_FILESYSTEMS:
        return f"{mount.filesystem} at {mount.point} is not mounted with -o dax: stores go through the page cache"
    return f"{mount.filesystem} at {mount.point} has no DAX: stores go through the page cache"


# ---- for people


def show_platform(platform: Platform) -> None:
    """Print what is the same for all paths."""
    eadr = {None: "no NVDIMM region", True: "yes: caches are flushed when power fails", False: "no"}[platform.eadr]
    version = platform.libpmem2_version or "of an unknown version"
    rows = [
        ("pmem2", f"{platform.pmem2_version}, with libpmem2 {version}"),
        ("flush instruction", platform.flush_instruction or "unknown"),
        ("eADR", eadr),
    ]
    rows += [
        (region.name, f"persistence domain {region.persistence_domain or 'unknown'}") for region in platform.regions
    ]
    if FORCE_GRANULARITY_ENV in os.environ:
        claim = platform.forced_granularity or f"{os.environ[FORCE_GRANULARITY_ENV]!r}, which libpmem2 ignores"
        rows.append((FORCE_GRANULARITY_ENV, claim))
    show_table(("", ""), rows)


def exact_size_text(number: int) -> str:
    """Return a number of bytes, rounded and to the byte."""
    return size_text(number) + (f" ({number} bytes)" if number >= 1024 else "")


def show(info: Info) -> None:
    """Print what is known of a path."""
    print(f"\n{info.path}")
    rows = [
        ("error", info.error),
        ("type", info.type),
        ("kind", info.kind),
        ("file system", None if info.filesystem is None else filesystem_text(info)),
        ("granularity", info.granularity),
        ("because", info.granularity_reason),
        ("flushed by", info.flush),
        ("size", None if info.size is None else exact_size_text(info.size)),
        ("alignment", None if info.alignment is None else size_text(info.alignment)),
        ("region", info.region),
        ("persistence domain", info.persistence_domain),
        ("NUMA node", info.numa_node),
        ("device id", info.device_id),
        ("unsafe shutdowns", info.unsafe_shutdown_count),
        ("bad blocks", None if info.bad_blocks is None else bad_blocks_text(info.bad_blocks)),
        ("needs root", ", ".join(info.needs_root) or None),
        *(("note", text) for text in info.notes),
    ]
    show_table(("", ""), [(f"  {name}", str(value)) for name, value in rows if value is not None])


def filesystem_text(info: Info) -> str:
    """Return the file system and how it is mounted."""
    return f"{info.filesystem} at {info.mount_point} ({', '.join(info.mount_options or ())})"


def bad_blocks_text(blocks: Sequence[BadBlock]) -> str:
    """Return how many bad blocks there are, and where."""
    return ", ".join(f"{block.length} bytes at {block.offset}" for block in blocks) or "none known"
