# SPDX-License-Identifier: BSD-3-Clause
"""The first import of `_pmem2`: when it does not load, because of the libpmem2 that is found, this says why.

On PyPy cffi makes a function or a type when it is first asked for, and does not guard that: two threads that ask at
once can get each other's type, for good, and a child forked meanwhile waits for ever. So all are asked for here, while
pmem2 is being imported, and then only looked up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

REBUILD_HINT = "compile pmem2 for this one: pip install --force-reinstall --no-cache-dir --no-binary pmem2 pmem2"
# the releases 1.x and 2.x have the same file name; only the version of their symbols tells them apart
SYMBOL_VERSION_RE = re.compile(r"(\S+): version [`'](LIBPMEM2_[\w.]+)' not found")
MISSING_LIBRARY_RE = re.compile(r"libpmem2\S*: cannot open shared object file")


def explain_import_error(reason: str) -> str:
    """Return what a user can do about the dynamic loader's *reason*, or the reason itself."""
    if found := SYMBOL_VERSION_RE.search(reason):
        library, version = found.groups()
        return f"pmem2 was compiled for a libpmem2 with the symbols {version}, which {library} has not; {REBUILD_HINT}"
    if MISSING_LIBRARY_RE.search(reason):
        return "libpmem2, for which pmem2 was compiled, is not installed any more; install it (Debian: libpmem2) again"
    return reason


try:
    from _pmem2 import ffi as ffi
    from _pmem2 import lib as lib
except ImportError as error:  # pragma: no cover: in children
    raise ImportError(explain_import_error(str(error)), name=error.name, path=error.path) from None

if TYPE_CHECKING:
    from _pmem2 import BadBlocksHandle as BadBlocksHandle
    from _pmem2 import Borrowed as Borrowed
    from _pmem2 import CBuffer as CBuffer
    from _pmem2 import CharArray as CharArray
    from _pmem2 import CharPointer as CharPointer
    from _pmem2 import MapHandle as MapHandle
    from _pmem2 import Pin as Pin
    from _pmem2 import Pointer as Pointer
    from _pmem2 import ReservationHandle as ReservationHandle
    from _pmem2 import SourceHandle as SourceHandle
    from _pmem2 import Uint64Array as Uint64Array

CFFI_TYPES = (
    *("char *", "char[]", "int *", "size_t *", "uint64_t *", "uint64_t[]", "uintptr_t", "uintptr_t *", "void *"),
    *("void **", "struct guarded_pin *", "struct guarded_piece[]", "struct map_request *"),
    "struct pmem2_badblock *",
)
"""Those that pmem2 names in its calls of ffi."""
for name in dir(lib):
    getattr(lib, name)
for name in CFFI_TYPES:
    ffi.typeof(name)
# the fields of structs too
ffi.new("struct pmem2_badblock *", (0, 0))
ffi.new("struct guarded_piece[]", [(0, ffi.new("char[]", 1), 0)])
ffi.new("struct map_request *", (0, 0, 0, 0, 0, ffi.NULL, 0))
