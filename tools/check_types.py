# SPDX-License-Identifier: BSD-3-Clause
"""Check the types of the project, of its use on Windows, of its stubs, and of the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
OLDEST = "3.10"  # mypy does not support Python 3.9
NEWEST = "3.13"
MODULES = ("_pmem2_cli.py", "_pmem2_pytestplugin.py", "build_pmem2.py", "noxfile.py", "setup.py")
CHECKED = ("pmem2", "tests", "tools", "examples", "fuzz", *MODULES)
ON_WINDOWS = ("pmem2", "tests/upstream/test_windows.py", "tests/typing")


def run(*command: str, folder: str | Path = PROJECT) -> None:
    """Print and run a command of this environment; exit if it fails."""
    print("+", *command, flush=True)
    program = Path(sys.executable).with_name(command[0])
    status = subprocess.run([str(program), *command[1:]], cwd=folder, check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    """Run all checks."""
    run("mypy", *(name for name in CHECKED if (PROJECT / name).exists()))
    run("mypy", f"--python-version={OLDEST}", "pmem2")
    run("mypy", "--platform=win32", "--exclude=^pmem2/(cli/|__main__)", *ON_WINDOWS)  # the command line is POSIX
    for version in (OLDEST, NEWEST):
        run("basedpyright", f"--pythonversion={version}", f"--pythonpath={sys.executable}")
    os.environ["MYPYPATH"] = "stubs"
    run("stubtest", "--allowlist=stubs/allowlist.txt", "_pmem2")
    del os.environ["MYPYPATH"]
    run("pytest", "-q", "tests/project/test_stubs.py")
    config = f"--config-file={PROJECT / 'pyproject.toml'}"
    with tempfile.TemporaryDirectory() as folder:  # away from the sources: there mypy finds the installed package
        for version in (OLDEST, NEWEST):
            run("mypy", config, f"--python-version={version}", str(PROJECT / "tests/typing"), folder=folder)


if __name__ == "__main__":
    main()
