"""Recovery checkpoints, reference points and what has changed since: what Hyper-V does when `points 1` asks it.

A recovery checkpoint makes the disks' files stand still, and the machine writes on into new ones. Turned into a
reference point it goes, and what was written since can be told for as long as the disk's history lasts. Which reference
point belongs to which key stands in the machine's notes, as the script writes it there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lab.errors import InUse, WorldError
from lab.hyperv.errands import changes
from lab.hyperv.host import mark_of
from lab.hyperv.words import COMMANDS, Thrown, fault_of
from lab.nouns import Machine, Power, Snapshot, Task, TaskState

if TYPE_CHECKING:
    from lab.hyperv.host import HypervHost

Told = dict[str, Any]

POINT_S, KEEP_S = 2.0, 1.0
"""Virtual seconds that the service takes for a checkpoint and for turning it into a reference point."""
WAIT_S = 1.0
"""Real seconds that a script waits for a job, if it may."""
LINE = '{"deskyard-points"'


class Goes(Exception):
    """A step that takes its time."""


def act(host: HypervHost, parameters: Told, *, is_admin: bool) -> Told:
    """Raises `Thrown`."""
    if not is_admin:
        raise Thrown("Deskyard.NoRights")
    ops: Mapping[str, Callable[[HypervHost, Told], Told]] = {
        "take": _take, "serve": _serve, "errand": _errand, "release": _release,
    }  # fmt: skip
    until = time.monotonic() + min(WAIT_S, float(parameters["budget_s"]))
    try:
        while True:
            try:
                told = ops[str(parameters["op"])](host, parameters)
                break
            except Goes as step:
                told = {"state": "running", "step": str(step)}
            if time.monotonic() > until:
                break
            time.sleep(0.02)
    except (Thrown, WorldError) as error:
        told = {"state": "failed", "fault": fault_of(error)}
    return told | {"host": host.world.hosts[host.id].name}


# --- ops -------------------------------------------------------------------------------------------------------------


def _take(host: HypervHost, parameters: Told) -> Told:
    world, key = host.world, str(parameters["key"])
    with world:
        machine = host.here(str(parameters["id"]))
        if machine is None:
            return {"state": "absent"}
        _require_stamp(machine, parameters)
    _stop_serving(host, parameters)
    with world:
        wanted = _wanted(host, machine, parameters)
        _clean(host, machine, parameters, but=key)
        is_template = mark_of(machine).get("stage") == "template"
        if (parameters["stamp"] is None or is_template) and machine.power is Power.OFF:
            files = {slot: host.estate.path_of(machine, machine.disks[at]) for at, slot in wanted}
            return _described(host, machine, wanted, files, "off", "stands", {})
        point = _find(machine, parameters, key)
        if point is None:
            if world.now < float(machine.marks.get("merging_until", 0.0)):
                raise Goes("merging")
            consistency = "off" if machine.power is Power.OFF else str(parameters["consistency"])
            _begin(host, machine, parameters, "take", key, f"{_prefix(parameters)}{key}-{consistency}")
            _settle(host, machine, parameters)
            point = _find(machine, parameters, key)
            if point is None:
                raise Thrown("Deskyard.PointFailed")
        files = {slot: host.estate.path_of(machine, point.disks[at]) for at, slot in wanted}
        limits = _limits(machine, _kept(machine, parameters).get(str(parameters["since"]), ""))
        whole = _why_whole(host, wanted, files, limits, str(parameters["since"]))
        consistency = point.name.removeprefix(_prefix(parameters))[37:]
        return _described(host, machine, wanted, files, consistency, whole, limits)


def _serve(host: HypervHost, parameters: Told) -> Told:
    host.errands.start(parameters, str(parameters["id"]), str(parameters["key"]), "serve 1")
    return {"state": "done"}


def _errand(host: HypervHost, parameters: Told) -> Told:
    return host.errands.told(str(parameters["owner"]), str(parameters["id"]), str(parameters["key"]))


def _release(host: HypervHost, parameters: Told) -> Told:
    _stop_serving(host, parameters)
    with host.world:
        machine = host.here(str(parameters["id"]))
        if machine is None:
            return {"state": "absent"}
        _clean(host, machine, parameters, but="")
    return {"state": "done"}


def _stop_serving(host: HypervHost, parameters: Told) -> None:
    owner, whose = str(parameters["owner"]), str(parameters["id"])
    for name in host.errands.of(owner, whose):
        host.errands.stop(owner, whose, name)


# --- points ----------------------------------------------------------------------------------------------------------


def _prefix(parameters: Told) -> str:
    return f"deskyard-point-{parameters['owner']}-"


def points_of(machine: Machine, prefix: str = "") -> list[Snapshot]:
    """Recovery checkpoints whose names begin so."""
    recovery = machine.marks.get("recovery", [])
    return [it for it in machine.snapshots.values() if it.id in recovery and it.name.startswith(prefix)]


def _find(machine: Machine, parameters: Told, key: str) -> Snapshot | None:
    return next((it for it in points_of(machine, f"{_prefix(parameters)}{key}-")), None)


def checkpoint(host: HypervHost, machine: Machine, name: str) -> Snapshot:
    """A recovery checkpoint: of ours, or of whoever else backs machines up."""
    world = host.world
    for disk in machine.disks:
        host.estate.path_of(machine, disk)  # before the checkpoint: the file keeps its name
    tokens = [str(world.change_token(disk)) for disk in machine.disks]
    point = world.take_snapshot(machine.id, name)
    machine.marks.setdefault("recovery", []).append(point.id)
    machine.marks.setdefault("tokens", {})[point.id] = tokens
    return point


def remove(host: HypervHost, machine: Machine, point: Snapshot) -> None:
    """The new files are merged into those that stood still, which bear their old names. Raises `InUse`."""
    for disk in point.disks:
        if host.errands.holds(disk):
            raise InUse(f"{disk} is open")
    paths: dict[str, str] = machine.marks.get("paths", {})
    below = {child: paths.get(disk) for disk in point.disks for child in _children(host, machine, disk)}
    host.world.delete_snapshot(machine.id, point.id)
    for disk in point.disks:
        paths.pop(disk, None)
    for child, path in below.items():
        if path:
            paths[child] = path
    machine.marks["recovery"].remove(point.id)
    machine.marks["tokens"].pop(point.id, None)
    machine.marks["merging_until"] = host.world.now + host.estate.merge_s


def _children(host: HypervHost, machine: Machine, disk: str) -> list[str]:
    mine = {*machine.disks, *(part for it in machine.snapshots.values() for part in it.disks)}
    return [it for it in mine if host.world.disks[it].parent == disk]


def keep(host: HypervHost, machine: Machine, point: Snapshot) -> str:
    """As a reference point; its id."""
    tokens = machine.marks["tokens"][point.id]
    remove(host, machine, point)
    id = f"Reference:{host.world.new_id()}"
    limits = dict(zip(slots_of(machine), tokens, strict=False))
    machine.marks.setdefault("references", {})[id] = limits if host.tells_changes else {}
    return id


# --- jobs ------------------------------------------------------------------------------------------------------------


def _begin(host: HypervHost, machine: Machine, parameters: Told, what: str, key: str, name: str) -> None:
    world = host.world

    def take() -> None:
        if name.endswith("-guest") and not (machine.guest.is_up and machine.guest.has_agent):
            raise WorldError("the guest does not hold still")
        machine.marks["job_made"] = checkpoint(host, machine, "Unnamed").id

    def turn() -> None:
        point = _find(machine, parameters, key)
        if point is not None:
            machine.marks["job_made"] = keep(host, machine, point)

    task = world.start_task(
        "CreateSnapshot" if what == "take" else "ConvertToReferencePoint",
        machine.id, POINT_S if what == "take" else KEEP_S, take if what == "take" else turn,
    )  # fmt: skip
    host.jobs[machine.id, str(parameters["owner"])] = (what, key, name, task)


def _settle(host: HypervHost, machine: Machine, parameters: Told) -> None:
    """Raises `Goes` while a job of ours is under way, `Thrown` if the point that is wanted failed."""
    record: tuple[str, str, str, Task] | None = host.jobs.get((machine.id, str(parameters["owner"])))
    if record is None:
        return
    what, key, name, task = record
    if task.ended_at is None:
        raise Goes("point")
    del host.jobs[machine.id, str(parameters["owner"])]
    made, is_well = machine.marks.pop("job_made", ""), task.state is TaskState.DONE
    if what == "take":
        if is_well:
            machine.snapshots[made].name = name
        elif key == parameters.get("key"):
            raise Thrown("Deskyard.NotQuiet" if name.endswith("-guest") else "Deskyard.PointFailed")
    elif is_well:
        _write_kept(machine, parameters, _kept(machine, parameters) | {key: made})
    elif point := _find(machine, parameters, key):
        remove(host, machine, point)


def _clean(host: HypervHost, machine: Machine, parameters: Told, *, but: str) -> None:
    _settle(host, machine, parameters)
    wanted = [str(it) for it in parameters["keep"]]
    prefix = _prefix(parameters)
    for point in points_of(machine, prefix):
        key = point.name.removeprefix(prefix)[:36]
        if key == but:
            continue
        if key in wanted:
            _begin(host, machine, parameters, "keep", key, "")
            _settle(host, machine, parameters)
        else:
            remove(host, machine, point)
    kept = _kept(machine, parameters)
    gone = [key for key in kept if key not in wanted]
    for key in gone:
        machine.marks.get("references", {}).pop(kept.pop(key), None)
    if gone:
        _write_kept(machine, parameters, kept)


# --- notes -----------------------------------------------------------------------------------------------------------


def _all_kept(machine: Machine) -> dict[str, dict[str, str]]:
    for line in str(machine.marks.get("notes", "")).split("\n"):
        if line.startswith(LINE):
            found: dict[str, dict[str, str]] = json.loads(line)["deskyard-points"]
            return found
    return {}


def _kept(machine: Machine, parameters: Told) -> dict[str, str]:
    return dict(_all_kept(machine).get(str(parameters["owner"]), {}))


def _write_kept(machine: Machine, parameters: Told, kept: Mapping[str, str]) -> None:
    everybody = _all_kept(machine) | {str(parameters["owner"]): dict(kept)}
    everybody = {owner: theirs for owner, theirs in everybody.items() if theirs}
    lines = [it for it in str(machine.marks.get("notes", "")).split("\n") if it and not it.startswith(LINE)]
    if everybody:
        lines.append(json.dumps({"deskyard-points": everybody}, separators=(",", ":")))
    machine.marks["notes"] = "\n".join(lines)


# --- the machine -----------------------------------------------------------------------------------------------------


def _require_stamp(machine: Machine, parameters: Told) -> None:
    mark, stamp = mark_of(machine), parameters["stamp"] or {}
    if (mark.get("installation"), mark.get("key")) != (stamp.get("installation"), stamp.get("key")):
        raise Thrown("Deskyard.WrongStamp")


def slots_of(machine: Machine) -> list[str]:
    """Where its disks hang, in their order: controller's type, number, location."""
    told: list[str] = machine.marks.get("slots", [])
    is_new = machine.marks.get("generation", 2) == 2
    usual = [f"scsi-0-{at}" if is_new else f"ide-{at // 2}-{at % 2}" for at in range(len(machine.disks))]
    return [*told, *usual[len(told) :]]


