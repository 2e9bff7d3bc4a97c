# SPDX-License-Identifier: BSD-3-Clause
"""Every Python block of the documentation is run, in order, page by page: `pytest docs`."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from doctest import ELLIPSIS
from typing import Any

from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

here = os.getcwd()


def installed(name: str) -> bool:
    """Return whether a module that is too heavy to be required is here."""
    return importlib.util.find_spec(name) is not None


def setup(namespace: dict[str, Any]) -> None:
    """Give each page an empty folder to work in."""
    namespace["folder"] = folder = tempfile.TemporaryDirectory()
    namespace["installed"] = installed
    os.chdir(folder.name)


def teardown(namespace: dict[str, Any]) -> None:
    """Let go of what the page has left."""
    os.chdir(here)
    folder = namespace["folder"]
    namespace.clear()
    gc.collect()
    folder.cleanup()


sessions = PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)
sessions.codeblock_parser = CodeBlockParser("pycon", PythonEvaluator())

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), sessions, SkipParser()],
    patterns=["*.md"],
    # tests/test_crash_tutorial.py runs that page: its blocks are files, and tests that fail on purpose
    excludes=["crash-testing.md", *([] if sys.platform == "win32" else ["windows.md"])],
    setup=setup,
    teardown=teardown,
).pytest()
