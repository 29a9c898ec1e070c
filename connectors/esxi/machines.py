"""CloneMachine, RecycleMachine, DeleteMachine, Reconfigure, ShareResources: what is the same on vCenter and on ESXi.

Order of things, so that a death at any boundary is mended by the next attempt:
- A clone is looked for by the uuid that comes from the order's key, then by its stamp, before it is made; what has
  been made of a clone that fails is deleted, poll by poll, before the failure is told.
- A recycled machine is a new one, made whole before the old one is deleted: its uuid comes from the recycling order.
"""

from __future__ import annotations

import time
from typing import Any

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    MachineMade,
    MachineRef,
    Outcome,
    Power,
    Reconfigure,
    RecycleMachine,
    ShareResources,
)
from connectors.errors import BY_KIND, Busy, Conflict, ConnectorError, NotFound, PlatformFault, Unsupported
from connectors.esxi import mapping, names, power, soap, standalone, vcenter
from connectors.esxi.api import vim
from connectors.esxi.faults import VimFault
from connectors.esxi.plans import DETAIL_PATHS, Plan
from connectors.esxi.work import VM, Vm, Waiting, Work, number

BUSY_S = 3.0
TWIN_S = 900.0
"""How long another attempt of the same order is waited for."""
TAKEN = ("DuplicateName", "AlreadyExists", "FileAlreadyExists")


# --- clone -----------------------------------------------------------------------------------------------------------


def clone(work: Work[CloneMachine]) -> Outcome:
    """Make the machine, or find it made; on failure remove whatever there is of it."""
    names.require_usable(work.order.name)
    return _made_or_undone(work, lambda: _clone(work))


def _clone(work: Work[CloneMachine]) -> Outcome:
    order = work.order
    vm = _made(work, Plan.of_clone(order))
    if order.power_on:
        power.switch_on(work, vm)
    return _tell(work, vm)


def _made(work: Work[Any], plan: Plan) -> Vm:
    """The machine of this order once it stands. Raises `Waiting` until then."""
    fault = work.settle()
    work.begin("Looking for the machine")
    vm = _find_made(work)
    if vm is not None:
        work.receipt["made"] = True
        if fault is not None and not fault.is_a("InvalidPowerState", *TAKEN):
            raise fault
        return vm
    if fault is not None and fault.is_a(*TAKEN):
        return _wait_for_twin(work, plan, fault)
    if fault is not None:
        raise fault
    if work.receipt.pop("made", False):
        raise NotFound(f"Machine {plan.name!r} was made and is gone again: somebody deleted it.")
    build = vcenter.build if work.service.is_vcenter else standalone.build
    try:
        raise build(work, plan)
    except VimFault as refused:
        if not refused.is_a(*TAKEN):
            raise
        return _wait_for_twin(work, plan, refused)


def _find_made(work: Work[Any]) -> Vm | None:
    """What an earlier attempt of this order, or this one, has made. Raises `Conflict` if the uuid is somebody else's,
    `Waiting` while vSphere is still at it."""
    uuid = names.uuid_of(work.order.key)
    vm = work.find(uuid, DETAIL_PATHS)
    if vm is not None and not vm.uuid:
        raise Waiting  # vSphere shows a machine before it has a configuration
    if vm is not None and vm.stamp != work.stamp:
        raise Conflict(
            f"A machine with the uuid of this order, {uuid}, exists and is not ours. Nothing was done to it."
        )
    if vm is None and (work.order.attempt > 1 or work.receipt.get("seeks_twin")):
        found = work.find_stamped(work.stamp)
        vm = work.look(found.moid, DETAIL_PATHS) if found is not None else None
    return vm


def _wait_for_twin(work: Work[Any], plan: Plan, taken: VimFault) -> Vm:
    """The name or the folder is taken: by another attempt of this very order that is still at it, or by a stranger.

    A name that is held by a machine which is not ours is a conflict at once; one that nobody can be seen to hold is
    waited for.
    """
    holder = _holder(work, plan, taken)
    if holder is not None and holder.stamp == work.stamp:
        return holder
    if holder is not None and holder.uuid:
        raise Conflict(f"Endpoint {work.endpoint} already has a machine named {plan.name!r}. Choose another name.")
    since = number(work.receipt, "seeks_twin")
    if since is None:
        since = time.time()
        work.receipt["seeks_twin"] = since
    if time.time() - since > TWIN_S:
        raise Conflict(f"Endpoint {work.endpoint} says that the name {plan.name!r} is taken. Choose another name.")
    work.step = "Waiting for an earlier attempt"
    raise Waiting(poll_after_s=1.0)


