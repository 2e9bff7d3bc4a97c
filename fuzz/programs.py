# SPDX-License-Identifier: BSD-3-Clause
"""Programs of operations, thought of by Hypothesis, each run in a child process, which must neither die nor hang.

A child that a signal ends is a failing example like any other, and shrinks: the report is the shortest program that
ends it.

    python fuzz/programs.py --seconds 120       as long as that, each round with another seed
    python fuzz/programs.py --examples 20       one round of so many programs, always the same ones
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import random
import shutil
import signal
import struct
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Callable

import world
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from pmem2 import Granularity

STEPS = 50  # operations of one program
LIMIT = 600  # seconds that one program may take, on a machine that is busy with others too
PAGE = world.PAGE
SIZE = world.FILE_SIZE

which = st.integers(0, 30)
near = st.sampled_from(
    [0, 1, 7, 8, 16, 63, 64, 65, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, SIZE - 8, SIZE - 1, SIZE, SIZE + 1]
)
far = st.sampled_from([2**31, 2**32, 2**47, 2**63 - 1, 2**63, 2**64 - PAGE, 2**64 - 1, 2**64, 2**70, -1, -8, -(2**63)])
wrong: st.SearchStrategy[Any] = st.sampled_from([True, 1.5, "1", None, b"", (), 1j, -(2**70)])
often = st.one_of(near, near, near, st.integers(0, SIZE))
number: st.SearchStrategy[Any] = st.one_of(often, often, often, often, far, wrong)
pages: st.SearchStrategy[Any] = st.one_of(
    *[st.integers(0, 8).map(lambda n: n * PAGE)] * 5, st.sampled_from([2 << 20, 4 << 20, 1 << 30]), number
)
length: st.SearchStrategy[Any] = st.one_of(st.none(), number)
index = st.one_of(st.integers(-SIZE - 2, SIZE + 2), st.none(), near)
key: st.SearchStrategy[Any] = st.one_of(
    near, st.builds(slice, index, index, st.one_of(st.none(), st.integers(-5, 70).filter(bool))), number
)
small = st.binary(max_size=70)
data: st.SearchStrategy[Any] = st.one_of(small, small, small.map(bytearray), st.sampled_from([b"x" * 5000, "text", 5]))
flags = st.one_of(st.just(0), st.integers(-1, 66))
granularity: st.SearchStrategy[Any] = st.one_of(st.sampled_from(list(Granularity)), st.integers(-1, 4), wrong)
copies = st.sampled_from(["memcpy", "memmove"])
pairs = st.lists(st.tuples(number, number), max_size=5)
good_pairs = st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), max_size=20)
fields = st.fixed_dictionaries(
    {},
    optional={
        "required_granularity": st.one_of(st.just(Granularity.PAGE), granularity),
        "offset": pages,
        "length": st.one_of(st.none(), pages),
        "sharing": st.integers(0, 2),
        "protection": st.one_of(st.none(), st.sampled_from([1, 2, 3, 3, 3, 7, 0, 4, 8])),
        "reservation_offset": st.one_of(st.just(0), pages),
    },
)

# the name of each operation, and what its arguments are chosen from
OPERATIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "source_from_path": {"which": which, "writable": st.booleans()},
    "source_from_fd": {"which": which, "mode": st.sampled_from(["rb", "r+b", "ab"]), "number": number},
    # what a map of it touches is to fit the machine
    "source_from_anon": {"size": st.one_of(often, st.sampled_from([2 << 20, 2**63, 2**64, -1, True]))},
    "look_at_source": {"which": which},
    "read_source": {"which": which, "size": number, "offset": number, "into": st.integers(0, 99)},
    "read_source_into_view": {"which": which, "view": which, "offset": number},
    "write_source": {"which": which, "data": small, "offset": number},
    "write_source_from_view": {"which": which, "view": which, "offset": number},
    "bad_blocks": {"which": which},
    "use_bad_blocks": {"which": which, "offset": often, "length": often},
    "make_config": {"fields": fields},
    "place_config": {"which": which, "reservation": which, "page": st.integers(0, 8), "pages": st.integers(0, 4)},
    "use_config": {"which": which, "other": which, "fields": fields},
    "map_source": {"which": which, "config": which},
    "map_open": {
        "which": which,
        "mode": st.sampled_from(["r", "r+", "w+", "x+", "c", "rb", None]),
        "size": st.one_of(st.none(), often, number),
        "config": which,
    },
    "map_existing": {"which": which, "buffer": which, "granularity": granularity},
    "look_at_map": {"which": which},
    "make_again": {"which": which, "source": which, "config": which},
    "view_map": {"which": which, "offset": number, "length": length},
    "slice_view": {"which": which, "start": often, "stop": often, "step": st.integers(-3, 3)},
    "cast_view": {"which": which, "code": st.sampled_from(["Q", "I", "d", "c", "?"])},
    "store_in_view": {"which": which, "value": which},
    "end_view": {"which": which, "release": st.booleans()},
    "as_array": {
        "which": which,
        "dtype": st.sampled_from(["u1", "<u8", "f8", "S3", "O", "V0", "i4,f8"]),
        "shape": st.one_of(st.none(), number, st.tuples(often, often), st.tuples()),
        "offset": number,
    },
    "end_array": {"which": which},
    "read_map": {"which": which, "key": key},
    "write_map": {"which": which, "key": key, "value": st.one_of(st.integers(-1, 256), data)},
    "make_durable": {
        "which": which,
        "how": st.sampled_from(["persist", "flush", "deep_flush"]),
        "offset": number,
        "length": length,
    },
    "many_ranges": {
        "which": which,
        "how": st.sampled_from(["persist_many", "flush_many"]),
        "pairs": good_pairs,
        "packed": st.booleans(),
    },
    "copy": {"which": which, "how": copies, "offset": number, "data": data, "flags": flags},
    "copy_map": {"which": which, "other": which, "how": copies, "offset": number},
    "copy_view": {"which": which, "view": which, "how": copies, "offset": number},
    "copy_pieces": {"which": which, "pieces": st.lists(st.tuples(number, data), max_size=4), "view": which},
    "fill": {"which": which, "offset": number, "value": st.integers(-1, 256), "length": number, "flags": flags},
    "atomics": {
        "which": which,
        "offset": st.one_of(often.map(lambda n: n & ~7), number),
        "one": number,
        "two": number,
        "persist": st.booleans(),
    },
    "reserve": {"size": pages, "address": st.one_of(st.none(), pages, st.integers(1, 99).map(lambda n: n << 36))},
    "resize": {"which": which, "grow": st.booleans(), "offset": pages, "size": pages},
    "search": {"which": which, "map": which, "offset": number, "length": number},
    "close": {"which": which, "with_statement": st.booleans()},
    "drop": {"which": which, "watch": st.booleans()},
    "follow": {"which": which},
    "collect": {},
    "pickle": {"which": which, "how": which},
}
if importlib.util.find_spec("numpy") is None:  # it is optional
    del OPERATIONS["as_array"], OPERATIONS["end_array"]


Step = tuple[str, dict[str, Any]]


def step_of(name: str) -> st.SearchStrategy[Step]:
    """Return a strategy for one operation and its arguments."""
    return st.tuples(st.just(name), st.fixed_dictionaries(OPERATIONS[name]))


class Totals:
    """What all programs together have done."""

    programs = done = refused = 0


def run_in_child(program: list[Step]) -> None:
    """Run a program in a child process.

    Raises:
        AssertionError: The child died, hung, or failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            os.close(reading)
            signal.alarm(LIMIT)
            counts = world.run(program, folder)
            os.write(writing, struct.pack("QQ", *counts))
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    _, ended = os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(ended):
        raise AssertionError(f"the child was ended by {signal.Signals(os.WTERMSIG(ended)).name}")
    if ended or len(said) != 16:
        raise AssertionError(f"the child failed ({ended}): {said.decode(errors='replace')}")
    done, refused = struct.unpack("QQ", said)
    Totals.programs += 1
    Totals.done += done
    Totals.refused += refused


