"""CloneMachine, RecycleMachine, DeleteMachine, Reconfigure: machines from templates and back to nothing.

Order of things, so that a kill at any boundary is mended by the next attempt:
- A clone's volumes are made first and its domain is defined last: a domain that stands has whole disks.
- A delete removes volumes first and undefines last: while the domain stands, somebody knows that there is work left.
- A recycle makes new volumes, switches the definition over in one call, then removes the old ones.
Names and uuid come from the order's key, so a second attempt meets what the first one made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libvirt

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    MachineMade,
    MachineRef,
    Outcome,
    Reconfigure,
    RecycleMachine,
)
from connectors.errors import Busy, Conflict, ConnectorError, NotFound, Unsupported
from connectors.kvm import copies, held, mapping, names, power, screens, snapshots, volumes
from connectors.kvm.seed import seed_iso
from connectors.kvm.work import Domain, Work

KEPT = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
"""A definition to be written back: without SECURE it would lose the screen's password."""


BUSY_S = 3.0
"""When to look again after libvirt said that somebody else is at it."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template that may be cloned, as it stands now."""

    xml: str
    seen: mapping.Domain
    pool: volumes.Pool
    """Where new disks go."""


# --- clone -----------------------------------------------------------------------------------------------------------


def clone(work: Work[CloneMachine]) -> Outcome:
    """Make the machine, or find it made; on failure remove whatever there is of it."""
    try:
        return _clone(work)
    except (libvirt.libvirtError, ConnectorError) as error:
        problem = work.problem(error)
        if isinstance(problem, Busy):
            # Something else holds the machine, such as a daemon that finds its guests again after a restart:
            # removing what there is would wait for the same lock.
            return work.running(poll_after_s=BUSY_S)
        if not problem.loses_endpoint:
            _undo_clone(work)
        raise problem from error


def _clone(work: Work[CloneMachine]) -> Outcome:
    order = work.order
    names.require_usable(order.name)
    if order.host and order.host != work.host_id:
        raise NotFound(f"Host {order.host} is not behind {work.settings.endpoint}: there is {work.host_id} alone.")
    uuid = names.uuid_of(order.key)
    work.begin("Looking for the machine")
    domain = work.find(uuid)
    if domain is None:
        domain = _build(work, uuid)
    elif mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).stamp != work.stamp:
        raise Conflict(
            f"A machine with the uuid of this order, {uuid}, exists and is not ours. Nothing was done to it."
        )
    copies.forget(work)
    if order.power_on:
        power.switch_on(work, domain)
    work.step = "Making the machine"
    return work.done(_made(work, domain))


def _build(work: Work[CloneMachine], uuid: str) -> Domain:
    order = work.order
    require_free_name(work, order.name, uuid)
    template = _template(work, order.template, order.storage)
    networks = [volumes.find_network(work, network) for network in _wanted_networks(work)]
    disks = _make_disks(work, template, uuid, linked=order.linked)
    seed_path = _make_seed(work, template.pool, uuid, order.seed)
    nics = max(len(networks), len(template.seen.nics))
    plan = mapping.Blueprint(
        name=order.name,
        uuid=uuid,
        stamp=work.stamp,
        disks=disks,
        macs=tuple(names.mac_of(order.key, nic) for nic in range(nics)),
        virt_type=work.settings.acceleration,
        screen_password=screens.new_password(),
        networks=tuple(networks),
        vcpus=order.vcpus,
        memory_mib=order.memory_mib,
        seed_path=seed_path,
        screen_listen=work.settings.screen_listen,
    )
    work.begin("Defining the machine")
    work.usage.forget()
    return work.connection.defineXML(mapping.clone_xml(template.xml, plan))


def _wanted_networks(work: Work[CloneMachine]) -> Sequence[str]:
    if work.order.networks:
        return work.order.networks
    return (work.settings.network,) if work.settings.network else ()


def _undo_clone(work: Work[CloneMachine]) -> None:
    """Remove what this order made: nothing at all if the uuid belongs to somebody else."""
    uuid = names.uuid_of(work.order.key)
    domain = work.find(uuid)
    if domain is not None:
        if mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).stamp != work.stamp:
            return
        power.cut_power(work, domain)
        undefine(work, domain)
    copies.forget(work)
    volumes.remove(work, uuid)


def _made(work: Work[Any], domain: Domain) -> MachineMade:
    seen = mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    prefix = names.volume_prefix(seen.uuid)
    own = tuple(disk.path for disk in seen.disks if disk.is_written and prefix in disk.path)
    return MachineMade(
        machine_id=seen.uuid,
        name=seen.name,
        disks=own,
        power=power.seen_power(domain),
        host=work.host_id,
        stamp=seen.stamp,
    )


