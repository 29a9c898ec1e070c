"""When a source is replicated next, how fast, and whether its promise holds."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.replication import (
    BadCron,
    Limit,
    Timing,
    lag,
    next_run,
    offset_for,
    pace,
    speed_limit,
    time_left_s,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTES = timedelta(minutes=1)
MOMENTS = st.integers(1_500_000_000, 2_200_000_000).map(lambda stamp: datetime.fromtimestamp(stamp, UTC))


@given(MOMENTS, st.integers(1, 3000), st.integers(0, 10**9))
def test_an_interval_comes_within_one_interval_and_each_time_at_the_same_place(
    after: datetime, minutes: int, draw: int
) -> None:
    interval = minutes * MINUTES
    timing = Timing(interval=interval, offset=offset_for(interval, draw))
    first = next_run(timing, after)
    assert timedelta(0) < first - after <= interval
    assert next_run(timing, first) - first == interval


def test_sources_of_one_policy_do_not_all_run_in_the_same_second() -> None:
    interval = 5 * MINUTES
    found = {next_run(Timing(interval=interval, offset=offset_for(interval, draw)), NOON) for draw in range(0, 3000, 7)}
    assert len(found) > 200


def test_what_was_missed_is_not_made_up_for_run_by_run() -> None:
    timing = Timing(interval=5 * MINUTES)
    assert next_run(timing, NOON + timedelta(days=3, minutes=2)) == NOON + timedelta(days=3, minutes=5)


def test_cron_goes_by_the_clock_of_its_zone() -> None:
    timing = Timing(cron="30 2 * * 1-5", zone="Europe/Berlin")
    assert next_run(timing, NOON) == datetime(2026, 3, 3, 1, 30, tzinfo=UTC)
    summer = datetime(2026, 3, 30, 12, 0, tzinfo=UTC)
    assert next_run(timing, summer) == datetime(2026, 3, 31, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "every day", "61 * * * *", "* * *", "0 0 31 2 *"])
def test_what_is_no_schedule_is_told_in_words(text: str) -> None:
    with pytest.raises(BadCron, match="is no schedule"):
        next_run(Timing(cron=text), NOON)


def test_a_limit_without_a_window_always_holds() -> None:
    assert speed_limit(None, NOON) is None
    assert speed_limit(Limit(bytes_a_second=1000), NOON) == 1000


@pytest.mark.parametrize(("hour", "holds"), [(7, False), (8, True), (17, True), (18, False)])
def test_a_limit_holds_in_its_window(hour: int, holds: bool) -> None:
    limit = Limit(bytes_a_second=1000, begins=time(8), ends=time(18), zone="Europe/Berlin")
    at = datetime(2026, 3, 2, hour - 1, 0, tzinfo=UTC)  # Berlin is an hour ahead in winter
    assert speed_limit(limit, at) == (1000 if holds else None)


@pytest.mark.parametrize(("hour", "holds"), [(21, False), (22, True), (0, True), (5, True), (6, False)])
def test_a_window_may_go_over_midnight(hour: int, holds: bool) -> None:
    limit = Limit(bytes_a_second=1000, begins=time(22), ends=time(6))
    assert speed_limit(limit, NOON.replace(hour=hour)) == (1000 if holds else None)


def test_the_promise_holds_until_the_newest_point_is_older_than_was_promised() -> None:
    kept = lag(newest_at=NOON, began_at=NOON, rpo=5 * MINUTES, now=NOON + 5 * MINUTES)
    assert (kept.is_kept, kept.age) == (True, 5 * MINUTES)
    broken = lag(newest_at=NOON, began_at=NOON, rpo=5 * MINUTES, now=NOON + 7 * MINUTES)
    assert (broken.is_kept, broken.broken_since) == (False, NOON + 5 * MINUTES)


def test_without_a_point_the_promise_counts_from_when_the_source_was_added() -> None:
    assert lag(newest_at=None, began_at=NOON, rpo=5 * MINUTES, now=NOON + MINUTES).is_kept
    late = lag(newest_at=None, began_at=NOON, rpo=5 * MINUTES, now=NOON + 6 * MINUTES)
    assert (late.age, late.broken_since) == (None, NOON + 5 * MINUTES)


def test_time_left_goes_by_the_rate_so_far_and_is_silent_before_there_is_one() -> None:
    assert time_left_s(total=100, done=25, since=NOON, now=NOON + timedelta(seconds=10)) == pytest.approx(30)
    assert time_left_s(total=None, done=25, since=NOON, now=NOON) is None
    assert time_left_s(total=100, done=0, since=NOON, now=NOON + MINUTES) is None
    assert time_left_s(total=100, done=120, since=NOON, now=NOON + MINUTES) == 0


def test_the_pace_of_a_run_is_what_it_read_and_what_is_left() -> None:
    found = pace(total=100, done=25, read=10, since=NOON - timedelta(seconds=5), now=NOON)
    assert (found.percent, found.bytes_a_second, found.left_s) == (25, 2.0, 15.0)


def test_of_a_run_that_has_just_begun_no_pace_is_told() -> None:
    for since in (None, NOON):
        found = pace(total=None, done=0, read=0, since=since, now=NOON)
        assert (found.percent, found.bytes_a_second, found.left_s) == (None, None, None)
    assert pace(total=0, done=0, read=0, since=None, now=NOON).percent is None
