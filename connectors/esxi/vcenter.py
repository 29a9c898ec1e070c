"""Making a machine where there is a vCenter: CloneVM_Task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from connectors.base import Power
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.esxi import mapping, names, soap
from connectors.esxi.api import vim
from connectors.esxi.plans import DETAIL_PATHS, Plan
from connectors.esxi.work import Vm, Waiting, Work

LINK = "createNewChildDiskBacking"
"""Legal only for a clone of a snapshot (API reference, VirtualMachineRelocateDiskMoveOptions)."""
BASING_S = 60.0
COPY = "moveAllDiskBackingsAndDisallowSharing"
BASE = {
    "name": names.BASE_SNAPSHOT,
    "description": "Linked clones hang from this. Do not delete it while there are any.",
    "memory": False,
    "quiesce": False,
}
"""The snapshot of a template from which linked clones hang."""


def build(work: Work[Any], plan: Plan) -> Waiting:
    """Have the clone made: to be raised. Raises what is wrong."""
    template = template_of(work, plan)
    snapshot = point_of(work, template, plan)
    pool, host = _target(work, plan, template)
    location = vim.vm.RelocateSpec(diskMoveType=LINK if plan.linked else COPY, pool=vim.ResourcePool(pool))
    if host:
        location.host = vim.HostSystem(host)
    if plan.storage:
        location.datastore = vim.Datastore(plan.storage)
    nics = template.devices.nics
    sockets = sockets_of(work, plan)
    options = mapping.stamp_options(work.stamp) | mapping.seed_options(plan.seed, work.order.key)
    config = vim.vm.ConfigSpec(
        instanceUuid=names.uuid_of(work.order.key),
        numCPUs=plan.vcpus,
        memoryMB=plan.memory_mib,
        extraConfig=mapping.options(options),
        deviceChange=mapping.nic_changes(nics, sockets),
        **plan.shares(),
    )
    spec = vim.vm.CloneSpec(
        location=location,
        template=False,
        powerOn=False,
        config=config,
        snapshot=vim.vm.Snapshot(snapshot) if snapshot else None,
        customization=mapping.customization(plan.seed, max(len(nics), len(sockets))),
    )
    folder = vim.Folder(_folder(work, template))
    return work.start(
        "Cloning the template",
        lambda: work.vm(template).Clone(folder=folder, name=names.to_wire(plan.name), spec=spec),
    )


def folder_of(work: Work[Any], plan: Plan) -> str:
    """The folder that the plan's machine is made in."""
    return _folder(work, template_of(work, plan))


def _folder(work: Work[Any], template: Vm) -> str:
    found = template.seen.text("parent")
    if not found:
        raise Unsupported(f"Template {template.name!r} lies in a vApp. Move it into a folder.")
    return found


# --- what ESXi needs too ---------------------------------------------------------------------------------------------


def template_of(work: Work[Any], plan: Plan) -> Vm:
    """Raises `NotFound`, `Conflict` (switched on) or `Unsupported` (what cannot be cloned)."""
    work.begin("Looking at the template")
    found = work.find(plan.template, DETAIL_PATHS)
    if found is None:
        raise NotFound(f"Template {plan.template} is not on {work.endpoint}.")
    if found.stamp is not None:
        raise Unsupported(f"{found.name!r} is a desktop, not a template: starting it would change its clones.")
    if found.power is not Power.OFF:
        raise Conflict(f"Template {found.name!r} is {found.power}: its disks change. Shut it down.")
    if reason := mapping.cannot_clone(found.devices):
        raise Unsupported(f"Template {found.name!r} cannot be cloned. {reason}")
    return found


def point_of(work: Work[Any], template: Vm, plan: Plan) -> str:
    """The snapshot that is cloned: the one the template stands at. For a link one is taken where there is none.

    Full clones are of the same point, so that both kinds hold the same. Raises `Waiting` while one is being taken.
    """
    current = mapping.current_point(template.snapshot)
    if current or not plan.linked:
        return current
    if mapping.is_being_replicated(template.snapshot):
        # What hung from that snapshot, or from one that is taken above it, would lose its parent when it goes.
        work.step = "Waiting until the template has been replicated"
        raise Waiting(poll_after_s=5.0)
    if template.is_template:
        raise Unsupported(
            f"Template {template.name!r} has no snapshot for linked clones to hang from, and vSphere takes none of a "
            "template. Convert it to a machine, take a snapshot, convert it back; or use full clones."
        )
    return _take_point(work, template)


