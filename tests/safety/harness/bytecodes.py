# SPDX-License-Identifier: BSD-3-Clause
"""An exception at each bytecode of a call: a random signal seldom comes between two certain ones."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from types import FrameType
from typing import Any, Callable

from support.public_calls import CALLS, World

from safety.harness.interrupts import OWN_VIEWS, Interrupt
from safety.harness.process import PACKAGE, describe, take_ignored

Act = Callable[[], object]
Trace = Callable[[FrameType, str, Any], Any]
# later versions and PyPy handle signals only at calls and jumps
CAN_RUN = sys.implementation.name == "cpython" and sys.version_info < (3, 11)


class Tracer:
    """Raises an Interrupt at the n-th bytecode of pmem2."""

    def __init__(self, number: int) -> None:
        """Raise at this bytecode."""
        self.left = number
        self.place = ""

    def enter(self, frame: FrameType, _event: str, _value: object) -> Trace | None:
        """Trace the bytecodes of a function of pmem2."""
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self.step

    def step(self, frame: FrameType, event: str, _value: object) -> Trace:
        """Raise the Interrupt, or wait for the next bytecode."""
        self.left -= event == "opcode"
        if not self.left:
            sys.settrace(None)
            self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
            raise Interrupt
        return self.step


def interrupt_at(number: int, act: Act) -> tuple[str, BaseException | None]:
    """Raise an Interrupt at a bytecode of *act*; return where that was, and what came out."""
    tracer = Tracer(number)
    before = sys.gettrace()
    sys.settrace(tracer.enter)
    try:
        act()
    except BaseException as error:
        return tracer.place, error
    finally:
        sys.settrace(before)
    return tracer.place, None


def frames(error: BaseException | None) -> Iterator[FrameType]:
    """Yield the frames of the traceback of an exception."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def is_borrowed(value: object) -> bool:
    """Return whether a value is a buffer that cffi has borrowed; other objects may fail to describe themselves."""
    text = repr(value) if type(value).__module__ == "_cffi_backend" else ""
    return " buffer " in text and "RELEASED" not in text


def check(world: World, error: BaseException | None) -> list[str]:
    """Describe the problems that show while the exception still holds the frames of the call."""
    ignored, problems = take_ignored()
    if not ignored and not isinstance(error, Interrupt):
        problems.append(f"{error and describe(error)} instead of an Interrupt")
    for frame in frames(error):
        problems += [f"{name} is still borrowed" for name, value in frame.f_locals.items() if is_borrowed(value)]
    map, world.map = world.map, world.source.map()
    try:
        map.close()
    except BufferError as refusal:
        problems.append(describe(refusal))
    return problems


def interrupt_each(world: World, name: str, _rounds: int, _rng: random.Random) -> list[str]:
    """Raise an exception at each bytecode of a call in turn."""
    if name in OWN_VIEWS:
        return []
    problems: Counter[str] = Counter()
    for number in count(1):
        place, error = interrupt_at(number, lambda: CALLS[name](world))
        if not place:
            break
        problems.update(f"{place}: {problem}" for problem in check(world, error))
        error = None  # its frames keep objects
        world.remove_new()
    return [f"{times} times: {text}" for text, times in problems.items()]
