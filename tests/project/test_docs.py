# SPDX-License-Identifier: BSD-3-Clause
"""The documentation: its tables are complete, its names exist, its blocks are executed. `nox -s docs` executes them."""

from __future__ import annotations

import ast
import codeop
import operator
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pmem2
import pmem2.testing

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALL_PAGES = [*PAGES, *sorted(ROOT.glob("*.md")), ROOT / "examples/README.md", ROOT / "tools/release/README.md"]
EXECUTED = {"python", "pycon"}
NOT_EXECUTED = {"console", "sh", "{container}", "{toctree}", "{eval-rst}"}
FOLDERS = "benchmarks|docs|examples|fuzz|native|pmem2|stubs|tests|tools"


def read(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    """Return the table rows of a page whose first cell is code."""
    lines = read(ROOT / "docs" / page).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", read(page), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


# ---- tables


def test_all_functions_are_listed() -> None:
    """The table of functions lists each declared function once."""
    text = "".join(read(ROOT / f"native/{name}.cdef.h") for name in ("libpmem2", "posix"))
    declared = set(re.findall(r"\b(pmem2_\w+)\(", text)) - {"pmem2_err_to_errno"}
    listed = [row[0].strip("`") for row in rows("guide/functions.md")]
    assert declared <= set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.skipif(
    not list(Path("/usr/share/man/man3").glob("pmem2_*")), reason="libpmem2's man pages are not installed"
)
def test_all_man_pages_are_listed() -> None:
    """The table of functions lists each man page of libpmem2."""
    pages = {path.name.partition(".")[0] for path in Path("/usr/share/man/man3").glob("pmem2_*")}
    listed = {row[0].split("`")[1] for row in rows("guide/functions.md")}
    assert pages <= listed


def test_listed_python_names_exist() -> None:
    """Each Python name in the table of functions is an attribute of pmem2."""
    names = {
        name
        for row in rows("guide/functions.md")
        if not row[1].startswith("none")
        for name in re.findall(r"`([A-Za-z]\w*(?:\.\w+)*)`", row[1])
    }
    assert len(names) > 40
    instance_attributes = {"Pmem2Error.strerror", "Pmem2Error.errno"}
    for name in names - instance_attributes:
        assert operator.attrgetter(name)(pmem2) is not None


def test_all_error_codes_are_listed() -> None:
    """The table of errors lists each code in order, with its class, cause and fix."""
    table = [row for row in rows("guide/errors.md") if len(row) == 3]
    assert [row[0] for row in table] == [
        f"`{code.name}`, `{pmem2.errors.BY_CODE[code].__name__}`" for code in sorted(pmem2.ErrorCode, reverse=True)
    ]
    assert all(cause and fix for _, cause, fix in table)
    assert len(table) == 37


# ---- names of files and sessions


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_mentioned_files_exist(page: Path) -> None:
    """Each file and folder that a page names in backticks exists."""
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)", read(page)):
        assert (ROOT / name).exists(), name