def _take_point(work: Work[Any], template: Vm) -> str:
    """One order of many takes it; the others wait until it is there."""
    with work.shared.lock:
        fresh = work.look(template.moid, ("snapshot",))
        if fresh is not None and (current := mapping.current_point(fresh.snapshot)):
            work.shared.basing.pop(template.moid, None)
            return current
        if time.monotonic() < work.shared.basing.get(template.moid, -BASING_S) + BASING_S:
            work.step = "Waiting for the template's snapshot"
            raise Waiting
        waiting = work.start("Taking the template's snapshot", lambda: work.vm(template).CreateSnapshot(**BASE))
        work.shared.basing[template.moid] = time.monotonic()
        raise waiting


def sockets_of(work: Work[Any], plan: Plan) -> Sequence[mapping.Socket]:
    """What the machine's cards are plugged into, as ordered, or as in the machine that it replaces."""
    wanted = plan.networks
    if not wanted and plan.like is not None:
        return [_socket_like(nic) for nic in plan.like.devices.nics if nic.backing is not None]
    return [socket(work, network) for network in wanted]


def _socket_like(nic: mapping.Nic) -> mapping.Socket:
    switch = soap.text(nic.backing, "port", "switchUuid")
    return mapping.Socket(
        network=soap.text(nic.backing, "network"),
        name=soap.text(nic.backing, "deviceName"),
        switch=switch,
        portgroup=soap.text(nic.backing, "port", "portgroupKey"),
    )


def socket(work: Work[Any], network: str) -> mapping.Socket:
    """Raises `NotFound`."""
    if network.startswith("dvportgroup"):
        paths = ("name", "key", "config.distributedVirtualSwitch")
        seen = work.client.object_seen("DistributedVirtualPortgroup", network, paths, work.deadline)
        switch = seen.text("config.distributedVirtualSwitch") if seen else ""
        if seen is not None and switch:
            of = work.client.object_seen("DistributedVirtualSwitch", switch, ("uuid",), work.deadline)
            if of is not None:
                return mapping.Socket(network, seen.text("name"), of.text("uuid"), seen.text("key"))
    else:
        seen = work.client.object_seen("Network", network, ("name",), work.deadline)
        if seen is not None and seen.values:
            return mapping.Socket(network, names.from_wire(seen.text("name")))
    raise NotFound(f"Network {network} is not on {work.endpoint}.")


# --- where it runs ---------------------------------------------------------------------------------------------------


def _target(work: Work[Any], plan: Plan, template: Vm) -> tuple[str, str]:
    """Without a wish: where the template is."""
    return target(work, plan.host or template.host, is_wish=bool(plan.host))


def target(work: Work[Any], wanted: str, *, is_wish: bool) -> tuple[str, str]:
    """Resource pool, and the host if that was wished, else "". Raises `NotFound`."""
    if wanted.startswith("resgroup"):
        seen = work.client.object_seen("ResourcePool", wanted, ("name",), work.deadline)
        if seen is not None:
            return wanted, ""
    elif wanted.startswith("domain"):
        kind = "ClusterComputeResource" if wanted.startswith("domain-c") else "ComputeResource"
        if pool := _pool_of(work, kind, wanted):
            return pool, ""
    elif wanted:
        seen = work.client.object_seen("HostSystem", wanted, ("parent",), work.deadline)
        parent = seen.values.get("parent") if seen else None
        if parent is not None and (pool := _pool_of(work, parent.get("type") or "", parent.text or "")):
            return pool, wanted if is_wish else ""
    raise NotFound(f"Host, cluster or pool {wanted or '(none)'} is not on {work.endpoint}.")


def _pool_of(work: Work[Any], kind: str, compute: str) -> str:
    """The root pool of a host or cluster; "" if it is gone."""
    seen = work.client.object_seen(kind, compute, ("resourcePool",), work.deadline)
    return seen.text("resourcePool") if seen else ""
