#!/bin/bash
# First process (PID 1) of the machine as an ordinary account meets it. `account.sh FOLDER PACKAGES [HIDDEN PROGRAM...]`
#
# FOLDER shows as /mnt: a UNIX socket's path may have 107 characters, and libvirt makes long ones below the home. PACKAGES
# (Python's, of the environment that the tests run in) show as /mnt/packages, wherever they lie and whoever may go there.
# The system's libvirt answers nobody here. Says "up" when all that is so, then waits until it is killed; the kernel then
# ends everything inside.
set -eu
FOLDER=$1; PACKAGES=$2; shift 2

mount --bind "$FOLDER" /mnt
mount --bind "$PACKAGES" /mnt/packages
mkdir -p /run/libvirt
mount -t tmpfs none /run/libvirt
for program in "$@"; do mount --bind /dev/null "$program"; done
[ $# = 0 ] || mount --bind "$FOLDER/dpkg-status" /var/lib/dpkg/status
echo up
# bash collects the processes that lose their parent while it waits.
while :; do sleep 86400 & wait $!; done
