"""Pushes: a pool's desktops go over to another version of their template. Those with a role only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page_of
from broker.api.shapes import In, Out
from broker.domain import pushes as rules
from broker.models import Pool
from broker.selectors import pushes as selectors
from broker.selectors.pushes import Standing
from broker.services import pushes as services

router = Router(tags=["pools"])
of_pools = Router(tags=["pools"])


class PushFailureOut(Out):
    desktop: UUID
    name: str
    at: datetime
    words: str
    """Why it failed."""


class PushOut(Out):
    id: UUID
    pool: UUID
    version: UUID
    before: UUID | None
    """The version to which a roll back leads; null: it has not begun, or there were several."""
    state: str
    """scheduled, running, done, stopped (desktops failed in a row), cancelled"""
    reason: str
    """Why it stopped or was cancelled."""
    starts_at: datetime
    users: str
    """How desktops in use go over. leave: when they are given back; deadline: at `deadline_at` at the latest."""
    deadline_at: datetime | None
    notice_min: int
    """Minutes that users have between the notice and the deadline."""
    stops_after: int
    """Failures in a row after which it stops."""
    desktops_there: int
    """Ready or in use on the version. This and the following: as they stand now."""
    desktops_free: int
    desktops_in_use: int
    """On another version, and somebody's."""
    desktops_on_way: int
    desktops_failed: int
    desktops_aside: int
    """Missing or in maintenance: nothing is done to them."""
    failures: list[PushFailureOut]
    """Desktops that failed on the version, newest first."""
    requested_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class PushIn(In):
    version_id: UUID
    """Must lie on the hypervisor of every enabled member that builds from its template."""
    starts_at: datetime | None = None
    """Null: now."""
    users: Literal["leave", "deadline"] = "leave"
    deadline_at: datetime | None = None
    """With `deadline`: when those who still use a desktop are turned out. What lies on it is deleted."""
    notice_min: int = 15
    stops_after: int = rules.STOPS_AFTER
    id: UUID | None = None
    """The id that it shall have; sent again with the same, nothing more is done."""


class RollBackIn(In):
    id: UUID | None = None
    """As for a push."""


def show_push(standing: Standing) -> PushOut:
    row, tally = standing.push, standing.tally
    return PushOut(
        id=row.pk,
        pool=row.pool_id,
        version=row.version_id,
        before=row.before_id,
        state=row.state,
        reason=row.reason,
        starts_at=row.starts_at,
        users=row.users,
        deadline_at=row.deadline_at,
        notice_min=row.notice_min,
        stops_after=row.stops_after,
        desktops_there=tally.there,
        desktops_free=tally.free,
        desktops_in_use=tally.in_use,
        desktops_on_way=tally.on_way,
        desktops_failed=tally.failed,
        desktops_aside=tally.aside,
        failures=[
            PushFailureOut(desktop=one.desktop, name=one.name, at=one.at, words=one.words) for one in standing.failures
        ],
        requested_by=row.requested_by.get_username() if row.requested_by else None,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _shown(push_id: UUID) -> PushOut:
    return show_push(selectors.standing_of(one(selectors.pushes(), push_id, "push")))


@of_pools.post("/{id}/pushes", response={202: PushOut})
def push(request: HttpRequest, id: UUID, wish: PushIn) -> PushOut:
    """Free desktops get a fresh disk of the version a few at a time, those in use as `users` says. A push that runs is
    taken the place of. 409 if nothing would change."""
    actor = staff(request, Right.OPERATE)
    made = services.push(
        actor=actor,
        pool_id=id,
        version_id=wish.version_id,
        starts_at=wish.starts_at,
        users=wish.users,
        deadline_at=wish.deadline_at,
        notice_min=wish.notice_min,
        stops_after=wish.stops_after,
        key=wish.id,
    )
    return _shown(made.pk)


@of_pools.get("/{id}/pushes", response=Page[PushOut])
def list_pushes(request: HttpRequest, id: UUID, wanted: Query[Window]) -> Page[PushOut]:
    """Newest first."""
    staff(request, Right.SEE)
    one(Pool.objects.all(), id, "pool")
    rows = selectors.pushes().filter(pool=id)
    return page_of(rows, wanted, lambda found: [show_push(standing) for standing in selectors.standings_of(found)])


@router.get("/{id}", response=PushOut)
def get_push(request: HttpRequest, id: UUID) -> PushOut:
    staff(request, Right.SEE)
    return _shown(id)


@router.post("/{id}/cancel", response=PushOut)
def cancel_push(request: HttpRequest, id: UUID) -> PushOut:
    """Nothing more goes over, and members build from what they built from before. 409 if it is over."""
    services.cancel(actor=staff(request, Right.OPERATE), push_id=id)
    return _shown(id)


@router.post("/{id}/roll-back", response={202: PushOut})
def roll_back(request: HttpRequest, id: UUID, wish: RollBackIn) -> PushOut:
    """Push the version before: the answer is the new push. 409 if there was no one version, or another was pushed
    since."""
    made = services.roll_back(actor=staff(request, Right.OPERATE), push_id=id, key=wish.id)
    return _shown(made.pk)
