"""What a policy promises, in words, and whether it can be kept."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.promises import (
    KEPT,
    limit_in_words,
    retention_in_words,
    rhythm_in_words,
    smallest_rpo_s,
    why_not_kept,
)

NOTHING = dict.fromkeys(KEPT, 0)


@pytest.mark.parametrize(
    ("interval_s", "cron", "words"),
    [
        (900, "", "every 15 min"),
        (3600, "", "every hour"),
        (None, "30 2 * * *", "every day at 02:30 (Europe/Berlin)"),
        (None, "5 14 * * 1-5", "at 14:05 from Monday to Friday (Europe/Berlin)"),
        (None, "0 0 * * 0", "on Sundays at 00:00 (Europe/Berlin)"),
        (None, "0 0 * * 7", "on Sundays at 00:00 (Europe/Berlin)"),
        (None, "*/10 8-18 * * 1,3", "by the schedule */10 8-18 * * 1,3 (Europe/Berlin)"),
    ],
)
def test_when_it_runs_is_told_in_words(interval_s: int | None, cron: str, words: str) -> None:
    assert rhythm_in_words(interval_s, cron, "Europe/Berlin") == words


@given(st.text(max_size=30))
def test_no_schedule_is_too_odd_to_be_told(cron: str) -> None:
    assert rhythm_in_words(None, cron, "UTC")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"keep_last": 1}, "the last one"),
        ({"keep_last": 3, "keep_daily": 7}, "the last 3, and one a day for 7 days"),
        (
            {"keep_last": 2, "keep_hourly": 24, "keep_monthly": 1},
            "the last 2, one an hour for 24 hours, and one a month for 1 month",
        ),
    ],
)
def test_what_is_kept_is_told_in_words(kept: dict[str, int], words: str) -> None:
    assert retention_in_words(NOTHING | kept) == words


def test_a_limit_is_told_with_its_window() -> None:
    assert limit_in_words(None, None, None, "UTC") == ""
    assert limit_in_words(2_500_000, None, None, "UTC") == "at most 2.5 MB/s"
    assert limit_in_words(40_000_000, time(8), time(18), "UTC") == "at most 40 MB/s between 08:00 and 18:00 (UTC)"


def test_no_smaller_rpo_is_to_be_had_than_two_runs() -> None:
    assert smallest_rpo_s(None) is None
    assert smallest_rpo_s(90) == 180


@given(st.integers(60, 10**6), st.integers(60, 10**6), st.one_of(st.none(), st.floats(0, 10**6)))
def test_a_promise_is_doubted_just_if_the_point_gets_older_before_the_next_one_serves(
    rpo_s: int, interval_s: int, took_s: float | None
) -> None:
    doubted = why_not_kept(rpo_s=rpo_s, interval_s=interval_s, took_s=took_s)
    assert bool(doubted) == (interval_s + (took_s or 0) > rpo_s)
    assert not doubted or doubted.endswith("Choose a shorter interval or a longer RPO.")


def test_set_times_are_not_doubted() -> None:
    assert why_not_kept(rpo_s=60, interval_s=None, took_s=3600) == ""
