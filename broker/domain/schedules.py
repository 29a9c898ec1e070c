"""When a power schedule runs next, and how many desktops it wants on.

A schedule names a time on the clock of a zone, so that nine in the morning stays nine in the morning when the clocks
change. A time that the clocks skip that day comes as much later as they skip; one that they show twice counts once, the
first time. Weekdays and holidays are those of the zone's calendar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

WEEKDAYS = "1234567"
"""ISO: 1 is Monday. A schedule's days are such a string, in order."""
NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LATE = timedelta(hours=1)
"""A run that is later than this is skipped: what it was for is over."""
REGIONS = ("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


class Action(StrEnum):
    ON = "on"
    """Switch on as many as it wants on; those that are on already count."""
    OFF = "off"
    """Shut down whatever nobody uses."""


class Reach(StrEnum):
    """How many of a pool's desktops a schedule wants on."""

    ALL = "all"
    NUMBER = "number"
    SHARE = "share"
    """Per cent, rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a schedule runs."""

    at: time
    """On the zone's clock."""
    weekdays: str
    """At least one of `WEEKDAYS`."""
    zone: str
    holidays: frozenset[date] = frozenset()
    """Days on which it does not run."""


def next_run(rule: Rule, after: datetime) -> datetime:
    """The first moment after `after` at which the rule holds, in UTC.

    Raises ValueError for a rule without weekdays, and OverflowError if only holidays are left on the calendar.
    """
    if not rule.weekdays:
        raise ValueError("A schedule needs a weekday.")
    zone = ZoneInfo(rule.zone)
    # From the day before: a time that the clocks skipped then may come only now.
    day = after.astimezone(zone).date() - timedelta(days=1)
    while True:
        if str(day.isoweekday()) in rule.weekdays and day not in rule.holidays:
            moment = datetime.combine(day, rule.at, zone).astimezone(UTC)
            if moment > after:
                return moment
        day += timedelta(days=1)


def is_too_late(due: datetime, now: datetime) -> bool:
    return now - due > LATE


def wanted_on(total: int, reach: Reach, amount: int | None) -> int:
    """How many of `total` desktops shall be on."""
    match reach:
        case Reach.ALL:
            return total
        case Reach.NUMBER:
            return min(amount or 0, total)
        case Reach.SHARE:
            return -(-total * min(amount or 0, 100) // 100)


def weekdays_of(days: Iterable[int]) -> str:
    """ISO numbers in any order -> the string that a schedule keeps; numbers that are no weekday are left out."""
    chosen = {str(day) for day in days}
    return "".join(day for day in WEEKDAYS if day in chosen)


def days_in_words(weekdays: str) -> str:
    """ "12345" -> "Monday to Friday"."""
    named = [NAMES[int(day) - 1] for day in weekdays]
    if weekdays == WEEKDAYS:
        return "Every day"
    if len(named) > 2 and weekdays in WEEKDAYS:
        return f"{named[0]} to {named[-1]}"
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last


def reach_in_words(action: Action, reach: Reach, amount: int | None) -> str:
    """What it wants: "Switches on 80 % of them"."""
    if action == Action.OFF:
        return "Shuts down what nobody uses"
    match reach:
        case Reach.ALL:
            return "Switches on all of them"
        case Reach.NUMBER:
            return f"Switches on until {amount} are on"
        case Reach.SHARE:
            return f"Switches on until {amount} % are on"


@cache
def zones() -> Sequence[str]:
    """The time zones one may choose, by name: those of places, and UTC first."""
    return ("UTC", *sorted(zone for zone in available_timezones() if zone.partition("/")[0] in REGIONS))
