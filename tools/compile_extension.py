# SPDX-License-Identifier: BSD-3-Clause
"""Compile the extension module with other flags than a wheel's, outside of the project folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
WARNINGS = "-Wall -Wextra -Wconversion -Werror"
COMPILE = "import sys, build_pmem2; build_pmem2.ffibuilder.compile(tmpdir=sys.argv[1])"


def compile_extension(name: str, flags: str, linker_flags: str = "") -> Path:
    """Compile with *flags*; return the folder of the result, .cache/NAME. Exit if the compiler fails."""
    folder = PROJECT / ".cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    for outdated in folder.glob("_pmem2*"):  # make does not know that the flags have changed
        outdated.unlink()
    environment = {**os.environ, "CFLAGS": flags, "LDFLAGS": linker_flags, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", COMPILE, str(folder)], env=environment, check=False)
    if done.returncode:
        sys.exit(f"compiling with {flags} failed")
    return folder
