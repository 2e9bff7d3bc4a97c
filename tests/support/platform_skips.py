# SPDX-License-Identifier: BSD-3-Clause
"""The tests that do not run on Windows, and why."""

from __future__ import annotations

import sys

import pytest

from pmem2 import Granularity, Protection

DESCRIPTORS = "a Source has a handle on Windows: upstream/test_windows.py"
FORK = "needs fork"
SIGNALS = "needs signals or resource limits"
SYSTEM = "needs /proc, /sys or Linux programs"
MEDIUM = "needs persistent memory in a Linux machine: nox -s nvdimm"
FORCED = "needs PMEM2_FORCE_GRANULARITY, which libpmem2 does not read on Windows"
TEXTS = "libpmem2 has other messages on Windows"
HUGE_PAGES = "libpmem2 does not align maps to huge pages on Windows"
PROTECTIONS = "needs a memory protection that Windows lacks"
KINDS = "needs a file type or a user that Windows lacks"
INSTALLED = "needs an installed pmem2 with the entry point of its pytest plugin"
EXPLORER = "expects slashes in the paths of a message"
PERROR = "calls pmem2_perror, which Windows replaces with pmem2_perrorU and pmem2_perrorW"
RESERVATIONS = "needs reserved addresses: wine 8 lacks memory placeholders"
BAD_BLOCKS = "libpmem2 does not list bad blocks on Windows"
BLOCKS = "needs to measure or limit the disk space of a file"
COMMANDS = "tests the command line, which needs POSIX"
CHILD = "runs a child that needs signals and /proc"
ORDER = "libpmem2 checks the alignment of an offset last on Windows"
PAGES = "maps pages of 4096 bytes; Windows maps multiples of 65536"
LOG = "needs libpmem2's debug build"

