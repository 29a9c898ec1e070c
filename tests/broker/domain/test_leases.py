"""When a lease is told of, over, taken back; and that nobody loses data without having been told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain import leases
from broker.domain.leases import Lease, Step, Terms

START = datetime(2026, 11, 27, 8, tzinfo=UTC)
DAY = timedelta(days=1)
TERMS = Terms(lease_h=7 * 24, renewals=2, renewal_h=None, notice_h=24, grace_h=48, reclaims=True)
WEEK = Lease(since=START, until=START + 7 * DAY)


def test_a_lease_goes_its_steps_in_order() -> None:
    assert leases.step(WEEK, TERMS, START + 5 * DAY) is None
    assert leases.step(WEEK, TERMS, START + 6 * DAY) == Step.TELL
    told = replace(WEEK, told_at=START + 6 * DAY)
    assert leases.step(told, TERMS, START + 6.5 * DAY) is None
    assert leases.step(told, TERMS, START + 7 * DAY) == Step.END
    ended = replace(told, end_told_at=START + 7 * DAY)
    assert leases.step(ended, TERMS, START + 8 * DAY) is None
    assert leases.step(ended, TERMS, START + 9 * DAY) == Step.RECLAIM
    assert leases.step(ended, replace(TERMS, reclaims=False), START + 9 * DAY) == Step.ALARM


def test_without_grace_it_is_taken_back_at_its_end() -> None:
    told = replace(WEEK, told_at=START + 6 * DAY)
    assert leases.step(told, replace(TERMS, grace_h=0), START + 7 * DAY) == Step.RECLAIM


def test_where_nothing_ran_in_time_the_end_waits_for_the_notice() -> None:
    late = START + 30 * DAY
    assert leases.step(WEEK, TERMS, late) == Step.END
    told = replace(WEEK, told_at=late, end_told_at=late)
    assert leases.step(told, TERMS, late + 0.9 * DAY) is None
    assert leases.step(told, TERMS, late + DAY) == Step.RECLAIM


def test_of_a_short_lease_one_is_told_when_half_of_it_is_over() -> None:
    short = Lease(since=START, until=START + timedelta(hours=8))
    assert leases.next_at(short, TERMS) == START + timedelta(hours=4)


def test_nobody_gets_more_than_the_pool_gives() -> None:
    assert leases.lease_until(TERMS, START) == START + 7 * DAY
    assert leases.lease_until(TERMS, START, 24) == START + DAY
    assert leases.lease_until(TERMS, START, 24 * 30) == START + 7 * DAY
    assert leases.lease_until(replace(TERMS, lease_h=None), START, 24) is None


def test_a_renewal_counts_from_the_end_or_from_now_if_that_is_over() -> None:
    told = replace(WEEK, told_at=START + 6 * DAY)
    early = leases.renewed(told, TERMS, START + 6 * DAY)
    assert early == Lease(START, START + 14 * DAY, renewals=1)
    late = leases.renewed(told, TERMS, START + 8 * DAY)
    assert late is not None
    assert late.until == START + 15 * DAY
    by_a_day = leases.renewed(WEEK, replace(TERMS, renewal_h=24), START)
    assert by_a_day is not None
    assert by_a_day.until == START + 8 * DAY


def test_there_are_only_so_many_renewals() -> None:
    assert leases.renewed(replace(WEEK, renewals=2), TERMS, START) is None
    assert leases.renewed(WEEK, replace(TERMS, renewals=0), START) is None
    assert leases.renewed(WEEK, replace(TERMS, lease_h=None), START) is None


def test_a_form_offers_what_the_pool_gives_the_longest_first() -> None:
    assert leases.lengths(24) == [24, 8, 4, 2, 1]
    assert leases.lengths(1) == [1]
    assert [leases.in_words(hours) for hours in (1, 8, 24, 168)] == ["1 hour", "8 hours", "1 day", "7 days"]


@given(
    length=st.integers(1, 5000),
    notice=st.integers(1, 5000),
    grace=st.integers(0, 500),
    looks=st.lists(st.integers(1, 2000), min_size=1, max_size=40),
)
def test_nothing_is_taken_back_before_its_user_knew_for_as_long_as_was_promised(
    length: int, notice: int, grace: int, looks: list[int]
) -> None:
    """Whenever the clock looks: told first, then time to act, and never before end and grace are over."""
    terms = replace(TERMS, lease_h=length, notice_h=notice, grace_h=grace)
    lease, now = Lease(START, START + timedelta(hours=length)), START
    for hours in looks:
        now += timedelta(hours=hours)
        step = leases.step(lease, terms, now)
        if step is None:
            assert leases.next_at(lease, terms) > now
        elif step == Step.RECLAIM:
            assert lease.told_at is not None
            assert now - lease.told_at >= leases.warning(lease, terms)
            assert now >= lease.until + timedelta(hours=grace)
            return
        else:
            assert leases.next_at(lease, terms) <= now
            ended = now if step == Step.END else lease.end_told_at
            lease = replace(lease, told_at=lease.told_at or now, end_told_at=ended)
