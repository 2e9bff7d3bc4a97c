# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest
from support.terminal import shown, without
from support.values import CONTENT, PAGE

import pmem2
from pmem2.cli import copy, main

MIB = 1024 * 1024


def copied(*arguments: object) -> int:
    """Run `pmem2 copy`; return its status."""
    return main(["copy", *map(str, arguments)])


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A name for a copy, in a folder in which nothing else is left."""
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder / "copy"
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


@contextmanager
def during(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> Iterator[None]:
    """Let something happen when the first piece has been copied."""

    @contextmanager
    def progress(_what: str, _total: int) -> Iterator[Callable[[int], object]]:
        yield lambda _done: happens()

    with monkeypatch.context() as patch:
        patch.setattr(copy, "progress", progress)
        yield


@pytest.mark.parametrize("verify", [[], ["--verify"]])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096 + 5])
def test_copy(
    tmp_path: Path,
    target: Path,
    size: int,
    verify: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A copy has the same content, whatever the size, and nothing is said where there is no terminal."""
    monkeypatch.setattr(copy, "CHUNK", 4096)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    assert copied(*verify, source, target) == 0
    assert target.read_bytes() == source.read_bytes()
    assert capsys.readouterr() == ("", "")


def test_every_granularity(path: Path, target: Path, granularity: object) -> None:
    """Whatever has to be flushed, the copy is the same."""
    assert copied("--verify", path, target) == 0
    assert target.read_bytes() == CONTENT


def test_holes_stay_holes(tmp_path: Path, target: Path) -> None:
    """Where the source has a hole the copy has one; both read the same."""
    source = tmp_path / "source"
    with open(source, "wb") as file:
        for place in (0, 8 * MIB, 9 * MIB + 4096):
            os.pwrite(file.fileno(), b"data" * 1024, place)
        file.truncate(64 * MIB)
    if source.stat().st_blocks * 512 >= 64 * MIB:
        pytest.skip("this file system has no holes")
    assert copied("--verify", source, target) == 0
    assert target.stat().st_blocks <= source.stat().st_blocks + 16
    assert target.read_bytes() == source.read_bytes()


def test_a_file_that_is_a_hole(tmp_path: Path, target: Path) -> None:
    """A file without any data has a copy without any."""
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, 1 << 40)
    assert copied(source, target) == 0
    assert (target.stat().st_size, target.stat().st_blocks) == (1 << 40, 0)


def test_space_is_allocated(path: Path, target: Path) -> None:
    """What is no hole has its place on disk."""
    assert copied(path, target) == 0
    assert target.stat().st_blocks * 512 >= len(CONTENT)


@pytest.mark.parametrize(
    ("mode", "umask", "expected"), [(0o640, 0o022, 0o640), (0o777, 0o027, 0o750), (0o4755, 0, 0o755)]
)
def test_permissions_of_a_new_file(path: Path, target: Path, mode: int, umask: int, expected: int) -> None:
    """A new file gets the permissions of the source, less the umask, as from cp."""
    path.chmod(mode)
    before = os.umask(umask)
    try:
        assert copied(path, target) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == expected


def test_a_file_is_replaced_at_once(path: Path, target: Path) -> None:
    """A file that was there keeps its permissions; whoever has it open reads what was in it."""
    target.write_bytes(b"before")
    target.chmod(0o4600)
    with open(target, "rb") as before:
        assert copied(path, target) == 0
        assert before.read() == b"before"
    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o4600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(path: Path, target: Path) -> None:
    """A file that is replaced keeps its owner."""
    target.touch()
    os.chown(target, 1234, 5678)
    assert copied(path, target) == 0
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 5678)


def test_a_link_stays_a_link(path: Path, target: Path) -> None:
    """What a symbolic link points to is replaced, not the link."""
    real = target.parent / "real"
    real.write_bytes(b"before")
    target.symlink_to(real)
    assert copied(path, target) == 0
    assert target.is_symlink()
    assert real.read_bytes() == CONTENT


def test_into_a_directory(path: Path, target: Path) -> None:
    """A directory gets a file of the same name."""
    assert copied(path, target.parent) == 0
    assert (target.parent / path.name).read_bytes() == CONTENT
    assert copied(path, target.parent) == 0
    link = path.parent / "link"
    link.symlink_to(path)
    assert copied(link, target.parent) == 0
    assert sorted(os.listdir(target.parent)) == sorted(["link", path.name])


