"""vSphere's properties -> our data, and our wishes -> vSphere's specifications. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from connectors.base import (
    Agent,
    GuestSeed,
    Host,
    Machine,
    Network,
    Power,
    ResourceShare,
    Stamp,
    Storage,
    Template,
)
from connectors.errors import Unsupported
from connectors.esxi import names, soap
from connectors.esxi.api import type_named, vim
from connectors.esxi.soap import Element, Seen

INSTALLATION, KEY = "deskyard.installation", "deskyard.key"
RESTARTED, REVERTED = "deskyard.restarted", "deskyard.reverted"
"""Keys of a machine's extraConfig: the two halves of its stamp; the orders that last restarted and reverted it."""
LANDING = "deskyard.landing"
"""What a machine bears instead of a stamp while it is being landed: installation and key."""

TEMPLATE = "deskyard.template"
"""What a template that was landed bears instead of a stamp: installation and key. Only what bears no stamp may be
cloned where there are no templates, and no order deletes it."""

WHOLE_CONFIG = "config.extraConfig"


def config_path(key: str) -> str:
    """The property path of one entry of extraConfig (vSphere Web Services SDK Programming Guide, "Property paths":
    an element of an array is named by its key)."""
    return f'{WHOLE_CONFIG}["{key}"]'


STAMP_PATHS = (config_path(INSTALLATION), config_path(KEY))
OUR_PATHS = {config_path(key): key for key in (INSTALLATION, KEY, RESTARTED, REVERTED, LANDING, TEMPLATE)}

MACHINE_PATHS = (
    "name",
    "config.instanceUuid",
    "config.template",
    "summary.config.numCpu",
    "summary.config.memorySizeMB",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "guest.ipAddress",
    "guest.net",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "guestHeartbeatStatus",
)
HOST_PATHS = (
    "name", "summary.hardware.numCpuThreads", "summary.hardware.memorySize", "runtime.connectionState",
    "runtime.inMaintenanceMode",
)  # fmt: skip
STORAGE_PATHS = ("name", "summary.capacity", "summary.freeSpace", "summary.accessible", "summary.maintenanceMode")
NETWORK_PATHS = ("name",)
PORTGROUP_PATHS = ("name", "config.defaultPortConfig", "tag")
DETAIL_PATHS = ("config.hardware.device", "snapshot", "datastore")
"""What only templates are asked for."""

_POWER = {"poweredOn": Power.ON, "poweredOff": Power.OFF, "suspended": Power.SUSPENDED}


# --- reading ---------------------------------------------------------------------------------------------------------


def power(seen: Seen) -> Power:
    return _POWER.get(seen.text("runtime.powerState"), Power.UNKNOWN)


def our_config(seen: Seen) -> dict[str, str]:
    """Our own entries of extraConfig, however they were asked for."""
    whole = seen.values.get(WHOLE_CONFIG)
    if whole is None:
        return {key: soap.text(seen.values[path], "value") for path, key in OUR_PATHS.items() if path in seen.values}
    options = ((soap.text(option, "key"), option) for option in whole)
    return {key: soap.text(option, "value") for key, option in options if key.startswith("deskyard.")}


def stamp(seen: Seen) -> Stamp | None:
    ours = our_config(seen)
    return Stamp(ours[INSTALLATION], ours[KEY]) if ours.get(INSTALLATION) and ours.get(KEY) else None


def machine(seen: Seen) -> Machine:
    seen_power = power(seen)
    is_on = seen_power is Power.ON
    return Machine(
        id=seen.text("config.instanceUuid"),
        name=names.from_wire(seen.text("name")),
        power=seen_power,
        vcpus=seen.number("summary.config.numCpu"),
        memory_mib=seen.number("summary.config.memorySizeMB"),
        host=seen.text("runtime.host") or None,
        stamp=stamp(seen),
        agent=agent(seen),
        addresses=addresses(seen) if is_on else (),
    )


def is_template(seen: Seen) -> bool:
    return seen.text("config.template") == "true"


def agent(seen: Seen) -> Agent:
    """VMware Tools run and their heartbeat is not lost. That they are installed alone proves nothing."""
    running = seen.text("guest.toolsRunningStatus")
    if running in ("guestToolsRunning", "guestToolsExecutingScripts") and power(seen) is Power.ON:
        return Agent.SILENT if seen.text("guestHeartbeatStatus") == "red" else Agent.ANSWERING
    return Agent.ABSENT if seen.text("guest.toolsVersionStatus2") == "guestToolsNotInstalled" else Agent.SILENT