def _holder(work: Work[Any], plan: Plan, taken: VimFault) -> Vm | None:
    """Who has the name: DuplicateName says so, other faults do not."""
    named = soap.child(taken.detail, "object")
    if named is not None and named.get("type") == VM and named.text:
        return work.look(named.text, DETAIL_PATHS)
    folder = vcenter.folder_of(work, plan) if work.service.is_vcenter else standalone.FOLDER
    found = work.manager(vim.SearchIndex, "searchIndex").FindChild(
        entity=vim.Folder(folder), name=names.to_wire(plan.name)
    )
    return work.look(found._moId, DETAIL_PATHS) if found is not None else None


def _tell(work: Work[Any], vm: Vm) -> Outcome:
    work.step = "Making the machine"
    made = MachineMade(
        machine_id=vm.uuid,
        name=vm.name,
        disks=tuple(disk.file for disk in vm.devices.disks),
        power=vm.power,
        host=vm.host or None,
        stamp=vm.stamp,
    )
    return work.done(made)


# --- undoing ---------------------------------------------------------------------------------------------------------


def _made_or_undone(work: Work[Any], make: Any) -> Outcome:
    """As `make` answers; once that has failed for good, the failure as soon as nothing is left of what it made."""
    if "failed" not in work.receipt:
        try:
            outcome: Outcome = make()
            return outcome
        except (VimFault, ConnectorError) as error:
            problem = work.problem(error)
            if isinstance(problem, Busy):
                return work.running(poll_after_s=problem.retry_after_s or BUSY_S)
            if problem.loses_endpoint:
                raise problem from None
            words = problem.platform_words[:500]
            work.receipt |= {"failed": problem.kind, "why": problem.message[:1000], "words": words, "at": work.step}
    failure = BY_KIND[str(work.receipt["failed"])](
        str(work.receipt["why"]), platform_words=str(work.receipt.get("words", ""))
    )
    try:
        if work.receipt.get("began") or work.order.attempt > 1:
            _remove(work, MachineRef(names.uuid_of(work.order.key), work.stamp))
    except (VimFault, ConnectorError) as error:
        problem = work.problem(error)
        if problem.loses_endpoint:
            raise problem from None
        if isinstance(problem, Busy):
            return work.running(poll_after_s=BUSY_S)
        if not isinstance(problem, Conflict):  # a conflict: what is there is not ours, and stays
            failure.message += f" What was made of it could not be removed: {problem.message}"
    work.step = str(work.receipt.get("at") or work.step)
    raise failure


# --- recycle ---------------------------------------------------------------------------------------------------------


def recycle(work: Work[RecycleMachine]) -> Outcome:
    """1. The old machine is switched off. 2. A new one is made like it, under an interim name. 3. The old one is
    deleted. 4. The new one gets its name and is switched on.

    Until 3 a failure leaves the old machine, off; after it there is the new one.
    """
    names.require_usable(work.order.name)
    if "failed" not in work.receipt and work.receipt.get("replaced"):
        return _finish_recycling(work)
    return _made_or_undone(work, lambda: _recycle(work))


def _recycle(work: Work[RecycleMachine]) -> Outcome:
    order = work.order
    fault = None
    if work.receipt.get("doing") == "old":
        fault = work.settle()
        if fault is not None and not fault.is_a("InvalidPowerState", "ManagedObjectNotFound"):
            raise fault
    work.begin("Looking at the machine")
    old = work.find_ours(order.machine, DETAIL_PATHS)
    if old is None:
        if work.find(names.uuid_of(order.key)) is None and not work.receipt.get("task"):
            raise NotFound(f"Machine {order.machine.id} is not on {work.endpoint} any more.")
        return _finish_recycling(work)
    if old.power is not Power.OFF and not work.receipt.get("task"):
        work.receipt["doing"] = "old"
        power.cut_power(work, old)
    work.receipt["doing"] = "new"
    plan = Plan.of_recycling(order, old, work.order.key)
    _made(work, plan)
    return _finish_recycling(work)


def _finish_recycling(work: Work[RecycleMachine]) -> Outcome:
    """The new machine stands: nothing is undone from here on."""
    order = work.order
    work.receipt["replaced"] = True
    fault = None
    if work.receipt.get("task") and work.receipt.get("doing") != "remove":
        fault = work.settle()
    if fault is not None and not fault.is_a("InvalidPowerState"):
        raise fault
    work.receipt["doing"] = "remove"
    if not work.receipt.get("removed"):
        _remove(work, order.machine)
        work.receipt["removed"] = True
    work.receipt["doing"] = "finish"
    work.begin("Looking at the new machine")
    new = work.find(names.uuid_of(order.key), DETAIL_PATHS) or work.find_stamped(work.stamp)
    if new is None:
        raise NotFound(f"The machine that was to replace {order.machine.id} is gone.")
    if new.name != order.name:
        raise work.start("Naming the machine", lambda: work.vm(new).Rename(newName=names.to_wire(order.name)))
    if order.power_on:
        power.switch_on(work, new)
    return _tell(work, new)


