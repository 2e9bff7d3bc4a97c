# SPDX-License-Identifier: BSD-3-Clause
"""Run the tests marked `memcheck` under valgrind; fail for findings in the extension or in libpmem2.

Findings in the interpreter alone do not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _pmem2

TESTS = Path(__file__).resolve().parents[1] / "tests"
CHECKED_LIBRARIES = (os.path.basename(_pmem2.__file__ or "_pmem2"), "libpmem2.so")
# libpmem2 1.12 leaks the data mover of every map of existing memory; cffi leaks one block for each module
KNOWN_LEAKS = ("pmem2_map_from_existing", "mover_new", "PyInit__pmem2")
NO_TESTS = 5  # pytest's exit status


def stacks(error: xml.Element) -> list[list[tuple[str, str]]]:
    """Return the call stacks of a finding; a frame is a function and its shared object."""
    return [
        [(frame.findtext("fn", "?"), frame.findtext("obj", "")) for frame in stack.iter("frame")]
        for stack in error.iter("stack")
    ]


def is_relevant(error: xml.Element) -> bool:
    """Return whether a finding has a frame in the checked libraries and is not a known leak."""
    frames = [frame for stack in stacks(error) for frame in stack]
    leak = error.findtext("kind", "").startswith("Leak_")
    if leak and any(function in KNOWN_LEAKS for function, _ in frames):
        return False
    return any(name in library for _, library in frames for name in CHECKED_LIBRARIES)


def files_with_marked_tests() -> list[Path]:
    """Return the test files with tests marked `memcheck`: under valgrind, collecting all others takes minutes."""
    files = sorted(TESTS.glob("*/test_*.py"))
    return [path for path in files if "pytest.mark.memcheck" in path.read_text(encoding="utf-8")]


def run_tests(report: Path, files: list[Path], arguments: list[str]) -> int:
    """Run the marked tests of these files under valgrind; write its findings to *report*, return the exit status."""
    command = ["valgrind", "--quiet", "--xml=yes", f"--xml-file={report}", "--child-silent-after-fork=yes"]
    command += ["--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40"]
    command += [sys.executable, "-m", "pytest", "-q", "-m", "memcheck", "-o", "faulthandler_timeout=0", *arguments]
    command += [f"--basetemp={report}.tests", *map(str, files)]
    return subprocess.run(command, env={**os.environ, "PYTHONMALLOC": "malloc"}, check=False).returncode


def main(arguments: list[str]) -> int:
    """Run two valgrinds at once, print the relevant findings and return an exit status."""
    files = files_with_marked_tests()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        reports = [Path(folder, "0.xml"), Path(folder, "1.xml")]
        statuses = list(pool.map(run_tests, reports, (files[::2], files[1::2]), [arguments] * 2))
        findings = [error for report in reports for error in xml.parse(report).getroot().iter("error")]
    relevant = [error for error in findings if is_relevant(error)]
    for error in relevant:
        print(error.findtext("kind"), error.findtext("what") or error.findtext("xwhat/text"))
        for function, library in stacks(error)[0]:
            print(f"    {function} ({library})")
    print(f"valgrind: {len(findings)} findings, {len(relevant)} of them in the extension or in libpmem2")
    passed = 0 in statuses and set(statuses) <= {0, NO_TESTS}  # the arguments may select tests of one half alone
    return 0 if passed and not relevant else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
