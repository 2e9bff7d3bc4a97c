# SPDX-License-Identifier: BSD-3-Clause
"""Files on a file system mounted with DAX."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import libpmem2
from support.children import RunChild
from support.values import MEDIUM_GRANULARITY, open_fd

import pmem2
from hardware import inject
from pmem2 import Config, ErrorCode, Granularity

pytestmark = pytest.mark.medium

SIZE = 1024 * 1024


@pytest.fixture
def pool(fsdax: Path) -> Path:
    """A file of 1 MiB."""
    path = fsdax / "pool"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.mark.upstream("pmem2_integration/TEST8", "pmem2_integration/TEST9", "pmem2_integration/TEST10")
def test_granularity(pool: Path) -> None:
    """A file has the granularity of its platform, satisfies coarser ones, and explains the refusal of finer ones."""
    assert MEDIUM_GRANULARITY is not None
    found = Granularity[MEDIUM_GRANULARITY]
    assert "PMEM2_FORCE_GRANULARITY" not in os.environ
    with pmem2.Source.from_path(pool) as source:
        for required in Granularity:
            if required >= found:
                with source.map(Config(required_granularity=required)) as map:
                    assert map.granularity is found
            else:
                with pytest.raises(pmem2.GranularityNotSupportedError, match="eADR"):
                    source.map(Config(required_granularity=required))


@pytest.mark.upstream("pmem2_source_numa/TEST0")
def test_numa_node(pool: Path) -> None:
    """The NUMA node of a file is that of its region."""
    with pmem2.Source.from_path(pool) as source:
        assert source.numa_node == int(inject.attribute(pool, "numa_node"))


def test_device_id(pool: Path, devdax: Path) -> None:
    """A file has the id of its NVDIMM, which differs from that of the device."""
    with pmem2.Source.from_path(pool) as source, pmem2.Source.from_path(devdax) as device:
        assert len(source.device_id) == len("8680-56341200")
        assert source.device_id != device.device_id


def test_unsafe_shutdown_count_unsupported(pool: Path) -> None:
    """An NVDIMM without an unsafe shutdown count is NOSUPP."""
    with pmem2.Source.from_path(pool) as source, pytest.raises(pmem2.NosuppError, match="unsafe shutdown"):
        _ = source.device_usc


def test_durability_methods(pool: Path) -> None:
    """Every method that makes data durable writes it to the file."""
    with pmem2.open(pool) as map:
        map[0:4] = b"save"
        map.persist(0, 4)
        map.memcpy(100, b"copy")
        map.memset(200, 7, 4)
        map.store_u64(304, 9, persist=True)
        map[400:404] = b"deep"
        map.deep_flush(400, 4)
        map[500:504] = b"many"
        map.persist_many([(500, 2), (502, 2)])
        map[600:602] = b"fl"
        map.flush(600, 2)
        map.drain()
    content = pool.read_bytes()
    assert content[0:4] + content[100:104] + content[200:204] == b"savecopy\7\7\7\7"
    assert int.from_bytes(content[304:312], "little") == 9
    assert content[400:404] + content[500:504] + content[600:602] == b"deepmanyfl"


def test_private_map(pool: Path) -> None:
    """A private map has BYTE granularity and leaves the file unchanged."""
    with pmem2.open(pool, "c") as map:
        assert map.granularity is Granularity.BYTE
        map.memcpy(0, b"mine")
        map.persist()
        assert map[0:4] == b"mine"
    assert pool.read_bytes()[0:4] == bytes(4)


def test_create_file(fsdax: Path) -> None:
    """`pmem2.open` creates a fully allocated file and maps it at the granularity of the medium."""
    path = fsdax / "new"
    with pmem2.open(path, "x+", size=SIZE) as map:
        assert map.granularity.name == MEDIUM_GRANULARITY
        assert path.stat().st_blocks * 512 >= SIZE
        map.memcpy(SIZE - 3, b"end")
    assert path.read_bytes() == bytes(SIZE - 3) + b"end"


def test_two_files_in_reservation(fsdax: Path) -> None:
    """Two files are mapped side by side in one reservation, each with its own content."""
    paths = [fsdax / name for name in ("one", "two")]
    for path in paths:
        path.write_bytes(bytes(SIZE))
    with pmem2.VMReservation(2 * SIZE) as reservation:
        maps = [
            pmem2.open(path, config=Config(reservation=reservation, reservation_offset=number * SIZE))
            for number, path in enumerate(paths)
        ]
        for map in maps:
            map.memcpy(0, os.fsencode(str(map.address)))
        assert maps[1].address == maps[0].address + SIZE
        for map in maps:
            map.close()
    first, second = (int(path.read_bytes().split(b"\0")[0]) for path in paths)
    assert second - first == SIZE


PLAIN_USER = """
import os, sys
import pmem2
os.setuid(65534)
with pmem2.open(sys.argv[1]) as map:
    map.memcpy(0, b"record")
    map.persist()
    map.deep_flush()
    print(map.granularity.name)
with pmem2.Source.from_path(sys.argv[1]) as source, source.bad_blocks() as blocks:
    print(source.device_id, source.numa_node, list(blocks))
"""


def test_operations_without_root(pool: Path, run_child: RunChild) -> None:
    """A user without root can use every operation on an own file, including bad blocks and the device id."""
    os.chmod(pool, 0o666)
    for folder in pool.parents:
        if os.stat(folder).st_uid == 0 and not folder.is_mount():
            os.chmod(folder, 0o755)
        if folder.is_mount():
            break
    with pmem2.Source.from_path(pool) as source:
        expected = f"{MEDIUM_GRANULARITY}\n{source.device_id} {source.numa_node} []\n"
    child = run_child(PLAIN_USER, str(pool))
    assert (child.returncode, child.stdout) == (0, expected), child.stderr
    assert pool.read_bytes()[:6] == b"record"


def test_mcsafe_past_end(pool: Path) -> None:
    """A write past the end of a file is refused, and the file does not grow."""
    with open_fd(pool, os.O_RDWR) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        assert libpmem2.pwrite_mcsafe(pointer, b"x", SIZE) == ErrorCode.LENGTH_OUT_OF_RANGE
        for offset in (SIZE - 1, SIZE, SIZE + 1):
            with pytest.raises(pmem2.LengthOutOfRangeError):
                source.pwrite_mcsafe(b"xy", offset)
        assert source.size == SIZE
