# SPDX-License-Identifier: BSD-3-Clause
"""Resource, the base class of what can be closed, and the ownership of C allocations: when destructors may run.

`ffi.gc` alone runs too early on CPython. In a garbage cycle its destructor runs together with the finalizers, in any
order; a finalizer that runs later, or that resurrects the objects, would use freed memory. So on CPython `_keepalive`
hides the owner of a destructor from the collector, and drops it when the plain pointer that objects hold instead is
freed: the collector does not track plain pointers. PyPy runs finalizers in order.
"""

from __future__ import annotations

import functools
import gc
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Callable, NoReturn, TypeVar

from pmem2._ffi import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from pmem2._ffi import Pin, Pointer

    P = TypeVar("P", bound=Pointer)
    R = TypeVar("R", bound="Resource")

CPYTHON = sys.implementation.name == "cpython"
GC_PASSES = 1 if CPYTHON else 3  # PyPy frees what a finalizer held in the round after

# by the id of the weak reference, which is in the value, so that no other gets that id
_keepalive: dict[int, tuple[object, ...]] = {}
lib.guarded_immortalize(
    id(_keepalive)
)  # while the interpreter takes its modules apart, what is in it may still be in use


def keep_alive(pointer: P, *owners: object) -> P:
    """Return *pointer*, and keep *owners* for exactly as long as it lives."""
    reference = weakref.ref(pointer, _forget)
    _keepalive[id(reference)] = (*owners, reference)
    return pointer


def _forget(reference: weakref.ref[P], _keepalive: dict[int, tuple[object, ...]] = _keepalive) -> None:
    """Let go of what was tied to a pointer that is gone, which may be after this module."""
    _keepalive.pop(id(reference), None)


def own(pointer: P, destructor: Callable[[P], None]) -> P:
    """Return what C has allocated, for which C's *destructor* is called when nothing can reach it any more.

    Raises:
        MemoryError: *pointer* is NULL.
    """
    if not pointer:
        raise MemoryError  # pragma: no cover: malloc does not fail on demand
    owner = ffi.gc(pointer, destructor)
    return keep_alive(ffi.cast(ffi.typeof(pointer), pointer), owner) if CPYTHON else owner


def pinned_pointer(pointer: P, pin: Pin, owner: object) -> P:
    """Return the address of a view, which keeps its *owner* alive, and its *pin* until nothing can reach it."""
    return keep_alive(pointer, pin, owner) if CPYTHON else ffi.gc(pointer, functools.partial(unpin, pin, owner))


def unpin(pin: Pin, _owner: object, _pointer: Pointer) -> None:
    """Let go of a pin; the arguments keep alive what must live until then."""
    lib.guarded_unpin(pin)  # pragma: no cover: PyPy


def gc_collect() -> None:
    """Find what is dead but not yet gone: garbage cycles, and on PyPy whatever was dropped."""
    try:
        for _ in range(GC_PASSES):
            gc.collect()
    except ValueError:  # pragma: no cover: PyPy cannot, inside a finalizer
        pass


class Resource:
    """A resource of libpmem2: closed explicitly, by `with`, or at the latest when it is collected."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        """Whether `close()` has succeeded."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the resource back; a closed one is left alone."""
        raise NotImplementedError

    def _check_uninitialized(self) -> None:
        """Refuse a second `__init__`: views and operations are inside what the first has made."""
        if hasattr(self, "_handle"):
            raise ValueError(f"{self!r} is made already; make another {type(self).__name__}")

    def __enter__(self) -> Self:
        """Return the object itself.

        Raises:
            ValueError: It is closed.
        """
        if self.closed:
            raise ValueError(f"{self!r} cannot be entered: it is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it, whether or not the block failed."""
        self.close()

    def __del__(self) -> None:
        """Warn of an object that nobody closed; `ffi.gc` on its C handle gives the resource back."""
        try:
            forgotten = not self.closed
        except AttributeError:  # __init__ has raised before there was a handle
            return
        if forgotten:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: Always: the other process must open the file itself.
        """
        kind = type(self).__name__
        raise TypeError(f"a {kind} cannot be pickled or copied; pass the path and open it again over there")


def drop_attrs_init(kind: type[R]) -> type[R]:
    """Take away what attrs adds to set all fields, at any time and unchecked: what they hold is in use."""
    del kind.__attrs_init__  # type: ignore[attr-defined] # attrs' plugin for mypy does not know of it
    return kind
