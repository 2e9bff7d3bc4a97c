# SPDX-License-Identifier: BSD-3-Clause
"""The package: its main use case, a lazy import, exported names and the version."""

from __future__ import annotations

import json
from pathlib import Path
from types import FunctionType, ModuleType
from typing import cast, get_type_hints

import attrs
import pytest
from support.children import run_interpreter

import pmem2
import pmem2.testing


@pytest.mark.medium
def test_persisted_data_is_in_file(tmp_path: Path, granularity: pmem2.Granularity) -> None:
    """Persisted data is readable through another map and from the file."""
    path = tmp_path / "data"
    with pmem2.open(path, "w+", size=4096) as m:
        m.memcpy(0, b"hello")
        m[8:13] = b"world"
        m.persist(8, 5)
        assert m.granularity is granularity
    with pmem2.open(path, "r") as m:
        assert m[0:13] == b"hello\0\0\0world"
    assert path.read_bytes()[:13] == b"hello\0\0\0world"


def test_import_is_lazy() -> None:
    """Importing pmem2 does not import modules that only some users need."""
    child = run_interpreter("""
        import json, sys
        import attrs, _cffi_backend
        before = set(sys.modules)
        import pmem2
        print(json.dumps(sorted(set(sys.modules) - before)))
    """)
    assert child.returncode == 0, child.stderr
    new = cast("list[str]", json.loads(child.stdout))
    assert "pmem2._map" in new
    assert not {"pathlib", "numpy", "ctypes", "subprocess", "tempfile", "threading"} & set(new)


def test_exports() -> None:
    """`__all__` of pmem2 and pmem2.testing lists exactly these names in sorted order, and all of them exist."""
    names = [
        "BadBlock",
        "BadBlockContext",
        "Config",
        "DaxDevice",
        "ErrorCode",
        "Granularity",
        "Map",
        "MemFlag",
        "Pmem2Error",
        "Protection",
        "Sharing",
        "Source",
        "VMReservation",
        "__version__",
        "acquire",
        "dax_devices",
        "open",
        "publish",
    ]
    assert pmem2.__all__ == sorted([*names, *(error.__name__ for error in pmem2.Pmem2Error.__subclasses__())])
    explorer = ["CrashConsistencyError", "Explorer", "Finding", "LostStore", "Report", "explore", "explore_model"]
    assert pmem2.testing.__all__ == explorer
    for module in (pmem2, pmem2.testing):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", [pmem2, pmem2.testing], ids=lambda module: module.__name__)
def test_public_names_say_so(module: ModuleType) -> None:
    """The `__module__` of each public class and function is the module that users import it from."""
    exported = [getattr(module, name) for name in module.__all__]
    defined = {item.__module__ for item in exported if isinstance(item, (type, FunctionType))}
    assert defined - {"pmem2.errors"} <= {module.__name__}


@pytest.mark.parametrize("record", [pmem2.BadBlock, pmem2.Config, pmem2.DaxDevice])
def test_records_have_type_hints(record: type) -> None:
    """Libraries that read annotations find the types of the fields."""
    assert set(get_type_hints(record)) == {field.name for field in attrs.fields(record)}


def test_version() -> None:
    """The version consists of numbers and dots."""
    assert all(part.isdecimal() for part in pmem2.__version__.split("."))
