# SPDX-License-Identifier: BSD-3-Clause
"""When C may take back what Python uses: not before nothing can reach it any more.

`ffi.gc` alone is too early. In a garbage cycle CPython runs its destructor together with the finalizers, in any order,
and a finalizer that runs later, or that brings the objects back, would use memory that is gone. So what has a
destructor is kept out of the collector's sight, here, and let go when the plain pointer that objects hold in its place
is really freed: plain pointers are not tracked by the collector.
"""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING, TypeVar

from _pmem2 import ffi, lib

if TYPE_CHECKING:
    from _pmem2 import Pointer

P = TypeVar("P", bound="Pointer")

# by the id of the weak reference, which is in the value, so that no other gets that id
owned: dict[int, tuple[object, ...]] = {}


def tied(pointer: P, *owners: object) -> P:
    """Return *pointer*, and keep *owners* for exactly as long as it lives."""
    reference = weakref.ref(pointer, release)
    owned[id(reference)] = (*owners, reference)
    return pointer


def release(reference: weakref.ref[P]) -> None:
    """Let go of what was tied to a pointer that is gone."""
    owned.pop(id(reference), None)


def allocated(pointer: P) -> P:
    """Return what C has allocated.

    Raises:
        MemoryError: It is NULL.
    """
    if pointer == ffi.NULL:
        raise MemoryError
    return pointer


# when the interpreter takes its modules apart, what is still in use must stay; the system takes it back
atexit.register(lib.guarded_leave)
