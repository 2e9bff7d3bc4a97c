# SPDX-License-Identifier: BSD-3-Clause
"""The first import of `_pmem2`: when it does not load, because of the libpmem2 that is found, this says why.

On PyPy cffi makes a function or a type when it is first asked for, and does not guard that: two threads that ask at
once can get each other's type, for good, and a child forked meanwhile waits for ever. So all are asked for here, while
pmem2 is being imported, and then only looked up.
"""

from __future__ import annotations

import re

REBUILD = "compile pmem2 for this one: pip install --force-reinstall --no-cache-dir --no-binary pmem2 pmem2"
# the releases 1.x and 2.x have the same file name; only the version of their symbols tells them apart
OTHER = re.compile(r"(\S+): version [`'](LIBPMEM2_[\w.]+)' not found")
ABSENT = re.compile(r"libpmem2\S*: cannot open shared object file")


def explained(reason: str) -> str:
    """Return what a user can do about the dynamic loader's *reason*, or the reason itself."""
    if found := OTHER.search(reason):
        library, version = found.groups()
        return f"pmem2 was compiled for a libpmem2 with the symbols {version}, which {library} has not; {REBUILD}"
    if ABSENT.search(reason):
        return "libpmem2, for which pmem2 was compiled, is not installed any more; install it (Debian: libpmem2) again"
    return reason


try:
    from _pmem2 import ffi, lib
except ImportError as error:  # pragma: no cover: in children
    raise ImportError(explained(str(error)), name=error.name, path=error.path) from None

TYPES = (
    *("char *", "char[]", "int *", "size_t *", "uint64_t *", "uint64_t[]", "uintptr_t", "uintptr_t *", "void *"),
    *("void **", "struct guarded_pin *", "struct guarded_piece[]", "struct pmem2_badblock *"),
)
"""Those that pmem2 names in its calls of ffi."""
for name in dir(lib):
    getattr(lib, name)
for name in TYPES:
    ffi.typeof(name)
# the fields of structs too
ffi.new("struct pmem2_badblock *", (0, 0))
ffi.new("struct guarded_piece[]", [(0, ffi.new("char[]", 1), 0)])
