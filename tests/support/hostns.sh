#!/bin/bash
# First process (PID 1) of a laboratory host. `hostns.sh FOLDER NAME`, inside fresh mount, UTS, network and PID namespaces.
#
# Puts FOLDER's folders in the place of libvirt's own, so that this host shares none of them with the machine or another
# host, then waits for ever. Mounts and network live in the namespaces: when this process dies, the kernel ends everything
# in the host (libvirtd, guests, dnsmasq, sshd) and takes mounts, bridges and links away. There is nothing to clean up.
set -eu
FOLDER=$1; NAME=$2

hostname "$NAME"
# The /sys of the machine shows the machine's network devices; libvirt sets up bridges through this one. It has no cgroups
# on it, so hosts do not meet in them either; the old one must really go, or libvirt finds cgroups in the list of mounts.
umount --lazy /sys
mount -t sysfs sysfs /sys
mkdir -p /etc/libvirt /var/lib/libvirt /run/libvirt /var/cache/libvirt /var/log/libvirt /etc/sasl2 /run/sshd
mount --bind "$FOLDER/etc" /etc/libvirt
mount --bind "$FOLDER/lib" /var/lib/libvirt
mount --bind "$FOLDER/run" /run/libvirt
mount --bind "$FOLDER/cache" /var/cache/libvirt
mount --bind "$FOLDER/log" /var/log/libvirt
mount --bind "$FOLDER/sasl2" /etc/sasl2
mount --bind "$FOLDER/hosts" /etc/hosts
# A storage that is full after one guest or two.
mkdir -p /var/lib/libvirt/small
mount -t tmpfs -o size=16m small /var/lib/libvirt/small
ip link set lo up
touch "$FOLDER/up"
# bash collects the processes that lose their parent while it waits.
while :; do sleep 86400 & wait $!; done