# --- delete ----------------------------------------------------------------------------------------------------------


def delete(work: Work[DeleteMachine]) -> Outcome:
    _remove(work, _meant(work, work.order.machine))
    work.step = "Deleting the machine"
    return work.done()


def _meant(work: Work[DeleteMachine], machine: MachineRef) -> MachineRef:
    """A reference without an id means what the order of its stamp's key made."""
    if machine.id:
        return machine
    if machine.stamp is None:
        raise Conflict("Neither a machine nor the order that made it was named. Nothing was deleted.")
    uuid = names.uuid_of(machine.stamp.key)
    if work.receipt.get("task") or work.find(uuid) is not None:
        return MachineRef(uuid, machine.stamp)
    work.begin("Looking for what was made")
    found = work.find_stamped(machine.stamp)
    return MachineRef(found.uuid if found else uuid, machine.stamp)


def _remove(work: Work[Any], ref: MachineRef) -> None:
    """The machine, its own files, and nothing else. Raises `Waiting` until all of it is gone; gone already is fine."""
    fault = work.settle()
    if fault is not None and not fault.is_a("InvalidPowerState", "ManagedObjectNotFound", "NotFound", "FileNotFound"):
        raise fault
    work.begin("Looking at the machine")
    vm = work.find_ours(ref, DETAIL_PATHS)
    if vm is not None:
        power.cut_power(work, vm)
        if work.service.is_vcenter:
            raise work.start("Deleting the machine", work.vm(vm).Destroy)
        standalone.unregister(work, vm)
    if not work.service.is_vcenter and ref.stamp is not None:
        standalone.sweep(work, ref.id)


# --- size and shares -------------------------------------------------------------------------------------------------

SIZE_PATHS = (
    "config.hardware.numCPU", "config.hardware.memoryMB", "config.cpuHotAddEnabled", "config.memoryHotAddEnabled",
    "config.cpuAllocation", "config.memoryAllocation",
)  # fmt: skip


def reconfigure(work: Work[Reconfigure]) -> Outcome:
    """A machine that is on takes more of what it can be given while it runs, and nothing else."""
    order = work.order
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(order.machine, SIZE_PATHS)
    if fault is not None:
        raise fault
    spec = vim.vm.ConfigSpec()
    changes = False
    for wanted, path, hot, field in (
        (order.vcpus, "config.hardware.numCPU", "config.cpuHotAddEnabled", "numCPUs"),
        (order.memory_mib, "config.hardware.memoryMB", "config.memoryHotAddEnabled", "memoryMB"),
    ):
        there = vm.seen.number(path)
        if wanted is None or wanted == there:
            continue
        can_grow = vm.seen.text(hot) == "true" and wanted > there
        if vm.power is not Power.OFF and not can_grow:
            raise Unsupported(f"Machine {vm.name!r} is {vm.power}; this can only be changed while it is off.")
        setattr(spec, field, wanted)
        changes = True
    if changes and work.receipt.get("sized"):
        raise PlatformFault(f"vSphere accepted the size of machine {vm.name!r} and shows another.")
    if changes:
        raise work.start("Changing the size", lambda: work.vm(vm).Reconfigure(spec=spec), sized=True)
    return work.done()


def share_resources(work: Work[ShareResources]) -> Outcome:
    fault = work.settle()
    work.begin("Looking at the machine")
    vm = work.ours(work.order.machine, SIZE_PATHS)
    if fault is not None:
        raise fault
    core_mhz = 0
    if vm.host:
        host = work.client.object_seen("HostSystem", vm.host, ("summary.hardware.cpuMhz",), work.deadline)
        core_mhz = host.number("summary.hardware.cpuMhz") if host else 0
    share = work.order.share
    if not core_mhz and (share.cpu_reservation_percent or share.cpu_limit_percent < 100):
        raise PlatformFault(f"The speed of the host of {vm.name!r} cannot be read, so no share of it can be given.")
    vcpus, memory_mib = vm.seen.number("config.hardware.numCPU"), vm.seen.number("config.hardware.memoryMB")
    cpu, memory = mapping.allocations(share, vcpus, memory_mib, core_mhz)
    there = tuple(
        mapping.allocation_seen(vm.seen.values.get(path))
        for path in ("config.cpuAllocation", "config.memoryAllocation")
    )
    if mapping.is_same(cpu, there[0]) and mapping.is_same(memory, there[1]):
        work.step = "Setting the shares"
        return work.done()
    if work.receipt.get("shared"):
        raise PlatformFault(f"vSphere accepted the shares of machine {vm.name!r} and shows others.")
    spec = vim.vm.ConfigSpec(
        cpuAllocation=mapping.allocation_spec(cpu), memoryAllocation=mapping.allocation_spec(memory)
    )
    raise work.start("Setting the shares", lambda: work.vm(vm).Reconfigure(spec=spec), shared=True)
