# SPDX-License-Identifier: BSD-3-Clause
"""Make sdist and wheels in dist/, check them, and try them in fresh environments.

`python tools/wheels.py VERSION...`, as 3.9 or pypy3.9: the interpreters to try. The wheels contain the libraries of the
Debian that they are made on. With root and mmdebstrap they are tried in empty Debians too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DIST = PROJECT / "dist"
RELEASE = PROJECT / "tools" / "release"
TRY_WHEEL = RELEASE / "try_wheel.sh"
# for each suite the version of its CPython, and the tag of the wheels for its PyPy
EMPTY_DEBIANS = {"bookworm": ("3.11", "pp39"), "trixie": ("3.13", "pypy311_pp73")}
# of pmem2 and of the tests in TRY_WHEEL; newer versions of Hypothesis are compiled and do not load on every PyPy
REQUIREMENTS = ("attrs", "hypothesis<6.156", "pytest>=8", "pytest-xdist")


def run(*command: str | Path) -> None:
    """Print and run a command, which must succeed."""
    print("+", *command, flush=True)
    subprocess.run([*map(str, command)], cwd=PROJECT, check=True)


def module(name: str, *arguments: str | Path) -> None:
    """Run a module of this interpreter."""
    run(sys.executable, "-m", name, *arguments)


class Pips:
    """A pip for each interpreter: the newest pip does not run on the oldest Python."""

    def __init__(self, folder: Path) -> None:
        """Create the environments in *folder*."""
        self.folder = folder

    def run(self, python: str, *arguments: str | Path) -> None:
        """Run the pip of an interpreter."""
        venv = self.folder / Path(python).name
        if not venv.exists():
            module("virtualenv", "--quiet", "--python", python, venv)
        run(venv / "bin/python", "-m", "pip", "--quiet", *arguments)


def build_sdist() -> Path:
    """Build the source distribution; exit unless it contains every file of the repository."""
    module("build", "--sdist", "--outdir", DIST)
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        contents = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    if missing := [name for name in listed.splitlines() if name not in contents and not name.startswith(".")]:
        sys.exit(f"MANIFEST.in leaves out {', '.join(missing)}")
    return sdist


def build_wheels(sdist: Path, pythons: list[str], folder: Path, pips: Pips) -> list[Path]:
    """Build a wheel with each interpreter, bundle the libraries, check the results in dist/, and return them."""
    for python in pythons:
        pips.run(python, "wheel", "--no-deps", f"--wheel-dir={folder}", sdist)
    for wheel in sorted(folder.glob("*.whl")):
        # W102: the compiled module and its stubs lie outside of the package
        module("check_wheel_contents", "--package=pmem2", "--ignore=W102", wheel)
        run(sys.executable, RELEASE / "bundle_libraries.py", wheel, DIST)
    module("twine", "check", "--strict", *DIST.iterdir())
    module("abi3audit", "--strict", "--verbose", *DIST.glob("*-abi3-*.whl"))
    return sorted(DIST.glob("*.whl"))


def main(versions: list[str]) -> None:
    """Do everything."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        built, offline = Path(temporary, "built"), Path(temporary, "offline")
        offline.mkdir()
        pips = Pips(Path(temporary, "pip"))
        cpythons = [found for version in versions if (found := shutil.which(f"python{version}"))]
        free_threaded = [python for python in cpythons if python.endswith("t")]  # the stable ABI excludes these
        names = ("pypy3", *(version for version in versions if version.startswith("pypy")))
        pypys = [*{os.path.realpath(found): found for name in names if (found := shutil.which(name))}.values()]
        for wheel in build_wheels(build_sdist(), [sys.executable, *free_threaded, *pypys], built, pips):
            shutil.copy(wheel, offline)
        download = ("download", "--only-binary=:all:", f"--dest={offline}", *REQUIREMENTS)
        for python in (*cpythons, *pypys):
            pips.run(python, *download, *(() if python in pypys else ("cffi",)))  # PyPy contains cffi
            run(TRY_WHEEL, offline, PROJECT, sys.executable, "-m", "virtualenv", "--quiet", "--python", python)
        if os.geteuid() or shutil.which("mmdebstrap") is None:
            print("the wheels are not tried in empty Debians: this needs root and mmdebstrap")
            return
        for suite, (version, pypy) in EMPTY_DEBIANS.items():
            pips.run(sys.executable, *download, "cffi", f"--python-version={version}")
            pythons = ["python3", *(["pypy3"] if list(DIST.glob(f"*{pypy}*.whl")) else [])]
            run(RELEASE / "empty_debian.sh", suite, Path(temporary, suite), offline, *pythons)


if __name__ == "__main__":
    main(sys.argv[1:])
