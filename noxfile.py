# SPDX-License-Identifier: BSD-3-Clause
"""What is checked, and how: `nox -l` lists it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "pypy3.9"]
OLDEST_TYPED = "3.10"  # mypy knows no older one
CHECKED = ["pmem2", "tests", "nvdimm", "examples", "fuzz", "build_pmem2.py", "noxfile.py", "setup.py"]

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False  # prints which ones it skips
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "types", "lint", "coverage", "debuglib", "memcheck", "nvdimm", "demo"]

# pyenv's interpreters are found wherever it keeps them, active or not
for folder in sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin")):
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

if (own := f"{sys.version_info.major}.{sys.version_info.minor}") not in PYTHONS:
    PYTHONS.append(own)


def install(session: nox.Session, *groups: str) -> None:
    """Build the wheel for the interpreter of this session and install that, with dependency groups."""
    wheels = Path(session.create_tmp())
    for old in wheels.glob("*.whl"):
        old.unlink()
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), ".")
    (wheel,) = wheels.glob("*.whl")
    wanted = [item for group in groups for item in nox.project.dependency_groups(PROJECT, group)]
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install("attrs", "cffi", *wanted)


def compile_c(session: nox.Session, flags: str, **environment: str) -> Path:
    """Compile the extension alone, with these flags; return the folder that it is in."""
    here = session.create_tmp()
    code = "import sys, build_pmem2; build_pmem2.ffibuilder.compile(tmpdir=sys.argv[1])"
    session.run("python", "-c", code, here, env={"CFLAGS": flags, **environment})
    return Path(here)


PROJECT = nox.project.load_toml("pyproject.toml")
WARNINGS = "-Wall -Wextra -Wconversion -Werror"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every interpreter that this machine has."""
    install(session, "tests")
    session.run("pytest", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything, as a user sees them too, and the stubs against the compiled module."""
    install(session, "types")
    session.run("mypy", *(name for name in CHECKED if Path(name).exists()))
    session.run("mypy", f"--python-version={OLDEST_TYPED}", "pmem2")
    session.run("stubtest", "--allowlist=stubs/allowlist.txt", "_pmem2", env={"MYPYPATH": "stubs"})
    session.run("pytest", "tests/test_stubs.py")
    here = Path.cwd()
    settings = f"--config-file={here / 'pyproject.toml'}"
    with session.chdir(session.create_tmp()):  # so that mypy finds what is installed, as it does for a user
        for version in (OLDEST_TYPED, "3.13"):
            session.run("mypy", settings, f"--python-version={version}", str(here / "tests/typing"))


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, and that the C code compiles without a warning."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"), "cffi", "setuptools")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    compile_c(session, WARNINGS)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure what the tests cover: every branch of pmem2/, or the session fails."""
    install(session, "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def debuglib(session: nox.Session) -> None:
    """Run the tests under the debug build of libpmem2, whose asserts abort."""
    libraries = sorted(Path("/usr/lib").glob("*/pmdk_dbg/libpmem2.so.1"))
    if not libraries:
        session.skip("libpmem2's debug build is not installed (package libpmem2-debug)")
    install(session, "tests")
    session.run("pytest", "-q", *session.posargs, env={"LD_LIBRARY_PATH": str(libraries[0].parent)})


@nox.session
def memcheck(session: nox.Session) -> None:
    """Run a focused part of the tests under valgrind: no invalid access, nothing of ours leaked."""
    if shutil.which("valgrind") is None:
        session.skip("valgrind is not installed")
    install(session, "tests")
    session.run("python", "tests/memcheck.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Do the main job on a real file, and say what happens."""
    install(session)
    session.run("python", "-m", "pmem2.demo", *session.posargs)


def machine(session: nox.Session) -> None:
    """Provide what emulates persistent memory, or skip the session."""
    session.install("attrs", "coverage[toml]>=7")
    if shutil.which("qemu-system-x86_64") and shutil.which("mmdebstrap"):
        return
    apt = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "apt-get", "-qq"]
    wanted = ["--yes", "--no-install-recommends", "qemu-system-x86", "mmdebstrap"]
    try:
        session.run_install(*apt, "update", external=True, silent=True)
        session.run_install(*apt, "install", *wanted, external=True, silent=True)
    except CommandFailed:
        session.skip("QEMU and mmdebstrap are not here and cannot be installed (Debian: qemu-system-x86, mmdebstrap)")


def on_nvdimm(session: nox.Session, filesystem: str, persistence: str, *arguments: str) -> None:
    """Run the tests marked `medium` in the machine, and tell what of pmem2/ they covered."""
    session.run("python", "nvdimm/machine.py", filesystem, persistence, *arguments)
    results = Path(f".cache/nvdimm/{filesystem}-{persistence}/share/results")
    data = f"--data-file={results / '.coverage'}"
    session.run("coverage", "combine", "-q", data, str(results))
    session.run("coverage", "report", data, "--fail-under=0")


@nox.session
def nvdimm(session: nox.Session) -> None:
    """Run a part of the tests on emulated persistent memory; arguments: [ext4|xfs] [mem-ctrl|cpu]."""
    machine(session)
    on_nvdimm(session, *(session.posargs + ["ext4", "mem-ctrl"][len(session.posargs) :]))


@nox.session(default=False)
@nox.parametrize("persistence", ["mem-ctrl", "cpu"])
@nox.parametrize("filesystem", ["ext4", "xfs"])
def nvdimm_all(session: nox.Session, filesystem: str, persistence: str) -> None:
    """Run them on each kind of it."""
    machine(session)
    on_nvdimm(session, filesystem, persistence)


@nox.session(default=False)
def nvdimm_calls(session: nox.Session) -> None:
    """Count, on persistent memory, the system calls and native calls of pmem2 and of what one would pick instead."""
    machine(session)
    job = "cd /host/project && PYTHONPATH=. python3 benchmarks/contenders.py $PMEM2_TEST_FSDAX"
    session.run("python", "nvdimm/machine.py", "--job", job)


@nox.session(default=False)
def powercut(session: nox.Session) -> None:
    """Cut the power of a machine that writes, again and again, and check what it finds then; argument: how often."""
    machine(session)
    session.run("python", "nvdimm/powercut.py", *session.posargs)


@nox.session(default=False, python=PYTHONS)
def fuzz(session: nox.Session) -> None:
    """Run programs of public calls, each in a child that must not die; argument: ci (2 minutes) or long (an hour)."""
    install(session, "tests" if str(session.python).startswith("pypy") else "coverage")  # with NumPy where it is built
    seconds = {"ci": 110, "long": 3600}[session.posargs[0] if session.posargs else "ci"]
    session.run("python", "fuzz/programs.py", "--seconds", str(seconds))


@nox.session(default=False)
def leaks(session: nox.Session) -> None:
    """Count what 100,000 cycles of each object leave behind; argument: a part of them, as 0.1."""
    install(session, "tests")
    session.run("python", "tests/leaks.py", *session.posargs)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in what pmem2 needs at run time."""
    session.install("pip-audit", "attrs", "cffi")
    output = str(session.run("pip-audit", "--local", success_codes=[0, 1], silent=True))
    session.log(output)
    if any(trouble in output for trouble in ("could not be audited", "ConnectionError", "Max retries", "HTTPError")):
        session.skip("the service that knows vulnerabilities cannot be reached, or does not know all packages")
    if "No known vulnerabilities found" not in output:
        session.error("see above")


@nox.session(default=False, python="3.9")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of cffi and attrs that are declared, on the oldest Python."""
    session.install("setuptools>=77", "wheel", "cffi==1.15.0", "attrs==22.2.0")
    session.install("--no-build-isolation", "--no-deps", "--force-reinstall", ".")
    session.install(*nox.project.dependency_groups(PROJECT, "tests"), "cffi==1.15.0", "attrs==22.2.0")
    session.run("pytest", "-q", *session.posargs)


@nox.session(default=False)
def analyze(session: nox.Session) -> None:
    """Let gcc's analyzer, and cppcheck where it is installed, read the C code."""
    session.install("cffi", "setuptools")
    guards = compile_c(session, f"-fanalyzer {WARNINGS}") / "guards.c"
    names = str(session.run("python", "-c", "import build_pmem2; print(*build_pmem2.SOURCES)", silent=True)).split()
    guards.write_text("".join(f'#include "native/{name}"\n' for name in names), encoding="utf-8")
    if shutil.which("cppcheck") is None:
        session.warn("cppcheck is not installed")
        return
    checks = ["--enable=warning,performance,portability", "--error-exitcode=1", "--inline-suppr", "--quiet"]
    session.run("cppcheck", *checks, "-I.", str(guards), external=True)


def sanitized(session: nox.Session, kind: str, runtime: str, tests: list[str], **options: str) -> None:
    """Build the extension with a sanitizer, and run some of the tests with it."""
    session.install("cffi", "setuptools", "attrs", *nox.project.dependency_groups(PROJECT, "tests"))
    here = compile_c(session, f"-g -O1 -fno-omit-frame-pointer -fsanitize={kind}", LDFLAGS=f"-fsanitize={kind}")
    found = str(session.run("cc", f"-print-file-name={runtime}", external=True, silent=True)).strip()
    path = os.pathsep.join((str(here), str(Path.cwd())))
    environment = {"LD_PRELOAD": found, "PYTHONPATH": path, "PYTHONMALLOC": "malloc", **options}
    # not `python -m`, which would find an extension that was built in place; findings are not to be captured
    session.run("pytest", "-q", "--capture=sys", *(session.posargs or tests), env=environment)


@nox.session(default=False)
def asan(session: nox.Session) -> None:
    """Run a focused part of the tests with AddressSanitizer and UndefinedBehaviorSanitizer in the C code."""
    focus = ["test_properties", "test_map", "test_reservation", "test_source"]
    tests = [f"tests/{name}.py" for name in focus]
    sanitized(session, "address,undefined", "libasan.so", tests, ASAN_OPTIONS="detect_leaks=0")


@nox.session(default=False)
def tsan(session: nox.Session) -> None:
    """Run the tests of threads with ThreadSanitizer in the C code; the interpreter itself is not watched."""
    sanitized(
        session, "thread", "libtsan.so", ["tests/test_threads.py"], TSAN_OPTIONS="ignore_noninstrumented_modules=1"
    )


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Let eight threads work on the same maps for ten minutes; argument: other seconds."""
    install(session)
    session.run("python", "-W", "ignore::ResourceWarning", "tests/soak.py", *(session.posargs or ["600"]))


@nox.session(default=False)
@nox.parametrize("suite", ["bookworm", "trixie"])
def debians(session: nox.Session, suite: str) -> None:
    """Run the tests in an empty Debian, with its own packages; needs root and mmdebstrap."""
    if os.geteuid() or shutil.which("mmdebstrap") is None:
        session.skip("root and mmdebstrap are needed")
    folder = Path(session.create_tmp()).resolve() / "root"
    session.run("tests/debian.sh", suite, str(folder), *session.posargs, external=True)