def addresses(seen: Seen) -> tuple[str, ...]:
    """The guest's addresses, the one that Tools call the primary first."""
    told = [seen.text("guest.ipAddress")]
    net = seen.values.get("guest.net")
    if net is not None and len(net):
        told += [address.text or "" for nic in net for address in soap.children(nic, "ipAddress")]
    return guest_addresses(told)


_LOOPBACK = ip_network("127.0.0.0/10")
"""Guests of a laboratory have addresses of 127.64.0.0/10; no guest is reached at the rest."""


def guest_addresses(told: Iterable[str]) -> tuple[str, ...]:
    """Without doubles and what leads nowhere; IPv4 before IPv6, else in the order given."""
    found: dict[str, int] = {}
    for text in told:
        if not text or text in found:
            continue
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            continue
        leads_nowhere = address.is_link_local or address.is_multicast or address.is_unspecified
        if leads_nowhere or (address.version == 6 and address.is_loopback) or address in _LOOPBACK:
            continue
        found[text] = address.version
    return tuple(sorted(found, key=lambda text: found[text]))


def host(seen: Seen) -> Host:
    is_up = seen.text("runtime.connectionState") == "connected" and seen.text("runtime.inMaintenanceMode") != "true"
    return Host(
        id=seen.id,
        name=names.from_wire(seen.text("name")),
        vcpus=seen.number("summary.hardware.numCpuThreads"),
        memory_mib=seen.number("summary.hardware.memorySize") // 2**20,
        is_up=is_up,
    )


def storage(seen: Seen) -> Storage:
    is_up = seen.text("summary.accessible") == "true" and seen.text("summary.maintenanceMode", "normal") == "normal"
    return Storage(
        id=seen.id,
        name=names.from_wire(seen.text("name")),
        capacity_mib=seen.number("summary.capacity") // 2**20,
        free_mib=seen.number("summary.freeSpace") // 2**20,
        is_up=is_up,
    )


def network(seen: Seen) -> Network | None:
    """None for what no machine can be attached to: the uplinks of a distributed switch."""
    kind = {"DistributedVirtualPortgroup": "distributed port group", "OpaqueNetwork": "NSX network"}.get(
        seen.kind, "port group"
    )
    tags = [soap.text(tag, "key") for tag in seen.values.get("tag", ())]
    if any(tag.startswith("SYSTEM/DVS.UPLINKPG") for tag in tags):
        return None
    vlan = soap.child(seen.values.get("config.defaultPortConfig"), "vlan", "vlanId")
    if vlan is not None and (vlan.text or "").isdigit() and vlan.text != "0":
        kind = f"VLAN {vlan.text} ({kind})"
    return Network(id=seen.id, name=names.from_wire(seen.text("name")), kind=kind)


# --- devices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    key: int
    controller: int
    unit: int
    file: str
    """"[datastore] folder/name.vmdk": where it is written to."""
    storage: str
    capacity_kib: int
    kind: str = "VirtualDiskFlatVer2BackingInfo"
    """Of its backing. Raw device mappings have others, and cannot be cloned as a link."""
    parent: str = ""
    is_independent: bool = False
    size: int = 0
    """In bytes."""
    change_id: str = ""
    """Where its history stands; empty if vSphere does not note what changes."""


@dataclass(frozen=True, slots=True)
class Nic:
    key: int
    kind: str
    """"VirtualVmxnet3"."""
    backing: Element | None = None
    label: str = ""
    controller: int = 0
    unit: int = 0
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Controller:
    key: int
    kind: str
    bus: int
    sharing: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    controllers: tuple[Controller, ...]


_NICS = frozenset(
    ("VirtualVmxnet3", "VirtualVmxnet2", "VirtualVmxnet", "VirtualE1000", "VirtualE1000e", "VirtualPCNet32",
     "VirtualSriovEthernetCard", "VirtualVmxnet3Vrdma")
)  # fmt: skip
_CONTROLLERS = frozenset(
    ("ParaVirtualSCSIController", "VirtualLsiLogicController", "VirtualLsiLogicSASController",
     "VirtualBusLogicController", "VirtualAHCIController", "VirtualNVMEController", "VirtualIDEController")
)  # fmt: skip


def devices(node: Element | None) -> Devices:
    """Disks, network cards and disk controllers of a `config.hardware.device`, in the machine's order."""
    disks, nics, controllers = [], [], []
    for device in soap.children(node, "VirtualDevice"):
        kind = soap.kind_of(device)
        key = int(soap.text(device, "key") or 0)
        if kind == "VirtualDisk":
            disks.append(_disk(device, key))
        elif kind in _NICS:
            nics.append(_nic(device, key, kind))
        elif kind in _CONTROLLERS:
            bus = int(soap.text(device, "busNumber") or 0)
            controllers.append(Controller(key, kind, bus, soap.text(device, "sharedBus")))
    return Devices(tuple(disks), tuple(nics), tuple(controllers))


