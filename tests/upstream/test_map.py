# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of maps: pmem2_map, pmem2_map_prot and pmem2_map_from_existing."""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.children import RunChild
from support.values import PAGE, SEGFAULT, SIZE, open_fd

import pmem2

HALF = SIZE // 2
KIB = 1024
HUGE_PAGE = 2 * 1024 * KIB

READ, WRITE, EXEC, NONE = (
    pmem2.Protection.READ,
    pmem2.Protection.WRITE,
    pmem2.Protection.EXEC,
    pmem2.Protection.NONE,
)
TEXT = b"Some text to store through a map."
FIRST = b"Text through the first map."
SECOND = b"And then through the second"

TWO_PLUS_TWO = bytes.fromhex("b802000000 83c002 c3")  # mov $2, %eax; add $2, %eax; ret

forced = pytest.mark.usefixtures("granularity")
x86_64 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs x86-64")
both_sharings = pytest.mark.parametrize("sharing", list(pmem2.Sharing), ids=lambda s: s.name.lower())


@pytest.fixture
def read_only_fd(file: Path) -> Iterator[int]:
    """A read-only descriptor of the file."""
    with open_fd(file, os.O_RDONLY) as fd:
        yield fd


@pytest.fixture
def read_only_source(read_only_fd: int) -> Iterator[pmem2.Source]:
    """A Source of that descriptor."""
    with pmem2.Source.from_fd(read_only_fd) as source:
        yield source


@pytest.fixture
def raw_read_only_source(read_only_fd: int) -> Iterator[int]:
    """A libpmem2 source of that descriptor."""
    with libpmem2.source(read_only_fd) as pointer:
        yield pointer


def raw_map_error(fd: int, *, offset: int = 0, length: int = 0) -> tuple[int, int]:
    """Return the code and the pointer of a map that libpmem2 refuses to make."""
    with libpmem2.source(fd) as source, libpmem2.config(offset=offset, length=length) as config:
        return libpmem2.map_new(config, source)


# ---- mapping


@pytest.mark.upstream("pmem2_map/TEST0")
@pytest.mark.medium
def test_map_writable_file(source: pmem2.Source, raw_source: int, granularity: pmem2.Granularity) -> None:
    """A file that is open for reading and writing can be mapped at every granularity."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_granularity(pointer) == granularity
    with source.map() as map:
        assert map.granularity is granularity
        assert map.protection == READ | WRITE


@pytest.mark.upstream("pmem2_map/TEST2")
@pytest.mark.medium
@forced
def test_map_read_only_file(raw_read_only_source: int, read_only_source: pmem2.Source) -> None:
    """A read-only descriptor refuses a writable map; the default Config maps it READ."""
    with libpmem2.config() as config:
        assert libpmem2.map_new(config, raw_read_only_source) == (lib.PMEM2_E_NO_ACCESS, 0)
    with pytest.raises(pmem2.NoAccessError):
        read_only_source.map(pmem2.Config(protection=READ | WRITE))
    with read_only_source.map() as map:
        assert map.protection == READ


@pytest.mark.upstream("pmem2_map/TEST4")
@pytest.mark.medium
@forced
@pytest.mark.parametrize(
    ("length", "offset", "size"),
    [
        pytest.param(None, 0, SIZE, id="whole file"),
        pytest.param(SIZE, 0, SIZE, id="file size"),
        pytest.param(HALF, 0, HALF, id="half"),
        pytest.param(HALF, PAGE, HALF, id="half with an offset"),
    ],
)
def test_valid_ranges(source: pmem2.Source, raw_source: int, length: int | None, offset: int, size: int) -> None:
    """A map has the requested length, or extends to the end of the source."""
    with libpmem2.config(length=length or 0, offset=offset) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_size(pointer) == size
    with source.map(pmem2.Config(length=length, offset=offset)) as map:
        assert map.size == len(map) == size


@pytest.mark.upstream("pmem2_map/TEST6")
@forced
@pytest.mark.parametrize(("offset", "length"), [(HALF + PAGE, HALF), (2 * SIZE, 0)], ids=["length", "offset"])
def test_range_past_end(source: pmem2.Source, fd: int, offset: int, length: int) -> None:
    """A range that exceeds the file is refused."""
    assert raw_map_error(fd, offset=offset, length=length) == (lib.PMEM2_E_MAP_RANGE, 0)
    with pytest.raises(pmem2.MapRangeError):
        source.map(pmem2.Config(offset=offset, length=length or None))


@pytest.mark.upstream("pmem2_map/TEST8")
@pytest.mark.medium
@forced
def test_unaligned_offset(source: pmem2.Source, fd: int) -> None:
    """An offset inside a page is refused."""
    assert raw_map_error(fd, length=HALF, offset=KIB) == (lib.PMEM2_E_OFFSET_UNALIGNED, 0)
    with pytest.raises(pmem2.OffsetUnalignedError):
        source.map(pmem2.Config(length=HALF, offset=KIB))


@pytest.mark.upstream("pmem2_map/TEST10")
@forced
def test_closed_descriptor(file: Path) -> None:
    """libpmem2 needs the caller's descriptor to map; a Source needs only itself to be open."""
    fd = os.open(file, os.O_RDWR)
    with libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source, libpmem2.config() as config:
        os.close(fd)
        assert libpmem2.map_new(config, pointer) == (lib.PMEM2_E_INVALID_FILE_HANDLE, 0)
        with source.map() as map:
            assert map.size == SIZE
    with pytest.raises(ValueError, match="closed"):
        source.map()


