# SPDX-License-Identifier: BSD-3-Clause
"""The stubs declare the names and types of the compiled module.

stubtest compares only names. These tests compare the number and the types of arguments, through `ffi.typeof`.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pmem2 import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pmem2 import CType

ROOT = Path(__file__).parents[2]
PLATFORM = "windows" if sys.platform == "win32" else "posix"

NAMES = {
    "void": "None",
    "void *": "Pointer",
    "int *": "IntPointer",
    "size_t *": "SizePointer",
    "uint64_t *": "Uint64Pointer",
    "uintptr_t *": "UintptrPointer",
    "char *": "CharPointer",
    "wchar_t *": "WcharPointer",
    "struct pmem2_source *": "RawSource",
    "struct pmem2_config *": "RawConfig",
    "struct pmem2_map *": "RawMap",
    "struct pmem2_vm_reservation *": "RawReservation",
    "struct pmem2_badblock_context *": "RawBadBlockContext",
    "struct pmem2_badblock *": "RawBadBlock",
    "struct guarded_source *": "SourceHandle",
    "struct guarded_reservation *": "ReservationHandle",
    "struct guarded_map *": "MapHandle",
    "struct map_request *": "MapRequest",
    "struct guarded_pin *": "Pin",
    "struct guarded_piece *": "Pieces",
    "struct guarded_badblocks *": "BadBlocksHandle",
    "void(*)(void *, size_t)": "FlushFunction",
    "void(*)()": "DrainFunction",
    "void *(*)(void *, void *, size_t, unsigned int)": "CopyFunction",
    "void *(*)(void *, int, size_t, unsigned int)": "SetFunction",
    "void(*)(char *, ...)": "PrintFunction",
    "void(*)(wchar_t *, ...)": "WidePrintFunction",
}

# functions for asynchronous copies: libpmem2 before 2.0 exports them, pmem2 does not bind them
ASYNCHRONOUS = {"pmem2_config_set_vdm", "pmem2_memcpy_async", "pmem2_memmove_async", "pmem2_memset_async"}


def declarations(platform: str) -> Iterator[ast.FunctionDef | ast.AnnAssign]:
    """Yield the declarations of lib.pyi for *platform*."""
    for node in ast.parse((ROOT / "stubs/_pmem2/lib.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AnnAssign)):
            yield node
        elif isinstance(node, ast.If):
            assert ast.unparse(node.test) == "sys.platform == 'win32'"
            for inner in node.body if platform == "windows" else node.orelse:
                assert isinstance(inner, (ast.FunctionDef, ast.AnnAssign))
                yield inner


def name_of(node: ast.FunctionDef | ast.AnnAssign) -> str:
    """Return the declared name."""
    return node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node.target)


STUB = {name_of(node): node for node in declarations(PLATFORM)}
FUNCTIONS = [node for node in STUB.values() if isinstance(node, ast.FunctionDef)]
VARIABLES = [node for node in STUB.values() if isinstance(node, ast.AnnAssign)]


def stub_type(annotation: ast.expr | None) -> str:
    """Return the first type of an annotation: C types do not say whether NULL or bytes are accepted too."""
    assert annotation is not None
    return ast.unparse(annotation).split(" | ")[0]


def c_type(kind: CType) -> str:
    """Return the stub's name for a C type."""
    if kind.kind in ("primitive", "enum"):
        return "int"
    if kind.cname.endswith("* *"):
        return f"Out[{NAMES[kind.cname[:-2]]}]"
    return NAMES[kind.cname]


def test_stub_declares_exactly_lib() -> None:
    """The stub declares every name of `lib`, and no other."""
    assert set(STUB) == {name for name in dir(lib) if not name.startswith("__")}


@pytest.mark.parametrize("platform", ["posix", "windows"])
def test_stub_order(platform: str) -> None:
    """The stub and the cdef files declare names in the same order."""
    files = ("libpmem2", platform, "guards")
    text = "\n".join((ROOT / f"native/{name}.cdef.h").read_text(encoding="utf-8") for name in files)
    matches = [re.search(rf"\b{name_of(node)}\b", text) for node in declarations(platform)]
    positions = [match.start() for match in matches if match is not None]
    assert len(positions) == len(matches)
    assert positions == sorted(positions)


@pytest.mark.parametrize("node", FUNCTIONS, ids=name_of)
def test_function_signature(node: ast.FunctionDef) -> None:
    """The stub of a function has the argument and return types of C, and its parameters are positional-only."""
    kind = ffi.typeof(getattr(lib, node.name))
    assert kind.kind == "function"
    assert [stub_type(argument.annotation) for argument in node.args.posonlyargs] == [c_type(a) for a in kind.args]
    assert stub_type(node.returns) == c_type(kind.result)
    assert not kind.ellipsis
    assert not node.args.args
    assert node.args.vararg is None


@pytest.mark.parametrize("node", VARIABLES, ids=name_of)
def test_variable_type(node: ast.AnnAssign) -> None:
    """A constant is an int; a function with variable arguments is a function pointer."""
    value = getattr(lib, name_of(node))
    name = "int" if isinstance(value, int) else NAMES[ffi.typeof(value).cname]
    assert ast.unparse(node.annotation) == f"Final[{name}]"


def test_every_exported_function_declared() -> None:
    """The stub declares all 49 functions that libpmem2 exports."""
    maps = Path("/proc/self/maps")
    if shutil.which("nm") is None or not maps.exists():
        pytest.skip("needs nm, and /proc/self/maps to find libpmem2")
    (library,) = set(re.findall(r"\S*/libpmem2\.so\S*", maps.read_text(encoding="utf-8")))
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    exported = set(re.findall(r"\bpmem2_\w+", symbols)) - ASYNCHRONOUS
    assert {name for name in STUB if name.startswith("pmem2_")} == exported
    assert len(exported) == 49


def ffi_types() -> list[str]:
    """Return the C types in the `Literal` annotations of the stub of `ffi`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "stubs/_pmem2/__init__.pyi").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            found |= {text.value for text in ast.walk(node) if isinstance(text, ast.Constant)}
    return sorted(text for text in found if isinstance(text, str))


@pytest.mark.parametrize("name", ffi_types())
def test_stub_literals_are_types(name: str) -> None:
    """Every string literal in the overloads of `ffi` names a C type."""
    ffi.typeof(name)
