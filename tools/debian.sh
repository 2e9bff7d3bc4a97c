#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# debian.sh SUITE ARCHITECTURE FOLDER [PYTEST ARGUMENT...]: run the tests in an empty Debian of that suite with Debian's own
# libpmem2, Python, cffi, attrs, pytest, Hypothesis and NumPy. Needs root and mmdebstrap, and for an architecture that is
# not this machine's qemu-user-static and binfmt_misc.
set -eu
suite=$1
architecture=$2
root=$3
shift 3
project=$(cd "$(dirname "$0")/.." && pwd)
enter=$project/tools/enter_debian.sh
if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
    # QEMU before 8.1 claims that its default processor has the instruction dc cvap, but dies of it.
    [ "$architecture" != arm64 ] || export QEMU_CPU="${QEMU_CPU:-cortex-a72}"
    # Without Debian's init system nothing mounts it.
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
fi
if [ ! -x "$root/usr/bin/python3" ]; then
    mkdir -p "$(dirname "$root")"
    packages=gcc,libc6-dev,libpmem2-dev,pkg-config,python3-attr,python3-cffi,python3-dev,python3-hypothesis
    packages=$packages,python3-numpy,python3-pytest,python3-pytest-xdist,python3-setuptools
    packages=$packages,e2fsprogs,mount,util-linux # tests mount file systems and make them fail
    # Apt's mirror, if this is a Debian, without security updates: their lists for rare processors may be out of step.
    # It may be as old as apt accepts here.
    # shellcheck disable=SC2016 # a variable of apt
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
    mmdebstrap --quiet --mode=root --variant=apt --architectures="$architecture" --include="$packages" \
        --aptopt="$(apt-config dump Acquire::Check-Valid-Until)" "$suite" "$root" ${mirror:+"$mirror"}
    if [ "$architecture" = ppc64el ] && [ "$(uname -m)" != ppc64le ]; then
        chroot "$root" python3 - /usr/lib/powerpc64le-linux-gnu/libpmem2.so.1 <"$project/tools/clear_power10.py"
    fi
fi
rm -rf "$root/project" "$root/build"
mkdir "$root/project" "$root/build"
git -C "$project" ls-files -z | tar -C "$project" --null --files-from=- -cf - | tar -C "$root/project" -xf -
# not installed: setuptools of Debian 12 cannot read our pyproject.toml
cp -r "$project/native" "$project/build_pmem2.py" "$root/build"
# The commands run one by one, because an emulated shell may never return (QEMU 7.2, riscv64).
"$enter" "$root" env -C /build python3 build_pmem2.py >/dev/null
"$enter" "$root" python3 -c "import sys; print(sys.version)"
"$enter" "$root" dpkg-query -W libpmem2-dev python3-cffi-backend python3-attr
exec "$enter" "$root" env -C /project PYTHONPATH=/build:/project python3 -m pytest -q -n auto -p no:cacheprovider "$@"
