# SPDX-License-Identifier: BSD-3-Clause
"""The command line on persistent memory: info, copies of damaged files, bad blocks, devices."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.children import RunChild
from support.values import MEDIUM_GRANULARITY

import pmem2
from hardware import inject
from pmem2.cli import main
from pmem2.cli._platform import find_mount

pytestmark = pytest.mark.medium

PAGE = 4096
CONTENT = b"".join(bytes([65 + page]) * PAGE for page in range(16))


def info_json(capsys: pytest.CaptureFixture[str], *paths: object) -> dict[str, Any]:
    """Return the output of `pmem2 info --json` for paths."""
    assert main(["info", "--json", *map(str, paths)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def damaged(fsdax: Path) -> Iterator[Path]:
    """A file of 16 pages, two of them bad; afterwards the disk has no bad blocks."""
    path = fsdax / "damaged"
    with open(path, "wb") as file:
        file.write(CONTENT)
        os.fsync(file.fileno())
    inject.make_bad(path, 5 * PAGE, 2 * PAGE)
    yield path
    gc.collect()
    inject.forget_bad_blocks(Path(os.environ["PMEM2_TEST_FSDAX"]))


def test_info(fsdax: Path, devdax: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` describes a file and a device with granularity, reason, region and persistence domain."""
    path = fsdax / "file"
    path.write_bytes(CONTENT)
    found = info_json(capsys, path, devdax, fsdax)
    file, device, folder = found["paths"]
    assert (file["kind"], device["kind"], folder["kind"]) == ("fsdax", "devdax", "not mappable")
    for each in (file, device, folder):
        assert each["granularity"] == each["unforced_granularity"] == MEDIUM_GRANULARITY
        assert ("no eADR" in each["granularity_reason"]) == (MEDIUM_GRANULARITY == "CACHE_LINE")
        assert each["flush"] == ("none" if MEDIUM_GRANULARITY == "BYTE" else found["platform"]["flush_instruction"])
        assert each["needs_root"] == []
    assert found["platform"]["eadr"] == (MEDIUM_GRANULARITY == "BYTE")
    domain = {"BYTE": "cpu_cache", "CACHE_LINE": "memory_controller"}[MEDIUM_GRANULARITY or ""]
    assert file["persistence_domain"] == device["persistence_domain"] == domain
    assert re.fullmatch(r"region\d+", file["region"])
    assert file["region"] != device["region"]
    assert "dax=always" in file["mount_options"]
    with pmem2.Source.from_path(devdax) as source:
        assert (device["size"], device["alignment"], device["device_id"]) == (
            source.size,
            source.alignment,
            source.device_id,
        )
        assert device["numa_node"] == source.numa_node
    assert file["bad_blocks"] == []


