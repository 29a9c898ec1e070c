"""How many desktops a pool keeps free: so many, or a share of those in use, and other numbers in its peak hours. Pure:
`now` comes in.

Peak hours are a time of day on some weekdays, on the clock of a zone: seven in the morning stays that when the clocks
change. Hours that end when or before they begin end on the next day; a night belongs to the day on which it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from broker.domain import schedules

PERCENT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What a pool keeps."""

    minimum: int
    spare: int
    """Free ones beyond those in use; with a share, at least so many."""
    spare_percent: int | None = None
    """Free ones for a hundred in use; None: the number alone."""


@dataclass(frozen=True, slots=True)
class Peak:
    """When other numbers hold, and which."""

    begins: time
    ends: time
    weekdays: str
    """At least one, as a schedule has them."""
    zone: str
    target: Target


@dataclass(frozen=True, slots=True)
class Holding:
    """The numbers that hold now."""

    target: Target
    is_peak: bool = False
    until: datetime | None = None
    """When the others begin to hold; None: never."""


def spare_of(spare: int, percent: int | None, in_use: int) -> int:
    """How many shall be free: the share of those in use, rounded up, and never fewer than the number."""
    return spare if percent is None else max(spare, -(-in_use * percent // 100))


def holding(usual: Target, peak: Peak | None, now: datetime) -> Holding:
    """Which numbers hold now, and until when."""
    if peak is None:
        return Holding(usual)
    ends = _end_of_peak(peak, now)
    if ends is None:
        begin = schedules.Rule(at=peak.begins, weekdays=peak.weekdays, zone=peak.zone)
        return Holding(usual, until=schedules.next_run(begin, now))
    return Holding(peak.target, is_peak=True, until=ends)


def _end_of_peak(peak: Peak, now: datetime) -> datetime | None:
    """When the peak hours that hold now are over, with those that follow without a gap; None: none hold."""
    day = now.astimezone(ZoneInfo(peak.zone)).date() - timedelta(days=1)
    found = None
    for _ in range(9):
        begins, ends = _hours(peak, day)
        is_on = str(day.isoweekday()) in peak.weekdays
        if is_on and begins <= (found or now) < ends:
            found = ends
        day += timedelta(days=1)
    return found


def _hours(peak: Peak, day: date) -> tuple[datetime, datetime]:
    zone = ZoneInfo(peak.zone)
    last = day if peak.ends > peak.begins else day + timedelta(days=1)
    begins, ends = datetime.combine(day, peak.begins, zone), datetime.combine(last, peak.ends, zone)
    return begins.astimezone(UTC), ends.astimezone(UTC)
