"""Makes a template of the tiny guest in a libvirt storage pool: for `make run`, the laboratory and tests.

Library: `define_tiny_template(conn, images_dir, pool_name, domain_type, name) -> uuid`. Command:
`tiny_template.py [--uri qemu:///system] [--pool default] [--type qemu|kvm] [--name tiny] [--remove] [IMAGES_DIR]`.
Never touches a volume or a domain whose name does not begin with the template's own name.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import IO, Any, Literal
from xml.sax.saxutils import escape

import libvirt
from lxml import etree

DomainType = Literal["qemu", "kvm"]

MEMORY_MIB = 128
"""96 would do; below that the guest's agent is killed for lack of memory."""

COMMAND_LINE = (
    "console=tty0 console=ttyS0 quiet loglevel=1 mitigations=off nokaslr tsc=reliable no_timer_check noreplace-smp"
    " cryptomgr.notests reboot=t panic=-1"
)
"""Without what costs an emulated processor most: checking its clocks, patching its own code, testing ciphers."""


class TemplateInUse(Exception):
    """The template has linked clones; remove those first. `args[0]` says which volumes they are."""


def define_tiny_template(
    conn: libvirt.virConnect,
    images_dir: Path,
    pool_name: str,
    domain_type: DomainType,
    name: str,
    network: str | None = "default",
) -> str:
    """The uuid of the shut-off domain `name`, whose kernel, initrd and golden disk are volumes of the pool.

    Idempotent. `images_dir` is what build-tiny.sh made. The volumes bear the build's key in their names: a newer build
    gets new volumes under the same domain and uuid, and the old ones stay for the clones that hang from them. `network`
    None means user networking (session daemons have no other). The domain is defined last, so an interrupted run is
    repaired by the next one.
    """
    pool = conn.storagePoolLookupByName(pool_name)
    pool.refresh()
    prefix = f"{name}-{build_key(images_dir)}"
    domain = _domain(conn, name)
    if domain is not None and _disk_path(domain) == _volume_path(pool, f"{prefix}.qcow2"):
        defined = _parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        if defined.get("type") == domain_type:
            return str(domain.UUIDString())
    else:
        for product, suffix, image_format in (
            ("vmlinuz", "-vmlinuz", "raw"),
            ("initrd.gz", "-initrd.gz", "raw"),
            ("golden.qcow2", ".qcow2", "qcow2"),
        ):
            _upload(conn, pool, images_dir / product, f"{prefix}{suffix}", image_format)
        pool.refresh()
    paths = {part: _volume_path(pool, f"{prefix}{part}") for part in ("-vmlinuz", "-initrd.gz", ".qcow2")}
    uuid = str(domain.UUIDString()) if domain is not None else None
    xml = _domain_xml(
        name=name,
        uuid=uuid,
        domain_type=domain_type,
        kernel=str(paths["-vmlinuz"]),
        initrd=str(paths["-initrd.gz"]),
        disk=str(paths[".qcow2"]),
        network=network,
    )
    return str(conn.defineXML(xml).UUIDString())


def remove_tiny_template(conn: libvirt.virConnect, pool_name: str, name: str) -> None:
    """Undefines the domain and deletes its volumes, of all builds. Raises TemplateInUse while a linked clone is left.

    Removing what is not there succeeds.
    """
    pool = conn.storagePoolLookupByName(pool_name)
    pool.refresh()
    ours = {volume.path(): volume for volume in pool.listAllVolumes() if _is_ours(volume.name(), name)}
    clones = [volume.name() for volume in pool.listAllVolumes() if _backing_path(volume) in ours]
    if clones:
        raise TemplateInUse(f"Cannot remove template {name}: these volumes hang from it: {', '.join(sorted(clones))}.")
    domain = _domain(conn, name)
    if domain is not None:
        domain.undefine()
    for volume in ours.values():
        volume.delete()


def build_key(images_dir: Path) -> str:
    """Eight hexadecimal digits that differ between two builds of the tiny guest."""
    return hashlib.sha256((images_dir / "versions").read_bytes()).hexdigest()[:8]


def _is_ours(volume_name: str, template_name: str) -> bool:
    rest = volume_name.removeprefix(f"{template_name}-")
    if rest == volume_name:
        return False
    key, suffix = rest[:8], rest[8:]
    return suffix in ("-vmlinuz", "-initrd.gz", ".qcow2") and all(digit in "0123456789abcdef" for digit in key)


