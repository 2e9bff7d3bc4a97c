# SPDX-License-Identifier: BSD-3-Clause
"""Interpreters that end, and modules that are forgotten, while objects are open."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.values import FREE_THREADED, ON_PYPY

if TYPE_CHECKING:
    from support.children import RunChild

OPEN = """
import pmem2, sys
path = sys.argv[1]
source = pmem2.Source.from_path(path)
reservation = pmem2.VMReservation(32 << 20)
map = source.map(pmem2.Config(reservation=reservation))
other = source.map()
existing = pmem2.Map.from_existing(source, bytearray(4096), 2)
context = source.bad_blocks()
view = map.view()
part = view[1:5]
class Last:
    def __del__(self):
        self.view[0] = 1
        self.map.persist(0, 1)
last = Last()
last.view, last.map = other.view(), other
cycle = [map, view, source]
cycle.append(cycle)
"""
LAST_STATEMENTS = ["", "raise SystemExit(0)", "del source", "del map, reservation", "import threading; part.release()"]


@pytest.mark.parametrize("last", LAST_STATEMENTS)
def test_exit_with_open_objects(run_child: RunChild, file: Path, last: str) -> None:
    """An interpreter that ends with open objects ends well and prints nothing."""
    child = run_child(OPEN + last, str(file), PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


def test_exit_warns_of_open_objects(run_child: RunChild, file: Path) -> None:
    """An interpreter that ends with open objects warns of them and prints no traceback."""
    child = run_child(OPEN, str(file), PYTHONWARNINGS="always::ResourceWarning")
    assert child.returncode == 0
    assert "Traceback" not in child.stderr
    assert "unclosed <pmem2.Map" in child.stderr or ON_PYPY  # PyPy finalizes nothing at exit


INTERPRETERS = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters
    create = lambda: _interpreters.create("legacy")
elif sys.version_info >= (3, 12):
    import _xxsubinterpreters as _interpreters
    create = lambda: _interpreters.create(isolated=False)
else:
    import _xxsubinterpreters as _interpreters
    create = _interpreters.create
import pmem2
path, code = sys.argv[1:]
code = f"import sys; sys.argv = ['', {path!r}]; " + code
with pmem2.Source.from_anon(4096) as source, source.map() as map:
    view = map.view()
    for _ in range(3):
        inner = create()
        assert _interpreters.run_string(inner, code) is None
        _interpreters.destroy(inner)
        view[0] += 1
        map.persist_many([(0, 8)])
    del view
    print(map[0])
print(path in open("/proc/self/maps").read())
"""


@pytest.mark.skipif(ON_PYPY, reason="PyPy has one interpreter in a process")
@pytest.mark.skipif(FREE_THREADED, reason="cffi refuses subinterpreters there")
def test_subinterpreter_with_open_objects(run_child: RunChild, file: Path) -> None:
    """A subinterpreter that ends with open objects ends well, and the main interpreter works on."""
    code = "import warnings; warnings.simplefilter('ignore')" + OPEN
    child = run_child(INTERPRETERS, str(file), code)
    assert (child.returncode, child.stdout, child.stderr) == (0, "3\nFalse\n", "")


REFUSED = """
import sys, _interpreters
for kind in sys.argv[1:]:
    inner = _interpreters.create(kind)
    error = _interpreters.run_string(inner, "import pmem2")
    print(kind, error.type.__name__)
    _interpreters.destroy(inner)
"""


@pytest.mark.skipif(ON_PYPY or sys.version_info < (3, 13), reason="needs the module _interpreters")
def test_subinterpreters_are_refused(run_child: RunChild) -> None:
    """A subinterpreter with its own lock, or without one, raises ImportError."""
    kinds = ["isolated", "legacy"] if FREE_THREADED else ["isolated"]
    child = run_child(REFUSED, *kinds)
    assert (child.returncode, child.stdout, child.stderr) == (0, "".join(f"{kind} ImportError\n" for kind in kinds), "")


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded interpreter")
def test_import_leaves_lock_off(run_child: RunChild) -> None:
    """Importing pmem2 leaves the lock of a free-threaded interpreter off."""
    child = run_child("import sys, pmem2; print(sys._is_gil_enabled())", PYTHONWARNINGS="error")
    assert (child.returncode, child.stdout, child.stderr) == (0, "False\n", "")


FORGOTTEN = """
import gc, sys, typing
import pmem2
source = pmem2.Source.from_anon(4096)
view = source.map().view()
del source, pmem2
for name in [name for name in sys.modules if name.partition(".")[0] in ("pmem2", "_pmem2")]:
    del sys.modules[name]
for clear_cache in typing._cleanups:  # keeps some of the classes
    clear_cache()
for _ in range(3):
    gc.collect()
view[0] = 1
print(view[0])
"""


def test_view_outlives_the_modules(run_child: RunChild) -> None:
    """A view works after the modules of pmem2 were removed, as before a second import."""
    child = run_child(FORGOTTEN, PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout, child.stderr) == (0, "1\n", "")
