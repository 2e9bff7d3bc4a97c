# SPDX-License-Identifier: BSD-3-Clause
"""What a disturbed call may leave behind in this process: nothing."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from support.public_calls import World

import pmem2

ON_PYPY = sys.implementation.name == "pypy"
GC_PASSES = 4 if ON_PYPY else 2  # PyPy needs more passes for objects kept alive by finalizers
GIB = 1 << 30
PACKAGE = str(Path(pmem2.__file__).parent)
ADDRESS_RE = re.compile(r"\b(at )?0x[0-9a-fA-F]+")

ignored: list[sys.UnraisableHookArgs] = []
"""The exceptions that the interpreter has ignored."""


def keep_ignored_exceptions() -> None:
    """Collect the exceptions that the interpreter ignores.

    The hook is no Python function: that would fail at the recursion limit, and a signal would interrupt it.
    """
    sys.unraisablehook = ignored.append


def take_ignored() -> tuple[list[BaseException], list[str]]:
    """Return the exceptions that `__del__` has raised, where Python always ignores them, and describe all others."""
    allowed: list[BaseException] = []
    problems = []
    while ignored:
        args = ignored.pop()
        where = ADDRESS_RE.sub("", f"{args.err_msg or ''} {args.object or ''}").strip()
        if ("__del__" in where or not where) and args.exc_value is not None:  # none: a second exception came there
            allowed.append(args.exc_value)
        else:
            problems.append(f"{args.exc_type.__name__} was ignored: {where}")
    return allowed, problems


def collect_garbage() -> None:
    """Collect garbage until none is left."""
    for _ in range(GC_PASSES):
        gc.collect()


def find_new_file(world: World, *, inside: bool) -> list[str]:
    """Remove the file that a call creates; describe it if an exception *inside* of pmem2 ended that call.

    The file goes together with the exception, whose frames keep what owns it.
    """
    if not os.path.exists(world.new):
        return []
    if not inside or world.created:
        world.remove_new()
        return []
    collect_garbage()
    left = os.path.exists(world.new)
    world.remove_new()
    return ["it left the file that it was making"] if left else []


def is_inside_package(error: BaseException) -> bool:
    """Return whether an exception was raised while a function of pmem2 ran."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
            return True
        trace = trace.tb_next
    return False


def describe(error: BaseException) -> str:
    """Return an exception as text, without the addresses that differ each time."""
    return ADDRESS_RE.sub("", repr(error))


class Usage(NamedTuple):
    """What this process uses."""

    descriptors: Counter[str]
    mappings: Counter[str]
    files: Counter[str]
    addresses: int


def measure_usage(folder: Path) -> Usage:
    """Return the present usage; the calls keep their files in *folder*."""
    descriptors: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            descriptors[os.readlink(f"/proc/self/fd/{number}")] += 1
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mappings = Counter(line.split(maxsplit=5)[5] for line in lines if str(folder) in line)
    extents = ([int(bound, 16) for bound in line.split(maxsplit=1)[0].split("-")] for line in lines)
    addresses = sum(high - low for low, high in extents if high - low < 1 << 46)  # a sanitizer maps terabytes
    return Usage(descriptors, mappings, Counter(os.listdir(folder)), addresses)


def find_leaks(before: Usage, after: Usage, padding: int) -> list[str]:
    """Describe what a process uses more than before, without *padding* bytes of addresses."""
    new = {name: dict(last - first) for name, first, last in zip(Usage._fields[:3], before[:3], after[:3])}
    problems = [f"left {name}: {left}" for name, left in new.items() if left]
    grown = after.addresses - before.addresses - padding
    return [*problems, f"left {grown} bytes mapped"] if grown > GIB // 2 else problems
