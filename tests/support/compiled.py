# SPDX-License-Identifier: BSD-3-Clause
"""Compiles C programs and libraries for tests, once per test session for all workers of pytest-xdist."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

BUILDS = "PMEM2_TEST_BUILDS"
"""The environment variable with the session's folder, which conftest.py creates and removes."""


def compile_c(source: str, *flags: str) -> Path:
    """Compile C source code with *flags* and return the result; skip the test if there is no compiler."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    key = hashlib.sha256("\0".join((source, *flags)).encode()).hexdigest()[:16]
    result = Path(os.environ[BUILDS], key)
    if not result.exists():
        with tempfile.TemporaryDirectory(dir=result.parent) as folder:
            text, built = Path(folder, "source.c"), Path(folder, "built")
            text.write_text(source, encoding="utf-8")
            subprocess.run(["cc", "-O1", "-o", built, text, *flags], check=True)
            built.rename(result)  # atomic: another worker may compile the same source
    return result


def libpmem2_flags() -> list[str]:
    """Return the compiler's flags for the libpmem2 that the extension was compiled for; skip the test without them."""
    command = ["pkg-config", "--cflags", "--libs", "libpmem2"]
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("needs the headers of libpmem2")
    return found.stdout.split()


def preloadable(source: str, *flags: str) -> Path:
    """Compile C source code to a shared library for LD_PRELOAD."""
    return compile_c(source, "-shared", "-fPIC", *flags)


def border_library() -> str:
    """Return the compiled border.c, for LD_PRELOAD."""
    return str(preloadable(Path(__file__).with_name("border.c").read_text(encoding="utf-8"), "-ldl"))
