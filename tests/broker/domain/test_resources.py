"""What a resource class stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.resources import (
    AS_BUILT,
    MEANINGS,
    NUMBERS,
    UNKNOWN,
    ResourceClass,
    Share,
    fault_of,
    fits,
    numbers_of,
    words,
)

shares = st.builds(
    Share,
    weight=st.integers(1, 10_000),
    cpu_reservation_percent=st.integers(0, 100),
    cpu_limit_percent=st.integers(1, 100),
    memory_reservation_percent=st.integers(0, 100),
)


def test_every_class_but_the_own_numbers_has_a_meaning_without_contradiction() -> None:
    assert set(MEANINGS) == set(ResourceClass) - {ResourceClass.OWN}
    for resource_class, meaning in MEANINGS.items():
        assert not fault_of(meaning.share)
        assert tuple(numbers_of(resource_class)) == NUMBERS


def test_who_is_more_important_goes_first_and_weighs_more() -> None:
    order = [ResourceClass.CRITICAL, ResourceClass.HIGH, ResourceClass.NORMAL, ResourceClass.LOW]
    meanings = [MEANINGS[resource_class] for resource_class in order]
    assert [m.priority for m in meanings] == sorted({m.priority for m in meanings})
    assert [m.share.weight for m in meanings] == sorted({m.share.weight for m in meanings}, reverse=True)


def test_a_normal_pool_wants_nothing_of_a_machine_that_was_never_given_a_share() -> None:
    assert fits("", MEANINGS[ResourceClass.NORMAL].share)
    assert not fits("", MEANINGS[ResourceClass.HIGH].share)


def test_own_numbers_have_no_meaning_of_a_class() -> None:
    with pytest.raises(KeyError):
        numbers_of(ResourceClass.OWN)


@given(shares, shares)
def test_a_share_fits_what_was_stored_of_it_and_nothing_else(one: Share, other: Share) -> None:
    assert fits(one.stored(), one)
    assert fits(one.stored(), other) == (one == other)
    assert not fits(UNKNOWN, one)
    assert len(one.stored()) <= 30
    assert fits("", one) == (one == AS_BUILT)


def test_a_share_is_said_in_words_without_what_is_as_always() -> None:
    assert words(AS_BUILT) == "weight 100"
    assert words(Share(400, 25, 80, 50)) == (
        "weight 400, 25 % of its vCPUs kept free, at most 80 % of its vCPUs, 50 % of its memory kept"
    )


@given(shares)
def test_no_more_is_kept_free_than_may_be_used(share: Share) -> None:
    assert bool(fault_of(share)) == (share.cpu_reservation_percent > share.cpu_limit_percent)
