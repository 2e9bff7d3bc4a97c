# SPDX-License-Identifier: BSD-3-Clause
"""What of the tests does not run on Windows, and why: the one place that knows."""

from __future__ import annotations

import sys

import pytest

from pmem2 import Granularity, Protection

DESCRIPTORS = "a Source has a handle on Windows: test_rows_windows.py"
FORK = "needs fork"
SIGNALS = "needs signals, or limits of a process"
SYSTEM = "needs /proc, /sys or programs of Linux"
MEDIUM = "needs persistent memory in a Linux machine: nox -s nvdimm"
FORCED = "needs PMEM2_FORCE_GRANULARITY, which libpmem2 does not read on Windows"
TEXTS = "libpmem2 has other texts on Windows"
HUGE_PAGES = "libpmem2 does not align maps to huge pages on Windows"
PROTECTIONS = "needs memory that can be used in a way that Windows does not have"
KINDS = "needs a kind of file, or a user, that Windows does not have"
INSTALLED = "needs pmem2 to be installed, with the entry point of its pytest plugin"
EXPLORER = "expects the slashes of a path in a text"
PERROR = "calls pmem2_perror, which is pmem2_perrorU or pmem2_perrorW on Windows"
RESERVATIONS = "needs reserved addresses, for which wine 8 has no placeholders"
BAD_BLOCKS = "libpmem2 has no bad blocks on Windows"
BLOCKS = "needs to know, or to limit, what a file takes on disk"
COMMANDS = "is about the command line, which is for POSIX"
CHILD = "runs a child that needs signals, and /proc"
ORDER = "libpmem2 looks at the alignment of an offset last on Windows"
PAGES = "maps pages of 4096 bytes: Windows maps multiples of 65536"
LOG = "needs libpmem2's debug build"

MODULES = {
    "cli/test_command.py": COMMANDS,
    "cli/test_badblocks.py": COMMANDS,
    "cli/test_bench.py": COMMANDS,
    "cli/test_copy.py": COMMANDS,
    "cli/test_demo.py": COMMANDS,
    "cli/test_info.py": COMMANDS,
    "api/test_zero_copy.py": SYSTEM,
    "examples/test_ports.py": SYSTEM,
    "examples/test_proven.py": COMMANDS,  # the demo's records are among what is proven
    "safety/test_faults.py": SIGNALS,
    "safety/test_fork.py": FORK,
    "safety/test_fuzz.py": SIGNALS,
    "hardware/test_badblocks.py": MEDIUM,
    "hardware/test_cli.py": MEDIUM,
    "hardware/test_devdax.py": MEDIUM,
    "hardware/test_fsdax.py": MEDIUM,
    "hardware/test_softdax.py": MEDIUM,
    "project/test_readme.py": SYSTEM,
    "api/test_reservation.py": RESERVATIONS,
    "upstream/test_badblocks.py": BAD_BLOCKS,
    "upstream/test_extra.py": SYSTEM,
    "upstream/test_reservation.py": RESERVATIONS,
    "safety/test_soak.py": SIGNALS,
    "project/test_versions.py": SYSTEM,
}

