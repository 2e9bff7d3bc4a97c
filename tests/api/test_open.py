# SPDX-License-Identifier: BSD-3-Clause
"""open: every mode, invalid arguments, and failures that keep existing files and leave no new ones."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Literal

import pytest
from support.children import RunChild
from support.special_files import make_device, make_fifo, make_socket
from support.values import CONTENT, PAGE, Index, OwnPath, descriptors, non_integers

import pmem2
from pmem2 import Config, Granularity, Protection, Sharing

Mode = Literal["r", "r+", "w+", "x+", "c"]
READ, READ_WRITE = Protection.READ, Protection.READ | Protection.WRITE
MODES: dict[Mode, tuple[Sharing, Protection]] = {
    "r": (Sharing.SHARED, READ),
    "r+": (Sharing.SHARED, READ_WRITE),
    "w+": (Sharing.SHARED, READ_WRITE),
    "x+": (Sharing.SHARED, READ_WRITE),
    "c": (Sharing.PRIVATE, READ_WRITE),
}
every_mode = pytest.mark.parametrize("mode", MODES)
existing = pytest.mark.parametrize("mode", ["r", "r+", "c"])
creating = pytest.mark.parametrize("mode", ["w+", "x+"])


@pytest.fixture
def new_path(tmp_path: Path) -> Path:
    """The path of a file that does not exist."""
    return tmp_path / "new"


def size_for(mode: Mode) -> int | None:
    """Return a size for modes that require one, else None."""
    return PAGE if mode in ("w+", "x+") else None


# ---- modes


@every_mode
def test_mode_sets_sharing_and_protection(path: Path, new_path: Path, mode: Mode) -> None:
    """The mode sets sharing and protection of the map and of its Config."""
    sharing, protection = MODES[mode]
    with pmem2.open(new_path if mode == "x+" else path, mode, size=size_for(mode)) as map:
        assert map.sharing is sharing
        assert map.protection == protection
        assert map.config == Config(sharing=sharing, protection=protection)


def test_default_mode(path: Path) -> None:
    """The default mode is r+."""
    with pmem2.open(path) as map:
        assert map[:] == CONTENT
        map.memcpy(0, b"here")
    assert path.read_bytes() == b"here" + CONTENT[4:]


@existing
def test_existing_file_is_kept(path: Path, mode: Mode) -> None:
    """r, r+ and c map the whole file and leave it unchanged."""
    before = path.stat()
    with pmem2.open(path, mode) as map:
        assert map[:] == CONTENT
    assert path.read_bytes() == CONTENT
    assert path.stat().st_ino == before.st_ino


def test_copy_on_write(path: Path) -> None:
    """Stores to a map of mode c stay in that map."""
    with pmem2.open(path, "c") as map:
        map.memcpy(0, b"mine")
        map[4:8] = b"mine"
        map.persist()
        assert map[:8] == b"mine" * 2
        assert path.read_bytes() == CONTENT


@creating
@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, 3 * PAGE + 1])
def test_create_file(new_path: Path, mode: Mode, size: int) -> None:
    """w+ and x+ create a zero-filled file of the given size whose blocks are allocated."""
    with pmem2.open(new_path, mode, size=Index(size)) as map:
        assert map.size == size
        assert map[:] == bytes(size)
        map[-1] = 42
    assert new_path.read_bytes() == bytes(size - 1) + b"*"
    assert new_path.stat().st_blocks * 512 >= size


@pytest.mark.parametrize("size", [1, PAGE, 2 * PAGE, 2 * PAGE + 1, 5 * PAGE])
def test_truncate_file(path: Path, size: int) -> None:
    """w+ zero-fills an existing file of any size and keeps its inode and permissions."""
    path.chmod(0o600)
    before = path.stat()
    with pmem2.open(path, "w+", size=size) as map:
        assert map[:] == bytes(size)
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, size)
    assert after.st_blocks * 512 >= size
    assert path.read_bytes() == bytes(size)


@pytest.mark.parametrize("before", [1, 4095, 4096, 5000, 8192])
@pytest.mark.parametrize("size", [1, 4097, 5000])
def test_truncate_inside_page(new_path: Path, before: int, size: int) -> None:
    """Mode w+ gives an existing file any size, also one that ends inside a page behind the old end."""
    new_path.write_bytes(b"x" * before)
    with pmem2.open(new_path, "w+", size=size) as map:
        assert len(map) == size
    assert new_path.read_bytes() == bytes(size)


def test_dangling_link(new_path: Path, tmp_path: Path) -> None:
    """w+ creates the target of a symbolic link, x+ refuses the link, and a failure removes only the created file."""
    link = tmp_path / "link"
    link.symlink_to(new_path)
    with pytest.raises(FileExistsError):
        pmem2.open(link, "x+", size=PAGE)
    with pytest.raises(pmem2.OffsetUnalignedError):
        pmem2.open(link, "w+", size=PAGE, config=pmem2.Config(offset=1))
    assert link.is_symlink()
    assert not new_path.exists()
    with pmem2.open(link, "w+", size=PAGE) as map:
        map[0] = 42
    assert link.is_symlink()
    assert new_path.read_bytes() == b"*" + bytes(PAGE - 1)


def test_holes_are_allocated(new_path: Path) -> None:
    """w+ allocates the blocks of a file that was sparse."""
    new_path.touch()
    os.truncate(new_path, 1024 * PAGE)
    assert new_path.stat().st_blocks == 0
    with pmem2.open(new_path, "w+", size=1024 * PAGE):
        assert new_path.stat().st_blocks * 512 >= 1024 * PAGE


def test_exclusive_creation(path: Path) -> None:
    """x+ raises FileExistsError for an existing file and leaves it unchanged."""
    with pytest.raises(FileExistsError) as caught:
        pmem2.open(path, "x+", size=PAGE)
    assert os.fspath(caught.value.filename) == str(path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("umask", "left"), [(0o000, 0o666), (0o022, 0o644), (0o077, 0o600), (0o137, 0o640)])
@creating
def test_umask(new_path: Path, mode: Mode, umask: int, left: int) -> None:
    """A created file has the permissions that the umask allows."""
    before = os.umask(umask)
    try:
        pmem2.open(new_path, mode, size=PAGE).close()
    finally:
        os.umask(before)
    assert new_path.stat().st_mode & 0o7777 == left


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, OwnPath])
def test_path_types(path: Path, kind: Callable[[Path], Path]) -> None:
    """The path of an existing file may be a str, bytes or any os.PathLike."""
    with pmem2.open(kind(path)) as map:
        assert map[:] == CONTENT


@creating
@pytest.mark.parametrize("kind", [str, os.fsencode, Path, OwnPath])
def test_path_types_of_created(new_path: Path, mode: Mode, kind: Callable[[Path], Path]) -> None:
    """The path of a created file may be a str, bytes or any os.PathLike."""
    with pmem2.open(kind(new_path), mode, size=PAGE) as map:
        assert map[:] == bytes(PAGE)
    assert new_path.stat().st_size == PAGE


@every_mode
def test_config(path: Path, new_path: Path, mode: Mode) -> None:
    """The Config sets the range in the file and the place in a reservation."""
    size = None if size_for(mode) is None else 2 * PAGE
    with pmem2.VMReservation(2 * PAGE) as reservation:
        config = Config(offset=PAGE, length=PAGE, reservation=reservation, reservation_offset=PAGE)
        with pmem2.open(new_path if mode == "x+" else path, mode, size=size, config=config) as map:
            assert map.address == reservation.address + PAGE
            assert map[:] == (bytes(PAGE) if size else CONTENT[PAGE:])
            assert reservation.first() is map


@every_mode
def test_config_repeats_mode(path: Path, new_path: Path, mode: Mode) -> None:
    """A Config may repeat the sharing and protection of the mode."""
    config = Config(protection=MODES[mode][1], sharing=MODES[mode][0])
    with pmem2.open(new_path if mode == "x+" else path, mode, size=size_for(mode), config=config) as map:
        assert map.config == config


@every_mode
def test_descriptor_is_closed(path: Path, new_path: Path, mode: Mode) -> None:
    """Only the map stays open, no descriptor."""
    before = descriptors()
    with pmem2.open(new_path if mode == "x+" else path, mode, size=size_for(mode)):
        assert descriptors() == before
    assert descriptors() == before


# ---- invalid arguments


@pytest.mark.parametrize("mode", ["", "w", "rw", "a", "x", "R", "r ", "rb", "+r", "readonly", "copyonwrite", None, 0])
def test_unknown_mode(path: Path, mode: Mode) -> None:
    """An unknown mode raises ValueError that lists the valid modes."""
    with pytest.raises(ValueError, match=re.escape(repr(mode))) as caught:
        pmem2.open(path, mode)
    assert all(valid in str(caught.value) for valid in MODES)
    assert path.read_bytes() == CONTENT


@creating
def test_missing_size(path: Path, mode: Mode) -> None:
    """w+ and x+ without a size raise ValueError and leave the file unchanged."""
    with pytest.raises(ValueError, match="size"):
        pmem2.open(path, mode)
    assert path.read_bytes() == CONTENT


@existing
@pytest.mark.parametrize("size", [0, 1, PAGE, 2 * PAGE])
def test_unwanted_size(path: Path, mode: Mode, size: int) -> None:
    """A size raises ValueError in the modes r, r+ and c."""
    with pytest.raises(ValueError, match="size"):
        pmem2.open(path, mode, size=size)
    assert path.read_bytes() == CONTENT


@creating
@pytest.mark.parametrize("size", [0, -1, -PAGE, -(2**70), 2**63, 2**64, 2**70])
def test_size_out_of_range(path: Path, new_path: Path, mode: Mode, size: int) -> None:
    """A size that is 0, negative or too large for a file raises ValueError before a file is created or truncated."""
    for name in (path, new_path):
        with pytest.raises(ValueError, match="size"):
            pmem2.open(name, mode, size=size)
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


@creating
@non_integers
def test_size_of_wrong_type(path: Path, new_path: Path, mode: Mode, wrong: int) -> None:
    """A size that is a bool or not an integer raises TypeError before a file is created or truncated."""
    for name in (path, new_path):
        with pytest.raises(TypeError, match="size"):
            pmem2.open(name, mode, size=wrong)
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


@pytest.mark.parametrize("mode", ["r", "r+", "w+", "x+"])
def test_private_needs_copy_on_write(path: Path, new_path: Path, mode: Mode) -> None:
    """PRIVATE raises ValueError in every mode but c, before a file is created or truncated."""
    for name in (path, new_path):
        with pytest.raises(ValueError, match="PRIVATE"):
            pmem2.open(name, mode, size=size_for(mode), config=Config(sharing=Sharing.PRIVATE))
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


PROTECTIONS = [
    Protection.NONE,
    READ,
    Protection.WRITE,
    READ_WRITE,
    READ | Protection.EXEC,
    READ_WRITE | Protection.EXEC,
]


@pytest.mark.parametrize(
    ("mode", "protection"),
    [(mode, protection) for mode, (_, own) in MODES.items() for protection in PROTECTIONS if protection != own],
)
def test_conflicting_protection(path: Path, new_path: Path, mode: Mode, protection: Protection) -> None:
    """A protection that differs from the mode's raises ValueError before a file is created or truncated."""
    for name in (path, new_path):
        with pytest.raises(ValueError, match=r"(?i)protection"):
            pmem2.open(name, mode, size=size_for(mode), config=Config(protection=protection))
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


