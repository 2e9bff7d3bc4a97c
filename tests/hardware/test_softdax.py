# SPDX-License-Identifier: BSD-3-Clause
"""A device DAX that no NVDIMM region backs: CXL memory, or what a BIOS has reserved. libndctl crashes on it."""

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
    """That device."""
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


def test_p31_the_library_crashes_on_it(softdax: Path, run_child: RunChild) -> None:
    """libpmem2 itself dies when it is asked for the size of the device: this is what the façade prevents."""
    child = run_child(LIBRARY, str(softdax))
    assert (child.returncode, child.stdout) == (-signal.SIGSEGV, "made\n"), child.stderr


def test_p31_it_is_described(softdax: Path) -> None:
    """Size, alignment and NUMA node are what sysfs tells."""
    with pmem2.Source.from_path(softdax) as source:
        assert source.size == int(inject.attribute(softdax, "size"))
        assert source.alignment == ALIGNMENT
        assert source.numa_node == int(inject.attribute(softdax, "numa_node"))


def test_p31_it_is_mapped(softdax: Path) -> None:
    """It is mapped where a huge page can begin, at CACHE_LINE, and keeps what was stored until the next `open`."""
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


def test_p31_it_is_refused_as_others_are(softdax: Path) -> None:
    """What no device DAX can do is refused with libpmem2's codes, and the texts name the alignment."""
    with pmem2.Source.from_path(softdax) as source:
        with pytest.raises(pmem2.LengthUnalignedError, match=str(ALIGNMENT)):
            source.map(Config(length=4096))
        with pytest.raises(pmem2.OffsetUnalignedError, match=str(ALIGNMENT)):
            source.map(Config(offset=4096, length=ALIGNMENT))
        with pytest.raises(pmem2.SrcDevdaxPrivateError):
            source.map(Config(sharing=pmem2.Sharing.PRIVATE))
        with pytest.raises(pmem2.MapRangeError):
            source.map(Config(offset=source.size))


def test_p31_what_needs_an_nvdimm(softdax: Path) -> None:
    """Ids, counts, bad blocks and mcsafe are NOSUPP."""
    with pmem2.Source.from_path(softdax) as source:
        for asked in (
            lambda: source.device_id,
            lambda: source.device_usc,
            source.bad_blocks,
            lambda: source.pread_mcsafe(1),
            lambda: source.pwrite_mcsafe(b"x"),
        ):
            with pytest.raises(pmem2.NosuppError):
                asked()
