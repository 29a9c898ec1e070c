"""HyperCore's records <-> our data. Pure.

Fields: the vendor's field notes (github.com/ScaleComputing/RestAPIExamples), its Ansible collection
(scale_computing.hypercore, plugins/module_utils: vm.py, disk.py, nic.py, node.py) and, for `/Node`, its inventory
scripts (numThreads, memSize, drives[].capacityBytes, usedBytes, currentDisposition). Sizes are bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote, unquote

from connectors.base import Agent, GuestSeed, Host, Machine, Network, Power, Stamp, Storage, Template

MIB = 1024 * 1024
Record = Mapping[str, Any]

# --- tags: what we keep with a machine -------------------------------------------------------------------------------

INSTALLATION, KEY = "deskyard-i-", "deskyard-k-"
TEMPLATE = "deskyard-template"
"""This machine is a template, though it may be switched on at times: set by an administrator, or by a landing of ours,
beside its stamp."""
EXCHANGING, OLD_DISK, WAS_ON = "deskyard-x-", "deskyard-o-", "deskyard-p-on"
EXCHANGED, RESTARTED = "deskyard-d-", "deskyard-b-"
PASSING, OF_MACHINE, OF_LANDING = "deskyard-t-", "deskyard-tm-", "deskyard-tl-"
OURS = "deskyard-"


@dataclass(frozen=True, slots=True)
class Passing:
    """What is on the cluster for a while only, and nobody's machine: the copy from which a point is read, and a machine
    that is not finished."""

    installation: str
    machine: str = ""
    """Whose point it is."""
    landing: str = ""
    """Key of the landing that makes it."""

    @property
    def tags(self) -> tuple[str, ...]:
        machine = (OF_MACHINE + quoted(self.machine),) if self.machine else ()
        landing = (OF_LANDING + quoted(self.landing),) if self.landing else ()
        return (PASSING + quoted(self.installation), *machine, *landing)


@dataclass(frozen=True, slots=True)
class Marks:
    """What the tags of a machine say, ours read and the others kept.

    HyperCore keeps tags as one text, "a,b", shown as groups in its web page by the first of them: ours come last.
    """

    others: tuple[str, ...] = ()
    stamp: Stamp | None = None
    is_template: bool = False
    exchanging: str = ""
    """Key of the order that is exchanging the disks now."""
    old_disks: tuple[str, ...] = ()
    """What was there before that exchange, and goes."""
    was_on: bool = False
    """Whether it was on before that exchange."""
    exchanged: str = ""
    """Key of the last order that exchanged the disks."""
    restarted: str = ""
    """Key of the last order that restarted the guest, or was about to."""
    passing: Passing | None = None
    """It is no machine, and goes or becomes one soon."""

    @property
    def text(self) -> str:
        ours = [
            *([TEMPLATE] if self.is_template else []),
            *stamp_tags(self.stamp),
            *([EXCHANGING + quoted(self.exchanging)] if self.exchanging else []),
            *(OLD_DISK + quoted(disk) for disk in self.old_disks),
            *([WAS_ON] if self.was_on else []),
            *([EXCHANGED + quoted(self.exchanged)] if self.exchanged else []),
            *([RESTARTED + quoted(self.restarted)] if self.restarted else []),
            *(self.passing.tags if self.passing else ()),
        ]
        return ",".join((*self.others, *ours))


def quoted(value: str) -> str:
    """As part of a tag: no commas, no blanks."""
    return quote(value, safe="")


def stamp_tags(stamp: Stamp | None) -> tuple[str, ...]:
    return (INSTALLATION + quoted(stamp.installation), KEY + quoted(stamp.key)) if stamp else ()


def read_marks(tags: object) -> Marks:
    found = [tag.strip() for tag in str(tags or "").split(",") if tag.strip()]
    installation, key = _after(found, INSTALLATION), _after(found, KEY)
    return Marks(
        others=tuple(tag for tag in found if not tag.startswith(OURS)),
        stamp=Stamp(installation, key) if installation and key else None,
        is_template=TEMPLATE in found,
        exchanging=_after(found, EXCHANGING),
        old_disks=tuple(unquote(tag.removeprefix(OLD_DISK)) for tag in found if tag.startswith(OLD_DISK)),
        was_on=WAS_ON in found,
        exchanged=_after(found, EXCHANGED),
        restarted=_after(found, RESTARTED),
        passing=_passing(found),
    )


def _passing(tags: Sequence[str]) -> Passing | None:
    installation = _after(tags, PASSING)
    if not installation:
        return None
    return Passing(installation, machine=_after(tags, OF_MACHINE), landing=_after(tags, OF_LANDING))


def _after(tags: Iterable[str], prefix: str) -> str:
    return next((unquote(tag.removeprefix(prefix)) for tag in tags if tag.startswith(prefix)), "")


# --- machines --------------------------------------------------------------------------------------------------------

DATA_DISKS = frozenset({"VIRTIO_DISK", "IDE_DISK", "SCSI_DISK"})
MEMORIES = frozenset({"NVRAM", "VTPM"})
"""What a UEFI machine remembers beside its disks: one of each at most."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device that holds something of the machine's own: a disk, its UEFI variables, its TPM. No CD-ROMs."""

    id: str
    type: str
    capacity: int
    cache_mode: str
    slot: int


