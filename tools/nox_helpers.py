# SPDX-License-Identifier: BSD-3-Clause
"""Steps that several sessions of the noxfile share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
OPTIMIZED = ("tests/api", "tests/cli")  # folders of tests that run under python -OO too
DEBIANS = [  # suites and architectures in which Debian has libpmem2
    nox.param(suite, architecture, id=f"{suite}, {architecture}")
    for suite, newer in {"bookworm": [], "trixie": ["riscv64"], "forky": ["riscv64"]}.items()
    for architecture in ("amd64", "arm64", "ppc64el", *newer)
]
NO_LIBRARY = ("tests/examples", "tests/explorer", "tests/project")  # folders of tests whose subject is not libpmem2

# nox searches PATH for interpreters: add pyenv's, and those of the session `interpreters`
pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
for folder in (Path(".cache/interpreters/bin").resolve(), *sorted(pyenv.glob("versions/3.*/bin"))):
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
# seconds until virtualenv gives up on an interpreter, and nox calls it missing: on a busy machine, its 15 are too few
os.environ.setdefault("PY_DISCOVERY_TIMEOUT", "300")


def dependencies(*groups: str) -> list[str]:
    """Return the requirements of some dependency groups."""
    return [requirement for group in groups for requirement in nox.project.dependency_groups(PROJECT, group)]


def install(session: nox.Session, *groups: str) -> None:
    """Install pmem2 from its wheel, and dependency groups."""
    session.install("attrs", "cffi", *dependencies(*groups))
    session.run("python", "tools/install_wheel.py")


def install_if_possible(session: nox.Session, group: str) -> None:
    """Install a dependency group that not every package index has."""
    try:
        session.install(*dependencies(group))
    except CommandFailed:
        session.log(f"cannot install {group}: its tests are skipped")


def provide(session: nox.Session, *programs: str) -> None:
    """Install Debian packages unless their programs exist (PROGRAM=PACKAGE); skip the session if that fails."""
    try:
        session.run_install("tools/apt_install.sh", *programs, external=True)
    except CommandFailed:
        session.skip("its Debian packages cannot be installed")


def make_wheels(session: nox.Session, *pythons: str) -> None:
    """Make and try wheels on this machine, or in an emulated Debian of another architecture."""
    if session.posargs:
        provide(session, "mmdebstrap=mmdebstrap", "qemu-aarch64-static=qemu-user-static")
        session.run("tools/release/emulated_debian.sh", *session.posargs, external=True)
        return
    session.install(*dependencies("wheels"))
    session.run("python", "tools/wheels.py", *pythons)


def run_debug_tests(session: nox.Session) -> None:
    """Run the tests with the debug build of libpmem2, some of them under python -OO, or skip the session."""
    folder = session.run("pkg-config", "--variable=libdir", "libpmem2", external=True, silent=True)
    # pmdk_dbg on Debian, pmdk_debug where PMDK's own Makefile installs it
    libraries = sorted(Path(str(folder).strip()).glob("pmdk_d*/libpmem2.so.1"))
    if not libraries:
        session.skip("libpmem2's debug build is not installed (Debian: libpmem2-debug)")
    session.env["LD_LIBRARY_PATH"] = str(libraries[0].parent)
    install(session, "tests")
    run_optimized(session, *OPTIMIZED)
    run_pytest(session, *(f"--ignore={folder}" for folder in (*OPTIMIZED, *NO_LIBRARY)))


def run_lowest_tests(session: nox.Session, *lowest: str) -> None:
    """Run the tests with the lowest supported versions of the dependencies."""
    session.install("setuptools>=77", "wheel", *lowest)
    session.install("--no-build-isolation", "--no-deps", "--force-reinstall", ".")
    session.install(*dependencies("tests"), *lowest)
    run_pytest(session)


def run_windows_tests(session: nox.Session) -> None:
    """Run the tests under wine."""
    compiler = ["gendef=mingw-w64-tools", "x86_64-w64-mingw32-gcc=gcc-mingw-w64-x86-64"]
    provide(session, "wine=wine", "wineserver=wine64", *compiler)
    session.run("python", "tools/windows/run.py", *session.posargs)


def run_fuzz(session: nox.Session, duration: str) -> None:
    """Run generated programs, then the explorer against its oracle."""
    install(session, "tests" if str(session.python).startswith("pypy") else "coverage")  # PyPy has no NumPy wheels
    session.run("python", "fuzz/programs.py", "--seconds", duration)
    run_oracle(session)


def look_at_docs(session: nox.Session) -> None:
    """Build the documentation and open its pages in a browser."""
    if not any(map(shutil.which, ("chromium", "google-chrome"))):
        provide(session, "chromium=chromium")
    install(session, "docs")
    session.install("playwright")  # without the browsers that it can download
    session.run("sphinx-build", "-q", "-E", "-W", "docs", ".cache/docs/browser")
    session.run("python", "tools/browse_docs.py", ".cache/docs/browser", *session.posargs)


def run_soak(session: nox.Session, seconds: str = "600", interrupts: str = "1000000") -> None:
    """Run many threads, then the harnesses that disturb every public call."""
    session.run("python", "-W", "ignore::ResourceWarning", "tools/soak.py", seconds)
    session.run("python", "-m", "safety.harness", "all", "--interrupts", interrupts, env={"PYTHONPATH": "tests"})


def run_oracle(session: nox.Session) -> None:
    """Compare the crash explorer with the independent memory model of the tests on thousands of random programs."""
    session.env["HYPOTHESIS_PROFILE"] = "ci"
    session.run("pytest", "-q", *(f"tests/explorer/test_{name}against_oracle.py" for name in ("", "closure_")))


def in_machine(session: nox.Session, program: str) -> None:
    """Run a program that starts the virtual machine."""
    provide(session, "qemu-system-x86_64=qemu-system-x86", "mmdebstrap=mmdebstrap")
    session.install("attrs", "coverage[toml]>=7")
    session.run("python", program, *session.posargs)


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest on all cores."""
    # No test groups: a worker is a process, so tests that fork, start threads or exhaust pthread keys cannot disturb
    # the tests of other workers, and each worker runs one test at a time.
    parallel = ["-n", "logical", "--dist", "worksteal"]
    # A folder of its own: pytest's default one is shared by all runs of a user, which disturb each other when they
    # remove old files, and keeps hundreds of megabytes.
    folder = tempfile.mkdtemp(prefix=f"{session.name}-")
    disk = [f"--basetemp={folder}/tests", "-o", "tmp_path_retention_policy=failed"]
    report = f"--junitxml=.cache/junit/{session.name}.xml"  # ./run makes its table from it
    try:
        session.run("pytest", "-q", *parallel, *disk, report, *arguments, *session.posargs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_optimized(session: nox.Session, *arguments: str) -> None:
    """Run pytest as `python -OO`, which removes docstrings and asserts; pytest keeps the asserts of test modules."""
    ignored = ("pytest.PytestConfigWarning", "pytest.PytestAssertRewriteWarning")  # asserts elsewhere are gone
    session.env["PYTHONOPTIMIZE"] = "2"
    run_pytest(session, *(f"-Wignore::{category}" for category in ignored), *arguments)
    del session.env["PYTHONOPTIMIZE"]
