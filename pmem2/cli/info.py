# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 info`: the granularity and other properties of files, file systems and DAX devices, with reasons."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Optional, TypeVar

import attrs

from pmem2._config import Config
from pmem2._enums import Granularity, Protection
from pmem2._ffi import lib
from pmem2._granularity import FORCE_GRANULARITY_ENV, forced_granularity
from pmem2._source import Source
from pmem2._version import __version__
from pmem2.cli import _platform
from pmem2.cli._command import add_command
from pmem2.cli._extents import has_shared_extents
from pmem2.cli._output import source_of
from pmem2.cli._platform import TMPFS, VOLATILE
from pmem2.cli._terminal import BOLD, print_error, show_facts, show_text, styled
from pmem2.cli._text import format_size, printable, show_name
from pmem2.errors import CannotReadBoundsError, DaxRegionNotFoundError, NosuppError, SourceEmptyError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from pmem2._badblocks import BadBlock
    from pmem2.cli._command import Commands
    from pmem2.cli._platform import Mount, Region

HELP = """
Granularity is the cost of a flush: BYTE needs none; CACHE_LINE needs one instruction for each cache line; PAGE needs a
system call that writes pages back. The command does not write to PATH and does not block. Every user may run it; it
names the facts that only root may read. For a directory it shows the properties of a new file in it.

docs/command-line.md lists the keys of --json. Every key is always present; null means that the medium has no such
property. If a PATH cannot be examined, the exit status is 1; the other paths are still shown.

examples:
  pmem2 info                             the persistent memory of this machine
  pmem2 info /mnt/pmem                   a file system
  pmem2 info database /dev/dax0.0        a file and a device
  pmem2 info --json /mnt/pmem | jq '.paths[0].granularity'"""

COPY_ON_WRITE = ("btrfs", "bcachefs", "zfs")
DAX_FILESYSTEMS = ("ext2", "ext4", "xfs")
O_TMPFILE = getattr(os, "O_TMPFILE", 0o20000000 | os.O_DIRECTORY)  # missing in PyPy's os
TYPES = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}
# fields that need an open source: of every path, of all but directories, of NVDIMMs only
SOURCE_FIELDS = ("granularity", "unforced_granularity", "flush", "alignment")
FILE_FIELDS = ("bad_blocks",)
NVDIMM_FIELDS = ("numa_node", "device_id", "unsafe_shutdown_count")
T = TypeVar("T")


@attrs.frozen
class Platform:
    """Facts about the machine, the same for all paths."""

    pmem2_version: str
    libpmem2_version: Optional[str]
    libpmem2_path: Optional[str]
    flush_instruction: Optional[str]
    forced_granularity: Optional[str]
    regions: list[Region]
    eadr: Optional[bool]