@dataclass(frozen=True, slots=True)
class Drive:
    """A CD-ROM drive, and the path of the image in it, if any."""

    id: str
    path: str


@dataclass(frozen=True, slots=True)
class Nic:
    id: str
    type: str
    vlan: int
    mac: str = ""


STATES: Mapping[str, Power] = {
    "RUNNING": Power.ON,
    "BLOCKED": Power.ON,
    "PAUSED": Power.SUSPENDED,
    "SHUTOFF": Power.OFF,
    "SHUTDOWN": Power.OFF,
}
"""VirDomain.state -> power. SHUTDOWN is down, as the vendor's own tools take it. CRASHED, and what we never saw, is
unknown."""

UNDER_WAY = frozenset({"QUEUED", "RUNNING"})


@dataclass(frozen=True, slots=True)
class Vm:
    """A VirDomain."""

    id: str
    name: str
    state: str
    vcpus: int
    memory: int
    host: str
    marks: Marks
    disks: tuple[Disk, ...] = ()
    drives: tuple[Drive, ...] = ()
    nics: tuple[Nic, ...] = ()
    boot: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    agent_state: str = ""
    is_runnable: bool = True
    """False for what 9.7 calls a template ("runnable": false)."""
    replica_of: str = ""
    """The machine on another cluster of which this one is a replica."""
    preferred_host: str = ""
    task: str = ""
    """Tag of the last task that worked on it."""
    has_task: bool = False
    """Whether that task is still under way."""
    firmware: str = "bios"
    """"bios" or "uefi"."""

    @property
    def power(self) -> Power:
        return STATES.get(self.state, Power.UNKNOWN)

    @property
    def is_template(self) -> bool:
        """Set apart as a template, by the platform or by our tag."""
        return self.marks.is_template or not self.is_runnable


def read_vm(record: Record) -> Vm:
    """Raises ValueError or KeyError for a record without id."""
    last = record.get("latestTaskTag")
    last = last if isinstance(last, Mapping) else {"taskTag": last or ""}
    affinity = record.get("affinityStrategy") or {}
    devices = [device for device in record.get("blockDevs") or () if isinstance(device, Mapping)]
    disks = [_disk(device) for device in devices if device.get("type") in DATA_DISKS | MEMORIES]
    nics = [nic for nic in record.get("netDevs") or () if isinstance(nic, Mapping)]
    return Vm(
        id=_id(record),
        name=str(record.get("name") or ""),
        state=str(record.get("state") or ""),
        vcpus=int(record.get("numVCPU") or 0),
        memory=int(record.get("mem") or 0),
        host=str(record.get("nodeUUID") or ""),
        marks=read_marks(record.get("tags")),
        disks=tuple(sorted(disks, key=lambda disk: (disk.type in MEMORIES, disk.slot, disk.type))),
        drives=tuple(
            Drive(_id(device), str(device.get("path") or "")) for device in devices if device.get("type") == "IDE_CDROM"
        ),
        nics=tuple(_nic(nic) for nic in nics),
        boot=tuple(str(device) for device in record.get("bootDevices") or ()),
        addresses=addresses(address for nic in nics for address in nic.get("ipv4Addresses") or ()),
        agent_state=str(record.get("guestAgentState") or ""),
        is_runnable=record.get("runnable") is not False,
        replica_of=str(record.get("sourceVirDomainUUID") or ""),
        preferred_host=str(affinity.get("preferredNodeUUID") or ""),
        task=str(last.get("taskTag") or ""),
        has_task=last.get("state") in UNDER_WAY,
        firmware=_firmware(record),
    )


