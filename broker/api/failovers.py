"""Failovers: recovery points tried, desktops moved or brought up, one by one or a pool. Operators and auditors only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page, page_as_ordered
from broker.api.recovery import NICS_AT_MOST
from broker.api.shapes import In, Out
from broker.domain.failover import Kind
from broker.models import Failover
from broker.selectors import failovers as selectors
from broker.services import failovers as services

router = Router(tags=["replication"])


class EntryOut(Out):
    """A line of the report."""

    at: datetime
    step: str
    """In words."""
    words: str
    """What was done or seen."""
    is_good: bool


class FailoverOut(Out):
    id: UUID
    kind: str
    """test, move, emergency, planned"""
    state: str
    """running, done, failed, cancelled"""
    is_to_end: bool
    """Somebody has cancelled it; it is taken back at its next step."""
    step: str
    """waiting, copying, stopping, last_copy, landing, handing_over, taking_over, starting, probing, reversing,
    cleaning, taking_back, over"""
    step_in_words: str
    step_since: datetime
    percent: int | None
    """Of the bytes that the step carries; null: it carries none, or nothing is known yet."""
    subject: str
    """The machine's name."""
    desktop: UUID | None
    recovery_point: UUID | None
    """What is brought up; of a move, once it is there."""
    vault: UUID | None
    """Through which it goes, or where its point lies. Null: it was removed since, or the platform carries the bytes."""
    vault_name: str
    """What a vault was called that was removed since; else empty."""
    hypervisor: UUID
    """Where to."""
    name: str
    """Of the machine there."""
    machine_id: str
    """Its id there; empty until it stands, and once it was taken away again."""
    old_hypervisor: UUID | None
    old_machine_id: str
    """What the desktop was before. It stays there, off, until it is deleted; after a planned one it is the replica."""
    run: UUID | None
    """That the step waits for."""
    operation: UUID | None
    """That the step waits for."""
    group: UUID | None
    """Those of a pool that go together."""
    down_s: float | None
    """How long its user could not work, so far or in all: from the stop to the new machine's first sign of life. Null:
    not at all yet, or it cannot be told."""
    lost_s: float | None
    """The achieved RPO: how long a stretch of work is lost, 0 with a move. Of a test: what would have been. Null: it
    cannot be told."""
    recovery_s: float | None
    """The achieved RTO: from the stop, of a test from its beginning, to the first sign of life."""
    error: str
    """What failed, on what, what to do."""
    requested_by: str | None
    created_at: datetime
    stopped_at: datetime | None
    """From when on its user could not work."""
    answered_at: datetime | None
    """When the new machine gave its first sign of life."""
    finished_at: datetime | None


class FailoverDetailOut(FailoverOut):
    report: list[EntryOut]
    """What was done and seen, in order."""
    digest: str
    """SHA-256 of the report as it is kept; empty until it is over."""


class GroupOut(Out):
    group: UUID
    failovers: list[FailoverOut]
    """In the order in which they go."""


class ProspectOut(Out):
    """What would become of one desktop."""

    desktop: UUID
    name: str
    hypervisor: UUID
    """Where it is now."""
    recovery_point: UUID | None
    """Its newest good one."""
    taken_at: datetime | None
    loses_s: float | None
    """How old the state is that its user would find; null with a move, which loses nothing."""
    why_not: str
    """Empty: it can go."""
    lacks: str
    """What there may not be room for there, in words; empty: it fits. It goes all the same."""


class ProspectsOut(Out):
    items: list[ProspectOut]
    """In the order in which they would go."""
    able: int
    """How many can go."""


class FailoverFilter(Window):
    desktop: UUID | None = None
    state: Literal["running", "done", "failed", "cancelled"] | None = None
    kind: Literal["test", "move", "emergency", "planned"] | None = None
    group: UUID | None = None


