"""Sessions: who is on which desktop, how, and since when."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db.models import CharField, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from broker.domain.sessions import Deadline, State, Why, deadline
from broker.models import DesktopSession, Device, ScreenSession

OPEN = "open"
"""The filter's word for all that are not over."""


def sessions() -> QuerySet[DesktopSession]:
    """All, newest first, with `device`: what its newest stream's browser says it is; empty where that is not known."""
    newest = ScreenSession.objects.filter(
        desktop=OuterRef("desktop"), user=OuterRef("user"), epoch=OuterRef("epoch")
    ).order_by("-started_at")
    device = Device.objects.filter(session_key=OuterRef("browser"))
    return (
        DesktopSession.objects.select_related("user", "desktop__pool")
        .annotate(browser=Subquery(newest.values("session_key")[:1]))
        .annotate(device=Coalesce(Subquery(device.values("words")[:1]), Value(""), output_field=CharField()))
    )


@dataclass(frozen=True, slots=True)
class OwnSession:
    """One of a person's own that goes on."""

    session: DesktopSession
    ends: Deadline | None
    """What its pool's timers do next; None: nothing, or who knows when, since it is in use."""

    @property
    def has_seat(self) -> bool:
        """Whether others are on the desktop too."""
        return self.session.desktop.pool.is_shared

    @property
    def is_floating(self) -> bool:
        return not self.session.desktop.pool.is_dedicated


def sessions_of(user: User) -> list[OwnSession]:
    """A person's own that go on, the newest first; one statement."""
    rows = sessions().filter(user=user, ended_at=None)
    return [OwnSession(row, _ends(row)) for row in rows]


def _ends(session: DesktopSession) -> Deadline | None:
    """While it is in use every key puts its idle timer off."""
    found = deadline(session.seen, session.desktop.pool.timers)
    return None if found and found.why is Why.IDLE and session.state == State.CONNECTED else found


def in_state(rows: QuerySet[DesktopSession], state: str) -> QuerySet[DesktopSession]:
    """Those in a state; `OPEN` for all that are not over, any other word for all."""
    if state == OPEN:
        return rows.filter(ended_at=None)
    return rows.filter(state=state) if state in list(State) else rows


def named(rows: QuerySet[DesktopSession], text: str) -> QuerySet[DesktopSession]:
    """Those whose user, desktop or address bears the text."""
    bears = Q(user__username__icontains=text) | Q(desktop__name__icontains=text) | Q(address__startswith=text)
    return rows.filter(bears) if text else rows
