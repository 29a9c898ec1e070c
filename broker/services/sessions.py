"""Sessions as rows: begun and left with streams, told of by guests, ended with the desktop's epoch.

Every write locks the desktop first and then the session, so that a stream that opens, one that ends, a timer and a
person who meet do one after the other. What timers do is in `services/session_timers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Min, Q, QuerySet
from django.utils import timezone

from broker.domain import sessions as rules
from broker.domain.sessions import Deadline, Reading, State
from broker.models import Assignment, Desktop, DesktopSession, ScreenSession, Ticket
from broker.services import nudges, operations
from broker.services.setwise import update_each
from connectors.presence import GuestUsers

CHANGING = (
    "state", "state_since", "input_at", "closed_at", "empties", "had_user", "guest_user", "guest_at", "asked_at",
    "next_at", "ended_at", "end_reason",
)  # fmt: skip
"""What a look at a session may write."""
ASK_EVERY = timedelta(seconds=20)
"""How often a guest is asked who is there."""
ASKED_AT_ONCE = 50
"""Guests of one hypervisor that one reading asks: those first that were not asked for the longest."""
RELEASED = "The desktop was released."
NAME_LENGTH = 200


def lock(desktop_id: UUID, user_id: int) -> tuple[Desktop, DesktopSession | None]:
    """The desktop, and the session of this user that goes on there, both locked, in the order in which everybody locks
    them.

    Call inside a transaction.
    """
    desktop = Desktop.objects.select_for_update(no_key=True, of=("self",)).get(pk=desktop_id)
    rows = DesktopSession.objects.select_for_update(of=("self",))
    return desktop, rows.filter(desktop=desktop_id, user=user_id, ended_at=None).first()


def entered(stream: ScreenSession) -> None:
    """A stream opened: its user's session begins or goes on. In the stream's transaction; its row stands already.

    A stream of another epoch opens nothing, nor does one whose user gave the seat back: it is about to be closed.
    """
    desktop, session = lock(stream.desktop_id, stream.user_id)
    held = Assignment.objects.filter(desktop=desktop, user=stream.user_id, until=None)
    if desktop.epoch != stream.epoch or not held.exists():
        return
    now = stream.started_at
    if session is not None and session.epoch != stream.epoch:
        _end(session, now, RELEASED)
        session.save(update_fields=CHANGING)
        session = None
    if session is None:
        session = DesktopSession(desktop=desktop, user_id=stream.user_id, epoch=stream.epoch, began_at=now,
                                 state=State.CONNECTED, state_since=now, input_at=now)  # fmt: skip
    session.address, session.client = stream.address, stream.client
    look_at(session, [stream], now)
    session.save()


def left(desktop_id: UUID, user_id: int) -> None:
    """A stream of this user has ended: their session is looked at anew. In a transaction that holds `lock`, or outside
    of one."""
    with transaction.atomic():
        _desktop, session = lock(desktop_id, user_id)
        if session is None:
            return
        mine = ScreenSession.objects.filter(desktop=desktop_id, user=user_id, epoch=session.epoch)
        # The one that ended may have seen the last key.
        last = mine.aggregate(last=Max("input_at"))["last"]
        session.input_at = max(session.input_at, last) if last else session.input_at
        look_at(session, list(mine.filter(ended_at=None)), timezone.now())
        session.save(update_fields=CHANGING)


def over(desktop_id: UUID, now: datetime, reason: str) -> None:
    """The desktop was released: whatever session was there is over. In the transaction that holds its desktop."""
    _over(DesktopSession.objects.filter(desktop=desktop_id), now, reason)


def vacate(desktop_id: UUID, user_id: int, now: datetime, reason: str) -> None:
    """This user's seat there was given back: their session is over, their streams are closed, and no ticket of theirs
    opens another. The epoch stays, since others go on. In the transaction that holds the desktop."""
    mine = {"desktop": desktop_id, "user": user_id}
    _over(DesktopSession.objects.filter(**mine), now, reason)
    Ticket.objects.filter(**mine, expires_at__gt=now).update(expires_at=now)
    ScreenSession.objects.filter(**mine, ended_at=None).update(ended_at=now, end_reason=RELEASED)


def _over(sessions: QuerySet[DesktopSession], now: datetime, reason: str) -> None:
    sessions.filter(ended_at=None).update(
        state=State.LOGGED_OFF, state_since=now, ended_at=now, end_reason=reason[:100], next_at=None
    )


def look(sessions: Sequence[DesktopSession], now: datetime) -> list[DesktopSession]:
    """Bring locked sessions up to date with their streams; returns those that have a step to take now.

    Two statements, however many they are. Needs `desktop__pool` selected.
    """
    streams = _streams(sessions)
    due = [session for session in sessions if look_at(session, streams[session.pk], now)]
    update_each(list(sessions), CHANGING)
    return due


def look_at(session: DesktopSession, streams: Sequence[ScreenSession], now: datetime) -> rules.Step | None:
    """Write onto the row what follows from its open streams, and when it is looked at next; returns what is to be done
    now. Saves nothing.

    Needs `desktop__pool`.
    """
    desktop = session.desktop
    if desktop.epoch != session.epoch:
        _end(session, now, RELEASED)
        return None
    told = [stream.input_at or stream.started_at for stream in streams]
    seen = rules.after_stream(session.seen, is_open=bool(streams), input_at=max(told, default=None), now=now)
    session.input_at, session.closed_at, session.empties = seen.input_at, seen.closed_at, seen.empties
    state = rules.state_of(seen, now)
    if state != session.state:
        session.state, session.state_since = state, now
        nudges.announce("sessions", user=str(session.user_id), desktop=str(session.desktop_id))
    due = deadline_of(session)
    if rules.has_left(seen) and desktop.pool.is_dedicated:
        # Nothing is to be done about a desktop that stays its user's.
        _end(session, now, "The user logged off.")
        return None
    warned_at = warned_of(session, due)
    session.next_at = rules.next_look(seen, due, warned_at, now)
    return rules.step(due, warned_at, now)


def deadline_of(session: DesktopSession) -> Deadline | None:
    """What its pool's timers do next, as things stand. Needs `desktop__pool`."""
    return rules.deadline(session.seen, session.desktop.pool.timers)


