#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# apt_install.sh PROGRAM=PACKAGE...: install the Debian packages of the programs that are missing.
set -eu
missing=
for pair; do
    command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
echo "installing$missing ..."
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
$as_root apt-get -qq update
# shellcheck disable=SC2086 # several words
DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq install --yes --no-install-recommends $missing >/dev/null
