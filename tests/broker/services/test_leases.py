"""Leases on their rows: begun with the assignment, told of, renewed, ended by the clock, once whoever sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Assignment, AuditEntry, Desktop, Entitlement, Event, Notice, Operation, Pool, Request
from broker.services import brokering, clock, leases, nudges, pools
from broker.services.errors import Clash, Missing
from tests.broker.portal.cast import Estate

HOUR = timedelta(hours=1)


@pytest.fixture
def leased(house: Estate) -> Assignment:
    """Bob's desktop: for four days, told a day before, with a day of grace, to be renewed twice."""
    pools.change_pool(
        actor=house.dana, pool_id=house.pool.pk, lease_h=96, renewals=2, notice_h=24, grace_h=24, asks_how_long=True
    )
    house.make()
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    return held_by(house.bob)


def held_by(user: User) -> Assignment:
    return Assignment.objects.select_related("desktop", "user").get(user=user, until=None)


def whole(moment: datetime) -> datetime:
    """Leases end on whole seconds."""
    return moment.replace(microsecond=0)


def pass_by(assignment: Assignment, span: timedelta) -> None:
    """Let time pass: every moment of the row moves back."""
    moments = ("since", "lease_until", "told_at", "end_told_at", "next_lease_at")
    row = Assignment.objects.get(pk=assignment.pk)
    moved = {name: at - span for name in moments if isinstance(at := getattr(row, name), datetime)}
    Assignment.objects.filter(pk=assignment.pk).update(**moved)


def turn(assignment: Assignment) -> None:
    """The clock finds what is due, and a worker does it."""
    for pk in leases.due():
        leases.run(pk)
    assignment.refresh_from_db()


def is_over(assignment: Assignment) -> bool:
    return Assignment.objects.filter(pk=assignment.pk, until__isnull=False).exists()


def told(user: User) -> list[str]:
    return list(Notice.objects.filter(user=user).order_by("created_at").values_list("kind", flat=True))


def test_a_desktop_is_somebodys_for_as_long_as_the_pool_gives(leased: Assignment) -> None:
    assert leased.lease_until == whole(leased.since) + 96 * HOUR
    assert leased.next_lease_at is not None
    assert timedelta(0) <= leased.since + 72 * HOUR - leased.next_lease_at < timedelta(seconds=1)
    assert leases.due() == []


def test_whoever_asks_for_less_gets_less_at_once_and_from_the_queue(house: Estate, leased: Assignment) -> None:
    brokering.release_desktop(actor=house.bob, desktop_id=leased.desktop_id)
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk, hours=8)
    house.make()
    assert brokering.serve_queue(pool_id=house.pool.pk) == 1
    held = held_by(house.bob)
    assert held.lease_until == whole(held.since) + 8 * HOUR


def test_a_pool_without_leases_gives_for_ever(house: Estate) -> None:
    house.make()
    brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    held = held_by(house.bob)
    assert (held.lease_until, held.next_lease_at) == (None, None)
    with pytest.raises(Clash, match="is not leased"):
        leases.renew(actor=house.bob, desktop_id=held.desktop_id)


def test_its_user_is_told_before_the_end_at_the_end_and_when_it_is_taken_back(leased: Assignment) -> None:
    pass_by(leased, 72 * HOUR)
    turn(leased)
    assert told(leased.user) == ["lease_soon"]
    turn(leased)
    pass_by(leased, 24 * HOUR)
    turn(leased)
    assert told(leased.user) == ["lease_soon", "lease_ended"]
    turn(leased)
    assert not is_over(leased)
    pass_by(leased, 24 * HOUR)
    turn(leased)
    assert told(leased.user) == ["lease_soon", "lease_ended", "desktop_reclaimed"]
    assert is_over(leased)
    desktop = Desktop.objects.get(pk=leased.desktop_id)
    assert desktop.state == State.RECYCLING
    assert Operation.objects.get(desktop=desktop).kind == "recycle"
    assert Request.objects.get(user=leased.user).state == Request.State.ENDED
    entry = AuditEntry.objects.get(action="desktop.reclaim")
    assert (entry.actor, entry.actor_name) == (None, "deskyard")


