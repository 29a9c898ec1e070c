"""Points of machines, read as HyperCore gives disks: whole, as files of an export on a share.

    take      1. what earlier points left is removed
              2. a snapshot of the machine: the moment of the point
              3. a copy of the machine, cloned from the snapshot: thin, off, and nobody's
              4. an export of the copy to a folder of the share begins
    read      once the export has ended, a disk's file is fetched to a place on this machine and served by qemu-nbd
    release   the copy, the snapshot and the folder go

An export knows no snapshot, so far as the vendor's collection and field notes tell: exporting the machine itself would
give it as it is some time later. The copy stands still, and the machine may meanwhile be changed as ever.

All three bear the installation and the machine: the snapshot in its label, the copy in its tags (it is no machine, and
no inventory shows it), the folder in its name. So whoever comes after a crash finds them, and nobody else's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from connectors.base import MachineRef, Order, Power
from connectors.errors import Conflict, NotFound, PlatformFault, Unsupported
from connectors.hypercore import machines, mapping
from connectors.hypercore.carrying import Carrier
from connectors.hypercore.client import segment
from connectors.hypercore.exported import DEFINITION, Export, ExportedDisk
from connectors.hypercore.mapping import Passing, Snapshot, Vm, quoted
from connectors.hypercore.share import Share
from connectors.hypercore.work import Started, Waiting, Work
from connectors.replication import Bookmark, Consistency, PointWish
from disks.vault.points import Configuration, Drive, Nic

WHOLE = "HyperCore gives whole disks only."
SECTOR = 512
PREFIX = "deskyard-point-"
"""What the names of all our folders on the share begin with."""


def label_of(installation: str, key: str) -> str:
    """Of a point's snapshot. What people call theirs ends with a bracket (`mapping.label_of`)."""
    return f"deskyard point {quoted(installation)} {quoted(key)}"


def is_our_label(label: str, installation: str) -> bool:
    return label.startswith(label_of(installation, "")) and not label.endswith("]")


def folder_of(installation: str, machine: str, key: str) -> str:
    return f"{PREFIX}{quoted(installation)}-{quoted(machine)}-{quoted(key)}"


# --- taking ----------------------------------------------------------------------------------------------------------


@dataclass
class Taken:
    """What stands on the cluster for a point."""

    vm: Vm
    files: dict[str, str]
    """Name of a disk -> id of the copy's device, which the export's file bears."""
    drives: tuple[Drive, ...]
    taken_at: datetime
    was_off: bool
    task: str
    """Tag of the export."""


def take(carrier: Carrier, share: Share, wish: PointWish, deadline: float) -> HyperCorePoint:
    """Raises `NotFound`, `Conflict`, `Unsupported`, `Busy`, and what cluster and share raise."""
    release(carrier, share, wish.machine, deadline)
    taken = carrier.carry_out(wish.key, deadline, lambda work: _take(work, share, wish))
    return HyperCorePoint(
        name=taken.vm.name,
        configuration=_configuration(taken),
        taken_at=taken.taken_at,
        consistency=Consistency.OFF if taken.was_off else Consistency.CRASH,
        export=Export(
            carrier, share, machine=taken.vm.name, files=taken.files, task=taken.task,
            folder=folder_of(carrier.surroundings.installation, wish.machine.id, wish.key),
        ),
    )  # fmt: skip


def _take(work: Work[Order], share: Share, wish: PointWish) -> Taken:
    vm = _source(work, wish.machine)
    chosen = _chosen(vm, wish.disks)
    point = _snapshot(work, vm)
    then = {mapping.disk_name(disk): disk for disk in point.disks if disk.type in mapping.DATA_DISKS}
    if missing := [name for name in chosen if name not in then]:
        raise NotFound(f"Machine {vm.name!r} has lost its disk {missing[0]} meanwhile. Choose among its disks anew.")
    copy = _copy(work, vm, point, wish)
    files = {mapping.disk_name(disk): disk.id for disk in copy.disks if disk.type in mapping.DATA_DISKS}
    if missing := [name for name in chosen if name not in files]:
        raise PlatformFault(f"HyperCore's copy of {vm.name!r} is without disk {missing[0]}. Look at the cluster's log.")
    taken_at = datetime.fromtimestamp(float(work.receipt.get("at", time.time())), UTC)
    return Taken(
        vm=vm,
        files={name: files[name] for name in chosen},
        drives=tuple(Drive(name, mapping.BUSES[then[name].type], _size(then[name].capacity)) for name in chosen),
        taken_at=taken_at,
        was_off=bool(work.receipt.get("was_off")),
        task=_export(work, share, copy, folder_of(work.surroundings.installation, vm.id, wish.key)),
    )


