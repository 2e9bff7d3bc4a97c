# SPDX-License-Identifier: BSD-3-Clause
"""Change single lines of pmem2, and count the changes that no test notices; `nox -s mutants`.

universalmutator proposes the mutations. The sample is 100 lines each of native/, pmem2/ and pmem2/testing/, with one
mutation a line. A hash orders them, so that an edit of one line changes nothing for the others. Each mutation runs, in
a copy of the checkout, the tests that tests/mutants.toml lists for its file. It is not counted if it does not compile,
or changes only comments, texts, annotations, code for other systems, or C code without effect on the machine code.

.cache/mutants keeps the results: another run repeats only the survivors. Delete the folder to start again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import hashlib
import io
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Optional

import tomllib
from universalmutator.mutator import mutants_regexp  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".cache" / "mutants"
TABLE = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))
SEED, COUNT, JOBS = 18, 100, 2
AREAS = {"native": "native/*.c", "core": "pmem2/*.py", "testing": "pmem2/testing/*.py"}
RULES = {".c": ["universal.rules", "c_like.rules", "c.rules"], ".py": ["universal.rules", "python.rules"]}
NOT_COUNTED = re.compile(
    r'pragma: no cover|== "win32"|TYPE_CHECKING|version_info|not CPYTHON|^\s*(@overload|@final|from|import) ?'
    r"|^\w+ = (Union|Optional|Callable|TypeVar|dict|list|tuple)\b"
)
WORDS = {"True", "False", "None", "not", "and", "or", "pass", "break", "continue", "if", "max", "min", "begin", "end"}
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
PYTEST += ["-o", "faulthandler_timeout=90", "-o", "faulthandler_exit_on_timeout=true"]


class Mutant(NamedTuple):
    """One line of one file, and what replaces it."""

    name: str
    file: str
    number: int
    old: str
    new: str

    def __str__(self) -> str:
        """Return the place and both texts."""
        return f"{self.name} {self.file}:{self.number}: {self.old.strip()}  ->  {self.new.strip()}"

    def texts(self) -> tuple[str, str]:
        """Return the text of the file before and after the change."""
        lines = (ROOT / self.file).read_text(encoding="utf-8").splitlines(keepends=True)
        return "".join(lines), "".join([*lines[: self.number - 1], self.new, *lines[self.number :]])

    def tests(self) -> list[str]:
        """Return the tests that the table lists for the file, without repetitions."""
        found = [tests for pattern, tests in TABLE["tests"].items() if fnmatch.fnmatch(self.file, pattern)]
        return list(dict.fromkeys(f"tests/{name}" for tests in found for name in tests))

    def is_equivalent(self) -> bool:
        """Whether the table lists the mutant as equivalent."""
        wanted = (self.file, self.old.strip(), self.new.strip())
        return any((entry["file"], entry["line"], entry["mutation"]) == wanted for entry in TABLE["equivalent"])


def digest(*parts: object) -> str:
    """Return a hash that depends on nothing else."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:8]


def skipped_lines(text: str) -> set[int]:
    """Return the lines of Python that are docstrings, belong to other systems, or are read by type checkers only."""
    lines = text.splitlines()
    skipped = {number for number, line in enumerate(lines, 1) if NOT_COUNTED.search(line)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(name.lineno for name in getattr(node, "decorator_list", []))])
            if first in skipped or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                body = getattr(node, "body", [node])  # not the `else` of an `if`
                skipped.update(range(first, (body[-1].end_lineno or 0) + 1))
    return skipped


def python_meaning(text: str) -> Optional[str]:
    """Return the code without texts and annotations; `None` if it does not compile."""
    try:
        compile(text, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return None
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            node.value = ""
        elif isinstance(node, ast.JoinedStr) and (" " in ast.unparse(node) or not node.values):
            node.values = []
        elif isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Tuple):
            node.type.elts.sort(key=ast.dump)
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "cast":
            node.args[0] = ast.Constant(0)
    return ast.dump(tree)


def is_proper(file: str, old: str, new: str) -> bool:
    """Whether a mutation is more than a new layout, an unknown name, or a jump where none can be reached."""
    before, after = (set(re.findall(r"[A-Za-z_]\w*", text)) for text in (old, new))
    unreachable = r" *(return|raise|break|continue)\b" + (r"| {0,4}\S| *[{}]" if file.endswith(".c") else "")
    jumps = "\n" in new.strip() and re.match(unreachable, old)
    return after <= before | WORDS and not jumps and "".join(new.split()) != "".join(old.split())


def mutants_by_line(pattern: str) -> list[list[Mutant]]:
    """Return the mutants of each line of an area, lines and mutants in the order of their hashes."""
    found: dict[str, list[Mutant]] = {}
    for path in sorted(path for path in ROOT.glob(pattern) if "windows" not in path.name):
        file, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        lines, occurrences, places = text.splitlines(keepends=True), Counter[str](), {}
        skipped = skipped_lines(text) if path.suffix == ".py" else set()
        for number, line in enumerate(map(str.strip, lines), 1):
            places[number] = digest(SEED, file, line, occurrences[line])
            occurrences[line] += 1
        with contextlib.redirect_stdout(io.StringIO()):
            proposed = mutants_regexp(lines, RULES[path.suffix], ignorePatterns=[], ignoreStringOnly=True)
        for number, new, *_ in proposed:
            place, old = places[number], lines[number - 1]
            if number not in skipped and is_proper(file, old, new):
                found.setdefault(place, []).append(Mutant(digest(place, new.strip()), file, number, old, new))
    return [sorted(mutants) for _, mutants in sorted(found.items())]


