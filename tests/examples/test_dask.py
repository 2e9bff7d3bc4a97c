# SPDX-License-Identifier: BSD-3-Clause
"""examples/dask_array.py, with the scheduler and the worker processes of dask."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from examples.importing import EXAMPLES

dask = pytest.importorskip("dask", reason="dask is not installed: the session coverage installs it")
pytest.importorskip("dask.array", reason="NumPy is not installed")
cloudpickle = pytest.importorskip("cloudpickle")

CHUNKS = 64
CHUNK = 1 << 30


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the example, under the name by which the workers import it."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import dask_array

    yield dask_array
    for map in dask_array.MAPS.values():
        map.close()
    for name in ("dask_array", "examples.dask_report"):
        sys.modules.pop(name, None)


def sparse_file(path: Path) -> str:
    """Create a sparse file of 64 GiB whose chunks begin with their numbers."""
    path.touch()
    os.truncate(path, CHUNKS * CHUNK)
    with path.open("r+b") as file:
        for number in range(CHUNKS):
            file.seek(number * CHUNK)
            file.write(number.to_bytes(8, sys.byteorder))
    return str(path)


def test_array_larger_than_memory(example: ModuleType, tmp_path: Path) -> None:
    """Each worker maps the file once, a task is under 1 KB, and the resident memory stays flat."""
    from examples.dask_report import report

    source = example.MappedArray(sparse_file(tmp_path / "large"), "u8", (CHUNKS * CHUNK // 8,))
    array = example.as_dask_array(source, CHUNK)
    assert array.nbytes == CHUNKS * CHUNK
    (optimized,) = dask.optimize(array.sum())
    assert max(len(cloudpickle.dumps(task)) for task in dict(optimized.__dask_graph__()).values()) < 1000
    reports = array.map_blocks(report, dtype="i8", new_axis=1, chunks=((1,) * CHUNKS, (4,)))
    processes, maps, memory, totals = reports.compute(scheduler="processes", num_workers=2).T
    assert os.getpid() not in processes
    assert set(maps) == {1}
    assert memory.max() - memory.min() < 16 << 20
    assert totals.tolist() == list(range(CHUNKS))


def test_command_line(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program prints the sum of every STEP-th item, or why it cannot."""
    path = tmp_path / "small"
    path.write_bytes(bytes(range(256)) * 16)
    assert example.main(["dask_array.py", str(path), "u1", "2"], "sync") == 0
    assert capsys.readouterr().out == f"sum of 2048 items, in 1 chunks: {16 * sum(range(0, 256, 2))}\n"
    assert example.main(["dask_array.py", str(path)], "sync") == 1
    assert "usage" in capsys.readouterr().err
    assert example.main(["dask_array.py", str(tmp_path / "missing"), "u1"], "sync") == 1
    assert "No such file" in capsys.readouterr().err
