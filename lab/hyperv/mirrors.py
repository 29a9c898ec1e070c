"""Hyper-V Replica as a primary host sees it: what Hyper-V does when `mirrors 1` asks it.

Each node tells of its own machines. Words are those of VMReplicationState, VMReplicationHealthState, VMReplicationMode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab import mirrors
from lab.errors import WrongState
from lab.hyperv.words import Thrown
from lab.mirrors import Course
from lab.nouns import Machine

if TYPE_CHECKING:
    from lab.hyperv.host import HypervHost

Told = dict[str, Any]

WORDS = {
    Course.WELL: ("Replicating", "Normal"),
    Course.LAGGING: ("Replicating", "Warning"),
    Course.BROKEN: ("Error", "Critical"),
    Course.PAUSED: ("Suspended", "Warning"),
}
MODE = "replica_mode"
"""A machine's mark: its mode, if it is no primary ("Replica" for one that is kept here for another host)."""
PREPARED, FAILED_OVER = "PreparedForFailover", "FailedOverWaitingCompletion"
"""States of a planned failover: of the original, and of the replica."""


def require_startable(machine: Machine) -> None:
    """Hyper-V starts neither a replica nor what has been handed over. Raises `WrongState`."""
    mark = mirrors.of(machine)
    if mark is None:
        return
    state = mark.get("state", "")
    if (machine.marks.get(MODE) == "Replica" and state != FAILED_OVER) or state == PREPARED:
        raise WrongState(f"{machine.name} is a replica, or is about to become one")


def act(host: HypervHost, *, is_admin: bool) -> Told:
    """Raises `Thrown`."""
    if not is_admin:
        raise Thrown("Deskyard.NoRights")
    with host.world as world:
        there = [it for it in world.visible() if it.host == host.id and mirrors.of(it) is not None]
        return {"host": world.hosts[host.id].name, "mirrors": [_told(host, it) for it in there]}


def _told(host: HypervHost, it: Machine) -> Told:
    mark = it.marks[mirrors.MARK]
    at = mirrors.newest_at(host.world, it)
    state, health = WORDS[Course(mark["course"])]
    if at is None and mark["course"] in (Course.WELL, Course.LAGGING):
        state, health = "InitialReplicationInProgress", "Normal"
    return {
        "id": it.id,
        "name": it.name,
        "mode": it.marks.get(MODE, "Primary"),
        "state": mark.get("state", state),
        "health": mark.get("health", health),
        "server": mark["to"],
        "every_s": int(mark["every_s"]),
        # .NET's round-trip format: seven digits.
        "at": mirrors.moment(host.world, at).strftime("%Y-%m-%dT%H:%M:%S.%f0Z") if at is not None else "",
    }
