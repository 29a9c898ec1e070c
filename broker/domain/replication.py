"""When a source is replicated next, how fast a mover may read, and whether the promise about its newest point holds.

A policy runs by interval or by cron. An interval has an offset, drawn once for each source: of five hundred policies of
five minutes not all begin in the same second. What was missed while nothing ran is caught up with once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadCron(ValueError):
    """The expression is none, or names no moment that ever comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often a source is replicated: `interval` or `cron`, never both."""

    interval: timedelta | None = None
    offset: timedelta = timedelta(0)
    """Of each interval; less than it."""
    cron: str = ""
    """Five fields, on the clock of `zone`."""
    zone: str = "UTC"


def next_run(timing: Timing, after: datetime) -> datetime:
    """The first moment after `after`, in UTC. What lies before it was missed and is not made up for.

    Raises `BadCron`.
    """
    if timing.interval is not None:
        since = after - EPOCH - timing.offset
        return EPOCH + timing.offset + timing.interval * (since // timing.interval + 1)
    try:
        found: datetime = next(CronSim(timing.cron, after.astimezone(ZoneInfo(timing.zone))))
    except (CronSimError, StopIteration) as error:
        words = f"{timing.cron!r} is no schedule: {error or 'it never comes'}. Write five fields, as in 30 2 * * 1-5."
        raise BadCron(words) from None
    return found.astimezone(UTC)


def offset_for(interval: timedelta, draw: int) -> timedelta:
    """A whole number of seconds within the interval, the same for the same draw."""
    return timedelta(seconds=draw % max(1, int(interval.total_seconds())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many bytes a second, always or in a daily window, which may go over midnight."""

    bytes_a_second: int
    begins: time | None = None
    ends: time | None = None
    zone: str = "UTC"


def speed_limit(limit: Limit | None, now: datetime) -> int | None:
    """Bytes a second that hold now; None if none do."""
    if limit is None:
        return None
    if limit.begins is None or limit.ends is None:
        return limit.bytes_a_second
    clock = now.astimezone(ZoneInfo(limit.zone)).time()
    if limit.begins <= limit.ends:
        holds = limit.begins <= clock < limit.ends
    else:
        holds = clock >= limit.begins or clock < limit.ends
    return limit.bytes_a_second if holds else None


@dataclass(frozen=True, slots=True)
class Lag:
    """How old a source's newest point is, against what was promised."""

    age: timedelta | None
    """None: there is no point yet."""
    broken_since: datetime | None
    """When the promise began to be broken; None while it holds."""

    @property
    def is_kept(self) -> bool:
        return self.broken_since is None


def lag(*, newest_at: datetime | None, began_at: datetime, rpo: timedelta, now: datetime) -> Lag:
    """Before there is a point the promise counts from `began_at`, when the source was added."""
    due = (newest_at or began_at) + rpo
    return Lag(age=now - newest_at if newest_at else None, broken_since=due if now > due else None)


def time_left_s(*, total: int | None, done: int, since: datetime | None, now: datetime) -> float | None:
    """At the rate so far; None while that says nothing."""
    if total is None or since is None or done <= 0:
        return None
    seconds = (now - since).total_seconds()
    return max(0.0, (total - done) * seconds / done) if seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a run is, how fast it goes and how long it will take; None: nothing can be said."""

    percent: int | None
    bytes_a_second: float | None
    """That it reads."""
    left_s: float | None


def pace(*, total: int | None, done: int, read: int, since: datetime | None, now: datetime) -> Pace:
    """`since`: when the attempt began that is at work."""
    seconds = (now - since).total_seconds() if since else 0.0
    return Pace(
        percent=min(100, 100 * done // total) if total else None,
        bytes_a_second=read / seconds if seconds > 0 and read else None,
        left_s=time_left_s(total=total, done=done, since=since, now=now),
    )
