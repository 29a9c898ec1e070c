"""What a machine from a recovery point becomes on HyperCore. Pure.

HyperCore's words: vendor's field notes, "Disk create" and "NIC create"; `NVRAM` for UEFI machines is what the vendor's
Ansible collection asks for (module `vm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connectors.errors import NotFound, Unsupported
from connectors.hypercore import mapping
from connectors.hypercore.mapping import MIB
from connectors.replication import LandingWish, choose_bus, neutral_bus
from disks.vault.points import Drive

OFFERED = ("virtio", "scsi", "ide")
TYPES = {bus: kind for kind, bus in mapping.BUSES.items()}
IDE_PLACES = 4
NVRAM_BYTES = 540_672
NICS = (
    ("virtio", "VIRTIO"),
    ("e1000", "INTEL_E1000"),
    ("intel", "INTEL_E1000"),
    ("rtl8139", "RTL8139"),
    ("pcnet", "PCNET"),
    ("vlance", "PCNET"),
)
"""What models of other platforms begin with or hold -> HyperCore's."""
PLAIN_NIC = "INTEL_E1000"
"""For a model that there is not here: every usual system has a driver for it."""


@dataclass(frozen=True, slots=True)
class PlacedDisk:
    name: str
    size: int
    type: str
    slot: int


@dataclass(frozen=True, slots=True)
class PlacedNic:
    type: str
    mac: str
    vlan: int
    is_connected: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """The whole machine, but for its name and stamp."""

    vcpus: int
    memory: int
    firmware: str
    disks: tuple[PlacedDisk, ...]
    nics: tuple[PlacedNic, ...]
    warnings: tuple[str, ...] = ()


def decide(wish: LandingWish) -> Hardware:
    """Raises `NotFound` for a network that cannot be one, `Unsupported` for a machine without disks."""
    configuration = wish.configuration
    if not configuration.disks:
        raise Unsupported(f"The recovery point of {wish.name!r} holds no disk. Choose one that has its disks.")
    disks, warnings = _disks(configuration.disks, wish.booted_on)
    nics = []
    for place, nic in enumerate(configuration.nics):
        network = wish.networks[place] if place < len(wish.networks) else ""
        vlan = mapping.vlan_of(network) if network else 0
        if vlan is None:
            raise NotFound(f"There is no network {network!r} on HyperCore: networks here are VLANs.")
        kind = nic_type(nic.model)
        if not kind:
            warnings.append(
                f"Network card {place + 1} is an Intel E1000: HyperCore has no {nic.model or 'card of its model'}. The "
                "system may set its addresses anew."
            )
        nics.append(PlacedNic(kind or PLAIN_NIC, nic.mac.lower(), vlan, bool(network)))
    if configuration.secure_boot:
        warnings.append(
            "HyperCore cannot be told here whether Secure Boot is on: look at the machine's settings before its start."
        )
    firmware = "uefi" if configuration.firmware == "uefi" else "bios"
    return Hardware(
        configuration.vcpus, configuration.memory_mib * MIB, firmware, tuple(disks), tuple(nics), tuple(warnings)
    )


def _disks(drives: Sequence[Drive], booted_on: Sequence[str]) -> tuple[list[PlacedDisk], list[str]]:
    """Each where it was, if HyperCore has that; one word to the administrator for all of them."""
    placed: list[PlacedDisk] = []
    warnings: list[str] = []
    taken = dict.fromkeys(OFFERED, 0)
    for drive in drives:
        bus, warning = choose_bus(OFFERED, neutral_bus(drive.bus), booted_on)
        if bus == "ide" and taken["ide"] == IDE_PLACES:
            bus, warning = (
                "virtio",
                (
                    f"Disk {drive.name} hangs on VIRTIO: HyperCore has {IDE_PLACES} IDE disks at most. The system "
                    "needs a driver for it."
                ),
            )
        if warning and warning not in warnings:
            warnings.append(warning)
        placed.append(PlacedDisk(drive.name, drive.size, TYPES[bus], taken[bus]))
        taken[bus] += 1
    return placed, warnings


def nic_type(model: str) -> str:
    """ "" for one that HyperCore does not have."""
    plain = "".join(letter for letter in model.lower() if letter.isalnum())
    return next((kind for word, kind in NICS if word in plain), "")