def test_a_relative_name(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a directory is one in this directory."""
    monkeypatch.chdir(target.parent)
    assert copied(path, target.name) == 0
    assert target.read_bytes() == CONTENT


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line with which `pmem2 copy` fails."""
    assert copied(*arguments) == 1
    output, complaint = capsys.readouterr()
    assert output == ""
    (line,) = complaint.splitlines()
    return str(line)


def test_sources_that_cannot_be_copied(tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, a FIFO, a device that is no DAX, nothing at all: one line each, and no file."""
    os.mkfifo(tmp_path / "fifo")
    for source, complaint in (
        (tmp_path, "neither a regular file nor a DAX device"),
        (tmp_path / "fifo", "neither a regular file nor a DAX device"),
        ("/dev/zero", "neither a regular file nor a DAX device"),
        (tmp_path / "missing", f"{tmp_path / 'missing'}: No such file or directory"),
    ):
        assert complaint.split(": ")[-1].split(" nor ")[0] in refused(capsys, source, target)
    assert not target.exists()


def test_destinations_that_cannot_be_written(
    path: Path, tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FIFO, a device that is no DAX, a place that does not exist: one line each."""
    os.mkfifo(tmp_path / "fifo")
    for destination, complaint in (
        (tmp_path / "fifo", "exists, and is neither a regular file nor a DAX device"),
        ("/dev/null", "exists, and is neither a regular file nor a DAX device"),
        (tmp_path / "missing/copy", f"{tmp_path / 'missing/copy'}: cannot be created: No such file or directory"),
        (f"{target}/", f"{target}/ is not a directory"),
        ("", "a name of no letters names nothing"),
    ):
        assert complaint in refused(capsys, path, destination)


def test_a_source_that_tells_no_size(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the kernel that says it is empty, and is not, is no empty copy."""
    assert "/proc/self/status says that it is empty, and is not" in refused(capsys, "/proc/self/status", target)
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_system_that_is_read_only(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is told of the name that was given."""
    place = tmp_path / "place"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for arguments in (["copy", str(path), f"{place}/copy"], ["bench", str(place)], ["demo", str(place)]):
            assert main(arguments) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"pmem2: {arguments[-1]}: ")
            assert line.endswith(": Read-only file system")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    """A hidden file that stays is an error; one that never was is none."""
    copy.remove(str(tmp_path / "missing"))
    with pytest.raises(OSError, match=r"directory|permitted"):
        copy.remove(str(tmp_path))


def test_onto_itself(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is not copied onto itself, whatever it is called."""
    os.link(path, target)
    for destination in (path, path.parent, target):
        assert "are the same file" in refused(capsys, path, destination)
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every file")
def test_a_protected_file(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that one may not write to is not replaced, though its directory would allow it."""
    target.write_bytes(b"before")
    target.chmod(0o444)
    assert "Permission denied" in refused(capsys, path, target)
    assert target.read_bytes() == b"before"


def test_permission_is_asked_for(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same where root runs the tests: the system says no."""
    target.write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert refused(capsys, path, target) == f"pmem2: {target}: Permission denied"
    assert target.read_bytes() == b"before"


def test_full_disk(file: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that is too small gets nothing; what was there is as it was."""
    file.write_bytes(bytes([7]) * 32 * PAGE)
    target = small_disk / "copy"
    target.write_bytes(b"before")
    assert refused(capsys, file, target) == (
        f"pmem2: {target}: cannot allocate {32 * PAGE // 1024} KiB: No space left on device"
    )
    assert os.listdir(small_disk) == ["copy"]
    assert target.read_bytes() == b"before"


def test_file_size_limit(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the limits of the process forbid is an error that names the file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, before[1]))
    try:
        complaint = refused(capsys, path, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert complaint == f"pmem2: {target}: cannot allocate 8 KiB: File too large"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("there", [False, True])
def test_stopped(
    path: Path,
    target: Path,
    there: bool,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A signal in the middle leaves what was there, and nothing else."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)
    if there:
        target.write_bytes(b"before")
    before = signal.signal(number, signal.SIG_DFL)  # also where these tests run in the background
    try:
        with during(monkeypatch, lambda: os.kill(os.getpid(), number)):
            assert copied(path, target) == 128 + number
    finally:
        signal.signal(number, before)
    assert capsys.readouterr() == ("", "")
    assert target.exists() == there
    assert not there or target.read_bytes() == b"before"


def test_the_source_shrinks_meanwhile(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that is truncated while it is copied is an error, not the end of the process."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)
    with during(monkeypatch, lambda: os.truncate(path, PAGE)):
        assert "4096" in refused(capsys, path, target)
    assert not target.exists()


def test_verify_sees_a_difference(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not as it was written does not get its name."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)

    def spoil(fd: int, *_rest: int) -> None:
        os.pwrite(fd, b"!", PAGE + 123)

    monkeypatch.setattr(os, "posix_fadvise", spoil)
    assert f"{target} differs at byte {PAGE + 123}" in refused(capsys, "--verify", path, target)
    assert not target.exists()


def test_progress(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows how far it is."""
    without(monkeypatch, "rich.console")
    with shown(monkeypatch, "stderr") as printed:
        assert copied("--verify", path, target) == 0
    for what in ("copying", "verifying"):
        assert f"{what}: 100 %, 8 KiB of 8 KiB" in printed[0]


def test_source_that_grows(tmp_path: Path) -> None:
    """What is appended to a source behind a hole is not copied, and no mistake."""
    file = tmp_path / "hole"
    file.touch()
    os.truncate(file, 16 * PAGE)
    with pmem2.Source.from_path(file) as source:
        reader = copy.Reader(source)
        with open(file, "ab") as end:
            end.write(bytes(PAGE))
        assert all(offset + length <= 16 * PAGE for offset, length in reader.data())
        assert all(length > 0 for _, length in reader.data())


def test_lost_text() -> None:
    """What was lost is told with its places."""
    assert copy.lost_text([(4096, 4096), (8192, 4096), (0, 1)]) == "bad blocks: lost 1 at 0, 8192 at 4096 (bytes)"
