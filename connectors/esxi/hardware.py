"""What a landed machine is made of: a recovery point's configuration, of whatever maker, in vSphere's words. Pure.

What the system in the point has drivers for counts most: a controller or card that vSphere has too is kept as it was.
For what it does not have, the machine gets what every system knows, and a warning says so.
Devices and their numbers: vSphere Web Services API reference, VirtualController and below; "Configuration Maximums".
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.errors import Unsupported
from connectors.esxi import mapping
from connectors.esxi.api import type_named, vim
from connectors.replication import choose_bus, neutral_bus, require_landable
from disks.vault.points import Configuration, Drive, Nic

BEST = "pvscsi"
KINDS = {
    "pvscsi": "ParaVirtualSCSIController",
    "lsilogic": "VirtualLsiLogicController",
    "lsilogicsas": "VirtualLsiLogicSASController",
    "buslogic": "VirtualBusLogicController",
    "nvme": "VirtualNVMEController",
    "sata": "VirtualAHCIController",
    "ide": "VirtualIDEController",
}
"""What disks hang on, by the words of recovery points."""
OWN_WORDS = {
    "pvscsi": "pvscsi", "vmpvscsi": "pvscsi", "paravirtual": "pvscsi", "lsilogic": "lsilogic", "buslogic": "buslogic",
    "lsilogicsas": "lsilogicsas", "lsisas1068": "lsilogicsas",
}  # fmt: skip
"""SCSI controllers that are the very same hardware here. "SCSI" alone may be anything."""
NIC_KINDS = {
    "vmxnet3": "VirtualVmxnet3", "e1000": "VirtualE1000", "intele1000": "VirtualE1000", "e1000e": "VirtualE1000e",
}  # fmt: skip
KNOWN_NIC = "e1000e"
"""What every system has a driver for."""

CONTROLLERS = 4
"""Of one family at most; IDE has two."""
PLACES: Mapping[str, tuple[int, ...]] = {
    "scsi": (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15),  # 7 is the controller itself
    "nvme": tuple(range(15)),
    "sata": tuple(range(30)),
    "ide": (0, 1),
}
FIRST_IDE = 200
"""Keys of the two IDE controllers, which every machine has."""


@dataclass(frozen=True, slots=True)
class PlacedDisk:
    name: str
    kind: str
    bus: int
    unit: int
    size: int
    """In bytes: whole KiB, as vSphere counts them."""

    @property
    def device(self) -> str:
        return f"{self.kind}{self.bus}:{self.unit}"


@dataclass(frozen=True, slots=True)
class PlacedNic:
    kind: str
    mac: str
    """As the source had it; "" for one that vSphere makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    vcpus: int
    memory_mib: int
    is_uefi: bool
    has_secure_boot: bool
    disks: tuple[PlacedDisk, ...]
    nics: tuple[PlacedNic, ...]
    warnings: tuple[str, ...]


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(wished: Configuration, networks: Sequence[str], booted_on: Sequence[str], taken: frozenset[str]) -> Hardware:
    """`taken` are MACs of other machines, in small letters. Raises `Unsupported`."""
    require_landable(wished, networks)
    warnings: list[str] = []
    disks = _place(wished.disks, booted_on, warnings)
    nics = _nics(wished.nics, taken, warnings)
    warnings.append(
        "vSphere is not told which operating system is in the machine: it has it as another 64-bit one. Set it in the "
        "machine's options."
    )
    return Hardware(
        vcpus=wished.vcpus,
        memory_mib=-(-wished.memory_mib // 4) * 4,  # vSphere takes multiples of 4 alone
        is_uefi=wished.firmware == "uefi",
        has_secure_boot=wished.firmware == "uefi" and wished.secure_boot,
        disks=disks,
        nics=nics,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _place(disks: Sequence[Drive], booted_on: Sequence[str], warnings: list[str]) -> tuple[PlacedDisk, ...]:
    placed: list[PlacedDisk] = []
    for disk in disks:
        own = OWN_WORDS.get(_plain(disk.bus), "")
        offered = [own or BEST, "nvme", "sata"]
        if sum(one.kind == KINDS["ide"] for one in placed) < 2 * len(PLACES["ide"]):
            offered.append("ide")
        bus, warning = choose_bus(offered, own or neutral_bus(disk.bus), booted_on)
        if warning:
            warnings.append(warning)
        number, unit = _free_place(placed, bus, disk.name)
        placed.append(PlacedDisk(disk.name, KINDS[bus], number, unit, -(-disk.size // 1024) * 1024))
    return tuple(placed)


def _family(kind: str) -> str:
    return {"VirtualNVMEController": "nvme", "VirtualAHCIController": "sata", "VirtualIDEController": "ide"}.get(
        kind, "scsi"
    )


def _free_place(placed: Sequence[PlacedDisk], bus: str, name: str) -> tuple[int, int]:
    """The first place on a controller of that kind; numbers count through a family. Raises `Unsupported`."""
    kind, family = KINDS[bus], _family(KINDS[bus])
    for number in range(2 if family == "ide" else CONTROLLERS):
        there = [one for one in placed if _family(one.kind) == family and one.bus == number]
        if any(one.kind != kind for one in there):
            continue
        used = {one.unit for one in there}
        for unit in PLACES[family]:
            if unit not in used:
                return number, unit
    raise Unsupported(f"vSphere has no place for disk {name}: its {len(placed)} others fill what there is.")


def _nics(nics: Sequence[Nic], taken: frozenset[str], warnings: list[str]) -> tuple[PlacedNic, ...]:
    placed: list[PlacedNic] = []
    for number, nic in enumerate(nics, start=1):
        kind = NIC_KINDS.get(_plain(nic.model))
        if kind is None:
            kind = NIC_KINDS[KNOWN_NIC]
            warnings.append(
                f"Network card {number} is a new one for the system, {KNOWN_NIC}: it was "
                f"{nic.model or 'of no known kind'}. What was set for it inside, such as a fixed address, is to be set "
                "anew."
            )
        mac = usable_mac(nic.mac)
        if nic.mac and (not mac or mac in taken or mac in {one.mac for one in placed}):
            mac = ""
            warnings.append(
                f"Network card {number} gets another hardware address than {nic.mac}, which another machine has or "
                "vSphere gives to machines of its own. Addresses that DHCP reserves for it do not follow."
            )
        placed.append(PlacedNic(kind, mac))
    return tuple(placed)


def usable_mac(mac: str) -> str:
    """In vSphere's spelling; "" for none, for what is no card's, and for what vSphere lets nobody set: the ranges that
    its hosts and vCenters give out themselves (00:0c:29, 00:05:69, 00:50:56 from 40 on; vSphere Networking guide, "MAC
    Addresses")."""
    digits = _plain(mac)
    if len(digits) != 12 or any(digit not in string.hexdigits for digit in digits):
        return ""
    if int(digits[1], 16) & 1 or not int(digits, 16):
        return ""
    if digits[:6] in ("000c29", "000569") or (digits[:6] == "005056" and int(digits[6:8], 16) > 0x3F):
        return ""
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


# --- writing ---------------------------------------------------------------------------------------------------------


def config_spec(
    found: Hardware,
    *,
    name: str,
    uuid: str,
    store: str,
    sockets: Sequence[mapping.Socket | None],
    spare: mapping.Socket,
    marks: Mapping[str, str],
) -> Any:
    """The machine as vSphere is asked for it. A card without a socket is plugged into `spare`, and not connected:
    vSphere has no card that is plugged into nothing."""
    spec = vim.vm.ConfigSpec(
        name=name,
        instanceUuid=uuid,
        guestId="otherGuest64",
        numCPUs=found.vcpus,
        memoryMB=found.memory_mib,
        firmware="efi" if found.is_uefi else "bios",
        files=vim.vm.FileInfo(vmPathName=f"[{store}]"),
        extraConfig=mapping.options(marks),
        deviceChange=[*_controllers(found.disks), *_disks(found.disks), *_cards(found.nics, sockets, spare)],
    )
    if found.has_secure_boot:
        spec.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=True)
    return spec


def _key(disk: PlacedDisk) -> int:
    """Of its controller: a negative one is a new one's, of which vSphere makes a real one."""
    if disk.kind == KINDS["ide"]:
        return FIRST_IDE + disk.bus
    return -(1000 * (1 + list(KINDS.values()).index(disk.kind)) + disk.bus)


def _controllers(disks: Sequence[PlacedDisk]) -> list[Any]:
    changes = {}
    for disk in disks:
        if disk.kind == KINDS["ide"] or _key(disk) in changes:
            continue
        made: Any = type_named(disk.kind)(key=_key(disk), busNumber=disk.bus)
        if _family(disk.kind) == "scsi":
            made.sharedBus = "noSharing"
        changes[_key(disk)] = vim.vm.device.VirtualDeviceSpec(operation="add", device=made)
    return list(changes.values())


def _disks(disks: Sequence[PlacedDisk]) -> list[Any]:
    return [
        vim.vm.device.VirtualDeviceSpec(
            operation="add",
            fileOperation="create",
            device=vim.vm.device.VirtualDisk(
                key=-100 - index,
                controllerKey=_key(disk),
                unitNumber=disk.unit,
                capacityInKB=disk.size // 1024,
                capacityInBytes=disk.size,
                backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                    fileName="", diskMode="persistent", thinProvisioned=True
                ),
            ),
        )
        for index, disk in enumerate(disks)
    ]


def _cards(nics: Sequence[PlacedNic], sockets: Sequence[mapping.Socket | None], spare: mapping.Socket) -> list[Any]:
    changes = []
    for index, nic in enumerate(nics):
        socket = sockets[index] if index < len(sockets) else None
        card: Any = type_named(nic.kind)(
            key=-200 - index,
            backing=mapping.nic_backing(socket or spare),
            addressType="manual" if nic.mac else "generated",
            connectable=vim.vm.device.VirtualDevice.ConnectInfo(
                startConnected=socket is not None, allowGuestControl=True, connected=False
            ),
        )
        if nic.mac:
            card.macAddress = nic.mac
        changes.append(vim.vm.device.VirtualDeviceSpec(operation="add", device=card))
    return changes
