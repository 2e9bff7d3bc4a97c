# SPDX-License-Identifier: BSD-3-Clause
"""From a wheel as it was built to one that can be given to others: `python release/wheels.py WHEEL FOLDER`.

auditwheel copies the libraries in that `_pmem2` is linked with, libpmem2 and what that needs; this adds their licences,
as the Debian machine that builds the wheel has them, and checks the result.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

NOTICE = Path(__file__).with_name("NOTICE.txt")
DOC = Path("/usr/share/doc")
COMMON = Path("/usr/share/common-licenses")
STUBS = {"_pmem2-stubs/__init__.pyi", "_pmem2-stubs/lib.pyi", "pmem2/py.typed"}
# what a part of the libraries needs; without one of them, something that the documentation promises fails
LIBRARIES = {"libpmem2", "libndctl", "libdaxctl"}


def run(*command: str | Path) -> str:
    """Return what a command prints; end the program when it fails."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def package_of(library: str) -> str:
    """Return the Debian package that a bundled library, as `libpmem2-d34c61ae.so.1.0.0`, comes from."""
    original = re.sub(r"-[0-9a-f]{8}(?=\.so)", "", library)
    found = run("dpkg-query", "--search", f"*lib/{sysconfig.get_config_var('MULTIARCH')}/{original}")
    return found.partition(":")[0]


def add_licences(tree: Path) -> None:
    """Put the licences of all libraries in, the texts to which those refer, and the notice of the LGPL."""
    (info,) = tree.glob("*.dist-info")
    licences = info / "licenses" / "bundled"
    licences.mkdir(parents=True)
    packages = sorted({package_of(path.name) for path in (tree / "pmem2.libs").iterdir()})
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


def problems(wheel: Path) -> list[str]:
    """Return what is wrong with a finished wheel."""
    here = [str(path).encode() for path in (Path.cwd(), Path.home(), tempfile.gettempdir())]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        contents = {name: archive.read(name) for name in names}
    libraries = {Path(name).name for name in names if name.startswith("pmem2.libs/") and not name.endswith("/")}
    licences = {Path(name).name for name in names if "/licenses/bundled/" in name}
    notice = b"".join(text for name, text in contents.items() if name.endswith("/bundled/NOTICE.txt")).decode()
    return [
        *(f"{name} is missing" for name in STUBS - names),
        *(f"{name} is not bundled" for name in LIBRARIES - {library.partition("-")[0] for library in libraries}),
        *(f"no licence of {name}" for name in map(package_of, libraries) if f"{name}.txt" not in licences),
        *(f"the notice does not name {name}" for name in map(package_of, libraries) if f"- {name} " not in notice),
        *(f"{name} names {path!r} of this machine" for name in names for path in here if path in contents[name]),
    ]


def finish(wheel: Path, folder: Path) -> Path:
    """Make the wheel self-contained, add the licences, and return it, checked."""
    with tempfile.TemporaryDirectory() as temporary:
        repaired, tree = Path(temporary, "repaired"), Path(temporary, "tree")
        run("auditwheel", "repair", "--strip", "--wheel-dir", repaired, wheel)
        run(sys.executable, "-m", "wheel", "unpack", "--dest", tree, *repaired.iterdir())
        (unpacked,) = tree.iterdir()
        add_licences(unpacked)
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", folder, unpacked)
        finished = folder / next(repaired.iterdir()).name
    if found := problems(finished):
        sys.exit("\n".join(found))
    return finished


if __name__ == "__main__":
    result = finish(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{result}, {result.stat().st_size / 1e6:.1f} MB")
