# SPDX-License-Identifier: BSD-3-Clause
"""The session `nvdimm`: run tests and other jobs in a machine with persistent memory.

python tools/nvdimm/session.py [ext4|xfs] [mem-ctrl|cpu]    the tests marked `medium`;
                                                            without arguments also a short form of disk.py
python tools/nvdimm/session.py all                          the same on each kind of medium
python tools/nvdimm/session.py calls                        count the system calls of pmem2 and of alternatives
python tools/nvdimm/session.py powercut [ROUNDS]            cut the power of a machine that writes, and recover
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import disk
import powercut
from machine import CACHE, FILESYSTEMS, PERSISTENCE, PROJECT, Machine, extension, image, run, timed

TESTS = """
cp -r /host/project /tmp && cd /tmp/project
export TERM=dumb PYTHONDONTWRITEBYTECODE=1 COVERAGE_FILE=/host/results/.coverage
{python} -m pytest -q -p no:cacheprovider -m medium --basetemp=$PMEM2_TEST_FSDAX/tests \
    --junitxml=/host/results/junit.xml --durations=3 {files}
"""
CPYTHON = "python3 -m coverage run"
# Debian has pytest and its dependencies for CPython only; without their compiled parts they work on PyPy too.
PYPY = "PYTHONPATH=/usr/lib/python3/dist-packages pypy3"
CALLS = "cd /host/project && PYTHONPATH=. python3 benchmarks/contenders.py $PMEM2_TEST_FSDAX"
ON_PYPY = [f"tests/hardware/test_{name}.py" for name in ("badblocks", "devdax", "fsdax", "softdax")]


def files_with_marked_tests() -> list[str]:
    """Return the test files with tests marked `medium`: the slow machine need not read the others."""
    files = sorted((PROJECT / "tests").glob("*/test_*.py"))
    return [str(path.relative_to(PROJECT)) for path in files if "mark.medium" in path.read_text(encoding="utf-8")]


def run_in_machine(job: str, filesystem: str, persistence: str, name: str = "") -> Machine:
    """Run a shell script in a new machine, and print its output, with *name* before each line; exit if it fails."""
    folder = CACHE / "-".join(filter(None, (filesystem, persistence, name)))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = Machine(folder, filesystem, persistence, image())
    with timed(f"{folder.name}: booting, running, powering off"):
        succeeded = run(machine, job, f"{name}: " if name else "")
    if not succeeded:
        sys.exit(1)
    return machine


def run_tests(filesystem: str, persistence: str) -> None:
    """Run the tests marked `medium`, and report the lines of pmem2/ that they cover.

    CPython and PyPy run at once, each in a machine of its own: a machine has one processor.
    """
    extension(image())  # once, before both machines need it

    def run_on(python: str, name: str, files: list[str]) -> Machine:
        return run_in_machine(TESTS.format(python=python, files=" ".join(files)), filesystem, persistence, name)

    with ThreadPoolExecutor(2) as pool:
        on_cpython = pool.submit(run_on, CPYTHON, "cpython", files_with_marked_tests())
        pool.submit(run_on, PYPY, "pypy", ON_PYPY).result()
    results = on_cpython.result().results
    print(f"nvdimm: results in {results.relative_to(PROJECT)}", flush=True)
    coverage, data = [sys.executable, "-m", "coverage"], f"--data-file={results / '.coverage'}"
    subprocess.run([*coverage, "combine", "-q", data, str(results)], cwd=PROJECT, check=True)
    subprocess.run([*coverage, "report", data, "--fail-under=0"], cwd=PROJECT, check=True)


def main(arguments: list[str]) -> None:
    """Run the job that the arguments name."""
    if arguments[:1] == ["powercut"]:
        powercut.main(int(arguments[1]) if arguments[1:] else 20)
    elif arguments == ["calls"]:
        run_in_machine(CALLS, "ext4", "mem-ctrl")
    elif arguments[:1] == ["job"]:
        run_in_machine(" ".join(arguments[1:]), "ext4", "mem-ctrl")
    elif arguments == ["all"]:
        for filesystem in FILESYSTEMS:
            for persistence in PERSISTENCE:
                run_tests(filesystem, persistence)
    else:
        filesystem, persistence = [*arguments, *("ext4", "mem-ctrl")[len(arguments) :]]
        if filesystem not in FILESYSTEMS or persistence not in PERSISTENCE:
            sys.exit(__doc__)
        run_tests(filesystem, persistence)
        if not arguments:
            disk.prove(["ext4", "xfs"], rounds=1, replays=70)


if __name__ == "__main__":
    main(sys.argv[1:])
