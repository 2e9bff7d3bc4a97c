# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 info`: file systems and places that are not everyday ones."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.children import RunChild
from support.filesystems import loop_filesystem, mounted, run_or_skip
from support.values import MIB, PAGE

from pmem2.cli import info, main

SHARED, COPY_ON_WRITE = "shares blocks with a snapshot", "is copy-on-write: on a full disk"


def examine(capsys: pytest.CaptureFixture[str], path: object) -> dict[str, Any]:
    """Return the output of `pmem2 info --json` for one path."""
    assert main(["info", "--json", str(path)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["paths"][0]
    return found


def notes(capsys: pytest.CaptureFixture[str], path: object) -> str:
    """Return the notes about a path."""
    return " ".join(examine(capsys, path)["notes"])


def test_btrfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """btrfs is copy-on-write, except for files with the attribute NOCOW that no snapshot shares."""
    with loop_filesystem(tmp_path, "btrfs", 150 * MIB) as point:
        plain, folder, snapshot = point / "plain", point / "nocow", point / "nocow/snapshot"
        folder.mkdir()
        run_or_skip("chattr", "+C", folder)
        nocow = folder / "file"
        for file in (plain, nocow):
            file.write_bytes(bytes([1]) * 8 * PAGE)
        assert all(COPY_ON_WRITE in notes(capsys, each) for each in (point, plain))
        assert not any(COPY_ON_WRITE in notes(capsys, each) for each in (folder, nocow))
        run_or_skip("cp", "--reflink=always", nocow, snapshot)
        os.sync()
        assert SHARED in notes(capsys, nocow)


def test_xfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file on XFS is copy-on-write once it shares blocks with another."""
    with loop_filesystem(tmp_path, "xfs", 320 * MIB) as point:
        file = point / "file"
        file.write_bytes(bytes([1]) * 8 * PAGE)
        assert notes(capsys, file) == ""
        run_or_skip("cp", "--reflink=always", file, point / "other")
        os.sync()
        assert SHARED in notes(capsys, file)


def test_without_unnamed_files(capsys: pytest.CaptureFixture[str]) -> None:
    """A file system without O_TMPFILE is not blamed for refusing new files."""
    found = examine(capsys, "/sys/kernel")
    assert found["filesystem"] == "sysfs"
    assert "cannot create unnamed files" in found["granularity_reason"]


def test_folder_error() -> None:
    """Another error of a directory is passed on."""
    assert info.explain_folder_error(PermissionError(13, "no")) == "cannot create a file in it: no"


def test_unmappable_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason names file systems that refuse to map their files."""
    found = examine(capsys, "/sys/kernel/mm/transparent_hugepage/enabled")
    assert found["kind"] == "not mappable"
    assert "FUSE with direct_io" in found["granularity_reason"]


def test_unlinked_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a name is examined through its descriptor, on the file system that it is on."""
    with open(tmp_path / "gone", "w+b", buffering=0) as file:
        file.write(bytes(PAGE))
        (tmp_path / "gone").unlink()
        found = examine(capsys, f"/proc/self/fd/{file.fileno()}")
        assert (found["size"], found["granularity"]) == (PAGE, "PAGE")
        assert found["mount_point"] == examine(capsys, tmp_path)["mount_point"]


def test_memfd(capsys: pytest.CaptureFixture[str]) -> None:
    """A memfd is on a file system that is mounted nowhere."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("this interpreter has no memfd_create")
    fd = os.memfd_create("memory")
    try:
        os.truncate(fd, PAGE)
        found = examine(capsys, f"/proc/self/fd/{fd}")
        assert (found["filesystem"], found["kind"], found["mount_point"]) == ("tmpfs", "tmpfs", None)
        assert main(["info", f"/proc/self/fd/{fd}"]) == 0
        assert "tmpfs, at a mount point that /proc does not list" in capsys.readouterr().out
    finally:
        os.close(fd)


def test_removed_working_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a working directory, relative paths are examined, and errors name them."""
    gone, before = tmp_path / "gone", os.getcwd()
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        assert examine(capsys, ".")["mount_point"] == examine(capsys, tmp_path)["mount_point"]
        for command in ("info", "bench", "badblocks"):
            assert main([command, "new"]) == 1
            assert capsys.readouterr().err.startswith("pmem2: new: ")
    finally:
        os.chdir(before)


IN_CHROOT = """
import os, sys
from pmem2.cli import main

main(["info", "--json", sys.argv[1]])  # imports everything
for folder in sys.argv[1:]:
    print("inside", flush=True)
    if not os.fork():
        os.chroot(folder)
        main(["info", "--json", "/file"])
        os._exit(0)
    os.wait()
"""


def test_chroot(tmp_path: Path, run_child: RunChild) -> None:
    """In a chroot whose / is no mount point, with and without /proc, the file system is still known."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the root directory")
    folders = [tmp_path / "with", tmp_path / "without"]
    for folder in folders:
        (folder / "proc").mkdir(parents=True)
        (folder / "file").write_bytes(bytes(PAGE))
    with mounted(tmp_path / "with/proc", "-t", "proc", "none"):
        done = run_child(IN_CHROOT, *map(str, folders))
    assert (done.returncode, done.stderr) == (0, "")
    outside, *inside = (json.loads(each)["paths"][0] for each in done.stdout.split("inside\n"))
    assert len(inside) == 2
    for found in inside:
        assert (found["filesystem"], found["granularity"]) == (outside["filesystem"], "PAGE")
        assert found["mount_point"] is None


FILL_AND_STORE = """
import os, sys, pmem2

os.chdir(sys.argv[1])
size = 1 << 20
map = pmem2.open("file", "w+", size=size)
map.memset(0, 1, size)
with open("filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(1 << 20))
    except OSError as error:
        print(error.strerror, flush=True)
map.memset(0, 2, size)
map.close()
"""


@pytest.mark.libpmem2
@pytest.mark.parametrize(("attribute", "survives"), [("+C", True), ("-C", False)])
def test_store_on_full_btrfs(tmp_path: Path, run_child: RunChild, attribute: str, survives: bool) -> None:
    """On a full btrfs a second store to allocated space ends the process, unless the file is NOCOW."""
    with loop_filesystem(tmp_path, "btrfs", 150 * MIB) as point:
        folder = point / "folder"
        folder.mkdir()
        run_or_skip("chattr", attribute, folder)
        done = run_child(FILL_AND_STORE, str(folder))
    assert done.stdout == "No space left on device\n"
    assert (done.returncode == 0) == survives, done.stderr


def test_kernel_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stat reports the same file system by its own table of magic numbers."""
    name = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert examine(capsys, tmp_path)["filesystem"] in (name.strip(), "ext2", "ext3", "ext4")
