#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# image.sh FOLDER: make the machine's kernel, initramfs and disk from Debian packages alone. Needs root. Uses the mirror
# that apt uses here. FOLDER/root stays: the extension is compiled in it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
suite=bookworm
packages=btrfs-progs,busybox-static,coreutils,cpio,dmsetup,e2fsprogs,gcc,gzip,kmod,libc6-dev,libpmem2-dev,mount,ndctl,pkg-config,pypy3
packages=$packages,pypy3-dev,python3,python3-attr,python3-cffi,python3-coverage,python3-dev,python3-distutils
packages=$packages,python3-exceptiongroup,python3-hypothesis,python3-numpy,python3-pytest,python3-tomli,strace,util-linux,xfsprogs
# modules for the disk and the shared folder, in the initramfs; modules that are loaded later, on the disk
early="virtio_pci virtio_blk ext4 9p 9pnet_virtio"
late="nfit nd_pmem device_dax dax_pmem dax_hmem xfs btrfs mce-inject loop dm_mod dm-log-writes"

rm -rf root
# The generic kernel is unpacked, not installed. Cloud kernels lack 9p and memory failures.
# shellcheck disable=SC2016 # the hook expands $1
mmdebstrap --quiet --mode=root --variant=minbase --components=main --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='
        export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
        mkdir "$1/kernel" && cd "$1/kernel"
        apt-get -qq download "$(apt-cache depends linux-image-amd64 | sed -n "s/.*Depends: //p" | head -n 1)"
        dpkg -x linux-image-*.deb . && rm linux-image-*.deb' \
    "$suite" root
# with this file modprobe would call ndctl
rm -f root/etc/modprobe.d/nvdimm-security.conf

version=$(ls root/kernel/lib/modules)
cp "root/kernel/boot/vmlinuz-$version" vmlinuz
chroot root depmod -b /kernel "$version"
needs() { # needs MODULE...: print the files to load, in order
    for module in "$@"; do
        chroot root modprobe -C /dev/null -d /kernel -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
mkdir -p root/initramfs/modules "root/lib/modules/$version"
for file in $(needs $early $late); do
    target=root/${file#/kernel}
    mkdir -p "${target%/*}" && cp "root$file" "$target"
done
cp root/kernel/lib/modules/"$version"/modules.builtin* root/kernel/lib/modules/"$version"/modules.order \
    "root/lib/modules/$version"
chroot root depmod "$version"

for file in $(needs $early); do
    cp "root$file" root/initramfs/modules
    echo "${file##*/}"
done > root/initramfs/order
rm -rf root/kernel
mkdir -p root/initramfs/bin root/initramfs/dev root/initramfs/proc root/initramfs/sys root/initramfs/root root/host
cp root/bin/busybox root/initramfs/bin
install -m 755 "$here/init" root/initramfs/init
chroot root sh -c 'cd /initramfs && find . | cpio -o -H newc --quiet | gzip -1' > initramfs.gz
rm -rf root/initramfs

rm -f disk.img
mke2fs -q -t ext4 -O ^has_journal -m 0 -d root disk.img "$(($(du -sm root | cut -f 1) * 12 / 10 + 100))M"
chroot root dpkg-query --show > packages.txt
echo "linux-image $version" >> packages.txt
