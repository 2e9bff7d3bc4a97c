#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# interpreters.sh FOLDER: unpack newer Pythons of newer Debians, and link them in FOLDER/bin. Installs nothing. Uses the
# mirror that apt uses here. Needs patchelf.
set -eu
multiarch=$(uname -m)-linux-gnu
case $multiarch in
x86_64-*) loader=usr/lib64/ld-linux-x86-64.so.2 ;;
aarch64-*) loader=usr/lib/ld-linux-aarch64.so.1 ;;
*) loader= ;;
esac
if ! command -v apt-get >/dev/null || [ -z "$loader" ]; then
    echo "the interpreters are Debian's packages for x86-64 and arm64" >&2
    exit 1
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
# shellcheck disable=SC2016 # a variable of apt
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || {
    echo "apt has no list of Debian's packages here: apt-get update" >&2
    exit 1
}

unpack() { # unpack SUITE PACKAGE...: with their dependencies, into FOLDER/SUITE
    suite=$1
    shift
    apt=$folder/$suite.apt
    tree=$folder/$suite
    rm -rf "$apt" "$tree"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$tree"
    : > "$apt/status" # nothing counts as installed: apt downloads every dependency, libc too
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/list"
    cat > "$apt/conf" <<END
Dir::Etc::SourceList "$apt/list";
Dir::Etc::SourceParts "-";
Dir::State "$apt";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
APT::Install-Recommends "false";
Acquire::Languages "none";
APT::Sandbox::User "root";
Debug::NoLocking "1";
END
    APT_CONFIG=$apt/conf apt-get -qq update
    APT_CONFIG=$apt/conf apt-get -qq --yes --download-only install "$@" > "$apt/log" || {
        cat "$apt/log"
        exit 1
    }
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -C "$tree" --keep-directory-symlink -xf -
    done
    rm -rf "$apt"
}

link() { # link SUITE EXECUTABLE NAME: make the executable use the libc of its own tree
    tree=$folder/$1
    patchelf --set-interpreter "$tree/$loader" --force-rpath \
        --set-rpath "$tree/usr/lib/$multiarch" "$tree/usr/bin/$2"
    headers=$tree/usr/include/$multiarch/$2
    if [ -d "$headers" ]; then # pyconfig.h of python3.x includes this one as a system header
        cp "$headers/pyconfig.h" "$tree/usr/include/$2"
    fi
    ln -sfn "$tree/usr/bin/$2" "$folder/bin/$3"
    "$folder/bin/$3" -c 'import sys; print(sys.version.replace("\n", ""))'
}

mkdir -p "$folder/bin"
unpack trixie pypy3 pypy3-dev
link trixie pypy3 pypy3.11.11
unpack sid python3.14-dev python3.15-dev pypy3 pypy3-dev
link sid python3.14 python3.14
link sid python3.15 python3.15
link sid pypy3 pypy3.11
