#!/usr/bin/env bash
# Makes sure that a libvirt daemon of this account's own answers, with the storage pool "default" active; prints its socket.
#
# For accounts that may not use the system's libvirt. Its guests have user networking; they run as this account. Idempotent.
set -euo pipefail
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$HOME/.cache/deskyard-run}
mkdir -p "$XDG_RUNTIME_DIR"
socket=$XDG_RUNTIME_DIR/libvirt/libvirt-sock
virsh=(virsh -q -c "qemu+unix:///session?socket=$socket")

if ! timeout 10 "${virsh[@]}" uri >/dev/null 2>&1; then
  # The daemon must outlive our terminal and must not hold the caller's pipes open.
  PATH=$PATH:/usr/sbin setsid libvirtd -d </dev/null >/dev/null 2>&1
  for _ in $(seq 100); do timeout 10 "${virsh[@]}" uri >/dev/null 2>&1 && break; sleep 0.1; done
  timeout 10 "${virsh[@]}" uri >/dev/null || { echo "libvirtd does not answer on $socket" >&2; exit 1; }
fi
if ! "${virsh[@]}" pool-info default >/dev/null 2>&1; then
  images=${XDG_DATA_HOME:-$HOME/.local/share}/libvirt/images
  mkdir -p "$images"
  "${virsh[@]}" pool-define-as default dir --target "$images" >/dev/null
  "${virsh[@]}" pool-autostart default >/dev/null
fi
"${virsh[@]}" pool-list --name | sed 's/ *$//' | grep -qx default || "${virsh[@]}" pool-start default >/dev/null
echo "$socket"