def test_tests_of_faults_exist() -> None:
    """Each row of the table of faults names a test file."""
    names = re.findall(r"^\|.* `(\w+/test_\w+\.py)` \|$", read(ROOT / "docs/faults.md"), re.MULTILINE)
    assert len(names) > 15
    for name in names:
        assert (ROOT / "tests" / name).exists(), name


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """Each relative link leads to an existing file."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[\w-]+)?\)", read(page)):
        assert (page.parent / target).exists(), target


NOXFILE = ast.parse(read(ROOT / "noxfile.py"))


def sessions() -> set[str]:
    """Return the names of the sessions in the noxfile."""
    names: set[str] = set()
    for function in (node for node in NOXFILE.body if isinstance(node, ast.FunctionDef)):
        for decorator in function.decorator_list:
            if "nox.session" in ast.unparse(decorator):
                keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
                given = [ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == "name"]
                names.update(given or [function.name])
    return names


def default_sessions() -> set[str]:
    """Return the sessions that every change must pass."""
    (value,) = (
        node.value
        for node in NOXFILE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "nox.options.sessions"
    )
    return set(ast.literal_eval(value))


def without_python(session: str) -> str:
    """Remove the interpreter from the name of a session: `tests` for `tests-3.14`."""
    return re.sub(r"-(pypy)?3(\.\d+)+t?$", "", session)


def mentioned_sessions(text: str) -> set[str]:
    """Return the sessions in commands such as `nox -s NAME` and `./run NAME`."""
    return {without_python(name) for name in re.findall(r"(?:nox -s|\./run) ([a-z][\w.-]*\w)", text)}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_mentioned_sessions_exist(page: Path) -> None:
    """Each `nox -s NAME` and `./run NAME` of a page is a session."""
    assert mentioned_sessions(read(page)) <= sessions()


def test_workflow_sessions_exist() -> None:
    """The workflows of GitHub run sessions that exist."""
    if not (ROOT / ".github").is_dir():
        pytest.skip("only a checkout has the workflows")
    text = "".join(read(path) for path in sorted((ROOT / ".github/workflows").glob("*.yml")))
    matrices = ", ".join(re.findall(r"session: \[(.*)\]", text)).split(", ")
    entries = re.findall(r"\{session: ([a-z][\w.-]*)", text)
    named = {without_python(name) for name in (*matrices, *entries) if name}
    named |= mentioned_sessions(text)
    assert "wheels" in named
    assert len(default_sessions()) > 5
    assert named | default_sessions() <= sessions()


# ---- code blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_blocks_name_their_language(page: Path) -> None:
    """Each block names a language: Python is executed, others are tested below or belong to Sphinx."""
    fences = re.findall(r"^ *```(\S*)", read(page), re.MULTILINE)
    assert set(fences[::2]) <= EXECUTED | NOT_EXECUTED
    assert set(fences[1::2]) <= {""}


def test_recipe_for_pools(tmp_path: Path) -> None:
    """The recipe for pools of processes works as a program."""
    (block,) = (block for block in blocks(ROOT / "docs/guide/recipes.md", "python") if "ProcessPoolExecutor" in block)
    (tmp_path / "program.py").write_text(block, encoding="utf-8")
    (tmp_path / "data").write_bytes(bytes(range(256)) * 16)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{16 * sum(range(256))}\n", "")


COMMANDS = {
    "apt install gcc libpmem2-dev pkg-config python3-dev python3-venv": "tools/debian.sh installs them",
    "python3 -m venv .venv": "the next two use it",
    ".venv/bin/pip install .": "nox installs pmem2 in the same way",
    ".venv/bin/pmem2 demo": "tests/cli/test_demo.py",
    "pip install ./pmem2-*-abi3-*.whl": "nox -s wheels does it in empty Debians",
    "git clone --branch 2.1.3 --depth 1 https://github.com/daos-stack/pmdk": "by hand: docs/verification.md",
    "make -C pmdk install prefix=$HOME/pmdk-2.1.3 DOC=n BUILD_EXAMPLES=n BUILD_BENCHMARKS=n": "the same",
    "export PKG_CONFIG_PATH=$HOME/pmdk-2.1.3/lib/pkgconfig LD_LIBRARY_PATH=$HOME/pmdk-2.1.3/lib": "the same",
    "mkdir data": "tests/cli/test_info_places.py, and then the next two",
    "chattr +C data": "the same",
    "pmem2 info data": "the same",
}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_shell_commands_are_tested(page: Path) -> None:
    """Each shell command is a session or a benchmark, or another test runs it."""
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        command = line.partition(" #")[0].strip()
        if re.match(r"(\./run|nox -s) ", command):
            assert mentioned_sessions(command) <= sessions()
            assert mentioned_sessions(command)
        elif found := re.fullmatch(r"python (benchmarks/\w+\.py)(?: .*)?", command):
            assert (ROOT / found[1]).exists()
        else:
            assert command in COMMANDS


def test_console_blocks_are_tested() -> None:
    """Two pages have a console block, which explorer/test_tutorial.py and hardware/test_cli.py compare."""
    shown = {page.name: len(found) for page in PAGES if (found := blocks(page, "console"))}
    assert shown == {"command-line.md": 1, "crash-testing.md": 1}


def typed_lines(session: str) -> list[str]:
    """Return what a reader of a session types: the lines with a prompt, without it."""
    return re.findall(r"^ *(?:>>>|\.\.\.)(?:$| (.*))", session, re.MULTILINE)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_sessions_can_be_pasted(page: Path) -> None:
    """Each session can be pasted into Python: before 3.13, a blank line must end each `def` and `with`."""
    for session in (block for language in EXECUTED for block in blocks(page, language) if ">>>" in block):
        statement: list[str] = []
        for line in typed_lines(session):
            statement.append(line)
            if codeop.compile_command("\n".join(statement)):
                statement.clear()
        assert not statement


def test_packages_of_distributions() -> None:
    """The installation page lists the packages that a build without libpmem2 names."""
    (hint,) = re.findall(r'INSTALL_HINT = """.*\n([^"]*)"""', read(ROOT / "build_pmem2.py"))
    page = read(ROOT / "docs/install.md").replace("`", "")
    for line in hint.splitlines():
        distribution, command = re.split("  +", line.strip())
        assert f"| {distribution} | {command} |" in page


def test_reference_lists_public_names() -> None:
    """The reference documents every public name of pmem2, its exceptions included."""
    page = read(ROOT / "docs/guide/reference.md")
    assert ".. automodule:: pmem2.errors" in page
    documented = set(re.findall(r"^\.\. auto\w+:: pmem2\.(?:testing\.)?(\w+)$", page, re.MULTILINE))
    documented |= {error.__name__ for error in pmem2.errors.BY_CODE.values()}
    assert {*pmem2.__all__, *pmem2.testing.__all__} - {"__version__"} <= documented
