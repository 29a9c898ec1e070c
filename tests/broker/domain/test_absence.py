"""Absence is believed slowly, and never of many at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain.absence import MANY, Silence, is_evidence, is_mass, judge

T0 = datetime(2025, 1, 1, tzinfo=UTC)


def silent(count: int, listings: int = 2) -> list[Silence]:
    return [Silence(f"m{n}", T0, listings) for n in range(count)]


def test_a_partial_listing_says_nothing() -> None:
    later = T0 + timedelta(seconds=1)
    assert is_evidence(complete=True, began_at=later, known_at=T0)
    assert not is_evidence(complete=False, began_at=later, known_at=T0)


def test_a_listing_that_began_before_a_machine_was_made_says_nothing_of_it() -> None:
    assert not is_evidence(complete=True, began_at=T0, known_at=T0)
    assert not is_evidence(complete=True, began_at=T0, known_at=T0 + timedelta(seconds=1))


def test_one_listing_is_not_enough() -> None:
    verdict = judge(silent(1, listings=1), total=10, confirmed_at=None)
    assert (verdict.gone, verdict.doubted, verdict.pending) == ((), (), ("m0",))


def test_two_listings_are_believed() -> None:
    assert judge(silent(5), total=5, confirmed_at=None).gone == ("m0", "m1", "m2", "m3", "m4")


def test_six_of_ten_are_not_believed() -> None:
    verdict = judge(silent(6), total=10, confirmed_at=None)
    assert not verdict.gone
    assert len(verdict.doubted) == 6


def test_six_of_ten_put_the_hypervisor_in_doubt_at_the_first_listing() -> None:
    assert len(judge(silent(6, listings=1), total=10, confirmed_at=None).doubted) == 6


def test_six_of_a_thousand_are_believed() -> None:
    assert not is_mass(6, 1000)
    assert is_mass(21, 1000)
    assert len(judge(silent(6), total=1000, confirmed_at=None).gone) == 6


def test_an_administrators_word_ends_the_doubt() -> None:
    verdict = judge(silent(8), total=8, confirmed_at=T0 + timedelta(minutes=1))
    assert len(verdict.gone) == 8
    assert not verdict.doubted


def test_an_old_word_does_not_cover_later_losses() -> None:
    assert len(judge(silent(8), total=8, confirmed_at=T0 - timedelta(minutes=1)).doubted) == 8


silences = st.lists(
    st.builds(
        Silence,
        machine=st.uuids().map(str),
        known_at=st.integers(-100, 100).map(lambda s: T0 + timedelta(seconds=s)),
        listings=st.integers(1, 4),
    ),
    max_size=60,
    unique_by=lambda s: s.machine,
)


@given(silences, st.integers(0, 3000), st.none() | st.just(T0))
def test_every_absence_has_one_verdict_and_no_unconfirmed_wave_is_believed(
    found: list[Silence], others: int, confirmed_at: datetime | None
) -> None:
    total = len(found) + others
    verdict = judge(found, total=total, confirmed_at=confirmed_at)
    assert sorted([*verdict.gone, *verdict.doubted, *verdict.pending]) == sorted(s.machine for s in found)
    by_name = {s.machine: s for s in found}
    assert all(by_name[machine].listings >= 2 for machine in verdict.gone)
    unasked = [m for m in verdict.gone if confirmed_at is None or by_name[m].known_at > confirmed_at]
    assert len(unasked) <= max(MANY, 0.02 * total)
    assert not (unasked and verdict.doubted)