@pytest.mark.upstream("pmem2_map/TEST11")
@pytest.mark.medium
@forced
def test_unmap(source: pmem2.Source, raw_source: int) -> None:
    """A deleted or closed map is no longer in memory, and closing it again does nothing."""
    with libpmem2.config() as config:
        rc, pointer = libpmem2.map_new(config, raw_source)
    assert rc == 0
    address = libpmem2.map_address(pointer)
    assert libpmem2.permissions(address) == "rw-s"
    assert libpmem2.map_delete(pointer) == (0, 0)
    assert libpmem2.permissions(address) != "rw-s"

    map = source.map()
    address = map.address
    assert libpmem2.permissions(address) == "rw-s"
    map.close()
    assert libpmem2.permissions(address) != "rw-s"
    assert map.closed
    map.close()


@pytest.mark.upstream("pmem2_map/TEST18", "pmem2_map/TEST19", "pmem2_map/TEST20")
def test_getters(source: pmem2.Source, fd: int, raw_source: int) -> None:
    """Address, size and granularity are those that the map was created with."""
    with libpmem2.existing(raw_source, 0x12345, 16384, lib.PMEM2_GRANULARITY_BYTE) as pointer:
        assert libpmem2.map_address(pointer) == 0x12345
        assert libpmem2.map_size(pointer) == 16384
        assert libpmem2.map_granularity(pointer) == lib.PMEM2_GRANULARITY_BYTE
    byte = pmem2.Granularity.BYTE
    with mmap.mmap(fd, 16384) as memory, pmem2.Map.from_existing(source, memory, byte) as map:
        memory[:5] = b"there"
        assert map[:5] == b"there"
        assert libpmem2.permissions(map.address) == "rw-s"
        assert map.size == len(map) == 16384
        assert map.granularity is byte


@pytest.mark.upstream("pmem2_map/TEST21")
@pytest.mark.medium
@forced
def test_unaligned_length(tmp_path: Path) -> None:
    """A length that ends inside a page is refused, even at the end of the file; a map without one ends there."""
    path = tmp_path / "3 KiB"
    path.write_bytes(bytes(3 * KIB))
    with open_fd(path, os.O_RDWR) as fd, pmem2.Source.from_fd(fd) as source:
        assert raw_map_error(fd, length=3 * KIB) == (lib.PMEM2_E_LENGTH_UNALIGNED, 0)
        with pytest.raises(pmem2.LengthUnalignedError):
            source.map(pmem2.Config(length=3 * KIB))
        with source.map() as map:
            assert map.size == 3 * KIB


@pytest.mark.upstream("pmem2_map/TEST22")
@forced
def test_length_exceeds_unaligned_file(tmp_path: Path) -> None:
    """A length that is aligned up past the end of an unaligned file is refused."""
    path = tmp_path / "3 KiB"
    path.write_bytes(bytes(3 * KIB))
    with open_fd(path, os.O_RDWR) as fd, pmem2.Source.from_fd(fd) as source:
        assert raw_map_error(fd, length=PAGE) == (lib.PMEM2_E_MAP_RANGE, 0)
        with pytest.raises(pmem2.MapRangeError):
            source.map(pmem2.Config(length=PAGE))


