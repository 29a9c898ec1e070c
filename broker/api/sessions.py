"""Sessions: who is on which desktop, and the end of that."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from broker.api.access import Right, caller, staff
from broker.api.operations import OperationOut, show_operation
from broker.api.pages import Page, Window, one, page_as_ordered
from broker.api.shapes import In, Out
from broker.domain.sessions import State
from broker.models import DesktopSession
from broker.selectors import sessions as selectors
from broker.services import presence

router = Router(tags=["sessions"])


class SessionOut(Out):
    id: UUID
    user: str
    """Name of the user."""
    desktop: UUID
    desktop_name: str
    pool: UUID
    state: str
    """connected, idle (nothing typed or moved for five minutes), disconnected (nobody looks; what runs there goes on),
    logged_off (over)"""
    state_since: datetime
    began_at: datetime
    input_at: datetime
    """When a key or the mouse last moved, as of the last look."""
    address: str | None
    """Whence it was last opened."""
    client: str
    """browser, native"""
    device: str
    """What the browser says it is; empty where that is not known."""
    logged_on: str
    """Who is logged on, as the guest last said; empty: nobody, or it cannot tell."""
    ended_at: datetime | None
    reason: str
    """Why it ended, in words."""


class SessionFilter(Window):
    state: State | None = None
    """None: all that are not over."""
    pool: UUID | None = None
    desktop: UUID | None = None


class NoticeIn(In):
    words: str


def show(row: Any) -> SessionOut:
    """A row of `selectors.sessions`."""
    return SessionOut(
        id=row.pk,
        user=row.user.get_username(),
        desktop=row.desktop_id,
        desktop_name=row.desktop.name,
        pool=row.desktop.pool_id,
        state=row.state,
        state_since=row.state_since,
        began_at=row.began_at,
        input_at=row.input_at,
        address=row.address,
        client=row.client,
        device=row.device,
        logged_on=row.guest_user,
        ended_at=row.ended_at,
        reason=row.end_reason,
    )


def _seen(request: HttpRequest) -> Any:
    found = caller(request)
    return selectors.sessions() if found.sees_all else selectors.sessions().filter(user=found.user)


def _shown(request: HttpRequest, session_id: UUID) -> SessionOut:
    row: DesktopSession = one(_seen(request), session_id, "session")
    return show(row)


@router.get("", response=Page[SessionOut])
def list_sessions(request: HttpRequest, wanted: Query[SessionFilter]) -> Page[SessionOut]:
    """One's own; whoever has a role sees everybody's. Newest first."""
    rows = selectors.in_state(_seen(request), wanted.state or selectors.OPEN)
    if wanted.pool:
        rows = rows.filter(desktop__pool=wanted.pool)
    if wanted.desktop:
        rows = rows.filter(desktop=wanted.desktop)
    return page_as_ordered(rows, wanted, show)


@router.get("/{id}", response=SessionOut)
def get_session(request: HttpRequest, id: UUID) -> SessionOut:
    return _shown(request, id)


@router.post("/{id}/disconnect", response=SessionOut)
def disconnect_session(request: HttpRequest, id: UUID) -> SessionOut:
    """Close what is open of it; what runs on the desktop goes on. 409 if nobody is connected, or it is over."""
    presence.disconnect(actor=caller(request).user, session_id=id)
    return _shown(request, id)


@router.post("/{id}/log-off", response={200: SessionOut, 202: OperationOut})
def log_off_session(request: HttpRequest, id: UUID) -> Any:
    """End it with what runs there: a floating desktop is released and gets a fresh disk, a dedicated one is restarted.

    202 with the order; 200 with the session if none was needed, or another one must end first. 409 if it is over.
    """
    operation = presence.log_off(actor=caller(request).user, session_id=id)
    return Status(202, show_operation(request, operation)) if operation else Status(200, _shown(request, id))


@router.post("/{id}/notice", response={204: None})
def tell_session(request: HttpRequest, id: UUID, wish: NoticeIn) -> Status[None]:
    """Tell its user something: in the portal, and on the screen while it is open."""
    presence.send_notice(actor=staff(request, Right.SERVE), session_id=id, words=wish.words)
    return Status(204, None)
