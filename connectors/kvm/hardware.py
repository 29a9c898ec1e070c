"""What a landed machine is made of: a recovery point's configuration, of whatever maker, in libvirt's words. Pure.

What the system in the point has drivers for counts most. So a controller or card that QEMU has too is kept as it was,
VMware's included; for what it does not have, the machine gets what every system knows, and a warning says so.
Devices: https://libvirt.org/formatdomain.html, formatdomaincaps.html; seen on libvirt 9.0, QEMU 7.2.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from connectors.errors import Unsupported
from connectors.kvm import mapping, names
from connectors.replication import choose_bus, neutral_bus, require_landable
from disks.vault.points import Configuration, Drive

MODERN, OLD = "q35", "pc"
"""The chipsets: with PCI Express and SATA, as all our machines have it, and the one that alone has IDE."""
BEST_FIRST = ("virtio", "scsi", "sata", "ide")
PREFIXES = {"virtio": "vd", "ide": "hd", "scsi": "sd", "sata": "sd"}
IDE_DISKS = 4
SCSI_DISKS = 7
"""On one controller: the least that one of them takes."""

SCSI_CONTROLLERS = {
    "virtioscsi": "virtio-scsi",
    "pvscsi": "vmpvscsi",
    "vmpvscsi": "vmpvscsi",
    "paravirtual": "vmpvscsi",
    "lsilogicsas": "lsisas1068",
    "lsisas1068": "lsisas1068",
    "lsisas1078": "lsisas1078",
}
"""What is the very same hardware here. "SCSI" alone may be anything, VMware's "lsilogic" is none of QEMU's."""

NIC_MODELS = {
    "virtio": "virtio",
    "virtionet": "virtio",
    "normalnic": "virtio",  # Nutanix
    "vmxnet3": "vmxnet3",
    "e1000": "e1000",
    "intele1000": "e1000",  # Scale Computing
    "e1000e": "e1000e",
    "rtl8139": "rtl8139",
    "pcnet": "pcnet",
    "pcnet32": "pcnet",
    "vlance": "pcnet",
}
KNOWN_NIC = {MODERN: "e1000e", OLD: "e1000"}
"""Cards that every system has a driver for."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host has for machines of one chipset."""

    buses: frozenset[str]
    has_uefi: bool
    has_secure_boot: bool


@dataclass(frozen=True, slots=True)
class PlacedDisk:
    name: str
    """As the point has it."""
    target: str
    bus: str
    size: int


@dataclass(frozen=True, slots=True)
class PlacedNic:
    model: str
    mac: str
    """As the source had it; "" if it had none that can be used."""
    network: str
    """Name of the libvirt network; "": not connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that is decided about a landed machine before its disks are written."""

    chipset: str
    vcpus: int
    memory_mib: int
    is_uefi: bool
    has_secure_boot: bool
    scsi_controller: str
    disks: tuple[PlacedDisk, ...]
    nics: tuple[PlacedNic, ...]
    warnings: tuple[str, ...]