@pytest.mark.upstream("pmem2_map/TEST23")
@pytest.mark.medium
@forced
def test_empty_file(tmp_path: Path) -> None:
    """An empty file cannot be mapped."""
    path = tmp_path / "empty"
    path.touch()
    with open_fd(path, os.O_RDWR) as fd, pmem2.Source.from_fd(fd) as source:
        assert raw_map_error(fd) == (lib.PMEM2_E_SOURCE_EMPTY, 0)
        with pytest.raises(pmem2.SourceEmptyError):
            source.map()


@pytest.mark.upstream("pmem2_map/TEST24")
@pytest.mark.medium
@forced
def test_shared(source: pmem2.Source, raw_source: int) -> None:
    """A store through one shared map is visible through another."""
    with (
        libpmem2.config() as config,
        libpmem2.map(config, raw_source) as raw_first,
        libpmem2.map(config, raw_source) as raw_second,
    ):
        libpmem2.memcpy(raw_first, FIRST)
        libpmem2.memcpy(raw_second, SECOND)
        assert libpmem2.read(raw_first, len(SECOND)) == SECOND
    with source.map() as first, source.map() as second:
        assert first.address != second.address
        first.memcpy(0, FIRST)
        assert second[: len(FIRST)] == FIRST
        second.memcpy(0, SECOND)
        assert first[: len(SECOND)] == SECOND