def _domain(conn: libvirt.virConnect, name: str) -> Any | None:
    return next((domain for domain in conn.listAllDomains() if domain.name() == name), None)


def _disk_path(domain: Any) -> str | None:
    source = _parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).find("devices/disk/source")
    return None if source is None else source.get("file")


def _volume_path(pool: Any, volume_name: str) -> str | None:
    return next((str(volume.path()) for volume in pool.listAllVolumes() if volume.name() == volume_name), None)


def _backing_path(volume: Any) -> str | None:
    return _parse(volume.XMLDesc(0)).findtext("backingStore/path")


def _parse(xml: str) -> etree._Element:
    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))


def _upload(conn: libvirt.virConnect, pool: Any, source: Path, volume_name: str, image_format: str) -> None:
    """Puts the file into the pool under that name, replacing what an interrupted run left there."""
    for volume in pool.listAllVolumes():
        if volume.name() == volume_name:
            volume.delete()
    size = source.stat().st_size
    # Mode 0644: QEMU runs as a user of its own, and several guests share kernel, initrd and golden disk; libvirt gives
    # a file back to root when the first of them stops.
    volume = pool.createXML(
        f"<volume><name>{escape(volume_name)}</name><capacity unit='bytes'>{size}</capacity>"
        f"<target><format type='{image_format}'/><permissions><mode>0644</mode></permissions></target>"
        "</volume>"
    )
    stream = conn.newStream()
    with source.open("rb") as file:
        volume.upload(stream, 0, size)
        stream.sendAll(_read_piece, file)
    stream.finish()


def _read_piece(_stream: Any, count: int, file: IO[bytes]) -> bytes:
    return file.read(count)


def _domain_xml(
    *,
    name: str,
    uuid: str | None,
    domain_type: DomainType,
    kernel: str,
    initrd: str,
    disk: str,
    network: str | None,
) -> str:
    emulated = domain_type == "qemu"
    # QEMU's translation cache is by default far larger than this guest: it decides how many fit into a machine.
    cache = "<tcg><tb-cache unit='MiB'>32</tb-cache></tcg>" if emulated else ""
    cpu = "<cpu mode='custom'><model>qemu64</model></cpu>" if emulated else "<cpu mode='host-model'/>"
    source = f"<source network='{escape(network)}'/>" if network else ""
    interface = f"<interface type='{'network' if network else 'user'}'>{source}<model type='virtio'/></interface>"
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"""<domain type='{domain_type}'><name>{escape(name)}</name>{identity}<title>Tiny desktop</title>
<description>Linux with a shell and the QEMU guest agent; users' files live in /mnt.</description>
<memory unit='MiB'>{MEMORY_MIB}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{escape(kernel)}</kernel><initrd>{escape(initrd)}</initrd>
<cmdline>{COMMAND_LINE}</cmdline></os>
<features><acpi/><apic/>{cache}</features>{cpu}<clock offset='utc'/><on_reboot>restart</on_reboot>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='{escape(disk)}'/>
<target dev='vda' bus='virtio'/></disk>
{interface}
<serial type='pty'/>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/><video><model type='vga' vram='16384'/></video>
<memballoon model='virtio'><stats period='2'/></memballoon>
</devices></domain>"""


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make (or remove) a template of the tiny guest; prints its uuid.")
    parser.add_argument(
        "images_dir", nargs="?", type=Path, default=Path("var/images/tiny"), help="what build-tiny.sh made"
    )
    parser.add_argument("--uri", default="qemu:///system")
    parser.add_argument("--pool", default="default")
    parser.add_argument("--type", dest="domain_type", choices=("qemu", "kvm"), default="qemu")
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--network", default="default", help="'' means user networking")
    parser.add_argument("--remove", action="store_true", help="remove the template and its volumes")
    return parser.parse_args(argv)


def main() -> int:
    """The command; exit status 1 with one line on standard error when libvirt refuses."""
    chosen = _arguments(sys.argv[1:])
    libvirt.registerErrorHandler(lambda *_: None, None)  # libvirt prints its errors besides raising them
    try:
        conn = libvirt.open(chosen.uri)
        if chosen.remove:
            remove_tiny_template(conn, chosen.pool, chosen.name)
            return 0
        network = chosen.network or None
        print(define_tiny_template(conn, chosen.images_dir, chosen.pool, chosen.domain_type, chosen.name, network))
    except (libvirt.libvirtError, TemplateInUse, FileNotFoundError) as error:
        print(f"tiny_template: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
