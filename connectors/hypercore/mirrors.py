"""What a cluster replicates to others by itself: read from four listings, whatever the number of machines.

Fields are those of the vendor's Ansible collection and Terraform provider: `VirDomainReplication` (sourceDomainUUID,
connectionUUID, enable, progress.percentComplete) and `RemoteClusterConnection` (connectionStatus, replicationOK,
remoteClusterInfo.clusterName). No field tells when the state was current that has arrived. At 100 % the newest snapshot
that is to be replicated has arrived (people's playbooks wait for that before they fail over; never seen on an appliance
by us), and its timestamp is taken; below that nothing is known of what has arrived before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from connectors.errors import Unsupported
from connectors.hypercore import inventory
from connectors.hypercore.client import Record, Wire
from connectors.hypercore.faults import Refusal
from connectors.hypercore.settings import HyperCoreSettings
from connectors.replication import Mirror, MirrorListing, MirrorState

SETTLED = timedelta(minutes=1)
"""A younger snapshot may not have been noticed yet: 100 % would be said of the one before."""
WHOLE = 100


@dataclass(frozen=True, slots=True)
class Connection:
    """A RemoteClusterConnection."""

    name: str
    """The other cluster's."""
    is_established: bool
    is_well: bool


def read(wire: Wire, settings: HyperCoreSettings, deadline: float) -> MirrorListing:
    """Raises `Unsupported` for a cluster that knows no replication, else what a wire raises, and `Refusal`."""
    doing = "reading what is replicated"
    # Snapshots first: 100 % then holds for what was seen of them.
    snapshots = wire.get("/VirDomainSnapshot", deadline, doing)
    read_at = datetime.now(UTC)
    try:
        replications = wire.get("/VirDomainReplication", deadline, doing)
        connections = wire.get("/RemoteClusterConnection", deadline, doing)
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        words = f"{wire.name} does not tell what it replicates: its HyperCore knows no replication over the API."
        raise Unsupported(f"{words} Update it.", platform_words=refusal.words) from None
    machines = wire.get("/VirDomain", deadline, doing)
    doubt = "" if machines else inventory.doubts(wire, settings, deadline)
    names = {str(one.get("uuid")): str(one.get("name") or "") for one in machines if not one.get("sourceVirDomainUUID")}
    taken = _taken(snapshots, read_at)
    known = {str(one.get("uuid")): _connection(one) for one in connections}
    found = (_mirror(one, names, known, taken) for one in replications if str(one.get("sourceDomainUUID")) in names)
    return MirrorListing(tuple(found), doubt)


def _taken(snapshots: Iterable[Record], read_at: datetime) -> Mapping[str, Sequence[datetime]]:
    """Machine -> when its snapshots that are to be replicated were taken, oldest first."""
    found: dict[str, list[datetime]] = {}
    for one in snapshots:
        at = datetime.fromtimestamp(int(one.get("timestamp") or 0), UTC)
        if one.get("replication") is True and at <= read_at - SETTLED:
            found.setdefault(str(one.get("domainUUID")), []).append(at)
    return {machine: sorted(times) for machine, times in found.items()}


def _connection(record: Record) -> Connection:
    other = record.get("remoteClusterInfo")
    name = str(other.get("clusterName") or "") if isinstance(other, Mapping) else ""
    return Connection(
        name=name or "another cluster",
        is_established=record.get("connectionStatus") == "ESTABLISHED",
        is_well=record.get("replicationOK") is not False,
    )


_GONE = Connection("another cluster", is_established=False, is_well=False)


def _mirror(
    record: Record,
    names: Mapping[str, str],
    connections: Mapping[str, Connection],
    taken: Mapping[str, Sequence[datetime]],
) -> Mirror:
    machine = str(record["sourceDomainUUID"])
    connection = connections.get(str(record.get("connectionUUID")), _GONE)
    percent = _percent(record)
    times = taken.get(machine, ())
    newest_at = times[-1] if times and percent == WHOLE else None
    state, fault = _state(record, connection, percent, len(times))
    return Mirror(
        machine=machine,
        name=names[machine],
        to=connection.name,
        state=state,
        newest_at=newest_at,
        fault=fault,
        can_fail_over=newest_at is not None,
    )


def _percent(record: Record) -> int | None:
    progress = record.get("progress")
    told = progress.get("percentComplete") if isinstance(progress, Mapping) else None
    return int(told) if isinstance(told, (int, float)) else None


def _state(record: Record, connection: Connection, percent: int | None, snapshots: int) -> tuple[MirrorState, str]:
    to = connection.name
    if record.get("enable") is False:
        return MirrorState.PAUSED, f"Replication to {to} is switched off. Switch it on in HyperCore."
    if not connection.is_established:
        return MirrorState.FAILING, f"The connection to {to} is down. Look at it in HyperCore."
    if not connection.is_well:
        return MirrorState.FAILING, f"Replication to {to} does not work. Look at the connection in HyperCore."
    if not snapshots:
        words = "There is no snapshot yet that goes there: give the machine a snapshot schedule in HyperCore."
        return MirrorState.INITIAL, f"Nothing has been replicated to {to}. {words}"
    if percent is None:
        return MirrorState.UNKNOWN, f"HyperCore does not tell how far replication to {to} is. Look at it there."
    if percent != WHOLE and snapshots == 1:
        return MirrorState.INITIAL, f"The first copy to {to} is not complete yet."
    return MirrorState.HEALTHY, ""
