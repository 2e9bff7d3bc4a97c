# SPDX-License-Identifier: BSD-3-Clause
"""Build `_pmem2`, the C half of pmem2: the functions of libpmem2, and the guards that make them safe to call.

`native/*.cdef.h` declare the functions for cffi; the compiler supplies the values of the constants. `native/guards.c`
includes the guards: C functions that check and act in one call, without relying on the interpreter's lock. They handle
closed objects, ranges, protection, running operations, live views, forks and the error text of the failing thread.
Python maps their return codes to exceptions.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI, PkgConfigError

NATIVE = Path(__file__).resolve().with_name("native")
PLATFORM = "windows" if sys.platform == "win32" else "posix"
DECLARATIONS = ("libpmem2.cdef.h", f"{PLATFORM}.cdef.h", "guards.cdef.h")
SOURCE = '#include "guards.c"\n'
INCLUDE_DIRS = [str(NATIVE)]  # absolute, because cffi also compiles in temporary folders
DEPENDS = sorted(map(str, NATIVE.iterdir()))  # a change of any of them triggers a rebuild
INSTALL_HINT = """pmem2 needs libpmem2 and its headers to compile, and pkg-config does not find them. Install them:
    Debian, Ubuntu  apt install gcc libpmem2-dev pkg-config python3-dev
    Fedora          dnf install gcc libpmem2-devel pkgconf-pkg-config python3-devel
    Arch            pmdk from the AUR, then pacman -S base-devel
    openSUSE        zypper install gcc libpmem2-devel pkgconf python3-devel"""

ffibuilder = FFI()
ffibuilder.cdef("\n".join((NATIVE / name).read_text(encoding="utf-8") for name in DECLARATIONS))
if PLATFORM == "windows":  # which has no pkg-config
    libraries = ["libpmem2", "ntdll"]
    ffibuilder.set_source("_pmem2", SOURCE, libraries=libraries, include_dirs=INCLUDE_DIRS, depends=DEPENDS)
else:
    try:
        ffibuilder.set_source_pkgconfig("_pmem2", ["libpmem2"], SOURCE, include_dirs=INCLUDE_DIRS, depends=DEPENDS)
    except PkgConfigError as error:
        sys.exit(f"{error}\n{INSTALL_HINT}")

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
