"""The rules of sessions: their state, their timers, and that nobody is taken for gone because nobody could tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.sessions import (
    IDLE_AFTER,
    WARNING,
    Act,
    Reading,
    Seen,
    State,
    Step,
    Timers,
    Why,
    acts_at,
    after_reading,
    after_stream,
    deadline,
    has_left,
    next_look,
    state_of,
    step,
)

BEGAN = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

minutes = st.integers(min_value=0, max_value=3000)
spans = st.none() | st.integers(min_value=1, max_value=3000)
timers = st.builds(Timers, idle_min=spans, disconnected_min=spans, longest_min=spans)
moments = minutes.map(lambda n: BEGAN + n * MINUTE)


@st.composite
def sessions(draw: st.DrawFn) -> Seen:
    input_at = draw(moments)
    closed_at = draw(st.none() | minutes.map(lambda n: input_at + n * MINUTE))
    return Seen(
        began_at=BEGAN, is_open=closed_at is None, input_at=input_at, closed_at=closed_at,
        had_user=draw(st.booleans()), empties=draw(st.integers(0, 3)) if closed_at else 0,
    )  # fmt: skip


def opened(at: datetime = BEGAN) -> Seen:
    return Seen(began_at=BEGAN, is_open=True, input_at=at)


def test_a_session_is_connected_then_idle_then_disconnected() -> None:
    seen = opened()
    assert state_of(seen, BEGAN + IDLE_AFTER - MINUTE) is State.CONNECTED
    assert state_of(seen, BEGAN + IDLE_AFTER) is State.IDLE
    closed = after_stream(seen, is_open=False, input_at=None, now=BEGAN + 9 * MINUTE)
    assert state_of(closed, BEGAN + 9 * MINUTE) is State.DISCONNECTED
    assert closed.closed_at == BEGAN + 9 * MINUTE


def test_it_is_logged_off_once_the_guest_that_showed_its_user_shows_nobody_twice() -> None:
    seen = after_reading(opened(), Reading(BEGAN, has_user=True))
    seen = after_stream(seen, is_open=False, input_at=None, now=BEGAN + MINUTE)
    once = after_reading(seen, Reading(BEGAN + 2 * MINUTE, has_user=False))
    assert state_of(once, BEGAN + 2 * MINUTE) is State.DISCONNECTED
    twice = after_reading(once, Reading(BEGAN + 3 * MINUTE, has_user=False))
    assert state_of(twice, BEGAN + 3 * MINUTE) is State.LOGGED_OFF
    found = deadline(twice, Timers())
    assert found is not None
    assert (found.act, found.why) == (Act.LOG_OFF, Why.LEFT)
    assert step(found, None, BEGAN + 3 * MINUTE) is Step.ACT


@given(sessions(), st.lists(minutes, max_size=8))
def test_readings_that_failed_say_nothing(seen: Seen, when: list[int]) -> None:
    after = seen
    for number in when:
        after = after_reading(after, Reading(BEGAN + number * MINUTE, has_user=None))
    assert after == seen


@given(sessions(), st.lists(st.tuples(minutes, st.sampled_from([False, None])), max_size=8))
def test_a_guest_that_never_showed_its_user_never_says_that_they_left(
    seen: Seen, told: list[tuple[int, bool | None]]
) -> None:
    after = Seen(seen.began_at, seen.is_open, seen.input_at, seen.closed_at)
    for number, has_user in told:
        after = after_reading(after, Reading(BEGAN + number * MINUTE, has_user))
    assert not has_left(after)


@given(sessions(), st.lists(minutes, max_size=8))
def test_a_reading_that_began_before_the_last_stream_ended_says_nothing_of_leaving(seen: Seen, when: list[int]) -> None:
    fresh = Seen(seen.began_at, seen.is_open, seen.input_at, seen.closed_at, had_user=True)
    after = fresh
    for number in when:
        at = BEGAN + number * MINUTE
        if fresh.closed_at is None or at <= fresh.closed_at:
            after = after_reading(after, Reading(at, has_user=False))
    assert not has_left(after)


@given(sessions(), moments)
def test_who_comes_back_has_not_left(seen: Seen, now: datetime) -> None:
    back = after_stream(seen, is_open=True, input_at=now, now=now)
    assert not has_left(back)
    assert back.closed_at is None
    assert back.input_at >= seen.input_at


@given(sessions(), moments)
def test_looking_again_at_what_has_not_changed_changes_nothing(seen: Seen, now: datetime) -> None:
    once = after_stream(seen, is_open=False, input_at=None, now=now)
    assert after_stream(once, is_open=False, input_at=None, now=now + MINUTE) == once


@given(sessions(), moments)
def test_without_timers_only_who_left_is_logged_off(seen: Seen, now: datetime) -> None:
    found = deadline(seen, Timers())
    assert (found is not None) == has_left(seen)


@given(sessions(), timers, moments)
def test_nothing_ends_before_its_user_was_told_for_the_whole_warning(seen: Seen, given_: Timers, now: datetime) -> None:
    found = deadline(seen, given_)
    if found is None or found.why is Why.LEFT:
        return
    assert timedelta(0) < found.warning <= WARNING
    assert step(found, None, now) in (None, Step.WARN)
    at = acts_at(found, now)
    assert at is not None
    assert at >= now + found.warning
    assert at >= found.at


@given(sessions(), timers, moments)
def test_what_was_done_late_is_still_told_first_and_then_done(seen: Seen, given_: Timers, late: datetime) -> None:
    """Nothing ran for long: the end waits for the warning, and then comes."""
    found = deadline(seen, given_)
    if found is None or found.why is Why.LEFT:
        return
    now = max(late, found.at + MINUTE)
    assert step(found, None, now) is Step.WARN
    assert step(found, now, now) is None
    assert step(found, now, now + found.warning) is Step.ACT


@given(sessions(), timers, moments)
def test_whatever_is_to_be_done_is_looked_at_in_time(seen: Seen, given_: Timers, now: datetime) -> None:
    found = deadline(seen, given_)
    look = next_look(seen, found, None, now)
    if found is not None:
        assert look is not None
        assert look <= max(found.at - found.warning, now + timedelta(seconds=10))
    if state_of(seen, now) is State.CONNECTED:
        assert look is not None
        assert look <= seen.input_at + IDLE_AFTER


@given(sessions(), timers)
def test_a_key_puts_off_the_idle_timer_and_not_the_longest_session(seen: Seen, given_: Timers) -> None:
    if not seen.is_open:
        return
    later = after_stream(seen, is_open=True, input_at=seen.input_at + 10 * MINUTE, now=seen.input_at + 10 * MINUTE)
    before, after = deadline(seen, given_), deadline(later, given_)
    assert (before is None) == (after is None)
    if before and after:
        assert after.at >= before.at
        if given_.longest_min is not None:
            assert after.at <= BEGAN + given_.longest_min * MINUTE


def test_short_timers_warn_when_half_of_them_is_over() -> None:
    found = deadline(opened(), Timers(idle_min=4))
    assert found is not None
    assert found.warning == 2 * MINUTE
    assert step(found, None, BEGAN + 2 * MINUTE) is Step.WARN
    assert step(found, None, BEGAN + MINUTE) is None
