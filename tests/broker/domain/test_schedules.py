"""When schedules run: on the zone's clock, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.schedules import (
    LATE,
    WEEKDAYS,
    Action,
    Reach,
    Rule,
    days_in_words,
    is_too_late,
    next_run,
    reach_in_words,
    wanted_on,
    weekdays_of,
    zones,
)

BERLIN = "Europe/Berlin"
WORKING_DAYS = "12345"


def local(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def rule(at: str = "08:30", weekdays: str = WEEKDAYS, zone: str = BERLIN, *holidays: str) -> Rule:
    days = frozenset(date.fromisoformat(day) for day in holidays)
    return Rule(at=time.fromisoformat(at), weekdays=weekdays, zone=zone, holidays=days)


def runs(found: Rule, after: datetime, count: int) -> list[datetime]:
    moments = []
    for _ in range(count):
        after = next_run(found, after)
        moments.append(after)
    return moments


def test_it_runs_later_the_same_day_if_its_time_is_still_to_come() -> None:
    assert next_run(rule(), local("2026-11-26T07:00")) == local("2026-11-26T08:30")


def test_at_its_own_time_the_next_run_is_the_next_days() -> None:
    assert next_run(rule(), local("2026-11-26T08:30")) == local("2026-11-27T08:30")


def test_after_friday_comes_monday() -> None:
    assert next_run(rule(weekdays=WORKING_DAYS), local("2026-11-27T09:00")) == local("2026-11-30T08:30")


def test_holidays_are_left_out_by_the_zones_own_calendar() -> None:
    found = rule("08:30", WEEKDAYS, BERLIN, "2026-12-25", "2026-12-26")
    assert next_run(found, local("2026-12-24T09:00")) == local("2026-12-27T08:30")
    # In Auckland it is the 25th while it is still the 24th in UTC.
    auckland = rule("08:30", WEEKDAYS, "Pacific/Auckland", "2026-12-25")
    after = datetime(2026, 12, 24, 12, tzinfo=UTC)
    assert next_run(auckland, after) == local("2026-12-26T08:30", "Pacific/Auckland")


def test_nine_in_the_morning_stays_so_when_the_clocks_change() -> None:
    before, after = runs(rule("09:00"), local("2026-10-24T08:00"), 2)
    assert (before.hour, after.hour) == (7, 8), "in UTC an hour later"
    assert after - before == timedelta(hours=25)


def test_a_time_that_the_clocks_skip_comes_as_much_later() -> None:
    """On 2026-03-29 Berlin goes from 02:00 to 03:00."""
    skipped = runs(rule("02:30"), local("2026-03-28T12:00"), 2)
    assert skipped[0] == local("2026-03-29T03:30")
    assert skipped[1] == local("2026-03-30T02:30")


def test_a_time_that_the_clocks_show_twice_counts_once_the_first_time() -> None:
    """On 2026-10-25 Berlin goes from 03:00 back to 02:00."""
    twice = runs(rule("02:30"), local("2026-10-24T12:00"), 2)
    assert twice == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


def test_a_day_that_a_zone_left_out_altogether_gives_no_second_run() -> None:
    """Samoa had no 30 December 2011."""
    moments = runs(rule("10:00", zone="Pacific/Apia"), local("2011-12-28T12:00", "Pacific/Apia"), 3)
    assert len(set(moments)) == 3
    assert moments[-1] - moments[0] == timedelta(hours=48)


def test_a_rule_without_days_is_refused() -> None:
    with pytest.raises(ValueError, match="weekday"):
        next_run(rule(weekdays=""), local("2026-11-26T07:00"))


ODD_ZONES = [
    BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Asia/Kathmandu",
]  # fmt: skip
RULES = st.builds(
    Rule,
    at=st.times().map(lambda at: at.replace(microsecond=0)),
    weekdays=st.sets(st.integers(1, 7), min_size=1).map(weekdays_of),
    zone=st.sampled_from(ODD_ZONES),
    holidays=st.frozensets(st.dates(date(2010, 12, 1), date(2012, 2, 1)), max_size=40),
)
MOMENTS = st.datetimes(datetime(2010, 12, 1), datetime(2012, 2, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@given(RULES, MOMENTS)
def test_the_next_run_is_later_and_on_a_day_that_the_rule_names(found: Rule, after: datetime) -> None:
    moment = next_run(found, after)
    assert moment > after
    zone = ZoneInfo(found.zone)
    nearby = [moment.astimezone(zone).date() + timedelta(days=shift) for shift in (-1, 0)]
    assert any(
        datetime.combine(day, found.at, zone).astimezone(UTC) == moment
        and str(day.isoweekday()) in found.weekdays
        and day not in found.holidays
        for day in nearby
    )


@given(RULES, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=20)))
def test_no_run_is_left_out_between(found: Rule, after: datetime, later: timedelta) -> None:
    """Asking again later gives the same run while it is to come, and a later one once it has passed."""
    first = next_run(found, after)
    again = next_run(found, after + later)
    assert again == first if after + later < first else again > first


@given(RULES, MOMENTS)
def test_a_day_has_one_run_at_most(found: Rule, after: datetime) -> None:
    moments = runs(found, after, 8)
    assert moments == sorted(set(moments))
    gaps = [(later - sooner).total_seconds() / 3600 for sooner, later in pairwise(moments)]
    assert min(gaps) >= 22, gaps


def test_a_run_more_than_an_hour_late_is_too_late() -> None:
    due = local("2026-11-26T08:30")
    assert not is_too_late(due, due + LATE)
    assert is_too_late(due, due + LATE + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("total", "reach", "amount", "wanted"),
    [
        (7, Reach.ALL, None, 7),
        (7, Reach.NUMBER, 3, 3),
        (7, Reach.NUMBER, 30, 7),
        (7, Reach.SHARE, 50, 4),
        (7, Reach.SHARE, 1, 1),
        (7, Reach.SHARE, 100, 7),
        (0, Reach.SHARE, 50, 0),
    ],
)
def test_how_many_shall_be_on(total: int, reach: Reach, amount: int | None, wanted: int) -> None:
    assert wanted_on(total, reach, amount) == wanted


@pytest.mark.parametrize(
    ("weekdays", "words"),
    [
        ("1234567", "Every day"),
        ("12345", "Monday to Friday"),
        ("67", "Saturday and Sunday"),
        ("135", "Monday, Wednesday and Friday"),
        ("3", "Wednesday"),
    ],
)
def test_days_are_said_as_people_say_them(weekdays: str, words: str) -> None:
    assert days_in_words(weekdays) == words


def test_what_a_schedule_does_is_said_in_words() -> None:
    assert reach_in_words(Action.OFF, Reach.ALL, None) == "Shuts down what nobody uses"
    assert reach_in_words(Action.ON, Reach.ALL, None) == "Switches on all of them"
    assert reach_in_words(Action.ON, Reach.NUMBER, 12) == "Switches on until 12 are on"
    assert reach_in_words(Action.ON, Reach.SHARE, 80) == "Switches on until 80 % are on"


def test_days_are_kept_in_order_whatever_their_order_was() -> None:
    assert weekdays_of([5, 1, 9, 3]) == "135"


def test_every_zone_that_can_be_chosen_can_be_used() -> None:
    assert zones()[0] == "UTC"
    assert {BERLIN, "Asia/Kolkata"} <= set(zones())
    for zone in zones():
        ZoneInfo(zone)
