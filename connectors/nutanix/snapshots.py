"""TakeSnapshot, RevertSnapshot, DeleteSnapshot: recovery points of one machine (`vm-recovery-points`, vmm v4.1 and up).

A point's name ends with the key of the order that took it, so a second attempt finds it, and points of protection
policies are never taken for ours.
"""

from __future__ import annotations

from typing import Any

from connectors.base import DeleteSnapshot, Outcome, Power, RevertSnapshot, SnapshotTaken, TakeSnapshot
from connectors.errors import Conflict, NotFound, PlatformFault, Unsupported
from connectors.nutanix import mapping, power
from connectors.nutanix.client import Answer, Precondition, literal, segment
from connectors.nutanix.mapping import Point
from connectors.nutanix.work import ETAG_TRIES, FIRST_LOOK_S, Seen, StillGoing, Work

POINTS = "ahv/config/vm-recovery-points"
SINCE = (4, 1)
AT_ONCE = 10
"""How many points of a deleted machine a receipt holds: receipts are small."""


def take(work: Work[TakeSnapshot]) -> Outcome:
    order = work.order
    _require_points(work)
    mapping.require_usable(order.name, what="snapshot")

    def look() -> Seen:
        return work.ours(order.machine)

    def start(seen: Seen, id: str) -> Answer:
        body = {
            "$objectType": "vmm.v4.ahv.config.VmRecoveryPoint",
            "name": mapping.point_name(order.name, order.key),
            "vmExtId": seen.vm.id,
            "recoveryPointType": "CRASH_CONSISTENT",
        }
        return work.client.act("POST", "vmm", POINTS, work.deadline, request_id=id, body=body, doing=work.doing)

    def is_taken(seen: Seen) -> bool:
        return _taken(work, seen.vm.id) is not None

    work.ensure("take", "Taking the snapshot", look, start, is_done=is_taken, is_shown=False)
    work.begin("Taking the snapshot")
    point = _taken(work, order.machine.id)
    if point is None:
        if work.number("waited") < 30:  # lists may show a new thing late
            work.receipt["waited"] = work.number("waited") + 1
            raise StillGoing(after_s=1.0)
        raise PlatformFault(
            f"Prism Central {work.settings.endpoint} says that it took {order.name!r}, and it is not listed."
        )
    return work.done(SnapshotTaken(point.id))


def revert(work: Work[RevertSnapshot]) -> Outcome:
    """In place. The power is cut first, and comes back if it was on."""
    order = work.order
    _require_points(work)

    def look() -> Seen:
        return work.ours(order.machine)

    if "was_on" not in work.receipt:
        work.begin("Looking at the machine")
        seen = look()
        point = _read(work, order.snapshot)
        if point is None or point.machine != order.machine.id:
            raise NotFound(f"Machine {seen.vm.name!r} has no snapshot {order.snapshot}.")
        work.receipt["was_on"] = seen.vm.power is Power.ON
    power.switch_off(work, look)
    body = {"$objectType": "vmm.v4.ahv.config.RevertParams", "vmRecoveryPointExtId": order.snapshot}
    work.ensure("revert", "Reverting to the snapshot", look, lambda seen, id: work.post("revert", seen, id, body))
    if work.receipt["was_on"]:
        power.switch_on(work, look)
    return work.done()


def delete(work: Work[DeleteSnapshot]) -> Outcome:
    order = work.order
    _require_points(work)
    if not work.is_under_way("point-" + order.snapshot):
        work.begin("Looking at the machine")
        work.ours(order.machine)
        point = _read(work, order.snapshot)
        if point is not None and point.machine != order.machine.id:
            raise Conflict(f"Snapshot {order.snapshot} is another machine's. Nothing was deleted.")
    _drop(work, order.snapshot)
    return work.done()


def forget(work: Work[Any], machine: str, step: str) -> None:
    """Delete the points that we took of a machine that is gone: Prism keeps them, and what its user wrote in them."""
    if work.has_done(step) or work.client.version("vmm", work.deadline) < SINCE:
        return
    points = work.receipt.get("points")
    if not isinstance(points, list):
        work.begin("Looking for its snapshots")
        points = work.receipt["points"] = [point.id for point in _points(work, machine) if point.key][:AT_ONCE]
    for point in points:
        _drop(work, str(point))
    del work.receipt["points"]
    if len(points) == AT_ONCE:
        raise StillGoing(after_s=1.0)  # look again: there may be more
    work.note_done(step)


def _drop(work: Work[Any], id: str) -> None:
    """One point. Gone already is fine. It is no machine, so it has no `Seen`: a step of its own kind."""
    step = f"point-{id}"
    if work.has_done(step):
        return
    work.begin("Deleting the snapshot")
    if work.is_under_way(step):
        work.settle(step)
        work.note_done(step)
        return
    if work.text("step") != step:
        work.receipt.pop("task", None)
        work.receipt |= {"step": step, "tries": 0}
    for _ in range(ETAG_TRIES):
        try:
            answer = work.client.get("vmm", f"{POINTS}/{segment(id)}", work.deadline, doing=work.doing)
            told = work.client.act(
                "DELETE", "vmm", f"{POINTS}/{segment(id)}", work.deadline, request_id=work.request_id(step),
                etag=answer.etag, doing=work.doing,
            )  # fmt: skip
        except NotFound:
            work.note_done(step)
            return
        except Precondition:
            continue
        work.note_started(told)
        raise StillGoing(after_s=FIRST_LOOK_S)
    raise work.refused_again(f"Snapshot {id}")


def _require_points(work: Work[Any]) -> None:
    if work.client.version("vmm", work.deadline) < SINCE:
        raise Unsupported(
            f"Prism Central {work.settings.endpoint} speaks v4.0, which has no snapshots of single machines."
        )


def _taken(work: Work[TakeSnapshot], machine: str) -> Point | None:
    """The point that this order took."""
    return next((point for point in _points(work, machine) if point.key == work.order.key), None)


def _points(work: Work[Any], machine: str) -> list[Point]:
    query = {"$filter": f"vmExtId eq {literal(machine)}"}
    listing = work.client.list("vmm", POINTS, work.deadline, query=query, doing=work.doing)
    return [point for item in listing.items if (point := mapping.read_point(item)).machine == machine]


def _read(work: Work[Any], id: str) -> Point | None:
    try:
        answer = work.client.get("vmm", f"{POINTS}/{segment(id)}", work.deadline, doing=work.doing)
    except NotFound:
        return None
    return mapping.read_point(answer.data) if isinstance(answer.data, dict) else None
