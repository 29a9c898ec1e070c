"""Session hosts by API: who is on one, whose seat is given back, and what users learn of each other: nothing."""

from __future__ import annotations

import pytest

from broker.models import Assignment, Desktop, Entitlement, Pool
from broker.services import brokering, power
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(house: Estate) -> Desktop:
    """Alice and Bob are on it."""
    pool = house.open_pool("Hall", kind=Pool.Kind.SHARED, protocol=Pool.Protocol.RDP, seats=3, spare=0)
    made = house.make(pool)
    for user in (house.alice, house.bob):
        Entitlement.objects.create(pool=pool, user=user)
        brokering.request_desktop(user=user, pool_id=pool.pk)
    return made


def test_staff_are_told_who_is_on_a_host(house: Estate, host: Desktop, calling: Callers) -> None:
    dana = calling(house.dana)
    shown = dana.get(f"/desktops/{host.pk}").body
    assert (shown["seats_taken"], shown["user"]) == (2, None)
    seats = dana.get(f"/desktops/{host.pk}/seats").body
    assert [(seat["user"], seat["number"]) for seat in seats["items"]] == [("alice", 1), ("bob", 2)]
    assert dana.get(f"/desktops/{house.desktop.pk}").body["seats_taken"] is None
    assert dana.get(f"/desktops/{house.desktop.pk}/seats").body["items"] == []


def test_a_user_is_told_of_their_own_seat_and_of_nobody_elses(house: Estate, host: Desktop, calling: Callers) -> None:
    bob = calling(house.bob)
    for shown in (bob.get(f"/desktops/{host.pk}").body, bob.get("/desktops").body["items"][0]):
        assert (shown["user"], shown["seats_taken"]) == ("bob", 2)
    assert bob.get(f"/desktops/{host.pk}/seats").status == 403
    power.set_power(actor=house.dana, desktop_id=host.pk, action="reset")
    assert bob.get("/operations").body["items"] == []


def test_a_user_gives_back_their_own_seat(house: Estate, host: Desktop, calling: Callers) -> None:
    alice = calling(house.alice)
    assert alice.post(f"/desktops/{host.pk}/release?user=bob").status == 404
    assert alice.post(f"/desktops/{host.pk}/release").status == 204
    assert alice.post(f"/desktops/{host.pk}/release").status == 404
    assert [row.user for row in Assignment.objects.filter(desktop=host, until=None)] == [house.bob]


def test_the_help_desk_says_whose_and_the_last_one_brings_a_fresh_disk(
    house: Estate, host: Desktop, calling: Callers
) -> None:
    dana = calling(house.dana)
    assert dana.post(f"/desktops/{host.pk}/release").status == 409
    assert dana.post(f"/desktops/{host.pk}/release?user=nobody").status == 422
    assert dana.post(f"/desktops/{host.pk}/release?user=bob").status == 204
    last = dana.post(f"/desktops/{host.pk}/release?user=alice")
    assert (last.status, last.body["kind"]) == (202, "recycle")


def test_a_shared_pool_is_made_and_read(house: Estate, calling: Callers) -> None:
    dana = calling(house.dana)
    wish = {"name": "Hall", "naming": "hall-##", "kind": "shared", "protocol": "rdp", "seats": 12, "spare": 20}
    made = dana.post("/pools", wish)
    assert made.status == 201
    assert (made.body["seats"], made.body["freshens_when_empty"], made.body["spare"]) == (12, True, 20)
    refused = dana.post("/pools", wish | {"name": "Other", "naming": "other-##", "protocol": "vnc"})
    assert refused.status == 422
    assert "one screen for all" in str(refused.body)
