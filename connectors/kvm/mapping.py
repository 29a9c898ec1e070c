"""libvirt's XML <-> our data. Pure: nothing here talks to a hypervisor.

XML is read with entities and network off, and written by setting values on a tree, so that no name or text can break
it. Formats: https://libvirt.org/formatdomain.html, formatstorage.html, formatsnapshot.html; seen on libvirt 9.0, QEMU
7.2.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

from lxml import etree

from connectors.base import Stamp
from connectors.errors import PlatformFault

NAMESPACE = "urn:deskyard:machine:1"
"""libvirt keeps one metadata element per namespace; this one is ours."""
MARK = f"{{{NAMESPACE}}}machine"
HELD_NAMESPACE = "urn:deskyard:held:1"
"""Of the mark that a machine bears while `held` has it, beside the other one."""
HELD = f"{{{HELD_NAMESPACE}}}held"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
VNC_SHUT_UNTIL = "1970-01-02T00:00:00"
"""A time long past as a password's end: the screen lets nobody in until `OpenScreen` sets a new password."""
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)

Element = etree._Element


class Role(StrEnum):
    """What a marked domain is to Deskyard."""

    MACHINE = "machine"
    TEMPLATE = "template"
    PROBE = "probe"
    """The tiny guest of `ProbeAcceleration`, and QEMU where it only writes on a disk; never listed."""


@dataclass(frozen=True, slots=True)
class Disk:
    target: str
    bus: str
    device: str
    """"disk", "cdrom", "floppy" or "lun"."""
    source: str
    """"file", "volume", "block", "network", or "" for an empty drive."""
    path: str = ""
    pool: str = ""
    volume: str = ""
    format: str = "raw"
    is_readonly: bool = False

    @property
    def is_written(self) -> bool:
        """Whether a machine keeps data here: what a clone needs a copy of."""
        return self.device in ("disk", "lun") and not self.is_readonly


@dataclass(frozen=True, slots=True)
class Nic:
    mac: str
    network: str
    """Name of the libvirt network, or of the bridge."""
    model: str = ""
    """"virtio", "e1000", …"""


@dataclass(frozen=True, slots=True)
class Graphics:
    kind: str
    port: int
    """-1 while the machine is off."""
    listen: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as its XML tells."""

    uuid: str
    name: str
    virt_type: str
    vcpus: int
    memory_mib: int
    stamp: Stamp | None = None
    role: Role | None = None
    reverted_by: str = ""
    """Key of the order that last reverted it."""
    restarted_by: str = ""
    """Key of the order that last restarted it."""
    is_marked_held: bool = False
    """Started for a point alone; `held.is_held` tells whether that still is so."""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    graphics: tuple[Graphics, ...] = ()
    agent_channel: str = ""
    """"" without a channel, else "connected" or "disconnected" (always the latter while the machine is off)."""


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A volume that takes the place of a template's disk."""

    target: str
    path: str
    format: str = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What makes a clone different from its template."""

    name: str
    uuid: str
    stamp: Stamp
    disks: tuple[NewDisk, ...]
    macs: tuple[str, ...]
    """One a NIC; as many as `networks` if those are given, else at least as many as the template has."""
    virt_type: str
    screen_password: str = field(repr=False)
    """Never told to anybody: it only makes QEMU demand one."""
    networks: tuple[str, ...] = ()
    """Names of libvirt networks, one a NIC; empty: as the template has them."""
    vcpus: int | None = None
    memory_mib: int | None = None
    seed_path: str = ""
    screen_listen: str = ""
    role: Role = Role.MACHINE


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(xml: str) -> Element:
    """The tree of a document. Raises `PlatformFault` if it is none."""
    try:
        return etree.fromstring(xml.encode(), _PARSER)
    except etree.XMLSyntaxError as error:
        raise PlatformFault("The hypervisor sent XML that cannot be read.", platform_words=str(error)) from error


def read_domain(xml: str) -> Domain:
    """A domain's XML (live or inactive) as data. Raises `PlatformFault`."""
    root = parse(xml)
    mark = root.find(f"metadata/{MARK}")
    return Domain(
        uuid=_text(root, "uuid"),
        name=_text(root, "name"),
        virt_type=root.get("type", ""),
        vcpus=int(_text(root, "vcpu") or 1),
        memory_mib=_memory_mib(root.find("memory")),
        stamp=_stamp(mark),
        role=_role(mark),
        reverted_by=mark.get("reverted", "") if mark is not None else "",
        restarted_by=mark.get("restarted", "") if mark is not None else "",
        is_marked_held=root.find(f"metadata/{HELD}") is not None,
        disks=tuple(_read_disk(disk) for disk in root.iterfind("devices/disk")),
        nics=tuple(_read_nic(nic) for nic in root.iterfind("devices/interface")),
        graphics=tuple(_read_graphics(graphics) for graphics in root.iterfind("devices/graphics")),
        agent_channel=_agent_channel(root),
    )


