"""CloneMachine, RecycleMachine, DeleteMachine, Reconfigure.

A clone request takes a name, size, NICs and guest preparation, but neither a description nor categories. So a machine
is cloned under a name that says who makes it (`dsky.<installation>.<key>`), and gets its own name together with its
stamp in one update. From its first moment on it can be found and told apart.

AHV clones copy on write, and every clone's disks are its own: there is no switch for linked or full, and a template may
be deleted without harm to its clones. So `linked` changes nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from connectors import errors
from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    MachineMade,
    MachineRef,
    Outcome,
    Power,
    Reconfigure,
    RecycleMachine,
    Stamp,
)
from connectors.errors import Busy, Conflict, ConnectorError, NotFound, PlatformFault, Unsupported
from connectors.nutanix import mapping, power, snapshots
from connectors.nutanix.client import Answer, Precondition, segment
from connectors.nutanix.mapping import MIB, VM_REL, Vm
from connectors.nutanix.work import VMS, Seen, StillGoing, Work

TEMPLATE_S = 5.0
"""How long a reading of a template serves. No longer: the vendor means to drop `If-Match` from the clone action
(terraform-provider-nutanix issue 1120), and then nothing but its age guards against a template that was switched on."""

# --- clone -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What the new machine shall be."""

    template: str
    name: str
    storage: str | None
    seed: GuestSeed | None
    host: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    subnets: Sequence[str] = ()


def clone(work: Work[CloneMachine]) -> Outcome:
    """Make the machine, or find it made; on failure remove whatever there is of it."""
    return _undoing(work, lambda: _clone(work))


def _clone(work: Work[CloneMachine]) -> Outcome:
    order = work.order
    mapping.require_usable(order.name)
    machine = work.text("machine")
    if not machine and order.attempt > 1 and not work.is_under_way("clone") and "sought" not in work.receipt:
        machine = _find_made(work, order.name)
        work.receipt["sought"] = True  # until the clone is begun it may wait for its turn for long
    if not machine:
        wish = Wish(
            template=order.template, name=order.name, storage=order.storage, seed=order.seed, host=order.host,
            vcpus=order.vcpus, memory_mib=order.memory_mib, subnets=order.networks,
        )  # fmt: skip
        machine = _copy(work, wish)
    work.receipt["machine"] = machine
    _christen(work, machine, order.name)
    if order.power_on:
        power.switch_on(work, lambda: _look_at_new(work, machine))
    return _made(work, machine, "Making the machine")


def _find_made(work: Work[Any], name: str) -> str:
    """The machine that an earlier attempt made, by its fresh name or by its stamp under its own; empty if none."""
    work.begin("Looking for the machine")
    for vm in work.named(mapping.fresh_name(work.stamp), name):
        if vm.name == mapping.fresh_name(work.stamp) or vm.stamp == work.stamp:
            return vm.id
    return ""


def _copy(work: Work[Any], wish: Wish) -> str:
    """The id of the new machine, once it stands: fresh, off, with the fresh name."""

    name = f"template {wish.template}"

    def look() -> Seen:
        if work.receipt.pop("stale", None):
            work.client.forget(name)
        return _template(work, wish, name)

    def start(template: Seen, id: str) -> Answer:
        version = work.client.version("vmm", work.deadline)
        body = mapping.clone_body(
            name=mapping.fresh_name(work.stamp), vcpus=wish.vcpus, memory_mib=wish.memory_mib, subnets=wish.subnets,
            seed=wish.seed, instance=work.order.key, version=version,
        )  # fmt: skip
        try:
            return work.post("clone", template, id, body)
        except Precondition:
            work.client.forget(name)
            raise

    task = work.ensure("clone", "Cloning the template", look, start)
    if task is not None:  # kept, if the machine cannot be read at once: a list of names is the scarcest call
        work.receipt["made"] = task.made(VM_REL, but=wish.template)
    made = work.text("made")
    if made and work.read(made) is None:
        # An earlier attempt's request id brings back its task, and that attempt has removed what it had made.
        del work.receipt["made"]
        work.forget_done("clone")
        work.begin_anew("clone")
        raise StillGoing(after_s=0.5)
    if not made:  # a task that does not say what it made: the name does
        made = _find_made(work, wish.name)
    if not made:
        if work.number("waited") < 30:  # lists may show a new machine late
            work.receipt["waited"] = work.number("waited") + 1
            raise StillGoing(after_s=1.0)
        raise PlatformFault(
            f"Prism Central {work.settings.endpoint} says that it made {wish.name!r}, and it is not there."
        )
    return made