@every_mode
@pytest.mark.parametrize("wrong", [None, {}, 0, Granularity.PAGE, Config])
def test_config_of_wrong_type(path: Path, new_path: Path, mode: Mode, wrong: Config) -> None:
    """A config that is not a Config raises TypeError before a file is created or truncated."""
    for name in (path, new_path):
        with pytest.raises(TypeError, match="Config"):
            pmem2.open(name, mode, size=size_for(mode), config=wrong)
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


def test_size_is_keyword_only(path: Path) -> None:
    """Passing the size by position raises TypeError."""
    with pytest.raises(TypeError):
        pmem2.open(path, "w+", PAGE)  # type: ignore[call-arg] # wrong on purpose
    assert path.read_bytes() == CONTENT


@every_mode
@pytest.mark.parametrize("wrong", [0, True, None, 1.0, object()])
def test_path_of_wrong_type(mode: Mode, wrong: Path) -> None:
    """An object that is not a path, a descriptor included, raises TypeError."""
    with pytest.raises(TypeError):
        pmem2.open(wrong, mode, size=size_for(mode))


@existing
def test_missing_file(new_path: Path, mode: Mode) -> None:
    """A missing file raises FileNotFoundError and is not created in the modes r, r+ and c."""
    with pytest.raises(FileNotFoundError):
        pmem2.open(new_path, mode)
    assert not new_path.exists()


