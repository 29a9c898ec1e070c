"""What the caller has been told."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import person
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Notice
from broker.selectors import notices as selectors
from broker.services import notices as services

router = Router(tags=["notices"])


class NoticeOut(Out):
    id: UUID
    kind: str
    """request_asked, request_approved, request_declined, desktop_ready, lease_soon, lease_ended, desktop_reclaimed,
    lease_overdue, session_idle, session_disconnected, session_disconnected_kept, session_longest, session_longest_kept,
    session_message"""
    title: str
    sentences: list[str]
    words: str
    """What somebody wrote to it."""
    pool: UUID | None
    request: UUID | None
    desktop: UUID | None
    created_at: datetime
    read_at: datetime | None
    """Null while it is new."""


class NoticeFilter(Window):
    unread: bool = False


class ReadOut(Out):
    changed: int
    """How many were new."""


class PreferencesOut(Out):
    address: str
    """Where mail goes; empty: nowhere."""
    wants_mail: bool
    opens_single: bool
    """Whether the portal opens a single desktop by itself."""
    opens_natively: bool
    """Whether the portal's main button opens a desktop in a program of one's own, where its pool lets that."""


class PreferencesChange(In):
    address: str | None = None
    wants_mail: bool | None = None
    opens_single: bool | None = None
    opens_natively: bool | None = None


def show(row: Notice) -> NoticeOut:
    told = selectors.told(row)
    return NoticeOut(
        id=row.pk,
        kind=row.kind,
        title=told.title,
        sentences=told.sentences,
        words=told.words,
        pool=row.pool_id,
        request=row.request_id,
        desktop=row.desktop_id,
        created_at=row.created_at,
        read_at=row.read_at,
    )


@router.get("", response=Page[NoticeOut])
def list_notices(request: HttpRequest, wanted: Query[NoticeFilter]) -> Page[NoticeOut]:
    """One's own, for administrators too."""
    rows = selectors.notices_of(person(request).user)
    return page(rows.filter(read_at=None) if wanted.unread else rows, wanted, show)


@router.post("/read", response=ReadOut)
def read_all(request: HttpRequest) -> ReadOut:
    """Mark all as read."""
    return ReadOut(changed=services.mark_read(user=person(request).user))


@router.get("/preferences", response=PreferencesOut)
def get_preferences(request: HttpRequest) -> PreferencesOut:
    user = person(request).user
    head = selectors.head_of(user)
    return PreferencesOut(
        address=user.email,
        wants_mail=head.wants_mail,
        opens_single=head.opens_single,
        opens_natively=head.opens_natively,
    )


@router.patch("/preferences", response=PreferencesOut)
def set_preferences(request: HttpRequest, wish: PreferencesChange) -> PreferencesOut:
    """What is not named stays as it is."""
    user = person(request).user
    services.set_preferences(user=user, **wish.model_dump(exclude_unset=True))
    user.refresh_from_db(fields=["email"])
    return get_preferences(request)


@router.get("/{id}", response=NoticeOut)
def get_notice(request: HttpRequest, id: UUID) -> NoticeOut:
    return show(one(selectors.notices_of(person(request).user), id, "notice"))


@router.post("/{id}/read", response=NoticeOut)
def read(request: HttpRequest, id: UUID) -> NoticeOut:
    """Mark it as read. Idempotent."""
    user = person(request).user
    services.mark_read(user=user, notice_id=id)
    return show(one(selectors.notices_of(user), id, "notice"))
