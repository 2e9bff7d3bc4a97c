#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# try_wheel.sh WHEELS PROJECT COMMAND...: install pmem2 and pytest from the folder WHEELS alone into a fresh venv, which
# COMMAND makes (`python3 -m venv`), run the demo, and those tests of PROJECT that need nothing else.
set -eu
wheels=$(realpath "$1")
project=$(realpath "$2")
shift 2
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$@" "$venv"
python=$venv/bin/python
cd "$venv" # away from the project, whose pmem2/ would be found first
$python -m pip --isolated install --quiet --no-index --find-links "$wheels" pmem2 pytest hypothesis
$python -c '
import sys, pmem2
(libpmem2,) = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "libpmem2" in line}
assert "/pmem2.libs/" in libpmem2, libpmem2
print("pmem2", pmem2.__version__, "on", sys.version.replace("\n", " "))'
$python -m pmem2 demo
cd "$project/tests"
$python -m pytest -q -p no:cacheprovider test_basics.py test_config.py test_fork.py test_open.py test_reservation.py \
    test_rows_badblocks.py test_source.py
