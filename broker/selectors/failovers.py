"""Tests of recovery points, moves and emergencies: how far they are, what they cost, and what they leave behind.

For administrators: doors check that first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from broker.domain import failover as rules
from broker.domain import replication
from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import LIVE
from broker.models import (
    Desktop,
    Failover,
    Hypervisor,
    Machine,
    Network,
    PoolMember,
    RecoveryPoint,
    ReplicationRun,
    ReplicationSource,
    Vault,
)
from broker.selectors.networks import counterparts
from broker.selectors.replication import pace_of
from broker.selectors.reports import Entry, entries_of

KINDS = {Kind.TEST: "Test", Kind.MOVE: "Move", Kind.EMERGENCY: "Emergency", Kind.PLANNED: "Planned failover"}
LEAVE_ONE = (Kind.MOVE, Kind.EMERGENCY)
"""Kinds after which what a desktop was before stands where it was, of no use any more."""
STATES = Failover.State


def failovers() -> QuerySet[Failover]:
    """Every one, newest first, with what pages show of it."""
    return Failover.objects.select_related(
        "hypervisor", "old_hypervisor", "desktop", "vault", "point", "run", "operation", "requested_by"
    ).defer(
        "hypervisor__secrets", "old_hypervisor__secrets", "vault__secrets", "point__configuration"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FailoverFilter:
    """What an administrator looks for; empty fields do not narrow."""

    state: str = ""
    kind: str = ""
    desktop: UUID | None = None
    group: UUID | None = None
    text: str = ""
    """Part of the machine's name."""

    def apply(self, found: QuerySet[Failover]) -> QuerySet[Failover]:
        if self.state:
            found = found.filter(state=self.state)
        if self.kind:
            found = found.filter(kind=self.kind)
        if self.desktop:
            found = found.filter(desktop=self.desktop)
        if self.group:
            found = found.filter(group=self.group)
        return found.filter(subject__icontains=self.text) if self.text else found


@dataclass(frozen=True, slots=True)
class Progress:
    """A failover with what can be told of it now."""

    failover: Failover
    down_s: float | None
    """How long its user could not work, so far or in all."""
    lost_s: float | None
    """Achieved RPO."""
    recovery_s: float | None
    """Achieved RTO."""
    pace: replication.Pace | None
    """Of the run that the step waits for."""

    @property
    def kind(self) -> str:
        return KINDS[Kind(self.failover.kind)]

    @property
    def step(self) -> str:
        return rules.WORDS[Step(self.failover.step)]

    @property
    def run(self) -> ReplicationRun | None:
        """That carries bytes for it right now."""
        run = self.failover.run
        return run if run is not None and run.state == ReplicationRun.State.RUNNING else None

    @property
    def steps(self) -> list[tuple[str, str]]:
        return steps_of(self.failover)

    @property
    def entries(self) -> list[Entry]:
        """The report, in order."""
        return entries_of(self.failover.report, rules.WORDS)

    @property
    def can_cancel(self) -> bool:
        row = self.failover
        return row.state == STATES.RUNNING and not row.is_to_end and Step(row.step) in rules.MAY_BE_CANCELLED


def progress_of(row: Failover, now: datetime) -> Progress:
    """Of a row of `failovers`. No statement."""
    kind, is_done = Kind(row.kind), row.state == STATES.DONE
    answered_at = row.answered_at if is_done or row.state == STATES.RUNNING or kind == Kind.TEST else None
    return Progress(
        failover=row,
        down_s=rules.down_s(
            kind, is_done=is_done, stopped_at=row.stopped_at, answered_at=answered_at, finished_at=row.finished_at,
            now=now,
        ),
        lost_s=rules.lost_s(
            kind, is_done=is_done, began_at=row.created_at, stopped_at=row.stopped_at,
            taken_at=row.point.taken_at if row.point else None,
        ),
        recovery_s=rules.recovery_s(began_at=row.created_at, stopped_at=row.stopped_at, answered_at=answered_at),
        pace=pace_of(row.run, now) if row.run is not None else None,
    )  # fmt: skip