def _nic(device: Element, key: int, kind: str) -> Nic:
    return Nic(
        key=key,
        kind=kind,
        backing=soap.child(device, "backing"),
        label=soap.text(device, "deviceInfo", "label"),
        controller=int(soap.text(device, "controllerKey") or 0),
        unit=int(soap.text(device, "unitNumber") or 0),
        mac=soap.text(device, "macAddress"),
    )


def _disk(device: Element, key: int) -> Disk:
    backing = soap.child(device, "backing")
    return Disk(
        key=key,
        controller=int(soap.text(device, "controllerKey") or 0),
        unit=int(soap.text(device, "unitNumber") or 0),
        file=soap.text(backing, "fileName"),
        storage=soap.text(backing, "datastore"),
        capacity_kib=int(soap.text(device, "capacityInKB") or 0),
        kind=soap.kind_of(backing),
        parent=soap.text(backing, "parent", "fileName"),
        is_independent=soap.text(backing, "diskMode").startswith("independent"),
        size=int(soap.text(device, "capacityInBytes") or 0) or 1024 * int(soap.text(device, "capacityInKB") or 0),
        change_id=soap.text(backing, "changeId"),
    )


def cannot_clone(found: Devices) -> str:
    """Why a machine with these devices cannot serve as a template, in words; "" if it can."""
    if not found.disks:
        return "It has no disk."
    for disk in found.disks:
        if disk.kind not in ("VirtualDiskFlatVer2BackingInfo", "VirtualDiskSeSparseBackingInfo"):
            return f"Disk {disk.file or disk.key} is no ordinary virtual disk ({disk.kind})."
        if disk.is_independent:
            return f"Disk {disk.file} is independent: no snapshot holds it, so no clone can hang from it."
    return ""


def template(seen: Seen, detail: Seen | None) -> Template:
    found = devices(detail.values.get("config.hardware.device") if detail else None)
    cannot = cannot_clone(found)
    if not cannot and power(seen) is not Power.OFF:
        cannot = "It is switched on."
    return Template(
        id=seen.text("config.instanceUuid"),
        name=names.from_wire(seen.text("name")),
        storage=found.disks[0].storage if found.disks else "",
        vcpus=seen.number("summary.config.numCpu"),
        memory_mib=seen.number("summary.config.memorySizeMB"),
        disk_mib=sum(disk.capacity_kib for disk in found.disks) // 1024,
        cannot=cannot,
    )


# --- snapshots -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A snapshot of a machine."""

    id: str
    name: str
    description: str


def points(snapshot: Element | None) -> tuple[Point, ...]:
    """All snapshots of a `snapshot` property (VirtualMachineSnapshotInfo), roots first."""
    found: list[Point] = []
    waiting = soap.children(snapshot, "rootSnapshotList")
    while waiting:
        node = waiting.pop(0)
        found.append(_point(node))
        waiting += soap.children(node, "childSnapshotList")
    return tuple(found)


def current_point(snapshot: Element | None) -> str:
    """Id of the snapshot that the machine hangs from now; "" if from none. One that is taken for replication and goes
    again soon is none: the one below it counts."""
    current = soap.text(snapshot, "currentSnapshot")
    return next((point.id for point in _above(snapshot, current) if point.name != names.POINT), "")


def is_being_replicated(snapshot: Element | None) -> bool:
    """Whether the machine hangs from a snapshot that is taken for replication."""
    current = soap.text(snapshot, "currentSnapshot")
    return any(point.name == names.POINT for point in _above(snapshot, current))


def _above(snapshot: Element | None, id: str) -> list[Point]:
    """The snapshot of that id, and those that it hangs from, nearest first."""
    waiting: list[tuple[Element, list[Point]]] = [(node, []) for node in soap.children(snapshot, "rootSnapshotList")]
    while waiting:
        node, above = waiting.pop()
        chain = [_point(node), *above]
        if chain[0].id == id:
            return chain
        waiting += [(child, chain) for child in soap.children(node, "childSnapshotList")]
    return []


def _point(node: Element) -> Point:
    name = names.from_wire(soap.text(node, "name"))
    return Point(soap.text(node, "snapshot"), name, soap.text(node, "description"))


# --- tasks -----------------------------------------------------------------------------------------------------------

