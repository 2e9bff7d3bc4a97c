# SPDX-License-Identifier: BSD-3-Clause
"""What the documentation lists, it lists completely. Its examples are run by `nox -s docs`."""

from __future__ import annotations

import ast
import operator
import re
from pathlib import Path

import pytest

import pmem2

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXECUTED = {"python", "pycon"}
CHECKED_OTHERWISE = {"console", "sh", "{toctree}", "{eval-rst}"}


def rows(page: str) -> list[list[str]]:
    """Return the rows of the tables of a page."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def test_every_function_of_libpmem2_is_in_the_table() -> None:
    """The table of functions has each that is declared, once."""
    text = "".join((ROOT / f"native/{name}.cdef.h").read_text(encoding="utf-8") for name in ("libpmem2", "posix"))
    declared = set(re.findall(r"\b(pmem2_\w+)\(", text)) - {"pmem2_err_to_errno"}
    listed = [row[0].strip("`") for row in rows("guide/functions.md")]
    assert declared <= set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.skipif(
    not list(Path("/usr/share/man/man3").glob("pmem2_*")), reason="libpmem2's man pages are not installed"
)
def test_every_man_page_is_in_the_table() -> None:
    """The table has each page that comes with libpmem2."""
    pages = {path.name.partition(".")[0] for path in Path("/usr/share/man/man3").glob("pmem2_*")}
    listed = {row[0].split("`")[1] for row in rows("guide/functions.md")}
    assert pages <= listed


def test_every_python_name_in_the_table_exists() -> None:
    """What stands beside a function can be had from pmem2."""
    names = {
        name
        for row in rows("guide/functions.md")
        if not row[1].startswith("none")
        for name in re.findall(r"`([A-Za-z]\w*(?:\.\w+)*)`", row[1])
    }
    assert len(names) > 40
    of_instances = {"Pmem2Error.strerror", "Pmem2Error.errno"}
    for name in names - of_instances:
        assert operator.attrgetter(name)(pmem2) is not None


def test_every_code_is_in_the_catalogue() -> None:
    """Each code has a row, with its class, when it comes and what to do, in the order of the codes."""
    table = [row for row in rows("guide/errors.md") if len(row) == 3]
    assert [row[0] for row in table] == [
        f"`{code.name}`, `{pmem2.errors.BY_CODE[code].__name__}`" for code in sorted(pmem2.ErrorCode, reverse=True)
    ]
    assert all(when and what for _, when, what in table)
    assert len(table) == 37


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_code_block_is_left_unchecked(page: Path) -> None:
    """Every block is Python, which is run, or a shell's, or for Sphinx, and says so."""
    fences = re.findall(r"^ *```(\S*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= EXECUTED | CHECKED_OTHERWISE
    assert set(fences[1::2]) <= {""}


def sessions() -> set[str]:
    """Return the names of the sessions of the noxfile."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {function.name.replace("_", "-") for function in functions if "nox.session" in decorators(function)}


def decorators(function: ast.FunctionDef) -> str:
    """Return the source text of the decorators of a function."""
    return " ".join(ast.unparse(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.stem)
def test_sessions_that_are_named_exist(page: Path) -> None:
    """Each `nox -s NAME` and `./run NAME` is one of the noxfile's."""
    named = re.findall(r"(?:nox -s|\./run) ([a-z]+(?:-[a-z]+)*)", page.read_text(encoding="utf-8"))
    assert set(named) <= sessions()


def test_workflows_run_existing_sessions() -> None:
    """The workflows read their sessions from the noxfile; the few that they name exist."""
    if not (ROOT / ".github").is_dir():
        pytest.skip("only a checkout has the workflows")
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "./run --list" in text
    named = re.findall(r'(?:"session": "|\./run )([a-z]+)', text)
    assert named
    assert set(named) <= sessions()


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a language."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


COMMANDS = {
    "pip install pmem2": "nox -s wheels does it in empty Debians, and then the next two",
    "python": "the session that follows it is run",
    "python -m pmem2 demo": "tests/cli/test_demo.py",
}


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.stem)
def test_shell_commands_are_run_somewhere(page: Path) -> None:
    """Each is a session, a benchmark, or one that is run elsewhere: here it would install things, or take long."""
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        command = line.partition(" #")[0].strip()
        if found := re.fullmatch(r"(?:\./run|nox -s) ([a-z]+(?:-[a-z]+)*)(?:-[\d.]+)?(?: .*)?", command):
            assert found[1] in sessions()
        elif found := re.fullmatch(r"python (benchmarks/\w+\.py)(?: .*)?", command):
            assert (ROOT / found[1]).exists()
        else:
            assert command in COMMANDS


def test_what_a_console_shows_is_checked() -> None:
    """There are two such blocks: the tests of the tutorial compare one, those on persistent memory the other."""
    shown = {page.name: len(found) for page in PAGES if (found := blocks(page, "console"))}
    assert shown == {"command-line.md": 1, "crash-testing.md": 1}
