# SPDX-License-Identifier: BSD-3-Clause
"""The test cases of PMDK's own suite (src/test, version 1.12.1), and why some of them have no test here.

A test that is marked `upstream("pmem2_map/TEST7")` covers the class TEST7 in pmem2_map/TESTS.py.
"""

from __future__ import annotations

from collections.abc import Iterable

SUITE: dict[str, Iterable[int]] = {
    "pmem2_source": range(24),
    "pmem2_source_size": (0, 1, 2, 3, 4, 6),
    "pmem2_source_alignment": range(3),
    "pmem2_source_numa": range(2),
    "pmem2_usc": range(1),
    "pmem2_config": range(13),
    "pmem2_map": range(31),
    "pmem2_map_prot": range(17),
    "pmem2_map_from_existing": range(5),
    "pmem2_vm_reservation": range(49),
    "pmem2_granularity": range(14),
    "pmem2_granularity_detection": range(5),
    "pmem2_persist": range(3),
    "pmem2_persist_valgrind": range(4),
    "pmem2_deep_flush": range(3),
    "pmem2_memcpy": range(6),
    "pmem2_memmove": range(5),
    "pmem2_memset": range(6),
    "pmem2_movnt": range(6),
    "pmem2_movnt_align": range(11),
    "pmem2_mem_ext": range(7),
    "pmem2_integration": (*range(40), 41),
    "pmem2_perror": range(7),
    "pmem2_api": range(2),
    "pmem2_badblock": range(6),
    "pmem2_badblock_mocks": range(5),
    "pmem2_mover": range(10),
    "pmem2_future": range(4),
    "ex_libpmem2": range(7),
}

CASES = (
    *(f"{name}/TEST{number}" for name, numbers in SUITE.items() for number in numbers),
    "pmem2_integration/TES40",  # its name has a typo, so PMDK never runs it
    "pmem2_include",  # programs without a TESTS.py
    "pmem2_compat",
)

NO_MEMORY = "needs a libpmem2 built for fault injection: one malloc in it fails"
PMEMCHECK = "needs valgrind's pmemcheck, which only PMDK's own valgrind has"
FAKE_BAD_BLOCK = "fakes the answers of libndctl and of the file system inside libpmem2"
FAKE_MAP = "fakes a struct pmem2_map that no public function makes"
FAKE_PLATFORM = "fakes the answers of Windows or FreeBSD inside libpmem2"
ASYNCHRONOUS = "needs miniasync; libpmem2 2.0 dropped asynchronous copies, and they are not bound"
EXAMPLE = "is an example program of PMDK: tests/examples tests its port to Python"
MOVDIR64B = "needs a processor with MOVDIR64B"


def each(name: str, numbers: Iterable[int], reason: str) -> dict[str, str]:
    """Return the same reason for several cases of one folder."""
    return {f"{name}/TEST{number}": reason for number in numbers}


NOT_PORTED: dict[str, str] = {
    **each("pmem2_source", [4], NO_MEMORY),
    **each("pmem2_source", [23], "repeats TEST22, which maps no file, with a device DAX"),
    **each("pmem2_source_alignment", [2], "needs a device DAX with an alignment of 4 KiB"),
    **each("pmem2_usc", [0], "needs NVDIMMs that count unsafe shutdowns"),
    **each("pmem2_config", [1], NO_MEMORY),
    **each("pmem2_map", [13, 14, 15, 16], FAKE_MAP),
    **each("pmem2_map_from_existing", [3, 4], NO_MEMORY),
    **each("pmem2_vm_reservation", [14, 15], NO_MEMORY),
    **each("pmem2_vm_reservation", [32], "repeats TEST31 with a device DAX; PMDK disabled it later"),
    **each("pmem2_granularity", [1, 5, 10], FAKE_PLATFORM),
    **each("pmem2_persist_valgrind", range(4), PMEMCHECK),
    **each("pmem2_deep_flush", [1], "fakes the sysfs file of a device DAX inside libpmem2"),
    **each("pmem2_movnt_align", range(5, 10), PMEMCHECK),
    **each("pmem2_mem_ext", [5, 6], MOVDIR64B),
    **each("pmem2_integration", [2, 3], PMEMCHECK),
    **each("pmem2_perror", [2, 3], "sets an error text with a macro inside libpmem2"),
    **each("pmem2_api", range(2), PMEMCHECK),
    **each("pmem2_badblock", [4], "needs a device page that fails; only its list of bad blocks can be injected"),
    **each("pmem2_badblock_mocks", range(1, 5), FAKE_BAD_BLOCK),
    **each("pmem2_mover", range(10), ASYNCHRONOUS),
    **each("pmem2_future", range(4), ASYNCHRONOUS),
    **each("ex_libpmem2", range(7), EXAMPLE),
}