TASK_PATHS = ("info.state", "info.error", "info.progress")

# --- wishes ----------------------------------------------------------------------------------------------------------


def options(values: Mapping[str, str]) -> list[Any]:
    """Entries of extraConfig. An empty value removes an entry."""
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def stamp_options(stamp: Stamp) -> dict[str, str]:
    return {INSTALLATION: stamp.installation, KEY: stamp.key, RESTARTED: "", REVERTED: "", TEMPLATE: ""}


def seed_options(seed: GuestSeed | None, instance: str) -> dict[str, str]:
    """What cloud-init reads of a VMware guest's `guestinfo` (cloud-init documentation, "DataSource VMware").

    JSON is YAML: quotes and newlines in a hostname stay inside it. What the template brought along is removed.
    """
    empty = dict.fromkeys(
        ("guestinfo.metadata", "guestinfo.metadata.encoding", "guestinfo.userdata", "guestinfo.userdata.encoding"), ""
    )
    if seed is None or seed.answer_file:
        return empty
    metadata = json.dumps({"instance-id": instance, "local-hostname": seed.hostname})
    return {
        "guestinfo.metadata": base64.b64encode(metadata.encode()).decode(),
        "guestinfo.metadata.encoding": "base64",
        "guestinfo.userdata": base64.b64encode((seed.user_data or "#cloud-config\n{}\n").encode()).decode(),
        "guestinfo.userdata.encoding": "base64",
    }


def customization(seed: GuestSeed | None, nics: int) -> Any | None:
    """Sysprep with the given answer file; None for guests that are not prepared that way."""
    if seed is None or not seed.answer_file:
        return None
    adapter = vim.vm.customization.AdapterMapping(
        adapter=vim.vm.customization.IPSettings(ip=vim.vm.customization.DhcpIpGenerator())
    )
    return vim.vm.customization.Specification(
        identity=vim.vm.customization.SysprepText(value=seed.answer_file),
        globalIPSettings=vim.vm.customization.GlobalIPSettings(),
        nicSettingMap=[adapter] * nics,
        options=vim.vm.customization.WinOptions(changeSID=True, deleteAccounts=False),
    )


LARGEST_SHARE = 1_000_000
"""vSphere's end of the scale (API reference, SharesInfo.shares)."""
UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Allocation:
    """A ResourceAllocationInfo."""

    shares: int
    level: str
    reservation: int
    limit: int


