# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 info`: the facts about each kind of path, their reasons, and the JSON schema."""

from __future__ import annotations

import json
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.children import RunChild
from support.special_files import make_socket
from support.values import PAGE, needs_cache_line

import pmem2
from pmem2 import Granularity
from pmem2.cli import _platform, info, main
from pmem2.cli._platform import Mount, Region

SCHEMA = Path(info.__file__).parent / "info.schema.json"


def examine(capsys: pytest.CaptureFixture[str], *paths: object) -> dict[str, Any]:
    """Return the output of `pmem2 info --json`, validated with the schema."""
    main(["info", "--json", *map(str, paths)])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    try:
        import jsonschema
    except ImportError:
        return found
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(found)
    return found


def examine_one(capsys: pytest.CaptureFixture[str], path: object) -> dict[str, Any]:
    """Return the facts about one path."""
    (found,) = examine(capsys, path)["paths"]
    assert isinstance(found, dict)
    return found


def test_schema_is_valid() -> None:
    """The schema is valid and requires every key."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    path = schema["properties"]["paths"]["items"]
    assert path["required"] == [field.name for field in attrs.fields(info.Info)]
    platform = schema["properties"]["platform"]
    assert platform["required"] == [field.name for field in attrs.fields(info.Platform)]
    assert not path["additionalProperties"]


def test_schema_rejects_other_output(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The schema rejects a missing key, an additional one and a wrong value."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = examine(capsys, path)
    assert validator.is_valid(found)
    for change in ({"kind": "nonsense"}, {"size": -1}, {"more": None}):
        assert not validator.is_valid({**found, "paths": [{**found["paths"][0], **change}]})
    del found["paths"][0]["numa_node"]
    assert not validator.is_valid(found)


@pytest.mark.skipif("PMEM2_TEST_FSDAX" in os.environ, reason="needs an ordinary file")
def test_regular_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The facts about an ordinary file are those of its Source and its Map, with a reason."""
    found = examine_one(capsys, path)
    with pmem2.Source.from_path(path) as source, source.map() as map:
        assert found["granularity"] == found["unforced_granularity"] == map.granularity.name == "PAGE"
        assert (found["size"], found["alignment"]) == (source.size, source.alignment)
    assert found["type"] == "regular file"
    assert found["kind"] in ("regular file", "tmpfs")
    assert found["filesystem"] in found["granularity_reason"]
    assert found["flush"] == "msync"
    assert found["bad_blocks"] in ([], None)
    assert bool(found["mount_options"]) == (found["mount_point"] is not None)
    for key in ("error", "numa_node", "device_id", "unsafe_shutdown_count", "region", "persistence_domain"):
        assert found[key] is None