def _template(work: Work[Any], wish: Wish, name: str) -> Seen:
    """Raises `NotFound`, `Conflict` (switched on) or `Unsupported` (a desktop; another storage).

    A batch reads it once. Whatever has changed since, the clone request bears the reading's ETag and is refused; and no
    order is refused because of what was remembered.
    """

    def ask() -> Seen:
        seen = work.read(wish.template)
        if seen is None:
            raise NotFound(f"Template {wish.template} is not on {work.settings.endpoint}.")
        return seen

    seen = work.client.remembered(name, ask, fresh_s=TEMPLATE_S)
    try:
        _require_usable_template(work, seen.vm, wish)
    except (Conflict, Unsupported, NotFound):
        work.client.forget(name)
        seen = ask()  # no call, if this order itself has just read it
        _require_usable_template(work, seen.vm, wish)
    return seen


def _require_usable_template(work: Work[Any], vm: Vm, wish: Wish) -> None:
    if vm.stamp is not None:
        raise Unsupported(f"{vm.name!r} is a desktop, not a template: what its user wrote would be copied.")
    if reason := cannot_clone(vm):
        raise Unsupported(f"Template {vm.name!r} cannot be cloned. {reason}")
    if vm.power is not Power.OFF:
        raise Conflict(f"Template {vm.name!r} is {vm.power}: a clone of it would wake as after a crash. Shut it down.")
    containers = {disk.container for disk in vm.disks}
    if wish.storage and wish.storage not in containers:
        raise Unsupported(
            f"AHV puts a clone beside its template: {vm.name!r} lies in another storage container than was asked for."
        )
    _require_host(work, vm, wish.host)


def _require_host(work: Work[Any], template: Vm, host: str | None) -> None:
    """The host has to be one of the template's cluster. Which one a machine starts on is AHV's own choice."""
    if not host:
        return
    found = work.client.remembered("hosts", lambda: _clusters_of_hosts(work))
    if host not in found:
        raise NotFound(f"Host {host} is not on {work.settings.endpoint}.")
    if template.cluster and found[host] and found[host] != template.cluster:
        raise Unsupported(
            f"Host {host} is in another cluster than template {template.name!r}; a clone stays in its own."
        )


def _clusters_of_hosts(work: Work[Any]) -> dict[str, str]:
    listing = work.client.list("clustermgmt", "config/hosts", work.deadline, doing="looking for the host")
    return {mapping.read_host(item).id: mapping.cluster_of_host(item) for item in listing.items}


def cannot_clone(vm: Vm) -> str:
    """Why a machine cannot serve as template, in words; "" if it can."""
    return "" if vm.disks else "It has no disk of its own."


def _look_at_new(work: Work[Any], machine: str) -> Seen:
    """Raises `NotFound`, or `Conflict` if somebody else made it his own meanwhile."""
    return work.ours(MachineRef(machine, work.stamp))


def _christen(work: Work[Any], machine: str, name: str) -> None:
    """Name and stamp in one update."""

    def is_done(seen: Seen) -> bool:
        return seen.vm.name == name and seen.vm.stamp == work.stamp

    def start(seen: Seen, id: str) -> Answer:
        return work.put(seen, id, {"name": name, "description": mapping.stamped(seen.vm.description, work.stamp)})

    work.ensure("name", "Naming the machine", lambda: _look_at_new(work, machine), start, is_done=is_done)


def _made(work: Work[Any], machine: str, words: str) -> Outcome:
    work.begin(words)
    vm = _look_at_new(work, machine).vm
    return work.done(
        MachineMade(
            machine_id=vm.id, name=vm.name, disks=tuple(disk.id for disk in vm.disks), power=vm.power, host=vm.host,
            stamp=work.stamp,
        )
    )  # fmt: skip


# --- undoing ---------------------------------------------------------------------------------------------------------


def _undoing(work: Work[Any], go: Callable[[], Outcome]) -> Outcome:
    """Go on; after a failure that is final, remove the new machine first and tell the failure then."""
    if "undo" not in work.receipt:
        try:
            return go()
        except ConnectorError as error:
            if error.loses_endpoint or isinstance(error, Busy) or not work.text("machine") or work.has_done("kept"):
                raise
            work.receipt["undo"] = {"kind": error.kind, "message": error.message, "words": error.platform_words[:500]}
            work.receipt.pop("step", None)
    _remove(work, work.text("machine"), work.stamp, "undo-")
    raise _noted(work.receipt["undo"])


def _noted(note: object) -> ConnectorError:
    told = note if isinstance(note, dict) else {}
    kind = errors.BY_KIND.get(str(told.get("kind")), PlatformFault)
    return kind(str(told.get("message")), platform_words=str(told.get("words")))


# --- recycle ---------------------------------------------------------------------------------------------------------


def recycle(work: Work[RecycleMachine]) -> Outcome:
    """A new machine of the template's, with the old one's size and networks; then the old one goes, with its
    recovery points; then the new one gets the name.

    Reverting in place would bring back the disks of an older template version, and keep the recovery point for ever.
    On failure before the old machine is gone it stands as it was, and what was made is removed; afterwards the new one
    is kept, and the order finds it again.
    """
    return _undoing(work, lambda: _recycle(work))


