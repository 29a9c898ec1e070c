"""Machines as recovery points know them <-> AHV's. Pure.

AHV's buses: SCSI is virtio-scsi and PCI is virtio-blk, so both want virtio drivers in the guest; SATA and IDE do not.
Q35 is the chipset of secure boot and knows no IDE (ntnx_vmm_py_client 4.3.2, `MachineType`).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.base import Stamp
from connectors.errors import Unsupported
from connectors.nutanix import mapping
from connectors.nutanix.client import Json
from connectors.nutanix.mapping import MIB
from connectors.replication import choose_bus, neutral_bus, require_landable
from disks.vault.points import Configuration, Drive, Nic

TOLD = {"SCSI": "virtio-scsi", "PCI": "virtio", "SATA": "sata", "IDE": "ide"}
"""What a bus is called in points: "SCSI" alone would tell other platforms nothing about the drivers it needs."""
BUSES = {"scsi": "SCSI", "virtio": "PCI", "sata": "SATA", "ide": "IDE"}
"""Neutral word -> Prism's, best first."""
ROOM = {"SCSI": 256, "PCI": 6, "SATA": 6, "IDE": 4}
"""How many disks a bus takes; not in any paper of the vendor's that was at hand, so they are chosen low."""
NIC_MODELS = {"virtio": "VIRTIO", "virtionet": "VIRTIO", "normalnic": "VIRTIO", "e1000": "E1000", "intele1000": "E1000"}
KNOWN_NIC = "E1000"
"""Every system has a driver for it."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A machine's disk of its own, or a volume group."""

    name: str
    """By its place, such as "scsi-0": the same in the stand-in, and after a disk was replaced."""
    id: str
    bus: str
    """In Prism's word."""
    index: int
    size: int
    is_volume_group: bool


def read_disks(seen: Json) -> list[Disk]:
    """CD-ROMs are not among them."""
    found = []
    for at, item in enumerate(seen.get("disks") or ()):
        if not isinstance(item, dict):
            continue
        address, backing = _object(item, "diskAddress"), _object(item, "backingInfo")
        bus, index, size = address.get("busType"), address.get("index"), backing.get("diskSizeBytes")
        bus = bus if isinstance(bus, str) else "SCSI"
        place = index if isinstance(index, int) else at
        found.append(
            Disk(
                name=f"{bus.lower()}-{place}",
                id=str(backing.get("diskExtId") or item.get("extId") or ""),
                bus=bus,
                index=place,
                size=size if isinstance(size, int) else 0,
                is_volume_group=str(backing.get("$objectType", "")).endswith("ADSFVolumeGroupReference"),
            )
        )
    return found


def read_configuration(seen: Json, disks: Sequence[Disk], networks: Mapping[str, str]) -> Configuration:
    """`networks`: subnet -> its name."""
    vm, boot = mapping.read_vm(seen), _object(seen, "bootConfig")
    is_uefi = str(boot.get("$objectType", "")).endswith("UefiBoot")
    return Configuration(
        vcpus=vm.vcpus,
        memory_mib=vm.memory_mib,
        firmware="uefi" if is_uefi else "bios",
        secure_boot=is_uefi and boot.get("isSecureBootEnabled") is True,
        nics=tuple(_read_nic(item, networks) for item in seen.get("nics") or () if isinstance(item, dict)),
        disks=tuple(Drive(disk.name, TOLD.get(disk.bus, disk.bus.lower()), disk.size) for disk in disks),
    )


def _read_nic(item: Json, networks: Mapping[str, str]) -> Nic:
    backing = _object(item, "nicBackingInfo") or _object(item, "backingInfo")
    info = _object(item, "nicNetworkInfo") or _object(item, "networkInfo")
    subnet = str(_object(info, "subnet").get("extId") or "")
    model = str(backing.get("model") or "VIRTIO").lower()  # real ones leave it out
    return Nic(model, str(backing.get("macAddress") or ""), networks.get(subnet, subnet))