def _size(capacity: int) -> int:
    """HyperCore takes any number of bytes; a disk has whole sectors."""
    return -(-capacity // SECTOR) * SECTOR


def _source(work: Work[Order], ref: MachineRef) -> Vm:
    """The machine, or template, with the stamp that it is said to have. Raises `NotFound`, `Conflict`,
    `Unsupported`."""
    work.begin("Looking at the machine")
    vm = work.find(ref.id)
    if vm is None:
        raise NotFound(f"Machine {ref.id} is not on {work.settings.endpoint} any more.")
    if vm.marks.stamp != ref.stamp or vm.marks.passing is not None:
        raise Conflict(f"Machine {vm.name!r} is another one than was meant: its stamp differs. See the drift page.")
    if vm.replica_of:
        raise Unsupported(f"Machine {vm.name!r} was left as it is. {mapping.REPLICA} Replicate the original.")
    return vm


def _chosen(vm: Vm, wanted: Sequence[str]) -> list[str]:
    """What it boots from first: a machine that is made of the point boots from its first disk."""
    order = {id: place for place, id in enumerate(vm.boot)}
    disks = [disk for disk in vm.disks if disk.type in mapping.DATA_DISKS]
    there = [mapping.disk_name(disk) for disk in sorted(disks, key=lambda disk: order.get(disk.id, len(order)))]
    if missing := set(wanted) - set(there):
        raise NotFound(f"Machine {vm.name!r} has no disk {min(missing)!r}. Choose among its disks anew.")
    if not there:
        raise Unsupported(f"Machine {vm.name!r} has no disk to replicate.")
    return [name for name in there if not wanted or name in wanted]


def _snapshot(work: Work[Order], vm: Vm) -> Snapshot:
    label = label_of(work.surroundings.installation, work.order.key)
    for point in work.view.snapshots():
        if point.vm == vm.id and point.label == label:
            return point
    if vm.has_task:
        raise Waiting(f"Waiting for another task on {vm.name!r}")
    # `replication` false, else HyperCore sends it to wherever the machine is replicated.
    wanted = {"domainUUID": vm.id, "label": label, "type": "USER", "replication": False}
    at = time.time()
    try:
        work.change("Taking the snapshot", "POST", "/VirDomainSnapshot", wanted, on=vm)
    except Started:
        work.receipt |= {"at": at, "was_off": vm.power is Power.OFF}
        raise
    raise AssertionError("a change always raises")


def _copies(work: Work[Order], machine: str) -> list[Vm]:
    mark = Passing(work.surroundings.installation, machine=machine)
    return [vm for vm in work.view.vms() if vm.marks.passing == mark]


def _copy(work: Work[Order], vm: Vm, point: Snapshot, wish: PointWish) -> Vm:
    if copies := _copies(work, vm.id):
        if copies[0].has_task and "export" not in work.receipt:
            raise Waiting("Copying the machine")
        return copies[0]
    marks = mapping.Marks(passing=Passing(work.surroundings.installation, machine=vm.id))
    template = {
        "name": f"deskyard point {wish.key}",
        "description": f"Deskyard reads a recovery point of {vm.name} from this, then deletes it. Leave it alone.",
        "tags": marks.text,
    }
    body = {"snapUUID": point.id, "template": template}
    work.change("Copying the machine", "POST", f"/VirDomain/{segment(vm.id)}/clone", body, on=vm)
    raise AssertionError("a change always raises")


def _export(work: Work[Order], share: Share, copy: Vm, folder: str) -> str:
    """Begun, and not waited for. Tag of its task."""
    if "export" not in work.receipt:
        target = {"pathURI": share.address(folder), "definitionFileName": DEFINITION}
        path = f"/VirDomain/{segment(copy.id)}/export"
        with suppress(Started):
            work.change("Beginning the export", "POST", path, {"target": target, "template": {}}, on=copy)
        # It goes on for as long as it takes, and keeps nobody else waiting.
        work.receipt["export"] = work.receipt.pop("task", "")
        work.view.turn.end(work.receipt["export"])
    return str(work.receipt["export"])


def _configuration(taken: Taken) -> Configuration:
    vm = taken.vm
    return Configuration(
        vcpus=vm.vcpus,
        memory_mib=vm.memory // mapping.MIB,
        firmware=vm.firmware,
        nics=tuple(Nic(nic.type, nic.mac, f"VLAN {nic.vlan}" if nic.vlan else "LAN (untagged)") for nic in vm.nics),
        disks=taken.drives,
    )


# --- releasing -------------------------------------------------------------------------------------------------------


def release(carrier: Carrier, share: Share | None, machine: MachineRef, deadline: float) -> None:
    """Copy, snapshot, files. A machine that is gone is success. Raises `Busy` while an export goes on."""
    carrier.carry_out(machine.id, deadline, lambda work: _release(work, machine.id, is_unsure=carrier.is_unsure))
    if share is not None:
        for folder in share.folders(folder_of(carrier.surroundings.installation, machine.id, "")):
            share.remove(folder)


def _release(work: Work[Order], machine: str, *, is_unsure: bool) -> None:
    work.begin("Removing the last point")
    for copy in _copies(work, machine):
        if copy.has_task:
            raise Waiting(f"Waiting for the export of {copy.name!r}, which goes on")
        machines.remove(work, copy)
    for point in work.view.snapshots():
        if point.vm == machine and is_our_label(point.label, work.surroundings.installation):
            work.change("Removing the snapshot", "DELETE", f"/VirDomainSnapshot/{segment(point.id)}")
    if is_unsure:
        raise Waiting("Waiting for what was asked last")


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HyperCorePoint:
    """An export on its way to the share, or there."""

    name: str
    configuration: Configuration
    taken_at: datetime
    consistency: Consistency
    export: Export
    bookmark: Bookmark | None = None
    whole: str = WHOLE

    def open(self, disk: str) -> ExportedDisk:
        """Returns at once; the disk waits for the export where it is first needed, or in `advance`."""
        drive = next((one for one in self.configuration.disks if one.name == disk), None)
        if drive is None:
            raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")
        return ExportedDisk(self.export, drive)

    def close(self) -> None:
        """The share's connection is the connector's."""
