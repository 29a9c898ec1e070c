"""TakeSnapshot, RevertSnapshot, DeleteSnapshot. A snapshot's id is vSphere's own, the order's key its description."""

from __future__ import annotations

from connectors.base import DeleteSnapshot, Outcome, RevertSnapshot, SnapshotTaken, TakeSnapshot
from connectors.errors import NotFound, Unsupported
from connectors.esxi import mapping, names
from connectors.esxi.api import vim
from connectors.esxi.work import Work


def description(key: str) -> str:
    return f"deskyard {key}"


def take(work: Work[TakeSnapshot]) -> Outcome:
    """Of the disks alone, as they stand: without memory, and without asking the guest to hold still."""
    names.require_usable(work.order.name, what="snapshot")
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, ("snapshot",))
    mine = description(work.order.key)
    there = next((point for point in mapping.points(vm.snapshot) if point.description == mine), None)
    if there is not None:
        work.step = "Taking the snapshot"
        return work.done(SnapshotTaken(there.id))
    if fault is not None:
        raise fault
    wanted = {"name": names.to_wire(work.order.name), "description": mine, "memory": False, "quiesce": False}
    raise work.start("Taking the snapshot", lambda: work.vm(vm).CreateSnapshot(**wanted))


def revert(work: Work[RevertSnapshot]) -> Outcome:
    """A second attempt finds the order's key at the machine and does not throw away what happened since.

    What a revert brings back is the configuration of that time too, with the marks of that time: so the note comes
    after it.
    """
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, ("snapshot",))
    if fault is not None:
        raise fault
    if vm.mark(mapping.REVERTED) == work.order.key:
        work.step = "Reverting to the snapshot"
        return work.done()
    if work.receipt.get("reverting"):
        note = vim.vm.ConfigSpec(extraConfig=mapping.options({mapping.REVERTED: work.order.key}))
        raise work.start("Noting the revert", lambda: work.vm(vm).Reconfigure(spec=note))
    if work.order.snapshot not in {point.id for point in mapping.points(vm.snapshot)}:
        raise NotFound(f"Machine {vm.name!r} has no snapshot {work.order.snapshot!r}.")
    snapshot = work.object(vim.vm.Snapshot, work.order.snapshot)
    raise work.start("Reverting to the snapshot", snapshot.Revert, reverting=True)


def delete(work: Work[DeleteSnapshot]) -> Outcome:
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, ("snapshot",))
    there = next((point for point in mapping.points(vm.snapshot) if point.id == work.order.snapshot), None)
    if there is None:
        work.step = "Deleting the snapshot"
        return work.done()
    if fault is not None:
        raise fault
    if there.name == names.BASE_SNAPSHOT:
        raise Unsupported(f"Linked clones hang from the snapshot {there.name!r} of {vm.name!r}. It was left as it is.")
    snapshot = work.object(vim.vm.Snapshot, there.id)
    raise work.start("Deleting the snapshot", lambda: snapshot.Remove(removeChildren=False, consolidate=True))