def test_a_notice_names_the_moments_and_whether_it_may_be_renewed(leased: Assignment) -> None:
    pass_by(leased, 72 * HOUR)
    turn(leased)
    facts = Notice.objects.get(kind="lease_soon").facts
    assert facts["may_renew"] is True
    assert leased.lease_until is not None
    assert facts["until"] == f"{leased.lease_until:%a %d %b %Y, %H:%M UTC}"
    assert facts["gone"] == f"{leased.lease_until + 24 * HOUR:%a %d %b %Y, %H:%M UTC}"


def test_after_a_long_stop_nothing_is_taken_back_before_its_user_was_told(leased: Assignment) -> None:
    pass_by(leased, 1000 * HOUR)
    turn(leased)
    turn(leased)
    assert not is_over(leased)
    assert told(leased.user) == ["lease_ended"]
    pass_by(leased, 23 * HOUR)
    turn(leased)
    assert not is_over(leased)
    pass_by(leased, HOUR)
    turn(leased)
    assert is_over(leased)


def test_a_dedicated_desktop_stays_and_its_pools_owners_are_told_once(house: Estate, leased: Assignment) -> None:
    Pool.objects.filter(pk=house.pool.pk).update(kind="dedicated")
    for _ in range(6):
        pass_by(leased, 30 * HOUR)
        turn(leased)
    assert not is_over(leased)
    assert leased.next_lease_at is None
    assert told(house.bob) == ["lease_soon", "lease_ended"]
    assert "gone" not in Notice.objects.get(kind="lease_soon").facts
    assert told(house.dana) == ["lease_overdue"]
    assert Event.objects.filter(kind="lease.overdue").count() == 1


def test_a_dedicated_desktop_goes_if_its_pool_says_so(house: Estate, leased: Assignment) -> None:
    Pool.objects.filter(pk=house.pool.pk).update(kind="dedicated", reclaims=True)
    for _ in range(6):
        pass_by(leased, 30 * HOUR)
        turn(leased)
    assert is_over(leased)


# --- renewed ---------------------------------------------------------------------------------------------------------


def test_renewed_it_begins_anew_with_its_warnings(leased: Assignment) -> None:
    pass_by(leased, 72 * HOUR)
    turn(leased)
    until = leased.lease_until
    assert until is not None
    renewed, is_new = leases.renew(actor=leased.user, desktop_id=leased.desktop_id, seen_until=until)
    assert is_new
    assert (renewed.lease_until, renewed.renewals, renewed.told_at) == (until + 96 * HOUR, 1, None)
    assert leases.due() == []
    assert AuditEntry.objects.get(action="lease.renew").actor == leased.user


def test_the_button_pressed_twice_renews_once(leased: Assignment) -> None:
    for is_first in (True, False):
        _, is_new = leases.renew(actor=leased.user, desktop_id=leased.desktop_id, seen_until=leased.lease_until)
        assert is_new == is_first
    leased.refresh_from_db()
    assert leased.renewals == 1


def test_the_last_renewal_is_said_to_be_the_last(leased: Assignment) -> None:
    for _ in range(2):
        leases.renew(actor=leased.user, desktop_id=leased.desktop_id)
    with pytest.raises(Clash, match="cannot be renewed again"):
        leases.renew(actor=leased.user, desktop_id=leased.desktop_id)


def test_nobody_renews_for_others_but_administrators(house: Estate, leased: Assignment) -> None:
    for stranger in (house.alice, house.charlie):
        with pytest.raises(Missing):
            leases.renew(actor=stranger, desktop_id=leased.desktop_id)
    assert leases.renew(actor=house.dana, desktop_id=leased.desktop_id)[1]


# --- whoever sees it, once -------------------------------------------------------------------------------------------


def over(leased: Assignment) -> None:
    """Told, over, and the grace too."""
    for hours in (72, 24, 24):
        turn(leased)
        pass_by(leased, hours * HOUR)