def steps_of(row: Failover) -> list[tuple[str, str]]:
    """The way with where it stands: done, now, later; of one that did not go well, what was done and how it ended."""
    way: list[Step] = [step for step in rules.STEPS[Kind(row.kind)] if step != Step.OVER]
    if row.state == STATES.DONE:
        return [(rules.SHORT[step], "done") for step in way]
    if row.state == STATES.RUNNING and row.step in way:
        here = way.index(Step(row.step))
        return [
            (rules.SHORT[one], "done" if i < here else "now" if i == here else "later") for i, one in enumerate(way)
        ]
    reached = [step for step in way if any(line["step"] == step and line["is_good"] for line in row.report)]
    last = rules.SHORT[Step.TAKING_BACK] if row.state == STATES.RUNNING else row.get_state_display()
    return [
        *((rules.SHORT[step], "done") for step in reached),
        (last, "now" if row.state == STATES.RUNNING else "failed"),
    ]


# --- of one thing -----------------------------------------------------------------------------------------------------


def running_of(desktop_id: UUID) -> Failover | None:
    """The move or the emergency that a desktop is in."""
    return failovers().filter(desktop=desktop_id, state=STATES.RUNNING).exclude(kind=Kind.TEST).first()


def tests_of(point_id: UUID) -> QuerySet[Failover]:
    """Of a recovery point, newest first."""
    return failovers().filter(point=point_id, kind=Kind.TEST)


def newest_point(desktop: Desktop) -> RecoveryPoint | None:
    """The newest good one of the machine that it is now."""
    points = RecoveryPoint.objects.select_related("vault").defer("vault__secrets").filter(
        state=RecoveryPoint.State.USABLE,
        source__hypervisor=desktop.hypervisor_id,
        source__platform_id=desktop.machine_id,
    )  # fmt: skip
    return points.order_by("-taken_at").first()


def others_of(desktop: Desktop, kinds: Sequence[str]) -> QuerySet[Hypervisor]:
    """Where else its pool builds, of these kinds, by name."""
    members = PoolMember.objects.filter(pool=desktop.pool_id).exclude(hypervisor=desktop.hypervisor_id)
    return _of_members(members, kinds)


def targets_of(pool_id: UUID, kinds: Sequence[str]) -> QuerySet[Hypervisor]:
    """Where a pool builds, of these kinds, by name."""
    return _of_members(PoolMember.objects.filter(pool=pool_id), kinds)


def _of_members(members: QuerySet[PoolMember], kinds: Sequence[str]) -> QuerySet[Hypervisor]:
    found = Hypervisor.objects.filter(pk__in=members.values("hypervisor"), kind__in=kinds)
    return found.defer("secrets").order_by("name")


def networks_as_built(pool_id: UUID, hypervisor_id: UUID) -> list[str] | None:
    """Names of the networks on which a pool builds there; empty: by the names of before. None: its own network is
    nothing there."""
    member = PoolMember.objects.select_related("pool").filter(pool=pool_id, hypervisor=hypervisor_id).first()
    if member is None:
        return []
    ids = list(member.networks)
    if not ids and member.pool.network_id is not None:
        counterpart = counterparts([member.pool.network_id]).get((member.pool.network_id, hypervisor_id))
        if counterpart is None:
            return None
        ids = [counterpart]
    names = dict(Network.objects.filter(hypervisor=hypervisor_id).values_list("platform_id", "name"))
    return [names.get(one, one) for one in ids]


def vaults_for(desktop: Desktop | None) -> list[Vault]:
    """All, the likeliest first: where the desktop is copied to already (then little is left to copy), then those that
    are up, by name."""
    there = set()
    if desktop is not None:
        sources = ReplicationSource.objects.filter(
            hypervisor=desktop.hypervisor_id, platform_id=desktop.machine_id, is_chosen=True, disks=[]
        )
        there = set(sources.values_list("policy__vault", flat=True))
    rows = Vault.objects.defer("secrets").order_by("name")
    return sorted(rows, key=lambda one: (one.pk not in there, one.status != Vault.Status.UP))


