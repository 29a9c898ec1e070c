"""Where people have their desktops open, and how that is ended: by themselves, by an administrator, or by a timer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain import devices
from broker.domain.notices import Kind
from broker.models import Assignment, DesktopSession, Device, Operation, ScreenSession
from broker.services import audit, brokering, notices, nudges, operations, power, screens, sessions
from broker.services.errors import Clash, Missing
from broker.services.intake import Intake
from broker.services.permissions import Right, has, require

ENDED = "It was ended from another device."
ENDED_BY_STAFF = "An administrator disconnected it."
LOGGED_OFF = "The session was logged off."
WORDS_LENGTH = 500


def note_device(*, user: User, session_key: str, user_agent: str) -> None:
    """Remember what this browser session is, for the list of open screens. Idempotent."""
    if not session_key:
        return
    values = {"user": user, "words": devices.in_words(user_agent), "seen_at": timezone.now()}
    Device.objects.update_or_create(session_key=screens.digest(session_key), defaults=values)


def end_screen(*, user: User, session_id: UUID) -> bool:
    """End a screen of one's own, wherever it is open; the desktop keeps running. False if it has ended already.

    Raises `Missing` for one that is not theirs. The relay that carries it sees the row, at once or within 30 s.
    """
    stream = ScreenSession.objects.select_related("desktop").filter(pk=session_id, user=user).first()
    if stream is None:
        raise Missing("There is no such screen.")
    with transaction.atomic():
        sessions.lock(stream.desktop_id, user.pk)
        ended = ScreenSession.objects.filter(pk=session_id, ended_at=None).update(
            ended_at=timezone.now(), end_reason=ENDED
        )
        if ended:
            screens.void_tickets(ScreenSession.objects.filter(pk=session_id))
            sessions.left(stream.desktop_id, user.pk)
            words = f"The screen of {user} was closed: {ENDED}"
            operations.event("screen.closed", words, desktop=stream.desktop).save(force_insert=True)
            screens.recheck(desktop=stream.desktop_id, user=user.pk)
            nudges.announce("desktops", user=str(user.pk), desktop=str(stream.desktop_id))
    return bool(ended)


# --- sessions --------------------------------------------------------------------------------------------------------


def disconnect(*, actor: User, session_id: UUID) -> DesktopSession:
    """Close all streams of a session; what runs in the guest goes on, and its user may come back.

    For whoever may serve users, and for its user. Raises `Missing`, and `Clash` if it is over or nobody is connected.
    """
    with transaction.atomic():
        session = _locked(actor, session_id)
        reason = ENDED if actor.pk == session.user_id else ENDED_BY_STAFF
        if not close_streams(session, timezone.now(), reason):
            raise Clash(f"Nobody is connected to {session.desktop} any more.")
        audit.record(actor=actor, action="session.disconnect", subject=session)
    return session


def log_off(*, actor: User, session_id: UUID) -> Operation | None:
    """End a session with what runs in it: a floating desktop is released and gets a fresh disk, a dedicated one is
    restarted, its disk stays. On a session host its user's seat is given back. Returns the order, if there is one now.

    For whoever may serve users, and for its user. Raises `Missing`, and `Clash` if it is over or the desktop is busy.
    """
    with transaction.atomic():
        session = _locked(actor, session_id)
        if session.desktop.pool.is_dedicated:
            operation = _restart(session, actor)
        else:
            operation = brokering.release_desktop(actor=actor, desktop_id=session.desktop_id, user_id=session.user_id)
        audit.record(actor=actor, action="session.log_off", subject=session)
    return operation


def send_notice(*, actor: User, session_id: UUID, words: str) -> None:
    """Tell a session's user something: in the portal, and on the screen while it is open.

    For whoever may serve users. Raises `Forbidden`, `Missing`, `Invalid`, and `Clash` if it is over.
    """
    require(actor, Right.SERVE)
    intake = Intake()
    words = intake.text("words", words, length=WORDS_LENGTH)
    if not words:
        intake.faults.setdefault("words", "Say what you want to tell.")
    intake.refuse_faults("Nothing was sent.")
    with transaction.atomic():
        session = _locked(actor, session_id)
        now, pool = timezone.now(), session.desktop.pool
        facts = {"pool": pool.name, "desktop": session.desktop.name, "words": words}
        notices.tell([session.user_id], Kind.SESSION_MESSAGE, now=now, pool_id=pool.pk, desktop_id=session.desktop_id,
                     facts=facts)  # fmt: skip
        audit.record(actor=actor, action="session.notice", subject=session, changes={"words": [None, words]})


def _locked(actor: User, session_id: UUID) -> DesktopSession:
    """The session as it is now, locked with its desktop. Raises `Missing`, and `Clash` if it is over."""
    found = DesktopSession.objects.filter(pk=session_id)
    if not has(actor, Right.SERVE):
        found = found.filter(user=actor)
    where = found.values_list("desktop", "user").first()
    if where is None:
        raise Missing("There is no such session.")
    _desktop, session = sessions.lock(*where)
    if session is None or session.pk != session_id:
        raise Clash("This session is over.")
    return session


def close_streams(session: DesktopSession, now: datetime, reason: str) -> int:
    """Close what is open of a session that is locked with its desktop; returns how many streams that were."""
    streams = ScreenSession.objects.filter(
        desktop=session.desktop_id, user=session.user_id, epoch=session.epoch, ended_at=None
    )
    screens.void_tickets(streams)
    closed = streams.update(ended_at=now, end_reason=reason[:100])
    if closed:
        sessions.note(session, "session.disconnected", f"{session.user} was disconnected: {reason}")
        sessions.left(session.desktop_id, session.user_id)
        screens.recheck(desktop=session.desktop_id, user=session.user_id)
        nudges.announce("desktops", user=str(session.user_id), desktop=str(session.desktop_id))
    return closed


def take_back(session: DesktopSession, now: datetime, reason: str) -> None:
    """End a session and all that runs in it, as the broker's own deed, with session and desktop locked.

    Raises `Clash` if that cannot be just now; nothing was changed then.
    """
    if session.desktop.pool.is_dedicated:
        _restart(session, None, reason)
        return
    assignment = (
        Assignment.objects.select_related("desktop__pool", "pool", "user")
        .filter(desktop=session.desktop_id, user=session.user_id, until=None)
        .first()
    )
    if assignment is None:
        raise Clash(f"{session.desktop} is nobody's any more.")
    brokering.reclaim_left(assignment, reason)


def _restart(session: DesktopSession, actor: User | None, reason: str = LOGGED_OFF) -> Operation | None:
    """Log off on a desktop that stays its user's: its guest is asked to restart, which ends all that runs there."""
    now, desktop = timezone.now(), session.desktop
    operation = power.restart(desktop, actor=actor, reason=reason) if desktop.power == "on" else None
    close_streams(session, now, reason)
    sessions.over(session.desktop_id, now, reason)
    sessions.note(session, "session.ended", f"The session of {session.user} ended: {reason}")
    nudges.announce("sessions", user=str(session.user_id), desktop=str(session.desktop_id))
    return operation
