"""What a HyperCore cluster knows of its machines beside what every platform knows. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lab.nouns import Machine
from lab.world import SECTOR, World

MIB = 1024 * 1024
DISKS = ("VIRTIO_DISK", "IDE_DISK", "SCSI_DISK")
SINGLES = ("NVRAM", "VTPM")
TYPES = (*DISKS, "IDE_CDROM", "IDE_FLOPPY", *SINGLES)
CACHE_MODES = ("NONE", "WRITEBACK", "WRITETHROUGH")
NIC_TYPES = ("VIRTIO", "INTEL_E1000", "RTL8139", "PCNET")
COPY_MIB = 64
"""What a fresh thin copy takes of the storage."""


@dataclass(slots=True)
class Device:
    """A block device. Its id stays the same across snapshots."""

    uuid: str
    type: str
    capacity: int
    cache_mode: str = "NONE"
    slot: int = 0
    name: str = ""
    path: str = ""
    disk: str = ""
    """The world's disk with its bytes; empty for drives without a medium."""
    has_new_identity: bool = False
    """Its disk signature was regenerated: what is on it does not boot any more."""
    serial: int = 1


@dataclass(slots=True)
class Point:
    """A VirDomainSnapshot: the devices as they were, with bytes of their own."""

    uuid: str
    domain: str
    label: str
    kind: str
    replication: bool
    taken_at: float
    devices: list[Device]
    boot: list[str]
    serials: dict[str, int]


@dataclass(slots=True)
class Iso:
    """An image to be put into CD-ROM drives."""

    uuid: str
    name: str
    size: int
    content: bytes = b""
    is_ready: bool = False

    @property
    def path(self) -> str:
        return f"scribe/iso/{self.uuid}"


@dataclass(slots=True)
class Extra:
    """What a VirDomain has beside name, size, NICs and power."""

    tags: str = ""
    description: str = ""
    devices: list[Device] = field(default_factory=list)
    boot: list[str] = field(default_factory=list)
    cloud_init: dict[str, str] = field(default_factory=lambda: {"userData": "", "metaData": ""})
    affinity: dict[str, Any] = field(
        default_factory=lambda: {"strictAffinity": False, "preferredNodeUUID": "", "backupNodeUUID": ""}
    )
    machine_type: str = "scale-7.2"
    machine_type_keyword: str = "bios"
    operating_system: str = "os_other"
    labels: dict[str, Any] = field(default_factory=dict)
    schedule: str = ""
    replica_of: str = ""
    nic_types: dict[str, str] = field(default_factory=dict)
    latest: str = ""
    """Id of the world's task that worked on it last."""
    boots_s: float = 0.0
    """How long its guest takes to boot if it can boot at all."""


def extra_of(world: World, machine: Machine) -> Extra:
    """Made when first asked for: machines that the world itself made have disks, and boot from the first."""
    found = machine.marks.get("hypercore")
    if isinstance(found, Extra):
        return found
    extra = Extra(boots_s=machine.guest.boots_s)
    for slot, disk in enumerate(machine.disks):
        capacity = world.disks[disk].capacity
        extra.devices.append(Device(world.new_id(), "VIRTIO_DISK", capacity, slot=slot, disk=disk))
    extra.boot = [device.uuid for device in extra.devices[:1]]
    machine.marks["hypercore"] = extra
    return extra


def copy_bytes(world: World, device: Device) -> str:
    """A thin copy of the device's disk that depends on nobody, or "". Raises `OutOfStorage`."""
    if not device.disk:
        return ""
    original = world.disks[device.disk]
    return world.copy_disk(original.id, linked=False, used_mib=min(COPY_MIB, original.capacity_mib)).id


def disk_size(capacity: int) -> int:
    """What the world's disk has for a device of so many bytes: whole sectors, and never nothing."""
    return max(MIB, -(-capacity // SECTOR) * SECTOR)


def free_slot(devices: list[Device], kind: str) -> int:
    """IDE devices share one bus of four places."""
    bus = kind.split("_")[0]
    taken = {device.slot for device in devices if device.type.split("_")[0] == bus}
    return next(slot for slot in range(1000) if slot not in taken)


def sync_disks(machine: Machine, extra: Extra) -> None:
    """The world's own list of what belongs to the machine."""
    machine.disks = [device.disk for device in extra.devices if device.disk]
