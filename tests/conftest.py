# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: files and sources, forced granularities, devices, and child processes."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pmem2 import lib
from hypothesis import HealthCheck, settings
from support import libpmem2, platform_skips
from support.children import Children, RunChild
from support.compiled import BUILDS
from support.values import CONTENT, GRANULARITIES, MEDIUM_GRANULARITY, PAGE, SIZE

import pmem2
from pmem2.cli._platform import loaded_libpmem2

pytest_plugins = ["pytester"]

ST_NOEXEC = 8  # PyPy's os lacks it

settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), max_examples=500)
settings.register_profile("long", settings.get_profile("default"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Windows cannot even import these modules
collect_ignore = list(platform_skips.MODULES) if sys.platform == "win32" else []


def pytest_configure(config: pytest.Config) -> None:
    """Create the folder for compiled C programs, which all workers of pytest-xdist share."""
    if not hasattr(config, "workerinput"):
        os.environ[BUILDS] = tempfile.mkdtemp(prefix="pmem2-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder for compiled C programs."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(BUILDS))


def pytest_report_header() -> list[str]:
    """List the modules that Windows skips, and why."""
    return [f"not on Windows: {name}: {platform_skips.MODULES[name]}" for name in collect_ignore]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that do not apply to this system."""
    platform_skips.skip(items)
    if not lib.HAS_CACHE_CONTROL:
        for item in items:
            if re.search("publish|acquire|header|proofs", item.nodeid):  # the example shared_header publishes
                item.add_marker(pytest.mark.skip(reason="programs cannot write cache lines back on this processor"))
    if sys.implementation.name == "cpython":
        gc.collect()
        gc.freeze()  # hundreds of tests collect garbage: exclude the objects of the collection phase
    else:
        items.sort(key=lambda item: "safety" not in item.path.parts)  # most collections: first, while the heap is small


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sparse file of 16 MiB."""
    path = tmp_path / "testfile"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two pages in which neighbouring bytes differ."""
    path = tmp_path / "small"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def read_only_file() -> Iterator[Path]:
    """A file of two pages that other users can read but not write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "file"
        path.write_bytes(CONTENT)
        path.chmod(0o444)
        yield path


@pytest.fixture
def fd(file: Path) -> Iterator[int]:
    """A read-write descriptor of `file`."""
    number = os.open(file, os.O_RDWR)
    yield number
    os.close(number)


@pytest.fixture
def raw_source(fd: int) -> Iterator[int]:
    """A libpmem2 source of `fd`, as a pointer."""
    with libpmem2.source(fd) as pointer:
        yield pointer


@pytest.fixture
def needs_reservations() -> None:
    """Skip the test if addresses cannot be reserved: wine 8 lacks memory placeholders."""
    try:
        pmem2.VMReservation(PAGE).close()
    except OSError as error:
        if sys.platform != "win32":
            raise
        pytest.skip(f"addresses cannot be reserved here: {error}")


@pytest.fixture
def exec_file(file: Path) -> Path:
    """`file`; skip the test if its file system forbids execution."""
    if sys.platform != "win32" and os.statvfs(file).f_flag & ST_NOEXEC:
        pytest.skip("the file system is mounted noexec")
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a file system of 16 pages."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={16 * PAGE}", "none", path], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def source(file: Path) -> Iterator[pmem2.Source]:
    """A writable Source of `file`."""
    with pmem2.Source.from_path(file) as source:
        yield source


@pytest.fixture
def map(source: pmem2.Source) -> Iterator[pmem2.Map]:
    """A Map of the whole `source`."""
    with source.map() as map:
        yield map


@pytest.fixture(params=GRANULARITIES, ids=lambda g: g.name.lower())
def granularity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pmem2.Granularity:
    """Force each granularity in turn for shared maps of files, as PMDK's tests do; on a real medium use its own."""
    forced = pmem2.Granularity(request.param)
    if not MEDIUM_GRANULARITY:
        monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", forced.name)
    return forced


@pytest.fixture
def fsdax(tmp_path: Path) -> Path:
    """A folder on a file system mounted with DAX."""
    if "PMEM2_TEST_FSDAX" not in os.environ:
        pytest.skip("needs a file system on persistent memory: nox -s nvdimm")
    return tmp_path


@pytest.fixture
def devdax() -> Path:
    """The path of a DAX device."""
    if "PMEM2_TEST_DEVDAX" not in os.environ:
        pytest.skip("needs a device DAX: nox -s nvdimm")
    return Path(os.environ["PMEM2_TEST_DEVDAX"])


@pytest.fixture(scope="session")
def debug_library() -> Path:
    """The folder of libpmem2's debug build, for LD_LIBRARY_PATH in a child."""
    loaded, _ = loaded_libpmem2(Path("/proc/self/maps").read_text(encoding="utf-8"))
    assert loaded is not None
    if libpmem2.is_debug_build():
        return Path(loaded).parent
    for library in Path(loaded).parent.glob("pmdk_d*/libpmem2.so.1"):  # pmdk_dbg on Debian, elsewhere pmdk_debug
        return library.parent
    pytest.skip("libpmem2's debug build is not installed (package libpmem2-debug)")


@pytest.fixture(scope="session")
def run_child() -> Iterator[RunChild]:
    """Run Python in a child process that can import from tests/; a negative returncode is a fatal signal."""
    children = Children()
    yield children
    children.close()
