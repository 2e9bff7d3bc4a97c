# SPDX-License-Identifier: BSD-3-Clause
"""The modules of pmem2 import one way, and one of them imports the compiled module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pmem2
from pmem2._ffi import CFFI_TYPES

PACKAGE = Path(pmem2.__file__).parent
PUBLIC_CLASSES = {f"pmem2.{name}" for name in ("_config", "_map", "_reservation", "_source")}
"""The four public classes that the contract ties together: a Source makes a Map, which has a Config, which may have a
reservation, which finds the Map."""


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = ("pmem2", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def is_function(node: ast.AST) -> bool:
    """Return whether a node defines a function."""
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def is_type_checking_block(node: ast.AST) -> bool:
    """Return whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def named_modules(node: ast.AST) -> Iterator[str]:
    """Yield the modules that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0
        assert node.module is not None
        submodules = (f"{node.module}.{alias.name}" for alias in node.names)
        yield from (name if name in MODULES else node.module for name in submodules)


def all_imports(tree: ast.AST) -> set[str]:
    """Return the modules that a module imports anywhere, for type checkers and inside functions too."""
    return {name for node in ast.walk(tree) for name in named_modules(node)}


def import_time_imports(node: ast.AST) -> Iterator[str]:
    """Yield the modules that Python imports together with a module."""
    yield from named_modules(node)
    if not (is_function(node) or is_type_checking_block(node)):
        for child in ast.iter_child_nodes(node):
            yield from import_time_imports(child)


def typed_imports(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a type checker or Python imports together with a module."""
    yield from named_modules(node)
    if not is_function(node):
        for child in ast.iter_child_nodes(node):
            yield from typed_imports(child)


def importing_functions(node: ast.AST, path: str = "") -> Iterator[str]:
    """Yield the qualified names of the functions that import a module of pmem2."""
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", "")
        inner = f"{path}.{name}".lstrip(".") if is_function(child) or isinstance(child, ast.ClassDef) else path
        if is_function(child) and any(module.startswith("pmem2") for module in all_imports(child)):
            yield inner
        else:
            yield from importing_functions(child, inner)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return the modules that *start* imports, directly or through other modules."""
    found: set[str] = set()
    pending = list(graph[start])
    while pending:
        module = pending.pop()
        if module in graph and module not in found:
            found.add(module)
            pending += graph[module]
    return found


def test_ffi_alone_imports_c() -> None:
    """Only `pmem2._ffi` imports `_pmem2`, type checking and functions included."""
    importers = {
        module
        for module, tree in MODULES.items()
        if any(name.partition(".")[0] == "_pmem2" for name in all_imports(tree))
    }
    assert importers == {"pmem2._ffi"}


def test_imports_form_no_ring() -> None:
    """No module imports, directly or through others, a module that imports it."""
    TopologicalSorter({name: set(import_time_imports(tree)) for name, tree in MODULES.items()}).prepare()


def test_one_ring_for_types() -> None:
    """The modules of the four public classes import each other for type checkers, and no others do."""
    graph = {name: set(typed_imports(tree)) for name, tree in MODULES.items()}
    in_rings = {name for name in graph if name in reachable(graph, name)}
    assert in_rings == PUBLIC_CLASSES


def test_one_method_imports() -> None:
    """Only `Source.map` imports another module of pmem2 inside a function."""
    functions = [f"{module}.{name}" for module, tree in MODULES.items() for name in importing_functions(tree)]
    assert functions == ["pmem2._source.Source.map"]


def test_types_are_made_at_import() -> None:
    """One thread makes every C type that pmem2 names, at import: PyPy mixes up types that two threads make at once."""
    named = {
        call.args[0].value
        for tree in MODULES.values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args
        if isinstance(call.func.value, ast.Name) and call.func.value.id == "ffi"
        if isinstance(call.args[0], ast.Constant)
    }
    assert named == set(CFFI_TYPES)


def test_asserts_only_narrow_types() -> None:
    """No module needs an assert, which python -O removes: pytest keeps them even then."""
    asserts = [node for tree in MODULES.values() for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert {ast.unparse(node.test).split(" is not ")[-1] for node in asserts} == {"None"}