def read_offer(capabilities: str) -> Offer:
    """From the capabilities of domains of that chipset."""
    root = mapping.parse(capabilities)

    def told(path: str) -> frozenset[str]:
        return frozenset(value.text or "" for value in root.iterfind(f"{path}/value"))

    return Offer(
        buses=told("devices/disk/enum[@name='bus']"),
        has_uefi="efi" in told("os/enum[@name='firmware']"),
        has_secure_boot="yes" in told("os/loader/enum[@name='secure']"),
    )


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(
    wished: Configuration, offers: Mapping[str, Offer], networks: Sequence[str], booted_on: Sequence[str]
) -> Machine:
    """The machine for a configuration on a host that has these chipsets; `networks` are names, as `PlacedNic` has them.

    Raises `Unsupported` for what cannot be made so that it has a chance to boot.
    """
    require_landable(wished, networks)
    if MODERN not in offers:
        raise Unsupported(f"This host runs no machines of the kind {MODERN}. Choose another host.")
    chipset = _chipset(wished, offers)
    offer = offers[chipset]
    warnings: list[str] = []
    is_uefi, has_secure_boot = _firmware(wished, offer, warnings)
    controller = _scsi_controller(wished.disks)
    disks = _place(wished.disks, offer, controller, booted_on, warnings)
    nics = tuple(_nics(wished, chipset, networks, warnings))
    return Machine(
        chipset=chipset,
        vcpus=wished.vcpus,
        memory_mib=wished.memory_mib,
        is_uefi=is_uefi,
        has_secure_boot=has_secure_boot,
        scsi_controller=controller,
        disks=disks,
        nics=nics,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _chipset(wished: Configuration, offers: Mapping[str, Offer]) -> str:
    """The old one for a system that boots from IDE: it may know nothing else."""
    is_old = neutral_bus(wished.disks[0].bus) == "ide" and wished.firmware == "bios"
    return OLD if is_old and OLD in offers and "ide" in offers[OLD].buses else MODERN


def _firmware(wished: Configuration, offer: Offer, warnings: list[str]) -> tuple[bool, bool]:
    if wished.firmware != "uefi":
        return False, False
    if not offer.has_uefi:
        raise Unsupported(
            "The machine boots by UEFI, and this host has no UEFI firmware for its machines. Install it there (Debian: "
            "apt-get install ovmf), or choose another host."
        )
    if wished.secure_boot and not offer.has_secure_boot:
        warnings.append("Secure Boot is off: this host has no firmware for it.")
    return True, wished.secure_boot and offer.has_secure_boot


def _scsi_controller(disks: Sequence[Drive]) -> str:
    """Of the first disk that hangs on one that QEMU has too; "" if none does. A machine has one kind."""
    found = (SCSI_CONTROLLERS.get(_plain(disk.bus)) for disk in disks)
    return next((model for model in found if model), "")


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _place(
    disks: Sequence[Drive], offer: Offer, controller: str, booted_on: Sequence[str], warnings: list[str]
) -> tuple[PlacedDisk, ...]:
    """Every disk on the bus that fits it, under a name that tells libvirt its place there."""
    placed: list[PlacedDisk] = []
    for disk in disks:
        fits = {
            "scsi": controller != "" and SCSI_CONTROLLERS.get(_plain(disk.bus)) == controller,
            "ide": sum(one.bus == "ide" for one in placed) < IDE_DISKS,
        }
        offered = [bus for bus in BEST_FIRST if bus in offer.buses and fits.get(bus, True)]
        if not offered:
            raise Unsupported("This host has no bus for disks that is known here. Choose another host.")
        bus, warning = choose_bus(offered, neutral_bus(disk.bus), booted_on)
        if warning:
            warnings.append(warning)
        taken = sum(PREFIXES[one.bus] == PREFIXES[bus] for one in placed)
        placed.append(PlacedDisk(disk.name, disk_name(PREFIXES[bus], taken), bus, disk.size))
    return tuple(placed)


def disk_name(prefix: str, number: int) -> str:
    """vda … vdz, vdaa …: as Linux and libvirt count disks."""
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, len(string.ascii_lowercase))
        letters = string.ascii_lowercase[letter] + letters
    return prefix + letters


def _nics(wished: Configuration, chipset: str, networks: Sequence[str], warnings: list[str]) -> Iterator[PlacedNic]:
    for number, nic in enumerate(wished.nics, start=1):
        model = NIC_MODELS.get(_plain(nic.model))
        if model is None:
            model = KNOWN_NIC[chipset]
            warnings.append(
                f"Network card {number} is a new one for the system, {model}: it was {nic.model or 'of no known kind'}."
                " What was set for it inside, such as a fixed address, is to be set anew."
            )
        yield PlacedNic(model, usable_mac(nic.mac), networks[number - 1] if number <= len(networks) else "")


