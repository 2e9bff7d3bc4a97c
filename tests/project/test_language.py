# SPDX-License-Identifier: BSD-3-Clause
"""The rules of plain language that a program can check.

The tests are parametrized by file: `pytest tests/project/test_language.py -k native` checks the files of `native/`.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".pyi", ".c", ".h", ".md", ".toml", ".sh"}
MAX_WORDS = 5

BANNED = (
    *("anew", "for ever", "kin", "lent", "meanwhile", "mend", "mended", "mends", "nobody", "of what", "of which"),
    *("tells", "told", "whoever"),
)
ALLOWED: dict[str, str] = {"tests/project/test_language.py": "lists the words"}
"""Files that may use the words, each with the reason."""

GAP = r"(?:\s|#|//|\*)+"  # a phrase may continue on the next line of a comment
WORDS_RE = re.compile(
    r"(?<![a-z])(?:{})(?![a-z])".format("|".join(word.replace(" ", GAP) for word in BANNED)), re.IGNORECASE
)
# a clause without a noun; a question may begin like this
WHAT_IS_RE = re.compile(r"(?:^\s*|[#.!?;|*\"'-]\s*)what is\b(?![^.\n]*\?)", re.IGNORECASE | re.MULTILINE)


def tracked_files() -> list[str]:
    """Return the text files of the project that Git tracks, none outside of a checkout."""
    try:
        done = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [name for name in done.stdout.splitlines() if Path(name).suffix in SUFFIXES and (ROOT / name).exists()]


FILES = tracked_files()
TEST_FILES = [name for name in FILES if re.fullmatch(r"tests/.*/test_\w+\.py", name)]


def functions(name: str) -> Iterator[ast.FunctionDef]:
    """Yield the test functions of a file."""
    for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


@pytest.mark.parametrize("name", FILES)
def test_plain_words(name: str) -> None:
    """No file uses a banned word, in code, comments or text."""
    if name in ALLOWED:
        return
    text = (ROOT / name).read_text(encoding="utf-8")
    matches = [match for pattern in (WORDS_RE, WHAT_IS_RE) for match in pattern.finditer(text)]
    assert [f"{name}:{text.count(chr(10), 0, match.end()) + 1}: {match[0].strip()}" for match in matches] == []


@pytest.mark.parametrize("name", TEST_FILES)
def test_names_are_short(name: str) -> None:
    """A test's name has at most five words after `test_`."""
    assert [test.name for test in functions(name) if len(test.name.split("_")) - 1 > MAX_WORDS] == []


@pytest.mark.parametrize("name", TEST_FILES)
def test_docstrings_are_one_sentence(name: str) -> None:
    """A test's docstring is one line that ends in a period."""
    docstrings = {test.name: ast.get_docstring(test) or "" for test in functions(name)}
    assert [test for test, text in docstrings.items() if "\n" in text or not text.endswith(".")] == []