@every_mode
def test_missing_folder(tmp_path: Path, mode: Mode) -> None:
    """A missing folder raises FileNotFoundError in every mode."""
    with pytest.raises(FileNotFoundError):
        pmem2.open(tmp_path / "missing" / "file", mode, size=size_for(mode))


@every_mode
@pytest.mark.parametrize("make", [os.mkdir, make_fifo, make_socket, make_device])
def test_path_of_other_type(tmp_path: Path, mode: Mode, make: Callable[[Path], None]) -> None:
    """A directory, a FIFO, a socket and a device raise an error at once, and no descriptor leaks."""
    path = tmp_path / "other"
    make(path)
    before, file_type = descriptors(), path.lstat().st_mode
    with pytest.raises(FileExistsError if mode == "x+" else pmem2.InvalidFileTypeError):
        pmem2.open(path, mode, size=size_for(mode))
    assert descriptors() == before
    assert path.lstat().st_mode == file_type


@existing
def test_empty_file(new_path: Path, mode: Mode) -> None:
    """An empty file raises SourceEmptyError in the modes r, r+ and c."""
    new_path.touch()
    with pytest.raises(pmem2.SourceEmptyError):
        pmem2.open(new_path, mode)
    assert new_path.stat().st_size == 0


def test_read_only_file(read_only_file: Path, run_child: RunChild) -> None:
    """Modes that write raise PermissionError for a read-only file, and r and c work."""
    child = run_child(
        """
        import os, sys, pmem2
        if os.geteuid() == 0:
            os.seteuid(65534)
        for mode in ("r", "c", "r+", "w+"):
            try:
                pmem2.open(sys.argv[1], mode, size=4096 if mode == "w+" else None).close()
                print(mode, "opened")
            except PermissionError:
                print(mode, "refused")
        """,
        str(read_only_file),
    )
    assert (child.stdout.split("\n"), child.stderr) == (["r opened", "c opened", "r+ refused", "w+ refused", ""], "")
    assert read_only_file.read_bytes() == CONTENT


