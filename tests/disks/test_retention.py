"""Which points are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
from hypothesis import given

from disks.retention import Dated, Rule, kept

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
POINTS = st.lists(
    st.tuples(st.integers(-100, 24 * 400), st.booleans()).map(lambda it: (NOW - timedelta(hours=it[0]), it[1])),
    max_size=30,
    unique_by=lambda it: it[0],
).map(lambda made: [Dated(str(number), at, good) for number, (at, good) in enumerate(made)])
NUMBERS = st.integers(0, 5)
RULES = st.builds(Rule, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def every(hours: float, number: int, until: datetime = NOW) -> list[Dated]:
    return [Dated(f"{count}", until - timedelta(hours=hours * count)) for count in range(number)]


def test_the_last_are_kept() -> None:
    assert kept(every(1, 10), Rule(last=3), NOW, UTC) == {"0", "1", "2"}


def test_the_newest_of_each_day_is_kept() -> None:
    # Every six hours: 12, 6, 0 o'clock today, then 18 o'clock of the days before.
    assert kept(every(6, 20), Rule(daily=3), NOW, UTC) == {"0", "3", "7"}


def test_days_are_those_of_the_zone() -> None:
    late, early = Dated("late", datetime(2026, 11, 25, 22, 30, tzinfo=UTC)), datetime(2026, 11, 25, 23, 30, tzinfo=UTC)
    points = [late, Dated("early", early)]
    assert kept(points, Rule(daily=2), NOW, UTC) == {"early"}
    assert kept(points, Rule(daily=2), NOW, BERLIN) == {"late", "early"}


def test_the_hour_that_comes_twice_is_two() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 2:30, summer time
    points = [Dated("summer", first), Dated("winter", first + timedelta(hours=1))]
    assert kept(points, Rule(hourly=2), NOW, BERLIN) == {"summer", "winter"}


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    sunday, monday = datetime(2026, 11, 22, 12, tzinfo=UTC), datetime(2026, 11, 23, 12, tzinfo=UTC)
    points = [Dated("sunday", sunday), Dated("monday", monday)]
    assert kept(points, Rule(weekly=2), NOW, UTC) == {"sunday", "monday"}
    assert kept(points, Rule(monthly=2), NOW, UTC) == {"monday"}


def test_a_pause_deletes_nothing() -> None:
    old = every(24, 7, NOW - timedelta(days=300))
    assert len(kept(old, Rule(daily=7), NOW, UTC)) == 7


def test_a_damaged_point_stands_for_no_day_that_has_a_good_one() -> None:
    points = [Dated("bad", NOW, is_good=False), Dated("good", NOW - timedelta(hours=1))]
    assert kept(points, Rule(last=1, daily=1), NOW, UTC) == {"good"}


@given(POINTS, RULES)
def test_the_newest_good_point_is_always_kept(points: list[Dated], rule: Rule) -> None:
    keep = kept(points, rule, NOW, BERLIN)
    past = [point for point in points if point.read_at <= NOW]
    good = [point for point in past if point.is_good] or past
    if good:
        assert max(good, key=lambda point: point.read_at).id in keep
    assert keep <= {point.id for point in points}


@given(POINTS, RULES)
def test_points_of_a_wrong_clock_are_kept_and_push_nothing_out(points: list[Dated], rule: Rule) -> None:
    future = {point.id for point in points if point.read_at > NOW}
    past = [point for point in points if point.read_at <= NOW]
    assert kept(points, rule, NOW, BERLIN) == future | kept(past, rule, NOW, BERLIN)


@given(POINTS, RULES, RULES)
def test_a_more_generous_rule_keeps_all_that_a_stricter_one_keeps(points: list[Dated], one: Rule, other: Rule) -> None:
    names = ("last", "hourly", "daily", "weekly", "monthly")
    generous = Rule(*(max(getattr(one, name), getattr(other, name)) for name in names))
    assert kept(points, one, NOW, BERLIN) <= kept(points, generous, NOW, BERLIN)


@given(POINTS, RULES)
def test_deleting_the_rest_changes_nothing_about_what_is_kept(points: list[Dated], rule: Rule) -> None:
    keep = kept(points, rule, NOW, BERLIN)
    assert kept([point for point in points if point.id in keep], rule, NOW, BERLIN) == keep


@given(POINTS, RULES)
def test_no_more_are_kept_than_the_rule_counts(points: list[Dated], rule: Rule) -> None:
    past = [point for point in points if point.read_at <= NOW]
    at_most = max(rule.last, 1) + rule.hourly + rule.daily + rule.weekly + rule.monthly
    assert len(kept(past, rule, NOW, BERLIN)) <= at_most
