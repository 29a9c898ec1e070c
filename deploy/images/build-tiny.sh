#!/bin/bash
# Builds the tiny guest: a Linux that boots in seconds under emulation, with the real QEMU guest agent. `build-tiny.sh OUTDIR`
#
# Leaves in OUTDIR: vmlinuz, initrd.gz (kernel and root file system of every tiny desktop, read-only), golden.qcow2 (64 MiB ext4
# data disk, what a clone inherits; qcow2 compat 1.1) and versions (what it was built from). When `versions` is still current the
# script does nothing. The last line on standard output is OUTDIR's absolute path. A build that fails leaves OUTDIR as it was.
# Nothing is mounted; root is not needed. Everything comes from the machine's own apt sources, about 25 MB.
#
# What the guest does at boot: reads a NoCloud seed (ISO with volume id "cidata" on a virtio disk: local-hostname and instance-id
# of meta-data; user-data is ignored), takes an address by DHCP, starts the agent, mounts its disk on /mnt (users' files live
# there), puts a shell on the screen and on the serial line, and answers the ACPI power button.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
SELF=$(realpath "$0"); mkdir -p "$1"; OUT=$(realpath "$1")
PACKAGES=(linux-image-cloud-amd64 qemu-guest-agent busybox-static)
PRODUCTS=(vmlinuz initrd.gz golden.qcow2)

