"""Applications in the portal: a tile each, opened on a desktop that is one's own."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from lxml import html

from broker.models import Application, Desktop, Entitlement, Pool, Request, Ticket
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def house(db: None) -> Estate:
    house = estate()
    Pool.objects.update(protocol=Pool.Protocol.RDP)
    Desktop.objects.update(addresses=["10.1.2.3"])
    return house


def writer(house: Estate, *people: User, **fields: object) -> Application:
    values = {"name": "Writer", "command": "writer", "icon": "audit"} | fields
    made = Application.objects.create(pool=house.pool, **values)
    for person in people:
        Entitlement.objects.create(pool=house.pool, application=made, user=person)
    return made


def of(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def tiles(client: Client) -> list[tuple[str, str]]:
    """(heading, text) of every tile."""
    page = html.fromstring(client.get(reverse("portal:home")).content)
    found = page.xpath("//article[contains(@class, 'portal-tile')]")
    return [(tile.xpath("string(.//h3)").strip(), " ".join(tile.text_content().split())) for tile in found]


def test_an_application_stands_beside_the_desktop_and_opens_on_it(house: Estate) -> None:
    application, alice = writer(house, house.alice), of(house.alice)
    assert [name for name, _ in tiles(alice)][:2] == ["Office", "Writer"]
    page = html.fromstring(alice.get(reverse("portal:home")).content)
    (address,) = page.xpath(f"//a[@id='open-application-{application.pk}']/@href")
    shown = html.fromstring(alice.get(address).content)
    (connect,) = shown.xpath("//main/@data-connect")
    assert shown.xpath("string(//h1/span)") == "Writer"
    answer = alice.post(connect)
    assert answer.status_code == 200
    assert Ticket.objects.get().application == application


def test_who_has_an_application_only_sees_no_tile_of_the_desktop(house: Estate) -> None:
    writer(house, house.alice)
    Entitlement.objects.filter(application=None).delete()
    names = [name for name, _ in tiles(of(house.alice))]
    assert names == ["Writer"]
    answer = of(house.alice).post(reverse("portal:connect", args=[house.desktop.pk]))
    assert answer.status_code == 403


def test_who_has_no_desktop_yet_has_one_made_ready_and_twice_is_once(house: Estate) -> None:
    application, bob = writer(house, house.bob), of(house.bob)
    Entitlement.objects.filter(application=None).delete()
    Desktop.objects.exclude(pk=house.desktop.pk).delete()
    for _ in range(2):
        assert bob.post(reverse("portal:application-ask", args=[application.pk])).status_code == 302
    assert Request.objects.filter(user=house.bob).count() == 1
    assert "Get it ready" not in dict(tiles(bob))["Writer"]


def test_where_the_pool_wants_a_reason_its_form_comes_next(house: Estate) -> None:
    application, bob = writer(house, house.bob), of(house.bob)
    Entitlement.objects.filter(application=None).delete()
    Pool.objects.update(asks_why="required")
    answer = bob.post(reverse("portal:application-ask", args=[application.pk]))
    assert answer["Location"] == reverse("portal:ask", args=[house.pool.pk])
    assert bob.get(answer["Location"]).status_code == 200


@pytest.mark.parametrize("way", ["portal:connect", "portal:file"])
def test_an_application_of_somebody_elses_does_not_exist(house: Estate, way: str) -> None:
    application, alice = writer(house, house.bob), of(house.alice)
    for named in (str(application.pk), "nonsense"):
        assert alice.post(f"{reverse(way, args=[house.desktop.pk])}?application={named}").status_code == 404
    assert (
        alice.get(f"{reverse('portal:viewer', args=[house.desktop.pk])}?application={application.pk}").status_code
        == 404
    )
    assert alice.post(reverse("portal:application-ask", args=[application.pk])).status_code == 404
    assert not Ticket.objects.exists()


def test_a_tile_says_why_the_browser_does_not_show_it(house: Estate) -> None:
    writer(house, house.alice, guest="windows", command="||winword")
    text = dict(tiles(of(house.alice)))["Writer"]
    assert "browsers cannot show a single Windows application" in text
    assert not html.fromstring(of(house.alice).get(reverse("portal:home")).content).xpath(
        "//a[starts-with(@id, 'open-application')]"
    )


def test_what_is_not_offered_has_no_tile(house: Estate) -> None:
    writer(house, house.alice, is_enabled=False)
    assert "Writer" not in dict(tiles(of(house.alice)))


def test_a_persons_page_tells_applications_from_desktops(house: Estate) -> None:
    Entitlement.objects.all().delete()
    application = writer(house, house.bob)
    page = html.fromstring(of(house.dana).get(reverse("console:user", args=[house.bob.pk])).content)
    (link,) = page.xpath(f"//a[@href='{reverse('console:application', args=[application.pk])}']")
    assert link.text == "Writer"
    assert not page.xpath(
        f"//section[@aria-labelledby='may']//a[@href='{reverse('console:pool', args=[house.pool.pk])}']"
    )