def _recycle(work: Work[RecycleMachine]) -> Outcome:
    order = work.order
    mapping.require_usable(order.name)
    machine = work.text("machine") or _replacement(work)
    work.receipt["machine"] = machine
    _christen(work, machine, order.name)
    if not work.has_done("kept"):
        _remove(work, order.machine.id, order.machine.stamp, "old-")
        work.note_done("kept")  # from here on the new machine is the only one
    if order.power_on:
        power.switch_on(work, lambda: _look_at_new(work, machine))
    return _made(work, machine, "Recycling the machine")


def _replacement(work: Work[RecycleMachine]) -> str:
    order = work.order
    subnets: Sequence[str] = ()
    vcpus = memory_mib = None
    if not work.is_under_way("clone"):
        work.begin("Looking at the machine")
        old = work.read(order.machine.id)
        if (old is None or order.attempt > 1) and (found := _find_made(work, order.name)):
            return found
        if old is None:
            raise NotFound(f"Machine {order.machine.id} is not on {work.settings.endpoint} any more.")
        work.require_same(old.vm, order.machine)
        subnets, vcpus, memory_mib = [nic.subnet for nic in old.vm.nics if nic.subnet], old.vm.vcpus, old.vm.memory_mib
    wish = Wish(
        template=order.template, name=order.name, storage=order.storage, seed=order.seed, vcpus=vcpus,
        memory_mib=memory_mib, subnets=subnets,
    )  # fmt: skip
    return _copy(work, wish)


# --- delete ----------------------------------------------------------------------------------------------------------


def delete(work: Work[DeleteMachine]) -> Outcome:
    """Its disks go with it: on AHV they are its own. So do the recovery points that we took of it."""
    ref = work.order.machine
    if not ref.id:
        ref = MachineRef(work.text("machine") or _of_the_key(work, ref.stamp), ref.stamp)
        work.receipt["machine"] = ref.id
    if ref.id:
        _remove(work, ref.id, ref.stamp, "")
    work.step = "Deleting the machine"
    return work.done()


def _of_the_key(work: Work[DeleteMachine], stamp: Stamp | None) -> str:
    """What the order of that stamp's key made; empty if it made nothing.

    Prism may list a new machine some seconds late, so its absence is believed only from two listings that lie further
    apart than that.
    """
    if stamp is None:
        raise Conflict("Neither a machine nor the order that made it was named. Nothing was deleted.")
    work.begin("Looking for what the order made")
    listing = work.client.list("vmm", VMS, work.deadline, doing=work.doing)
    for item in listing.items:
        vm = mapping.read_vm(item)
        if vm.stamp == stamp or vm.name == mapping.fresh_name(stamp):
            return vm.id
    absences = work.number("absences") + (1 if listing.is_whole else 0)
    work.receipt["absences"] = absences
    if absences < 2:
        raise StillGoing(after_s=float(work.settings.listing_lag_s))
    return ""


def _remove(work: Work[Any], machine: str, stamp: Stamp | None, prefix: str) -> None:
    """Off, gone, and its recovery points after it. Gone already is fine. Raises `Conflict` if it is another one."""

    def look() -> Seen:
        return work.ours(MachineRef(machine, stamp))

    def start(seen: Seen, id: str) -> Answer:
        where = f"{VMS}/{segment(seen.vm.id)}"
        return work.client.act("DELETE", "vmm", where, work.deadline, request_id=id, etag=seen.etag, doing=work.doing)

    try:
        power.switch_off(work, look, f"{prefix}off")
        work.ensure(f"{prefix}delete", "Deleting the machine", look, start)
    except NotFound:
        work.note_done(f"{prefix}off")
        work.note_done(f"{prefix}delete")
    snapshots.forget(work, machine, f"{prefix}points")


# --- reconfigure -----------------------------------------------------------------------------------------------------


def reconfigure(work: Work[Reconfigure]) -> Outcome:
    """Sockets of one core each, as clones get them."""
    order = work.order

    def is_done(seen: Seen) -> bool:
        wanted = order.vcpus or seen.vm.vcpus, order.memory_mib or seen.vm.memory_mib
        return wanted == (seen.vm.vcpus, seen.vm.memory_mib)

    def start(seen: Seen, id: str) -> Answer:
        if seen.vm.power is not Power.OFF:
            raise Unsupported(
                f"Machine {seen.vm.name!r} is {seen.vm.power}; its size can only be changed while it is off."
            )
        changes: dict[str, object] = {}
        if order.vcpus:
            changes |= {"numSockets": order.vcpus, "numCoresPerSocket": 1}
        if order.memory_mib:
            changes["memorySizeBytes"] = order.memory_mib * MIB
        return work.put(seen, id, changes)

    work.ensure("size", "Changing the size", lambda: work.ours(order.machine), start, is_done=is_done)
    return work.done()
