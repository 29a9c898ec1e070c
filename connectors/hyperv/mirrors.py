"""What hosts tell of Hyper-V Replica -> the contract's data. Pure.

State words are .NET's enum names (VMReplicationState, VMReplicationHealthState, VMReplicationMode), as Microsoft
documents them for Get-VMReplication on Windows Server 2019 and 2022; property names are those of the module's class
VMReplication. Texts for people, such as ReplicationHealthDetails, are localised and not looked at.
"""

from __future__ import annotations

from datetime import UTC, datetime

from connectors.hyperv.mapping import Told
from connectors.replication import Mirror, MirrorState

PAUSED = frozenset({"Suspended", "ResynchronizeSuspended"})
INITIAL = frozenset({"ReadyForInitialReplication", "InitialReplicationInProgress", "WaitingForInitialReplication"})
FAILING = frozenset({"Error", "UpdateError", "WaitingForStartResynchronize"})
"""Nothing arrives until somebody does something."""
FLOWING = "Replicating"

_FAULTS = {
    MirrorState.PAUSED: "Replication to {to} is paused. Resume it in Hyper-V.",
    MirrorState.INITIAL: "The first copy to {to} is not complete yet.",
    MirrorState.FAILING: "Replication to {to} has failed ({state}, health {health}). Look at its health in Hyper-V.",
    MirrorState.WARNING: "Replication to {to} is behind ({state}, health {health}). Look at its health in Hyper-V.",
}


def read(told: Told) -> tuple[Mirror, ...]:
    """One host's answer. Left out are replicas that the host keeps for others, and machines whose replication is
    disabled."""
    return tuple(_mirror(one) for one in told["mirrors"] if one["mode"] == "Primary" and one["state"] != "Disabled")


def _mirror(one: Told) -> Mirror:
    words = {"to": str(one["server"]) or "the replica server", "state": one["state"], "health": one["health"]}
    state = state_of(str(one["state"]), str(one["health"]))
    newest_at = _moment(str(one["at"]))
    return Mirror(
        machine=str(one["id"]),
        name=str(one["name"]),
        to=words["to"],
        state=state,
        newest_at=newest_at,
        interval_s=int(one["every_s"]) or None,
        fault=_FAULTS[state].format(**words) if state in _FAULTS else "",
        can_fail_over=newest_at is not None and state is not MirrorState.INITIAL,
    )


def state_of(state: str, health: str) -> MirrorState:
    """What the two words come to. A state in between, as in the midst of a failover, is a warning."""
    if state in INITIAL:
        return MirrorState.INITIAL
    if state in PAUSED:
        return MirrorState.PAUSED
    if state in FAILING or health == "Critical":
        return MirrorState.FAILING
    return MirrorState.HEALTHY if state == FLOWING and health == "Normal" else MirrorState.WARNING


def _moment(text: str) -> datetime | None:
    """Round-trip format has seven digits of a second, one more than Python keeps."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
