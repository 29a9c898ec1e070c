"""CloneMachine, DeleteMachine, Reconfigure: machines from templates and back to nothing.

A clone bears its stamp from the first moment, as tags of the clone call itself, so a second attempt meets what the
first one made, and a delete without an id finds it. HyperCore's clones are thin copies that share blocks and depend on
nobody: there is no other kind, so `linked` and full are the same here.
"""

from __future__ import annotations

import time
from typing import Any

from connectors.base import CloneMachine, DeleteMachine, MachineMade, MachineRef, Outcome, Reconfigure, Stamp
from connectors.errors import Conflict, NotFound, PlatformFault, Unsupported
from connectors.hypercore import answers, mapping, names, power
from connectors.hypercore.client import segment
from connectors.hypercore.mapping import MIB, Vm
from connectors.hypercore.work import O, Started, Waiting, Work

LONGEST_LOOK_S = 600.0
"""How long a delete without an id waits for a clone that may be under way unseen."""


class Ambiguous(Conflict):
    """Two machines of one order, both in use: nothing is undone."""


# --- clone -----------------------------------------------------------------------------------------------------------


def clone(work: Work[CloneMachine]) -> Outcome:
    """Clone, then what a clone call drops or cannot say (boot order, host, NICs), then power. Each looks first."""
    order = work.order
    names.require_usable(order.name)
    work.begin("Looking for the machine")
    vm = _only(work, work.stamp)
    if vm is None:
        _begin(work)
        raise AssertionError("beginning a clone always raises")
    if vm.has_task:
        raise Waiting("Cloning the template")
    _finish(work, vm)
    _connect(work, vm)
    if power.is_off(vm):
        answers.settle(work, vm, order.seed.answer_file if order.seed else "")
    if order.power_on:
        power.switch_on(work, vm)
    work.step = "Making the machine"
    return work.done(made(vm))


def _only(work: Work[O], stamp: Stamp) -> Vm | None:
    """The machine with that stamp. Two that were made by two attempts at once become one: everybody keeps the same."""
    found = sorted(work.stamped(stamp), key=lambda vm: (power.is_off(vm), vm.id))
    for surplus in found[1:]:
        if not power.is_off(surplus):
            raise Ambiguous(
                f"Two machines bear the stamp of order {stamp.key}, and both are on: {found[0].name!r} and "
                f"{surplus.name!r}. Delete the one that nobody uses."
            )
        work.change("Removing a second machine", "DELETE", f"/VirDomain/{segment(surplus.id)}", on=surplus)
    return found[0] if found else None


def _begin(work: Work[CloneMachine]) -> None:
    order = work.order
    names.require_free(work, order.name)
    template = usable_template(work, order.template)
    require_storage(work, order.storage)
    _wanted_vlans(work)
    if order.host and order.host not in work.view.hosts():
        raise NotFound(f"There is no node {order.host} in {work.settings.endpoint}.")
    marks = mapping.Marks(others=template.marks.others, stamp=work.stamp)
    wanted: dict[str, Any] = {"name": order.name, "tags": marks.text}
    if order.memory_mib:
        wanted["mem"] = order.memory_mib * MIB
    if order.vcpus:
        wanted["numVCPU"] = order.vcpus
    if order.seed is not None:
        wanted["cloudInitData"] = mapping.cloud_init(order.seed, order.key)
    path = f"/VirDomain/{segment(template.id)}/clone"
    work.change("Cloning the template", "POST", path, {"template": wanted}, on=template)


def usable_template(work: Work[O], named: str) -> Vm:
    """Raises `NotFound`, `Conflict` (switched on) or `Unsupported` (no disks, a desktop, a replica)."""
    vm = work.find(named)
    if vm is None:
        raise NotFound(f"Template {named} is not on {work.settings.endpoint}.")
    if vm.marks.stamp is not None and not vm.is_template:
        raise Unsupported(f"{vm.name!r} is a desktop, not a template.")
    if reason := mapping.cannot_clone(vm):
        kind = Unsupported if power.is_off(vm) else Conflict
        raise kind(f"Template {vm.name!r} cannot be cloned. {reason}")
    return vm


def require_storage(work: Work[O], storage: str | None) -> None:
    """A cluster is one storage, and it bears the cluster's id. Raises `NotFound`."""
    if not storage:
        return
    cluster = mapping.read_cluster(work.wire.get("/Cluster", work.view.deadline, "reading the cluster"))
    if storage != cluster.id:
        raise NotFound(f"There is no storage {storage} in {work.settings.endpoint}: a cluster is one storage.")


def _wanted_vlans(work: Work[CloneMachine]) -> list[int]:
    vlans = []
    for network in work.order.networks:
        vlan = mapping.vlan_of(network)
        if vlan is None:
            raise NotFound(f"There is no network {network!r} in {work.settings.endpoint}: networks here are VLANs.")
        vlans.append(vlan)
    return vlans


def _finish(work: Work[CloneMachine], vm: Vm) -> None:
    """What the clone call left out, in one change: boot order, size, host."""
    order = work.order
    wanted: dict[str, Any] = {}
    if not vm.boot:
        wanted["bootDevices"] = list(mapping.boot_order(vm, work.find(order.template)))
    if order.memory_mib and vm.memory != order.memory_mib * MIB:
        wanted["mem"] = order.memory_mib * MIB
    if order.vcpus and vm.vcpus != order.vcpus:
        wanted["numVCPU"] = order.vcpus
    if order.host and vm.preferred_host != order.host:
        wanted["affinityStrategy"] = {
            "strictAffinity": False, "preferredNodeUUID": order.host, "backupNodeUUID": "",
        }  # fmt: skip
    if not wanted or not power.is_off(vm):
        return
    if work.receipt.get("finished"):
        if "mem" in wanted or "numVCPU" in wanted:
            raise PlatformFault(f"Machine {vm.name!r} did not take its size. Look at it in HyperCore's own page.")
        return  # a boot order or host that does not stay is HyperCore's own choice
    try:
        work.change("Setting the machine up", "PATCH", f"/VirDomain/{segment(vm.id)}", wanted, on=vm)
    except Started:
        work.receipt["finished"] = True
        raise


