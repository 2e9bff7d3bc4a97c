# SPDX-License-Identifier: BSD-3-Clause
"""Install pmem2 for this interpreter from a wheel, which is built only if the sources have changed.

One wheel serves every CPython with a global interpreter lock (stable ABI). PyPy needs one for each version of Python
and of PyPy itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
WHEELS = PROJECT / ".cache" / "wheels"
STABLE_ABI = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
FOLDERS = ("native", "pmem2", "stubs")
FILES = ("build_pmem2.py", "setup.py", "pyproject.toml", "README.md", "_pmem2_cli.py", "_pmem2_pytestplugin.py")


def pip(*arguments: str) -> None:
    """Run this interpreter's pip."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], cwd=PROJECT, check=True)


def sources_digest() -> str:
    """Return a hash of all files that the wheel is made of, and of the variable that selects libpmem2."""
    paths = [PROJECT / name for name in FILES]
    paths += [path for folder in FOLDERS for path in (PROJECT / folder).rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(PROJECT)}\0".encode())
        digest.update(path.read_bytes())
    digest.update(os.environ.get("PKG_CONFIG_PATH", "").encode())
    return digest.hexdigest()[:16]


def build() -> Path:
    """Return the wheel for this interpreter, built if necessary."""
    abi = "abi3" if STABLE_ABI else str(sysconfig.get_config_var("SOABI"))
    folder = WHEELS / f"{abi}-{sources_digest()}"
    if not list(folder.glob("*.whl")):
        print(f"building the wheel for {'CPython' if STABLE_ABI else abi} ...", flush=True)
        for outdated in WHEELS.glob(f"{abi}-*"):
            shutil.rmtree(outdated)
        # setuptools would copy files of earlier builds into the wheel
        shutil.rmtree(PROJECT / "build", ignore_errors=True)
        pip("wheel", "--no-deps", f"--wheel-dir={folder}", ".")
    (wheel,) = folder.glob("*.whl")
    return wheel


if __name__ == "__main__":
    pip("install", "--force-reinstall", "--no-deps", str(build()))
