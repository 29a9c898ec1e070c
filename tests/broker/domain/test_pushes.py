"""A pushed version in plans: free desktops go over where they stand, a few at a time; and the rules of a push."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.domain import pushes
from broker.domain.lifecycle import LIVE, State
from broker.domain.planning import GRADUAL, Recycle
from tests.broker.domain.test_planning import KVM, NOW, World, built, desktop, desktops, planned, pool, retired, world


def go_over(toy: World, steps: int = 400) -> int:
    """Run until nothing is to be done; the fewest that were ready to be given out at any moment. What is recycled comes
    back on the member's copy."""
    fewest = toy.count(State.READY)
    for _ in range(steps):
        actions = toy.plan()
        toy.carry_out(actions)
        for action in actions:
            if isinstance(action, Recycle):
                toy.set(action.desktop, copy_current=True)
        fewest = min(fewest, toy.count(State.READY))
        if not toy.pass_time() and not actions:
            return fewest
    raise AssertionError("It never came to rest.")


@given(st.integers(1, 30), st.integers(0, 8), st.integers(0, 8))
def test_every_free_desktop_goes_over_and_ready_ones_never_run_out(free: int, assigned: int, room: int) -> None:
    facts = pool(spare=free, maximum=free + assigned + room, is_pushing=True, delete_budget_per_hour=1000)
    users = desktops(assigned, State.ASSIGNED, copy_current=False)
    toy = world(facts, [KVM], [*desktops(free, copy_current=False), *users])
    fewest = go_over(toy)
    assert [toy.desktops[one.id] for one in users] == users, "desktops in use are not touched"
    ready = [d for d in toy.desktops.values() if d.state == State.READY]
    assert len(ready) == free
    assert all(d.copy_current for d in ready)
    if free > 1:
        assert fewest >= free - max(1, free // GRADUAL), "a batch at a time"
        assert toy.built == 0, "each is rebuilt where it stands"
    if room:
        assert fewest >= 1


@given(st.integers(2, 20), st.integers(1, 20))
def test_where_only_few_could_be_given_out_the_silent_ones_go_first(silent: int, usable: int) -> None:
    quiet = desktops(silent, copy_current=False, silent_since=NOW - timedelta(minutes=1))
    heard = desktops(usable, copy_current=False)
    facts = pool(spare=silent + usable, maximum=100, is_pushing=True)
    gone = {action.desktop for action in planned(facts, [*heard, *quiet]) if isinstance(action, Recycle)}
    assert 1 <= len(gone) <= max(1, (silent + usable) // GRADUAL)
    assert gone <= {d.id for d in quiet} or silent < len(gone)


def test_the_only_free_desktop_waits_until_another_stands_beside_it() -> None:
    (old,) = desktops(1, copy_current=False)
    facts = pool(spare=1, maximum=3, is_pushing=True)
    first = planned(facts, [old])
    assert (built(first), [a for a in first if isinstance(a, Recycle)]) == (1, [])
    assert retired(planned(facts, [old, desktop()])) == [old.id]


def test_the_only_free_desktop_of_a_full_pool_goes_unless_somebody_waits_or_anything_fails() -> None:
    (old,) = desktops(1, copy_current=False)
    users = desktops(2, State.ASSIGNED)
    facts = pool(spare=1, maximum=3, is_pushing=True)
    assert [a.desktop for a in planned(facts, [old, *users]) if isinstance(a, Recycle)] == [old.id]
    for trouble in (replace(facts, waiting=1), replace(facts, push_failures=1)):
        assert not [a for a in planned(trouble, [old, *users]) if isinstance(a, Recycle)]
    assert not [a for a in planned(facts, [old, *users], replace(KVM, failures=1)) if isinstance(a, Recycle)]


@given(st.integers(4, 30), st.integers(1, 3))
def test_once_one_failed_desktops_go_one_at_a_time_and_the_failed_are_left_to_be_judged(free: int, failed: int) -> None:
    bad = desktops(failed, State.FAILED, is_suspect=True, attempts=1)
    facts = pool(spare=free + failed, maximum=100, is_pushing=True, push_failures=failed)
    actions = planned(facts, [*desktops(free, copy_current=False), *bad])
    moved = [a for a in actions if isinstance(a, Recycle)]
    assert built(actions) + len(moved) <= 1
    assert not {a.desktop for a in moved} & {d.id for d in bad}
    assert not retired(actions)


def test_a_desktop_that_is_to_leave_for_another_reason_is_replaced_and_not_rebuilt() -> None:
    found = [*desktops(4, copy_current=False, is_draining=True), *desktops(4)]
    actions = planned(pool(spare=8, maximum=20, is_pushing=True), found)
    assert built(actions) == 2
    assert not [a for a in actions if isinstance(a, Recycle)]


@given(st.integers(1, 30), st.integers(0, 30))
def test_what_may_stay_on_a_version_that_was_given_up_stays(free: int, room: int) -> None:
    toy = world(pool(spare=free, maximum=free + room), [KVM], desktops(free, copy_current=True))
    assert go_over(toy) == free
    assert toy.built == 0
    assert toy.count(*LIVE) == free


@given(st.lists(st.integers(0, 100)), st.none() | st.integers(0, 100))
def test_failures_in_a_row_are_those_after_the_last_success(failed: list[int], good: int | None) -> None:
    at = [NOW + timedelta(minutes=minute) for minute in failed]
    good_at = None if good is None else NOW + timedelta(minutes=good)
    expected = len(failed) if good is None else len([minute for minute in failed if minute > good])
    assert pushes.failed_in_a_row(at, good_at) == expected


@given(st.integers(0, 600), st.integers(0, 600))
def test_nobody_has_less_than_the_notice(notice_min: int, told_after_min: int) -> None:
    deadline = NOW + timedelta(hours=1)
    told = pushes.tells_at(deadline, notice_min) + timedelta(minutes=told_after_min)
    out = pushes.turns_out_at(deadline, notice_min, told)
    assert out >= deadline
    assert out - told >= timedelta(minutes=notice_min)


def test_a_tally_is_over_when_nothing_can_go_over_any_more() -> None:
    assert pushes.Tally(there=3, failed=1, aside=2).is_over
    assert pushes.Tally().percent == 100
    for left in ({"free": 1}, {"in_use": 1}, {"on_way": 1}):
        assert not pushes.Tally(there=3, **left).is_over
