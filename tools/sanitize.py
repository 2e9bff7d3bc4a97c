# SPDX-License-Identifier: BSD-3-Clause
"""Compile the C code with sanitizers, and run tests with it.

`python tools/sanitize.py address|thread [PYTEST ARGUMENT...]`. ThreadSanitizer does not see the interpreter, only the C
code.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from compile_extension import PROJECT, compile_extension

INSTRUMENT = {"address": "address,undefined", "thread": "thread"}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}
OPTIONS = {
    # Tests expect some signals. Python and libpmem2 keep memory until exit: the sessions leaks and valgrind find leaks.
    "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0:allocator_may_return_null=1",
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
}
NOT_WITH_ADDRESS_SANITIZER = (
    "safety/test_faults.py::test_each_allocation_fails",  # replaces malloc, as the sanitizer does
    "safety/test_faults.py::test_mappings_run_out",  # the sanitizer needs mappings
    "safety/test_guards.py::test_map_without_key",  # the sanitizer uses the pthread key of the test
    "safety/test_other_processes.py::test_locked_memory_limit",  # mlockall does nothing under the sanitizer
    "safety/test_working_directory.py::test_other_threads",  # sanitizers do not understand what it tests, so it is off
    # border.c takes calls that come from pmem2 or libpmem2; these come from the sanitizer, which passes them on
    "safety/test_faults.py::test_first_map_without_memory",
    "safety/test_faults.py::test_many_ranges_free_memory",
    "safety/test_faults.py::test_unmapping_fails",
    "safety/test_injected_faults.py::test_failing_device_map",
    "safety/test_injected_faults.py::test_file_that_shrinks",
    "safety/test_injected_faults.py::test_huge_transfer",
    "safety/test_injected_faults.py::test_last_thread_releases_source",
    "safety/test_injected_faults.py::test_read_is_one_call",
    "safety/test_injected_faults.py::test_source_closed_during_read",
)
TESTS = {
    "address": ["tests", *(f"--deselect=tests/{name}" for name in NOT_WITH_ADDRESS_SANITIZER)],
    "thread": ["tests/safety/test_threads.py"],
}


def main() -> int:
    """Return pytest's exit status."""
    sanitizer, *arguments = sys.argv[1:]
    instrument = f"-fsanitize={INSTRUMENT[sanitizer]}"
    folder = compile_extension(f"sanitize-{sanitizer}", f"-g -O1 -fno-omit-frame-pointer {instrument}", instrument)
    runtime = subprocess.run(
        ["cc", f"-print-file-name={RUNTIMES[sanitizer]}"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        **OPTIONS,
        "LD_PRELOAD": runtime,
        # free-threaded interpreters have no other allocator than mimalloc
        **({} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"PYTHONMALLOC": "malloc"}),
        "PYTHONPATH": os.pathsep.join((str(folder), str(PROJECT))),
        # `python -m pytest` and `python -c` would look in the current folder first: it may have an uninstrumented build
        "PYTHONSAFEPATH": "1",
    }
    pytest = [str(Path(sys.executable).with_name("pytest")), "-q"]
    pytest.append("--capture=sys")  # sanitizers write to the descriptor
    if sanitizer == "address":
        pytest += ["-n", "logical", "--dist", "worksteal"]
    return subprocess.run([*pytest, *(arguments or TESTS[sanitizer])], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