class TargetIn(In):
    hypervisor_id: UUID
    """One whose `can_land` is true; of desktops one on which their pool builds."""
    storage_id: UUID
    """Of `GET /hypervisors/{id}/storages`."""
    network_ids: Annotated[list[UUID | None], Field(max_length=NICS_AT_MOST)] = []
    """Of `GET /hypervisors/{id}/networks`, one a NIC in order; null: not connected. Empty: for a test an isolated
    network if there is one, else none; for a desktop the networks on which its pool builds there, else those of the
    same names as before."""

    def target(self) -> services.Target:
        return services.Target(
            hypervisor_id=self.hypervisor_id, storage_id=self.storage_id, network_ids=self.network_ids
        )


class TestIn(TargetIn):
    point_id: UUID


class MoveIn(TargetIn):
    desktop_id: UUID
    vault_id: UUID
    """Its bytes go through it. Where it is replicated to already, little is left to copy."""


class EmergencyIn(TargetIn):
    desktop_id: UUID
    point_id: UUID | None = None
    """Null: its newest good one."""
    even_if_up: bool = False
    """Although its hypervisor answers: what was done since the point is lost, and the old machine is left running."""


class PlannedIn(In):
    desktop_id: UUID


class GroupEndOut(Out):
    cancelled: int
    left: int
    """Under way, and too late to cancel, or being cancelled already."""


class PoolIn(TargetIn):
    kind: Literal["move", "emergency"]
    even_if_up: bool = False
    """An emergency also for desktops whose hypervisor answers."""


class PoolBeginIn(PoolIn):
    vault_id: UUID | None = None
    """A move needs one."""


def show_failover(row: Failover, now: datetime) -> FailoverOut:
    """A row of `selectors.failovers`."""
    progress = selectors.progress_of(row, now)
    return FailoverOut(
        id=row.pk,
        kind=row.kind,
        state=row.state,
        is_to_end=row.is_to_end,
        step=row.step,
        step_in_words=progress.step,
        step_since=row.step_since,
        percent=progress.pace.percent if progress.pace else None,
        subject=row.subject,
        desktop=row.desktop_id,
        recovery_point=row.point_id,
        vault=row.vault_id,
        vault_name=row.vault_name,
        hypervisor=row.hypervisor_id,
        name=row.name,
        machine_id=row.machine_id,
        old_hypervisor=row.old_hypervisor_id,
        old_machine_id=row.old_machine_id,
        run=row.run_id,
        operation=row.operation_id,
        group=row.group,
        down_s=progress.down_s,
        lost_s=progress.lost_s,
        recovery_s=progress.recovery_s,
        error=row.error,
        requested_by=row.requested_by.get_username() if row.requested_by else None,
        created_at=row.created_at,
        stopped_at=row.stopped_at,
        answered_at=row.answered_at,
        finished_at=row.finished_at,
    )


def _failover(failover_id: UUID) -> FailoverDetailOut:
    now = timezone.now()
    row = one(selectors.failovers(), failover_id, "failover")
    entries = selectors.progress_of(row, now).entries
    report = [EntryOut(at=line.at, step=line.step, words=line.words, is_good=line.is_good) for line in entries]
    return FailoverDetailOut(**show_failover(row, now).model_dump(), report=report, digest=row.digest)


@router.get("", response=Page[FailoverOut])
def list_failovers(request: HttpRequest, wanted: Query[FailoverFilter]) -> Page[FailoverOut]:
    """Newest first; those of a group in the order in which they go."""
    staff(request, Right.REVIEW)
    found = selectors.FailoverFilter(
        state=wanted.state or "", kind=wanted.kind or "", desktop=wanted.desktop, group=wanted.group
    )
    rows, now = found.apply(selectors.failovers()), timezone.now()
    if wanted.group:
        return page_as_ordered(rows.order_by("place", "pk"), wanted, lambda row: show_failover(row, now))
    return page(rows, wanted, lambda row: show_failover(row, now))


# Before what takes any word for an id.
@router.post("/test", response={202: FailoverDetailOut})
def test_recovery_point(request: HttpRequest, wish: TestIn) -> FailoverDetailOut:
    """Bring a recovery point up in isolation, see whether it lives, take it away. 409 if the point is damaged."""
    made = services.begin_test(actor=staff(request, Right.OPERATE), point_id=wish.point_id, target=wish.target())
    return _failover(made.pk)


