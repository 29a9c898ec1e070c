"""RecycleMachine and RevertSnapshot: other disks under the same machine, in steps that any process can go on with.

HyperCore has no revert. What it has is copying a disk out of a snapshot into a machine, and deleting disks. So both
orders do the same, the one from a snapshot of the template, the other from one of the machine itself:

1. Note in the machine's tags that this order exchanges its disks, which ones were there (they are the old ones from now
   on), and whether it was on. What is there later and is not noted is new.
2. Cut the power.
3. Copy each disk out of the snapshot. Those for which there is no place beside the old one (NVRAM, TPM, IDE) come last,
   and there the old one goes first.
4. Delete the old disks.
5. Name, boot order and cloud-init data, and in the same change: the notes go, and the order's key stays as the last
   that exchanged the disks, by which a second attempt knows that it is done.

Until step 4 a failure is undone: the new disks go, the old ones were never touched. Copies depend on nobody, so the
template's snapshot is deleted in the end, and a snapshot outlives the disks it was taken of (vendor's field notes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.base import Outcome, Power, RecycleMachine, RevertSnapshot
from connectors.errors import Conflict, NotFound, PlatformFault, Unsupported
from connectors.hypercore import answers, mapping, names, power
from connectors.hypercore.client import segment
from connectors.hypercore.machines import made, usable_template
from connectors.hypercore.mapping import Disk, Snapshot, Vm
from connectors.hypercore.work import O, Started, Waiting, Work

# --- the orders ------------------------------------------------------------------------------------------------------


def recycle(work: Work[RecycleMachine]) -> Outcome:
    """Fresh disks of the template; the machine keeps its id and stamp, its snapshots go."""
    order = work.order
    names.require_usable(order.name)
    work.begin("Looking at the machine")
    vm = work.ours(order.machine)
    if vm.marks.exchanged != order.key:
        names.require_free(work, order.name, but=vm.id)
        template = usable_template(work, order.template)
        _exchange(work, vm, lambda: _template_point(work, template), _recycled(work))
    _drop_template_point(work)
    for snapshot in work.view.snapshots():
        if snapshot.vm == vm.id:  # the last user's files are in it
            work.change("Deleting a snapshot", "DELETE", f"/VirDomainSnapshot/{segment(snapshot.id)}", on=vm)
    if power.is_off(vm):
        answers.settle(work, vm, order.seed.answer_file if order.seed else "")
    if order.power_on:
        power.switch_on(work, vm)
    work.step = "Recycling the machine"
    return work.done(made(vm))


def revert(work: Work[RevertSnapshot]) -> Outcome:
    """The machine's disks as they were; on again if it was on. A second attempt does not throw away what came since."""
    order = work.order
    work.begin("Looking at the machine")
    vm = work.ours(order.machine)
    if vm.marks.exchanged != order.key:
        _exchange(work, vm, lambda: _own_point(work, vm), {})
    if vm.marks.was_on:
        power.switch_on(work, vm)
        tags = mapping.with_marks(vm, was_on=False)
        work.change("Noting the revert", "PATCH", f"/VirDomain/{segment(vm.id)}", {"tags": tags}, on=vm)
    work.step = "Reverting to the snapshot"
    return work.done()


def _recycled(work: Work[RecycleMachine]) -> dict[str, Any]:
    order = work.order
    changes: dict[str, Any] = {"name": order.name}
    if order.seed is not None:
        changes["cloudInitData"] = mapping.cloud_init(order.seed, order.key)
    return changes


# --- where the disks come from ---------------------------------------------------------------------------------------


def _own_point(work: Work[RevertSnapshot], vm: Vm) -> Snapshot:
    found = next((point for point in work.view.snapshots() if point.id == work.order.snapshot), None)
    if found is None:
        raise NotFound(f"Machine {vm.name!r} has no snapshot {work.order.snapshot}.")
    if found.vm != vm.id:
        raise Conflict(f"Snapshot {found.id} is not one of {vm.name!r}. Nothing was done.")
    return found


def _point_label(work: Work[O]) -> str:
    return mapping.label_of("recycling", work.order.key)


def _template_point(work: Work[RecycleMachine], template: Vm) -> Snapshot:
    """The snapshot of the template that this order took; taken now if it was not yet (raises as `change` does then)."""
    label = _point_label(work)
    for point in work.view.snapshots():
        if point.vm == template.id and point.label == label:
            return point
    wanted = {"domainUUID": template.id, "label": label, "type": "USER", "replication": False}
    work.change("Looking at the template's disks", "POST", "/VirDomainSnapshot", wanted, on=template)
    raise AssertionError("a change always raises")


def _drop_template_point(work: Work[O]) -> None:
    for point in work.view.snapshots():
        if point.label == _point_label(work):
            work.change("Tidying up", "DELETE", f"/VirDomainSnapshot/{segment(point.id)}")


# --- the exchange ----------------------------------------------------------------------------------------------------