def warned_of(session: DesktopSession, due: Deadline | None) -> datetime | None:
    """When its user was told of this very end."""
    return session.warned_at if due and session.warned_for == due.at else None


def _end(session: DesktopSession, now: datetime, reason: str) -> None:
    session.state, session.state_since, session.next_at = State.LOGGED_OFF, now, None
    session.ended_at, session.end_reason = now, reason
    nudges.announce("sessions", user=str(session.user_id), desktop=str(session.desktop_id))


def _streams(sessions: Iterable[DesktopSession]) -> Mapping[UUID, list[ScreenSession]]:
    """By session: the streams that are open. One statement."""
    wanted = {(one.desktop_id, one.epoch, one.user_id): one.pk for one in sessions}
    found: dict[UUID, list[ScreenSession]] = defaultdict(list)
    for stream in ScreenSession.objects.filter(ended_at=None, desktop__in={key[0] for key in wanted}):
        if key := wanted.get((stream.desktop_id, stream.epoch, stream.user_id)):
            found[key].append(stream)
    return found


def timers_changed(pool_id: UUID) -> None:
    """Every session of the pool is looked at anew. Inside the change's transaction."""
    DesktopSession.objects.filter(desktop__pool=pool_id, ended_at=None).update(next_at=timezone.now())


def end_lost() -> None:
    """Housekeeping: streams whose relay is gone have ended; sessions that lost theirs are looked at anew."""
    streams = ScreenSession.objects.filter(ended_at=None).values("desktop")
    deserted = DesktopSession.objects.filter(ended_at=None, closed_at=None).exclude(desktop__in=streams)
    with transaction.atomic():
        found = list(deserted.select_for_update(skip_locked=True).values_list("pk", flat=True))
        DesktopSession.objects.filter(pk__in=found).update(next_at=timezone.now())


# --- what guests say -------------------------------------------------------------------------------------------------


def to_ask(hypervisor_id: UUID, now: datetime) -> dict[str, list[UUID]]:
    """Machine -> sessions there: the guests of a hypervisor that are to be asked who is logged on. Only those on which
    somebody has a session: what this costs follows sessions, not machines."""
    is_time = Q(asked_at=None) | Q(asked_at__lte=now - ASK_EVERY)
    going_on = DesktopSession.objects.filter(ended_at=None, desktop__hypervisor=hypervisor_id, desktop__power="on")
    going_on = going_on.exclude(desktop__machine_id="").order_by()
    due = going_on.filter(is_time).values("desktop__machine_id").annotate(longest=Min("asked_at"))
    machines = [row["desktop__machine_id"] for row in due.order_by("longest")[:ASKED_AT_ONCE]]
    if not machines:
        return {}
    found: dict[str, list[UUID]] = defaultdict(list)
    for pk, machine in going_on.filter(desktop__machine_id__in=machines).values_list("pk", "desktop__machine_id"):
        found[machine].append(pk)
    return dict(found)


def told(asked: Mapping[str, Sequence[UUID]], answers: Iterable[GuestUsers], now: datetime) -> None:
    """Write down what guests said. One that could not tell, or did not answer, says nothing of who is there.

    Sessions that somebody else is at are passed over: to wait for several could deadlock, and they are asked again.
    """
    said = {pk: one for one in answers for pk in asked.get(one.machine, ())}
    with transaction.atomic():
        rows = (
            DesktopSession.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("desktop__pool", "user")
            .filter(pk__in=[pk for sessions in asked.values() for pk in sessions], ended_at=None)
        )
        sessions = list(rows)
        for session in sessions:
            session.asked_at = now
            if (answer := said.get(session.pk)) and answer.names is not None:
                _hear(session, answer, answer.names)
        look(sessions, now)


def _hear(session: DesktopSession, answer: GuestUsers, names: Sequence[str]) -> None:
    if session.desktop.pool.is_shared:
        # Others are logged on there too: only this user's own account says something of this session.
        names = rules.accounts_of(session.user.get_username(), names)
    seen = rules.after_reading(session.seen, Reading(answer.began_at, has_user=bool(names)))
    session.had_user, session.empties, session.guest_at = seen.had_user, seen.empties, answer.began_at
    guest_user = ", ".join(names)[:NAME_LENGTH]
    if guest_user != session.guest_user:
        session.guest_user = guest_user
        nudges.announce("sessions", user=str(session.user_id), desktop=str(session.desktop_id))


def note(session: DesktopSession, kind: str, words: str) -> None:
    """An event in the desktop's history."""
    operations.event(kind, words, desktop=session.desktop).save(force_insert=True)
