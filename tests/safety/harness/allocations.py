# SPDX-License-Identifier: BSD-3-Clause
"""Failing allocations: the n-th allocation of a call fails, for each n."""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import os
import random
import sys
import warnings
from collections import Counter
from itertools import count
from typing import Callable

from support.public_calls import CALLS, World

from pmem2 import MapExistsError, MappingExistsError
from safety.harness.process import describe, find_new_file, is_inside_package, take_ignored

HAS_TESTCAPI = sys.implementation.name == "cpython" and importlib.util.find_spec("_testcapi") is not None
if HAS_TESTCAPI:
    from _testcapi import remove_mem_hooks, set_nomemory  # type: ignore[import-not-found]

Act = Callable[[], object]
MANY = 50  # problems of one call: it does not work any more


def fail_one(act: Act, number: int) -> tuple[BaseException | None, bool]:
    """Let one allocation in *act* fail; return its exception, and whether it made fewer allocations."""
    finished = False
    error = None
    set_nomemory(number, number + 1)
    try:
        act()
        finished = True
        for size in range(100, 200):
            bytearray(size)  # one of them fails if the failure was still to come
    except BaseException as caught:
        error = caught
    remove_mem_hooks()
    return (None, error is not None) if finished else (error, False)


def is_expected(error: BaseException) -> bool:
    """Return whether an exception reports the failure; CPython sometimes forgets to set the MemoryError."""
    return type(error) is MemoryError or (type(error) is SystemError and "without" in str(error))


class Probe:
    """An object that warns when it is dropped, as those of pmem2 do."""

    def __del__(self) -> None:
        """Warn."""
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)


def use_probe() -> list[object]:
    """Do without pmem2 what kills some CPythons, or leaks in them, when an allocation fails."""
    probe = Probe()
    os.stat(os.curdir)
    try:
        raise ValueError([probe])
    except ValueError:
        return [(number, probe) for number in (1, 2)]


def leaked_probes() -> int:
    """Return how many objects leak when each allocation fails in turn."""
    gc.disable()
    for number in count(1):
        if fail_one(use_probe, number)[1]:
            break
    take_ignored()
    gc.collect()
    return sum(type(member) is Probe for member in gc.get_objects())


def can_run() -> bool:
    """Return whether allocations can fail, and whether the interpreter itself neither dies nor leaks then."""
    if not HAS_TESTCAPI:
        return False
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        os._exit(min(leaked_probes(), 1))
    return os.waitpid(pid, 0)[1] == 0


def fail_each(world: World, act: Act, prepare: Act = lambda: None) -> list[str]:
    """Let each allocation in *act* fail in turn; describe what is wrong."""
    problems: Counter[str] = Counter()
    for number in count(1):
        prepare()
        error, unused = fail_one(act, number)
        allowed, lost = take_ignored()
        is_kept = bool(allowed)
        del allowed
        problems.update(lost)
        # What `__del__` has raised keeps an object, and with it the place of the next map.
        is_occupied = is_kept and isinstance(error, (MapExistsError, MappingExistsError))
        if error is not None and not is_expected(error) and not is_occupied:
            problems[f"{describe(error)} instead of a MemoryError"] += 1
        inside = error is not None and is_inside_package(error)
        error = None  # its frames keep objects
        problems.update(find_new_file(world, inside=inside))
        if unused or sum(problems.values()) > MANY:
            break
    return [f"{times} of {number} times: {text}" for text, times in problems.items()]


def fail_allocations(world: World, name: str, _rounds: int, _rng: random.Random) -> list[str]:
    """Let each allocation in a call fail, and each one while its result is dropped."""
    results: list[object] = []
    gc.disable()  # the collector allocates at any moment
    try:
        problems = fail_each(world, lambda: CALLS[name](world))
        return problems + fail_each(world, results.clear, lambda: results.append(CALLS[name](world)))
    finally:
        gc.enable()