MODULES = {
    "cli/test_command.py": COMMANDS,
    "cli/test_badblocks.py": COMMANDS,
    "cli/test_bench.py": COMMANDS,
    "cli/test_copy.py": COMMANDS,
    "cli/test_copy_attributes.py": COMMANDS,
    "cli/test_copy_in_place.py": COMMANDS,
    "cli/test_copy_sparse.py": COMMANDS,
    "cli/test_demo.py": COMMANDS,
    "cli/test_info.py": COMMANDS,
    "cli/test_info_places.py": COMMANDS,
    "api/test_dax_devices.py": SYSTEM,
    "api/test_hints.py": SYSTEM,
    "api/test_zero_copy.py": SYSTEM,
    "examples/test_pinning.py": SYSTEM,
    "examples/test_ports.py": SYSTEM,
    "examples/test_proven.py": COMMANDS,  # proves the records of the demo, too
    "safety/test_faults.py": SIGNALS,
    "safety/test_fork.py": FORK,
    "safety/test_fuzz.py": SIGNALS,
    "safety/test_allocation.py": SYSTEM,
    "safety/test_fuse.py": SYSTEM,
    "safety/test_huge_pages.py": SYSTEM,
    "safety/test_seccomp.py": SYSTEM,
    "safety/test_working_directory.py": SYSTEM,
    "safety/test_harnesses.py": SIGNALS,
    "safety/test_other_processes.py": FORK,
    "hardware/test_badblocks.py": MEDIUM,
    "hardware/test_cli.py": MEDIUM,
    "hardware/test_devdax.py": MEDIUM,
    "hardware/test_fsdax.py": MEDIUM,
    "hardware/test_softdax.py": MEDIUM,
    "project/test_readme.py": SYSTEM,
    "api/test_reservation.py": RESERVATIONS,
    "upstream/test_badblocks.py": BAD_BLOCKS,
    "upstream/test_beyond_pmdk.py": SYSTEM,
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
        "test_write_only_descriptor": "libpmem2 accepts one on Windows: upstream/test_windows.py",
        "test_directory": "Windows opens no descriptor of a directory: upstream/test_windows.py",
        "test_get_descriptor": DESCRIPTORS,
        "test_anonymous_has_no_descriptor": DESCRIPTORS,
        "test_size_of_unnamed_file": KINDS,
        "test_numa_node_of_file": "libpmem2 has no NUMA nodes on Windows",
    },
    "api/test_mcsafe.py": {
        "test_appending_without_proc": SYSTEM,
    },
    "api/test_config.py": {
        "test_past_reservation_end": RESERVATIONS,
        "test_reservation": RESERVATIONS,
        "test_reservation_closed_later": RESERVATIONS,
        "test_reservation_shrunk_later": RESERVATIONS,
    },
    "explorer/test_report.py": {
        "test_never_flushed": EXPLORER,
    },
    "explorer/test_pytest_plugin.py": {
        "test_fixture_is_found": INSTALLED,
        "test_failure_shows_lost_stores": INSTALLED,
    },
    "api/test_errors.py": {
        "test_misspelt_forced_granularity": FORCED,
        "test_file_without_dax": TEXTS,
        "test_forced_granularity_too_coarse": FORCED,
        "test_error_texts": TEXTS,
        "test_granularity_explanations": TEXTS,
    },
    "upstream/test_granularity.py": {
        "test_byte_on_byte_medium": FORCED,
        "test_byte_on_cache_line_medium": FORCED,
        "test_byte_on_ordinary_file": TEXTS,
        "test_cache_line_on_ordinary_file": TEXTS,
        "test_forced_granularity": FORCED,
        "test_cache_line_medium": FORCED,
        "test_byte_medium": FORCED,
    },
    "upstream/test_config.py": {
        "test_protections[write]": PROTECTIONS,
        "test_protections[exec]": PROTECTIONS,
        "test_protections[none]": PROTECTIONS,
    },
    "upstream/test_map.py": {
        "test_huge_page_alignment": HUGE_PAGES,
        "test_no_access": PROTECTIONS,
        "test_copy_into_exec_map[page-private]": "libpmem2 maps PRIVATE memory writable on Windows",
    },
    "upstream/test_errors.py": {
        "test_perror": PERROR,
        "test_perror_formats": PERROR,
        "test_perror_after_closed_descriptor": PERROR,
    },
    "safety/test_closing.py": {
        "test_closed_object_refuses_use[closed_bad_blocks]": BAD_BLOCKS,
        "test_closed_object_refuses_use[closed_reservation]": RESERVATIONS,
        "test_closing_in_any_order": CHILD,
    },
    "safety/test_garbage.py": {
        "test_dropped_objects_free_descriptors": SIGNALS,
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
    "api/test_buffers.py": {
        "test_map_as_invalid_data": PROTECTIONS,
    },
    "api/test_map.py": {
        f"test_write_protection_of_readonly_source[{Protection.WRITE:d}]": PROTECTIONS,
        "test_map_outlives_source_and_file": "removes a mapped file: upstream/test_windows.py",
        "test_unaligned_offset_before_other_errors[1-0]": ORDER,
        "test_unaligned_offset_before_other_errors[17-0]": ORDER,
        "test_unaligned_offset_before_other_errors[65535-0]": ORDER,
        "test_unaligned_offset_before_other_errors[65537-0]": ORDER,
        "test_unaligned_offset_before_other_errors[65537-65536]": ORDER,
        f"test_unaligned_offset_before_other_errors[{2**63 - 1}-0]": ORDER,
        f"test_unaligned_offset_before_other_errors[{2**63 - 1}-65536]": ORDER,
    },
    "api/test_protections.py": {
        "test_stores_without_read": PROTECTIONS,
    },
    "api/test_views.py": {
        "test_read_only_view_never_crashes": SIGNALS,
    },
    "api/test_numpy.py": {
        f"test_array_needs_read[{Protection.WRITE:d}]": PROTECTIONS,
        f"test_array_needs_read[{Protection.NONE:d}]": PROTECTIONS,
        "test_two_column_ranges[C-i2]": "16 bits do not hold a multiple of 65536",
        "test_two_column_ranges[F-i2]": "16 bits do not hold a multiple of 65536",
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
        "test_movnt_align": RESERVATIONS,
        "test_movnt_align_variants": RESERVATIONS,
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
        "test_descriptor_is_not_inheritable": DESCRIPTORS,
        "test_close_twice": DESCRIPTORS,
        "test_from_file_object": DESCRIPTORS,
        "test_from_descriptor": DESCRIPTORS,
        "test_no_descriptor_leaks": DESCRIPTORS,
        "test_source_owns_duplicate": DESCRIPTORS,
        "test_close_keeps_callers_descriptor": DESCRIPTORS,
        "test_windows_handle_elsewhere": DESCRIPTORS,
        "test_descriptor_of_other_type[directory]": KINDS,
        "test_descriptor_of_other_type[socket]": KINDS,
        "test_relative_path_and_link": KINDS,
        "test_o_path_descriptor": KINDS,
        "test_path_of_other_type": KINDS,
        "test_read_only_file": KINDS,
        "test_file_without_nvdimm": "libpmem2 has no NUMA nodes on Windows",
    },
    "api/test_open.py": {
        "test_config": RESERVATIONS,
        "test_existing_file_survives_failure": RESERVATIONS,
        "test_created_file_is_removed": RESERVATIONS,
        "test_reservation_fits_new_size": RESERVATIONS,
        "test_occupied_reservation": RESERVATIONS,
        "test_reservation_too_small": RESERVATIONS,
        "test_create_file": BLOCKS,
        "test_truncate_file": BLOCKS,
        "test_holes_are_allocated": BLOCKS,
        "test_dangling_link": KINDS,
        "test_size_exceeds_file_limit": BLOCKS,
        "test_path_of_other_type": KINDS,
        "test_read_only_file": KINDS,
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
# reasons by fixture and parameter
PARAMETERS: dict[str, dict[object, str]] = {
    "arena": dict.fromkeys((Granularity.BYTE, Granularity.CACHE_LINE), FORCED),
    "protected_map": dict.fromkeys((NONE, WRITE, EXEC, WRITE | EXEC), PROTECTIONS),
}


def why_not(item: pytest.Function) -> str | None:
    """Return why a test does not run on Windows, or None; an entry without parameters applies to all of them."""
    in_module = TESTS.get("/".join(item.path.parts[-2:]), {})
    reasons = [in_module.get(item.name), in_module.get(item.originalname), *map(FIXTURES.get, item.fixturenames)]
    if hasattr(item, "callspec"):
        known = PARAMETERS.keys() & item.callspec.params.keys()
        reasons += [PARAMETERS[name].get(item.callspec.params[name]) for name in known]
    return next(filter(None, reasons), None)


def skip(items: list[pytest.Item]) -> None:
    """Mark the tests that do not run on this system."""
    for item in items:
        if sys.platform == "win32" and isinstance(item, pytest.Function):
            if why := why_not(item):
                item.add_marker(pytest.mark.skip(reason=why))
