# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of memcpy, memmove and memset, and of libpmem2's choice between their implementations.

The implementations run on one interpreter: libpmem2 chooses them, whatever interpreter calls it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Protocol, cast

import pytest
from support.children import RunChild

from pmem2 import Granularity
from upstream import memcpy_child

Environment = dict[str, str]

WRITE_COMBINING = [{"PMEM_WC_WORKAROUND": "0"}, {"PMEM_WC_WORKAROUND": "1"}]
NO_MOVNT = {"PMEM_NO_MOVNT": "1"}
LIBC = {"PMEM_NO_MOVNT": "1", "PMEM_NO_GENERIC_MEMCPY": "1"}
AVX = {"PMEM_AVX512F": "0"}
SSE2 = {"PMEM_AVX512F": "0", "PMEM_AVX": "0"}
MOVDIR64B = {"PMEM_MOVDIR64B": "1"}
VARIANTS = [AVX, SSE2, NO_MOVNT, LIBC]


def environment_id(environment: Environment) -> str:
    """Return the test id of an environment."""
    return " ".join(f"{name}={value}" for name, value in environment.items())


class CheckInChild(Protocol):
    """Run a check of `memcpy_child` in a child process whose environment configures libpmem2."""

    def __call__(self, environment: Environment, check: str) -> None:
        """Run *check* on libpmem2 itself and on the façade, at every granularity."""


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A file of 4 MiB."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, memcpy_child.SIZE)
    return path


@pytest.fixture
def check_in_child(run_child: RunChild, large_file: Path) -> CheckInChild:
    """Run checks in children."""

    def run(environment: Environment, check: str) -> None:
        child = run_child(
            "from upstream import memcpy_child; memcpy_child.main()", check, str(large_file), **environment
        )
        assert (child.returncode, child.stdout) == (0, "checked\n"), child.stderr

    return run


@pytest.fixture
def open_file(large_file: Path) -> Iterator[int]:
    """A read-write descriptor of `large_file`."""
    fd = os.open(large_file, os.O_RDWR)
    yield fd
    os.close(fd)


def check_in_process(fd: int, granularity: Granularity, check: str) -> None:
    """Run *check* on libpmem2 itself and on the façade."""
    with memcpy_child.copiers(fd) as (library, facade):
        assert isinstance(facade, memcpy_child.Facade)
        assert facade.map.granularity is granularity
        memcpy_child.CHECKS[check](library, fd)
        memcpy_child.CHECKS[check](facade, fd)


@pytest.mark.upstream("pmem2_memcpy/TEST0")
@pytest.mark.medium
def test_memcpy(open_file: int, granularity: Granularity) -> None:
    """A memcpy copies exactly, with every flag, to memory and to the file."""
    check_in_process(open_file, granularity, "memcpy")


@pytest.mark.upstream("pmem2_memcpy/TEST0")
@pytest.mark.parametrize("environment", WRITE_COMBINING, ids=environment_id)
@pytest.mark.libpmem2
def test_memcpy_write_combining(check_in_child: CheckInChild, environment: Environment) -> None:
    """A memcpy copies exactly with and without the write-combining workaround."""
    check_in_child(environment, "memcpy")


@pytest.mark.upstream("pmem2_memcpy/TEST1")
@pytest.mark.libpmem2
def test_memcpy_without_movnt(check_in_child: CheckInChild) -> None:
    """A memcpy copies exactly without SIMD instructions."""
    check_in_child(NO_MOVNT, "memcpy")


@pytest.mark.upstream("pmem2_memcpy/TEST2")
@pytest.mark.libpmem2
def test_memcpy_by_libc(check_in_child: CheckInChild) -> None:
    """A memcpy copies exactly with libc's memmove."""
    check_in_child(LIBC, "memcpy")


@pytest.mark.upstream("pmem2_memcpy/TEST3", "pmem2_memcpy/TEST4", "pmem2_memcpy/TEST5")
@pytest.mark.parametrize("environment", [AVX, SSE2, MOVDIR64B], ids=environment_id)
@pytest.mark.libpmem2
def test_memcpy_instruction_sets(check_in_child: CheckInChild, environment: Environment) -> None:
    """A memcpy copies exactly with each instruction set."""
    check_in_child(environment, "memcpy")


@pytest.mark.upstream("pmem2_memmove/TEST0")
@pytest.mark.medium
def test_memmove(open_file: int, granularity: Granularity) -> None:
    """A memmove between overlapping ranges copies as if through a buffer, in both directions, with every flag."""
    check_in_process(open_file, granularity, "memmove")


