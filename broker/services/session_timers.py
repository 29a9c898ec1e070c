"""Ends sessions by the clock: those that a pool's timers say, and floating desktops whose users have logged off.

What is due stands in rows (`DesktopSession.next_at`), so any number of clocks and workers may run, and a worker that
dies leaves it due. Each step is decided again under the locks of desktop and session, with the streams that are open
then: whoever came back in between is left alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from broker.domain import sessions as rules
from broker.domain.notices import Kind
from broker.domain.sessions import Act, Deadline, Step, Why
from broker.models import DesktopSession, Pool, ScreenSession
from broker.services import notices, nudges, presence, screens, sessions
from broker.services.errors import Clash

log = structlog.get_logger()

AT_ONCE = 500
"""Sessions that one look takes; the next look comes within a second."""
LATER = timedelta(minutes=1)
"""When a session that cannot be ended now is looked at again."""
REASONS = {
    Why.IDLE: screens.LEFT_ALONE,
    Why.DISCONNECTED: "Nobody came back to it in time.",
    Why.LONGEST: "It lasted as long as its pool lets sessions last.",
    Why.LEFT: "Its user logged off.",
}


def due() -> bool:
    """Whether any session is to be looked at. One look-up in a small index, whatever the estate."""
    return DesktopSession.objects.filter(ended_at=None, next_at__lte=timezone.now()).exists()


def look() -> int:
    """Look at every session that is due and take the steps that are; returns how many were looked at.

    Those that somebody else looks at are passed over.
    """
    nudges.taken(nudges.SESSIONS, "due")
    now = timezone.now()
    with transaction.atomic():
        rows = (
            DesktopSession.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("desktop__pool")
            .filter(ended_at=None, next_at__lte=now)
            .order_by("next_at")
        )
        found = list(rows[:AT_ONCE])
        to_do = sessions.look(found, now)
    for session in to_do:
        run(session.pk)
    return len(found)


def run(session_id: UUID) -> Step | None:
    """Take the step that is due for a session, if one still is; returns which was taken."""
    where = DesktopSession.objects.filter(pk=session_id).values_list("desktop", "user").first()
    if where is None:
        return None
    try:
        with transaction.atomic():
            _desktop, session = sessions.lock(*where)
            if session is None or session.pk != session_id:
                return None
            return _step(session, timezone.now())
    except Clash as clash:
        # It is being moved, or another change is under way.
        log.info("session.not_ended", session=str(session_id), reason=clash.message)
        DesktopSession.objects.filter(pk=session_id, ended_at=None).update(next_at=timezone.now() + LATER)
        return None


def _step(session: DesktopSession, now: datetime) -> Step | None:
    streams = list(
        ScreenSession.objects.filter(
            desktop=session.desktop_id, user=session.user_id, epoch=session.epoch, ended_at=None
        )
    )
    step = sessions.look_at(session, streams, now)
    session.save(update_fields=sessions.CHANGING)
    coming = sessions.deadline_of(session)
    if step is None or coming is None:
        return None
    if step is Step.WARN:
        _warn(session, coming, now)
    else:
        _act(session, coming, now)
    return step


def _warn(session: DesktopSession, coming: Deadline, now: datetime) -> None:
    session.warned_for, session.warned_at = coming.at, now
    session.next_at = rules.next_look(session.seen, coming, now, now)
    session.save(update_fields=["warned_for", "warned_at", "next_at"])
    pool = session.desktop.pool
    at = rules.acts_at(coming, now) or coming.at
    facts = {"pool": pool.name, "desktop": session.desktop.name, "at": notices.moment(at)}
    notices.tell(
        [session.user_id], _kind(coming, pool), now=now, pool_id=pool.pk, desktop_id=session.desktop_id, facts=facts,
        # Who sits before the screen reads it there.
        has_mail=session.closed_at is not None,
    )  # fmt: skip


def _kind(coming: Deadline, pool: Pool) -> Kind:
    if coming.act is Act.DISCONNECT:
        return Kind.SESSION_IDLE
    if coming.why is Why.LONGEST:
        return Kind.SESSION_LONGEST_KEPT if pool.is_dedicated else Kind.SESSION_LONGEST
    return Kind.SESSION_DISCONNECTED_KEPT if pool.is_dedicated else Kind.SESSION_DISCONNECTED


def _act(session: DesktopSession, coming: Deadline, now: datetime) -> None:
    reason = REASONS[coming.why]
    log.info("session.ended_by_timer", desktop=session.desktop.name, act=coming.act.value, why=coming.why.value)
    if coming.act is Act.DISCONNECT:
        presence.close_streams(session, now, reason)
    else:
        presence.take_back(session, now, reason)
