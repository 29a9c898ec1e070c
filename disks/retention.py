"""Which recovery points are kept: pure, `now` comes in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo


@dataclass(frozen=True, slots=True)
class Dated:
    """A recovery point as retention sees it."""

    id: str
    read_at: datetime
    """When its reading began. With a time zone."""
    is_good: bool = True
    """False if a verification found it damaged."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How many are kept of each kind. A point may count for several; 0 keeps none for that reason."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def kept(points: Iterable[Dated], rule: Rule, now: datetime, zone: tzinfo) -> set[str]:
    """The ids of those to keep; the rest may be deleted.

    The `last` newest, and the newest of each of the `hourly` latest hours, days, weeks (from Monday) and months of the
    zone in which there are points: a pause of the copies deletes nothing. Where there is a good point, damaged ones
    stand for no period and are not among the last. Always kept: the newest good point (the newest, if none is good)
    and points from after `now`, which a clock that was wrong has dated: they stand for nothing and push nothing out.
    """
    listed = sorted(points, key=lambda point: (point.read_at, point.id), reverse=True)
    keep = {point.id for point in listed if point.read_at > now}
    past = [point for point in listed if point.read_at <= now]
    trusted = [point for point in past if point.is_good] or past
    keep.update(point.id for point in trusted[: max(rule.last, 1)])
    for period, number in (
        (_hour, rule.hourly),
        (_day, rule.daily),
        (_week, rule.weekly),
        (_month, rule.monthly),
    ):
        keep.update(_newest_of_each(trusted, period, zone, number))
    return keep


def _newest_of_each(
    newest_first: list[Dated], period: Callable[[datetime], Hashable], zone: tzinfo, number: int
) -> set[str]:
    found: dict[Hashable, str] = {}
    for point in newest_first:
        when = period(point.read_at.astimezone(zone))
        if when not in found and len(found) == number:
            break
        found.setdefault(when, point.id)
    return set(found.values())


def _hour(at: datetime) -> Hashable:
    # With the offset: the hour that comes twice in autumn is two.
    return at.date(), at.hour, at.utcoffset()


def _day(at: datetime) -> Hashable:
    return at.date()


def _week(at: datetime) -> Hashable:
    return at.isocalendar()[:2]


def _month(at: datetime) -> Hashable:
    return at.year, at.month