TESTS = {
    "project/test_building.py": {
        "test_build_without_libpmem2": SYSTEM,
    },
    "project/test_comparison.py": {
        "test_mmap_flushes_pages_only": "an mmap flushes any range on Windows",
    },
    "upstream/test_source.py": {
        "test_row_004_write_only_descriptor": "libpmem2 takes one on Windows: test_rows_windows.py",
        "test_row_012_directory": "Windows opens no descriptor of a directory: row 10",
        "test_row_014_the_descriptor_of_a_source": DESCRIPTORS,
        "test_row_016_anonymous_memory_has_no_descriptor": DESCRIPTORS,
        "test_row_032_numa_node_of_an_ordinary_file": "libpmem2 has no NUMA nodes on Windows",
    },
    "api/test_config.py": {
        "test_closed_reservation": RESERVATIONS,
        "test_past_the_end_of_a_reservation": RESERVATIONS,
        "test_reservation": RESERVATIONS,
        "test_reservation_closed_later": RESERVATIONS,
        "test_reservation_shrunk_later": RESERVATIONS,
    },
    "explorer/test_explore.py": {
        "test_a_store_that_was_never_flushed": EXPLORER,
        "test_pytest_finds_the_fixture": INSTALLED,
        "test_pytest_shows_what_is_lost": INSTALLED,
    },
    "api/test_errors.py": {
        "test_a_granularity_that_libpmem2_ignores": FORCED,
        "test_granularity_that_a_file_does_not_give": TEXTS,
        "test_granularity_that_the_environment_forbids": FORCED,
        "test_what_a_user_reads": TEXTS,
        "test_why_a_map_has_its_granularity": TEXTS,
    },
    "upstream/test_granularity.py": {
        "test_row_127_byte_where_there_is_byte": FORCED,
        "test_row_128_byte_where_there_is_cache_line": FORCED,
        "test_row_129_byte_of_an_ordinary_file": TEXTS,
        "test_row_132_cache_line_of_an_ordinary_file": TEXTS,
        "test_row_134_forced_granularity_is_detected": FORCED,
        "test_row_137_cache_line_medium": FORCED,
        "test_row_138_byte_medium": FORCED,
    },
    "upstream/test_config.py": {
        "test_row_046_protections[write]": PROTECTIONS,
        "test_row_046_protections[exec]": PROTECTIONS,
        "test_row_046_protections[none]": PROTECTIONS,
    },
    "upstream/test_map.py": {
        "test_row_073_address_for_huge_pages": HUGE_PAGES,
        "test_row_080_copy_into_a_map_without_access": PROTECTIONS,
        "test_row_082_copy_into_an_exec_map[page-private]": "libpmem2 maps PRIVATE memory for writing on Windows",
    },
    "upstream/test_errors.py": {
        "test_row_188_perror": PERROR,
        "test_row_189_perror_formats": PERROR,
        "test_row_191_closed_descriptor": PERROR,
    },
    "safety/test_closing.py": {
        "test_closed_object_refuses_use[closed_bad_blocks]": BAD_BLOCKS,
        "test_closed_object_refuses_use[closed_reservation]": RESERVATIONS,
        "test_closing_in_any_order": CHILD,
    },
    "safety/test_garbage.py": {
        "test_dropped_map_is_unmapped": SYSTEM,
        "test_dropping_closed_object": RESERVATIONS,
        "test_dropping_in_any_order": CHILD,
        "test_dropping_open_object_warns[drop_bad_blocks]": BAD_BLOCKS,
        "test_dropping_open_object_warns[drop_reservation]": RESERVATIONS,
        "test_dropping_open_object_warns[drop_source]": DESCRIPTORS,
        "test_finalizer_in_a_cycle": CHILD,
        "test_map_in_a_cycle": SYSTEM,
        "test_map_keeps_dropped_reservation": RESERVATIONS,
        "test_reservation_closes_over_garbage": RESERVATIONS,
        "test_resurrected_objects_work": CHILD,
        "test_view_keeps_dropped_map": SYSTEM,
    },
    "safety/test_initialization.py": {
        "test_init_after_failed_init": RESERVATIONS,
    },
    "safety/test_interpreters.py": {
        "test_exit_warns_of_open_objects": RESERVATIONS,
        "test_exit_with_open_objects": RESERVATIONS,
        "test_subinterpreter_with_open_objects": RESERVATIONS,
    },
    "safety/test_ownership.py": {
        "test_bad_blocks_close_their_descriptor": BAD_BLOCKS,
        "test_bad_blocks_outlive_source": BAD_BLOCKS,
        "test_children_inherit_no_descriptor": BAD_BLOCKS,
        "test_failures_leave_no_descriptor": SYSTEM,
        "test_map_outlives_source_and_config": PAGES,
        "test_source_avoids_standard_streams": DESCRIPTORS,
    },
    "safety/test_views.py": {
        "test_array_outlives_map_object": SYSTEM,
        "test_arrays_count_as_views": SYSTEM,
        "test_close_can_be_retried": SYSTEM,
        "test_many_pieces_of_a_map": PAGES,
    },
    "api/test_map.py": {
        "test_map_that_is_no_data": PROTECTIONS,
        "test_what_was_written_without_read": PROTECTIONS,
        f"test_writing_what_may_only_be_read[{Protection.WRITE:d}]": PROTECTIONS,
        "test_source_and_descriptor_are_not_needed_afterwards": "removes a file that is mapped: test_rows_windows.py",
        "test_view_of_a_read_only_map_cannot_kill": SIGNALS,
        "test_unaligned_comes_first[1-0]": ORDER,
        "test_unaligned_comes_first[17-0]": ORDER,
        "test_unaligned_comes_first[65535-0]": ORDER,
        "test_unaligned_comes_first[65537-0]": ORDER,
        "test_unaligned_comes_first[65537-65536]": ORDER,
        f"test_unaligned_comes_first[{2**63 - 1}-0]": ORDER,
        f"test_unaligned_comes_first[{2**63 - 1}-65536]": ORDER,
    },
    "api/test_numpy.py": {
        f"test_array_needs_read[{Protection.WRITE:d}]": PROTECTIONS,
        f"test_array_needs_read[{Protection.NONE:d}]": PROTECTIONS,
        "test_ranges[C-i2]": "16 bits do not hold a multiple of 65536",
        "test_ranges[F-i2]": "16 bits do not hold a multiple of 65536",
    },
    "safety/test_dax_without_nvdimm.py": {
        "test_failed_source_is_closed": SYSTEM,
        "test_incomplete_sysfs_attributes": SYSTEM,
        "test_nvdimm_is_for_libpmem2": SYSTEM,
        "test_other_files_are_no_dax": SYSTEM,
        "test_read_only_device": SYSTEM,
        "test_sysfs_describes_the_device": SYSTEM,
    },
    "safety/test_guards.py": {
        "test_copies_stay_inside": PAGES,
        "test_flushes_stay_inside": PAGES,
        "test_page_granularity_works": DESCRIPTORS,
        "test_protection_is_checked": PROTECTIONS,
    },
    "upstream/test_copy.py": {
        "test_row_165_movnt_align": RESERVATIONS,
        "test_row_166_movnt_align_variants": RESERVATIONS,
    },
    "safety/test_threads.py": {
        "test_borrowed_memory_is_closed": CHILD,
        "test_closing_a_used_map": PAGES,
        "test_closing_a_used_reservation": RESERVATIONS,
        "test_closing_a_used_source": BAD_BLOCKS,
        "test_closing_cache_line_map": FORCED,
        "test_closing_used_bad_blocks": BAD_BLOCKS,
        "test_collecting_at_every_allocation": CHILD,
        "test_errors_stay_in_threads": RESERVATIONS,
        "test_finalizers_do_not_deadlock": CHILD,
        "test_initializing_a_used_map": CHILD,
        "test_iterating_during_mapping": RESERVATIONS,
        "test_many_threads_close": PAGES,
        "test_one_thread_gets_a_slot": RESERVATIONS,
        "test_reading_a_resized_file": CHILD,
        "test_temporary_objects_live": CHILD,
        "test_threads_map_side_by_side": RESERVATIONS,
    },
    "api/test_source.py": {
        "test_children_do_not_inherit_it": DESCRIPTORS,
        "test_closed_twice": DESCRIPTORS,
        "test_from_a_file_object": DESCRIPTORS,
        "test_from_an_int": DESCRIPTORS,
        "test_no_descriptor_is_leaked": DESCRIPTORS,
        "test_owns_a_duplicate": DESCRIPTORS,
        "test_the_callers_descriptor_stays_open": DESCRIPTORS,
        "test_from_a_windows_handle": DESCRIPTORS,
        "test_from_a_directory": KINDS,
        "test_from_a_relative_path_and_a_link": KINDS,
        "test_from_a_socket": KINDS,
        "test_from_an_o_path_descriptor": KINDS,
        "test_from_the_path_of_no_file": KINDS,
        "test_without_permission": KINDS,
        "test_ordinary_file": "libpmem2 has no NUMA nodes on Windows",
    },
    "api/test_open.py": {
        "test_config": RESERVATIONS,
        "test_existing_file_is_not_touched": RESERVATIONS,
        "test_new_file_is_removed": RESERVATIONS,
        "test_reservation_for_a_smaller_file": RESERVATIONS,
        "test_reservation_that_is_taken": RESERVATIONS,
        "test_reservation_that_is_too_small": RESERVATIONS,
        "test_created": BLOCKS,
        "test_emptied": BLOCKS,
        "test_hole_is_filled": BLOCKS,
        "test_link_to_a_file_that_is_not_there": KINDS,
        "test_more_than_a_disk_has": BLOCKS,
        "test_no_file": KINDS,
        "test_permissions": KINDS,
        "test_umask": KINDS,
    },
}

