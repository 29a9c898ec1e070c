"""Hyper-V Replica between two hosts of the lab: what they do when `failover 1` asks them.

The replica is a machine of its own on the other host, of the same id, which cannot be started until it has taken its
original's place. Its disks hold what the original's held when they were sent last: real bytes, from world to world.
Words are those of VMReplicationState and VMReplicationMode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab import mirrors
from lab.errors import NoSuch, WorldError
from lab.hyperv.host import HypervHost, mark_of, write_mark
from lab.hyperv.mirrors import FAILED_OVER, MODE, PREPARED
from lab.hyperv.words import COMMANDS, Thrown, fault_of
from lab.nouns import Machine, Power

Told = dict[str, Any]

PARTNER = "replica_partner"
"""A machine's mark: the name of the host at which the other end of its replication stands."""
PIECE = 1 << 20


def keep(original: HypervHost, machine: str, replica: HypervHost, *, every_s: float = 300.0) -> None:
    """From now on the other host keeps a replica of the machine; the first copy has arrived."""
    with original.world as world:
        it = world.machine(machine)
        mirrors.begin(world, machine, replica.id, every_s=every_s, first_s=0.0)
        it.marks[PARTNER] = replica.id
        shape = (it.name, it.vcpus, it.memory_mib, [world.disks[disk].capacity_mib for disk in it.disks])
    original.partners[replica.id], replica.partners[original.id] = replica, original
    name, vcpus, memory_mib, sizes = shape
    with replica.world as world:
        kept = world.create(
            name, vcpus=vcpus, memory_mib=memory_mib, disks_mib=tuple(sizes), host=replica.id, id=machine
        )
        mirrors.begin(world, machine, original.id, every_s=every_s, first_s=0.0)
        kept.marks |= {MODE: "Replica", PARTNER: original.id}
    _send(original, machine)


def act(host: HypervHost, parameters: Told, *, is_admin: bool) -> Told:
    """Raises `Thrown`."""
    if not is_admin:
        raise Thrown("Deskyard.NoRights")
    answer = {"host": host.world.hosts[host.id].name}
    step = STEPS.get(str(parameters["op"]))
    try:
        if step is None:
            raise Thrown("Deskyard.UnknownOrder")
        return answer | {"state": step(host, parameters)}
    except (Thrown, WorldError) as error:
        return answer | {"state": "failed", "fault": fault_of(error)}


def _meant(host: HypervHost, asked: Told, *, may_have_no_notes: bool = False) -> Machine | None:
    machine = host.here(str(asked["id"]))
    if machine is None:
        return None
    mark, stamp = mark_of(machine), asked["stamp"] or {}
    is_ours = (mark.get("installation"), mark.get("key")) == (stamp.get("installation"), stamp.get("key"))
    if not is_ours and (mark or not may_have_no_notes):
        raise Thrown("Deskyard.WrongStamp")
    if mirrors.of(machine) is None:
        raise Thrown("Deskyard.NotReplicated")
    return machine


def _hand_over(host: HypervHost, asked: Told) -> str:
    with host.world as world:
        machine = _meant(host, asked)
        if machine is None:
            return "absent"
        mark = machine.marks[mirrors.MARK]
        if machine.marks.get(MODE, "Primary") != "Primary":
            raise Thrown("Deskyard.IsReplica")
        if mark.get("state") == PREPARED:
            return "done"
        if mark["course"] not in (mirrors.Course.WELL, mirrors.Course.LAGGING):
            raise Thrown("Deskyard.NotReplicating")
        if machine.power is not Power.OFF:
            raise Thrown("Deskyard.IsOn")
        if world.faults.take(f"failover {host.id}", "replica_away"):
            raise Thrown(f"OperationFailed,{COMMANDS}.StartVMFailover")
    _send(host, machine.id)
    with host.world as world:
        world.machine(machine.id).marks[mirrors.MARK]["state"] = PREPARED
    return "done"


def _take_over(host: HypervHost, asked: Told) -> str:
    with host.world:
        machine = _meant(host, asked, may_have_no_notes=True)
        if machine is None:
            return "absent"
        if machine.marks.get(MODE) != "Replica":
            raise Thrown("Deskyard.IsNoReplica")
        machine.marks[mirrors.MARK]["state"] = FAILED_OVER
        if asked["stamp"] and not mark_of(machine):
            write_mark(machine, asked["stamp"], stage="machine")
        host.world.touch(machine)
    return "done"


def _reverse(host: HypervHost, asked: Told) -> str:
    with host.world as world:
        machine = _meant(host, asked)
        if machine is None:
            return "absent"
        if machine.marks.get(MODE, "Primary") == "Primary":
            return "done"
        if world.faults.take(f"failover {host.id}", "replica_away"):
            raise Thrown(f"OperationFailed,{COMMANDS}.SetVMReplication")
        machine.marks[MODE] = "Primary"
        machine.marks[mirrors.MARK].pop("state", None)
        partner = host.partners[machine.marks[PARTNER]]
    with partner.world as world:
        old = world.machine(machine.id)
        old.marks[MODE] = "Replica"
        old.marks[mirrors.MARK].pop("state", None)
    return "done"


def _take_back(host: HypervHost, asked: Told) -> str:
    with host.world as world:
        machine = _meant(host, asked, may_have_no_notes=True)
        if machine is None:
            return "absent"
        if machine.marks[mirrors.MARK].pop("state", "") == FAILED_OVER and machine.power is not Power.OFF:
            world.power_off(machine.id)
    return "done"


STEPS: dict[str, Callable[[HypervHost, Told], str]] = {
    "hand_over": _hand_over, "take_over": _take_over, "reverse": _reverse, "take_back": _take_back,
}  # fmt: skip


def _send(host: HypervHost, machine: str) -> None:
    """All that its disks hold, to its replica. Raises `NoSuch`. Never both worlds at once: both have locks."""
    with host.world as world:
        it = world.machine(machine)
        partner = host.partners.get(str(it.marks.get(PARTNER)))
        held = [[(area.offset, area.length) for area in world.allocated(disk)] for disk in it.disks]
        disks = list(it.disks)
    if partner is None:
        raise NoSuch(f"the replica of {machine}")
    with partner.world as world:
        copies = list(world.machine(machine).disks)
        for copy in copies:
            world.zero(copy, 0, world.disks[copy].capacity)
    for disk, copy, areas in zip(disks, copies, held, strict=True):
        for offset, length in areas:
            for at in range(offset, offset + length, PIECE):
                data = host.world.read(disk, at, min(PIECE, offset + length - at))
                with partner.world as world:
                    world.write(copy, at, data)