def _firmware(record: Record) -> str:
    """`machineTypeKeyword` is bios, uefi, tpm or tpm-compatible (the last two have UEFI too); `machineType` is such as
    scale-uefi-9.3."""
    said = f"{record.get('machineTypeKeyword') or ''} {record.get('machineType') or ''}".lower()
    return "uefi" if "uefi" in said or "tpm" in said else "bios"


def _id(record: Record) -> str:
    if not (found := str(record["uuid"] or "")):
        raise ValueError("a record without uuid")
    return found


def _nic(nic: Record) -> Nic:
    return Nic(
        _id(nic), str(nic.get("type") or ""), int(nic.get("vlan") or 0), str(nic.get("macAddress") or "").lower()
    )


def _disk(device: Record) -> Disk:
    return Disk(
        id=_id(device),
        type=str(device["type"]),
        capacity=int(device.get("capacity") or 0),
        cache_mode=str(device.get("cacheMode") or "NONE"),
        slot=int(device.get("slot") or 0),
    )


_USELESS = (ip_network("127.0.0.0/16"), ip_network("169.254.0.0/16"), ip_network("0.0.0.0/8"))
"""A guest's own loopback and what it gives itself. The rest of 127.0.0.0/8 is where guests of a laboratory live."""


def addresses(found: Iterable[object]) -> tuple[str, ...]:
    """The guest's addresses that others can use, each once, in the order of its NICs."""
    usable = []
    for text in found:
        try:
            address = ip_address(str(text).split("/")[0])
        except ValueError:
            continue
        is_useless = address.is_link_local or address.is_multicast or str(address) == "::1"
        if not is_useless and not any(address in network for network in _USELESS if network.version == address.version):
            usable.append(str(address))
    return tuple(dict.fromkeys(usable))


def agent_of(vm: Vm) -> Agent:
    """Addresses come from the guest's agent alone, so whoever has one has answered."""
    is_heard = vm.agent_state == "AVAILABLE" or bool(vm.addresses)
    return Agent.ANSWERING if vm.power is Power.ON and is_heard else Agent.SILENT


REPLICA = "It is a replica of a machine on another cluster: HyperCore overwrites it with every replication."


def machine_of(vm: Vm) -> Machine:
    cannot = dict.fromkeys(("SetPower", "RecycleMachine", "RevertSnapshot", "Reconfigure"), REPLICA)
    return Machine(
        id=vm.id,
        name=vm.name,
        power=vm.power,
        vcpus=vm.vcpus,
        memory_mib=vm.memory // MIB,
        host=vm.host or None,
        stamp=vm.marks.stamp,
        agent=agent_of(vm),
        addresses=vm.addresses if vm.power is Power.ON else (),
        cannot=cannot if vm.replica_of else {},
    )


def cannot_clone(vm: Vm) -> str:
    """Why it can't serve as a template, in words; "" if it can."""
    if not any(disk.type in DATA_DISKS for disk in vm.disks):
        return "It has no disk."
    if vm.replica_of:
        return REPLICA
    if vm.power is not Power.OFF:
        return "It is switched on: its disks change under its clones. Shut it down."
    return ""


def template_of(vm: Vm, storage: str) -> Template:
    return Template(
        id=vm.id,
        name=vm.name,
        storage=storage,
        vcpus=vm.vcpus,
        memory_mib=vm.memory // MIB,
        disk_mib=sum(disk.capacity for disk in vm.disks if disk.type in DATA_DISKS) // MIB,
        cannot=cannot_clone(vm),
        stamp=vm.marks.stamp,
    )


def boot_order(vm: Vm, source: Vm | None) -> tuple[str, ...]:
    """What a clone is to boot from: as its source does, device by device; its disks in order if that says nothing.

    Clones of cloud images come with an empty order, and then the firmware finds nothing (field notes, "Clone").
    """
    like = {(disk.type, disk.slot): disk.id for disk in vm.disks}
    theirs = {disk.id: (disk.type, disk.slot) for disk in source.disks} if source else {}
    found = [like[theirs[device]] for device in (source.boot if source else ()) if theirs.get(device) in like]
    return tuple(found) or tuple(disk.id for disk in vm.disks if disk.type in DATA_DISKS)


