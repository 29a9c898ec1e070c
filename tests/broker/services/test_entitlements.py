"""Who may have desktops, and what ends when that is taken away."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from broker.models import Assignment, AuditEntry, Entitlement, Request
from broker.services import brokering, entitlements, people, screens
from broker.services.errors import Forbidden, Invalid, Missing
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def waiting(house: Estate) -> Request:
    """Bob, entitled through his group, waits: the only desktop is Alice's."""
    request, is_new = brokering.request_desktop(user=house.bob, pool_id=house.pool.pk)
    assert is_new
    assert request.state == "approved"
    return request


def test_a_user_and_a_group_are_entitled_once(house: Estate) -> None:
    made, is_new = entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.charlie.pk)
    again = entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, user_id=house.charlie.pk)
    assert (is_new, again) == (True, (made, False))
    assert AuditEntry.objects.get().changes["user"] == [None, "charlie"]
    _, is_new = entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, group_id=house.staff.pk)
    assert not is_new


@pytest.mark.parametrize("who", [{}, {"user_id": 1, "group_id": 1}, {"user_id": 10**9}, {"group_id": 10**9}])
def test_exactly_one_known_user_or_group_is_named(house: Estate, who: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        entitlements.entitle(actor=house.dana, pool_id=house.pool.pk, **who)


def test_withdrawing_ends_the_place_in_the_queue_with_a_reason(house: Estate) -> None:
    request = waiting(house)
    entitlements.withdraw(actor=house.dana, entitlement_id=Entitlement.objects.get(group=house.staff).pk)
    request.refresh_from_db()
    assert (request.state, request.reason) == ("refused", entitlements.WITHDRAWN)
    assert request.ended_at is not None


def test_whoever_is_entitled_in_another_way_keeps_the_place(house: Estate) -> None:
    request = waiting(house)
    Entitlement.objects.create(pool=house.pool, user=house.bob)
    entitlements.withdraw(actor=house.dana, entitlement_id=Entitlement.objects.get(group=house.staff).pk)
    request.refresh_from_db()
    assert request.state == "approved"


def test_an_assigned_desktop_stays_but_cannot_be_opened(house: Estate) -> None:
    entitlements.withdraw(actor=house.dana, entitlement_id=Entitlement.objects.get(user=house.alice).pk)
    assert Assignment.objects.filter(user=house.alice, until=None).exists()
    with pytest.raises(Forbidden):
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="vnc", session_key="any")


def test_leaving_a_group_ends_what_rested_on_it(house: Estate) -> None:
    request = waiting(house)
    people.set_groups(actor=house.dana, user_id=house.bob.pk, group_ids=[])
    request.refresh_from_db()
    assert request.state == "refused"


def test_other_peoples_requests_stay(house: Estate) -> None:
    other = Request.objects.create(pool=house.open_pool("Other"), user=house.bob, created_at=timezone.now())
    waiting(house)
    entitlements.withdraw(actor=house.dana, entitlement_id=Entitlement.objects.get(user=house.alice).pk)
    other.refresh_from_db()
    assert other.state == "approved"
    assert Request.objects.filter(user=house.bob, pool=house.pool, state="approved").exists()


@pytest.mark.parametrize("person", ["alice", "bob", "charlie"])
def test_only_administrators_have_a_say(house: Estate, person: str) -> None:
    actor = getattr(house, person)
    with pytest.raises(Forbidden):
        entitlements.entitle(actor=actor, pool_id=house.pool.pk, user_id=actor.pk)
    with pytest.raises(Forbidden):
        entitlements.withdraw(actor=actor, entitlement_id=Entitlement.objects.first().pk)  # type: ignore[union-attr]


def test_unknown_pools_and_entitlements_are_missing(house: Estate) -> None:
    with pytest.raises(Missing):
        entitlements.entitle(actor=house.dana, pool_id=uuid4(), user_id=house.bob.pk)
    with pytest.raises(Missing):
        entitlements.withdraw(actor=house.dana, entitlement_id=uuid4())
