"""What protection policies replicate: read from the lists of policies, clusters, machines and recovery points.

Field names: vendor SDKs ntnx_datapolicies_py_client 4.3 (ProtectionPolicy, ReplicationLocation), ntnx_vmm_py_client
4.3.2 (Vm.protectionPolicyState), ntnx_dataprotection_py_client 4.4.2 (RecoveryPoint.locationReferences,
locationAgnosticId). How one machine's replication fares (`protected-resources/{vm}`) can be asked only machine by
machine, which is not done: what has arrived is read off the recovery points instead. They are listed by the Prism
Central that has the cluster; what lies behind another one shows only there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from connectors.nutanix import mapping, names
from connectors.nutanix.client import Json
from connectors.nutanix.inventory import Reading
from connectors.nutanix.mapping import Vm
from connectors.nutanix.work import VMS
from connectors.replication import Mirror, MirrorListing, MirrorState

MISSED = 2
"""So many of the policy's intervals, and the newest copy counts as late: one passes until the next is taken, and
another while it is on its way."""


@dataclass(frozen=True, slots=True)
class Place:
    """A location of a policy."""

    label: str
    clusters: frozenset[str]
    """Ids; empty: whichever a Prism Central has."""
    is_primary: bool


@dataclass(frozen=True, slots=True)
class Way:
    """From one location of a policy to another one."""

    source: str
    to: str
    interval_s: int


@dataclass(frozen=True, slots=True)
class Policy:
    id: str
    categories: frozenset[str]
    places: tuple[Place, ...]
    ways: tuple[Way, ...]

    def place(self, label: str) -> Place | None:
        return next((place for place in self.places if place.label == label), None)

    def home(self, cluster: str) -> Place | None:
        """The location that a machine of this cluster is at; the primary one if none names the cluster."""
        named = next((place for place in self.places if cluster in place.clusters), None)
        return named or next((place for place in self.places if place.is_primary), None)


@dataclass(slots=True)
class Copies:
    """What recovery points there are of which machine, and in which cluster."""

    times: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)

    def newest(self, machine: str, place: Place, home: str) -> datetime | None:
        """Of those at the place: in one of its clusters, or anywhere but at home if it names none."""
        found = [
            max(times)
            for (whose, cluster), times in self.times.items()
            if whose == machine and (cluster in place.clusters if place.clusters else cluster not in ("", home))
        ]
        return max(found, default=None)


def read(reading: Reading, now: datetime) -> MirrorListing:
    """What could not be read makes the listing partial. Raises what a reading does."""
    clusters = reading.clusters()
    chosen = reading.chosen(clusters)
    policies = [read_policy(it) for it in reading.listed("datapolicies", "config/protection-policies", "policies")]
    machines = reading.listed("vmm", VMS, "machines")
    if not machines and not reading.faults:
        reading.doubt_emptiness(clusters)
    found: tuple[Mirror, ...] = ()
    if policies and machines:
        points = reading.listed("dataprotection", "config/recovery-points", "recovery points")
        copies = read_points(points)
        known = {cluster.id: cluster.name for cluster in clusters if not cluster.is_prism_central}
        seen = ((mapping.read_vm(it), _policy_id(it)) for it in machines)
        found = tuple(
            mirror
            for vm, policy in seen
            if not vm.is_agent_vm and not names.is_stand_in(vm.name) and (chosen is None or vm.cluster in chosen)
            for mirror in mirrors_of(vm, policy, policies, copies, known, now)
        )
    return MirrorListing(found, "; ".join(reading.faults))


# --- Prism's JSON ----------------------------------------------------------------------------------------------------


def _policy_id(seen: Json) -> str:
    """Of the policy that protects the machine; "" if Prism tells none."""
    state = seen.get("protectionPolicyState")
    policy = state.get("policy") if isinstance(state, Mapping) else None
    return str(policy.get("extId") or "") if isinstance(policy, Mapping) else ""


def read_policy(seen: Json) -> Policy:
    return Policy(
        id=str(seen.get("extId") or ""),
        categories=frozenset(str(id) for id in seen.get("categoryIds") or ()),
        places=tuple(_place(it) for it in _objects(seen.get("replicationLocations"))),
        ways=tuple(_ways(_objects(seen.get("replicationConfigurations")))),
    )


def _objects(found: object) -> Iterator[Json]:
    yield from (it for it in found if isinstance(it, Mapping)) if isinstance(found, Sequence) else ()


def _place(seen: Json) -> Place:
    part = seen.get("replicationSubLocation")
    clusters = part.get("clusterExtIds") if isinstance(part, Mapping) else None
    return Place(
        label=str(seen.get("label") or ""),
        clusters=frozenset(str(id) for id in clusters or ()),
        is_primary=seen.get("isPrimary") is True,
    )


def _ways(found: Iterable[Json]) -> Iterator[Way]:
    """Without a remote location recovery points stay where they are: that is no replication."""
    for it in found:
        schedule = it.get("schedule")
        seconds = schedule.get("recoveryPointObjectiveTimeSeconds") if isinstance(schedule, Mapping) else None
        if it.get("remoteLocationLabel"):
            yield Way(str(it.get("sourceLocationLabel") or ""), str(it["remoteLocationLabel"]), int(seconds or 0))


def read_points(found: Iterable[Json]) -> Copies:
    """A copy is as old as the oldest that is the same point wherever it lies: it may say when it arrived."""
    points = [it for it in found if it.get("creationTime")]
    taken: dict[str, datetime] = {}
    for it in points:
        same, at = _same(it), _moment(it)
        taken[same] = min(at, taken.get(same, at))
    copies = Copies()
    for it in points:
        places = [str(place.get("locationExtId") or "") for place in _objects(it.get("locationReferences"))]
        for machine in _objects(it.get("vmRecoveryPoints")):
            for place in places:
                copies.times.setdefault((str(machine.get("vmExtId")), place), []).append(taken[_same(it)])
    return copies


def _same(point: Json) -> str:
    return str(point.get("locationAgnosticId") or point.get("extId"))


def _moment(point: Json) -> datetime:
    at = datetime.fromisoformat(str(point["creationTime"]))
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


# --- what they come to -----------------------------------------------------------------------------------------------


def mirrors_of(
    vm: Vm, policy_id: str, policies: Sequence[Policy], copies: Copies, known: Mapping[str, str], now: datetime
) -> Iterator[Mirror]:
    """One for each location that the machine's policies replicate it to. `known`: clusters of this Prism Central, by
    id."""
    for policy in policies:
        if policy.id != policy_id if policy_id else not policy.categories & vm.categories:
            continue
        home = policy.home(vm.cluster)
        for way in policy.ways:
            place = policy.place(way.to)
            if home is not None and place is not None and way.source == home.label:
                yield _mirror(vm, way, place, copies.newest(vm.id, place, vm.cluster), known, now)


def _mirror(
    vm: Vm, way: Way, place: Place, newest_at: datetime | None, known: Mapping[str, str], now: datetime
) -> Mirror:
    to = ", ".join(sorted(known[id] for id in place.clusters if id in known)) or place.label
    is_shown = bool(place.clusters & known.keys())
    state, fault = _state(to, way, newest_at, now, is_shown=is_shown)
    return Mirror(
        machine=vm.id,
        name=vm.name,
        to=to,
        state=state,
        newest_at=newest_at,
        interval_s=way.interval_s or None,
        fault=fault,
        can_fail_over=newest_at is not None,
    )


def _state(to: str, way: Way, newest_at: datetime | None, now: datetime, *, is_shown: bool) -> tuple[MirrorState, str]:
    if not way.interval_s:
        words = "Prism Central tells only machine by machine how synchronous replication fares"
        return MirrorState.UNKNOWN, f"{words}: look there at {to}."
    if newest_at is None and not is_shown:
        words = f"What has arrived at {to} is known to the Prism Central there alone"
        return MirrorState.UNKNOWN, f"{words}: register that one too, or look there."
    if newest_at is None:
        return MirrorState.INITIAL, f"No recovery point has arrived at {to} yet."
    if now - newest_at > timedelta(seconds=MISSED * way.interval_s):
        return MirrorState.WARNING, f"The newest copy at {to} is late. Look at the protection policy in Prism Central."
    return MirrorState.HEALTHY, ""
