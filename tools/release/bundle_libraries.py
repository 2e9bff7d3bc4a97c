# SPDX-License-Identifier: BSD-3-Clause
"""Turn a newly built wheel into a self-contained one: `python tools/release/bundle_libraries.py WHEEL FOLDER`.

auditwheel copies libpmem2 and its dependencies into the wheel, and lists their packages in an SBOM. This script adds
the licences, as the Debian machine that builds the wheel has them, completes the SBOM, and checks the result.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import quote

NOTICE = Path(__file__).with_name("NOTICE.txt")
DOC = Path("/usr/share/doc")
COMMON = Path("/usr/share/common-licenses")
STUBS = {"_pmem2-stubs/__init__.pyi", "_pmem2-stubs/lib.pyi", "pmem2/py.typed"}
# Documented functions fail without these.
LIBRARIES = {"libpmem2", "libndctl", "libdaxctl"}


def run(*command: str | Path) -> str:
    """Return the output of a command; raise an error if it fails."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def package_of(library: str) -> str:
    """Return the Debian package of a bundled library (such as `libpmem2-d34c61ae.so.1.0.0`)."""
    original = re.sub(r"-[0-9a-f]{8}(?=\.so)", "", library)
    found = run("dpkg-query", "--search", f"*lib/{sysconfig.get_config_var('MULTIARCH')}/{original}")
    return found.partition(":")[0]


def version_of(package: str) -> str:
    """Return the installed version of a Debian package."""
    return run("dpkg-query", "--show", "--showformat=${Version}", package)


def add_licences(info: Path, packages: list[str]) -> None:
    """Add the licences of all libraries, the texts that they refer to, and the notice that the LGPL requires."""
    licences = info / "licenses" / "bundled"
    licences.mkdir(parents=True)
    form = "- ${Package} ${Version}: https://snapshot.debian.org/package/${source:Package}/${source:Version}/\n"
    sources = run("dpkg-query", "--show", f"--showformat={form}", *packages)
    (licences / "NOTICE.txt").write_text(NOTICE.read_text(encoding="utf-8") + sources, encoding="utf-8")
    for package in packages:
        text = (DOC / package / "copyright").read_text(encoding="utf-8")
        (licences / f"{package}.txt").write_text(text, encoding="utf-8")
        for name in re.findall(r"/common-licenses/([\w.-]*\w)", text):
            (licences / f"{name}.txt").write_bytes((COMMON / name).read_bytes())
    fields = "".join(f"License-File: bundled/{path.name}\n" for path in sorted(licences.iterdir()))
    metadata = info / "METADATA"
    text, own = metadata.read_text(encoding="utf-8"), "License-File: LICENSE\n"
    metadata.write_text(text.replace(own, own + fields, 1), encoding="utf-8")


def complete_sbom(path: Path, packages: list[str]) -> None:
    """Add the packages that auditwheel misses: it asks dpkg for a file in /usr/lib, and its package says /lib."""
    sbom = json.loads(path.read_text(encoding="utf-8"))
    listed = {component["name"] for component in sbom["components"]}
    (wheel,) = (entry for entry in sbom["dependencies"] if "dependsOn" in entry)
    for package in sorted(set(packages) - listed):
        version = version_of(package)
        purl = f"pkg:deb/debian/{package}@{quote(version, safe='')}"
        component = {"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl}
        sbom["components"].append(component)
        sbom["dependencies"].append({"ref": purl})
        wheel["dependsOn"].append(purl)
    path.write_text(json.dumps(sbom, indent=1), encoding="utf-8")


def problems(wheel: Path) -> list[str]:
    """Return the faults of a finished wheel."""
    here = [str(path).encode() for path in (Path.cwd(), Path.home(), tempfile.gettempdir())]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        contents = {name: archive.read(name) for name in names}
    libraries = {Path(name).name for name in names if name.startswith("pmem2.libs/") and not name.endswith("/")}
    licences = {Path(name).name for name in names if "/licenses/bundled/" in name}
    packages = sorted(map(package_of, libraries))
    notice = b"".join(text for name, text in contents.items() if name.endswith("/bundled/NOTICE.txt")).decode()
    sboms = [json.loads(text) for name, text in contents.items() if name.endswith("/sboms/auditwheel.cdx.json")]
    listed = {(component["name"], component["version"]) for sbom in sboms for component in sbom["components"]}
    return [
        *(f"{name} is missing" for name in STUBS - names),
        *(f"{name} is not bundled" for name in LIBRARIES - {library.partition("-")[0] for library in libraries}),
        *(f"no licence of {name}" for name in packages if f"{name}.txt" not in licences),
        *(f"the notice does not name {name}" for name in packages if f"- {name} " not in notice),
        *(f"the SBOM does not list {name}" for name in packages if (name, version_of(name)) not in listed),
        *(f"{name} names {path!r} of this machine" for name in names for path in here if path in contents[name]),
    ]


def finish(wheel: Path, folder: Path) -> Path:
    """Make the wheel self-contained, add the licences, complete the SBOM, check the result and return it."""
    with tempfile.TemporaryDirectory() as temporary:
        repaired, tree = Path(temporary, "repaired"), Path(temporary, "tree")
        run("auditwheel", "repair", "--strip", "--wheel-dir", repaired, wheel)
        run(sys.executable, "-m", "wheel", "unpack", "--dest", tree, *repaired.iterdir())
        (unpacked,) = tree.iterdir()
        (info,) = unpacked.glob("*.dist-info")
        packages = sorted({package_of(path.name) for path in (unpacked / "pmem2.libs").iterdir()})
        add_licences(info, packages)
        complete_sbom(info / "sboms/auditwheel.cdx.json", packages)
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", folder, unpacked)
        finished = folder / next(repaired.iterdir()).name
    if found := problems(finished):
        sys.exit("\n".join(found))
    return finished


if __name__ == "__main__":
    result = finish(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{result}, {result.stat().st_size / 1e6:.1f} MB", run("auditwheel", "show", result))
