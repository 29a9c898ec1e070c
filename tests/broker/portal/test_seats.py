"""A seat in the portal: a tile like any other, without what others on the host would suffer from."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from lxml import html

from broker.models import Assignment, Desktop, Entitlement, Pool
from broker.services import brokering, screens
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(house: Estate) -> Desktop:
    """Of two seats; Bob is on it."""
    pool = house.open_pool("Hall", kind=Pool.Kind.SHARED, protocol=Pool.Protocol.RDP, seats=2, maximum=1)
    made = house.make(pool, addresses=["10.1.2.3"])
    for user in (house.alice, house.bob, house.dana):
        Entitlement.objects.create(pool=pool, user=user)
    brokering.request_desktop(user=house.bob, pool_id=pool.pk)
    made.refresh_from_db()
    return made


def of(person: object) -> Client:
    client = Client()
    client.force_login(person)  # type: ignore[arg-type]
    return client


def page(client: Client) -> str:
    return " ".join(html.fromstring(client.get(reverse("portal:home")).content).text_content().split())


def test_a_free_seat_is_offered_and_taken_and_opened(house: Estate, host: Desktop) -> None:
    alice = of(house.alice)
    assert "A desktop is ready for you." in page(alice)
    alice.post(reverse("portal:ask", args=[host.pool_id]))
    assert Assignment.objects.get(user=house.alice, desktop=host, until=None).seat == 2
    assert host.name in page(alice)
    opened = alice.post(reverse("portal:connect", args=[host.pk]))
    assert (opened.status_code, opened.json()["protocol"]) == (200, "rdp")


def test_where_all_seats_are_taken_none_is_offered_as_ready(house: Estate, host: Desktop) -> None:
    brokering.request_desktop(user=house.alice, pool_id=host.pool_id)
    assert "A desktop is ready for you." not in page(of(house.dana))


def test_nothing_of_the_others_is_told_or_offered(house: Estate, host: Desktop) -> None:
    screens.start_session(
        admission=screens.Admission(UUID(int=0), host.pk, host.epoch, house.bob.pk, "rdp"), address=None
    )
    brokering.request_desktop(user=house.alice, pool_id=host.pool_id)
    alice = of(house.alice)
    tiles = html.fromstring(alice.get(reverse("portal:home")).content).xpath(f"//article[@data-name='Hall {host}']")
    (tile,) = tiles
    words = " ".join(tile.text_content().split())
    assert "In use" not in words
    assert "bob" not in words
    assert not tile.xpath(".//*[contains(@href, '/power/')]")
    refused = alice.post(reverse("portal:power", args=[host.pk, "off"]))
    assert refused.status_code == 422
    assert "Others are on" in refused.content.decode()


def test_a_seat_is_left_with_a_question_that_says_what_is_lost(house: Estate, host: Desktop) -> None:
    bob = of(house.bob)
    asked = bob.get(reverse("portal:release", args=[host.pk]))
    assert "Give my seat back" in asked.content.decode()
    bob.post(reverse("portal:release", args=[host.pk]))
    assert not Assignment.objects.filter(user=house.bob, until=None).exists()