class Programs(RuleBasedStateMachine):
    """Writes a program down, rule by rule, and runs it at the end."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.program: list[Step] = []

    @rule(writable=st.booleans(), config=which, reserved=st.booleans())
    def mapped(self, writable: bool, config: int, reserved: bool) -> None:
        """Make a map, without which most operations have nothing to do."""
        self.program.append(("source_from_path", {"which": config, "writable": writable}))
        if reserved:
            self.program.append(("reserve", {"size": 8 * PAGE, "address": None}))
            place = {"which": 0, "reservation": 0, "page": config % 8, "pages": 1 + config % 3}
            self.program.append(("place_config", place))
        self.program.append(("map_source", {"which": -1, "config": -1 if reserved else 0}))

    @rule(stay=st.booleans())
    def fork(self, stay: bool) -> None:
        """Fork."""
        self.program.append(("fork", {"stay": stay}))

    @rule(programs=st.lists(st.lists(st.sampled_from(sorted(OPERATIONS)).flatmap(step_of), max_size=4), max_size=4))
    def together(self, programs: list[list[Step]]) -> None:
        """Do operations in threads."""
        self.program.append(("together", {"programs": programs}))

    def teardown(self) -> None:
        """Run it."""
        if self.program:
            run_in_child(self.program)


def writer(name: str) -> Callable[..., None]:
    """Return the rule that writes an operation down."""

    def write(self: Programs, **arguments: Any) -> None:
        self.program.append((name, arguments))

    write.__name__ = name
    return write


for name, strategies in OPERATIONS.items():
    as_rule: Callable[[Callable[..., None]], Callable[..., None]] = rule(**strategies)  # type: ignore[call-overload]
    setattr(Programs, name, as_rule(writer(name)))


def fuzz(examples: int, seed: int) -> None:
    """Run so many programs.

    Raises:
        AssertionError: One of them fails; the shortest such one is in the notes.
    """
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    random.seed(seed)
    run_state_machine_as_test(seeded(seed)(type("Programs", (Programs,), {})), settings=chosen)


def main() -> None:
    """Run as many programs as the arguments say, and tell what they did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0, help="go on, round after round, for as long as that")
    parser.add_argument("--examples", type=int, default=50, help="programs of a round")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    asked = parser.parse_args()
    begin = time.monotonic()
    seed: int = asked.seed
    while True:
        fuzz(asked.examples, seed)
        seed += 1
        took = time.monotonic() - begin
        if took >= asked.seconds:
            break
    print(
        f"{platform.python_implementation()} {platform.python_version()}: {took:.0f} s, {Totals.programs} programs, "
        f"{Totals.done} operations done, {Totals.refused} refused as documented, no crash"
    )


if __name__ == "__main__":
    main()