# --- what clone and recycle share ------------------------------------------------------------------------------------


def require_free_name(work: Work[Any], name: str, uuid: str) -> None:
    """Raises `Conflict` if another machine has the name."""
    try:
        other = work.connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return
        raise
    if other.UUIDString() != uuid:
        raise Conflict(f"{work.settings.endpoint} already has a machine named {name!r}. Choose another name.")


def _template(work: Work[Any], named: str, storage: str | None) -> Template:
    """Raises `NotFound`, `Conflict` (switched on) or `Unsupported` (disks that cannot be cloned)."""
    work.begin("Looking at the template")
    domain = work.find(named)
    if domain is None:
        raise NotFound(f"Template {named} is not on {work.settings.endpoint}.")
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    seen = mapping.read_domain(xml)
    if seen.stamp is not None and seen.role is not mapping.Role.TEMPLATE:
        raise Unsupported(f"{seen.name!r} is a desktop, not a template: starting it would destroy its clones.")
    _require_not_held(domain, seen)
    if domain.isActive():
        raise Conflict(f"Template {seen.name!r} is switched on: its disks change under its clones. Shut it down.")
    if reason := cannot_clone(seen):
        raise Unsupported(f"Template {seen.name!r} cannot be cloned. {reason}")
    wanted = storage or work.settings.storage_pool
    first = next(disk for disk in seen.disks if disk.is_written)
    pool = volumes.find_pool(work, wanted) if wanted else volumes.volume_of(work, first).storagePoolLookupByVolume()
    return Template(xml, seen, pool)


def _require_not_held(domain: Domain, seen: mapping.Domain) -> None:
    """Raises `Busy` while the disks of a machine that is off are read: QEMU has them open for writing."""
    if held.is_held(domain):
        raise Busy(f"The disks of {seen.name!r} are being read for a recovery point. It is tried again.")


def cannot_clone(template: mapping.Domain) -> str:
    """Why a domain cannot serve as template, in words; "" if it can."""
    written = [disk for disk in template.disks if disk.is_written]
    if not written:
        return "It has no disk."
    if odd := [disk for disk in written if disk.source not in ("file", "volume")]:
        return f"Disk {odd[0].target} is of type {odd[0].source or 'none'}; only disks that are files can be cloned."
    return ""


def _make_disks(work: Work[Any], template: Template, machine: str, *, linked: bool) -> tuple[mapping.NewDisk, ...]:
    made = []
    for disk in template.seen.disks:
        if not disk.is_written:
            continue
        base = volumes.volume_of(work, disk)
        name = names.volume_name(machine, work.order.key, disk.target, "qcow2")
        if linked:
            work.begin("Creating the disk")
            volume = volumes.ensure_overlay(template.pool, name, base, disk.format)
        else:
            volume = copies.ensure(work, template.pool, name, base)
        made.append(mapping.NewDisk(disk.target, volume.path()))
    return tuple(made)


def _make_seed(work: Work[Any], pool: volumes.Pool, machine: str, seed: GuestSeed | None) -> str:
    if seed is None:
        return ""
    work.begin("Writing the guest's seed")
    name = names.volume_name(machine, work.order.key, "seed", "iso")
    return str(volumes.ensure_upload(work, pool, name, seed_iso(seed, work.order.key)).path())


# --- recycle ---------------------------------------------------------------------------------------------------------


def recycle(work: Work[RecycleMachine]) -> Outcome:
    """Fresh disks of the template under the same machine, which keeps its uuid and stamp.

    On failure the machine stands as it was, or switched off, and disks made in vain are removed.
    """
    try:
        return _recycle(work)
    except (libvirt.libvirtError, ConnectorError) as error:
        problem = work.problem(error)
        if not problem.loses_endpoint:
            _drop_unused(work)
        raise problem from error


