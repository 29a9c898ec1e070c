"""Requests: a person's wish for a desktop, from asking to the end of use."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from broker.api.access import caller, person
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Request
from broker.selectors import requests as selectors
from broker.services import brokering

router = Router(tags=["requests"])


class RequestOut(Out):
    id: UUID
    pool: UUID
    user: str
    """Name of the user."""
    state: str
    """waiting (for approval), approved (waits for a desktop), building, ready, refused, failed, cancelled, ended"""
    reason: str
    """In words: why it waits, was refused, failed or ended."""
    desktop: UUID | None
    """Null until there is one."""
    created_at: datetime
    served_at: datetime | None
    ended_at: datetime | None


class RequestIn(In):
    pool: UUID


class RequestFilter(Window):
    state: Request.State | None = None
    pool: UUID | None = None


def show(row: Request) -> RequestOut:
    return RequestOut(
        id=row.pk,
        pool=row.pool_id,
        user=row.user.get_username(),
        state=row.state,
        reason=row.reason,
        desktop=row.desktop_id,
        created_at=row.created_at,
        served_at=row.served_at,
        ended_at=row.ended_at,
    )


def _seen(request: HttpRequest) -> Any:
    found = caller(request)
    return selectors.requests() if found.is_administrator else selectors.requests_of(found.user)


@router.get("", response=Page[RequestOut])
def list_requests(request: HttpRequest, wanted: Query[RequestFilter]) -> Page[RequestOut]:
    """One's own; administrators see everybody's."""
    rows = _seen(request)
    if wanted.state:
        rows = rows.filter(state=wanted.state)
    if wanted.pool:
        rows = rows.filter(pool=wanted.pool)
    return page(rows, wanted, show)


@router.get("/{id}", response=RequestOut)
def get_request(request: HttpRequest, id: UUID) -> RequestOut:
    return show(one(_seen(request), id, "request"))


@router.post("", response={200: RequestOut, 201: RequestOut})
def request_desktop(request: HttpRequest, wish: RequestIn) -> Status[RequestOut]:
    """Ask for a desktop of a pool. 201 with the new request; asking again gives 200 with the open one."""
    row, is_new = brokering.request_desktop(user=person(request).user, pool_id=wish.pool)
    return Status(201 if is_new else 200, show(row))


@router.post("/{id}/cancel", response=RequestOut)
def cancel_request(request: HttpRequest, id: UUID) -> RequestOut:
    """Take back a request that waits; 409 once it is ready: release the desktop instead."""
    return show(brokering.cancel_request(actor=caller(request).user, request_id=id))