def test_changes_nothing(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command changes neither a file nor a directory."""
    before = path.stat(), tmp_path.stat(), sorted(tmp_path.iterdir())
    content = path.read_bytes()
    examine(capsys, path, tmp_path)
    after = path.stat(), tmp_path.stat(), sorted(tmp_path.iterdir())
    assert [(s.st_mtime_ns, s.st_ctime_ns, s.st_size) for s in after[:2]] == [
        (s.st_mtime_ns, s.st_ctime_ns, s.st_size) for s in before[:2]
    ]
    assert after[2] == before[2]
    assert path.read_bytes() == content


def test_directory(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory is not mappable, but shows the properties of a new file in it."""
    folder, file = examine(capsys, tmp_path, path)["paths"]
    assert (folder["type"], folder["kind"]) == ("directory", "not mappable")
    for key in ("granularity", "granularity_reason", "alignment", "flush", "filesystem"):
        assert folder[key] == file[key]
    assert "new file" in folder["notes"][0]


def test_directory_without_new_files(capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that accepts no new file shows the reason, and all other facts."""
    found = examine_one(capsys, "/sys")
    assert (found["filesystem"], found["error"], found["granularity"]) == ("sysfs", None, None)
    assert found["granularity_reason"].startswith("its file system cannot create unnamed files (O_TMPFILE)")
    assert found["notes"] == []


def test_tmpfs(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in memory has kind tmpfs, and the reason says that it does not survive."""
    path = small_disk / "file"
    path.write_bytes(bytes(PAGE))
    found = examine_one(capsys, path)
    assert (found["kind"], found["filesystem"], found["granularity"]) == ("tmpfs", "tmpfs", "PAGE")
    assert found["mount_point"] == str(small_disk)
    assert "loses them when power fails" in found["granularity_reason"]


def test_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file has no granularity, and the reason says so."""
    path = tmp_path / "empty"
    path.touch()
    found = examine_one(capsys, path)
    assert (found["size"], found["granularity"], found["flush"]) == (0, None, None)
    assert "empty" in found["granularity_reason"]
    main(["info", str(path)])
    assert re.search("size +0 bytes\n", capsys.readouterr().out)


def test_unmappable_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FIFOs, sockets and devices are named but not opened, so that nothing blocks."""
    fifo, socket = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    make_socket(socket)
    found = examine(capsys, fifo, socket, "/dev/null")["paths"]
    assert [each["type"] for each in found] == ["FIFO", "socket", "character device"]
    for each in found:
        assert (each["kind"], each["granularity"], each["error"]) == ("not mappable", None, None)
        assert each["granularity_reason"] == f"a {each['type']} cannot be mapped"


def test_block_device(capsys: pytest.CaptureFixture[str]) -> None:
    """A block device is not mappable."""
    disks = [
        f"/dev/{disk.name}" for disk in Path("/sys/block").glob("*") if Path(f"/dev/{disk.name}").is_block_device()
    ]
    if not disks:
        pytest.skip("needs a block device")
    found = examine_one(capsys, disks[0])
    assert (found["type"], found["kind"]) == ("block device", "not mappable")


def test_file_without_mmap(capsys: pytest.CaptureFixture[str]) -> None:
    """For a regular file that the kernel does not map, the reason is that of the kernel."""
    found = examine_one(capsys, "/sys/devices/system/cpu/online")
    assert (found["type"], found["kind"], found["granularity"]) == ("regular file", "not mappable", None)
    assert found["granularity_reason"]


def test_one_missing_path(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing path is an error; the other paths are shown."""
    missing = tmp_path / "missing"
    for flags in ([], ["--json"]):
        assert main(["info", *flags, str(missing), str(path)]) == 1
        output, error = capsys.readouterr()
        assert error == f"pmem2: {missing}: No such file or directory\n"
        assert str(path) in output
        assert (str(missing) in output) == bool(flags)  # JSON has every path; people need not read it twice
    found = examine(capsys, missing, path)["paths"]
    assert [each["error"] for each in found] == ["No such file or directory", None]


@pytest.mark.parametrize("forced", ["BYTE", pytest.param("cacheline", marks=needs_cache_line), "PAGE"])
@pytest.mark.skipif("PMEM2_TEST_FSDAX" in os.environ, reason="needs an ordinary file")
def test_forced_granularity(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forced: str
) -> None:
    """A forced granularity is shown beside the medium's own, and stays forced."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", forced)
    found = examine(capsys, path)
    name = {"cacheline": "CACHE_LINE"}.get(forced, forced)
    assert found["platform"]["forced_granularity"] == name
    (file,) = found["paths"]
    assert (file["granularity"], file["unforced_granularity"]) == (name, "PAGE")
    assert f"forces {name}; the medium itself gives PAGE" in file["granularity_reason"]
    flush = {"BYTE": "none", "CACHE_LINE": found["platform"]["flush_instruction"], "PAGE": "msync"}
    assert file["flush"] == flush[name]
    assert os.environ["PMEM2_FORCE_GRANULARITY"] == forced


def test_table(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the same facts as JSON and omits missing ones."""
    assert main(["info", str(path), str(tmp_path), "/dev/null"]) == 0
    text = capsys.readouterr().out
    for wanted in (
        f"pmem2 +{re.escape(pmem2.__version__)}, with libpmem2 ",
        r"flush instruction  \S",
        f"\n\n{re.escape(str(path))}\n  type +regular file\n",
        r"  size +8 KiB \(8192 bytes\)\n",
        r"  because +\S",
        f"\n\n{re.escape(str(tmp_path))}\n  type +directory\n",
        r"  type +character device\n  file system .*\n  because +a character device cannot be mapped\n",
    ):
        assert re.search(wanted, text), wanted
    assert "  kind " not in text
    assert "None" not in text
    assert "NUMA" not in text


def test_table_names_variable(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table shows PMEM2_FORCE_GRANULARITY; a value that libpmem2 ignores causes a warning only."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "BYTE")
    main(["info", str(path)])
    assert "PMEM2_FORCE_GRANULARITY  BYTE\n" in capsys.readouterr().out
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main(["info", str(path)])
    output, error = capsys.readouterr()
    assert "PMEM2_FORCE_GRANULARITY" not in output
    assert error.startswith("pmem2: PMEM2_FORCE_GRANULARITY='nonsense' has no effect")


WITHOUT_PRIVILEGES = """
import contextlib, io, os, sys
from pmem2.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["info", "/"])  # import everything while the files are readable
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(["info", "--json", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_ordinary_user(read_only_file: Path, run_child: RunChild) -> None:
    """An ordinary user sees the readable facts, and the names of those that need root."""
    secret = read_only_file.parent / "secret"
    secret.write_bytes(bytes(PAGE))
    secret.chmod(0o000)
    done = run_child(WITHOUT_PRIVILEGES, str(read_only_file), str(secret), str(read_only_file.parent))
    assert (done.returncode, done.stderr) == (0, "")
    readable, unreadable, folder = json.loads(done.stdout)["paths"]
    assert readable["granularity"] is not None
    assert readable["needs_root"] == []
    assert (unreadable["kind"], unreadable["size"]) == (readable["kind"], PAGE)
    of_folder = ["granularity", "unforced_granularity", "flush", "alignment"]
    assert folder["needs_root"] == of_folder
    assert unreadable["needs_root"] == [*of_folder, "bad_blocks"]
    for found in (unreadable, folder):
        assert all(found[key] is None for key in found["needs_root"])
        assert found["granularity_reason"].endswith("Permission denied")
        assert found["notes"] == []


def test_needs_root(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing permission needs root, unless the user is root; other errors are only noted."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = info.Info("path")

    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    assert info.query(found, "bad_blocks", refuse) is None
    info.add_note(found, "device_id", OSError(5, "Input/output error"))
    assert found.needs_root == ["bad_blocks"]
    assert found.notes == ["bad_blocks: Permission denied", "device_id: Input/output error"]

    @contextmanager
    def refuse_to_open(_path: str, _status: os.stat_result) -> Iterator[None]:
        refuse()
        yield

    monkeypatch.setattr(info, "open_for_probe", refuse_to_open)
    unreadable = info.examine(str(path), make_platform([]))
    assert unreadable.needs_root == ["granularity", "unforced_granularity", "flush", "alignment", "bad_blocks"]
    assert unreadable.granularity_reason == "Permission denied"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    info.add_note(found, "numa_node", PermissionError(13, "Permission denied"))
    assert found.needs_root == ["bad_blocks"]


# ---- reasons


EXT4 = Mount("ext4", "/mnt", "/dev/vda", ("rw",))
DAX = Mount("ext4", "/mnt", "/dev/pmem0", ("rw", "dax=always"))
TMPFS = Mount("tmpfs", "/tmp", "none", ())
BTRFS = Mount("btrfs", "/", "/dev/sda", ())
UNLISTED = Mount("xfs")
REGIONS = [Region("region0", "memory_controller"), Region("region1", None)]


def make_platform(regions: list[Region], forced: str | None = None) -> info.Platform:
    """Return a platform with these regions."""
    return info.Platform("1", "2", "/lib", "clwb", forced, regions, None)


@pytest.mark.parametrize(
    ("granularity", "kind", "mount", "regions", "expected"),
    [
        (Granularity.PAGE, "regular file", EXT4, [], "ext4 at /mnt is not mounted with -o dax"),
        (Granularity.PAGE, "regular file", DAX, [], "is mounted with DAX, but the kernel refuses MAP_SYNC"),
        (Granularity.PAGE, "tmpfs", TMPFS, [], "loses them when power fails"),
        (Granularity.PAGE, "regular file", Mount("hugetlbfs"), [], "hugetlbfs keeps files in memory and loses them"),
        (Granularity.PAGE, "regular file", BTRFS, [], "btrfs at / has no DAX"),
        (Granularity.PAGE, "regular file", UNLISTED, [], "xfs is not mounted with -o dax"),
        (Granularity.CACHE_LINE, "fsdax", DAX, REGIONS, "no eADR; persistence domains: region0 memory_controller"),
        (Granularity.CACHE_LINE, "devdax", UNLISTED, [], "a DAX device, but the platform does not flush its caches"),
        (Granularity.CACHE_LINE, "devdax", UNLISTED, [], "no NVDIMM region reports a persistence domain"),
        (Granularity.BYTE, "fsdax", DAX, [Region("region0", "cpu_cache")], "eADR; persistence domains: region0 cpu"),
    ],
)
def test_reason(granularity: Granularity, kind: str, mount: Mount, regions: list[Region], expected: str) -> None:
    """Each medium has its own reason."""
    found = info.explain_granularity(granularity, granularity, kind, mount, make_platform(regions))
    assert expected in found
    forced = info.explain_granularity(Granularity.BYTE, granularity, kind, mount, make_platform(regions, "BYTE"))
    assert forced == f"PMEM2_FORCE_GRANULARITY forces BYTE; the medium itself gives {granularity.name}: {found}"


@pytest.mark.parametrize(
    ("mount", "granularity", "kind"),
    [
        (EXT4, None, "regular file"),
        (DAX, None, "fsdax"),
        (TMPFS, None, "tmpfs"),
        (UNLISTED, None, "regular file"),
        (EXT4, Granularity.BYTE, "fsdax"),
        (DAX, Granularity.PAGE, "regular file"),
    ],
)
def test_kind(mount: Mount, granularity: Granularity | None, kind: str) -> None:
    """The granularity decides the kind of a file; while it is unknown, the mount does."""
    assert info.classify_file(mount, granularity) == kind


# ---- the platform


MOUNTINFO = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 21 259:0 / /mnt/with\040blank rw,noatime - ext4 /dev/pmem0 rw,dax=always
31 21 259:1 / /mnt/twice rw - xfs  rw
32 21 259:2 / /mnt/twice rw - xfs /dev/two rw
"""


def test_mounts() -> None:
    """Mounts are found by the kernel's number of them."""
    mounts = _platform.parse_mounts(MOUNTINFO.lstrip())
    assert {number: (mount.point, mount.source, mount.dax) for number, mount in mounts.items()} == {
        "21": ("/", "/dev/vda", False),
        "30": ("/mnt/with blank", "/dev/pmem0", True),
        "31": ("/mnt/twice", "", False),
        "32": ("/mnt/twice", "/dev/two", False),
    }
    assert mounts["21"].options == ("rw", "relatime", "discard")


def test_without_proc(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without /proc fewer facts are known, and the command succeeds."""
    monkeypatch.setattr(_platform, "PROC", tmp_path)
    found = examine(capsys, path)
    assert found["platform"]["flush_instruction"] is found["platform"]["libpmem2_version"] is None
    assert found["paths"][0]["mount_point"] is found["paths"][0]["mount_options"] is None
    assert found["paths"][0]["filesystem"] == _platform.find_mount(str(path)).filesystem
    assert found["paths"][0]["granularity"] is not None
    assert main(["info", str(path)]) == 0
    assert "flush instruction  unknown\n" in capsys.readouterr().out


def test_mount_agrees_with_findmnt(tmp_path: Path) -> None:
    """findmnt reports the same mount."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE,TARGET", "--target", str(tmp_path)]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("findmnt is missing or does not know the path")
    found = _platform.find_mount(str(tmp_path))
    assert [found.filesystem, found.point] == output


def test_regions(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file on a region has its persistence domain; eADR needs cpu_cache in every region."""
    sysfs = tmp_path / "sys"
    for name, domain in (("region0", "cpu_cache"), ("region1", "memory_controller"), ("region10", None)):
        (sysfs / "bus/nd/devices" / name).mkdir(parents=True)
        if domain is not None:
            (sysfs / "bus/nd/devices" / name / "persistence_domain").write_text(f"{domain}\n", encoding="ascii")
    number = path.stat().st_dev
    disk = sysfs / "devices/ndbus0/region1/namespace1.0/block/pmem1"
    disk.mkdir(parents=True)
    (sysfs / "dev/block").mkdir(parents=True)
    (sysfs / f"dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(disk)
    monkeypatch.setattr(_platform, "SYSFS", sysfs)
    found = examine(capsys, path)
    assert [tuple(region.values()) for region in found["platform"]["regions"]] == [
        ("region0", "cpu_cache"),
        ("region1", "memory_controller"),
        ("region10", None),
    ]
    assert found["platform"]["eadr"] is False
    assert found["paths"][0]["region"] == "region1"
    assert found["paths"][0]["persistence_domain"] == "memory_controller"
    for name in ("region1", "region10"):
        (sysfs / "bus/nd/devices" / name / "persistence_domain").write_text("cpu_cache", encoding="ascii")
    assert examine(capsys, path)["platform"]["eadr"] is True


def make_sysfs(root: Path, files: dict[str, str]) -> Path:
    """Make a tree of files like sysfs; a name that ends in a slash is a directory."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            (root / name).write_text(f"{content}\n", encoding="ascii")
    return root


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Without PATH, the command shows what this machine has; without persistent memory it says so."""
    assert main(["info"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    paths = examine(capsys)["paths"]
    assert {each["path"] for each in paths} <= set(_platform.list_persistent_memory())
    assert ("No DAX mount and no DAX device found." in text) == (paths == [])


def test_persistent_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without PATH, the command lists regions and namespaces, then DAX mounts, other disks and devices as paths."""
    pmem = "bus/nd/devices"
    sysfs = {
        f"{pmem}/region0/persistence_domain": "memory_controller",
        f"{pmem}/region10/available_size": "0",
        f"{pmem}/region2/persistence_domain": "cpu_cache",
        f"{pmem}/namespace0.0/mode": "memory",
        f"{pmem}/namespace0.0/size": str(4 << 30),
        f"{pmem}/namespace1.0/mode": "dax",
        f"{pmem}/namespace1.0/size": str(2 << 30),
        f"{pmem}/namespace1.1/mode": "raw",
        f"{pmem}/namespace1.1/size": "0",
        f"{pmem}/namespace2.0/size": "4096",
        "bus/cxl/devices/region0/size": "0x100000000",
        "bus/cxl/devices/region0/mode": "ram",
        "bus/cxl/devices/region1/": "",
        "bus/dax/devices/dax1.0/": "",
        "bus/dax/devices/dax10.0/": "",
        "bus/dax/devices/dax2.0/": "",
        **dict.fromkeys(("block/pmem0/", "block/pmem1/", "block/pmem10/", "block/sda/"), ""),
    }
    point = tmp_path / "with blank"
    mountinfo = f"""\
21 1 254:0 / / rw - ext4 /dev/vda rw
30 21 259:0 / {str(point).replace(" ", chr(92) + "040")} rw - ext4 /dev/pmem0p1 rw,dax=always
31 21 259:0 /inside {str(point).replace(" ", chr(92) + "040")} rw - ext4 /dev/pmem0p1 rw,dax=always
32 21 259:0 / /mnt/xfs rw - xfs /dev/pmem10 rw,dax"""
    proc = make_sysfs(tmp_path / "proc", {"self/mountinfo": mountinfo})
    monkeypatch.setattr(_platform, "SYSFS", make_sysfs(tmp_path / "sys", sysfs))
    monkeypatch.setattr(_platform, "PROC", proc)
    paths = [str(point), "/mnt/xfs", "/dev/pmem1", "/dev/dax1.0", "/dev/dax2.0", "/dev/dax10.0"]
    assert _platform.list_persistent_memory() == paths
    point.mkdir()
    monkeypatch.setattr(_platform, "list_persistent_memory", lambda: [str(point), f"{point}/missing"])
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"\n\n{point}\n  type " in text
    assert "missing" not in text
    regions = text.split("\n\n")[1]
    assert [re.split("  +", line) for line in regions.splitlines()] == [
        ["region0", "persistence domain memory_controller"],
        ["region2", "persistence domain cpu_cache"],
        ["region10", "persistence domain unknown"],
        ["namespace0.0", "fsdax, 4 GiB"],
        ["namespace1.0", "devdax, 2 GiB"],
        ["namespace2.0", "unknown mode, 4 KiB"],
        ["CXL region0", "ram, 4 GiB"],
        ["CXL region1", "unknown mode, 0 bytes"],
    ]


def test_region_of_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region of CXL memory is not taken for one of NVDIMMs, and a disk is found by its own number."""
    status = os.stat("/dev/null")
    link = tmp_path / f"dev/char/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    link.parent.mkdir(parents=True)
    monkeypatch.setattr(_platform, "SYSFS", tmp_path)
    for folder, region, cxl in (
        ("devices/ACPI0012:00/ndbus0/region1/dax1.1/dax1.0", "region1", None),
        ("devices/ACPI0017:00/root0/decoder0.0/region4/dax_region4/dax4.0", None, "region4"),
        ("devices/virtual/mem/null", None, None),
    ):
        (tmp_path / folder).mkdir(parents=True)
        link.symlink_to(tmp_path / folder)
        assert (_platform.find_region(status), _platform.find_cxl_region(status)) == (region, cxl)
        link.unlink()


CLWB = "processor : 0\nflags\t\t: fpu clflush clflushopt clwb\n"


@pytest.mark.parametrize(
    ("cpuinfo", "environment", "expected"),
    [
        (CLWB, {}, "clwb"),
        (CLWB, {"PMEM_NO_CLWB": "1"}, "clflushopt"),
        (CLWB, {"PMEM_NO_CLWB": "yes"}, "clwb"),
        (CLWB, {"PMEM_NO_CLFLUSHOPT": "1"}, "clwb"),
        (CLWB, {"PMEM_NO_CLWB": "1", "PMEM_NO_CLFLUSHOPT": "1"}, "clflush"),
        ("flags : fpu clflush\n", {}, "clflush"),
        ("Features\t: fp asimd dcpop\n", {}, "dc cvap"),
        ("Features\t: fp asimd\n", {}, "dc cvac"),
        ("cpu : POWER9\n", {}, None),
    ],
)
def test_flush_instruction(cpuinfo: str, environment: dict[str, str], expected: str | None) -> None:
    """The flush instruction follows from the processor and the environment."""
    assert _platform.flush_instruction(cpuinfo, environment) == expected


PRINT_INSTRUCTION = """
import json
import pmem2
from pmem2.cli import info
print(info.examine_platform().flush_instruction)
"""


@pytest.mark.libpmem2
@pytest.mark.parametrize("variables", [[], ["PMEM_NO_CLWB"], ["PMEM_NO_CLWB", "PMEM_NO_CLFLUSHOPT"]])
def test_flush_instruction_of_libpmem2(
    variables: list[str], debug_library: Path, tmp_path: Path, run_child: RunChild
) -> None:
    """The log of libpmem2's debug build names the same flush instruction."""
    log = tmp_path / "log"
    environment = {"LD_LIBRARY_PATH": str(debug_library), "PMEM2_LOG_LEVEL": "3", "PMEM2_LOG_FILE": str(log)}
    done = run_child(PRINT_INSTRUCTION, **environment, **dict.fromkeys(variables, "1"))
    assert done.returncode == 0, done.stderr
    assert f"using {done.stdout.strip()}\n" in log.read_text(encoding="utf-8")


def test_loaded_libpmem2(tmp_path: Path) -> None:
    """The version is the one in the library file, or unknown."""
    versioned, unversioned = tmp_path / "libpmem2.so.1", tmp_path / "libpmem2-0123.so"
    versioned.write_bytes(b"\0\1src version:1.13.1+git5.g0\0more")
    unversioned.write_bytes(b"\0")
    line = "7f00-7f01 r--p 00000000 fe:00 123   {}\n"
    assert _platform.loaded_libpmem2(line.format("/lib/libc.so") + line.format(versioned)) == (
        str(versioned),
        "1.13.1+git5.g0",
    )
    assert _platform.loaded_libpmem2(line.format(unversioned)) == (str(unversioned), None)
    assert _platform.loaded_libpmem2(line.format("/gone/libpmem2.so.1 (deleted)")) == (
        "/gone/libpmem2.so.1 (deleted)",
        None,
    )
    assert _platform.loaded_libpmem2(line.format("/lib/libc.so")) == (None, None)


def test_platform_names_libpmem2() -> None:
    """The path and the version of the loaded libpmem2 are known."""
    found = info.examine_platform()
    assert found.libpmem2_path is not None
    assert Path(found.libpmem2_path).exists()
    assert found.libpmem2_version is not None
    assert re.match(r"\d+\.\d+", found.libpmem2_version)


def test_version_agrees_with_pkg_config() -> None:
    """pkg-config reports the same version."""
    try:
        output = subprocess.run(["pkg-config", "--modversion", "libpmem2"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("pkg-config does not know libpmem2")
    found = info.examine_platform().libpmem2_version
    assert found is not None
    assert found.startswith(output.stdout.strip().split("+")[0])
