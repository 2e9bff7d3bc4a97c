#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# try_wheel.sh WHEELS PROJECT COMMAND...: create a fresh venv with COMMAND (`python3 -m venv`), install pmem2 and pytest
# from the folder WHEELS alone, then run the demo and the tests of PROJECT that need nothing else.
set -eu
wheels=$(realpath "$1")
project=$(realpath "$2")
shift 2
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$@" "$venv"
python=$venv/bin/python
cd "$venv" # in the project, Python would import the sources
$python -m pip --isolated install --quiet --no-index --find-links "$wheels" pmem2 pytest pytest-xdist hypothesis
$python -c '
import sys, pmem2
(libpmem2,) = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "libpmem2" in line}
assert "/pmem2.libs/" in libpmem2, libpmem2
print("pmem2", pmem2.__version__, "on", sys.version.replace("\n", " "))'
$python -m pmem2 demo
cd "$project/tests"
$python -m pytest -q -n logical -p no:cacheprovider api/test_basics.py api/test_config.py api/test_open.py \
    api/test_reservation.py api/test_source.py safety/test_fork.py upstream/test_badblocks.py
