# SPDX-License-Identifier: BSD-3-Clause
"""The release: the files of the source distribution, and the list of the libraries that a wheel bundles."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import types
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/release/bundle_libraries.py"
LIBRARY = "libpmem2-12345678.so.1.0.0"
# setuptools adds these itself
ADDED = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "_pmem2_cli.py", "_pmem2_pytestplugin.py"}


def is_added(name: str, rules: list[list[str]]) -> bool:
    """Return whether setuptools or a rule of MANIFEST.in puts a file into the source distribution."""
    if name in ADDED or (name.startswith("pmem2/") and name.endswith((".py", "py.typed"))):
        return True
    folder, _, rest = name.partition("/")
    for command, first, *patterns in rules:
        if command == "include" and name in (first, *patterns):
            return True
        if command == "recursive-include" and first == folder and any(fnmatch(rest, pattern) for pattern in patterns):
            return True
    return False


def test_manifest_names_every_file() -> None:
    """MANIFEST.in leaves out no file of the repository, so that the build of a release does not stop there."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs a checkout and git")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    rules = [line.split() for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()]
    assert not [name for name in listed.splitlines() if not name.startswith(".") and not is_added(name, rules)]


@pytest.fixture
def bundling() -> types.ModuleType:
    """The script that bundles the libraries, on a Debian that has libpmem2."""
    query = ["dpkg-query", "--search", f"*/{LIBRARY.replace('-12345678', '')}"]
    if not SCRIPT.exists() or not shutil.which("dpkg-query") or subprocess.run(query, capture_output=True).returncode:
        pytest.skip("needs the release tools, and a Debian with libpmem2 1.x")
    spec = importlib.util.spec_from_file_location("bundle_libraries", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_sbom(path: Path, *components: dict[str, str]) -> Path:
    """Write an SBOM in the form of auditwheel's."""
    sbom = {"components": components, "dependencies": [{"ref": "pkg:pypi/pmem2@1", "dependsOn": []}]}
    path.write_text(json.dumps(sbom), encoding="utf-8")
    return path


def sbom_problems(bundling: types.ModuleType, wheel: Path, *sboms: Path) -> list[str]:
    """Return the problems with the SBOM of a new wheel that bundles libpmem2 and nothing else."""
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"pmem2.libs/{LIBRARY}", "")
        for sbom in sboms:
            archive.write(sbom, "pmem2-1.dist-info/sboms/auditwheel.cdx.json")
    return [problem for problem in bundling.problems(wheel) if "SBOM" in problem]


def test_sbom_gets_missing_package(bundling: types.ModuleType, tmp_path: Path) -> None:
    """A package that auditwheel misses comes into the SBOM, once, with the version that dpkg has and its purl."""
    package = bundling.package_of(LIBRARY)
    sbom = write_sbom(tmp_path / "sbom.json", {"name": "libother", "version": "2"})
    for _ in range(2):
        bundling.complete_sbom(sbom, ["libother", package])
    completed = json.loads(sbom.read_text(encoding="utf-8"))
    first, second = completed["components"]
    assert first == {"name": "libother", "version": "2"}
    assert (second["name"], second["version"]) == (package, bundling.version_of(package))
    assert second["purl"].startswith(f"pkg:deb/debian/{package}@1.")
    assert completed["dependencies"][0]["dependsOn"] == [second["bom-ref"]]


def test_wheel_needs_complete_sbom(bundling: types.ModuleType, tmp_path: Path) -> None:
    """A wheel fails without an SBOM, with one that lacks a library or has another version, and passes with all."""
    package = bundling.package_of(LIBRARY)
    wheel, sbom = tmp_path / "wheel", tmp_path / "sbom.json"
    problem = [f"the SBOM does not list {package}"]
    assert sbom_problems(bundling, wheel) == problem
    assert sbom_problems(bundling, wheel, write_sbom(sbom)) == problem
    assert sbom_problems(bundling, wheel, write_sbom(sbom, {"name": package, "version": "0"})) == problem
    found = {"name": package, "version": bundling.version_of(package)}
    assert sbom_problems(bundling, wheel, write_sbom(sbom, found)) == []