def _drop_unused(work: Work[RecycleMachine]) -> None:
    found = work.find(work.order.machine.id)
    if found is None:
        return
    seen = mapping.read_domain(found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    if seen.stamp == work.order.machine.stamp and not _is_recycled(work, seen):
        copies.forget(work)
        volumes.remove(work, seen.uuid, keep=frozenset(disk.path for disk in seen.disks))


def _recycle(work: Work[RecycleMachine]) -> Outcome:
    order = work.order
    names.require_usable(order.name)
    work.begin("Looking at the machine")
    domain, seen = work.ours(order.machine)
    _require_nothing_kept(domain, seen)
    require_free_name(work, order.name, seen.uuid)
    if not _is_recycled(work, seen):
        volumes.require_no_clones(work, seen)
        _switch_disks(work, domain, seen)
        seen = mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    volumes.remove(work, seen.uuid, keep=frozenset(disk.path for disk in seen.disks))
    copies.forget(work)
    if seen.name != order.name:
        work.begin("Renaming the machine")
        domain.rename(order.name, 0)
    if order.power_on:
        power.switch_on(work, domain)
    work.step = "Recycling the machine"
    return work.done(_made(work, domain))


def _require_nothing_kept(domain: Domain, seen: mapping.Domain) -> None:
    """Raises `Unsupported` if the machine remembers more than its disks: its last user's boot entries, keys or TPM.

    libvirt removes those with the definition alone, and a machine without one would be nobody's after a crash.
    """
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    kept = [
        word
        for word, is_kept in (
            ("UEFI variables", mapping.has_uefi_variables(xml)),
            ("a TPM", mapping.has_emulated_tpm(xml)),
        )
        if is_kept
    ]
    if kept:
        raise Unsupported(
            f"Machine {seen.name!r} keeps {' and '.join(kept)}, which a new disk does not clear. It has to be deleted "
            "and built anew; nothing was done to it."
        )


def _is_recycled(work: Work[RecycleMachine], seen: mapping.Domain) -> bool:
    mine = names.volume_name(seen.uuid, work.order.key, "", "").removesuffix(".")
    return all(mine in disk.path for disk in seen.disks if disk.is_written)


def _switch_disks(work: Work[RecycleMachine], domain: Domain, seen: mapping.Domain) -> None:
    order = work.order
    template = _template(work, order.template, order.storage)
    power.cut_power(work, domain)
    _forget_memories(work, domain)
    disks = _make_disks(work, template, seen.uuid, linked=order.linked)
    seed_path = _make_seed(work, template.pool, seen.uuid, order.seed)
    work.begin("Switching to the new disks")
    work.usage.forget()
    work.connection.defineXML(mapping.recycled_xml(domain.XMLDesc(KEPT), template.xml, disks, seed_path))


def _forget_memories(work: Work[Any], domain: Domain) -> None:
    """Snapshots and checkpoints belong to the disks that go: the last user's data is in them. (Saved memory went with
    the power.)"""
    for snapshot in domain.listAllSnapshots():
        work.begin("Forgetting snapshots")
        snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
    for checkpoint in snapshots.checkpoints(domain):
        work.begin("Forgetting checkpoints")
        checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


# --- delete, reconfigure ---------------------------------------------------------------------------------------------


def delete(work: Work[DeleteMachine]) -> Outcome:
    work.begin("Looking at the machine")
    machine = _meant(work.order.machine)
    found = work.find_ours(machine)
    if found is not None:
        volumes.require_no_clones(work, found[1])
    volumes.require_unused(work, machine.id, found[1].disks if found is not None else ())
    if found is not None:
        power.cut_power(work, found[0])
    volumes.remove(work, machine.id)
    if machine.stamp is not None and not work.order.machine.id:
        copies.forget(work, machine.stamp.key)
    if found is not None:
        undefine(work, found[0])
    work.step = "Deleting the machine"
    return work.done()


def _meant(machine: MachineRef) -> MachineRef:
    """A reference without an id means what the order of its stamp's key made, and that is known from the key."""
    if machine.id:
        return machine
    if machine.stamp is None:
        raise Conflict("Neither a machine nor the order that made it was named. Nothing was deleted.")
    return MachineRef(names.uuid_of(machine.stamp.key), machine.stamp)


def undefine(work: Work[Any], domain: Domain) -> None:
    """Remove the definition with all that libvirt keeps beside it. Gone already is fine."""
    work.begin("Removing the definition")
    flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    # The others only where there is something: drivers and old releases refuse flags that they do not know.
    if snapshots.checkpoints(domain):
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    if mapping.has_uefi_variables(xml):
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    if mapping.has_emulated_tpm(xml):
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_TPM
    try:
        domain.undefineFlags(flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise


def reconfigure(work: Work[Reconfigure]) -> Outcome:
    order = work.order
    work.begin("Looking at the machine")
    domain, seen = work.ours(order.machine)
    if (order.vcpus or seen.vcpus, order.memory_mib or seen.memory_mib) == (seen.vcpus, seen.memory_mib):
        return work.done()
    _require_not_held(domain, seen)
    if domain.isActive():
        raise Unsupported(f"Machine {seen.name!r} is on; its size can only be changed while it is off.")
    work.begin("Changing the size")
    work.connection.defineXML(mapping.reconfigured_xml(domain.XMLDesc(KEPT), order.vcpus, order.memory_mib))
    return work.done()