@router.post("/move", response={202: FailoverDetailOut})
def move_desktop(request: HttpRequest, wish: MoveIn) -> FailoverDetailOut:
    """Move a desktop with its user to another hypervisor of its pool. 409 while it is moved already, and if its
    hypervisor does not answer."""
    made = services.begin_move(
        actor=staff(request, Right.OPERATE), desktop_id=wish.desktop_id, vault_id=wish.vault_id, target=wish.target()
    )
    return _failover(made.pk)


@router.post("/emergency", response={202: FailoverDetailOut})
def bring_desktop_up(request: HttpRequest, wish: EmergencyIn) -> FailoverDetailOut:
    """Its newest recovery point becomes the desktop; what was done since is lost. 409 while its hypervisor answers
    unless `even_if_up`, and if there is no good point."""
    made = services.begin_emergency(
        actor=staff(request, Right.OPERATE),
        desktop_id=wish.desktop_id,
        target=wish.target(),
        point_id=wish.point_id,
        even_if_up=wish.even_if_up,
    )
    return _failover(made.pk)


@router.post("/planned", response={202: FailoverDetailOut})
def fail_over_as_planned(request: HttpRequest, wish: PlannedIn) -> FailoverDetailOut:
    """The replica that its platform keeps on another hypervisor takes the desktop's place; nothing is lost. 409 with
    what stands in the way: today Hyper-V alone is driven, with both ends registered and up."""
    made = services.begin_planned(actor=staff(request, Right.OPERATE), desktop_id=wish.desktop_id)
    return _failover(made.pk)


@router.post("/groups/{group}/cancel", response={202: GroupEndOut})
def cancel_group(request: HttpRequest, group: UUID) -> GroupEndOut:
    """All of a group that are not over, each as if by itself; how many. 409 if none can be cancelled."""
    ended = services.cancel_group(actor=staff(request, Right.OPERATE), group=group)
    return GroupEndOut(cancelled=ended.cancelled, left=ended.left)


@router.get("/{id}", response=FailoverDetailOut)
def get_failover(request: HttpRequest, id: UUID) -> FailoverDetailOut:
    staff(request, Right.REVIEW)
    return _failover(id)


@router.post("/{id}/cancel", response={202: FailoverDetailOut})
def cancel_failover(request: HttpRequest, id: UUID) -> FailoverDetailOut:
    """What it made is taken away, what it stopped is started again. 409 if it is over or being taken back already."""
    services.cancel(actor=staff(request, Right.OPERATE), failover_id=id)
    return _failover(id)


@router.post("/pools/{pool_id}/dry-run", response=ProspectsOut)
def look_ahead(request: HttpRequest, pool_id: UUID, wish: PoolIn) -> ProspectsOut:
    """What would become of each desktop of the pool that somebody has and that is elsewhere. Changes nothing."""
    found = services.look_ahead(
        actor=staff(request, Right.OPERATE),
        pool_id=pool_id,
        target=wish.target(),
        kind=Kind(wish.kind),
        even_if_up=wish.even_if_up,
    )
    items = [
        ProspectOut(
            desktop=one.desktop.pk,
            name=one.desktop.name,
            hypervisor=one.desktop.hypervisor_id,
            recovery_point=one.point.pk if one.point else None,
            taken_at=one.point.taken_at if one.point else None,
            loses_s=one.loses_s,
            why_not=one.why_not,
            lacks=one.lacks,
        )
        for one in found
    ]
    return ProspectsOut(items=items, able=sum(not one.why_not for one in found))


@router.post("/pools/{pool_id}", response={202: GroupOut})
def fail_over_pool(request: HttpRequest, pool_id: UUID, wish: PoolBeginIn) -> GroupOut:
    """All that the dry run finds able, a few at a time, in its order. 409 if none can go."""
    group = services.begin_pool(
        actor=staff(request, Right.OPERATE),
        pool_id=pool_id,
        target=wish.target(),
        kind=Kind(wish.kind),
        vault_id=wish.vault_id,
        even_if_up=wish.even_if_up,
    )
    now = timezone.now()
    rows = selectors.failovers().filter(group=group).order_by("place")
    return GroupOut(group=group, failovers=[show_failover(row, now) for row in rows])
