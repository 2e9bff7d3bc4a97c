# SPDX-License-Identifier: BSD-3-Clause
"""The extension against a stub of PMDK 2.x: its symbols and their version; docs/install.md says how to test on 2.x."""

from __future__ import annotations

import importlib.machinery
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.children import run_interpreter

PROJECT = Path(__file__).parents[2]
# 1.x exports these functions, 2.x does not
REMOVED = re.compile(r"pmem2_config_set_vdm|pmem2_mem\w+_async")

pytestmark = pytest.mark.skipif(not (PROJECT / "build_pmem2.py").exists(), reason="needs a checkout")


def run(*command: str) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A folder with a libpmem2 2.x whose functions all fail with PMEM2_E_NOSUPP."""
    installed = Path(run("pkg-config", "--variable=libdir", "libpmem2").strip()) / "libpmem2.so"
    exported = set(re.findall(r" T (pmem2_\w+)", run("nm", "--dynamic", str(installed))))
    if "LIBPMEM2_2.0" in run("readelf", "--version-info", str(installed)):
        pytest.skip("libpmem2 2.x is installed: all other tests run on it")
    assert len([name for name in exported if REMOVED.fullmatch(name)]) == 4, exported
    names = sorted(name for name in exported if not REMOVED.fullmatch(name))
    code = [f"int {name}(void) {{ return -100001; }}" for name in names if name != "pmem2_errormsg"]
    code.append('const char *pmem2_errormsg(void) { return "the stub"; }')
    source, script, folder = tmp_path / "stub.c", tmp_path / "stub.map", tmp_path / "stub"
    source.write_text("\n".join(code), encoding="utf-8")
    script.write_text("LIBPMEM2_2.0 { global: pmem2_*; local: *; };", encoding="utf-8")
    folder.mkdir()
    options = ["-shared", "-fPIC", "-Wl,-soname,libpmem2.so.1", f"-Wl,--version-script={script}"]
    run("cc", *options, "-o", str(folder / "libpmem2.so.1"), str(source))
    (folder / "libpmem2.so").symlink_to("libpmem2.so.1")
    return folder


def test_build_against_pmdk_2(stub: Path, tmp_path: Path) -> None:
    """The extension links with libpmem2 2.x, requires its symbol version, loads and calls it."""
    built, code = tmp_path / "built", tmp_path / "_pmem2.c"
    built.mkdir()
    emit = "import sys; sys.path.insert(0, sys.argv[1]); import build_pmem2"
    emit += "; build_pmem2.ffibuilder.emit_c_code(sys.argv[2])"
    run(sys.executable, "-c", emit, str(PROJECT), str(code))
    module = built / f"_pmem2{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    folders = (sysconfig.get_path("include"), sysconfig.get_path("platinclude"), PROJECT / "native")
    headers = [f"-I{folder}" for folder in folders]
    # that no symbol is missing is found here: shared libraries may have undefined ones, of Python's
    options = ["-shared", "-fPIC", "-O0", *headers, f"-L{stub}", "-o", str(module), str(code), "-lpmem2"]
    run("cc", *options)
    assert "LIBPMEM2_2.0" in run("readelf", "--version-info", str(module))
    child = run_interpreter(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import pmem2
        from pathlib import Path
        assert Path(sys.modules["_pmem2"].__file__).parent == Path(sys.argv[1])
        print(sys.argv[2] in Path("/proc/self/maps").read_text())
        try:
            pmem2.Source.from_anon(4096)
        except pmem2.NosuppError as error:
            print(error.function)
        """,
        str(built),
        str(stub),
        LD_LIBRARY_PATH=str(stub),
        LD_BIND_NOW="1",
    )
    assert child.stdout.splitlines() == ["True", "pmem2_source_from_anon"], child.stderr
