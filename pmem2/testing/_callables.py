# SPDX-License-Identifier: BSD-3-Clause
"""The functions that a test passes to the explorer: where they are defined, and whether they take their arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from copy import deepcopy
from types import CodeType
from typing import TYPE_CHECKING, Any, Callable

from pmem2.testing._locations import SourceLocation

if TYPE_CHECKING:
    from pmem2._map import Map


def check_callable(function: Callable[..., object], name: str, parameters: Sequence[str]) -> None:
    """Check that a function can be called with so many arguments.

    Raises:
        TypeError: It cannot.
    """
    wanted = f"{name} must be callable with ({', '.join(parameters)})"
    if not callable(function):
        raise TypeError(f"{wanted}, not {type(function).__name__}")
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # a built-in function without a signature
        return
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise TypeError(f"{wanted}: {error}") from None


def adapt_check(check: Callable[..., object], acknowledged: list[object] | None) -> Callable[[Map, int], object]:
    """Return a function that calls *check* with a map, and for a generator with the values yielded so far."""

    @functools.wraps(check)
    def plain(map: Map, _count: int) -> object:
        return check(map)

    @functools.wraps(check)
    def with_acknowledged(map: Map, count: int) -> object:
        assert acknowledged is not None
        return check(map, deepcopy(acknowledged[:count]))

    return plain if acknowledged is None else with_acknowledged


def definition_of(function: Callable[..., object]) -> SourceLocation:
    """Return where a function is defined, also for partials, methods, classes and objects with `__call__`."""
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
    kind, method = (function, "__init__") if isinstance(function, type) else (type(function), "__call__")
    candidates: list[Any] = [function, getattr(kind, method, None)]
    for candidate in candidates:
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return SourceLocation(code.co_filename, code.co_firstlineno, code.co_name)
    module = getattr(function, "__module__", None) or type(function).__module__
    return SourceLocation(f"<{module}>", 0, str(getattr(function, "__qualname__", type(function).__qualname__)))
