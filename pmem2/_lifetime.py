# SPDX-License-Identifier: BSD-3-Clause
"""When C may take back what Python uses: not before nothing can reach it any more.

`ffi.gc` alone is too early on CPython. In a garbage cycle its destructor runs together with the finalizers, in any
order, and a finalizer that runs later, or that brings the objects back, would use memory that is gone. So there what
has a destructor is kept out of the collector's sight, here, and let go when the plain pointer that objects hold in its
place is really freed: plain pointers are not tracked by the collector. PyPy runs finalizers in order.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from typing import TYPE_CHECKING, Callable, TypeVar

from _pmem2 import ffi, lib

if TYPE_CHECKING:
    from _pmem2 import Pin, Pointer

    P = TypeVar("P", bound=Pointer)

CPYTHON = sys.implementation.name == "cpython"
ROUNDS = 1 if CPYTHON else 3  # PyPy frees what a finalizer held in the round after

# by the id of the weak reference, which is in the value, so that no other gets that id
owned: dict[int, tuple[object, ...]] = {}
lib.guarded_keep(id(owned))  # while the interpreter takes its modules apart, what is in it may still be in use


def tied(pointer: P, *owners: object) -> P:
    """Return *pointer*, and keep *owners* for exactly as long as it lives."""
    reference = weakref.ref(pointer, release)
    owned[id(reference)] = (*owners, reference)
    return pointer


def release(reference: weakref.ref[P], owned: dict[int, tuple[object, ...]] = owned) -> None:
    """Let go of what was tied to a pointer that is gone, which may be after this module."""
    owned.pop(id(reference), None)


def finalized(pointer: P, destructor: Callable[[P], None]) -> P:
    """Return what C has allocated, for which C's *destructor* is called when nothing can reach it any more.

    Raises:
        MemoryError: *pointer* is NULL.
    """
    if not pointer:
        raise MemoryError  # pragma: no cover: malloc does not fail on demand
    owner = ffi.gc(pointer, destructor)
    return tied(ffi.cast(ffi.typeof(pointer), pointer), owner) if CPYTHON else owner


def pinned(pointer: P, pin: Pin, owner: object) -> P:
    """Return the address of a view, which keeps its *owner* alive, and its *pin* until nothing can reach it."""
    return tied(pointer, pin, owner) if CPYTHON else ffi.gc(pointer, functools.partial(unpin, pin, owner))


def unpin(pin: Pin, _owner: object, _pointer: Pointer) -> None:
    """Let go of a pin; the arguments keep alive what must live until then."""
    lib.guarded_unpin(pin)  # pragma: no cover: PyPy


def collect() -> None:
    """Find what is dead but not yet gone: garbage cycles, and on PyPy whatever was dropped."""
    try:
        for _ in range(ROUNDS):
            gc.collect()
    except ValueError:  # pragma: no cover: PyPy cannot, inside a finalizer
        pass