def macs_of(seen: Json) -> list[str]:
    nics = [item for item in seen.get("nics") or () if isinstance(item, dict)]
    return [mac.lower() for nic in nics if (mac := _read_nic(nic, {}).mac)]


def can_quiesce(seen: Json) -> bool:
    """Whether Nutanix Guest Tools answer and can bring the guest to rest."""
    tools = _object(seen, "guestTools")
    capabilities = tools.get("capabilities")
    return (
        tools.get("isInstalled") is True
        and tools.get("isReachable") is True
        and isinstance(capabilities, list)
        and "VSS_SNAPSHOT" in capabilities
    )


def _object(seen: Json, name: str) -> Json:
    value = seen.get(name)
    return value if isinstance(value, dict) else {}


# --- deciding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlacedDisk:
    name: str
    """As the point has it."""
    bus: str
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class PlacedNic:
    model: str
    mac: str
    """Empty: Prism gives one."""
    subnet: str
    is_connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that is decided about a landed machine before its disks are written."""

    vcpus: int
    memory_mib: int
    is_uefi: bool
    has_secure_boot: bool
    disks: tuple[PlacedDisk, ...]
    nics: tuple[PlacedNic, ...]
    warnings: tuple[str, ...]


def decide(
    wished: Configuration, networks: Sequence[str], spare: str, booted_on: Sequence[str], taken: frozenset[str]
) -> Machine:
    """The machine for a configuration.

    `networks` are subnets, empty for a card that is not connected; such a card is filed under the subnet `spare`, since
    AHV has none without. `taken` are MAC addresses of other machines. Raises `Unsupported`.
    """
    require_landable(wished, networks)
    warnings: list[str] = []
    is_uefi = wished.firmware == "uefi"
    disks = _place(wished, booted_on, warnings)
    nics = _nics(wished, networks, spare, taken, warnings)
    return Machine(
        vcpus=wished.vcpus,
        memory_mib=wished.memory_mib,
        is_uefi=is_uefi,
        has_secure_boot=is_uefi and wished.secure_boot,
        disks=disks,
        nics=nics,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _place(wished: Configuration, booted_on: Sequence[str], warnings: list[str]) -> tuple[PlacedDisk, ...]:
    """SCSI is for systems that had virtio-scsi before: other SCSI is other hardware."""
    placed: list[PlacedDisk] = []
    for disk in wished.disks:
        room = {bus: ROOM[word] > sum(one.bus == word for one in placed) for bus, word in BUSES.items()}
        room["ide"] &= not (wished.firmware == "uefi" and wished.secure_boot)
        has_other = any(room[bus] for bus in BUSES if bus != "scsi")
        room["scsi"] &= plain(disk.bus).startswith("virtioscsi") or not has_other
        offered = [bus for bus in BUSES if room[bus]]
        if not offered:
            raise Unsupported(f"The machine has more disks than AHV takes: {len(wished.disks)}.")
        bus, warning = choose_bus(offered, neutral_bus(disk.bus), booted_on)
        if warning:
            warnings.append(warning)
        word = BUSES[bus]
        placed.append(PlacedDisk(disk.name, word, sum(one.bus == word for one in placed), disk.size))
    return tuple(placed)


def _nics(
    wished: Configuration, networks: Sequence[str], spare: str, taken: frozenset[str], warnings: list[str]
) -> tuple[PlacedNic, ...]:
    placed: list[PlacedNic] = []
    for number, nic in enumerate(wished.nics, start=1):
        network = networks[number - 1] if number <= len(networks) else ""
        if not network and not spare:
            warnings.append(
                f"Network card {number} is left out: AHV has none without a subnet, and there is no subnet."
            )
            continue
        model = NIC_MODELS.get(plain(nic.model))
        if model is None:
            model = KNOWN_NIC
            warnings.append(
                f"Network card {number} is a new one for the system, {model}: it was {nic.model or 'of no known kind'}."
                " What was set for it inside, such as a fixed address, is to be set anew."
            )
        mac = usable_mac(nic.mac)
        if mac and (mac in taken or mac in {one.mac for one in placed}):
            warnings.append(
                f"Network card {number} has another address: another machine has its own, {mac}. Addresses that DHCP "
                "reserves for it do not follow."
            )
            mac = ""
        placed.append(PlacedNic(model, mac, network or spare, bool(network)))
    return tuple(placed)


def plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def usable_mac(mac: str) -> str:
    """In Prism's spelling; empty for what is no single card's address."""
    digits = plain(mac)
    if len(digits) != 12 or any(digit not in string.hexdigits for digit in digits):
        return ""
    if int(digits[1], 16) & 1 or not int(digits, 16):
        return ""
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


# --- writing ---------------------------------------------------------------------------------------------------------


def vm_body(
    machine: Machine, *, name: str, stamp: Stamp, cluster: str, container: str, images: Mapping[str, str],
    version: tuple[int, int], template_category: str | None,
) -> dict[str, Any]:  # fmt: skip
    """A machine that is off, whose disks are copies of images. `images`: disk's name -> image. `template_category`: id
    of what marks templates, empty where nothing does; None: it is no template.

    One socket: desktop editions of Windows use two at most.
    """
    return {
        "$objectType": "vmm.v4.ahv.config.Vm",
        "name": name,
        "description": mapping.stamped("", stamp) if template_category is None else mapping.template_mark(stamp),
        **({"categories": [{"extId": template_category}]} if template_category else {}),
        "numSockets": 1,
        "numCoresPerSocket": machine.vcpus,
        "memorySizeBytes": machine.memory_mib * MIB,
        "cluster": {"extId": cluster},
        "machineType": "Q35" if machine.has_secure_boot else "PC",
        "bootConfig": _boot(machine),
        "disks": [_disk(disk, container, images[disk.name]) for disk in machine.disks],
        "nics": [_nic(nic, version) for nic in machine.nics],
    }


def _boot(machine: Machine) -> dict[str, Any]:
    if machine.is_uefi:
        return {"$objectType": "vmm.v4.ahv.config.UefiBoot", "isSecureBootEnabled": machine.has_secure_boot}
    first = {"$objectType": "vmm.v4.ahv.config.BootDeviceDisk", "diskAddress": _address(machine.disks[0])}
    return {"$objectType": "vmm.v4.ahv.config.LegacyBoot", "bootDevice": first}


def _address(disk: PlacedDisk) -> dict[str, Any]:
    return {"busType": disk.bus, "index": disk.index}


def _disk(disk: PlacedDisk, container: str, image: str) -> dict[str, Any]:
    return {
        "$objectType": "vmm.v4.ahv.config.Disk",
        "diskAddress": _address(disk),
        "backingInfo": {
            "$objectType": "vmm.v4.ahv.config.VmDisk",
            "storageContainer": {"extId": container},
            "dataSource": {
                "reference": {"$objectType": "vmm.v4.ahv.config.ImageReference", "imageExtId": image},
            },
        },
    }


def _nic(nic: PlacedNic, version: tuple[int, int]) -> dict[str, Any]:
    backing: dict[str, Any] = {"model": nic.model, "isConnected": nic.is_connected}
    if nic.mac:
        backing["macAddress"] = nic.mac
    info: dict[str, Any] = {"nicType": "NORMAL_NIC", "subnet": {"extId": nic.subnet}}
    if version >= (4, 1):
        return {
            "$objectType": "vmm.v4.ahv.config.Nic",
            "nicBackingInfo": {"$objectType": "vmm.v4.ahv.config.VirtualEthernetNic", **backing},
            "nicNetworkInfo": {"$objectType": "vmm.v4.ahv.config.VirtualEthernetNicNetworkInfo", **info},
        }
    return {"$objectType": "vmm.v4.ahv.config.Nic", "backingInfo": backing, "networkInfo": info}