def test_info_without_path(fsdax: Path, devdax: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` without PATH finds the mount and the device, and names regions and namespaces with their modes."""
    found = info_json(capsys)
    paths = [each["path"] for each in found["paths"]]
    assert {find_mount(str(fsdax)).point, str(devdax)} <= set(paths)
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for region in found["platform"]["regions"]:
        assert re.search(rf"^{region['name']} +persistence domain {region['persistence_domain']}$", text, re.MULTILINE)
    for mode in ("fsdax", "devdax"):
        assert re.search(rf"^namespace\d+\.\d+ +{mode}, \d", text, re.MULTILINE)
    assert all(f"\n\n{path}\n  type " in text for path in paths)


AS_PLAIN_USER = """
import contextlib, io, os, sys
from pmem2.cli import main
from pmem2.cli._platform import find_mount
with contextlib.redirect_stdout(io.StringIO()):
    main(["info", "/"])  # imports all modules while root can still read them
os.setuid(65534)
sys.exit(main(["info", "--json", sys.argv[1]]))
"""


def test_info_without_root(devdax: Path, run_child: RunChild) -> None:
    """`info` without root shows the device facts of sysfs and lists the fields that need root."""
    done = run_child(AS_PLAIN_USER, str(devdax))
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)["paths"]
    assert found["kind"] == "devdax"
    assert found["size"] == int(inject.attribute(devdax, "size"))
    assert found["alignment"] == int(inject.attribute(devdax, "align"))
    assert found["persistence_domain"] is not None
    assert found["granularity"] is None
    assert found["needs_root"] == [
        *("granularity", "unforced_granularity", "flush", "bad_blocks", "device_id", "unsafe_shutdown_count")
    ]


def test_info_matches_documentation(fsdax: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table in docs/command-line.md matches the output, except for lines that vary by system."""
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```console\n\$ pmem2 info /mnt/pmem/database\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = fsdax / "database"
    path.write_bytes(bytes(64 * 1024))
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out.replace(str(path), "/mnt/pmem/database").splitlines()
    (lines,) = (text.splitlines() for text in shown)
    assert lines[-1] == "  ..."
    varying = ["pmem2 ", "flush instruction ", "region", "  file system ", "  flushed by "]
    if MEDIUM_GRANULARITY == "BYTE":
        varying += ["eADR ", "  granularity ", "  because "]
    regions = [line for line in printed if line.startswith("region")]
    printed = [line for line in printed if line not in regions[1:]]
    for expected, line in zip(lines[:-1], printed):
        same = next((len(label) for label in varying if expected.startswith(label)), None)
        wanted = expected[:same] if same is not None else expected.partition("...")[0]
        assert line.startswith(wanted)


def test_copy_damaged_file(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of a damaged file keeps the readable pages, reports the lost ones and replaces no good file."""
    assert info_json(capsys, damaged)["paths"][0]["bad_blocks"] == [{"offset": 5 * PAGE, "length": 2 * PAGE}]
    copy = tmp_path / "copy"
    assert main(["copy", "--verify", str(damaged), str(copy)]) == 1
    assert "lost 8192 at 20480 (bytes)" in capsys.readouterr().err
    assert copy.read_bytes() == CONTENT[: 5 * PAGE] + bytes(2 * PAGE) + CONTENT[7 * PAGE :]
    copy.write_bytes(b"good")
    assert main(["copy", str(damaged), str(copy)]) == 1
    assert "is unchanged" in capsys.readouterr().err
    assert copy.read_bytes() == b"good"
    assert sorted(os.listdir(tmp_path)) == sorted({"copy", damaged.name})


def test_badblocks(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`badblocks` lists bad blocks and, on request, clears them to zeros; the rest is unchanged."""
    assert main(["badblocks", str(damaged)]) == 0
    assert "1 bad, 8 KiB in all" in capsys.readouterr().out
    assert main(["badblocks", str(damaged), "--json"]) == 0
    blocks = [{"offset": 5 * PAGE, "length": 2 * PAGE}]
    assert json.loads(capsys.readouterr().out) == {"path": str(damaged), "bad_blocks": blocks, "cleared": False}
    assert main(["badblocks", str(damaged), "--clear", "--yes"]) == 0
    assert "cleared 1" in capsys.readouterr().out
    with pmem2.Source.from_path(damaged) as source:
        assert source.pread_mcsafe(len(CONTENT)) == CONTENT[: 5 * PAGE] + bytes(2 * PAGE) + CONTENT[7 * PAGE :]


@pytest.mark.parametrize("variable", ["PMEM2_TEST_DEVDAX", "PMEM2_TEST_SOFTDAX"])
def test_copy_device_round_trip(
    devdax: Path, tmp_path: Path, variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy writes a device in place, with zeros for holes, and can read it back, with or without an NVDIMM."""
    device = os.environ[variable]
    source = tmp_path / "source"
    with open(source, "wb") as file:
        os.pwrite(file.fileno(), CONTENT, 0)
        os.pwrite(file.fileno(), CONTENT, 3 * len(CONTENT))
    assert main(["copy", str(source), device]) == 0
    with pmem2.open(device, "r") as map:
        assert map[: 4 * len(CONTENT)] == source.read_bytes()
    with open(source, "r+b") as file:
        file.truncate(1 << 40)
    assert main(["copy", str(source), device]) == 1
    assert "has" in capsys.readouterr().err
    assert main(["copy", device, device]) == 1
    assert "are the same file" in capsys.readouterr().err
    with pmem2.open(device, "r") as map:
        size = map.size
    monkeypatch.setattr(
        "pmem2.cli.copy.Reader.data_ranges", lambda reader: [(0, 8 * len(CONTENT))]
    )  # copying the whole device takes too long
    for writable in (True, False):
        monkeypatch.setattr("pmem2.cli.copy.is_writable_device", lambda path, answer=writable: answer)
        back = tmp_path / f"back-{writable}"
        assert main(["copy", device, str(back)]) == 0
        assert back.stat().st_size == size
        with open(back, "rb") as file:
            assert file.read(4 * len(CONTENT)) == CONTENT + bytes(2 * len(CONTENT)) + CONTENT
