"""TakeSnapshot, DeleteSnapshot. Reverting is an exchange of disks: see `exchange`."""

from __future__ import annotations

from connectors.base import DeleteSnapshot, Outcome, SnapshotTaken, TakeSnapshot
from connectors.errors import Conflict
from connectors.hypercore import mapping, names
from connectors.hypercore.client import segment
from connectors.hypercore.work import Waiting, Work


def take(work: Work[TakeSnapshot]) -> Outcome:
    """`replication` false, else HyperCore sends it to wherever the machine is replicated, and may not delete it
    soon."""
    order = work.order
    names.require_usable(order.name, what="snapshot")
    work.begin("Looking at the machine")
    vm = work.ours(order.machine)
    there = [snapshot for snapshot in work.view.snapshots() if snapshot.vm == vm.id]
    label = mapping.label_of(order.name, order.key)
    if mine := [snapshot for snapshot in there if snapshot.label == label]:
        return work.done(SnapshotTaken(mine[0].id))
    if vm.has_task:
        raise Waiting("Taking the snapshot")
    if any(snapshot.label.startswith(mapping.label_of(order.name, "").removesuffix("]")) for snapshot in there):
        raise Conflict(f"Machine {vm.name!r} already has a snapshot {order.name!r}. Choose another name.")
    wanted = {"domainUUID": vm.id, "label": label, "type": "USER", "replication": False}
    work.change("Taking the snapshot", "POST", "/VirDomainSnapshot", wanted, on=vm)
    return work.done()


def delete(work: Work[DeleteSnapshot]) -> Outcome:
    order = work.order
    work.begin("Looking at the machine")
    vm = work.ours(order.machine)
    found = next((snapshot for snapshot in work.view.snapshots() if snapshot.id == order.snapshot), None)
    if found is not None:
        if found.vm != vm.id:
            raise Conflict(f"Snapshot {order.snapshot} is not one of {vm.name!r}. Nothing was done to it.")
        work.change("Deleting the snapshot", "DELETE", f"/VirDomainSnapshot/{segment(found.id)}", on=vm)
    return work.done()
