# SPDX-License-Identifier: BSD-3-Clause
"""A processor whose caches libpmem2 does not flush, as riscv64: persist at CACHE_LINE would do nothing.

On other processors the tests compile the guards as for such a one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import _pmem2
import pytest
from _pmem2 import lib

import pmem2

if sys.platform == "win32":
    pytest.skip("libpmem2 flushes the caches of every processor with Windows", allow_module_level=True)

ROOT = Path(__file__).parents[2]
COMPILE = "import sys, build_pmem2; build_pmem2.ffibuilder.compile(tmpdir=sys.argv[1])"
OUTCOMES = """
import gc, json, mmap, os, sys
import pmem2
from pmem2 import Config, Granularity, Sharing, Source, _files, _source

path = sys.argv[1]
real_dax_device = _source.dax_device_without_nvdimm

def outcome(make, granularity=""):
    os.environ["PMEM2_FORCE_GRANULARITY"] = granularity or "PAGE"
    try:
        with make() as map:
            map.memcpy(0, b"copied")
            map[6] = 33
            map.persist()
            return map.granularity.name
    except pmem2.NosuppError as error:
        text = str(error)
    gc.collect()  # PyPy: the mmap that from_existing was called with
    assert path not in open("/proc/self/maps").read()
    return text

def from_source(required=Granularity.PAGE, **arguments):
    with Source.from_path(path) as source:
        return source.map(Config(required_granularity=required, **arguments))

def in_reservation():
    with pmem2.VMReservation(4 << 20) as reservation:
        try:
            return from_source(reservation=reservation)
        finally:
            assert list(reservation) == []

def from_existing(granularity):
    with Source.from_path(path) as source, open(path, "r+b") as file:
        return pmem2.Map.from_existing(source, mmap.mmap(file.fileno(), 0), granularity)

def dax_device():
    _source.dax_device_without_nvdimm = lambda fd: _files.DaxGeometry(2 << 20, 2 << 20, 0)
    try:
        return from_source()
    finally:
        _source.dax_device_without_nvdimm = real_dax_device

print(json.dumps({
    "forced": outcome(from_source, "CACHE_LINE"),
    "required": outcome(lambda: from_source(Granularity.CACHE_LINE), "CACHE_LINE"),
    "opened": outcome(lambda: pmem2.open(path), "CACHE_LINE"),
    "reserved": outcome(in_reservation, "CACHE_LINE"),
    "existing": outcome(lambda: from_existing(Granularity.CACHE_LINE)),
    "device": outcome(dax_device),
    "page": outcome(from_source),
    "existing page": outcome(lambda: from_existing(Granularity.PAGE)),
    "byte": outcome(from_source, "BYTE"),
    "private": outcome(lambda: from_source(sharing=Sharing.PRIVATE)),
    "anonymous": outcome(lambda: Source.from_anon(4096).map()),
}))
"""


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an extension module for a processor without cache flush."""
    if not lib.HAS_CACHE_FLUSH:
        return Path(_pmem2.__file__).parent
    pytest.importorskip("cffi")
    if sys.version_info >= (3, 12):  # older ones have distutils
        pytest.importorskip("setuptools")
    if not shutil.which("cc") or subprocess.run(["pkg-config", "--exists", "libpmem2"], check=False).returncode:
        pytest.skip("needs a C compiler and the headers of libpmem2")
    folder = tmp_path_factory.mktemp("extension")
    environment = {**os.environ, "CFLAGS": "-O0 -DHAS_CACHE_FLUSH=0", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", COMPILE, folder], env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def outcomes(extension: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The granularity of each map, or the error."""
    path = tmp_path_factory.mktemp("outcomes") / "file"
    path.write_bytes(bytes(4 << 20))
    folders = (extension, Path(pmem2.__file__).parents[1], os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", OUTCOMES, str(path)]
    child = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    found: dict[str, str] = json.loads(child.stdout)
    return found


@pytest.mark.parametrize("name", ["forced", "required", "opened", "reserved", "existing", "device"])
def test_cache_line_is_refused(outcomes: dict[str, str], name: str) -> None:
    """No map has CACHE_LINE granularity, and the error names what works."""
    assert "libpmem2 does not flush the caches of this processor" in outcomes[name]
    assert "PMEM2_FORCE_GRANULARITY=PAGE" in outcomes[name]


def test_page_and_byte_work(outcomes: dict[str, str]) -> None:
    """PAGE uses msync, and BYTE needs no flush."""
    granularities = {"page": "PAGE", "existing page": "PAGE", "byte": "BYTE", "private": "BYTE", "anonymous": "BYTE"}
    assert {name: outcomes[name] for name in granularities} == granularities


@pytest.mark.skipif(bool(lib.HAS_CACHE_CONTROL), reason="programs can write cache lines back on this processor")
@pytest.mark.parametrize("length", [0, 64])
def test_lines_cannot_be_written_back(path: Path, length: int) -> None:
    """publish and acquire are refused, for a length of 0 too."""
    with pmem2.open(path) as map:
        for call in (map.publish, map.acquire):
            with pytest.raises(pmem2.NosuppError, match="only x86-64, 64-bit ARM and POWER"):
                call(0, length)
        for call_many in (map.publish_many, map.acquire_many):
            with pytest.raises(pmem2.NosuppError, match="only x86-64, 64-bit ARM and POWER"):
                call_many([(0, length)])