def _wanted(host: HypervHost, machine: Machine, parameters: Told) -> list[tuple[int, str]]:
    slots = slots_of(machine)
    if set(parameters["disks"]) - set(slots):
        raise Thrown("Deskyard.NoDisk")
    if not slots:
        raise Thrown("Deskyard.NothingToRead")
    wanted = [(at, slot) for at, slot in enumerate(slots) if not parameters["disks"] or slot in parameters["disks"]]
    for at, _ in wanted:
        path = host.estate.path_of(machine, machine.disks[at])
        if not path.endswith((".vhd", ".vhdx", ".avhd", ".avhdx")):
            raise Thrown("Deskyard.DiskIsNoFile")
    return wanted


def _limits(machine: Machine, reference: str) -> dict[str, str]:
    found: dict[str, str] = machine.marks.get("references", {}).get(reference, {})
    return found


def _why_whole(
    host: HypervHost, wanted: list[tuple[int, str]], files: Told, limits: Mapping[str, str], since: str
) -> str:
    if not since:
        return "first"
    for _, slot in wanted:
        try:
            if slot not in limits:
                return "forgotten"
            changes(host, files[slot], limits[slot], 0, 65536)
        except Thrown:
            return "forgotten"
    return ""


def _described(
    host: HypervHost,
    machine: Machine,
    wanted: list[tuple[int, str]],
    files: Told,
    consistency: str,
    whole: str,
    limits: Mapping[str, str],
) -> Told:
    vlans = machine.marks.get("vlans", [])
    return {
        "state": "done",
        "name": machine.name,
        "generation": machine.marks.get("generation", 2),
        "vcpus": machine.vcpus,
        "memory_mib": machine.memory_mib,
        "secure": machine.marks.get("secure", "On") if machine.marks.get("generation", 2) == 2 else "Off",
        "consistency": consistency,
        "whole": whole,
        "disks": [
            {
                "name": slot,
                "bus": slot.partition("-")[0],
                "size": host.world.disks[machine.disks[at]].capacity,
                "path": files[slot],
                "limit": limits.get(slot, ""),
            }
            for at, slot in wanted
        ],
        "nics": [
            {
                "switch": host.switch_of(nic),
                "vlan": vlans[at] if at < len(vlans) else 0,
                "mac": nic.mac.replace(":", "").upper(),
            }
            for at, nic in enumerate(machine.nics)
        ],
    }


__all__ = ["COMMANDS", "act", "checkpoint", "keep", "points_of", "remove", "slots_of"]