FIXTURES = {
    "dax": SYSTEM,
    "death_signal": CHILD,
    "debug_library": LOG,
    "output_of": CHILD,
    "reservation": RESERVATIONS,
}

READ, WRITE, EXEC, NONE = Protection.READ, Protection.WRITE, Protection.EXEC, Protection.NONE
# of fixtures that have them
PARAMETERS: dict[str, dict[object, str]] = {
    "arena": dict.fromkeys((Granularity.BYTE, Granularity.CACHE_LINE), FORCED),
    "guarded": dict.fromkeys((NONE, WRITE, EXEC, WRITE | EXEC), PROTECTIONS),
}


def why_not(item: pytest.Function) -> str | None:
    """Return why a test does not run on Windows, None if it does; a name without parameters stands for all of them."""
    named = TESTS.get("/".join(item.path.parts[-2:]), {})
    reasons = [named.get(item.name), named.get(item.originalname), *map(FIXTURES.get, item.fixturenames)]
    if hasattr(item, "callspec"):
        known = PARAMETERS.keys() & item.callspec.params.keys()
        reasons += [PARAMETERS[name].get(item.callspec.params[name]) for name in known]
    return next(filter(None, reasons), None)


def skip(items: list[pytest.Item]) -> None:
    """Mark the tests that do not run here."""
    for item in items:
        if sys.platform == "win32" and isinstance(item, pytest.Function):
            if why := why_not(item):
                item.add_marker(pytest.mark.skip(reason=why))
