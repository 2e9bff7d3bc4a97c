# SPDX-License-Identifier: BSD-3-Clause
"""The program: it disturbs the calls one after the other, and prints what is wrong after each."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import random
import signal
import sysconfig
import tempfile
import time
import warnings
from pathlib import Path
from typing import Callable

from support.public_calls import CALLS, PAGE, World, refuse

from pmem2 import Source
from safety.harness import allocations, forks, interrupts, recursion, threads
from safety.harness.process import (
    ON_PYPY,
    collect_garbage,
    describe,
    find_leaks,
    keep_ignored_exceptions,
    measure_usage,
    take_ignored,
)

SKIPPED = 77  # exit status
Disturb = Callable[[World, str, int, random.Random], "list[str]"]

DISTURBANCES: dict[str, Disturb] = {
    "interrupts": interrupts.interrupt_calls,
    "blocks": interrupts.interrupt_blocks,
    "double-interrupts": interrupts.interrupt_twice,
    "cycles": interrupts.interrupt_cycles,
    "allocations": allocations.fail_allocations,
    "recursion": recursion.reach_limit,
    "forks": forks.fork_inside,
}
# calls that share a World: collecting garbage takes long where nothing is frozen
BATCH = 20 if ON_PYPY or sysconfig.get_config_var("Py_GIL_DISABLED") else 1


def sweep() -> None:
    """Collect garbage, and let `close` collect it: at the recursion limit, what was dropped may wait for that."""
    with Source.from_anon(PAGE) as source, source.map() as map, map.view():
        refuse(map.close)
    collect_garbage()


def disturb_batch(folder: Path, names: list[str], disturb: Disturb, rounds: int, rng: random.Random) -> list[str]:
    """Disturb some calls of one World, close it, and describe what is wrong."""
    before = measure_usage(folder)
    world = World(folder)
    problems = []
    for name in names:
        try:
            problems += [f"{name}: {problem}" for problem in disturb(world, name, rounds, rng)]
            CALLS[name](world)
        except Exception as error:
            problems.append(f"{name}: does not work any more: {describe(error)}")
    where = ", ".join(names)
    try:
        world.release()
    except Exception as error:
        problems.append(f"{where}: cannot be closed: {describe(error)}")
    collect_garbage()
    left, padding = take_ignored()[1] + world.find_borrowed(), world.padding
    del world
    sweep()
    left += find_leaks(before, measure_usage(folder), padding)
    return problems + [f"{where}: {problem}" for problem in left]


def disturb_all(
    folder: Path, names: list[str], disturb: Disturb, rounds: int, rng: random.Random, verbose: bool
) -> list[str]:
    """Disturb all calls, and return what is wrong."""
    disturb_batch(folder, names, lambda *_: [], rounds, rng)  # fills the caches of the interpreter
    problems = []
    for first in range(0, len(names), BATCH):
        batch = names[first : first + BATCH]
        if verbose:
            print("#", ", ".join(batch), flush=True)  # names the calls that kill the process
        found = disturb_batch(folder, batch, disturb, rounds, rng)
        if found and len(batch) > 1:  # name the call
            found += [text for name in batch for text in disturb_batch(folder, [name], disturb, rounds, rng)]
        for text in found:
            print(text, flush=True)
        problems += found
    return problems


def main(arguments: list[str]) -> int:
    """Run one harness; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m safety.harness", description=__doc__)
    parser.add_argument("disturbance", choices=[*DISTURBANCES, "threads"])
    parser.add_argument("--rounds", type=int, default=100, help="interrupts or forks of each call")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the threads run")
    parser.add_argument("--only", default="", help="disturb the calls whose name begins like this")
    parser.add_argument("--verbose", action="store_true", help="print the names of the calls")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    keep_ignored_exceptions()
    if not ON_PYPY:
        gc.collect()
        gc.freeze()
    if options.disturbance == "allocations" and not allocations.does_interpreter_survive():
        print("this CPython dies itself when one of its allocations fails")
        return SKIPPED
    seed = random.randrange(2**32) if options.seed is None else options.seed
    names = [name for name in CALLS if name.startswith(options.only)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        if options.disturbance == "threads":
            problems = threads.call_at_once(Path(name), names, options.seconds, seed)
        else:
            rng = random.Random(seed)
            disturb = DISTURBANCES[options.disturbance]
            problems = disturb_all(Path(name), names, disturb, options.rounds, rng, options.verbose)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for problem in problems if options.disturbance == "threads" else ():
        print(problem)
    print(
        f"{options.disturbance}: {len(names)} calls, {interrupts.total()} interrupts, seed {seed}, "
        f"{len(problems)} problems, {time.monotonic() - start:.0f} s"
    )
    return int(bool(problems))
