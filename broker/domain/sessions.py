"""A user's presence on a desktop: what state it is in, when a pool's timers end it, and of what is known that follows.
Pure: `now` comes in.

Nobody is taken for gone because nobody could tell: only streams that the relay carries say that somebody is there, and
only a guest that showed its user before, and since the last stream ended showed nobody twice, says that they left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    CONNECTED = "connected"
    """A stream is open, and somebody types or moves."""
    IDLE = "idle"
    """A stream is open; nothing was typed or moved for a while."""
    DISCONNECTED = "disconnected"
    """No stream is open; what runs in the guest goes on."""
    LOGGED_OFF = "logged_off"
    """Over."""


class Act(StrEnum):
    DISCONNECT = "disconnect"
    """Its streams are closed; what runs in the guest goes on."""
    LOG_OFF = "log_off"
    """What runs in the guest ends."""


class Why(StrEnum):
    IDLE = "idle"
    DISCONNECTED = "disconnected"
    LONGEST = "longest"
    LEFT = "left"
    """Its user logged off in the guest."""


class Step(StrEnum):
    WARN = "warn"
    ACT = "act"


IDLE_AFTER = timedelta(minutes=5)
"""Without a key or the mouse for so long, a session is called idle."""
WARNING = timedelta(minutes=5)
"""How long before a timer acts its user is told; in a short timer, when half of it is over."""
EMPTY_READINGS = 2
"""So many readings of a guest that show nobody, after the last stream, until its user is believed to have left."""
IDLE_LOOK = timedelta(seconds=10)
"""How often an idle session is looked at: somebody may be back."""


@dataclass(frozen=True, slots=True)
class Timers:
    """What a pool says. None: that never happens."""

    idle_min: int | None = None
    """A session without a key or the mouse for so long is disconnected."""
    disconnected_min: int | None = None
    """One that is disconnected for so long is logged off."""
    longest_min: int | None = None
    """One that has lasted so long is logged off, whatever is done in it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one session."""

    began_at: datetime
    is_open: bool
    """Whether a stream is open."""
    input_at: datetime
    """When a key or the mouse last moved, as far as a relay could see it; never before `began_at`."""
    closed_at: datetime | None = None
    """When the last stream ended; None while one is open."""
    had_user: bool = False
    """Whether its guest has shown a user since it began."""
    empties: int = 0
    """Readings in a row, begun after the last stream had ended, in which its guest showed nobody."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a guest said about who is logged on."""

    began_at: datetime
    has_user: bool | None
    """None: it could not be told. That is not "nobody"."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """What a timer will do, and when."""

    act: Act
    why: Why
    at: datetime
    warning: timedelta
    """How long before that its user is to be told; zero, not at all."""


def state_of(seen: Seen, now: datetime) -> State:
    """The one state of a session."""
    if seen.is_open:
        return State.IDLE if now - seen.input_at >= IDLE_AFTER else State.CONNECTED
    return State.LOGGED_OFF if has_left(seen) else State.DISCONNECTED


def has_left(seen: Seen) -> bool:
    """Whether two sources agree that nobody is there: no stream, and a guest that showed its user, and now nobody."""
    return not seen.is_open and seen.had_user and seen.empties >= EMPTY_READINGS


def after_reading(seen: Seen, reading: Reading) -> Seen:
    """What is known once a guest was asked. A reading that failed changes nothing; one that began before the last
    stream ended does not say that anybody left."""
    if reading.has_user is None:
        return seen
    if reading.has_user:
        return replace(seen, had_user=True, empties=0)
    if seen.closed_at is None or reading.began_at <= seen.closed_at:
        return seen
    return replace(seen, empties=seen.empties + 1)


def accounts_of(user: str, names: Iterable[str]) -> list[str]:
    """Those of the accounts that a guest named which are this person's: of the same name, whatever domain each bears.

    On a session host others are logged on too. Whoever signs in there under another name is never seen, and so never
    taken for gone.
    """
    return [name for name in names if _bare(name) == _bare(user)]


def _bare(account: str) -> str:
    """`alice` of `CORP\\alice` and of `alice@corp.example`."""
    return account.rpartition("\\")[2].partition("@")[0].casefold()


def after_stream(seen: Seen, *, is_open: bool, input_at: datetime | None, now: datetime) -> Seen:
    """What is known once it was looked whether streams are open. Whoever is back has not left."""
    newest = max(seen.input_at, input_at) if input_at else seen.input_at
    if is_open:
        return replace(seen, is_open=True, input_at=newest, closed_at=None, empties=0)
    return replace(seen, is_open=False, input_at=newest, closed_at=seen.closed_at or now)


def deadline(seen: Seen, timers: Timers) -> Deadline | None:
    """What happens next to this session by itself, if nothing else happens; None: nothing."""
    if has_left(seen):
        return Deadline(Act.LOG_OFF, Why.LEFT, seen.closed_at or seen.began_at, timedelta(0))
    found = []
    if timers.longest_min is not None:
        found.append(_after(Act.LOG_OFF, Why.LONGEST, seen.began_at, timers.longest_min))
    if seen.is_open and timers.idle_min is not None:
        found.append(_after(Act.DISCONNECT, Why.IDLE, seen.input_at, timers.idle_min))
    if not seen.is_open and timers.disconnected_min is not None:
        found.append(_after(Act.LOG_OFF, Why.DISCONNECTED, seen.closed_at or seen.began_at, timers.disconnected_min))
    return min(found, key=lambda one: (one.at, one.act is not Act.LOG_OFF), default=None)


def _after(act: Act, why: Why, since: datetime, minutes: int) -> Deadline:
    span = timedelta(minutes=minutes)
    return Deadline(act, why, since + span, min(WARNING, span / 2))


def acts_at(due: Deadline, warned_at: datetime | None) -> datetime | None:
    """When it is done; None while its user has not been told. Where nothing ran in time, the end waits for the
    warning."""
    if not due.warning:
        return due.at
    return max(due.at, warned_at + due.warning) if warned_at else None


def step(due: Deadline | None, warned_at: datetime | None, now: datetime) -> Step | None:
    """What is to be done now, if anything. `warned_at`: when its user was told of this very deadline."""
    if due is None:
        return None
    at = acts_at(due, warned_at)
    if at is None:
        return Step.WARN if now >= due.at - due.warning else None
    return Step.ACT if now >= at else None


def next_look(seen: Seen, due: Deadline | None, warned_at: datetime | None, now: datetime) -> datetime | None:
    """When there may be something to do or to say of it by itself; None: never.

    Keys and mouse are counted where the stream is: a session that is in use is looked at when it may have become idle,
    not with every key.
    """
    moments = []
    if due is not None:
        moments.append(acts_at(due, warned_at) or due.at - due.warning)
    if seen.is_open:
        moments.append(now + IDLE_LOOK if now - seen.input_at >= IDLE_AFTER else seen.input_at + IDLE_AFTER)
    return min(moments, default=None)