# "PACKAGE VERSION" lines of what apt would install now, and this script's own digest; fails where apt does not know one.
current_versions() {
  local lines
  lines=$(apt-cache policy "${PACKAGES[@]}" | awk '/^[^ ]/{sub(":$", ""); name=$1} /^  Candidate: [^(]/{print name, $2}')
  [ "$(wc -l <<< "$lines")" = ${#PACKAGES[@]} ] || return 1
  echo "$lines"
  script_version
}

script_version() { echo "build-tiny.sh $(sha256sum < "$SELF" | cut -c1-16)"; }

cache_is_current() {
  local product versions
  for product in "${PRODUCTS[@]}" versions; do [ -s "$OUT/$product" ] || return 1; done
  # A machine whose apt lists are gone keeps what it has.
  versions=$(current_versions) || { grep -qxF "$(script_version)" "$OUT/versions"; return; }
  [ "$versions" = "$(cat "$OUT/versions")" ]
}

# Two builds at once (two test runs, `make run` beside `make test`): the second one waits, then finds the cache current.
exec 9>"$OUT/.lock"; flock 9
if cache_is_current; then echo "$OUT"; exit 0; fi

for program in apt-get dpkg-deb objdump strip modinfo cpio gzip mke2fs qemu-img; do
  command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null \
    || { echo "build-tiny: $program is missing; install the packages of deploy/packages-run.txt" >&2; exit 3; }
done
PATH=$PATH:/usr/sbin:/sbin
if ! current_versions >/dev/null; then
  [ "$(id -u)" = 0 ] || { echo "build-tiny: apt knows no ${PACKAGES[*]}; run apt-get update as root" >&2; exit 3; }
  apt-get -q update >&2
fi

W=$(mktemp -d); trap 'rm -rf "$W"' EXIT; cd "$W"
current_versions > versions
echo "build-tiny: building $(tr '\n' ' ' < versions)" >&2

# --- packages: as apt would install them on an empty machine, only unpacked. No maintainer script runs. -------------------------
mkdir -p debs/partial kernel-debs/partial tree k lists; : > empty-status
fetch() {
  local into=$1; shift
  apt-get -qq -y -o Dir::State::status="$W/empty-status" -o Dir::Cache::archives="$W/$into" -o APT::Sandbox::User="$(id -un)" \
    -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o Dir::State::extended_states="$W/empty-status" \
    --download-only "$@" >&2
}
fetch debs install qemu-guest-agent busybox-static
for deb in debs/*.deb; do dpkg-deb -x "$deb" tree; done
KERNEL=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
# Not by `install`: its dependencies (initramfs-tools and all below) would come with it.
(cd kernel-debs; apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$KERNEL" >&2)
dpkg-deb -x kernel-debs/linux-image-*.deb k
KV=$(ls k/lib/modules); MODULES=k/lib/modules/$KV/kernel

# --- skeleton ---------------------------------------------------------------------------------------------------------------------
mkdir -p r/{bin,sbin,proc,sys,dev,run,tmp,mnt,seed,lib/modules,lib64,root,usr/sbin,usr/share/udhcpc,var/run,var/log}
mkdir -p r/etc/acpi/PWRF
cp tree/bin/busybox r/bin/busybox
for applet in $(r/bin/busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "r/bin/$applet"; done

# --- qemu-ga and exactly the libraries it needs -------------------------------------------------------------------------------------
copy_elf() {  # copy_elf PATH_IN_TREE PATH_IN_ROOT: the file and, recursively, what it is linked against
  local library path
  cp -L "tree$1" "r$2"
  for library in $(objdump -p "tree$1" | awk '/NEEDED/{print $2}'); do
    [ ! -e "r/lib/$library" ] || continue
    path=$(find tree/lib tree/usr/lib tree/lib64 -name "$library" 2>/dev/null | head -1)
    [ -n "$path" ] || { echo "build-tiny: no package holds $library" >&2; exit 4; }
    case $library in
      ld-linux*) cp -L "$path" "r/lib64/$library"; ln -sf "../lib64/$library" "r/lib/$library" ;;
      *) copy_elf "${path#tree}" "/lib/$library" ;;
    esac
  done
}
copy_elf /usr/sbin/qemu-ga /usr/sbin/qemu-ga

# --- modules, in the order in which they are loaded: each after what it depends on ----------------------------------------------------
add_module() {  # by name; a module that is built into the kernel has no file and needs none
  local path dependency
  path=$(find "$MODULES" -name "$1.ko" -o -name "${1//_/-}.ko" | head -1)
  [ -n "$path" ] && ! grep -qx "$1" r/lib/modules/order || return 0
  for dependency in $(modinfo -F depends "$path" | tr ',-' ' _'); do add_module "$dependency"; done
  cp "$path" "r/lib/modules/$1.ko"; echo "$1" >> r/lib/modules/order
}
: > r/lib/modules/order
for module in virtio_ring virtio virtio_pci virtio_blk virtio_net virtio_console virtio_balloon ext4 isofs evdev button; do
  add_module "$module"
done
strip --strip-debug r/lib/modules/*.ko

# --- scripts of the guest ---------------------------------------------------------------------------------------------------------------
cat > r/usr/share/udhcpc/default.script <<'X'
#!/bin/sh
case $1 in bound|renew)
  ifconfig $interface $ip netmask $subnet; [ -n "$router" ] && route add default gw $router
  : >/etc/resolv.conf; for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
  echo "IP $ip" >/dev/console;; esac
X
cat > r/etc/profile <<'X'
export HOME=/mnt TERM=linux PATH=/sbin:/bin:/usr/sbin PS1='\h:\w\$ '
cd /mnt
X
cat > r/init <<'X'
#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/pts /dev/virtio-ports; mount -t devpts x /dev/pts; ln -sf /proc/self/fd /dev/fd
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module.ko; done
hostname tiny; ifconfig lo 127.0.0.1

[ -b /dev/vda ] && mount -t ext4 -o commit=1 /dev/vda /mnt && [ -x /mnt/boot.sh ] && /mnt/boot.sh

# NoCloud (YAML or one line of JSON): the first disk that is an ISO with a meta-data file. The instance id tells a rebuilt desktop from a restarted one.
value() { tr '{},' '\n' </seed/meta-data | sed -n "s/^ *[\"']\{0,1\}$1[\"']\{0,1\} *: *[\"']\{0,1\}\([^\"',]*\)[\"',]*.*/\1/p" | head -1; }
for disk in /dev/vdb /dev/vdc /dev/vdd; do
  [ -b $disk ] && mount -t iso9660 -o ro $disk /seed 2>/dev/null || continue
  [ -e /seed/meta-data ] || { umount /seed; continue; }
  name=$(value local-hostname); [ -n "$name" ] && hostname "$name"
  echo "instance-id $(value instance-id)" >/run/seeded
  grep -q ' /mnt ' /proc/mounts && cp /run/seeded /mnt/.seeded
  break
done
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts

[ -d /sys/class/net/eth0 ] && { ifconfig eth0 up
  udhcpc -i eth0 -s /usr/share/udhcpc/default.script -b -t 8 -T 1 -A 2 -x hostname:$(hostname) -S >/dev/null 2>&1 & }
for port in /sys/class/virtio-ports/*; do [ -e $port/name ] && ln -sf ../${port##*/} /dev/virtio-ports/$(cat $port/name); done
AGENT=/dev/virtio-ports/org.qemu.guest_agent.0
[ -e $AGENT ] && qemu-ga -d -m virtio-serial -p $AGENT -t /run -f /run/ga.pid
acpid -l /dev/null

# setsid and a tty as standard input: the shell gets a controlling terminal, so typing, Ctrl-C and echo work at once.
printf '\033[H\033[2JDeskyard tiny desktop %s. Files in /mnt stay with this desktop.\n\n' "$(hostname)" >/dev/tty1
( while :; do setsid sh -c 'exec sh -l </dev/tty1 >/dev/tty1 2>&1'; sleep 1; done ) &
sync; echo "TINY READY $(cut -d' ' -f1 /proc/uptime)" >/dev/console
while :; do if [ -c /dev/ttyS0 ]; then setsid cttyhack sh -l; else sleep 3600; fi; sleep 1; done
X
# The agent calls /sbin/shutdown -h -P|-r|-H +0 (seen in qemu-ga 7.2); the power button calls PWRF/00000080.
cat > r/sbin/shutdown <<'X'
#!/bin/sh
sync; umount /mnt 2>/dev/null || mount -o remount,ro /mnt 2>/dev/null
case " $* " in *" -r "*) exec /bin/reboot -f;; *) exec /bin/poweroff -f;; esac
X
printf '#!/bin/sh\nexec /sbin/shutdown -P\n' > r/etc/acpi/PWRF/00000080
printf '#!/bin/sh\nexec /sbin/shutdown -P\n' > r/sbin/poweroff
printf '#!/bin/sh\nexec /sbin/shutdown -r\n' > r/sbin/reboot
chmod +x r/usr/share/udhcpc/default.script r/init r/sbin/* r/etc/acpi/PWRF/00000080

# --- what a clone inherits ----------------------------------------------------------------------------------------------------------------
mkdir gold; echo golden > gold/hostname
cat > gold/boot.sh <<'X'
#!/bin/sh
# Runs at every boot, from the desktop's own disk: counts the boots and names the machine (a NoCloud seed's name wins).
boots=$(cat /mnt/count 2>/dev/null || echo 0); echo $((boots+1)) >/mnt/count
[ -f /mnt/hostname ] && hostname $(cat /mnt/hostname); sync
X
chmod +x gold/boot.sh
mke2fs -q -t ext4 -d gold -E root_owner=0:0 -L golden gold.raw 64M >&2
qemu-img convert -O qcow2 -o compat=1.1 gold.raw golden.qcow2

# --- into place: the file `versions` last, for it alone says that the rest belongs together -------------------------------------------------
(cd r; find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) | gzip -1n > initrd.gz
cp k/boot/vmlinuz-* vmlinuz
chmod 644 "${PRODUCTS[@]}" versions
rm -f "$OUT/versions"
for product in "${PRODUCTS[@]}" versions; do cp "$product" "$OUT/.$product.new"; mv "$OUT/.$product.new" "$OUT/$product"; done
echo "$OUT"