@pytest.mark.upstream("pmem2_memmove/TEST1", "pmem2_memmove/TEST2", "pmem2_memmove/TEST3", "pmem2_memmove/TEST4")
@pytest.mark.parametrize("environment", VARIANTS, ids=environment_id)
@pytest.mark.libpmem2
def test_memmove_variants(check_in_child: CheckInChild, environment: Environment) -> None:
    """A memmove copies exactly with each of libpmem2's implementations."""
    check_in_child(environment, "memmove")


@pytest.mark.upstream("pmem2_memset/TEST0")
@pytest.mark.medium
def test_memset(open_file: int, granularity: Granularity) -> None:
    """A memset fills exactly its range, in memory and in the file, with every flag."""
    check_in_process(open_file, granularity, "memset")


@pytest.mark.upstream("pmem2_memset/TEST0")
@pytest.mark.parametrize("environment", WRITE_COMBINING, ids=environment_id)
@pytest.mark.libpmem2
def test_memset_write_combining(check_in_child: CheckInChild, environment: Environment) -> None:
    """A memset fills exactly its range with and without the write-combining workaround."""
    check_in_child(environment, "memset")


@pytest.mark.upstream(
    "pmem2_memset/TEST1", "pmem2_memset/TEST2", "pmem2_memset/TEST3", "pmem2_memset/TEST4", "pmem2_memset/TEST5"
)
@pytest.mark.parametrize("environment", [*VARIANTS, MOVDIR64B], ids=environment_id)
@pytest.mark.libpmem2
def test_memset_variants(check_in_child: CheckInChild, environment: Environment) -> None:
    """A memset fills exactly its range with each of libpmem2's implementations."""
    check_in_child(environment, "memset")


@pytest.mark.upstream(
    "pmem2_movnt/TEST0",
    "pmem2_movnt/TEST1",
    "pmem2_movnt/TEST2",
    "pmem2_movnt/TEST3",
    "pmem2_movnt/TEST4",
    "pmem2_movnt/TEST5",
)
@pytest.mark.parametrize("environment", [{}, *VARIANTS, MOVDIR64B], ids=environment_id)
@pytest.mark.libpmem2
def test_movnt(check_in_child: CheckInChild, environment: Environment) -> None:
    """Copies of every power of two, also on the heap, are exact and leave the following byte alone."""
    check_in_child(environment, "movnt")


@pytest.mark.upstream("pmem2_movnt_align/TEST0")
@pytest.mark.libpmem2
@pytest.mark.parametrize("threshold", [None, "0", "99999"])
def test_movnt_align(check_in_child: CheckInChild, threshold: str | None) -> None:
    """Functions of a deleted map copy at any alignment without touching the neighbouring pages."""
    check_in_child({} if threshold is None else {"PMEM_MOVNT_THRESHOLD": threshold}, "movnt_align")


@pytest.mark.upstream(
    "pmem2_movnt_align/TEST1",
    "pmem2_movnt_align/TEST2",
    "pmem2_movnt_align/TEST3",
    "pmem2_movnt_align/TEST4",
    "pmem2_movnt_align/TEST10",
)
@pytest.mark.libpmem2
@pytest.mark.parametrize("environment", [*VARIANTS, MOVDIR64B], ids=environment_id)
def test_movnt_align_variants(check_in_child: CheckInChild, environment: Environment) -> None:
    """Each of libpmem2's implementations stays within its range at any alignment."""
    check_in_child(environment, "movnt_align")


class LogCopies(Protocol):
    """Copy with the debug build of libpmem2 and read its log."""

    def __call__(self, environment: Environment, size: int) -> dict[str, list[list[str]]]:
        """Return the functions that ran for each kind of copy and each flag."""


AllCopies = dict[str, dict[str, list[list[str]]]]


@pytest.fixture(scope="session")
def all_copies(
    run_child: RunChild, debug_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Granularity, str], AllCopies]:
    """Copy all sizes in one child of an environment."""
    folder = tmp_path_factory.mktemp("copied")
    path = folder / "file"
    path.touch()
    os.truncate(path, memcpy_child.SIZE)

    @functools.cache
    def run(granularity: Granularity, environment: str) -> AllCopies:
        child = run_child(
            "from upstream import count_child; count_child.print_copies()",
            str(path),
            *map(str, SIZES),
            LD_LIBRARY_PATH=str(debug_library),
            PMEM2_LOG_LEVEL="15",
            PMEM2_LOG_FILE=str(tmp_path_factory.mktemp("log") / "log"),
            PMEM2_FORCE_GRANULARITY=granularity.name,
            **json.loads(environment),
        )
        assert child.returncode == 0, child.stderr
        return cast("AllCopies", json.loads(child.stdout))

    return run


