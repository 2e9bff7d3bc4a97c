# SPDX-License-Identifier: BSD-3-Clause
"""Runs every Python block of the documentation, in order, page by page: `pytest docs`."""

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

START_FOLDER = os.getcwd()


def installed(name: str) -> bool:
    """Return whether an optional module is installed."""
    return importlib.util.find_spec(name) is not None


def setup(namespace: dict[str, Any]) -> None:
    """Change to an empty folder for the page."""
    namespace["folder"] = folder = tempfile.TemporaryDirectory()
    namespace["installed"] = installed
    os.chdir(folder.name)


def teardown(namespace: dict[str, Any]) -> None:
    """Drop the objects of the page and remove its folder."""
    os.chdir(START_FOLDER)
    folder = namespace["folder"]
    namespace.clear()
    gc.collect()
    folder.cleanup()


sessions = PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)
sessions.codeblock_parser = CodeBlockParser("pycon", PythonEvaluator())

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), sessions, SkipParser()],
    patterns=["*.md"],
    # tests/explorer/test_tutorial.py runs crash-testing.md: its blocks are files and tests that fail on purpose
    excludes=["crash-testing.md", *([] if sys.platform == "win32" else ["windows.md"])],
    setup=setup,
    teardown=teardown,
).pytest()
