# SPDX-License-Identifier: BSD-3-Clause
"""The only module that imports `_pmem2`; it explains a libpmem2 that does not load, and exports `ffi` and `lib`.

PyPy's cffi makes a function or a type when it is first used, without a lock: two threads that use one at once can get
each other's type for the rest of the process, and a child forked at that moment hangs. So this module uses each of them
once, while pmem2 is being imported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

REBUILD_HINT = "compile pmem2 for this one: pip install --force-reinstall --no-cache-dir --no-binary pmem2 pmem2"
# libpmem2 1.x and 2.x have the same file name and differ in the version of their symbols.
SYMBOL_VERSION_RE = re.compile(r"(\S+): version [`'](LIBPMEM2_[\w.]+)' not found")
MISSING_LIBRARY_RE = re.compile(r"libpmem2\S*: cannot open shared object file")


def explain_import_error(reason: str) -> str:
    """Return the dynamic loader's *reason* with what to do about it, or the reason itself."""
    if found := SYMBOL_VERSION_RE.search(reason):
        library, version = found.groups()
        return f"pmem2 was compiled for symbols {version}, which {library} does not have; {REBUILD_HINT}"
    if MISSING_LIBRARY_RE.search(reason):
        return "libpmem2 is no longer installed; install it again (Debian: apt install libpmem2)"
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
    from _pmem2 import Null as Null
    from _pmem2 import Pin as Pin
    from _pmem2 import Pointer as Pointer
    from _pmem2 import ReservationHandle as ReservationHandle
    from _pmem2 import SourceHandle as SourceHandle
    from _pmem2 import Uint64Array as Uint64Array

CFFI_TYPES = (
    *("char *", "char[]", "int *", "size_t *", "uint64_t *", "uint64_t[]", "uintptr_t", "uintptr_t *", "void *"),
    *("void **", "struct guarded_map *", "struct guarded_piece[]", "struct map_request *"),
    "struct pmem2_badblock *",
)
"""The types that pmem2 names in its calls of ffi."""
for name in dir(lib):
    getattr(lib, name)
for name in CFFI_TYPES:
    ffi.typeof(name)
# The fields of structs too.
ffi.new("struct pmem2_badblock *", (0, 0))
ffi.new("struct guarded_piece[]", [(0, ffi.new("char[]", 1), 0)])
ffi.new("struct map_request *", (0, 0, 0, 0, 0, 0, ffi.NULL, 0))
