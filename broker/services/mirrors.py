"""What platforms replicate by themselves, into the sources of policies that watch it.

Inventories read it, one listing a hypervisor for all its sources, at most once in a while. A listing that failed or is
partial tells nothing of what it does not name: what was known stays, and the fault says why nothing newer is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from broker.domain import promises
from broker.hypervisors.abilities import can_mirror
from broker.models import Hypervisor, ReplicationPolicy, ReplicationSource
from broker.services import nudges
from broker.services.replication_promises import point_came
from broker.services.rows import alter
from connectors.errors import ConnectorError
from connectors.replication import Mirror, MirrorListing

WATCH_EVERY = timedelta(minutes=1)
"""No platform replicates more often than every half minute, and a listing costs it as much as an inventory."""
NOT_REPLICATED = "The platform does not replicate this machine: set it up there."


def due(hypervisor: Hypervisor, now: datetime) -> bool:
    """Whether a policy watches machines there that were not asked after for a while."""
    if not can_mirror(hypervisor.kind):
        return False
    is_time = Q(mirrors_at=None) | Q(mirrors_at__lte=now - WATCH_EVERY)
    return _watched(hypervisor).filter(is_time).exists()


def write(hypervisor: Hypervisor, listing: MirrorListing, now: datetime) -> None:
    """What the platform told of all its machines. Inside a transaction, as long as nobody else reads the hypervisor."""
    found: dict[str, list[Mirror]] = defaultdict(list)
    for mirror in listing.mirrors:
        found[mirror.machine].append(mirror)
    changes = [
        alter(source, _told(hypervisor, source, found.get(source.platform_id, ()), listing.partial, now))
        for source in _locked(hypervisor)
    ]
    _announce(changes)


def missed(hypervisor: Hypervisor, error: ConnectorError, now: datetime) -> None:
    """It could not be asked. Inside a transaction, as `write`."""
    fault = f"{hypervisor} could not be asked what it replicates. {error.message}"
    _announce([alter(source, {"fault": fault, "mirrors_at": now}) for source in _locked(hypervisor)])


def _watched(hypervisor: Hypervisor) -> QuerySet[ReplicationSource]:
    return ReplicationSource.objects.filter(
        hypervisor=hypervisor, is_chosen=True, policy__engine=ReplicationPolicy.Engine.PLATFORM, policy__is_enabled=True
    )


def _locked(hypervisor: Hypervisor) -> list[ReplicationSource]:
    rows = _watched(hypervisor).select_related("policy").order_by("pk")
    return list(rows.select_for_update(of=("self",)))


def _announce(changes: Sequence[Mapping[str, Any]]) -> None:
    """That it was asked is no news."""
    if any(change.keys() - {"mirrors_at"} for change in changes):
        nudges.announce("replication")


def _told(
    hypervisor: Hypervisor, source: ReplicationSource, found: Sequence[Mirror], partial: str, now: datetime
) -> dict[str, Any]:
    """The source's fields as the platform tells them. One that is not named keeps its newest state all the same."""
    values: dict[str, Any] = {"mirrors_at": now}
    if not found and partial:
        return values | {"fault": f"{hypervisor} could not tell of all it replicates: {partial}."}
    values |= {"mirrors": [_plain(mirror) for mirror in found], "fault": _fault(source, found)}
    # A clock over there may be ahead of ours: nothing is newer than now.
    newest = max((min(mirror.newest_at, now) for mirror in found if mirror.newest_at is not None), default=None)
    return values | (point_came(source, newest, now) if newest is not None else {})


def _fault(source: ReplicationSource, found: Sequence[Mirror]) -> str:
    if not found:
        return NOT_REPLICATED
    if faults := " ".join(mirror.fault for mirror in found if mirror.fault):
        return faults
    interval_s = min((mirror.interval_s for mirror in found if mirror.interval_s), default=None)
    return promises.why_not_mirrored(rpo_s=source.policy.rpo_s, interval_s=interval_s)


def _plain(mirror: Mirror) -> dict[str, Any]:
    return {
        "to": mirror.to,
        "state": str(mirror.state),
        "newest_at": mirror.newest_at.isoformat() if mirror.newest_at is not None else None,
        "interval_s": mirror.interval_s,
        "fault": mirror.fault,
        "can_fail_over": mirror.can_fail_over,
    }
