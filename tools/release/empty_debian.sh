#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# empty_debian.sh SUITE FOLDER WHEELS PYTHON...: run try_wheel.sh in an empty Debian of that suite with these Pythons
# (python3, pypy3), their venv modules, and no libpmem2. Needs root and mmdebstrap.
set -eu
suite=$1
root=$2
wheels=$3
shift 3
project=$(cd "$(dirname "$0")/../.." && pwd)
[ -x "$root/usr/bin/$1" ] ||
    mmdebstrap --quiet --mode=root --variant=minbase --include="$(printf '%s-venv,' "$@")mount" "$suite" "$root"
rm -rf "$root/project" "$root/wheels"
mkdir "$root/project"
cp -r "$wheels" "$root/wheels"
cp -r "$project/tools" "$project/tests" "$project/pyproject.toml" "$root/project"
for python; do
    "$project/tools/enter_debian.sh" "$root" /project/tools/release/try_wheel.sh /wheels /project "$python" -m venv
done