def usable_mac(mac: str) -> str:
    """In libvirt's spelling; "" for none, for one that cannot be read and for one that is no single card's."""
    digits = mac.lower().replace("-", "").replace(":", "").replace(".", "")
    if len(digits) != 12 or any(digit not in string.hexdigits for digit in digits):
        return ""
    if int(digits[1], 16) & 1 or not int(digits, 16):
        return ""
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def choose_macs(machine: Machine, key: str, taken: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One a card: its own where no other machine of the host has it, else a new one, the same at every attempt. And
    what that means, in words."""
    macs: list[str] = []
    warnings: list[str] = []
    for number, nic in enumerate(machine.nics):
        mac = nic.mac
        if not mac or mac in taken or mac in macs:
            mac = names.mac_of(key, number)
            if nic.mac:
                warnings.append(
                    f"Network card {number + 1} has another address, {mac}: a machine of this host has its own, "
                    f"{nic.mac}. Addresses that DHCP reserves for it do not follow."
                )
        macs.append(mac)
    return tuple(macs), tuple(warnings)


# --- writing ---------------------------------------------------------------------------------------------------------


def skeleton_xml(machine: Machine) -> str:
    """The machine as a definition without identity, files and accesses: what `mapping.clone_xml` makes a machine of."""
    root = etree.Element("domain", type="kvm")
    etree.SubElement(root, "memory", unit="MiB").text = str(machine.memory_mib)
    etree.SubElement(root, "vcpu").text = str(machine.vcpus)
    _write_firmware(root, machine)
    features = etree.SubElement(root, "features")
    for feature in ("acpi", "apic"):
        etree.SubElement(features, feature)
    if machine.has_secure_boot:
        etree.SubElement(features, "smm", state="on")
    # One socket: desktop editions of Windows use two at most.
    cpu = etree.SubElement(root, "cpu", mode="host-passthrough")
    etree.SubElement(cpu, "topology", sockets="1", dies="1", cores=str(machine.vcpus), threads="1")
    etree.SubElement(root, "clock", offset="utc")
    etree.SubElement(root, "on_reboot").text = "restart"
    devices = etree.SubElement(root, "devices")
    for order, disk in enumerate(machine.disks, start=1):
        _write_disk(devices, disk, order)
    _write_scsi(devices, machine.scsi_controller)
    for nic in machine.nics:
        _write_nic(devices, nic)
    etree.SubElement(devices, "serial", type="pty")
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name=mapping.AGENT_CHANNEL)
    etree.SubElement(devices, "input", type="tablet", bus="usb")  # a pointer that is where the viewer's is
    balloon = etree.SubElement(devices, "memballoon", model="virtio")
    etree.SubElement(balloon, "stats", period="2")
    return etree.tostring(root, encoding="unicode")


def _write_firmware(root: mapping.Element, machine: Machine) -> None:
    boot = etree.SubElement(root, "os")
    etree.SubElement(boot, "type", arch="x86_64", machine=machine.chipset).text = "hvm"
    if not machine.is_uefi:
        return
    boot.set("firmware", "efi")
    secure = "yes" if machine.has_secure_boot else "no"
    firmware = etree.SubElement(boot, "firmware")
    for name in ("enrolled-keys", "secure-boot"):
        etree.SubElement(firmware, "feature", enabled=secure, name=name)


def _write_disk(devices: mapping.Element, placed: PlacedDisk, order: int) -> None:
    disk = etree.SubElement(devices, "disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    etree.SubElement(disk, "target", dev=placed.target, bus=placed.bus)
    etree.SubElement(disk, "boot", order=str(order))


def _write_scsi(devices: mapping.Element, controller: str) -> None:
    """The controllers, and every disk as a target of its own: VMware's know no second unit of one, and libvirt would
    make controllers of a kind of its own choice and hang all disks on one target."""
    disks = devices.xpath("disk[target/@bus='scsi']")
    for number, disk in enumerate(disks):
        index, target = (str(part) for part in divmod(number, SCSI_DISKS))
        etree.SubElement(disk, "address", type="drive", controller=index, bus="0", target=target, unit="0")
        if target == "0":
            etree.SubElement(devices, "controller", type="scsi", index=index, model=controller)


def _write_nic(devices: mapping.Element, placed: PlacedNic) -> None:
    if placed.network:
        nic = etree.SubElement(devices, "interface", type="network")
        etree.SubElement(nic, "source", network=placed.network)
    else:
        # A card on no network. (libvirt's own word for that, "null", ends the daemon of libvirt 9.0 at the start.)
        nic = etree.SubElement(devices, "interface", type="ethernet")
        etree.SubElement(nic, "link", state="down")
    etree.SubElement(nic, "model", type=placed.model)
