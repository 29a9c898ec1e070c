#!/bin/bash
# Builds a Debian machine as a golden image: `build-golden.sh VARIANT OUT.qcow2`. Variants:
#   server   systemd, cloud-init, QEMU guest agent, sshd; 2 GiB virtual, 713 MiB of data, 220 MiB compressed
#   rdp      the same with a desktop (openbox, tint2, xterm) that xrdp shows on port 3389; 3 GiB virtual
#
# For tests with a real operating system (tests/journeys/test_round_trip.py, `make test-long`) and for trying Deskyard with
# one; the tiny guest (build-tiny.sh) serves everything else. Leaves OUT.qcow2 (compressed, compat 1.1) and OUT.versions, what
# it was built from; does nothing while that is current. The last line on standard output is the image's absolute path. Takes
# 70 s on a quiet machine, up to 5 minutes on a busy one.
#
# Needs root (a chroot), but no loop or nbd device: file systems are filled as files. BIOS boot by syslinux from the disk's own
# boot partition. User vdi, password vdi, sudo. The kernel is the full one, and its initial RAM disk knows the disks and cards
# of every maker: the same disk boots wherever it is carried to. Packages come from where this machine has its own.
set -euo pipefail
usage() { echo "usage: $0 server|rdp OUT.qcow2" >&2; exit 2; }
[ $# = 2 ] || usage
PACKAGES=(linux-image-amd64 initramfs-tools systemd-sysv dbus udev kmod iproute2 qemu-guest-agent cloud-init python3 netplan.io
  openssh-server sudo procps zstd)
case $1 in
  server) DISK_MIB=2048 ;;
  rdp) DISK_MIB=3072
    PACKAGES+=(xrdp xorgxrdp xserver-xorg-core openbox tint2 xterm dbus-x11 x11-xserver-utils fonts-dejavu-core libpam-systemd) ;;
  *) usage ;;
esac
VARIANT=$1
BOOT_MIB=128
[ "$(id -u)" = 0 ] || { echo "build-golden: needs root, for a chroot" >&2; exit 4; }
SELF=$(realpath "$0"); mkdir -p "$(dirname "$2")"; OUT=$(realpath -m "$2"); VERSIONS=${OUT%.qcow2}.versions
PATH=$PATH:/usr/sbin:/sbin
SUITE=$(. /etc/os-release; [ "$ID" = debian ] && echo "$VERSION_CODENAME" || echo bookworm)

current_versions() {
  apt-cache policy "${PACKAGES[@]}" | awk '/^[^ ]/{sub(":$", ""); name=$1} /^  Candidate: [^(]/{print name, $2}'
  echo "build-golden.sh $(sha256sum < "$SELF" | cut -c1-16)"
}

# One-line sources: of Debian's archives that this machine takes packages from, those of the suite. Empty where it has none.
own_sources() {
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    grep -E " $SUITE(-[a-z-]+)? " | sort -u || true
}

exec 9>"$OUT.lock"; flock 9
if [ -s "$OUT" ] && [ "$(current_versions)" = "$(cat "$VERSIONS" 2>/dev/null)" ]; then echo "$OUT"; exit 0; fi

for program in mmdebstrap sfdisk mkfs.vfat mcopy syslinux mke2fs qemu-img zstd; do
  command -v "$program" >/dev/null || { echo "build-golden: $program is missing; install deploy/packages-test.txt" >&2; exit 3; }
done
[ -e /usr/lib/syslinux/mbr/mbr.bin ] || { echo "build-golden: package syslinux-common is missing" >&2; exit 3; }

# Beside the result, not in /tmp: that may be a RAM file system, and this takes 2 GB.
W=$(mktemp -d -p "$(dirname "$OUT")"); trap 'rm -rf "$W"' EXIT
chmod 755 "$W"
current_versions > "$W/versions"
echo "build-golden: building $OUT" >&2

# --- root file system ---------------------------------------------------------------------------------------------------------
# Before the kernel package is configured, which makes the initial RAM disk.
cat > "$W/early" <<'X'
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=zstd\n' > "$1/etc/initramfs-tools/conf.d/deskyard"
X
cat > "$W/system" <<'X'
set -e
printf '%s\n' virtio_pci virtio_blk virtio_scsi virtio_net virtio_console ahci ata_piix sd_mod ext4 \
  vmw_pvscsi mptspi nvme vmxnet3 e1000 e1000e hv_vmbus hv_storvsc hv_netvsc >> "$1/etc/initramfs-tools/modules"
