#!/usr/bin/env python
# SPDX-License-Identifier: BSD-3-Clause
"""Look for programs of arguments.py that reach code of pmem2 which no other has, with atheris, which is libFuzzer.

    fuzz/guided.py FOUND fuzz/corpus -runs=50000                 what is new goes to FOUND
    fuzz/guided.py FEW FOUND -set_cover_merge=1 -use_counters=0  copy as few as reach the same code to FEW

Options are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # few interpreters have it

with atheris.instrument_imports(include=["pmem2"]):
    import arguments

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, arguments.runner(Path(folder)))
        atheris.Fuzz()
