#!/bin/bash
# Makes sure that a libvirt daemon answers on qemu:///system, with the network and the storage pool named "default" active.
#
# Promises: idempotent (a daemon that answers is left alone, as are its guests, networks and pools of other names); works with
# systemd and without (containers, CI machines, WSL); exit status 0 means "virsh -c qemu:///system" works now.
# Needs root and the packages of deploy/packages-run.txt. Changes outside libvirt: one line in /etc/hosts, only where that
# file lacks the machine's own name, and, where no udev does it, /dev/kvm belongs to the group kvm (mode 660).
set -euo pipefail
URI=qemu:///system
POOL_DIR=${DESKYARD_POOL_DIR:-/var/lib/libvirt/images}
START_LIMIT_S=30

say() { echo "libvirt-start: $*" >&2; }
answers() { timeout 20 virsh -c "$URI" uri >/dev/null 2>&1; }
is_running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

for program in virsh libvirtd; do
  command -v "$program" >/dev/null || { say "$program is missing: apt-get install \$(sed 's/#.*//' deploy/packages-run.txt)"; exit 3; }
done

resolve_own_name() {
  # libvirt asks for the machine's own name at every start, open and migration; where it does not resolve, each costs a DNS
  # time-out of 5-10 s. Whoever started the daemon: it asks anew each time.
  local name; name=$(hostname)
  getent -s files hosts "$name" >/dev/null && return
  # A last line without its end must not run into ours.
  if { [ -z "$(tail -c 1 /etc/hosts)" ] || echo; echo "127.0.1.1 $name"; } >> /etc/hosts; then say "added $name to /etc/hosts"
  else say "cannot add $name to /etc/hosts; libvirt is slow where it does not resolve"; fi
}

open_kvm_to_qemu() {
  # What udev's rule does on a machine that has it. With /dev/kvm closed to the user libvirt-qemu, libvirt 9.0 finds its cached
  # capabilities outdated at each look ("KVM was enabled when probing ..., but it is not available now") and probes QEMU again,
  # 4 s for every define and start.
  [ -c /dev/kvm ] && getent group kvm >/dev/null || return 0
  chgrp kvm /dev/kvm && chmod 660 /dev/kvm || say "cannot give /dev/kvm to the group kvm; libvirt will be slow"
}

start_with_systemd() { systemctl start libvirtd.socket libvirtd.service; }

start_alone() {
  # A guest's start fails without virtlogd ("virtlogd-sock: No such file"), and nobody else starts it here. The daemons must
  # outlive our terminal and must not hold the caller's pipes open.
  is_running /run/virtlogd.pid || { rm -f /run/virtlogd.pid; setsid virtlogd -d -p /run/virtlogd.pid </dev/null >/dev/null 2>&1; }
  is_running /run/libvirtd.pid || { rm -f /run/libvirtd.pid; setsid libvirtd -d -p /run/libvirtd.pid </dev/null >/dev/null 2>&1; }
}

start_daemon() {
  [ "$(id -u)" = 0 ] || { say "no libvirt answers on $URI and only root can start it"; exit 4; }
  if [ -d /run/systemd/system ]; then start_with_systemd; else start_alone; fi
  for _ in $(seq $((START_LIMIT_S * 5))); do answers && return; sleep 0.2; done
  say "libvirtd was started but does not answer on $URI within $START_LIMIT_S s; see /var/log/libvirt and /var/log/syslog"
  exit 5
}

# virsh lists names with padding and a trailing blank line; -x keeps "default" from matching "default-old".
lists() { virsh -c "$URI" "$@" --name | sed 's/ *$//' | grep -qx default; }

ensure_network() {
  lists net-list --all || virsh -q -c "$URI" net-define /usr/share/libvirt/networks/default.xml
  lists net-list || virsh -q -c "$URI" net-start default || lists net-list
  virsh -q -c "$URI" net-autostart default
}

ensure_pool() {
  lists pool-list --all || virsh -q -c "$URI" pool-define-as default dir --target "$POOL_DIR"
  lists pool-list || {
    mkdir -p "$(virsh -c "$URI" pool-dumpxml default | sed -n 's:.*<path>\(.*\)</path>.*:\1:p')"
    virsh -q -c "$URI" pool-start default || lists pool-list
  }
  virsh -q -c "$URI" pool-autostart default
}

if [ "$(id -u)" = 0 ]; then
  resolve_own_name
  [ -d /run/systemd/system ] || open_kvm_to_qemu
fi
answers || start_daemon
ensure_network >&2
ensure_pool >&2
say "$URI answers; network and pool \"default\" are active"