def allocations(share: ResourceShare, vcpus: int, memory_mib: int, core_mhz: int) -> tuple[Allocation, Allocation]:
    """Of CPU (MHz) and of memory (MB). Weight 100 is what vSphere calls normal: 1,000 shares a vCPU, 10 a MB.

    Levels follow a machine that grows; where the weight is no level, the number counts for its present size.
    """
    whole_mhz = vcpus * core_mhz
    cpu_limit = UNLIMITED if share.cpu_limit_percent >= 100 else max(1, whole_mhz * share.cpu_limit_percent // 100)
    level = {50: "low", 100: "normal", 200: "high"}.get(share.weight, "custom")

    def shares(normal: int) -> int:
        return max(1, min(LARGEST_SHARE, normal * share.weight // 100))

    return (
        Allocation(shares(1000 * vcpus), level, whole_mhz * share.cpu_reservation_percent // 100, cpu_limit),
        Allocation(shares(10 * memory_mib), level, memory_mib * share.memory_reservation_percent // 100, UNLIMITED),
    )


def allocation_seen(node: Element | None) -> Allocation | None:
    if node is None:
        return None
    return Allocation(
        shares=int(soap.text(node, "shares", "shares") or 0),
        level=soap.text(node, "shares", "level"),
        reservation=int(soap.text(node, "reservation") or 0),
        limit=int(soap.text(node, "limit") or UNLIMITED),
    )


def is_same(wanted: Allocation, seen: Allocation | None) -> bool:
    """Whether setting it would change nothing. The number counts for custom shares alone."""
    if seen is None or (wanted.level, wanted.reservation, wanted.limit) != (seen.level, seen.reservation, seen.limit):
        return False
    return wanted.level != "custom" or wanted.shares == seen.shares


def allocation_spec(wanted: Allocation) -> Any:
    return vim.ResourceAllocationInfo(
        reservation=wanted.reservation,
        limit=wanted.limit,
        shares=vim.SharesInfo(level=wanted.level, shares=wanted.shares),
    )


# --- network cards ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Socket:
    """What a network card is plugged into."""

    network: str
    name: str
    switch: str = ""
    """Uuid of the distributed switch, empty for a standard one."""
    portgroup: str = ""


def nic_backing(socket: Socket) -> Any:
    if socket.switch:
        port = vim.dvs.PortConnection(switchUuid=socket.switch, portgroupKey=socket.portgroup)
        return vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
    return vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(
        deviceName=socket.name, network=vim.Network(socket.network)
    )


def _copied_backing(node: Element | None) -> Any:
    """The template's own socket, for a card that is made anew."""
    if soap.kind_of(node) == "VirtualEthernetCardDistributedVirtualPortBackingInfo":
        return vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(
            port=vim.dvs.PortConnection(
                switchUuid=soap.text(node, "port", "switchUuid"), portgroupKey=soap.text(node, "port", "portgroupKey")
            )
        )
    backing = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=soap.text(node, "deviceName"))
    if network := soap.text(node, "network"):
        backing.network = vim.Network(network)
    return backing


def _nic_spec(operation: str, kind: str, key: int, backing: Any) -> Any:
    card: Any = type_named(kind)
    made = card(
        key=key,
        backing=backing,
        addressType="generated",
        connectable=vim.vm.device.VirtualDevice.ConnectInfo(
            startConnected=True, allowGuestControl=True, connected=False
        ),
    )
    return vim.vm.device.VirtualDeviceSpec(operation=operation, device=made)


def nic_changes(found: Sequence[Nic], sockets: Sequence[Socket]) -> list[Any]:
    """Plug the template's cards into these, in order; more sockets than cards are new cards. Each gets a new MAC."""
    changes = []
    for index, socket in enumerate(sockets):
        if index >= len(found):
            changes.append(_nic_spec("add", "VirtualVmxnet3", -4000 - index, nic_backing(socket)))
            continue
        nic = found[index]
        change = _nic_spec("edit", nic.kind, nic.key, nic_backing(socket))
        # A card that is edited keeps its place; what is not said of it may be taken away.
        change.device.deviceInfo = vim.Description(label=nic.label, summary=socket.name)
        if nic.controller:
            change.device.controllerKey, change.device.unitNumber = nic.controller, nic.unit
        changes.append(change)
    return changes


def new_nics(found: Sequence[Nic], sockets: Sequence[Socket]) -> list[Any]:
    """Cards like the template's for a machine that is made from nothing."""
    changes = []
    for index in range(max(len(found), len(sockets))):
        kind = found[index].kind if index < len(found) else "VirtualVmxnet3"
        backing = nic_backing(sockets[index]) if index < len(sockets) else _copied_backing(found[index].backing)
        changes.append(_nic_spec("add", kind, -4000 - index, backing))
    return changes


# --- a machine from nothing (stand-alone hosts) ----------------------------------------------------------------------


def new_controllers(found: Sequence[Controller], disks: Sequence[Disk]) -> list[Any]:
    """Controllers for these disks, with the template's keys made negative: vSphere gives real ones. IDE is there
    anyway."""
    used = {disk.controller for disk in disks}
    changes = []
    for one in found:
        if one.key not in used or one.kind == "VirtualIDEController":
            continue
        made: Any = type_named(one.kind)(key=-one.key, busNumber=one.bus)
        if one.sharing:
            made.sharedBus = "noSharing"
        changes.append(vim.vm.device.VirtualDeviceSpec(operation="add", device=made))
    return changes


def new_disk(disk: Disk, controllers: Sequence[Controller], file: str, parent: str) -> Any:
    """A disk of a new machine: a fresh one that hangs from `parent`, or the copy that already lies in `file`."""
    is_ide = any(one.key == disk.controller and one.kind == "VirtualIDEController" for one in controllers)
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=file, diskMode="persistent", thinProvisioned=True)
    spec = vim.vm.device.VirtualDeviceSpec(
        operation="add",
        device=vim.vm.device.VirtualDisk(
            key=-disk.key,
            controllerKey=disk.controller if is_ide else -disk.controller,
            unitNumber=disk.unit,
            capacityInKB=disk.capacity_kib,
            backing=backing,
        ),
    )
    if parent:
        backing.parent = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=parent, diskMode="persistent")
        spec.fileOperation = "create"
    return spec


def split_path(file: str) -> tuple[str, str, str]:
    """Datastore, folder and name of "[datastore] folder/name.vmdk". Raises `Unsupported`."""
    store, bracket, path = file.partition("] ")
    if not (store.startswith("[") and bracket):
        raise Unsupported(f"{file!r} is no path on a datastore.")
    folder, _, name = path.rpartition("/")
    return store[1:], folder, name