chroot "$1" update-initramfs -u
echo golden > "$1/etc/hostname"
echo 'LABEL=root / ext4 defaults,noatime 0 1' > "$1/etc/fstab"
chroot "$1" useradd -m -s /bin/bash -G sudo vdi
printf 'vdi:vdi\n' | chroot "$1" chpasswd
# Other datasources cost minutes of network time-outs.
printf 'datasource_list: [ NoCloud, None ]\n' > "$1/etc/cloud/cloud.cfg.d/90_deskyard.cfg"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' > "$1/etc/systemd/network/80-dhcp.network"
chroot "$1" systemctl enable systemd-networkd
# Each clone makes its own.
: > "$1/etc/machine-id"
rm -f "$1"/etc/ssh/ssh_host_*
X
# What is there only where the variant has it.
cat > "$W/desktop" <<'X'
set -e
chroot "$1" adduser --quiet xrdp ssl-cert
chroot "$1" systemctl enable xrdp xrdp-sesman
# Each clone makes its own certificate: guests are told apart by it.
rm -f "$1"/etc/ssl/certs/ssl-cert-snakeoil.pem "$1"/etc/ssl/private/ssl-cert-snakeoil.key
mkdir -p "$1/etc/systemd/system/xrdp.service.d"
printf '[Service]\nExecStartPre=+/bin/sh -c "[ -e /etc/ssl/private/ssl-cert-snakeoil.key ] || make-ssl-cert generate-default-snakeoil"\n' \
  > "$1/etc/systemd/system/xrdp.service.d/certificate.conf"
# Viewers in browsers draw the window of the log askew, and nobody needs it.
sed -i 's/^#hidelogwindow=true/hidelogwindow=true/' "$1/etc/xrdp/xrdp.ini"
printf 'xsetroot -solid "#204a87"\ntint2 &\nxterm -geometry 100x30+60+60 &\nexec openbox\n' > "$1/home/vdi/.xsession"
chroot "$1" chown vdi:vdi /home/vdi/.xsession
printf 'allowed_users=anybody\n' > "$1/etc/X11/Xwrapper.config"
X
[ "$VARIANT" = rdp ] || echo : > "$W/desktop"
# Without sources mmdebstrap takes Debian's usual ones.
own_sources > "$W/sources.list"
sources=(); [ ! -s "$W/sources.list" ] || sources=("$W/sources.list")
packages=$(IFS=,; echo "${PACKAGES[*]}")
mmdebstrap --mode=root --variant=minbase --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='APT::Install-Recommends "false"' \
  --essential-hook="sh $W/early \"\$1\"" --customize-hook="sh $W/system \"\$1\"" --customize-hook="sh $W/desktop \"\$1\"" \
  "$SUITE" "$W/tree" "${sources[@]}" 2>"$W/mmdebstrap.log" >&2 || { tail -20 "$W/mmdebstrap.log" >&2; exit 5; }

# --- disk: a bootable FAT partition for syslinux, the rest ext4 -----------------------------------------------------------------
truncate -s "${DISK_MIB}M" "$W/disk.raw"
printf 'label: dos\nstart=2048,size=%d,type=c,bootable\nstart=%d,type=83\n' \
  $((BOOT_MIB * 2048)) $((BOOT_MIB * 2048 + 2048)) | sfdisk -q "$W/disk.raw"
truncate -s "${BOOT_MIB}M" "$W/boot.fat"; mkfs.vfat -F 32 -n BOOT "$W/boot.fat" >/dev/null
mcopy -i "$W/boot.fat" "$W"/tree/boot/vmlinuz-* ::vmlinuz
mcopy -i "$W/boot.fat" "$W"/tree/boot/initrd.img-* ::initrd.img
cat > "$W/syslinux.cfg" <<'X'
DEFAULT linux
TIMEOUT 1
LABEL linux
 KERNEL vmlinuz
 APPEND root=LABEL=root ro console=tty0 console=ttyS0 quiet net.ifnames=0 mitigations=off tsc=reliable
 INITRD initrd.img
X
mcopy -i "$W/boot.fat" "$W/syslinux.cfg" ::syslinux.cfg
syslinux --install "$W/boot.fat"
rm -rf "$W"/tree/boot/vmlinuz-* "$W"/tree/boot/initrd.img-* "$W"/tree/var/cache/apt/* "$W"/tree/var/lib/apt/lists/*
dd if="$W/boot.fat" of="$W/disk.raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$W/disk.raw" bs=440 count=1 conv=notrunc status=none
offset=$(((BOOT_MIB + 1) * 1024 * 1024)); blocks=$(((DISK_MIB * 1024 * 1024 - offset) / 4096))
mke2fs -q -t ext4 -L root -d "$W/tree" -E "offset=$offset,root_owner=0:0" -F -b 4096 "$W/disk.raw" "$blocks" >&2

qemu-img convert -O qcow2 -o compat=1.1 -c -m 2 "$W/disk.raw" "$W/disk.qcow2"
chmod 644 "$W/disk.qcow2"
rm -f "$VERSIONS"; mv "$W/disk.qcow2" "$OUT"; mv "$W/versions" "$VERSIONS"
echo "$OUT"