def _connect(work: Work[CloneMachine], vm: Vm) -> None:
    """The NICs, one after the other; those that the clone has from its template are kept where they fit."""
    vlans = _wanted_vlans(work)
    if not vlans or not power.is_off(vm):
        return
    for place, vlan in enumerate(vlans):
        if place >= len(vm.nics):
            kind = vm.nics[0].type if vm.nics else "VIRTIO"
            nic = {"virDomainUUID": vm.id, "type": kind, "vlan": vlan, "connected": True}
            _nic(work, vm, "Adding a network card", "POST", "/VirDomainNetDevice", nic)
        elif vm.nics[place].vlan != vlan:
            path = f"/VirDomainNetDevice/{segment(vm.nics[place].id)}"
            _nic(work, vm, "Connecting a network card", "PATCH", path, {"vlan": vlan})
    for surplus in vm.nics[len(vlans) :]:
        _nic(work, vm, "Removing a network card", "DELETE", f"/VirDomainNetDevice/{segment(surplus.id)}", None)


def _nic(work: Work[CloneMachine], vm: Vm, step: str, method: str, path: str, body: object) -> None:
    taken = int(work.receipt.get("nics", 0)) + 1
    if taken > 2 * (len(work.order.networks) + len(vm.nics)) + 2:
        raise PlatformFault(f"The network cards of {vm.name!r} do not become what was asked. Look at it in HyperCore.")
    try:
        work.change(step, method, path, body, on=vm)
    except Started:
        work.receipt["nics"] = taken
        raise


def undo_clone(work: Work[CloneMachine]) -> None:
    """Remove what this order made, if anything. Raises as `change` does while there is something left to do."""
    for vm in work.stamped(work.stamp):
        remove(work, vm)
    for removed in work.receipt.get("removed", ()):
        answers.drop(work, str(removed))


def made(vm: Vm) -> MachineMade:
    return MachineMade(
        machine_id=vm.id,
        name=vm.name,
        disks=tuple(disk.id for disk in vm.disks),
        power=vm.power,
        host=vm.host or None,
        stamp=vm.marks.stamp,
    )


# --- delete, reconfigure ---------------------------------------------------------------------------------------------


def delete(work: Work[DeleteMachine]) -> Outcome:
    """The machine, its disks (HyperCore deletes them with it) and its snapshots, which it may leave behind."""
    ref = work.order.machine
    work.begin("Looking at the machine")
    if not ref.id:
        return _delete_begun(work, ref)
    vm = work.find_ours(ref)
    if vm is not None:
        remove(work, vm)
    _drop_snapshots(work, ref.id)
    answers.drop(work, ref.id)
    work.step = "Deleting the machine"
    return work.done()


def _delete_begun(work: Work[DeleteMachine], ref: MachineRef) -> Outcome:
    """Whatever the order of the stamp's key made. A clone shows once it is whole: so none may be under way."""
    if ref.stamp is None:
        raise Conflict("Neither a machine nor the order that made it was named. Nothing was deleted.")
    for vm in work.stamped(ref.stamp):
        if vm.is_template:
            raise Conflict(f"Machine {vm.name!r} is marked as a template. Nothing was done to it.")
        remove(work, vm)
    since = work.receipt.setdefault("since", time.time())
    busy = [vm for vm in work.view.vms() if vm.has_task and (vm.is_template or vm.marks.stamp is None)]
    if busy and time.time() < float(since) + LONGEST_LOOK_S:
        raise Waiting(f"Waiting for a task on {busy[0].name!r}", 1.0)
    for removed in work.receipt.get("removed", ()):
        _drop_snapshots(work, str(removed))
        answers.drop(work, str(removed))
    work.step = "Deleting what was begun"
    return work.done()


def remove(work: Work[O], vm: Vm) -> None:
    """Cut the power, then delete. Always raises, as `change` does: it is done once the machine does not show any
    more."""
    power.cut_power(work, vm)
    try:
        work.change("Deleting the machine", "DELETE", f"/VirDomain/{segment(vm.id)}", on=vm)
    except Started:
        work.receipt["removed"] = sorted({*work.receipt.get("removed", ()), vm.id})
        raise


def _drop_snapshots(work: Work[O], machine: str) -> None:
    for snapshot in work.view.snapshots():
        if snapshot.vm == machine:
            work.change("Deleting a snapshot", "DELETE", f"/VirDomainSnapshot/{segment(snapshot.id)}")


def reconfigure(work: Work[Reconfigure]) -> Outcome:
    order = work.order
    work.begin("Looking at the machine")
    vm = work.ours(order.machine)
    wanted: dict[str, int] = {}
    if order.vcpus and vm.vcpus != order.vcpus:
        wanted["numVCPU"] = order.vcpus
    if order.memory_mib and vm.memory != order.memory_mib * MIB:
        wanted["mem"] = order.memory_mib * MIB
    if not wanted:
        return work.done()
    if not power.is_off(vm):
        raise Unsupported(f"Machine {vm.name!r} is on; its size can only be changed while it is off.")
    if work.receipt.get("sized"):
        raise PlatformFault(f"Machine {vm.name!r} did not take its size. Look at it in HyperCore's own page.")
    try:
        work.change("Changing the size", "PATCH", f"/VirDomain/{segment(vm.id)}", wanted, on=vm)
    except Started:
        work.receipt["sized"] = True
        raise
    return work.done()
