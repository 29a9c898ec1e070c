"""The administrator's first look: a few numbers, each the length of a list that can be opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from broker.models import Hypervisor, Request
from broker.selectors import desktops, drift, hypervisors, operations, pools, replication


@dataclass(frozen=True, slots=True)
class Overview:
    hypervisors: dict[str, int]
    """status -> how many"""
    troubled: list[Hypervisor]
    """Those that are not up, with their reasons; at most ten."""
    desktops: dict[str, int]
    used: int
    """Desktops that somebody looks at right now."""
    short_pools: list[pools.Standing]
    pool_count: int
    unfinished: int
    failed_lately: int
    waiting: int
    strays: int
    replication: replication.Alarms
    """Broken promises and vaults that cannot be used."""

    @property
    def hypervisor_count(self) -> int:
        return sum(self.hypervisors.values())

    @property
    def desktop_count(self) -> int:
        return sum(self.desktops.values())


def overview(now: datetime) -> Overview:
    """Everything the dashboard shows, in a number of statements that does not grow with the estate."""
    standings = pools.standings(list(pools.pools_with_members()), now)
    counts = hypervisors.counts_by_status()
    # Each desktop is one of some pool's, and those are counted already.
    by_state: Counter[str] = Counter()
    for standing in standings:
        by_state.update(standing.counts)
    troubled = hypervisors.hypervisors().exclude(status=Hypervisor.Status.UP)
    return Overview(
        hypervisors=counts,
        troubled=list(troubled[:10]) if counts.keys() - {Hypervisor.Status.UP} else [],
        desktops=desktops.counts_by_group(by_state),
        used=desktops.used_count(),
        short_pools=[standing for standing in standings if standing.is_short or standing.pool.hold_reason],
        pool_count=len(standings),
        unfinished=operations.unfinished_count(),
        failed_lately=operations.failed_lately(now),
        waiting=Request.objects.filter(state__in=Request.IN_QUEUE).count(),
        strays=drift.drifting_machines(drift.LEFT_OVER).count(),
        replication=replication.alarms(now),
    )
