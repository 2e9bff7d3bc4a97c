# SPDX-License-Identifier: BSD-3-Clause
"""Interrupts at random moments: a signal handler raises, as Ctrl-C does."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Callable

from support.public_calls import CALLS, World

import pmem2
from safety.harness.process import ON_PYPY, describe, find_new_file, is_inside_package, take_ignored

Act = Callable[[], object]
SHORTEST = 25e-6  # seconds: a system call to set the timer takes some
LONG = 200e-6  # seconds: calls that take longer get fewer rounds, so that they do not take most of the time
FEW = 20  # rounds that each call gets
SOON = 50e-6
LATEST = 2.0
# the caller's view keeps the map open as long as a frame of the traceback holds it
OWN_VIEWS = ("Map.persist of a view", "Map.persist of a stepped view", "Map.persist of an array")


class Interrupt(KeyboardInterrupt):
    """The exception of the signal handler; a kind that programs do not handle."""


class Timer:
    """Raises Interrupts at random moments, the second one soon after the first."""

    def __init__(self, rng: random.Random) -> None:
        """Install the signal handler."""
        self.rng = rng
        self.left = 0
        self.end = 0.0
        self.total = 0
        self.raised: list[Interrupt] = []
        self.errors: list[BaseException] = []
        signal.signal(signal.SIGALRM, self._interrupt)

    def start(self, times: int, longest: float) -> None:
        """Raise the first Interrupt within *longest* seconds."""
        self.left = times
        self.end = time.monotonic() + LATEST
        signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-6, longest))

    def repeat(self, act: Act) -> None:
        """Repeat *act* until all of them were raised: one that `__del__` raises does not come out.

        PyPy forgets a signal now and then. This is a function of its own, because in CPython 3.13 an Interrupt leaves a
        loop and its `try` at once.
        """
        while self.left and time.monotonic() < self.end:
            act()

    def wait(self) -> None:
        """Wait until all of them were raised, or CPython 3.12 has forgotten a signal that came in the handler."""
        while self.left and time.monotonic() < self.end:
            pass
        self.left = 0

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.left:
            return
        self.raised.append(Interrupt())
        self.total += 1
        self.left -= 1
        if self.left:
            signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-6, SOON))
        raise self.raised[-1]  # in a variable of this frame, the exception would be in a garbage cycle


timers: list[Timer] = []


def total() -> int:
    """Return how many interrupts there were."""
    return sum(timer.total for timer in timers)


def timer_of(rng: random.Random) -> Timer:
    """Return the timer of this process, which has only one."""
    if not timers:
        timers.append(Timer(rng))
    return timers[0]


def repeat_until_interrupted(timer: Timer, times: int, longest: float, act: Act) -> None:
    """Repeat *act* until Interrupts end it; keep the one that ended it and the one that came out, if any."""
    try:
        try:
            try:
                timer.start(times, longest)
                timer.repeat(act)
            except BaseException as error:
                timer.errors.append(error)  # a list of this frame would make a garbage cycle
                raise
            finally:
                timer.wait()
        finally:
            timer.wait()  # for the second one, where the first one has ended the wait above
    except BaseException as error:
        timer.errors.append(error)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it interrupted."""
    while error is not None:
        yield error
        error = error.__context__


def has_left_handler(error: Interrupt) -> bool:
    """Return whether an Interrupt came into Python code.

    A second one may come in the signal handler, which it ends before the first one is raised, or while the interpreter
    reports the first one in `__del__`.
    """
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


def check_errors(timer: Timer) -> list[str]:
    """Describe the exceptions that were lost or hidden."""
    errors = timer.errors
    allowed, problems = take_ignored()
    if not (allowed or problems) and {*map(id, errors)} == {*map(id, timer.raised)}:
        return []
    seen = {id(link) for error in (*errors, *allowed) for link in chain(error)}
    # What `__del__` has raised keeps an object, and with it the place of the next map. In PyPy, a second Interrupt can
    # replace the one that `__del__` has raised, or one that leaves a function.
    is_kept = allowed or (ON_PYPY and any(id(error) not in seen for error in timer.raised))
    accepted = (Interrupt, pmem2.MapExistsError, pmem2.MappingExistsError) if is_kept else Interrupt
    distinct = {id(error): error for error in errors}.values()
    # CPython 3.9 makes a SystemError of a second Interrupt in `os.stat`.
    others = [error for error in distinct if not isinstance(error.__cause__ or error, accepted)]
    problems += [f"{describe(error)} came out" for error in others]
    raised = timer.raised[-1:] if ON_PYPY else timer.raised
    lost = [error for error in raised if id(error) not in seen and has_left_handler(error)]
    return problems + ["an Interrupt was lost"] * len(lost)


def longest_delay(act: Act) -> float:
    """Return how long after its start *act* is interrupted at the latest, in seconds."""
    durations = []
    for _ in range(3):  # a busy machine makes some too long
        start = time.perf_counter()
        act()
        durations.append(time.perf_counter() - start)
    return max(SHORTEST, 2 * min(durations))


def rounds_of(rounds: int, name: str, longest: float) -> int:
    """Return how many of *rounds* a call gets."""
    if name.startswith("Map.from_existing"):  # each takes one of the process's 1,024 pthread keys
        return min(rounds, FEW)
    return min(rounds, max(FEW, int(rounds * LONG / longest)))


def interrupt(
    world: World,
    name: str,
    rounds: int,
    rng: random.Random,
    *,
    times: int = 1,
    act: Act | None = None,
    inspect: Callable[[list[BaseException]], list[str]] = lambda _errors: [],
) -> list[str]:
    """Interrupt a call many times; describe what is wrong."""
    timer = timer_of(rng)
    call = CALLS[name]
    longest = longest_delay(lambda: call(world))
    problems: Counter[str] = Counter()
    rounds = rounds_of(rounds, name, longest)
    for _ in range(rounds):
        repeat_until_interrupted(timer, times, longest, act or (lambda: call(world)))
        found = check_errors(timer) + inspect(timer.errors)
        inside = any(map(is_inside_package, timer.errors))
        timer.raised, timer.errors = [], []  # their frames keep objects
        problems.update(found + find_new_file(world, inside=inside))
    return [f"{count} of {rounds} times: {text}" for text, count in problems.items()]


def interrupt_calls(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Interrupt a call once each time."""
    return interrupt(world, name, rounds, rng)


def interrupt_twice(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Interrupt a call, and what follows the interrupt."""
    return interrupt(world, name, rounds, rng, times=2)


def interrupt_cycles(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Interrupt a call, and keep the exception with its frames until the collector finds it."""

    def put_in_cycle(errors: list[BaseException]) -> list[str]:
        errors.append(KeyboardInterrupt(errors))
        return []

    return interrupt(world, name, rounds, rng, inspect=put_in_cycle)


def interrupt_blocks(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Interrupt a call in a `with` block that closes the map."""
    if name in OWN_VIEWS:
        return []
    own, timer = world.map, timer_of(rng)

    def run_block() -> None:
        with pmem2.open(world.path) as map:
            world.map = map
            timer.repeat(lambda: CALLS[name](world))

    def check_closed(_errors: list[BaseException]) -> list[str]:
        map, world.map = world.map, own
        return [] if map is own or map.closed else ["the `with` block left its map open"]

    return interrupt(world, name, rounds, rng, act=run_block, inspect=check_closed)