@pytest.mark.upstream("pmem2_map/TEST25")
@pytest.mark.medium
@forced
def test_private(source: pmem2.Source, raw_source: int) -> None:
    """A store through a private map is visible only there."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as raw_shared:
        assert libpmem2.set_sharing(config, lib.PMEM2_PRIVATE) == 0
        with libpmem2.map(config, raw_source) as raw_private:
            libpmem2.memcpy(raw_shared, FIRST)
            libpmem2.memcpy(raw_private, SECOND)
            assert libpmem2.read(raw_shared, len(FIRST)) == FIRST
            assert libpmem2.read(raw_private, len(SECOND)) == SECOND
    with source.map() as shared, source.map(pmem2.Config(sharing=pmem2.Sharing.PRIVATE)) as private:
        shared.memcpy(0, FIRST)
        private.memcpy(0, SECOND)
        assert shared[: len(FIRST)] == FIRST
        assert private[: len(SECOND)] == SECOND
        assert source.pread_mcsafe(len(FIRST)) == FIRST


@pytest.mark.upstream("pmem2_map/TEST26")
@forced
def test_private_reopened_file(file: Path) -> None:
    """A store through a private map of a reopened file is visible only there."""
    with open_fd(file, os.O_RDWR) as fd, libpmem2.source(fd) as raw_source, libpmem2.config() as config:
        rc, raw_shared = libpmem2.map_new(config, raw_source)
        assert rc == 0
        libpmem2.memcpy(raw_shared, FIRST)
    with open_fd(file, os.O_RDWR) as fd, libpmem2.source(fd) as raw_source:
        with libpmem2.config(sharing=lib.PMEM2_PRIVATE) as config, libpmem2.map(config, raw_source) as raw_private:
            libpmem2.memcpy(raw_private, SECOND)
            assert libpmem2.read(raw_shared, len(FIRST)) == FIRST
    assert libpmem2.map_delete(raw_shared) == (0, 0)
    with pmem2.open(file) as shared, pmem2.open(file, "c") as private:
        shared.memcpy(0, FIRST)
        private.memcpy(0, SECOND)
        assert shared[: len(FIRST)] == FIRST
        assert private[: len(SECOND)] == SECOND


@pytest.mark.upstream("pmem2_map/TEST27")
@pytest.mark.medium
@forced
def test_private_read_only_file(raw_read_only_source: int, read_only_source: pmem2.Source) -> None:
    """A private map of a read-only descriptor is writable and always has BYTE granularity."""
    with libpmem2.config(sharing=lib.PMEM2_PRIVATE) as config, libpmem2.map(config, raw_read_only_source) as pointer:
        libpmem2.memcpy(pointer, TEXT)
        assert libpmem2.read(pointer, len(TEXT)) == TEXT
    with read_only_source.map(pmem2.Config(sharing=pmem2.Sharing.PRIVATE)) as map:
        assert map.protection == READ | WRITE
        assert map.granularity is pmem2.Granularity.BYTE
        map.memcpy(0, TEXT)
        assert map[: len(TEXT)] == TEXT
    assert read_only_source.pread_mcsafe(len(TEXT)) == bytes(len(TEXT))


@pytest.mark.upstream("pmem2_map/TEST29")
@pytest.mark.medium
@forced
@x86_64
def test_huge_page_alignment(source: pmem2.Source, raw_source: int) -> None:
    """A large map begins at a multiple of the huge page size."""
    with libpmem2.config(length=SIZE) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_address(pointer) % HUGE_PAGE == 0
    with source.map(pmem2.Config(length=SIZE)) as map:
        assert map.address % HUGE_PAGE == 0


@pytest.mark.upstream("pmem2_map/TEST30")
@pytest.mark.medium
@forced
def test_small_map_alignment(tmp_path: Path) -> None:
    """A small map begins at a multiple of the page size."""
    path = tmp_path / "16 KiB"
    path.write_bytes(bytes(16 * KIB))
    with open_fd(path, os.O_RDWR) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        with libpmem2.config() as config, libpmem2.map(config, pointer) as mapped:
            assert libpmem2.map_address(mapped) % PAGE == 0
        with source.map() as map:
            assert map.address % PAGE == 0


# ---- protection


@pytest.mark.upstream("pmem2_map_prot/TEST0")
@pytest.mark.medium
@forced
def test_read_write_map(source: pmem2.Source, raw_source: int) -> None:
    """A READ|WRITE map can be written and read."""
    with libpmem2.config(protection=READ | WRITE) as config, libpmem2.map(config, raw_source) as pointer:
        libpmem2.memcpy(pointer, TEXT)
        assert libpmem2.read(pointer, len(TEXT)) == TEXT
    with source.map(pmem2.Config(protection=READ | WRITE)) as map:
        map.memset(0, 0, len(TEXT))
        map.memcpy(0, TEXT)
        assert map[: len(TEXT)] == TEXT


@pytest.mark.upstream("pmem2_map_prot/TEST1")
@forced
def test_read_write_refused(raw_read_only_source: int, read_only_source: pmem2.Source) -> None:
    """A read-only descriptor cannot be mapped READ|WRITE."""
    with libpmem2.config(protection=READ | WRITE) as config:
        assert libpmem2.map_new(config, raw_read_only_source) == (lib.PMEM2_E_NO_ACCESS, 0)
    with pytest.raises(pmem2.NoAccessError):
        read_only_source.map(pmem2.Config(protection=READ | WRITE))


STORE = """
import os, sys
from support import libpmem2
path, mode, protection, sharing = sys.argv[1], *map(int, sys.argv[2:])
with libpmem2.source(os.open(path, mode)) as source, libpmem2.config(protection=protection, sharing=sharing) as config:
    with libpmem2.map(config, source) as map:
        print("mapped", flush=True)
        libpmem2.memcpy(map, b"text")
        print("survived", flush=True)
