"""What a landed machine is made of on Hyper-V: generation, controllers, adapters, and what could not be kept. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from connectors.errors import Unsupported
from connectors.replication import choose_bus, neutral_bus
from disks.vault.points import Configuration, Nic

IDE = (("IDE", 0, 0), ("IDE", 0, 1), ("IDE", 1, 1))
"""Of generation 1, which starts from IDE alone; New-VM puts a DVD drive at 1, 0."""
SCSI_PLACES = 64
OWN_NIC = "synthetic"
"""Hyper-V's own card, and the only one that is given here; what a recovery point calls it."""
_MAC = re.compile(r"[0-9A-F][02468ACE][0-9A-F]{10}")
"""Of one adapter, not of a group."""


@dataclass(frozen=True, slots=True)
class Place:
    disk: str
    size: int
    controller: str
    controller_number: int
    location: int


@dataclass(frozen=True, slots=True)
class Adapter:
    switch: str
    """Empty: not connected."""
    vlan: int
    mac: str
    """Empty: Hyper-V's choice."""


@dataclass(frozen=True, slots=True)
class Build:
    generation: int
    vcpus: int
    memory_mib: int
    places: tuple[Place, ...]
    adapters: tuple[Adapter, ...]
    warnings: tuple[str, ...]


def decide(
    configuration: Configuration,
    networks: Sequence[tuple[str, int]],
    booted_on: Sequence[str],
    taken: Collection[str],
) -> Build:
    """`networks`: switch and VLAN for each adapter, in order; `taken`: addresses that adapters of the host have.

    Raises `Unsupported`.
    """
    is_uefi = configuration.firmware == "uefi"
    places, warnings = _places(configuration, booted_on, is_uefi=is_uefi)
    adapters, more = _adapters(configuration.nics, networks, taken)
    warnings += more
    if configuration.secure_boot:
        warnings.append(
            "Secure boot is off: Hyper-V wants to be told whose signature to trust, Windows' or that of the UEFI "
            "authority for others. Choose one in the machine's settings and switch it on."
        )
    memory_mib = configuration.memory_mib + configuration.memory_mib % 2
    if memory_mib != configuration.memory_mib:
        warnings.append(f"The machine has {memory_mib} MiB of memory: Hyper-V counts in steps of 2 MiB.")
    return Build(2 if is_uefi else 1, configuration.vcpus, memory_mib, places, adapters, tuple(warnings))


def _places(
    configuration: Configuration, booted_on: Sequence[str], *, is_uefi: bool
) -> tuple[tuple[Place, ...], list[str]]:
    disks = configuration.disks
    if not disks:
        raise Unsupported("The recovery point holds no disk, so there is nothing to bring up. Choose another point.")
    slots = [*(() if is_uefi else IDE), *(("SCSI", 0, location) for location in range(SCSI_PLACES))]
    if len(disks) > len(slots):
        raise Unsupported(f"The machine has {len(disks)} disks, and Hyper-V takes {len(slots)} of them at most here.")
    _, is_doubtful = choose_bus(("scsi",), neutral_bus(disks[0].bus), booted_on)
    warnings = []
    if is_uefi and is_doubtful:
        warnings.append(
            "The disks hang on Hyper-V's SCSI, the only bus with UEFI, and this system is not known to boot on it. If "
            "it does not start, add Hyper-V's drivers (hv_storvsc) where it stood, and copy it again."
        )
    if not is_uefi and len(disks) > len(IDE):
        warnings.append(f"The disks after the {len(IDE)}rd hang on SCSI: with BIOS Hyper-V has no more room on IDE.")
    found = tuple(Place(disk.name, disk.size, *slot) for disk, slot in zip(disks, slots, strict=False))
    return found, warnings


def _adapters(
    nics: Sequence[Nic], networks: Sequence[tuple[str, int]], taken: Collection[str]
) -> tuple[tuple[Adapter, ...], list[str]]:
    found, warnings, used = [], [], {mac.upper() for mac in taken}
    for number in range(max(len(nics), len(networks))):
        switch, vlan = networks[number] if number < len(networks) else ("", 0)
        was, model = (nics[number].mac, nics[number].model) if number < len(nics) else ("", OWN_NIC)
        if model != OWN_NIC:
            warnings.append(
                f"Network adapter {number + 1} is a new one for the system, Hyper-V's own: it was "
                f"{model or 'of no known kind'}. What was set for it inside, such as a fixed address, is to be set "
                "anew."
            )
        mac = re.sub(r"[^0-9A-F]", "", was.upper())
        if was and (mac in used or not _MAC.fullmatch(mac)):
            warnings.append(
                f"Network adapter {number + 1} has a new address, for {was} is in use on this host or is none. Look "
                "whether anything in the guest or the network goes by it."
            )
            mac = ""
        used.add(mac)
        found.append(Adapter(switch, vlan, mac))
    return tuple(found), warnings


def told(build: Build) -> Mapping[str, object]:
    """As the landing script takes it. Disks go by their number, in order."""
    return {
        "generation": build.generation,
        "vcpus": build.vcpus,
        "memory_mib": build.memory_mib,
        "disks": [
            {
                "number": number,
                "controller": place.controller,
                "controller_number": place.controller_number,
                "location": place.location,
            }
            for number, place in enumerate(build.places)
        ],
        "networks": [{"switch": it.switch, "vlan": it.vlan, "mac": it.mac} for it in build.adapters],
    }
