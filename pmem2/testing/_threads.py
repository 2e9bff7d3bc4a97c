# SPDX-License-Identifier: BSD-3-Clause
"""Refuses threads: while a workload or a recovery runs in a thread, that thread cannot start others.

`Thread.start` is replaced for as long as any thread explores: a trace function that looks for its calls would slow down
every call of a recovery many times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, TypeVar

T = TypeVar("T")
Refuse = Callable[[], Exception]
"""Returns the error to raise, and remembers it: the function may swallow it."""

LOCK = threading.Lock()
start: Callable[[threading.Thread], None] = threading.Thread.start  # type: ignore[misc] # its arguments are Any
refusals: dict[int, Refuse] = {}  # by the thread that runs a workload or a recovery
explorations = 0  # how many are running


def start_or_refuse(thread: threading.Thread) -> None:
    """Start a thread, unless a workload or a recovery does.

    Raises:
        RuntimeError: It does.
    """
    refuse = refusals.get(threading.get_ident())
    if refuse is not None:
        raise refuse()
    start(thread)


@contextmanager
def replaced_thread_start() -> Iterator[None]:
    """Replace `Thread.start` during an exploration."""
    global explorations, start
    with LOCK:
        if not explorations:
            start = threading.Thread.start  # type: ignore[misc]
            threading.Thread.start = start_or_refuse  # type: ignore[assignment,method-assign,misc]
        explorations += 1
    try:
        yield
    finally:
        with LOCK:
            explorations -= 1
            if not explorations:
                threading.Thread.start = start  # type: ignore[assignment,method-assign,misc]


def run_without_threads(function: Callable[[], T], refuse: Refuse) -> T:
    """Call *function*; raise what *refuse* returns where it starts a thread."""
    thread = threading.get_ident()
    outer = refusals.get(thread)
    refusals[thread] = refuse
    try:
        return function()
    finally:
        if outer is None:
            del refusals[thread]
        else:
            refusals[thread] = outer
