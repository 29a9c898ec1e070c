"""A hypervisor that says it is busy is asked for less, and for more again when it has caught up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.budgets import MOST, RECOVERY, SETTLING, Slowdown, effective

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


def busy(*moments: timedelta) -> Slowdown:
    slowdown = Slowdown()
    for moment in moments:
        slowdown = slowdown.after_busy(NOW + moment)
    return slowdown


def seconds(*numbers: float) -> list[timedelta]:
    return [timedelta(seconds=number) for number in numbers]


def test_a_hypervisor_that_never_said_so_has_its_whole_budget() -> None:
    assert effective(8, Slowdown(), NOW) == 8
    assert Slowdown().recovered_at() is None


def test_each_time_it_says_so_halves_the_budget() -> None:
    assert effective(8, busy(*seconds(0)), NOW) == 4
    assert effective(8, busy(*seconds(0, 15)), NOW + timedelta(seconds=15)) == 2


def test_what_was_in_flight_before_a_halving_does_not_halve_again() -> None:
    slowdown = busy(*seconds(0, 1, 2, 3, 9))
    assert effective(8, slowdown, NOW + timedelta(seconds=9)) == 4


def test_it_comes_back_step_by_step() -> None:
    slowdown = busy(*seconds(0, 15))
    after = [effective(8, slowdown, NOW + timedelta(seconds=15) + n * RECOVERY) for n in range(4)]
    assert after == [2, 4, 8, 8]
    assert slowdown.recovered_at() == NOW + timedelta(seconds=15) + 2 * RECOVERY


def test_busy_again_on_the_way_back_goes_on_from_there() -> None:
    slowdown = busy(*seconds(0, 15, 15 + 61))
    assert effective(8, slowdown, NOW + timedelta(seconds=76)) == 2


@given(
    st.lists(st.floats(0, 600).map(lambda s: timedelta(seconds=s)), max_size=30),
    st.integers(1, 1000),
    st.floats(0, 3600).map(lambda s: timedelta(seconds=s)),
)
def test_there_is_always_something_to_do_and_never_more_than_the_budget(
    moments: list[timedelta], budget: int, later: timedelta
) -> None:
    slowdown = busy(*sorted(moments))
    last = NOW + max(moments, default=timedelta())
    now_, then = effective(budget, slowdown, last), effective(budget, slowdown, last + later)
    assert 1 <= now_ <= then <= budget
    assert slowdown.halvings <= MOST
    assert effective(budget, slowdown, last + MOST * RECOVERY) == budget


@given(st.integers(1, 1000))
def test_one_that_is_always_busy_is_asked_for_one_thing_at_a_time(budget: int) -> None:
    slowdown, now = Slowdown(), NOW
    for _ in range(60):
        slowdown = slowdown.after_busy(now)
        now += SETTLING
    assert effective(budget, slowdown, now) == 1
