"""The administrator's first look: a few numbers, each the length of a list that can be opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.models import Hypervisor, Pool, Request
from broker.selectors import desktops, drift, hypervisors, operations, pools, replication

SHOWN = 8
"""Rows of a short list on the first page; the whole one is a click away."""


@dataclass(frozen=True, slots=True)
class PoolUse:
    """A pool and how many of its desktops are in each group that the list of desktops can be narrowed to."""

    pool: Pool
    numbers: dict[str, int]


@dataclass(frozen=True, slots=True)
class Overview:
    hypervisors: dict[str, int]
    """status -> how many"""
    troubled: list[Hypervisor]
    """Those that are not up, with their reasons; the first by name."""
    desktops: dict[str, int]
    short_count: int
    """Pools that are below their spare, or held."""
    short_pools: list[pools.Standing]
    """The first of them by name."""
    notable_pools: list[PoolUse]
    """Those with most desktops that failed or are missing, then with most that are assigned."""
    used: int
    """Desktops that somebody looks at right now."""
    pool_count: int
    unfinished: int
    failed_lately: int
    waiting: int
    strays: int
    replication: replication.Alarms
    """Broken promises and vaults that cannot be used."""

    @property
    def troubled_count(self) -> int:
        return self.hypervisor_count - self.hypervisors.get(Hypervisor.Status.UP, 0)

    @property
    def hypervisor_count(self) -> int:
        return sum(self.hypervisors.values())

    @property
    def desktop_count(self) -> int:
        return sum(self.desktops.values())


def overview(now: datetime) -> Overview:
    """Everything the dashboard shows, in a number of statements that does not grow with the estate."""
    standings = pools.standings(list(Pool.objects.order_by("name")), now)
    short = [standing for standing in standings if standing.is_lacking]
    used = desktops.used_by_pool()
    counts = hypervisors.counts_by_status()
    # Each desktop is one of some pool's, and those are counted already.
    by_state: Counter[str] = Counter()
    for standing in standings:
        by_state.update(standing.counts)
    troubled = hypervisors.hypervisors().exclude(status=Hypervisor.Status.UP)
    return Overview(
        hypervisors=counts,
        troubled=list(troubled[:SHOWN]) if counts.keys() - {Hypervisor.Status.UP} else [],
        desktops=desktops.counts_by_group(by_state),
        short_count=len(short),
        short_pools=pools.explained(short[:SHOWN], now),
        notable_pools=_notable(standings, used),
        used=sum(used.values()),
        pool_count=len(standings),
        unfinished=operations.unfinished_count(),
        failed_lately=operations.failed_lately(now),
        waiting=Request.objects.filter(state__in=Request.IN_QUEUE).count(),
        strays=drift.drifting_machines(drift.LEFT_OVER).count(),
        replication=replication.alarms(now),
    )


def _notable(standings: list[pools.Standing], used: dict[UUID, int]) -> list[PoolUse]:
    first = sorted(standings, key=lambda one: (-one.failed, -one.assigned))[:SHOWN]
    return [
        PoolUse(one.pool, {**desktops.counts_by_group(one.counts), "used": used.get(one.pool.pk, 0)}) for one in first
    ]