def _text(root: Element, path: str) -> str:
    return (root.findtext(path) or "").strip()


def _stamp(mark: Element | None) -> Stamp | None:
    if mark is None or not mark.get("installation") or not mark.get("key"):
        return None
    return Stamp(mark.get("installation", ""), mark.get("key", ""))


def _role(mark: Element | None) -> Role | None:
    if mark is None:
        return None
    known = {role.value: role for role in Role}
    return known.get(mark.get("role", ""), Role.MACHINE)


_UNIT_BYTES = {
    "b": 1, "bytes": 1, "KB": 10**3, "k": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip


def _memory_mib(memory: Element | None) -> int:
    if memory is None or not memory.text:
        return 0
    return int(memory.text) * _UNIT_BYTES.get(memory.get("unit", "KiB"), 2**10) // 2**20


def _read_disk(disk: Element) -> Disk:
    source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
    kind = disk.get("type", "") if source is not None and source.attrib else ""
    path = source.get("file") or source.get("dev") or "" if source is not None else ""
    return Disk(
        target=target.get("dev", "") if target is not None else "",
        bus=target.get("bus", "") if target is not None else "",
        device=disk.get("device", "disk"),
        source=kind,
        path=path,
        pool=source.get("pool", "") if source is not None else "",
        volume=source.get("volume", "") if source is not None else "",
        format=driver.get("type", "raw") if driver is not None else "raw",
        is_readonly=disk.find("readonly") is not None,
    )


def _read_nic(nic: Element) -> Nic:
    mac, source = nic.find("mac"), nic.find("source")
    network = source.get("network") or source.get("bridge") or "" if source is not None else ""
    model = nic.find("model")
    return Nic(
        mac=(mac.get("address", "") if mac is not None else "").lower(),
        network=network,
        model=model.get("type", "") if model is not None else "",
    )


def _read_graphics(graphics: Element) -> Graphics:
    listen = graphics.get("listen", "")
    for element in graphics.iterfind("listen"):
        listen = element.get("address", listen)
    return Graphics(kind=graphics.get("type", ""), port=int(graphics.get("port", "-1")), listen=listen)


def user_names(info: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Who is logged on, each once; None if the guest did not tell, which is not the same as nobody.

    `virDomainGetGuestInfo`: `user.count`, `user.N.name`, and `user.N.domain` for Windows.
    """
    count = info.get("user.count")
    if not isinstance(count, int):
        return None
    names = []
    for number in range(count):
        name, domain = str(info.get(f"user.{number}.name", "")), str(info.get(f"user.{number}.domain", ""))
        names.append(f"{domain}\\{name}" if domain else name)
    return tuple(dict.fromkeys(name for name in names if name))


def _agent_channel(root: Element) -> str:
    for target in root.iterfind("devices/channel/target"):
        if target.get("name") == AGENT_CHANNEL:
            return target.get("state", "disconnected")
    return ""


def scsi_controllers(xml: str) -> dict[str, str]:
    """Target of a disk that hangs on SCSI -> model of its controller, "" for one that names none."""
    root = parse(xml)
    models = {one.get("index"): one.get("model", "") for one in root.iterfind("devices/controller[@type='scsi']")}
    found = {}
    for disk in root.iterfind("devices/disk"):
        target, address = disk.find("target[@bus='scsi']"), disk.find("address[@type='drive']")
        if target is not None and address is not None:
            found[target.get("dev", "")] = models.get(address.get("controller"), "")
    return found


def guest_addresses(candidates: Iterable[str]) -> tuple[str, ...]:
    """Addresses a person could connect to: no loopback, no link-local; IPv4 first, each once, otherwise in order."""
    usable = []
    for candidate in candidates:
        try:
            address = ip_address(candidate)
        except ValueError:
            continue
        if not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast):
            usable.append(address)
    return tuple(dict.fromkeys(str(address) for address in sorted(usable, key=lambda address: address.version)))


def host_uuid(capabilities: str) -> str:
    """The host's uuid from libvirt's capabilities, "" if it names none."""
    return _text(parse(capabilities), "host/uuid")


def forward_mode(xml: str) -> str:
    """How a network reaches beyond itself: "nat", "bridge", ...; "" if it does not."""
    forward = parse(xml).find("forward")
    return "" if forward is None else forward.get("mode", "nat")


def pool_path(xml: str) -> str:
    """The folder of a storage pool."""
    return _text(parse(xml), "target/path")


def pool_type(xml: str) -> str:
    """What a storage pool is: "dir", "netfs", "logical", …"""
    return parse(xml).get("type", "")


def volume_backing(xml: str) -> str:
    """Path of the file a volume is an overlay of, "" if it stands alone."""
    return _text(parse(xml), "backingStore/path")


def has_uefi_variables(xml: str) -> bool:
    """Whether the machine has a store of UEFI variables of its own, which its deletion must take along. One whose
    firmware libvirt chooses gets it at its first start, and its definition does not say so."""
    root = parse(xml)
    return root.find("os/nvram") is not None or root.find("os[@firmware='efi']") is not None


def has_shares(xml: str) -> bool:
    """Whether the machine has been given CPU shares."""
    return parse(xml).find("cputune/shares") is not None


def has_emulated_tpm(xml: str) -> bool:
    """Whether the machine has a TPM whose state lies in files of the host."""
    return any(backend.get("type") == "emulator" for backend in parse(xml).iterfind("devices/tpm/backend"))


def snapshot_key(xml: str) -> str:
    """Key of the order that took a snapshot, "" for somebody else's."""
    description = _text(parse(xml), "description")
    return description.removeprefix(_SNAPSHOT_NOTE) if description.startswith(_SNAPSHOT_NOTE) else ""


# --- writing: machines -----------------------------------------------------------------------------------------------


def clone_xml(template_xml: str, plan: Blueprint) -> str:
    """Definition of a machine that is like the template but for what the blueprint names.

    Whatever two machines cannot share is taken out for libvirt to make anew: runtime names, fixed ports, log files,
    UEFI variables, generation ids.
    """
    root = parse(template_xml)
    root.attrib.pop("id", None)
    _set_text(root, "name", plan.name)
    _set_text(root, "uuid", plan.uuid)
    _drop(root, "title", "resource", "seclabel")
    for entry in root.iterfind("sysinfo/system/entry"):
        if entry.get("name") == "uuid":  # libvirt refuses one that differs from the machine's
            entry.text = plan.uuid
    if (generation := root.find("genid")) is not None:
        generation.text = None
    _set_mark(root, {"installation": plan.stamp.installation, "key": plan.stamp.key, "role": plan.role.value})
    _set_size(root, plan.vcpus, plan.memory_mib)
    _set_virt_type(root, plan.virt_type)
    _forget_uefi_variables(root)
    devices = _devices(root)
    _replace_disks(devices, {disk.target: disk for disk in plan.disks})
    _set_nics(devices, plan.networks, plan.macs)
    _unshare_devices(devices)
    _shut_screen(devices, plan.screen_password, plan.screen_listen)
    if plan.seed_path:
        devices.append(_seed_disk(devices, plan.seed_path))
    return _written(root)


def recycled_xml(machine_xml: str, template_xml: str, disks: Sequence[NewDisk], seed_path: str) -> str:
    """The machine's definition with the template's disks, on new volumes, in the place of all disks it had."""
    root = parse(machine_xml)
    devices, template_devices = _devices(root), _devices(parse(template_xml))
    for disk in devices.findall("disk"):
        devices.remove(disk)
    for disk in template_devices.findall("disk"):
        disk_copy = copy.deepcopy(disk)
        _drop(disk_copy, "address", "alias", "boot")
        devices.append(disk_copy)
    _replace_disks(devices, {disk.target: disk for disk in disks})
    if seed_path:
        devices.append(_seed_disk(devices, seed_path))
    return _written(root)


def reconfigured_xml(machine_xml: str, vcpus: int | None, memory_mib: int | None) -> str:
    """The machine's definition with another size."""
    root = parse(machine_xml)
    _set_size(root, vcpus, memory_mib)
    return _written(root)


def mark_xml(stamp: Stamp | None, role: Role, *, reverted: str = "", restarted: str = "") -> str:
    """The metadata element that `setMetadata` stores under our namespace."""
    mark = etree.Element("machine")
    for name, value in _mark_attributes(stamp, role, reverted=reverted, restarted=restarted).items():
        mark.set(name, value)
    return _written(mark)


def _mark_attributes(stamp: Stamp | None, role: Role, **orders: str) -> dict[str, str]:
    attributes = {"installation": stamp.installation, "key": stamp.key} if stamp else {}
    return attributes | {"role": role.value} | {name: key for name, key in orders.items() if key}


def _written(root: Element) -> str:
    return etree.tostring(root, encoding="unicode")


def _drop(parent: Element, *tags: str) -> None:
    for tag in tags:
        for element in parent.findall(tag):
            parent.remove(element)


def _child(parent: Element, tag: str) -> Element:
    found = parent.find(tag)
    return found if found is not None else etree.SubElement(parent, tag)


def _set_text(parent: Element, tag: str, value: str) -> None:
    _child(parent, tag).text = value


def _devices(root: Element) -> Element:
    return _child(root, "devices")


def _set_mark(root: Element, attributes: dict[str, str]) -> None:
    metadata = _child(root, "metadata")
    _drop(metadata, MARK, HELD)
    mark = etree.SubElement(metadata, MARK, nsmap={"deskyard": NAMESPACE})
    for name, value in attributes.items():
        mark.set(name, value)


def _set_size(root: Element, vcpus: int | None, memory_mib: int | None) -> None:
    """Pinning, topology and NUMA cells name single CPUs and bytes: they fit only the size they were written for."""
    if vcpus is not None and str(vcpus) != _text(root, "vcpu"):
        _drop(root, "vcpus", "cputune")
        _set_text(root, "vcpu", str(vcpus))
        _child(root, "vcpu").attrib.pop("current", None)
        if (cpu := root.find("cpu")) is not None:
            _drop(cpu, "topology", "numa")
    if memory_mib is not None and memory_mib != _memory_mib(root.find("memory")):
        _drop(root, "maxMemory", "numatune")
        for tag in ("memory", "currentMemory"):
            element = _child(root, tag)
            element.set("unit", "MiB")
            element.text = str(memory_mib)
        if (cpu := root.find("cpu")) is not None:
            _drop(cpu, "numa")


def _set_virt_type(root: Element, virt_type: str) -> None:
    root.set("type", virt_type)
    cpu, features = root.find("cpu"), _child(root, "features")
    if virt_type == "qemu":
        # Emulation cannot pass the host's processor through; "maximum" is all that it can emulate.
        if cpu is not None and cpu.get("mode") in ("host-passthrough", "host-model"):
            cpu.attrib.clear()
            cpu.set("mode", "maximum")
            _drop(cpu, "model", "feature", "cache")
        _bound_translation_cache(features, _memory_mib(root.find("memory")))
    else:
        _drop(features, "tcg")
        if cpu is not None and cpu.get("mode") == "maximum":
            cpu.set("mode", "host-passthrough")


def _bound_translation_cache(features: Element, memory_mib: int) -> None:
    """QEMU's own default is far larger than a small guest; it decides how many emulated guests fit on a host."""
    if features.find("tcg/tb-cache") is not None:
        return
    cache = etree.SubElement(_child(features, "tcg"), "tb-cache", unit="MiB")
    cache.text = str(max(32, min(256, memory_mib // 4)))


def _forget_uefi_variables(root: Element) -> None:
    """libvirt makes a variable store per machine from the firmware's own template when none is named."""
    if (operating_system := root.find("os")) is not None and (nvram := operating_system.find("nvram")) is not None:
        if nvram.get("template"):
            nvram.text = None
        else:
            operating_system.remove(nvram)


def _replace_disks(devices: Element, new: dict[str, NewDisk]) -> None:
    for disk in devices.findall("disk"):
        _drop(disk, "backingStore", "alias", "mirror")
        target = disk.find("target")
        replacement = new.get(target.get("dev", "") if target is not None else "")
        if replacement is None:
            continue
        disk.set("type", "file")
        _drop(disk, "source")
        etree.SubElement(disk, "source", file=replacement.path)
        _child(disk, "driver").set("name", "qemu")
        _child(disk, "driver").set("type", replacement.format)


def _seed_disk(devices: Element, path: str) -> Element:
    """A read-only virtio disk, since cloud kernels have no driver for CD drives."""
    taken = {target.get("dev") for target in devices.iterfind("disk/target")}
    free = next(name for letter in string.ascii_lowercase if (name := f"vd{letter}") not in taken)
    disk = etree.Element("disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="raw")
    etree.SubElement(disk, "source", file=path)
    etree.SubElement(disk, "target", dev=free, bus="virtio")
    etree.SubElement(disk, "readonly")
    return disk


def _set_nics(devices: Element, networks: Sequence[str], macs: Sequence[str]) -> None:
    nics = devices.findall("interface")
    for spare in nics[len(networks) :] if networks else ():
        devices.remove(spare)
    while networks and len(nics) < len(networks):
        nics.append(_another_nic(devices, nics))
    for index, nic in enumerate(devices.findall("interface")):
        _drop(nic, "mac", "alias", "target")
        etree.SubElement(nic, "mac", address=macs[index])
        if networks:
            nic.set("type", "network")
            _drop(nic, "source")
            etree.SubElement(nic, "source", network=networks[index])
        elif (source := nic.find("source")) is not None:
            source.attrib.pop("portid", None)


def _another_nic(devices: Element, nics: Sequence[Element]) -> Element:
    nic = etree.SubElement(devices, "interface", type="network")
    model = nics[-1].find("model") if nics else None
    etree.SubElement(nic, "model", type=model.get("type", "virtio") if model is not None else "virtio")
    return nic


def _unshare_devices(devices: Element) -> None:
    for tag in ("serial", "console"):
        for device in devices.findall(tag):
            if device.get("type") in ("file", "unix", "tcp", "udp"):
                device.set("type", "pty")
                _drop(device, "source", "protocol", "log")
    for channel in devices.findall("channel"):
        if channel.get("type") == "unix":
            _drop(channel, "source")
    for device in devices.iter():
        if device.tag in ("serial", "console", "channel", "graphics", "video", "memballoon", "controller"):
            _drop(device, "alias")


def _shut_screen(devices: Element, password: str, listen: str) -> None:
    """QEMU demands a VNC password only of machines that were started with one, so every machine is."""
    graphics = next((found for found in devices.iterfind("graphics") if found.get("type") == "vnc"), None)
    if graphics is None:
        graphics = etree.SubElement(devices, "graphics", type="vnc")
        if devices.find("video") is None:
            etree.SubElement(etree.SubElement(devices, "video"), "model", type="vga")
    for name in ("socket", "websocket", "sharePolicy", "connected"):
        graphics.attrib.pop(name, None)
    for name, value in {"port": "-1", "autoport": "yes", "passwd": password, "passwdValidTo": VNC_SHUT_UNTIL}.items():
        graphics.set(name, value)
    if listen:
        _drop(graphics, "listen")
        graphics.set("listen", listen)


def screen_password_xml(live_xml: str, password: str, valid_to: str) -> str | None:
    """The live VNC device with another password until `valid_to` (UTC, `YYYY-MM-DDTHH:MM:SS`); None without VNC."""
    for graphics in parse(live_xml).iterfind("devices/graphics"):
        if graphics.get("type") == "vnc":
            graphics.set("passwd", password)
            graphics.set("passwdValidTo", valid_to)
            return _written(graphics)
    return None


PROBE_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=1 mitigations=off nokaslr tsc=reliable no_timer_check noreplace-smp"
    " cryptomgr.notests panic=-1"
)
"""The probe has ten seconds: nothing that an emulated processor is slow at."""


def probe_xml(*, name: str, uuid: str, stamp: Stamp, virt_type: str, kernel: str, initrd: str) -> str:
    """The tiny guest that shows whether an acceleration works: kernel, initrd and the agent's channel, nothing else."""
    root = etree.Element("domain", type=virt_type)
    _set_text(root, "name", name)
    _set_text(root, "uuid", uuid)
    _set_mark(root, _mark_attributes(stamp, Role.PROBE))
    _set_text(root, "memory", "128")
    _child(root, "memory").set("unit", "MiB")
    _set_text(root, "vcpu", "1")
    operating_system = etree.SubElement(root, "os")
    etree.SubElement(operating_system, "type", arch="x86_64", machine="q35").text = "hvm"
    etree.SubElement(operating_system, "kernel").text = kernel
    etree.SubElement(operating_system, "initrd").text = initrd
    etree.SubElement(operating_system, "cmdline").text = PROBE_COMMAND_LINE
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "acpi")
    etree.SubElement(features, "apic")
    if virt_type == "qemu":
        _bound_translation_cache(features, 128)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _set_text(root, event, "destroy")
    channel = etree.SubElement(_devices(root), "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    return _written(root)


# --- writing: volumes and snapshots ----------------------------------------------------------------------------------

_SNAPSHOT_NOTE = "deskyard order "


def overlay_xml(name: str, capacity_bytes: int, base_path: str, base_format: str) -> str:
    """A qcow2 overlay. `compat` must be 1.1: libvirt's default, 0.10, cannot store dirty bitmaps for replication."""
    volume = _volume(name, capacity_bytes)
    backing = etree.SubElement(volume, "backingStore")
    etree.SubElement(backing, "path").text = base_path
    etree.SubElement(backing, "format", type=base_format)
    return _written(volume)


def copy_xml(name: str, capacity_bytes: int) -> str:
    """A qcow2 volume that stands alone, to be filled from another one."""
    return _written(_volume(name, capacity_bytes))


def writer_xml(*, name: str, uuid: str, stamp: Stamp, virt_type: str, images: Mapping[str, str]) -> str:
    """A domain that never runs a guest: QEMU alone, to write on images (target -> path) as it can."""
    root = etree.Element("domain", type=virt_type)
    _set_text(root, "name", name)
    _set_text(root, "uuid", uuid)
    etree.SubElement(root, "memory", unit="MiB").text = "16"
    etree.SubElement(root, "vcpu").text = "1"
    etree.SubElement(etree.SubElement(root, "os"), "type", arch="x86_64").text = "hvm"
    _set_mark(root, _mark_attributes(stamp, Role.PROBE))
    devices = etree.SubElement(root, "devices")
    for target, path in images.items():
        disk = etree.SubElement(devices, "disk", type="file", device="disk")
        etree.SubElement(disk, "driver", name="qemu", type="qcow2")
        etree.SubElement(disk, "source", file=path)
        etree.SubElement(disk, "target", dev=target, bus="virtio")
    return _written(root)


def volume_state(xml: str) -> str:
    """What changes whenever a volume's file is written: when that was last, and how large it is."""
    volume = parse(xml)
    written = volume.findtext("target/timestamps/mtime") or ""
    return "/".join((written, volume.findtext("allocation") or "", volume.findtext("capacity") or ""))


def raw_volume_xml(name: str, size_bytes: int) -> str:
    volume = etree.Element("volume")
    _set_text(volume, "name", name)
    etree.SubElement(volume, "capacity", unit="bytes").text = str(size_bytes)
    etree.SubElement(etree.SubElement(volume, "target"), "format", type="raw")
    return _written(volume)


def _volume(name: str, capacity_bytes: int) -> Element:
    volume = etree.Element("volume")
    _set_text(volume, "name", name)
    etree.SubElement(volume, "capacity", unit="bytes").text = str(capacity_bytes)
    target = etree.SubElement(volume, "target")
    etree.SubElement(target, "format", type="qcow2")
    etree.SubElement(target, "compat").text = "1.1"
    return volume


def snapshot_xml(name: str, key: str) -> str:
    snapshot = etree.Element("domainsnapshot")
    _set_text(snapshot, "name", name)
    _set_text(snapshot, "description", f"{_SNAPSHOT_NOTE}{key}")
    return _written(snapshot)


def copy_mark_xml(uuid: str, usage: str) -> str:
    """An ephemeral secret that holds nothing: it marks that the daemon has lived since a copy began."""
    secret = etree.Element("secret", ephemeral="yes", private="yes")
    _set_text(secret, "uuid", uuid)
    _set_text(secret, "description", usage)
    _set_text(etree.SubElement(secret, "usage", type="volume"), "volume", usage)
    return _written(secret)
