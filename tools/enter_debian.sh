#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# enter_debian.sh FOLDER COMMAND...: run a command in the Debian in that folder, with /dev, /proc, /sys and an empty /tmp.
# Needs root.
set -eu
unset TMPDIR # it may name a folder outside
# shellcheck disable=SC2016 # variables of the inner shell
exec unshare --mount --pid --fork sh -euc '
    root=$1
    shift
    mount --bind "$root" "$root" # a mount point, as this script needs for its root if it runs in there again
    mount --rbind /dev "$root/dev"
    mount -t sysfs none "$root/sys"
    mount -t proc none "$root/proc"
    mount -t tmpfs none "$root/tmp"
    exec chroot "$root" "$@"' sh "$@"
