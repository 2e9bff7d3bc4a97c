# SPDX-License-Identifier: BSD-3-Clause
"""A device DAX without an NVDIMM region: CXL memory, or memory that the BIOS reserved. libndctl crashes on it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.children import RunChild

import pmem2
from hardware import inject
from pmem2 import Config, Granularity

pytestmark = pytest.mark.medium

ALIGNMENT = 2 * 1024 * 1024


@pytest.fixture
def softdax() -> Path:
    """A device DAX without an NVDIMM region."""
    if "PMEM2_TEST_SOFTDAX" not in os.environ:
        pytest.skip("needs a device DAX without an NVDIMM: nox -s nvdimm")
    return Path(os.environ["PMEM2_TEST_SOFTDAX"])


LIBRARY = """
import os, sys
from support import libpmem2
with libpmem2.source(os.open(sys.argv[1], os.O_RDWR)) as source:
    print("made", flush=True)
    print(libpmem2.source_size(source))
"""


@pytest.mark.libpmem2
def test_library_crashes(softdax: Path, run_child: RunChild) -> None:
    """libpmem2 crashes when asked for the size of such a device; the façade prevents this."""
    child = run_child(LIBRARY, str(softdax))
    assert (child.returncode, child.stdout) == (-signal.SIGSEGV, "made\n"), child.stderr


def test_properties(softdax: Path) -> None:
    """Size, alignment and NUMA node are the values in sysfs."""
    with pmem2.Source.from_path(softdax) as source:
        assert source.size == int(inject.attribute(softdax, "size"))
        assert source.alignment == ALIGNMENT
        assert source.numa_node == int(inject.attribute(softdax, "numa_node"))


def test_map_and_persist(softdax: Path) -> None:
    """The device maps at a huge page boundary with CACHE_LINE granularity and keeps its data."""
    with pmem2.open(softdax) as map:
        assert map.granularity is Granularity.CACHE_LINE
        assert map.address % ALIGNMENT == 0
        map.memcpy(0, b"header")
        map[ALIGNMENT : ALIGNMENT + 4] = b"data"
        map.persist_many([(0, 6), (ALIGNMENT, 4)])
        map.store_u64(64, 42, persist=True)
        with pytest.raises(pmem2.DaxRegionNotFoundError):
            map.deep_flush()
    with pmem2.open(softdax, "r", config=Config(offset=ALIGNMENT, length=ALIGNMENT)) as map:
        assert map[0:4] == b"data"
    with pmem2.open(softdax, "w+", size=ALIGNMENT) as map:
        assert map.size == int(inject.attribute(softdax, "size"))
        assert (map[0:6], map.load_u64(64)) == (b"header", 42)


def test_refused_configurations(softdax: Path) -> None:
    """Invalid configurations raise the same codes as on other DAX devices, and the texts name the alignment."""
    with pmem2.Source.from_path(softdax) as source:
        with pytest.raises(pmem2.LengthUnalignedError, match=str(ALIGNMENT)):
            source.map(Config(length=4096))
        with pytest.raises(pmem2.OffsetUnalignedError, match=str(ALIGNMENT)):
            source.map(Config(offset=4096, length=ALIGNMENT))
        with pytest.raises(pmem2.SrcDevdaxPrivateError):
            source.map(Config(sharing=pmem2.Sharing.PRIVATE))
        with pytest.raises(pmem2.MapRangeError):
            source.map(Config(offset=source.size))


def test_nvdimm_operations_unsupported(softdax: Path) -> None:
    """Device id, unsafe shutdown count, bad blocks and mcsafe are NOSUPP."""
    with pmem2.Source.from_path(softdax) as source:
        for operation in (
            lambda: source.device_id,
            lambda: source.device_usc,
            source.bad_blocks,
            lambda: source.pread_mcsafe(1),
            lambda: source.pwrite_mcsafe(b"x"),
        ):
            with pytest.raises(pmem2.NosuppError):
                operation()
