"""What policies, sources, runs and promises of replication have in common: when a source is due, and what comes first.

A policy's choices come to sources: machines as they are now (`replication_sources.py`). A source is due when its
`next_run_at` has come; whoever moves that from its old value writes the run, in one transaction
(`replication_runs.py`). Movers carry runs out (`movers.py`). What a policy promises is watched by the clock
(`replication_promises.py`); administrators keep policies (`replication_policies.py`).

A policy may only watch what platforms replicate by themselves (`mirrors.py`): the same promise, the same machines, the
same ledger, and never a run.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.domain import replication as rules
from broker.domain.replication import Timing
from broker.hypervisors.abilities import can_mirror, can_replicate
from broker.models import ReplicationPolicy, ReplicationRun, ReplicationSource

ENGINES = ReplicationPolicy.Engine
CLOCKS_DIFFER = timedelta(minutes=5)
"""By so much clocks of several machines may be apart; what is further ahead was written by one that was wrong."""
UNFINISHED = (ReplicationRun.State.QUEUED, ReplicationRun.State.RUNNING)
RANK_ASKED, RANK_SCHEDULED, RANK_SELF = 0, 10, 20
"""What a person waits for, what a schedule wants, what the broker does for itself."""


def can_serve(policy: ReplicationPolicy, kind: str) -> bool:
    """Whether a policy may hold machines on hypervisors of this kind: those it copies are read, others are told of."""
    return can_mirror(kind) if policy.engine == ENGINES.PLATFORM else can_replicate(kind)


def timing_of(policy: ReplicationPolicy) -> Timing:
    """Of all its sources, without what sets them apart from one another."""
    interval = timedelta(seconds=policy.interval_s) if policy.interval_s else None
    return Timing(interval=interval, cron=policy.cron, zone=policy.zone)


def next_run(policy: ReplicationPolicy, source: ReplicationSource, after: datetime) -> datetime:
    """The source's first turn after that moment: those of one policy take theirs one after another."""
    timing = timing_of(policy)
    if timing.interval is not None:
        timing = Timing(interval=timing.interval, offset=rules.offset_for(timing.interval, source.offset_s))
    return rules.next_run(timing, after)


def first_run(policy: ReplicationPolicy, source: ReplicationSource, now: datetime) -> datetime | None:
    """By interval a new machine is replicated at once, by cron at its time, by its platform without us."""
    if policy.engine == ENGINES.PLATFORM:
        return None
    return now if policy.interval_s and source.newest_at is None else next_run(policy, source, now)


def deadline_of(policy: ReplicationPolicy, source: ReplicationSource, since: datetime) -> datetime:
    """When its promise breaks. Before there is a point, it counts from `since`."""
    return (source.newest_at or since) + timedelta(seconds=policy.rpo_s)