def _exchange(work: Work[O], vm: Vm, find_point: Any, changes: dict[str, Any]) -> None:
    """All five steps. Always raises, as `change` does: it is done once the machine's mark says so."""
    point: Snapshot = find_point()
    sources = point.disks
    if not any(disk.type in mapping.DATA_DISKS for disk in sources):
        raise Unsupported(f"Snapshot {point.label!r} has no disks to copy. Nothing was done to {vm.name!r}.")
    path = f"/VirDomain/{segment(vm.id)}"
    if vm.marks.exchanging != work.order.key:
        # Half an exchange of another order may be there: all that it left is old now.
        was_on = vm.power is not Power.OFF or (bool(vm.marks.exchanging) and vm.marks.was_on)
        tags = mapping.with_marks(
            vm, exchanging=work.order.key, old_disks=tuple(disk.id for disk in vm.disks), was_on=was_on
        )
        work.change("Noting the old disks", "PATCH", path, {"tags": tags}, on=vm)
    power.cut_power(work, vm)
    old = [disk for disk in vm.disks if disk.id in vm.marks.old_disks]
    new = [disk for disk in vm.disks if disk.id not in vm.marks.old_disks]
    ordered = sorted(sources, key=lambda disk: _has_no_place(disk, sources))
    copies = _pair(ordered, new)
    for source in ordered:
        if source.id not in copies:
            _copy(work, vm, point, source, old)
    for surplus in new:
        if surplus.id not in copies.values():
            work.change("Removing a second copy", "DELETE", _device(surplus), on=vm)
    for disk in old:
        work.change("Deleting the old disks", "DELETE", _device(disk), on=vm)
    order = [copies[device] for device in point.boot if device in copies]
    order = order or [copies[disk.id] for disk in sources if disk.type in mapping.DATA_DISKS]
    is_revert = isinstance(work.order, RevertSnapshot)
    tags = mapping.with_marks(
        vm, exchanging="", old_disks=(), was_on=vm.marks.was_on and is_revert, exchanged=work.order.key
    )
    work.change("Switching to the new disks", "PATCH", path, {**changes, "bootDevices": order, "tags": tags}, on=vm)


def _has_no_place(disk: Disk, sources: Sequence[Disk]) -> bool:
    """Whether the copy cannot be beside the old one: a machine has one NVRAM, one VTPM and four IDE devices at most."""
    ide = sum(source.type == "IDE_DISK" for source in sources)
    return disk.type in mapping.MEMORIES or (disk.type == "IDE_DISK" and ide > 1)


def _pair(sources: Sequence[Disk], new: Sequence[Disk]) -> dict[str, str]:
    """Source -> its copy, for those that have one: a copy is as its source in type and size, first come, first
    served."""
    free = list(new)
    found: dict[str, str] = {}
    for source in sources:
        match = next((disk for disk in free if (disk.type, disk.capacity) == (source.type, source.capacity)), None)
        if match is not None:
            free.remove(match)
            found[source.id] = match.id
    return found


def _copy(work: Work[O], vm: Vm, point: Snapshot, source: Disk, old: Sequence[Disk]) -> None:
    if vm.has_task:
        raise Waiting("Copying the disks")
    if _has_no_place(source, point.disks) and (blocking := [disk for disk in old if disk.type == source.type]):
        work.change("Making room for the new disk", "DELETE", _device(blocking[0]), on=vm)
    taken = int(work.receipt.get("copies", 0)) + 1
    if taken > 2 * len(point.disks) + 2:
        raise PlatformFault(f"The disks copied for {vm.name!r} do not show. Look at it in HyperCore's own page.")
    body = mapping.disk_from_snapshot(source, point.id, vm.id)
    try:
        work.change("Copying the disks", "POST", f"/VirDomainBlockDevice/{segment(source.id)}/clone", body, on=vm)
    except Started:
        work.receipt["copies"] = taken
        raise


def _device(disk: Disk) -> str:
    return f"/VirDomainBlockDevice/{segment(disk.id)}"


# --- undoing ---------------------------------------------------------------------------------------------------------


def undo(work: Work[Any]) -> None:
    """Back to the old disks, if all of them are still there; else the machine stays off, with its notes, to be
    recycled or reverted again. Raises as `change` does while there is something left to do."""
    vm = work.find(work.order.machine.id)
    is_ours = vm is not None and vm.marks.stamp == work.order.machine.stamp
    if vm is not None and is_ours and vm.marks.exchanging == work.order.key:
        there = {disk.id for disk in vm.disks}
        if set(vm.marks.old_disks) <= there:
            for disk in vm.disks:
                if disk.id not in vm.marks.old_disks:
                    work.change("Removing the new disks", "DELETE", _device(disk), on=vm)
            tags = mapping.with_marks(vm, exchanging="", old_disks=(), was_on=False)
            work.change("Undoing the exchange", "PATCH", f"/VirDomain/{segment(vm.id)}", {"tags": tags}, on=vm)
    if isinstance(work.order, RecycleMachine):
        _drop_template_point(work)