def with_marks(vm: Vm, **changes: Any) -> str:
    """The tags once so much has changed."""
    return replace(vm.marks, **changes).text


# --- networks --------------------------------------------------------------------------------------------------------


def network_id(vlan: int) -> str:
    return f"vlan-{vlan}"


def vlan_of(network: str) -> int | None:
    """None for what is no id of a network here."""
    number = network.removeprefix("vlan-")
    return int(number) if network.startswith("vlan-") and number.isascii() and number.isdigit() else None


def networks(vlans: Iterable[int]) -> tuple[Network, ...]:
    """HyperCore has no networks to list: a NIC has a VLAN number, and 0 is the nodes' own LAN, untagged."""
    return tuple(
        Network(network_id(vlan), f"VLAN {vlan}" if vlan else "LAN (untagged)", f"VLAN {vlan}" if vlan else "untagged")
        for vlan in sorted({0, *vlans})
    )


# --- the cluster -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    id: str
    name: str
    version: str


def read_cluster(records: Sequence[Record]) -> Cluster:
    record = records[0] if records else {}
    return Cluster(*(str(record.get(name) or "") for name in ("uuid", "clusterName", "icosVersion")))


def host_of(record: Record) -> Host:
    """`networkStatus` ONLINE does not mean that the node answers (field notes): virtualization must be online too."""
    is_up = (
        record.get("networkStatus") == "ONLINE"
        and record.get("allowRunningVMs") is not False
        and record.get("virtualizationOnline") is not False
    )
    return Host(
        id=_id(record),
        name=str(record.get("lanIP") or record["uuid"]),
        vcpus=int(record.get("numThreads") or record.get("numCores") or record.get("numCPUs") or 0),
        memory_mib=int(record.get("memSize") or 0) // MIB,
        is_up=is_up,
    )


