"""Machines brought up from recovery points: images that are uploaded, then a machine to which they are attached.

    land      1. a finished machine is found by its stamp; what an unfinished attempt left is removed
              2. the whole machine is decided (`hardware`)
    open      a qcow2 image on this machine; its commit uploads it as a virtual disk, and waits until HyperCore has
              taken it apart (vendor's field notes, "Virtual disks")
    finish    the machine, marked as passing; its disks, attached one by one (attaching copies, thin); its NICs; then in
              one change boot order, node and our stamp, so that it exists only whole; then the virtual disks go

An upload wants its length beforehand, which an image has only once it is whole: so each disk lies on this machine until
it is uploaded, and takes as much room as it has data. Importing an export by its definition would spare that, but what
a definition must hold is written nowhere.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

from connectors.base import MachineRef, Order
from connectors.errors import CapacityExhausted, Conflict, NotFound, PlatformFault
from connectors.hypercore import faults, hardware, machines, names
from connectors.hypercore.carrying import Carrier
from connectors.hypercore.client import segment
from connectors.hypercore.faults import Refusal
from connectors.hypercore.hardware import Hardware, PlacedDisk, PlacedNic
from connectors.hypercore.mapping import CONVERTING, UPLOADING, Marks, Passing, Vm, quoted
from connectors.hypercore.uploading import UploadedDisk
from connectors.hypercore.work import Waiting, Work
from connectors.replication import LandingWish

ENDING = ".qcow2"


def image_prefix(installation: str, key: str) -> str:
    """What the names of all virtual disks of a landing begin with."""
    return f"deskyard-{quoted(installation)}-{quoted(key)}-"


def land(carrier: Carrier, wish: LandingWish, deadline: float) -> HyperCoreLanding:
    """Raises `NotFound`, `Conflict` (the name is taken), `CapacityExhausted`, `Unsupported`, `Busy`."""
    names.require_usable(wish.name)
    machine = hardware.decide(wish)
    is_done = carrier.carry_out(wish.key, deadline, lambda work: _begin(work, wish, is_unsure=carrier.is_unsure))
    return HyperCoreLanding(carrier, wish, None if is_done else machine)


def clear(carrier: Carrier, key: str, deadline: float) -> None:
    """A finished machine is left alone. Idempotent."""
    carrier.carry_out(key, deadline, lambda work: _clear(work, is_unsure=carrier.is_unsure))


def _begin(work: Work[Order], wish: LandingWish, *, is_unsure: bool) -> bool:
    """Whether it is done already."""
    work.begin("Looking for the machine")
    if work.stamped(work.stamp):
        return True
    _clear(work, is_unsure=is_unsure)
    names.require_free(work, wish.name)
    machines.require_storage(work, wish.storage)
    if wish.host and wish.host not in work.view.hosts():
        raise NotFound(f"There is no node {wish.host} in {work.settings.endpoint}.")
    if full := [said for said in work.view.conditions() if faults.FULL.search(said)]:
        raise CapacityExhausted(f"{work.settings.endpoint} takes no more machines: {full[0]}. Make room there.")
    return False


def _clear(work: Work[Order], *, is_unsure: bool) -> None:
    if not work.stamped(work.stamp):
        for vm in _in_the_making(work):
            if vm.has_task:
                raise Waiting(f"Waiting for a task on {vm.name!r}")
            machines.remove(work, vm)
    _drop_images(work)
    if is_unsure:
        raise Waiting("Waiting for what was asked last")


def _in_the_making(work: Work[Order]) -> list[Vm]:
    mark = Passing(work.surroundings.installation, landing=work.order.key)
    return [vm for vm in work.view.vms() if vm.marks.passing == mark]


def _images(work: Work[Order]) -> dict[str, str]:
    """Name -> id of the virtual disks of this landing, those that are still on their way too."""
    prefix = image_prefix(work.surroundings.installation, work.order.key)
    return {
        disk.name: disk.id
        for disk in work.view.virtual_disks()
        if disk.name.removeprefix(UPLOADING).removeprefix(CONVERTING).startswith(prefix)
    }


def _drop_images(work: Work[Order]) -> None:
    """Raises as `change` does while there are any: they show for a moment after they were deleted, and no task tells
    when they are gone."""
    asked: list[str] = work.receipt.setdefault("dropped", [])
    for id in _images(work).values():
        if id in asked:
            raise Waiting("Waiting until the virtual disks are gone")
        asked.append(id)
        try:
            work.change("Removing a virtual disk", "DELETE", f"/VirtualDisk/{segment(id)}")
        except Waiting:
            asked.remove(id)
            raise
        except Refusal as refusal:
            if refusal.status != 404:  # gone by itself
                raise


class HyperCoreLanding:
    """A machine in the making. Not safe among threads."""

    def __init__(self, carrier: Carrier, wish: LandingWish, machine: Hardware | None) -> None:
        """`machine` is None for one that stands already."""
        self._carrier = carrier
        self._wish = wish
        self._machine = machine
        self._warnings = list(machine.warnings) if machine is not None else []
        self._sinks: dict[str, UploadedDisk] = {}
        """By the disk's name; the last one that was opened for it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    @property
    def is_done(self) -> bool:
        return self._machine is None

    def open(self, disk: str) -> UploadedDisk:
        """Raises `NotFound`, `Conflict`, and what a sink raises."""
        if self._machine is None:
            raise Conflict(f"Machine {self._wish.name!r} stands already. Nothing is written to its disks.")
        found = next(((place, one) for place, one in enumerate(self._machine.disks) if one.name == disk), None)
        if found is None:
            raise NotFound(f"The recovery point of {self._wish.name!r} holds no disk {disk!r}.")
        # Another name at each attempt: what a mover that froze uploads later is never taken for what another one wrote.
        prefix = image_prefix(self._carrier.surroundings.installation, self._wish.key)
        sink = UploadedDisk(self._carrier, f"{prefix}{found[0]}-{uuid4().hex[:8]}{ENDING}", found[1].size)
        self._sinks[disk] = sink
        return sink

    def finish(self, deadline: float) -> MachineRef:
        """Raises `Conflict` if a disk is not whole or the name is taken."""
        return self._carrier.carry_out(self._wish.key, deadline, self._make)

    def close(self) -> None:
        """Every disk lets go of its own."""

    # --- making the machine ---

    def _make(self, work: Work[Order]) -> MachineRef:
        work.begin("Looking for the machine")
        done = work.stamped(work.stamp)
        if not done:
            self._build(work)
        with suppress(Refusal):  # the machine stands; whoever asked for it has the rest cleared
            for surplus in _in_the_making(work):  # of another attempt at the same time
                machines.remove(work, surplus)
            _drop_images(work)
        return MachineRef(done[0].id, work.stamp)

    def _build(self, work: Work[Order]) -> None:
        """Always raises, as `change` does: it is done once a machine bears the stamp."""
        machine = self._machine
        if machine is None:
            raise NotFound(f"Machine {self._wish.name!r} was there and is gone. Bring it up again.")
        vm = next(iter(_in_the_making(work)), None)
        if vm is None:
            self._create(work, machine)
            raise AssertionError("a change always raises")
        if vm.has_task:
            raise Waiting("Making the machine")
        for disk in machine.disks:
            self._attach(work, vm, disk)
        for place, nic in enumerate(machine.nics):
            if place >= len(vm.nics):
                self._add_nic(work, vm, nic, place)
        there = {(disk.type, disk.slot): disk.id for disk in vm.disks}
        last: dict[str, Any] = {
            "tags": Marks(stamp=work.stamp, is_template=self._wish.is_template).text,
            "bootDevices": [there[disk.type, disk.slot] for disk in machine.disks],
        }
        if self._wish.host:
            last["affinityStrategy"] = {
                "strictAffinity": False, "preferredNodeUUID": self._wish.host, "backupNodeUUID": "",
            }  # fmt: skip
        work.change("Finishing the machine", "PATCH", f"/VirDomain/{segment(vm.id)}", last, on=vm)

    def _create(self, work: Work[Order], machine: Hardware) -> None:
        self._require_whole(work, machine)
        names.require_free(work, self._wish.name)
        memories = [{"type": "NVRAM", "capacity": hardware.NVRAM_BYTES}] if machine.firmware == "uefi" else []
        marks = Marks(passing=Passing(work.surroundings.installation, landing=work.order.key))
        dom = {
            "name": self._wish.name,
            "description": "",
            "mem": machine.memory,
            "numVCPU": machine.vcpus,
            "tags": marks.text,
            "blockDevs": memories,
            "netDevs": [],
        }
        body = {"dom": dom, "options": {"machineTypeKeyword": machine.firmware}}
        work.change("Making the machine", "POST", "/VirDomain", body)

    def _require_whole(self, work: Work[Order], machine: Hardware) -> None:
        images = _images(work)
        for disk in machine.disks:
            if self._image(images, disk) is None:
                raise Conflict(
                    f"Disk {disk.name} of {self._wish.name!r} is not there in whole. Bring the machine up again."
                )

    def _image(self, images: dict[str, str], disk: PlacedDisk) -> str | None:
        sink = self._sinks.get(disk.name)
        return images.get(sink.image) if sink is not None and sink.is_whole else None

    def _attach(self, work: Work[Order], vm: Vm, disk: PlacedDisk) -> None:
        if any((there.type, there.slot) == (disk.type, disk.slot) for there in vm.disks):
            return
        image = self._image(_images(work), disk)
        if image is None:
            raise Conflict(f"Disk {disk.name} of {self._wish.name!r} is gone. Bring the machine up again.")
        template = {
            "virDomainUUID": vm.id, "type": disk.type, "slot": disk.slot, "capacity": disk.size, "cacheMode": "NONE",
        }  # fmt: skip
        # Without regenerateDiskID false the disk gets another signature, and what is on it does not boot.
        body = {"options": {"regenerateDiskID": False, "readOnly": False}, "template": template}
        self._count(work, vm)
        work.change("Attaching a disk", "POST", f"/VirtualDisk/{segment(image)}/attach", body, on=vm)

    def _add_nic(self, work: Work[Order], vm: Vm, nic: PlacedNic, place: int) -> None:
        wanted: dict[str, Any] = {
            "virDomainUUID": vm.id, "type": nic.type, "vlan": nic.vlan, "connected": nic.is_connected,
        }  # fmt: skip
        taken = {other.mac for seen in work.view.vms() if seen.marks.passing is None for other in seen.nics}
        if nic.mac and nic.mac in taken:
            warning = f"Network card {place + 1} has another address than before: a machine here has {nic.mac} already."
            if warning not in self._warnings:
                self._warnings.append(warning)
        elif nic.mac:
            wanted["macAddress"] = nic.mac
        self._count(work, vm)
        work.change("Adding a network card", "POST", "/VirDomainNetDevice", wanted, on=vm)

    def _count(self, work: Work[Order], vm: Vm) -> None:
        """What is added and never shows must not be added for ever."""
        work.receipt["added"] = added = int(work.receipt.get("added", 0)) + 1
        if added > 4 * (len(self._wish.configuration.disks) + len(self._wish.configuration.nics)) + 8:
            raise PlatformFault(f"What is added to {vm.name!r} does not show. Look at it in HyperCore's own page.")
