#!/usr/bin/env python
# SPDX-License-Identifier: BSD-3-Clause
"""Search for programs of arguments.py that reach new code of pmem2, with atheris (libFuzzer for Python).

    fuzz/guided.py --seconds 60                                   fuzz for a minute; new programs go to .cache/atheris
    fuzz/guided.py FOUND fuzz/corpus -runs=50000                  one run of libFuzzer; new programs go to FOUND
    fuzz/guided.py FEW FOUND -set_cover_merge=1 -use_counters=0   copy the fewest that reach the same code to FEW

All other options are libFuzzer's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # few interpreters have it

FUZZ = Path(__file__).resolve().parent
FOUND = FUZZ.parent / ".cache" / "atheris"


def fuzz_for(seconds: float) -> None:
    """Run libFuzzer again and again: in one long run, libpmem2's own leaks would add up."""
    FOUND.mkdir(parents=True, exist_ok=True)
    options = ["-runs=50000", "-max_len=64", "-timeout=60", f"-artifact_prefix={FOUND}-"]
    command = [sys.executable, "-W", "ignore::ResourceWarning", __file__, str(FOUND), str(FUZZ / "corpus"), *options]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(done.stdout.decode(errors="replace"))
        print(f"{len(list(FOUND.iterdir()))} programs reach different code; no crash", flush=True)


def fuzz() -> None:
    """Run libFuzzer once, with the options of the command line."""
    with atheris.instrument_imports(include=["pmem2"]):
        import arguments

    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, arguments.runner(Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seconds"]:
        fuzz_for(float(sys.argv[2]))
    else:
        fuzz()