# --- groups -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Those of one pool that go together."""

    total: int
    waiting: int
    under_way: int
    done: int
    failed: int
    """Cancelled ones too."""

    @property
    def percent(self) -> int:
        return 100 * (self.done + self.failed) // self.total if self.total else 0

    @property
    def is_over(self) -> bool:
        return self.done + self.failed == self.total


def group_counts(group: UUID) -> GroupCounts:
    """One statement."""
    waits = Q(state=STATES.RUNNING, step=Step.WAITING)
    found = Failover.objects.filter(group=group).order_by().aggregate(
        total=Count("pk"),
        waiting=Count("pk", filter=waits),
        under_way=Count("pk", filter=Q(state=STATES.RUNNING) & ~waits),
        done=Count("pk", filter=Q(state=STATES.DONE)),
        failed=Count("pk", filter=Q(state__in=[STATES.FAILED, STATES.CANCELLED])),
    )  # fmt: skip
    return GroupCounts(**found)


def newest_group_of(pool_id: UUID) -> Failover | None:
    """One failover of the newest group of a pool's desktops that is not over."""
    rows = Failover.objects.filter(desktop__pool=pool_id, state=STATES.RUNNING).exclude(group=None)
    return rows.order_by("-created_at").first()


# --- what is left behind ----------------------------------------------------------------------------------------------


def left_machine(row: Failover) -> Machine | None:
    """What a desktop was before it moved, as long as it is listed and no desktop is it."""
    if row.state != STATES.DONE or row.kind not in LEAVE_ONE or not row.old_machine_id:
        return None
    is_used = Desktop.objects.filter(
        hypervisor=row.old_hypervisor_id, machine_id=row.old_machine_id, state__in=LIVE
    ).exists()
    rows = Machine.objects.select_related("hypervisor", "host").filter(
        hypervisor=row.old_hypervisor_id, platform_id=row.old_machine_id, absences=0
    )
    return None if is_used else rows.first()


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a machine stands there that no desktop is."""

    words: str
    failover: UUID | None = None
    run: UUID | None = None


def origins(machines: Sequence[Machine]) -> dict[UUID, Origin]:
    """By machine: left behind by a failover, or brought up by a run. Those of which nothing is known are left out. Two
    statements."""
    ids = [machine.platform_id for machine in machines]
    left = {
        (row.old_hypervisor_id, row.old_machine_id): row
        for row in Failover.objects.filter(state=STATES.DONE, old_machine_id__in=ids, kind__in=LEAVE_ONE)
        .select_related("hypervisor")
        .defer("hypervisor__secrets")
        .order_by("created_at")
    }
    made = {
        (run.hypervisor_id, run.platform_id): run
        for run in ReplicationRun.objects.filter(
            kind=ReplicationRun.Kind.MATERIALISE, state=ReplicationRun.State.DONE, platform_id__in=ids
        )
        .select_related("point")
        .defer("point__configuration")
        .order_by("created_at")
    }
    found: dict[UUID, Origin] = {}
    for machine in machines:
        key = machine.hypervisor_id, machine.platform_id
        if (row := left.get(key)) is not None:
            when = row.answered_at or row.created_at
            words = f"Left behind when {row.subject} moved to {row.hypervisor} on {when:%Y-%m-%d}."
            found[machine.pk] = Origin(words, failover=row.pk)
        elif (run := made.get(key)) is not None:
            of = f" of {run.point.machine_name} of {run.point.taken_at:%Y-%m-%d %H:%M} UTC" if run.point else ""
            found[machine.pk] = Origin(f"Brought up from the recovery point{of}.", run=run.pk)
    return found