"""


def check_not_writable(
    run_child: RunChild, file: Path, mode: int, protection: pmem2.Protection, sharing: pmem2.Sharing
) -> None:
    """Check that a copy into a map without WRITE kills the process in libpmem2 and raises in the façade."""
    numbers = [str(int(number)) for number in (mode, protection, sharing)]
    child = run_child(STORE, str(file), *numbers)
    assert (child.returncode, child.stdout) == (SEGFAULT, "mapped\n"), child.stderr
    config = pmem2.Config(protection=protection, sharing=sharing)
    with open_fd(file, mode) as fd, pmem2.Source.from_fd(fd) as source, source.map(config) as map:
        assert map.protection == protection
        with pytest.raises(TypeError):
            map.memcpy(0, TEXT)
        with pytest.raises(TypeError):
            map.memset(0, 1, 1)
        with pytest.raises(TypeError):
            map[0] = 1
        with pytest.raises(TypeError):
            map.store_u64(0, 1)
    assert file.read_bytes()[: len(TEXT)] == bytes(len(TEXT))


@pytest.mark.upstream("pmem2_map_prot/TEST4")
@pytest.mark.medium
@forced
def test_copy_into_read_map(run_child: RunChild, file: Path) -> None:
    """A READ map of a writable descriptor cannot be written."""
    check_not_writable(run_child, file, os.O_RDWR, READ, pmem2.Sharing.SHARED)


@pytest.mark.upstream("pmem2_map_prot/TEST5")
@forced
def test_copy_into_read_only_file(run_child: RunChild, file: Path) -> None:
    """A READ map of a read-only descriptor cannot be written."""
    check_not_writable(run_child, file, os.O_RDONLY, READ, pmem2.Sharing.SHARED)


@pytest.mark.upstream("pmem2_map_prot/TEST6")
@forced
def test_no_access(run_child: RunChild, file: Path, read_only_source: pmem2.Source) -> None:
    """A map with the protection NONE can be neither written, read nor persisted."""
    check_not_writable(run_child, file, os.O_RDONLY, NONE, pmem2.Sharing.SHARED)
    with read_only_source.map(pmem2.Config(protection=NONE)) as map:
        with pytest.raises(TypeError):
            map[0]
        with pytest.raises(TypeError):
            map.view()
        with pytest.raises(TypeError):
            map.persist()


@pytest.mark.upstream("pmem2_map_prot/TEST7")
@pytest.mark.medium
@forced
@x86_64
def test_execute_stored_code(exec_file: Path) -> None:
    """Code stored in a file runs in a READ|EXEC map."""
    with open_fd(exec_file, os.O_RDWR) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        with libpmem2.config() as config, libpmem2.map(config, pointer) as mapped:
            libpmem2.memcpy(mapped, TWO_PLUS_TWO)
        with libpmem2.config(protection=READ | EXEC) as config, libpmem2.map(config, pointer) as mapped:
            assert libpmem2.call(libpmem2.map_address(mapped)) == 4
        with source.map() as map:
            map.memset(0, 0, len(TWO_PLUS_TWO))
            map.memcpy(0, TWO_PLUS_TWO)
        with source.map(pmem2.Config(protection=READ | EXEC)) as map:
            assert libpmem2.call(map.address) == 4


@pytest.mark.upstream("pmem2_map_prot/TEST8", "pmem2_map_prot/TEST9")
@forced
@both_sharings
def test_copy_into_exec_map(run_child: RunChild, exec_file: Path, sharing: pmem2.Sharing) -> None:
    """A READ|EXEC map cannot be written, whether shared or private."""
    check_not_writable(run_child, exec_file, os.O_RDWR, READ | EXEC, sharing)


@pytest.mark.upstream("pmem2_map_prot/TEST10", "pmem2_map_prot/TEST11")
@forced
@x86_64
@both_sharings
def test_store_and_execute(exec_file: Path, sharing: pmem2.Sharing) -> None:
    """A READ|WRITE|EXEC map runs the code stored through it, whether shared or private."""
    protection = READ | WRITE | EXEC
    with open_fd(exec_file, os.O_RDWR) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        with libpmem2.config(protection=protection, sharing=sharing) as config, libpmem2.map(config, pointer) as mapped:
            libpmem2.memcpy(mapped, TWO_PLUS_TWO)
            assert libpmem2.call(libpmem2.map_address(mapped)) == 4
        with source.map(pmem2.Config(protection=protection, sharing=sharing)) as map:
            map.memset(0, 0, len(TWO_PLUS_TWO))
            map.memcpy(0, TWO_PLUS_TWO)
            assert libpmem2.call(map.address) == 4


@pytest.mark.upstream("pmem2_map_prot/TEST14")
@forced
@x86_64
def test_execute_private_code(exec_file: Path) -> None:
    """A private READ|WRITE|EXEC map of a read-only file runs its code and leaves the file unchanged."""
    exec_file.write_bytes(TEXT + bytes(PAGE - len(TEXT)))
    protection, private = READ | WRITE | EXEC, pmem2.Sharing.PRIVATE
    with open_fd(exec_file, os.O_RDONLY) as fd, libpmem2.source(fd) as pointer, pmem2.Source.from_fd(fd) as source:
        with libpmem2.config(protection=protection, sharing=private) as config:
            with libpmem2.map(config, pointer) as mapped:
                libpmem2.memcpy(mapped, TWO_PLUS_TWO)
                assert libpmem2.call(libpmem2.map_address(mapped)) == 4
            with libpmem2.map(config, pointer) as mapped:
                assert libpmem2.read(mapped, len(TEXT)) == TEXT
        with source.map(pmem2.Config(protection=protection, sharing=private)) as map:
            map.memcpy(0, TWO_PLUS_TWO)
            assert libpmem2.call(map.address) == 4
        with source.map(pmem2.Config(protection=protection, sharing=private)) as map:
            assert map[: len(TEXT)] == TEXT


EXECUTE = """
import sys
import pmem2
from support import libpmem2
with pmem2.Source.from_path(sys.argv[1]) as source:
    with source.map(pmem2.Config(sharing=int(sys.argv[2]))) as map:
        map.memcpy(0, bytes.fromhex(sys.argv[3]))
        print("stored", flush=True)
        print(libpmem2.call(map.address), flush=True)
