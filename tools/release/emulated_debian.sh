#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# emulated_debian.sh ARCHITECTURE: run `./run wheels` in a Debian 12 of that architecture (arm64), and move its wheels to
# dist/. It makes the wheels of the last commit. Needs root, mmdebstrap and qemu-user-static.
set -eu
architecture=$1
project=$(cd "$(dirname "$0")/../.." && pwd)
root=$project/.cache/debian/wheels-$architecture
packages=gcc,git,libc6-dev,libpmem2-dev,mmdebstrap,mount,pkg-config,pypy3,pypy3-dev,python3-dev,python3-venv
if [ ! -d "$root" ]; then
    rm -rf "$root.unfinished"
    mkdir -p "$root.unfinished"
    mmdebstrap --quiet --mode=root --variant=minbase --architectures="$architecture" --include="$packages" bookworm \
        "$root.unfinished"
    mv "$root.unfinished" "$root"
fi
mkdir -p "$root/etc/ssl/certs" # pip and apt there trust what this machine trusts, an old mirror too
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
apt-config dump Acquire::Check-Valid-Until >"$root/etc/apt/apt.conf.d/host"
export QEMU_CPU=cortex-a72 # QEMU before 8.1 dies of the instruction dc cvap, which newer processors have
checkout=/root/pmem2-checkout # a path that no file of the wheels may contain
rm -rf "$root$checkout"
git clone --quiet "$project" "$root$checkout"
"$project/tools/enter_debian.sh" "$root" sh -euc "apt-get -qq update; cd $checkout; ./run interpreters; ./run wheels"
mkdir -p "$project/dist"
mv "$root$checkout"/dist/*.whl "$project/dist"
