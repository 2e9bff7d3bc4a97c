# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: files to map, forced granularities, and children that are allowed to die."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import libpmem2, platform_skips
from support.children import RunChild
from support.compiled import BUILDS
from support.values import CONTENT, GRANULARITIES, MEDIUM_GRANULARITY, PAGE, SIZE

import pmem2

pytest_plugins = ["pytester"]

ST_NOEXEC = 8  # PyPy's os has no such name


settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), max_examples=500)
settings.register_profile("long", settings.get_profile("default"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# what cannot even be imported there
collect_ignore = list(platform_skips.MODULES) if sys.platform == "win32" else []


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of compiled C programs, which all workers share."""
    if not hasattr(config, "workerinput"):
        os.environ[BUILDS] = tempfile.mkdtemp(prefix="pmem2-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of compiled C programs."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(BUILDS))


def pytest_report_header() -> list[str]:
    """Say which modules are left out, and why."""
    return [f"not on Windows: {name}: {platform_skips.MODULES[name]}" for name in collect_ignore]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the other tests that are not for this system."""
    platform_skips.skip(items)
    if sys.implementation.name == "cpython":
        gc.collect()
        gc.freeze()  # hundreds of tests collect garbage, and none of them need go through all the others


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 16 MiB, all of it a hole."""
    path = tmp_path / "testfile"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two pages, none of its bytes like its neighbours."""
    path = tmp_path / "small"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def locked() -> Iterator[Path]:
    """A file like that, in a place where another user can go, but which nobody else may write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "file"
        path.write_bytes(CONTENT)
        path.chmod(0o444)
        yield path


@pytest.fixture
def fd(file: Path) -> Iterator[int]:
    """A descriptor of that file, open for reading and writing."""
    number = os.open(file, os.O_RDWR)
    yield number
    os.close(number)


@pytest.fixture
def raw_source(fd: int) -> Iterator[int]:
    """A source of that descriptor, made by libpmem2 itself."""
    with libpmem2.source(fd) as pointer:
        yield pointer


@pytest.fixture
def reservations() -> None:
    """Skip where no addresses can be reserved: wine 8 has no placeholders for memory."""
    try:
        pmem2.VMReservation(PAGE).close()
    except OSError as error:
        if sys.platform != "win32":
            raise
        pytest.skip(f"addresses cannot be reserved here: {error}")


@pytest.fixture
def exec_file(file: Path) -> Path:
    """That file, where memory mapped from it may be executed."""
    if sys.platform != "win32" and os.statvfs(file).f_flag & ST_NOEXEC:
        pytest.skip("the file system is mounted noexec")
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 pages."""
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
    """A writable source of that file."""
    with pmem2.Source.from_path(file) as opened:
        yield opened


@pytest.fixture
def map(source: pmem2.Source) -> Iterator[pmem2.Map]:
    """A map of the whole of that source."""
    with source.map() as mapped:
        yield mapped


@pytest.fixture(params=GRANULARITIES, ids=lambda g: g.name.lower())
def granularity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pmem2.Granularity:
    """Each granularity in turn, forced upon every shared map of a file, as upstream's tests do; a real medium's own."""
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
    """A DAX device."""
    if "PMEM2_TEST_DEVDAX" not in os.environ:
        pytest.skip("needs a device DAX: nox -s nvdimm")
    return Path(os.environ["PMEM2_TEST_DEVDAX"])


@pytest.fixture
def debug_library() -> Path:
    """The folder of libpmem2's debug build, for the LD_LIBRARY_PATH of a child."""
    for library in Path("/usr/lib").glob("*/pmdk_dbg/libpmem2.so.1"):
        return library.parent
    pytest.skip("libpmem2's debug build is not installed (package libpmem2-debug)")


@pytest.fixture(scope="session")
def run_child() -> RunChild:
    """Run Python in a child process, which may die: a negative returncode is a signal. It may import from here."""
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        preloaded = [name["LD_PRELOAD"] for name in (os.environ, environment) if "LD_PRELOAD" in name]
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            # a sanitizer's runtime comes first
            env={**os.environ, "PYTHONPATH": path, **environment, "LD_PRELOAD": " ".join(preloaded)},
            capture_output=True,
            text=True,
            timeout=200,  # for what hangs, not for what is slow: an msync may wait seconds for a busy disk
            check=False,
        )

    return run
