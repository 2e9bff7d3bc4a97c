# SPDX-License-Identifier: BSD-3-Clause
"""Building pmem2 without libpmem2, and importing it with another one than it was compiled for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import _pmem2
import pytest
from support.children import RunChild

from pmem2._ffi import explain_import_error

ROOT = Path(__file__).parents[2]
IMPORT = """
try:
    import pmem2
except ImportError as error:
    print(error)
"""


@pytest.fixture
def libpmem2_2(tmp_path: Path) -> Path:
    """A folder with an empty libpmem2.so.1 that has the functions of libpmem2, as 2.x versions them."""
    if sys.platform == "win32" or shutil.which("cc") is None:
        pytest.skip("needs a C compiler for ELF")
    if Path(_pmem2.__file__).with_name("pmem2.libs").is_dir():
        pytest.skip("installed from a wheel that brings its own libpmem2")
    declarations = (ROOT / "native/libpmem2.cdef.h", ROOT / "native/posix.cdef.h")
    names = re.findall(r"\b(pmem2_\w+)\(", "".join(path.read_text(encoding="utf-8") for path in declarations))
    source, script, library = (tmp_path / name for name in ("stub.c", "stub.map", "libpmem2.so.1"))
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in names), encoding="utf-8")
    script.write_text("LIBPMEM2_2.0 { global: pmem2_*; local: *; };", encoding="utf-8")
    linking = ["-shared", "-fPIC", "-Wl,-soname,libpmem2.so.1", f"-Wl,--version-script={script}"]
    subprocess.run(["cc", *linking, "-o", library, source], check=True)
    return tmp_path


def test_import_refuses_another_libpmem2(libpmem2_2: Path, run_child: RunChild) -> None:
    """One sentence names the library that was found and says what to do."""
    child = run_child(IMPORT, LD_LIBRARY_PATH=str(libpmem2_2))
    assert child.returncode == 0, child.stderr
    (sentence,) = child.stdout.splitlines()
    assert sentence.startswith("pmem2 was compiled for a libpmem2 with the symbols LIBPMEM2_1.0, which ")
    assert f"{libpmem2_2}/libpmem2.so.1 has not; compile pmem2 for this one: pip install" in sentence


def test_what_the_loader_says() -> None:
    """What glibc says of another library, or of none, becomes a sentence; what it says of anything else stays."""
    other = "/usr/lib/libpmem2.so.1: version `LIBPMEM2_2.0' not found (required by _pmem2.abi3.so)"
    assert "the symbols LIBPMEM2_2.0, which /usr/lib/libpmem2.so.1 has not" in explain_import_error(other)
    gone = "libpmem2.so.1: cannot open shared object file: No such file or directory"
    assert explain_import_error(gone).startswith("libpmem2, for which pmem2 was compiled, is not installed any more")
    assert explain_import_error("No module named '_pmem2'") == "No module named '_pmem2'"


def test_build_without_libpmem2(tmp_path: Path) -> None:
    """The package to install is named, for each of four distributions, and there is no traceback."""
    pytest.importorskip("cffi")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(tmp_path), "PKG_CONFIG_LIBDIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "build_pmem2.py")]
    build = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert build.returncode == 1
    for distribution, package in (
        ("Debian", "libpmem2-dev"),
        ("Fedora", "libpmem2-devel"),
        ("Arch", "pmdk"),
        ("openSUSE", "libpmem2-devel"),
    ):
        assert re.search(rf"^ *{distribution}\b.*\b{package}\b", build.stderr, re.MULTILINE), build.stderr
    assert "Traceback" not in build.stderr