class Copy:
    """A copy of the checkout in which mutants are tried."""

    def __init__(self, folder: Path) -> None:
        """Copy the files, and compile the unchanged extension."""
        self.folder, self.extension = folder, folder / "_pmem2.abi3.so"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.so"))
        self.run("-c", "import build_pmem2; build_pmem2.ffibuilder.emit_c_code('_pmem2.c')").check_returncode()
        self.code = self.compile()
        assert self.code, "the unchanged extension does not compile"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with the package of this copy."""
        path = os.pathsep.join((str(self.folder), str(self.folder / "tests")))
        environment = {**os.environ, "PYTHONPATH": path}
        command = ["timeout", "--kill-after=5", "900", sys.executable, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def compile(self) -> Optional[bytes]:
        """Compile the extension; return the machine code, or `None` if it does not compile."""
        flags = ["-O1", "-w", "-fPIC", "-shared", "-Wl,--build-id=none", "-Inative"]
        flags += [f"-I{sysconfig.get_path('include')}", "_pmem2.c", "-o", self.extension.name, "-lpmem2"]
        done = subprocess.run(["cc", *flags], cwd=self.folder, capture_output=True, check=False)
        return self.extension.read_bytes() if done.returncode == 0 else None

    def test(self, tests: list[str]) -> tuple[str, str]:
        """Return whether the tests noticed, and the first that did; the first few files find most mutants."""
        for part in filter(None, (tests[:3], tests[3:])):
            done = self.run(*PYTEST, *part)
            assert "file or directory not found" not in done.stderr, done.stderr
            if done.returncode:
                failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
                return "killed", (failed or [f"exit code {done.returncode}"])[0]
        return "survived", ""

    def try_mutant(self, mutant: Mutant) -> tuple[str, str]:
        """Return "killed", "survived" or "not counted", and why."""
        before, after = mutant.texts()
        native = mutant.file.endswith(".c")
        if not native and python_meaning(after) in (None, python_meaning(before)):
            return "not counted", "does not compile, or the same meaning"
        (self.folder / mutant.file).write_text(after, encoding="utf-8")
        try:
            if native and self.compile() in (None, self.code):
                return "not counted", "does not compile, or the same machine code"
            return self.test(mutant.tests())
        finally:
            (self.folder / mutant.file).write_text(before, encoding="utf-8")
            for compiled in (self.folder / mutant.file).parent.glob(f"__pycache__/{Path(mutant.file).stem}.*"):
                compiled.unlink()  # its time stamp may be that of the next mutant
            if native:
                self.extension.unlink(missing_ok=True)
                self.extension.write_bytes(self.code or b"")


def result_of(mutant: Mutant, copies: queue.SimpleQueue[Copy], only: str) -> str:
    """Return the result of a mutant, from the cache if it is there; survivors are tried again."""
    path = RESULTS / f"{mutant.name}.json"
    known = json.loads(path.read_text(encoding="utf-8"))[0] if path.exists() and not only else ""
    if mutant.is_equivalent() or known in ("killed", "not counted"):
        return "equivalent" if mutant.is_equivalent() else str(known)
    copy = copies.get()
    try:
        result, why = copy.try_mutant(mutant)
    finally:
        copies.put(copy)
    path.write_text(json.dumps([result, why, str(mutant)]), encoding="utf-8")
    if result != "not counted":
        print(f"{result:9}{mutant}  [{why}]", flush=True)
    return result


def sampled(lines: list[list[Mutant]], copies: queue.SimpleQueue[Copy], only: str) -> Iterator[tuple[Mutant, str]]:
    """Yield the first mutant that counts, and its result, of the first lines that have one."""

    def first_counted(line: list[Mutant]) -> Optional[tuple[Mutant, str]]:
        wanted = (mutant for mutant in line if only in ("", mutant.name))
        results = ((mutant, result_of(mutant, copies, only)) for mutant in wanted)
        return next((found for found in results if found[1] != "not counted"), None)

    count = COUNT
    with ThreadPoolExecutor(JOBS) as pool:
        while lines and count:
            batch, lines = lines[:count], lines[count:]
            for counted in filter(None, pool.map(first_counted, batch)):
                count -= 1
                yield counted


def main() -> None:
    """Try the sample; exit with an error below 95 %."""
    parser = argparse.ArgumentParser(description="Count the mutations that no test notices.")
    parser.add_argument("--only", default="", metavar="ID", help="try one mutant again")
    parser.add_argument("--area", choices=AREAS, action="append", help="only this area")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the compiler, on mutants
    RESULTS.mkdir(parents=True, exist_ok=True)
    total, survivors = Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(JOBS):
            copies.put(Copy(Path(folder) / str(number)))
        if not options.only and not any(RESULTS.glob("*.json")):
            copy = copies.get()
            result, failed = copy.test(sorted({f"tests/{name}" for tests in TABLE["tests"].values() for name in tests}))
            if result == "killed":
                sys.exit(f"without a mutation, {failed} fails")
            copies.put(copy)
        for area in options.area or AREAS:
            results = Counter[str]()
            for mutant, result in sampled(mutants_by_line(AREAS[area]), copies, options.only):
                results[result] += 1
                survivors += [mutant] if result == "survived" else []
            print(area, dict(results), flush=True)
            total += results
    counted = total["killed"] + total["survived"]
    print(*survivors, f"killed {total['killed']} of {counted}: {total['killed'] / max(counted, 1):.1%}", sep="\n")
    sys.exit(20 * total["survived"] > counted)


if __name__ == "__main__":
    main()
