# SPDX-License-Identifier: BSD-3-Clause
"""Build `_pmem2`, the compiled half of pmem2: libpmem2.h, and the guards that make it safe.

`native/*.cdef.h` declare what libpmem2 exports and the compiler supplies every value. `native/*.c` are the guards: C
functions that check and act in one call, without relying on the interpreter's lock: closed handles, ranges,
protection, operations in flight, live views, forks, the error text of the failing thread. What to make of their
verdicts is decided in Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI, PkgConfigError

NATIVE = Path(__file__).with_name("native")
PLATFORM = "windows" if sys.platform == "win32" else "posix"
DECLARATIONS = ("libpmem2.cdef.h", f"{PLATFORM}.cdef.h", "guards.cdef.h")
SOURCES = (
    f"{PLATFORM}.c",
    "gate.c",
    "source.c",
    "reservation.c",
    "map.c",
    f"{PLATFORM}_map.c",
    "find.c",
    "operations.c",
    "objects.c",
    "badblocks.c",
)
MISSING = """pmem2 is compiled against libpmem2, which pkg-config does not find. Install it with its headers:
    Debian, Ubuntu  apt install gcc libpmem2-dev pkg-config python3-dev
    Fedora          dnf install gcc libpmem2-devel pkgconf-pkg-config python3-devel
    Arch            pmdk from the AUR, then pacman -S base-devel
    openSUSE        zypper install gcc libpmem2-devel pkgconf python3-devel"""


def joined(names: tuple[str, ...]) -> str:
    """Return the files of those names, in order: they are one translation unit."""
    return "\n".join((NATIVE / name).read_text(encoding="utf-8") for name in names)


ffibuilder = FFI()
ffibuilder.cdef(joined(DECLARATIONS))
if PLATFORM == "windows":  # no pkg-config there
    ffibuilder.set_source("_pmem2", joined(SOURCES), libraries=["libpmem2", "ntdll"])
else:
    try:
        ffibuilder.set_source_pkgconfig("_pmem2", ["libpmem2"], joined(SOURCES))
    except PkgConfigError as error:
        sys.exit(f"{error}\n{MISSING}")

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
