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

from cffi import FFI

NATIVE = Path(__file__).with_name("native")
PLATFORM = "windows" if sys.platform == "win32" else "posix"
DECLARATIONS = ("libpmem2.cdef.h", f"{PLATFORM}.cdef.h", "guards.cdef.h")
SOURCES = (
    f"{PLATFORM}.c",
    "gate.c",
    "source.c",
    "reservation.c",
    "map.c",
    "find.c",
    "operations.c",
    "badblocks.c",
)


def joined(names: tuple[str, ...]) -> str:
    """Return the files of those names, in order: they are one translation unit."""
    return "\n".join((NATIVE / name).read_text(encoding="utf-8") for name in names)


ffibuilder = FFI()
ffibuilder.cdef(joined(DECLARATIONS))
if PLATFORM == "windows":  # no pkg-config there
    ffibuilder.set_source("_pmem2", joined(SOURCES), libraries=["libpmem2"])
else:
    ffibuilder.set_source_pkgconfig("_pmem2", ["libpmem2"], joined(SOURCES))

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
