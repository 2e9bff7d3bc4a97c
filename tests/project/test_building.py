# SPDX-License-Identifier: BSD-3-Clause
"""Building the C half of pmem2, and importing it with a different libpmem2 or without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import _pmem2
import pytest
from support.children import run_interpreter

from pmem2._ffi import explain_import_error

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
IMPORT = """
try:
    import pmem2
except ImportError as error:
    print(error)
"""


@pytest.fixture
def required_version() -> str:
    """The version of the symbols that the extension needs."""
    (version,) = set(re.findall(rb"\0(LIBPMEM2_\d\.0)\0", Path(_pmem2.__file__).read_bytes()))
    return str(version, "ascii")


@pytest.fixture
def other_libpmem2(tmp_path: Path, required_version: str) -> Path:
    """A folder with a libpmem2.so.1 whose empty functions have the symbol version of the other major release."""
    if sys.platform == "win32" or shutil.which("cc") is None:
        pytest.skip("needs a C compiler for ELF")
    if Path(_pmem2.__file__).with_name("pmem2.libs").is_dir():
        pytest.skip("the wheel bundles its own libpmem2")
    declarations = (NATIVE / "libpmem2.cdef.h", NATIVE / "posix.cdef.h")
    names = re.findall(r"\b(pmem2_\w+)\(", "".join(path.read_text(encoding="utf-8") for path in declarations))
    source, script, library = (tmp_path / name for name in ("stub.c", "stub.map", "libpmem2.so.1"))
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in names), encoding="utf-8")
    version = "LIBPMEM2_1.0" if required_version == "LIBPMEM2_2.0" else "LIBPMEM2_2.0"
    script.write_text(f"{version} {{ global: pmem2_*; local: *; }};", encoding="utf-8")
    linking = ["-shared", "-fPIC", "-Wl,-soname,libpmem2.so.1", f"-Wl,--version-script={script}"]
    subprocess.run(["cc", *linking, "-o", library, source], check=True)
    return tmp_path


def test_import_explains_wrong_libpmem2(other_libpmem2: Path, required_version: str) -> None:
    """The ImportError names the library that was found and says how to fix it, in one sentence."""
    child = run_interpreter(IMPORT, LD_LIBRARY_PATH=str(other_libpmem2))
    assert child.returncode == 0, child.stderr
    (sentence,) = child.stdout.splitlines()
    assert sentence.startswith(f"pmem2 was compiled for symbols {required_version}, which ")
    assert f"{other_libpmem2}/libpmem2.so.1 does not have; compile pmem2 for this one: pip install" in sentence


def test_loader_messages_are_explained() -> None:
    """glibc's messages about a wrong or missing libpmem2 become sentences; any other message stays as it is."""
    other = "/usr/lib/libpmem2.so.1: version `LIBPMEM2_2.0' not found (required by _pmem2.abi3.so)"
    assert "symbols LIBPMEM2_2.0, which /usr/lib/libpmem2.so.1 does not have" in explain_import_error(other)
    gone = "libpmem2.so.1: cannot open shared object file: No such file or directory"
    assert explain_import_error(gone).startswith("libpmem2 is no longer installed")
    assert explain_import_error("No module named '_pmem2'") == "No module named '_pmem2'"


def test_native_files_compile_alone() -> None:
    """Each C file includes what it uses, and can be included twice."""
    tools = (shutil.which("cc"), shutil.which("pkg-config"))
    if sys.platform == "win32" or None in tools or subprocess.run(["pkg-config", "--exists", "libpmem2"]).returncode:
        pytest.skip("needs a C compiler and the headers of libpmem2")
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-variable"]
    files = [path for layer in ("os", "guard_", "workaround_", "batch_") for path in NATIVE.glob(f"{layer}*.c")]
    for path in files:
        if "windows" not in path.name:
            subprocess.run(["cc", *flags, "-include", path, path], check=True)


def test_build_without_libpmem2(tmp_path: Path) -> None:
    """The build names the package to install for each of four distributions, without a traceback."""
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
