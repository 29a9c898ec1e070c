"""Requests: a person's wish for a desktop, from asking to the end of use."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Field, Query, Router, Status

from broker.api.access import caller, person
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Request
from broker.selectors import requests as selectors
from broker.services import approvals, brokering

router = Router(tags=["requests"])
MANY = 500


class RequestOut(Out):
    id: UUID
    pool: UUID
    user: str
    """Name of the user."""
    state: str
    """waiting (for approval), approved (waits for a desktop), building, ready, refused, failed, cancelled, ended"""
    reason: str
    """In words: why it waits, was refused, failed or ended."""
    why: str
    """The user's own reason."""
    hours: int | None
    """For how long it was asked; null: as long as the pool gives."""
    decision: str
    """What was said to it by who approved or declined it."""
    decided_at: datetime | None
    desktop: UUID | None
    """Null until there is one."""
    created_at: datetime
    served_at: datetime | None
    ended_at: datetime | None


class RequestIn(In):
    pool: UUID
    why: str = ""
    """A reason, where the pool asks for one."""
    hours: int | None = None
    """For how long, where the pool asks; null: as long as it gives."""


class DecisionIn(In):
    words: str = ""
    """A word to who asked."""


class DecisionOfManyIn(In):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=MANY)]
    approve: bool
    """False: declined."""
    words: str = ""


class NotDecidedOut(Out):
    request: UUID
    reason: str


class DecisionOfManyOut(Out):
    decided: list[RequestOut]
    refused: list[NotDecidedOut]
    """Those that were left as they are, and why."""


class RequestFilter(Window):
    state: Request.State | None = None
    pool: UUID | None = None
    owned: bool = False
    """Those for pools that the caller owns, instead of their own."""


def show(row: Request) -> RequestOut:
    return RequestOut(
        id=row.pk,
        pool=row.pool_id,
        user=row.user.get_username(),
        state=row.state,
        reason=row.reason,
        why=row.why,
        hours=row.asked_h,
        decision=row.decision,
        decided_at=row.decided_at,
        desktop=row.desktop_id,
        created_at=row.created_at,
        served_at=row.served_at,
        ended_at=row.ended_at,
    )


def _seen(request: HttpRequest) -> Any:
    found = caller(request)
    return selectors.requests() if found.sees_all else selectors.requests_of(found.user)


@router.get("", response=Page[RequestOut])
def list_requests(request: HttpRequest, wanted: Query[RequestFilter]) -> Page[RequestOut]:
    """One's own; administrators see everybody's, owners those for their pools with `owned`."""
    rows = selectors.requests_of_my_pools(caller(request).user) if wanted.owned else _seen(request)
    if wanted.state:
        rows = rows.filter(state=wanted.state)
    if wanted.pool:
        rows = rows.filter(pool=wanted.pool)
    return page(rows, wanted, show)


@router.post("/decide", response=DecisionOfManyOut)
def decide_many(request: HttpRequest, wish: DecisionOfManyIn) -> DecisionOfManyOut:
    """Approve or decline many; each for itself. For the help desk and up, and the pools' owners."""
    done = approvals.decide_many(actor=caller(request).user, request_ids=wish.ids, yes=wish.approve, words=wish.words)
    refused = [NotDecidedOut(request=pk, reason=reason) for pk, reason in done.refused]
    return DecisionOfManyOut(decided=[show(row) for row in done.requests], refused=refused)


@router.get("/{id}", response=RequestOut)
def get_request(request: HttpRequest, id: UUID) -> RequestOut:
    found = caller(request)
    rows = selectors.requests() if found.sees_all else selectors.requests_seen_by(found.user)
    return show(one(rows, id, "request"))


@router.post("", response={200: RequestOut, 201: RequestOut})
def request_desktop(request: HttpRequest, wish: RequestIn) -> Status[RequestOut]:
    """Ask for a desktop of a pool. 201 with the new request; asking again gives 200 with the open one."""
    row, is_new = brokering.request_desktop(
        user=person(request).user, pool_id=wish.pool, why=wish.why, hours=wish.hours
    )
    return Status(201 if is_new else 200, show(row))


@router.post("/{id}/cancel", response=RequestOut)
def cancel_request(request: HttpRequest, id: UUID) -> RequestOut:
    """Take back a request that waits; 409 once it is ready: release the desktop instead."""
    return show(brokering.cancel_request(actor=caller(request).user, request_id=id))


@router.post("/{id}/approve", response=RequestOut)
def approve_request(request: HttpRequest, id: UUID, wish: DecisionIn) -> RequestOut:
    """409 if it does not wait for a decision any more. For the help desk and up, and the pool's owners."""
    return show(approvals.decide(actor=caller(request).user, request_id=id, yes=True, words=wish.words))


@router.post("/{id}/decline", response=RequestOut)
def decline_request(request: HttpRequest, id: UUID, wish: DecisionIn) -> RequestOut:
    """409 if it does not wait for a decision any more. For the help desk and up, and the pool's owners."""
    return show(approvals.decide(actor=caller(request).user, request_id=id, yes=False, words=wish.words))