@pytest.fixture
def log_copies(granularity: Granularity, all_copies: Callable[[Granularity, str], AllCopies]) -> LogCopies:
    """Copy in a child at the forced granularity."""

    def find(environment: Environment, size: int) -> dict[str, list[list[str]]]:
        names = all_copies(granularity, json.dumps(environment))[str(size)]
        assert len(names["memcpy"]) == len(memcpy_child.VARIANT_FLAGS)
        return names

    return find


def kind_of_store(names: list[str]) -> tuple[str, str]:
    """Return "t" or "nt" (temporal, non-temporal) and the instruction set of the one function that stored."""
    (name,) = (name for name in names if name.startswith(("memmove_mov", "memset_mov")))
    kind, instructions = name.split("_")[1:3]
    return {"mov": "t", "movnt": "nt"}[kind], instructions


@pytest.mark.upstream("pmem2_mem_ext/TEST0")
@pytest.mark.libpmem2
@pytest.mark.parametrize(("environment", "suffix"), [(NO_MOVNT, "generic"), (LIBC, "libc")], ids=["generic", "libc"])
def test_copy_without_simd(log_copies: LogCopies, environment: Environment, suffix: str) -> None:
    """Without SIMD a copy is one call of the generic code or of libc, with any flags."""
    names = log_copies(environment, 1024)
    for kind, name in (("memcpy", "memmove"), ("memmove", "memmove"), ("memset", "memset")):
        for called in names[kind]:
            assert [each for each in called if "_nodrain_" in each] == [f"{name}_nodrain_{suffix}"]


SIZES = [128, 1024]  # below and above the threshold for non-temporal stores
INSTRUCTIONS = [({"PMEM_AVX512F": "0", "PMEM_AVX": "0"}, "sse2"), ({"PMEM_AVX512F": "0"}, "avx"), ({}, "avx512f")]
# one entry for each of memcpy_child.VARIANT_FLAGS
TEMPORAL = {
    (Granularity.PAGE, 128): "t nt t nt nt t t t",
    (Granularity.PAGE, 1024): "nt nt t nt nt t t t",
    (Granularity.CACHE_LINE, 128): "t nt t nt nt t t t",
    (Granularity.CACHE_LINE, 1024): "nt nt t nt nt t t t",
    (Granularity.BYTE, 128): "t nt t nt t t t t",
    (Granularity.BYTE, 1024): "t nt t nt t t t t",
}


def check_variants(
    log_copies: LogCopies, granularity: Granularity, size: int, environment: Environment, name: str
) -> None:
    """Check the implementation that each flag selects, with one instruction set, for all kinds of copies."""
    if name not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip(f"the processor has no {name}")
    expected = [(kind, name) for kind in TEMPORAL[granularity, size].split()]
    names = log_copies(environment, size)
    for kind in ("memcpy", "memmove", "memset"):
        assert [kind_of_store(called) for called in names[kind]] == expected
    if granularity is not Granularity.PAGE:  # on PAGE the façade writes back by itself
        allowed = [
            index for index, flags in enumerate(memcpy_child.VARIANT_FLAGS) if flags not in memcpy_child.CONFLICTING
        ]
        assert [kind_of_store(called) for called in names["facade"]] == [expected[index] for index in allowed]


@pytest.mark.upstream("pmem2_mem_ext/TEST1", "pmem2_mem_ext/TEST3")
@pytest.mark.parametrize(("environment", "name"), INSTRUCTIONS, ids=["sse2", "avx", "avx512f"])
@pytest.mark.parametrize("granularity", [Granularity.PAGE, Granularity.CACHE_LINE], indirect=True, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.libpmem2
def test_temporal_stores(
    log_copies: LogCopies, granularity: Granularity, size: int, environment: Environment, name: str
) -> None:
    """On PAGE and CACHE_LINE the flags, then the size, choose between temporal and non-temporal stores."""
    check_variants(log_copies, granularity, size, environment, name)


@pytest.mark.upstream("pmem2_mem_ext/TEST2", "pmem2_mem_ext/TEST4")
@pytest.mark.parametrize(("environment", "name"), INSTRUCTIONS, ids=["sse2", "avx", "avx512f"])
@pytest.mark.parametrize("granularity", [Granularity.BYTE], indirect=True, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.libpmem2
def test_temporal_stores_on_byte(
    log_copies: LogCopies, granularity: Granularity, size: int, environment: Environment, name: str
) -> None:
    """On BYTE stores are temporal unless the flag NONTEMPORAL is set."""
    check_variants(log_copies, granularity, size, environment, name)