def storage_of(cluster: Cluster, nodes: Iterable[Record]) -> Storage:
    """All drives of all nodes are one storage. `capacity` of a node is what can be used of it; used is what its drives
    that take part hold, which counts both copies of everything."""
    capacity = used = 0
    for node in nodes:
        drives = [drive for drive in node.get("drives") or () if isinstance(drive, Mapping)]
        part = [drive for drive in drives if drive.get("currentDisposition", "IN") == "IN"]
        capacity += int(node.get("capacity") or sum(int(drive.get("capacityBytes") or 0) for drive in part))
        used += sum(int(drive.get("usedBytes") or 0) for drive in part)
    return Storage(cluster.id, cluster.name or "Cluster", capacity // MIB, max(0, capacity - used) // MIB)


def active_conditions(records: Iterable[Record]) -> tuple[str, ...]:
    """The conditions that hold, worst first, in words. `/Condition` lists all there can be, some 250, with `value`."""
    worst = ("CRITICAL", "ERROR", "WARNING")
    found = []
    for record in records:
        if record.get("value") is not True:
            continue
        severity = str(record.get("severity") or "").upper()
        words = str(record.get("description") or record.get("userText") or record.get("name") or "").strip()
        rank = next((place for place, word in enumerate(worst) if word in severity), len(worst))
        found.append((rank, words.rstrip(".")))
    return tuple(words for _, words in sorted(found) if words)


def is_updating(status: Record | None) -> bool:
    """What `update_status.json` says: idle only if both fields say COMPLETE (field notes, rule 5). None: never
    updated."""
    if status is None:
        return False
    prepared, updated = status.get("prepareStatus") or {}, status.get("updateStatus") or {}
    return not (prepared.get("state") == "COMPLETE" and updated.get("masterState") == "COMPLETE")


# --- tasks and snapshots ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    tag: str
    state: str
    percent: int
    words: str

    @property
    def is_under_way(self) -> bool:
        return self.state in UNDER_WAY

    @property
    def has_failed(self) -> bool:
        """Every other state is a success (field notes, rule 1)."""
        return self.state in ("ERROR", "UNINITIALIZED")


def read_task(record: Record) -> Task:
    words = filled(record.get("formattedMessage"), record.get("messageParameters"))
    return Task(
        tag=str(record.get("taskTag") or ""),
        state=str(record.get("state") or ""),
        percent=max(0, min(100, int(record.get("progressPercent") or 0))),
        words=words or filled(record.get("formattedDescription"), record.get("descriptionParameters")),
    )


def filled(text: object, parameters: object) -> str:
    """HyperCore's texts have placeholders: %@ in turn, or %1$@ by number (task records, `formattedMessage`)."""
    found = str(text or "")
    for number, value in enumerate(parameters if isinstance(parameters, list) else (), start=1):
        by_number = f"%{number}$@"
        found = found.replace(by_number, str(value)) if by_number in found else found.replace("%@", str(value), 1)
    return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    vm: str
    label: str
    disks: tuple[Disk, ...] = field(default=())
    """As the machine had them when it was taken (`domain.blockDevs`)."""
    boot: tuple[str, ...] = field(default=())


def read_snapshot(record: Record) -> Snapshot:
    then = record.get("domain") or {}
    devices = [device for device in then.get("blockDevs") or () if isinstance(device, Mapping)]
    disks = [_disk(device) for device in devices if device.get("type") in DATA_DISKS | MEMORIES]
    return Snapshot(
        id=_id(record),
        vm=str(record.get("domainUUID") or ""),
        label=str(record.get("label") or ""),
        disks=tuple(sorted(disks, key=lambda disk: (disk.type in MEMORIES, disk.slot, disk.type))),
        boot=tuple(str(device) for device in then.get("bootDevices") or ()),
    )


def label_of(name: str, key: str) -> str:
    """A snapshot's label: its only place for anything of ours (field notes: `labels` are refused)."""
    return f"{name} [deskyard {key}]"


@dataclass(frozen=True, slots=True)
class Image:
    """An ISO image on the cluster."""

    id: str
    name: str
    path: str
    is_ready: bool


def read_image(record: Record) -> Image:
    return Image(
        id=_id(record),
        name=str(record.get("name") or ""),
        path=str(record.get("path") or ""),
        is_ready=record.get("readyForInsert") is True,
    )


def image_prefix(machine: str) -> str:
    """What the names of all images made for a machine begin with."""
    return f"deskyard-{machine}-"


UPLOADING, CONVERTING = "uploading-", "converting-"
"""What stands before the name of an image that is not ready yet (field notes, "Virtual disks")."""


@dataclass(frozen=True, slots=True)
class VirtualDisk:
    """A disk image that was uploaded, and belongs to no machine."""

    id: str
    name: str


def read_virtual_disk(record: Record) -> VirtualDisk:
    return VirtualDisk(id=_id(record), name=str(record.get("name") or ""))


BUSES: Mapping[str, str] = {"VIRTIO_DISK": "virtio", "SCSI_DISK": "scsi", "IDE_DISK": "ide"}


def disk_name(disk: Disk) -> str:
    """The same as long as the disk hangs where it does, whatever its id: those of an exchanged disk are new."""
    return f"{BUSES[disk.type]}{disk.slot}"


# --- what is sent ----------------------------------------------------------------------------------------------------


def cloud_init(seed: GuestSeed, instance: str) -> dict[str, str]:
    """`cloudInitData` (base64). `instance` is new for every new disk, so that cloud-init runs again on it.

    Values are written as JSON, which is YAML: quotes and newlines in a hostname stay inside it.
    """
    meta_data = json.dumps({"instance-id": instance, "local-hostname": seed.hostname}) + "\n"
    return {"userData": _base64(seed.user_data or "#cloud-config\n{}\n"), "metaData": _base64(meta_data)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def disk_from_snapshot(disk: Disk, snapshot: str, vm: str) -> dict[str, object]:
    """POST /VirDomainBlockDevice/{disk}/clone, as 9.7.3 enforces it. Without regenerateDiskID false the copy gets a new
    disk signature and does not boot."""
    return {
        "options": {"regenerateDiskID": False},
        "snapUUID": snapshot,
        "template": {
            "virDomainUUID": vm,
            "type": disk.type,
            "capacity": disk.capacity,
            "cacheMode": disk.cache_mode,
        },
    }