# ---- failures


UNMAPPABLE: dict[str, Callable[[], Config]] = {
    "granularity": lambda: Config(required_granularity=Granularity.BYTE),
    "no granularity": lambda: Config(required_granularity=None),
    "unaligned offset": lambda: Config(offset=1),
    "unaligned length": lambda: Config(length=1),
    "offset at the end": lambda: Config(offset=PAGE),
    "offset past the end": lambda: Config(offset=3 * PAGE),
    "length past the end": lambda: Config(length=2 * PAGE),
    "length far past the end": lambda: Config(length=2**64 - PAGE),
}


@pytest.fixture
def page_granularity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have PAGE granularity."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")


@pytest.mark.usefixtures("page_granularity")
@creating
@pytest.mark.parametrize("name", UNMAPPABLE)
def test_created_file_is_removed(new_path: Path, mode: Mode, name: str) -> None:
    """A created file is removed if it cannot be mapped."""
    before = descriptors()
    with pytest.raises(pmem2.Pmem2Error):
        pmem2.open(new_path, mode, size=PAGE, config=UNMAPPABLE[name]())
    assert not new_path.exists()
    assert descriptors() == before


@pytest.mark.usefixtures("page_granularity")
@pytest.mark.parametrize("name", UNMAPPABLE)
@pytest.mark.parametrize("length", [0, 1, PAGE, 2 * PAGE, 5 * PAGE])
def test_existing_file_survives_failure(path: Path, name: str, length: int) -> None:
    """An existing file of any size stays unchanged if it cannot be mapped."""
    content = (CONTENT * 3)[:length]
    path.write_bytes(content)
    before = descriptors()
    with pytest.raises(pmem2.Pmem2Error):
        pmem2.open(path, "w+", size=PAGE, config=UNMAPPABLE[name]())
    assert path.read_bytes() == content
    assert descriptors() == before


