"""Consistent points of machines: a snapshot of ours, and the disks as they are at it.

take      1. what earlier points left is removed
          2. change tracking is switched on where it can be and is not: it begins when the machine is held for a moment,
             so a snapshot is taken and removed (Virtual Disk Programming Guide, "Changed Block Tracking")
          3. a snapshot is taken; the guest's file systems are asked to hold still if VMware Tools run
          4. it is decided how the disks are read
read      by parts   only if every disk is one flat extent at the point: what has changed since the wished point, or
                     what is in use, by QueryChangedDiskAreas, and the bytes from the datastores' files
          whole      else: each disk is fetched as a streamOptimized VMDK by a lease of the snapshot into a scratch file
release   removes every snapshot that bears our name and our installation, and nobody else's. A bookmark is no more than
          the change ids that the disks had: it leaves nothing on the platform
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from connectors.base import MachineRef, Power
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.esxi import layout, mapping, names, soap
from connectors.esxi.api import vim
from connectors.esxi.errands import IN_THE_WAY, Errand, TookTooLong
from connectors.esxi.faults import VimFault
from connectors.esxi.layout import PointDisk
from connectors.esxi.reading import CHANGES, FetchedDisk, FlatDisk, Plan, Reading, images, plan_of
from connectors.esxi.work import VM, Vm
from connectors.replication import Bookmark, Consistency, PointWish
from disks.base import Source
from disks.vault.points import Configuration, Drive, Nic

QUIESCE_S = 45.0
"""How long a guest may take to hold still; after that the point is taken without."""

LIVE_PATHS = (
    "config.hardware.device", "snapshot", "config.changeTrackingEnabled", "capability.changeTrackingSupported",
    "guest.toolsRunningStatus",
)  # fmt: skip
LEFT_PATHS = ("snapshot", "recentTask", "runtime.consolidationNeeded")
SHAPE_PATHS = (
    "config.hardware.device", "config.hardware.numCPU", "config.hardware.memoryMB", "config.firmware",
    "config.bootOptions.efiSecureBootEnabled",
)  # fmt: skip


# --- taking ----------------------------------------------------------------------------------------------------------


def take(errand: Errand, wish: PointWish, workdir: Path) -> EsxiPoint:
    """Raises `NotFound`, `Conflict`, `Unsupported`, `Busy`, `VimFault`."""
    images()
    errand.begin("Looking at the machine")
    meant = errand.find_meant(wish.machine)
    if meant is None:
        raise NotFound(f"Machine {wish.machine.id} is not on {errand.endpoint} any more.")
    if meant.is_template:
        return _of_template(errand, _seen(errand, meant.moid, (*LIVE_PATHS, *SHAPE_PATHS)), wish, workdir)
    moid = meant.moid
    release_all(errand, moid)
    vm = _seen(errand, moid, LIVE_PATHS)
    chosen = _chosen(vm, wish.disks)
    hindrance, is_fresh = _track(errand, vm, chosen, wish.key)
    taken_at, snapshot, consistency = _snapshot(errand, vm, wish.key)
    disks, shape = _at_point(errand, moid, snapshot, chosen)
    client = errand.client
    reading = Reading(client, moid, snapshot, workdir)
    plan = plan_of(errand, reading, disks, wish.since, hindrance)
    begun = " vSphere notes from now on what changes; for that the machine was held for a moment." if is_fresh else ""
    return EsxiPoint(
        name=vm.name,
        configuration=_configuration(errand, shape, disks),
        taken_at=taken_at,
        consistency=consistency,
        bookmark=_bookmark(disks),
        whole=f"{plan.whole}{begun}" if plan.whole else "",
        reading=reading,
        plan=plan,
    )


def _of_template(errand: Errand, vm: Vm, wish: PointWish, workdir: Path) -> EsxiPoint:
    """vSphere takes no snapshot of what is marked as a template, and nobody writes to it."""
    chosen = _chosen(vm, wish.disks)
    disks = tuple(disk for disk in layout.at_point(vm.devices, None, "") if disk.name in chosen)
    return EsxiPoint(
        name=vm.name,
        configuration=_configuration(errand, vm.seen, disks),
        taken_at=datetime.now(UTC),
        consistency=Consistency.OFF,
        bookmark=None,
        whole="It is a template, and vSphere tells of none what changed.",
        reading=Reading(errand.client, vm.moid, "", workdir),
        plan=Plan({disk.name: disk for disk in disks}, "It is a template."),
    )


def _seen(errand: Errand, moid: str, paths: Sequence[str]) -> Vm:
    vm = errand.look(moid, paths)
    if vm is None:
        raise NotFound(f"The machine is not on {errand.endpoint} any more.")
    return vm


def _chosen(vm: Vm, wanted: Sequence[str]) -> list[str]:
    """Names of the disks to be read. Raises `NotFound`, `Unsupported` for one that no snapshot holds."""
    there = layout.named(vm.devices)
    if missing := set(wanted) - there.keys():
        raise NotFound(f"Machine {vm.name!r} has no disk {min(missing)!r}. Choose among its disks anew.")
    chosen = [name for name in there if not wanted or name in wanted]
    if not chosen:
        raise Unsupported(f"Machine {vm.name!r} has no disk to replicate.")
    for name in chosen:
        if why := layout.why_not_kept(there[name][0]):
            raise Unsupported(f"Disk {name} of {vm.name!r} cannot be replicated: {why}.")
    return chosen


def _track(errand: Errand, vm: Vm, chosen: Sequence[str], key: str) -> tuple[str, bool]:
    """Why vSphere cannot note what changes, in words, or ""; and whether it was told to just now."""
    if vm.seen.text("config.changeTrackingEnabled") == "true":
        return "", False
    there = layout.named(vm.devices)
    if any(there[name][0].parent for name in chosen):
        return "", False  # it would be of no use: such disks are read whole
    if vm.seen.text("capability.changeTrackingSupported") != "true":
        return "This kind of machine is too old for vSphere to note what changes.", False
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
    errand.carry_out("Switching change tracking on", lambda: errand.vm(vm).Reconfigure(spec=spec))
    _create(errand, vm, key, quiesce=False)
    release_all(errand, vm.moid)
    return "", True


def _snapshot(errand: Errand, vm: Vm, key: str) -> tuple[datetime, str, Consistency]:
    """When it was begun, its id, and what a guest that starts from it finds."""
    if vm.power is Power.ON and vm.seen.text("guest.toolsRunningStatus") == "guestToolsRunning":
        taken_at = datetime.now(UTC)
        try:
            return taken_at, _create(errand, vm, key, quiesce=True), Consistency.GUEST
        except TookTooLong:
            release_all(errand, vm.moid)
        except VimFault as fault:
            if not fault.is_a("SnapshotFault", "ToolsUnavailable", "VmConfigFault") or fault.is_a("SnapshotLocked"):
                raise
    taken_at = datetime.now(UTC)
    consistency = Consistency.OFF if vm.power is Power.OFF else Consistency.CRASH
    return taken_at, _create(errand, vm, key, quiesce=False), consistency


def _create(errand: Errand, vm: Vm, key: str, *, quiesce: bool) -> str:
    wanted = {"name": names.POINT, "description": f"{_ours(errand)}{key}", "memory": False, "quiesce": quiesce}
    made = errand.carry_out(
        "Taking the point", lambda: errand.vm(vm).CreateSnapshot(**wanted), within_s=QUIESCE_S if quiesce else None
    )
    return (made.text or "") if made is not None else ""


def _ours(errand: Errand) -> str:
    """How the descriptions of our snapshots begin."""
    return f"deskyard point {errand.stamp.installation} "


def _at_point(
    errand: Errand, moid: str, snapshot: str, chosen: Sequence[str]
) -> tuple[tuple[PointDisk, ...], soap.Seen]:
    errand.begin("Looking at the point")
    shape = errand.client.object_seen("VirtualMachineSnapshot", snapshot, SHAPE_PATHS, errand.deadline)
    files = errand.client.object_seen(VM, moid, ("layoutEx",), errand.deadline)
    if shape is None:
        raise NotFound("The point that was just taken is gone: somebody removed it. It is taken anew.")
    found = mapping.devices(shape.values.get("config.hardware.device"))
    disks = layout.at_point(found, files.values.get("layoutEx") if files else None, snapshot)
    return tuple(disk for disk in disks if disk.name in chosen), shape


def _configuration(errand: Errand, shape: soap.Seen, disks: Sequence[PointDisk]) -> Configuration:
    nics = mapping.devices(shape.values.get("config.hardware.device")).nics
    return Configuration(
        vcpus=shape.number("config.hardware.numCPU"),
        memory_mib=shape.number("config.hardware.memoryMB"),
        firmware="uefi" if shape.text("config.firmware") == "efi" else "bios",
        secure_boot=shape.text("config.bootOptions.efiSecureBootEnabled") == "true",
        nics=tuple(Nic(nic.kind.removeprefix("Virtual").lower(), nic.mac, _network(errand, nic)) for nic in nics),
        disks=tuple(Drive(disk.name, disk.bus, disk.disk.size) for disk in disks),
    )


def _network(errand: Errand, nic: mapping.Nic) -> str:
    if told := soap.text(nic.backing, "deviceName"):
        return told
    group = soap.text(nic.backing, "port", "portgroupKey")
    seen = (
        errand.client.object_seen("DistributedVirtualPortgroup", group, ("name",), errand.deadline) if group else None
    )
    return names.from_wire(seen.text("name")) if seen is not None else ""


def _bookmark(disks: Sequence[PointDisk]) -> Bookmark | None:
    if not all(disk.flat and disk.disk.change_id for disk in disks):
        return None
    return Bookmark({CHANGES: {disk.name: disk.disk.change_id for disk in disks}})


@dataclass(frozen=True, slots=True)
class EsxiPoint:
    """A snapshot that stands until it is released."""

    name: str
    configuration: Configuration
    taken_at: datetime
    consistency: Consistency
    bookmark: Bookmark | None
    whole: str
    reading: Reading
    plan: Plan

    def open(self, disk: str) -> Source:
        """A disk that vSphere gives whole only is fetched first, which takes as long as it takes.

        Raises `NotFound`, `SourceLost`, `SourceRefused`, `OutOfSpace`.
        """
        there = self.plan.disks.get(disk)
        if there is None:
            raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")
        if not self.plan.since:
            return FetchedDisk(self.reading, there)
        is_all = bool(self.whole)
        return FlatDisk(self.reading, there, self.plan.since[disk], self.plan.datacenters[disk], is_all=is_all)

    def close(self) -> None:
        """Every source closes its own connections."""


# --- releasing -------------------------------------------------------------------------------------------------------


def release(errand: Errand, machine: MachineRef) -> None:
    """Nothing of ours stays on the machine. One that is gone is success. Raises `Conflict`, `Busy`, `VimFault`."""
    errand.begin("Looking at the machine")
    vm = errand.find_meant(machine, ("snapshot",))
    if vm is None:
        return
    if not vm.is_template:
        release_all(errand, vm.moid)
    elif _left(errand, vm):
        raise Conflict(
            f"Machine {vm.name!r} was made a template while a point of it was held, and vSphere removes no snapshot of "
            f"one. Convert it to a machine, remove {names.POINT}, convert it back."
        )


def release_all(errand: Errand, moid: str) -> None:
    """Remove our snapshots, also one that is just being taken for somebody who has died. Others' stay.

    Idempotent. Raises `Busy` where the removal, which vSphere goes on with, outlives the deadline.
    """
    while (vm := errand.look(moid, LEFT_PATHS)) is not None:
        errand.step = "Removing the point"
        if _is_being_taken(errand, vm):
            errand.pause()
            continue
        ours = _left(errand, vm)
        if not ours:
            break
        try:
            _remove(errand, ours[-1].id)
        except VimFault as fault:
            if fault.is_a("ManagedObjectNotFound"):
                continue
            if not fault.is_a(*IN_THE_WAY):
                raise
            errand.pause()
    if vm is not None and vm.seen.text("runtime.consolidationNeeded") == "true":
        # The snapshot is gone and its disks are not: somebody else was reading them.
        errand.carry_out("Removing what a point left", errand.vm(vm).ConsolidateDisks)


def _left(errand: Errand, vm: Vm) -> list[mapping.Point]:
    """Our snapshots on the machine."""
    return [point for point in mapping.points(vm.snapshot) if point.description.startswith(_ours(errand))]


def _remove(errand: Errand, snapshot: str) -> None:
    there = errand.object(vim.vm.Snapshot, snapshot)
    errand.carry_out("Removing the point", lambda: there.Remove(removeChildren=False, consolidate=True))


def _is_being_taken(errand: Errand, vm: Vm) -> bool:
    recent = soap.references(vm.seen.values.get("recentTask"))
    if not recent:
        return False
    tasks = errand.client.objects("Task", recent, ("info.descriptionId", "info.state"), errand.deadline)
    return any(
        task.text("info.descriptionId") == "VirtualMachine.createSnapshot"
        and task.text("info.state") in ("running", "queued")
        for task in tasks.values()
    )