def test_a_renewal_that_comes_just_before_wins(leased: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
    over(leased)
    step = leases._reclaim

    def meanwhile(assignment: Assignment, now: datetime) -> None:
        leases.renew(actor=leased.user, desktop_id=leased.desktop_id)
        step(assignment, now)

    monkeypatch.setattr(leases, "_reclaim", meanwhile)
    turn(leased)
    assert not is_over(leased)
    assert leased.renewals == 1
    assert Desktop.objects.get(pk=leased.desktop_id).state == State.ASSIGNED
    assert "desktop_reclaimed" not in told(leased.user)


def test_a_release_that_comes_just_before_wins(leased: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
    over(leased)
    step = leases._reclaim

    def meanwhile(assignment: Assignment, now: datetime) -> None:
        brokering.release_desktop(actor=leased.user, desktop_id=leased.desktop_id)
        step(assignment, now)

    monkeypatch.setattr(leases, "_reclaim", meanwhile)
    turn(leased)
    assert Operation.objects.filter(desktop=leased.desktop_id, kind="recycle").count() == 1
    assert "desktop_reclaimed" not in told(leased.user)


def test_a_desktop_that_is_being_moved_is_taken_back_later(leased: Assignment) -> None:
    over(leased)
    Desktop.objects.filter(pk=leased.desktop_id).update(is_moving=True)
    turn(leased)
    assert not is_over(leased)
    assert leased.next_lease_at is not None
    assert leased.next_lease_at > timezone.now()
    Desktop.objects.filter(pk=leased.desktop_id).update(is_moving=False)
    pass_by(leased, HOUR)
    turn(leased)
    assert is_over(leased)


def test_a_lease_that_two_see_is_told_of_once(leased: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_by(leased, 72 * HOUR)
    step = leases._tell

    def meanwhile(*seen: Any) -> None:
        monkeypatch.setattr(leases, "_tell", step)
        leases.run(leased.pk)
        step(*seen)

    monkeypatch.setattr(leases, "_tell", meanwhile)
    turn(leased)
    assert told(leased.user) == ["lease_soon"]


def test_the_clock_hints_at_leases(house: Estate, leased: Assignment, hints: Callable[[], Any]) -> None:
    pass_by(leased, 72 * HOUR)
    with hints() as sent:
        clock.tick()
    assert (nudges.LEASE, str(leased.pk)) in sent


# --- terms that change under a lease ---------------------------------------------------------------------------------


def test_a_pool_that_begins_to_take_back_tells_its_users_first(house: Estate, leased: Assignment) -> None:
    """They were told that it stays: it must not vanish because somebody ticked a box."""
    Pool.objects.filter(pk=house.pool.pk).update(kind="dedicated")
    for _ in range(6):
        pass_by(leased, 30 * HOUR)
        turn(leased)
    assert leased.next_lease_at is None
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, reclaims=True)
    turn(leased)
    turn(leased)
    assert not is_over(leased)
    newest = Notice.objects.filter(user=house.bob, kind="lease_ended").latest("created_at")
    assert "gone" in newest.facts
    pass_by(leased, 24 * HOUR)
    turn(leased)
    assert is_over(leased)


def test_with_less_grace_than_was_told_its_user_is_told_anew(house: Estate, leased: Assignment) -> None:
    pass_by(leased, 95 * HOUR)
    turn(leased)
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, grace_h=0)
    pass_by(leased, 2 * HOUR)
    turn(leased)
    turn(leased)
    assert not is_over(leased)
    assert told(leased.user) == ["lease_soon", "lease_ended"]
    pass_by(leased, 24 * HOUR)
    turn(leased)
    assert is_over(leased)


def test_a_change_of_terms_tells_nobody_whose_end_is_far(house: Estate, leased: Assignment) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, notice_h=48)
    turn(leased)
    assert told(leased.user) == []
    assert leased.lease_until is not None
    assert leased.next_lease_at == leased.lease_until - min(48 * HOUR, (leased.lease_until - leased.since) / 2)


def test_whoever_lost_access_to_the_pool_does_not_renew(house: Estate, leased: Assignment) -> None:
    Entitlement.objects.all().delete()
    with pytest.raises(Clash, match="no longer have access"):
        leases.renew(actor=leased.user, desktop_id=leased.desktop_id)