# A size without enough space is tried only on a disk of its own, or under a limit for the size of files: allocation
# may fill the whole disk before it fails, which would make other processes fail.
too_large = pytest.mark.parametrize("size", [17 * PAGE, 2**60, 2**63 - PAGE, 2**63 - 1])


@creating
@too_large
def test_size_exceeds_disk(small_disk: Path, mode: Mode, size: int) -> None:
    """A size that exceeds the free space raises OSError, keeps an existing file and frees what was allocated."""
    path, new_path = small_disk / "existing", small_disk / "new"
    path.write_bytes(CONTENT)
    free = os.statvfs(small_disk).f_bfree
    for name in (new_path, path) if mode == "w+" else (new_path,):
        with pytest.raises(OSError, match=os.fspath(name)) as caught:
            pmem2.open(name, mode, size=size)
        assert caught.value.errno == errno.ENOSPC or (size > 2**60 and caught.value.errno == errno.EFBIG)
        assert not isinstance(caught.value, pmem2.Pmem2Error)
        assert str(caught.value.strerror).startswith(f"cannot allocate {size} bytes: ")
    assert path.read_bytes() == CONTENT
    assert sorted(small_disk.iterdir()) == [path]
    assert os.statvfs(small_disk).f_bfree == free
    with pmem2.open(new_path, mode, size=13 * PAGE) as map:
        map.memset(0, 1, 13 * PAGE)


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Limit the size of files to 16 pages: unlike `small_disk` this needs no root."""
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the default action ends the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * PAGE, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("file_size_limit")
@creating
@too_large
def test_size_exceeds_file_limit(path: Path, new_path: Path, mode: Mode, size: int) -> None:
    """A size that exceeds the limit for files raises OSError, removes a new file and keeps an existing one."""
    for name in (new_path, path) if mode == "w+" else (new_path,):
        with pytest.raises(OSError, match=os.fspath(name)) as caught:
            pmem2.open(name, mode, size=size)
        assert caught.value.errno == errno.EFBIG or (size >= 2**60 and caught.value.errno == errno.ENOSPC)
        assert not isinstance(caught.value, pmem2.Pmem2Error)
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


def test_replace_on_full_disk(small_disk: Path) -> None:
    """w+ replaces a file if the new one fits only without the old one."""
    path = small_disk / "existing"
    path.write_bytes(b"1" * 14 * PAGE)
    with pmem2.open(path, "w+", size=15 * PAGE) as map:
        assert map[:] == bytes(15 * PAGE)


def test_occupied_reservation(path: Path, new_path: Path) -> None:
    """An occupied place in a reservation raises MappingExistsError before an existing file is truncated."""
    with (
        pmem2.VMReservation(PAGE) as reservation,
        pmem2.open(path, config=Config(length=PAGE, reservation=reservation)) as map,
    ):
        for name in (path, new_path):
            with pytest.raises(pmem2.MappingExistsError):
                pmem2.open(name, "w+", size=PAGE, config=map.config)
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


@pytest.mark.parametrize(("size", "offset"), [(PAGE, 2 * PAGE), (2 * PAGE, PAGE), (5 * PAGE, 0)])
def test_reservation_too_small(path: Path, new_path: Path, size: int, offset: int) -> None:
    """A reservation that is too small for the new size raises LengthOutOfRangeError before a file is truncated."""
    with pmem2.VMReservation(2 * PAGE) as reservation:
        for name in (path, new_path):
            with pytest.raises(pmem2.LengthOutOfRangeError):
                pmem2.open(name, "w+", size=size, config=Config(reservation=reservation, reservation_offset=offset))
    assert path.read_bytes() == CONTENT
    assert not new_path.exists()


def test_reservation_fits_new_size(path: Path) -> None:
    """A reservation needs to hold only the new size, not the old one."""
    with pmem2.VMReservation(PAGE) as reservation:
        with pmem2.open(path, "w+", size=PAGE, config=Config(reservation=reservation)) as map:
            assert map[:] == bytes(PAGE)


def test_range_beyond_old_size(path: Path) -> None:
    """A range inside the new size is mapped even if it lies beyond the old size."""
    with pmem2.open(path, "w+", size=5 * PAGE, config=Config(offset=4 * PAGE, length=PAGE)) as map:
        assert map[:] == bytes(PAGE)
    assert path.stat().st_size == 5 * PAGE