@attrs.define
class Info:
    """Facts about a path; `None` if the path has no such property or it cannot be determined."""

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
    parser = add_command(commands, "info", "show the properties of files, file systems and DAX devices", HELP)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="a file, a directory, a DAX device or any other file (default: the persistent memory of this machine)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with a stable schema")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine each path and show the result."""
    platform = examine_platform()
    # in a container, sysfs has devices that /dev lacks
    paths = arguments.paths or list(filter(os.path.exists, _platform.list_persistent_memory()))
    found = [examine(path, platform) for path in paths]
    if arguments.json:
        print(
            json.dumps({"platform": attrs.asdict(platform), "paths": [attrs.asdict(info) for info in found]}, indent=2)
        )
    else:
        show_platform(platform)
        if not arguments.paths:
            show_regions(platform, found)
        for info in found:
            if info.error is None:
                show_path(info)
    for info in found:
        if info.error is not None:
            print_error(f"{show_name(info.path)}: {info.error}")
    return int(any(info.error is not None for info in found))


def examine_platform() -> Platform:
    """Return the facts about the machine."""
    regions = _platform.list_regions()
    forced = forced_granularity()
    path, version = _platform.loaded_libpmem2(_platform.read_text(_platform.PROC / "self/maps") or "")
    cpuinfo = _platform.read_text(_platform.PROC / "cpuinfo") or ""
    return Platform(
        pmem2_version=__version__,
        libpmem2_version=version,
        libpmem2_path=path,
        flush_instruction=_platform.flush_instruction(cpuinfo, os.environ),
        forced_granularity=None if forced is None else forced.name,
        regions=regions,
        eadr=all(region.persistence_domain == "cpu_cache" for region in regions) if regions else None,
    )


def examine(path: str, platform: Platform) -> Info:
    """Return the facts about a path."""
    info = Info(path)
    try:
        status = os.stat(path)
    except OSError as error:
        info.error = error.strerror
        return info
    info.type = TYPES[stat.S_IFMT(status.st_mode)]
    info.kind = "not mappable"
    mount = _platform.find_mount(path)
    info.filesystem, info.mount_point, info.mount_source = mount.filesystem, mount.point, mount.source
    info.mount_options = None if mount.point is None else list(mount.options)
    if _platform.is_dax_device(status):  # pragma: no cover: nox -s nvdimm
        examine_device(info, status)
    elif stat.S_ISREG(status.st_mode):
        info.size = status.st_size
        info.kind = classify_file(mount, None)
    info.region = _platform.find_region(status)
    domains = {region.name: region.persistence_domain for region in platform.regions}
    info.persistence_domain = None if info.region is None else domains.get(info.region)
    if info.kind == "not mappable" and not stat.S_ISDIR(status.st_mode):
        info.granularity_reason = f"a {info.type} cannot be mapped"
        if info.region is not None:  # pragma: no cover: nox -s nvdimm
            info.notes.append("to use it, make a file system on it and mount that with -o dax")
        return info
    folder = info.type == "directory"
    try:
        with open_for_probe(path, status) as source:
            examine_source(info, source, mount, platform)
    except OSError as error:
        info.granularity_reason = explain_folder_error(error) if folder else error.strerror
        if needs_root(error):
            fields = [*SOURCE_FIELDS, *FILE_FIELDS * (not folder), *NVDIMM_FIELDS * (info.region is not None)]
            info.needs_root += [name for name in fields if getattr(info, name) is None]
    return info


def explain_folder_error(error: OSError) -> str:
    """Return why no file in a directory could be examined."""
    if error.errno == errno.EOPNOTSUPP:
        return "its file system cannot create unnamed files (O_TMPFILE): give the path of a file in it"
    return f"cannot create a file in it: {error.strerror}"


def classify_file(mount: Mount, granularity: Optional[Granularity]) -> str:
    """Return the kind of a regular file; while its granularity is unknown, the mount decides."""
    if mount.filesystem in TMPFS:
        return "tmpfs"
    dax = mount.dax if granularity is None else granularity < Granularity.PAGE
    return "fsdax" if dax else "regular file"


def examine_device(info: Info, status: os.stat_result) -> None:  # pragma: no cover: nox -s nvdimm
    """Add the facts about a DAX device that every user may read from sysfs."""
    info.kind = "devdax"
    device = _platform.sysfs_device(status)
    for name, key in (("size", "size"), ("align", "alignment"), ("numa_node", "numa_node")):
        text = _platform.read_text(device / name)
        setattr(info, key, None if text is None else int(text))
    region = _platform.find_cxl_region(status)
    if region is not None:
        info.notes.append(f"memory of CXL {region}; ask its vendor whether it survives a power failure")


@contextmanager
def open_for_probe(path: str, status: os.stat_result) -> Iterator[Source]:
    """Yield a source to examine: the path itself or, for a directory, an unnamed file in it."""
    if not stat.S_ISDIR(status.st_mode):
        with Source.from_path(path, writable=False) as source:
            yield source
        return
    fd = os.open(path, O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with source_of(fd, f"a new file in {path!r}") as source:
            os.ftruncate(fd, source.alignment)  # on hugetlbfs, a huge page
            yield source
    finally:
        os.close(fd)


def examine_source(info: Info, source: Source, mount: Mount, platform: Platform) -> None:
    """Add the facts that libpmem2 reports."""
    info.alignment = source.alignment
    try:
        granularity = probe_granularity(source)
        with without_forced_granularity():
            unforced = probe_granularity(source)
    except SourceEmptyError:
        info.granularity_reason = "the file is empty: give it a size"
        return
    except OSError as error:
        info.kind = "not mappable"
        info.granularity_reason = error.strerror
        return
    if info.type == "directory":
        info.notes.append("the granularity is that of a new file in this directory")
    info.notes += copy_on_write_notes(source.fd, mount)
    info.granularity, info.unforced_granularity = granularity.name, unforced.name
    info.granularity_reason = explain_granularity(granularity, unforced, info.kind, mount, platform)
    info.flush = {
        Granularity.PAGE: "msync",
        Granularity.CACHE_LINE: platform.flush_instruction,
        Granularity.BYTE: "none",
    }[granularity]
    if info.type == "regular file":
        info.kind = classify_file(mount, unforced)
    info.device_id = query(info, "device_id", lambda: source.device_id)
    info.unsafe_shutdown_count = query(info, "unsafe_shutdown_count", lambda: source.device_usc)
    if info.type != "directory":
        info.bad_blocks = query(info, "bad_blocks", lambda: list_bad_blocks(source))
    if info.numa_node is None:  # pragma: no branch: nox -s nvdimm
        info.numa_node = query(info, "numa_node", lambda: source.numa_node)


def copy_on_write_notes(fd: int, mount: Mount) -> list[str]:
    """Return a note if a store can need new space, although all space of the file is allocated."""
    risk = "on a full disk, a store can end the process (SIGBUS) although all space is allocated"
    if mount.filesystem in COPY_ON_WRITE and not lib.guarded_inode_flags(fd) & lib.FS_NOCOW_FL:
        return [f"{mount.filesystem} is copy-on-write: {risk}; chattr +C on the directory of new files prevents it"]
    if has_shared_extents(fd):
        return [f"the file shares blocks with a snapshot or a reflink (copy-on-write): {risk}"]
    return []


def probe_granularity(source: Source) -> Granularity:
    """Return the granularity of a shared map."""
    length = None if source.size < source.alignment else source.alignment
    with source.map(Config(length=length, protection=Protection.READ)) as map:
        return map.granularity


@contextmanager
def without_forced_granularity() -> Iterator[None]:
    """Unset PMEM2_FORCE_GRANULARITY for the block."""
    value = os.environ.pop(FORCE_GRANULARITY_ENV, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[FORCE_GRANULARITY_ENV] = value


def list_bad_blocks(source: Source) -> list[BadBlock]:
    """Return all bad blocks of a source."""
    with source.bad_blocks() as blocks:
        return list(blocks)


def query(info: Info, name: str, read: Callable[[], T]) -> Optional[T]:
    """Return a property that libpmem2 reports; `None` if the source does not have it, or on an error, with a note."""
    try:
        return read()
    except (NosuppError, DaxRegionNotFoundError):
        return None
    except OSError as error:
        add_note(info, name, error)
        return None


def add_note(info: Info, name: str, error: OSError) -> None:
    """Note why a property is unknown, and whether root could read it."""
    if needs_root(error):
        info.needs_root.append(name)
    info.notes.append(f"{name}: {error.strerror}")


def needs_root(error: OSError) -> bool:
    """Return whether the error comes from a missing permission that root has."""
    return isinstance(error, (PermissionError, CannotReadBoundsError)) and os.geteuid() != 0


def explain_granularity(
    granularity: Granularity, unforced: Granularity, kind: Optional[str], mount: Mount, platform: Platform
) -> str:
    """Return why a map has its granularity; *unforced* is the one without PMEM2_FORCE_GRANULARITY."""
    reason = explain_unforced(unforced, kind, mount, platform)
    if platform.forced_granularity is None:
        return reason
    return f"{FORCE_GRANULARITY_ENV} forces {granularity.name}; the medium itself gives {unforced.name}: {reason}"


def explain_unforced(granularity: Granularity, kind: Optional[str], mount: Mount, platform: Platform) -> str:
    """Return why the medium gives its granularity."""
    if granularity is not Granularity.PAGE:
        medium = "a DAX device" if kind == "devdax" else "a file on DAX: the kernel accepts MAP_SYNC"
        domains = ", ".join(f"{region.name} {region.persistence_domain or 'unknown'}" for region in platform.regions)
        source = f"persistence domains: {domains}" if domains else "no NVDIMM region reports a persistence domain"
        if granularity is Granularity.BYTE:
            return f"{medium}, and the platform flushes its caches when power fails (eADR; {source})"
        return f"{medium}, but the platform does not flush its caches when power fails (no eADR; {source})"
    where = mount.filesystem if mount.point is None else f"{mount.filesystem} at {mount.point}"
    if mount.filesystem in VOLATILE:
        return f"{mount.filesystem} keeps files in memory and loses them when power fails"
    if mount.dax:
        return f"{where} is mounted with DAX, but the kernel refuses MAP_SYNC for it"
    if mount.filesystem in DAX_FILESYSTEMS:
        return f"{where} is not mounted with -o dax: stores go through the page cache"
    return f"{where} has no DAX: stores go through the page cache"


# ---- output for people


def show_platform(platform: Platform) -> None:
    """Print the facts about the machine."""
    eadr = {None: "no NVDIMM region", True: "yes: the platform flushes its caches when power fails", False: "no"}[
        platform.eadr
    ]
    version = platform.libpmem2_version or "(unknown version)"
    rows = [
        ("pmem2", f"{platform.pmem2_version}, with libpmem2 {version}"),
        ("flush instruction", platform.flush_instruction or "unknown"),
        ("eADR", eadr),
    ]
    if platform.forced_granularity is not None:
        rows.append((FORCE_GRANULARITY_ENV, platform.forced_granularity))
    show_facts(rows)


def show_regions(platform: Platform, found: Sequence[Info]) -> None:
    """Print the regions and namespaces of the machine, or that it has no persistent memory."""
    rows = [
        (region.name, f"persistence domain {region.persistence_domain or 'unknown'}") for region in platform.regions
    ]
    rows += [(name, f"{mode}, {format_size(size)}") for name, mode, size in _platform.list_namespaces()]
    rows += [(f"CXL {name}", f"{mode}, {format_size(size)}") for name, mode, size in _platform.list_cxl_regions()]
    if rows:
        print()
        show_facts(rows)
    if not found:
        print()
        show_text("No DAX mount and no DAX device found. `pmem2 info PATH` examines any file or directory.")


def format_exact_size(number: int) -> str:
    """Format a number of bytes, rounded and exact."""
    return format_size(number) + (f" ({number} bytes)" if number >= 1024 else "")


def show_path(info: Info) -> None:
    """Print the facts about a path."""
    print(f"\n{styled(printable(info.path), BOLD)}")
    rows = [
        ("type", info.type),
        ("kind", info.kind if info.kind in ("fsdax", "devdax") else None),  # others repeat the type or the file system
        ("file system", None if info.filesystem is None else format_filesystem(info)),
        ("granularity", info.granularity),
        ("because", info.granularity_reason),
        ("flushed by", info.flush),
        ("size", None if info.size is None else format_exact_size(info.size)),
        ("alignment", None if info.alignment is None else format_size(info.alignment)),
        ("region", info.region),
        ("persistence domain", info.persistence_domain),
        ("NUMA node", info.numa_node),
        ("device id", info.device_id),
        ("unsafe shutdowns", info.unsafe_shutdown_count),
        ("bad blocks", None if info.bad_blocks is None else format_bad_blocks(info.bad_blocks)),
        ("needs root", ", ".join(info.needs_root) or None),
        *(("note", text) for text in info.notes),
    ]
    show_facts([(f"  {name}", printable(str(value))) for name, value in rows if value is not None])


def format_filesystem(info: Info) -> str:
    """Describe the file system and its mount."""
    if info.mount_point is None:
        return f"{info.filesystem}, at a mount point that /proc does not list"
    return f"{info.filesystem} at {info.mount_point} ({', '.join(info.mount_options or ())})"


def format_bad_blocks(blocks: Sequence[BadBlock]) -> str:
    """List the bad blocks."""
    return ", ".join(f"{block.length} bytes at {block.offset}" for block in blocks) or "none known"
