"""How many desktops are kept free, by number or share, and in peak hours on a zone's clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.planning import wanted
from broker.domain.scaling import Holding, Peak, Target, holding, spare_of
from broker.domain.schedules import WEEKDAYS, weekdays_of
from tests.broker.domain.test_planning import pool

USUAL, BUSY = Target(1, 2), Target(5, 9, 20)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
peaks = st.builds(
    Peak,
    begins=st.times().map(lambda at: at.replace(second=0, microsecond=0)),
    ends=st.times().map(lambda at: at.replace(second=0, microsecond=0)),
    weekdays=st.sets(st.integers(1, 7), min_size=1).map(weekdays_of),
    zone=st.sampled_from(ZONES),
    target=st.just(BUSY),
)
moments = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds UTC


def test_office_hours_hold_from_their_begin_to_their_end_on_their_zones_clock() -> None:
    peak = Peak(time(7), time(18), "12345", "Europe/Berlin", BUSY)
    berlin = ZoneInfo("Europe/Berlin")
    friday = date(2026, 3, 27)  # clocks change on the Sunday after

    def at(day: date, hour: int) -> datetime:
        return datetime.combine(day, time(hour), berlin).astimezone(UTC)

    monday = friday + timedelta(days=3)
    assert holding(USUAL, peak, at(friday, 6)) == Holding(USUAL, until=at(friday, 7))
    assert holding(USUAL, peak, at(friday, 7)) == Holding(BUSY, is_peak=True, until=at(friday, 18))
    assert holding(USUAL, peak, at(friday, 18)) == Holding(USUAL, until=at(monday, 7))
    assert (at(friday, 7).hour, at(monday, 7).hour) == (6, 5)
    assert holding(USUAL, None, at(friday, 7)) == Holding(USUAL)


def test_a_night_belongs_to_the_day_on_which_it_began_and_the_whole_week_has_no_gap() -> None:
    night = Peak(time(22), time(6), "5", "UTC", BUSY)
    saturday = datetime(2026, 3, 28, 3, tzinfo=UTC)
    assert holding(USUAL, night, saturday) == Holding(BUSY, is_peak=True, until=saturday.replace(hour=6))
    assert not holding(USUAL, night, saturday + timedelta(days=1)).is_peak
    always = Peak(time(0), time(0), WEEKDAYS, "UTC", BUSY)
    assert holding(USUAL, always, saturday).until >= saturday + timedelta(days=6)  # type: ignore[operator]


@given(peaks, moments)
def test_what_holds_now_holds_until_it_is_said_and_is_over_then(peak: Peak, now: datetime) -> None:
    found = holding(USUAL, peak, now)
    assert found.until is not None
    assert found.until > now
    assert found.target == (BUSY if found.is_peak else USUAL)
    just_before = max(now, found.until - timedelta(seconds=1))
    assert holding(USUAL, peak, just_before).is_peak == found.is_peak
    middle = now + (found.until - now) / 2
    assert holding(USUAL, peak, middle).is_peak == found.is_peak
    if found.until - now < timedelta(days=7) and not found.is_peak and peak.begins != peak.ends:
        after = holding(USUAL, peak, found.until)
        skipped = found.until.astimezone(ZoneInfo(peak.zone)).time() != peak.begins
        assert after.is_peak or skipped


@given(st.integers(0, 50), st.none() | st.integers(1, 1000), st.integers(0, 500), st.integers(0, 50))
def test_a_share_is_at_least_the_number_covers_those_in_use_and_never_shrinks(
    spare: int, percent: int | None, in_use: int, more: int
) -> None:
    found = spare_of(spare, percent, in_use)
    assert found >= spare
    assert spare_of(spare, percent, in_use + more) >= found
    if percent is None:
        assert found == spare
    else:
        assert found * 100 >= in_use * percent
        assert found == spare or (found - 1) * 100 < in_use * percent


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 300), st.integers(0, 40), st.integers(0, 40))
def test_the_pool_wants_its_share_within_minimum_and_maximum(
    minimum: int, spare: int, percent: int, assigned: int, maximum: int
) -> None:
    facts = pool(minimum=min(minimum, maximum), spare=spare, maximum=maximum, spare_percent=percent)
    found = wanted(facts, assigned)
    assert min(minimum, maximum) <= found <= maximum
    assert found >= min(maximum, assigned + spare_of(spare, percent, assigned))