"""


@pytest.mark.upstream("pmem2_map_prot/TEST12", "pmem2_map_prot/TEST13")
@forced
@x86_64
@both_sharings
def test_execute_without_exec(run_child: RunChild, exec_file: Path, sharing: pmem2.Sharing) -> None:
    """A READ|WRITE map does not run the code stored in it, whether shared or private."""
    child = run_child(EXECUTE, str(exec_file), str(int(sharing)), TWO_PLUS_TWO.hex())
    assert (child.returncode, child.stdout) == (SEGFAULT, "stored\n"), child.stderr


# ---- existing memory


@pytest.mark.upstream("pmem2_map_from_existing/TEST0")
def test_from_existing_twice(source: pmem2.Source, fd: int, raw_source: int) -> None:
    """Existing memory takes one map at a time; a second map is refused until the first is closed."""
    with libpmem2.existing(raw_source, 0xFFFF, 0xFF, lib.PMEM2_GRANULARITY_PAGE):
        again = libpmem2.map_from_existing(raw_source, 0xFFFF, 0xFF, lib.PMEM2_GRANULARITY_PAGE)
        assert again == (lib.PMEM2_E_MAP_EXISTS, 0)
    page = pmem2.Granularity.PAGE
    with mmap.mmap(fd, SIZE) as memory:
        with pmem2.Map.from_existing(source, memory, page), pytest.raises(pmem2.MapExistsError):
            pmem2.Map.from_existing(source, memory, page)
        with pmem2.Map.from_existing(source, memory, page) as map:
            assert map.size == SIZE


@pytest.mark.upstream("pmem2_map_from_existing/TEST1")
def test_from_existing_overlap_below(source: pmem2.Source, fd: int, raw_source: int) -> None:
    """Existing memory whose end overlaps the beginning of a map is refused."""
    with libpmem2.existing(raw_source, 0xFFFF, 0xFF, lib.PMEM2_GRANULARITY_PAGE):
        below = libpmem2.map_from_existing(raw_source, 0xFFF0, 0xFF, lib.PMEM2_GRANULARITY_PAGE)
        assert below == (lib.PMEM2_E_MAP_EXISTS, 0)
    page = pmem2.Granularity.PAGE
    with mmap.mmap(fd, SIZE) as memory, memoryview(memory) as view, ExitStack() as stack:
        first, second, both = (stack.enter_context(view[a:b]) for a, b in ((0, PAGE), (PAGE, SIZE), (0, PAGE + 1)))
        stack.enter_context(pmem2.Map.from_existing(source, second, page))
        with pytest.raises(pmem2.MapExistsError):
            pmem2.Map.from_existing(source, both, page)
        beside = stack.enter_context(pmem2.Map.from_existing(source, first, page))
        assert beside.size == PAGE


@pytest.mark.upstream("pmem2_map_from_existing/TEST2")
def test_from_existing_overlap_above(source: pmem2.Source, fd: int, raw_source: int) -> None:
    """Existing memory that begins inside a map is refused."""
    with libpmem2.existing(raw_source, 0xFFFF, 0xFF, lib.PMEM2_GRANULARITY_PAGE):
        above = libpmem2.map_from_existing(raw_source, 0xFFFF + 1, 0xFFFF, lib.PMEM2_GRANULARITY_PAGE)
        assert above == (lib.PMEM2_E_MAP_EXISTS, 0)
    page = pmem2.Granularity.PAGE
    with mmap.mmap(fd, SIZE) as memory, memoryview(memory) as view, view[:PAGE] as low, view[1:] as high:
        with pmem2.Map.from_existing(source, low, page), pytest.raises(pmem2.MapExistsError):
            pmem2.Map.from_existing(source, high, page)
