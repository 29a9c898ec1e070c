"""The first page: every number opens the list behind it, and none of its lists grows with the estate."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from lxml import html

from broker.domain.lifecycle import State
from broker.models import Hypervisor
from broker.selectors import dashboard, pools
from tests.broker.portal.cast import Estate


def cells(page: Client) -> dict[str, dict[str, tuple[str, str]]]:
    """Pool -> heading -> the number and where it leads, of the table of pools."""
    shown = html.fromstring(page.get(reverse("console:dashboard")).content)
    found = {}
    for row in shown.xpath("//section[@aria-labelledby='use-pools']//tbody/tr"):
        name, *numbers = row.findall("td")
        found[name.text_content().strip()] = {
            cell.get("data-label"): (cell.text_content().strip(), "".join(cell.xpath(".//a/@href"))) for cell in numbers
        }
    return found


def test_each_pool_tells_its_desktops_and_leads_to_them(house: Estate, dana: Client) -> None:
    pool = house.open_pool("Kiosk")
    for state, number in ((State.READY, 3), (State.FAILED, 2), (State.MISSING, 1)):
        for _ in range(number):
            house.make(pool, state=state)
    desktop = house.give(house.bob, pool)
    now = timezone.now()
    for _ in range(2):
        desktop.sessions.create(user=house.bob, epoch=desktop.epoch, protocol="vnc", started_at=now, seen_at=now)
    told = cells(dana)["Kiosk"]
    assert {name: number for name, (number, _address) in told.items()} == {
        "Ready": "3", "Assigned": "1", "In use right now": "1", "On their way": "0", "Failed": "2", "Missing": "1",
    }  # fmt: skip
    assert not told["On their way"][1]
    for name, (shown, address) in told.items():
        if address:
            listed = html.fromstring(dana.get(address).content)
            assert len(listed.xpath("//table//tbody/tr")) == int(shown), name


def test_pools_with_failures_stand_first_and_the_rest_is_a_click_away(house: Estate, dana: Client) -> None:
    for number in range(dashboard.SHOWN + 3):
        house.open_pool(f"Room {number:02}")
    troubled = house.open_pool("Workshop")
    house.make(troubled, state=State.FAILED)
    assert next(iter(cells(dana))) == "Workshop"
    assert len(cells(dana)) == dashboard.SHOWN


@pytest.mark.parametrize("heading", ["needs-pools", "needs-hypervisors"])
def test_a_long_list_of_troubles_is_cut_and_says_how_many_there_are(house: Estate, dana: Client, heading: str) -> None:
    for number in range(dashboard.SHOWN + 3):
        house.open_pool(f"Room {number:02}", spare=5)
        Hypervisor.objects.create(name=f"Host {number:02}", kind="kvm", status=Hypervisor.Status.DOWN)
    shown = html.fromstring(dana.get(reverse("console:dashboard")).content)
    (card,) = shown.xpath(f"//section[@aria-labelledby='{heading}']")
    assert len(card.findall(".//li")) == dashboard.SHOWN
    seen = dashboard.overview(timezone.now())
    number = {"needs-pools": seen.short_count, "needs-hypervisors": seen.troubled_count}[heading]
    assert number >= dashboard.SHOWN + 3
    (link,) = card.xpath(".//p/a")
    assert link.text_content().strip() == f"All {number} of them"
    listed = html.fromstring(dana.get(link.get("href")).content)
    assert len(listed.xpath("//table//tbody/tr")) == number


def test_more_pools_cost_no_more_statements(house: Estate) -> None:
    def statements(ask: Callable[[], object]) -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            ask()
        return len(seen)

    house.open_pool("Room", spare=5)
    few = statements(lambda: dashboard.overview(timezone.now()))
    for number in range(30):
        house.open_pool(f"Room {number:02}", spare=5)
    assert statements(lambda: dashboard.overview(timezone.now())) == few


def test_why_nothing_can_be_built_is_asked_for_those_alone_that_lack_something(house: Estate) -> None:
    full, short = house.open_pool("Full", spare=0), house.open_pool("Short", spare=1)
    Hypervisor.objects.update(status=Hypervisor.Status.DOWN)
    now = timezone.now()
    said = pools.explained(pools.standings([full, short], now), now)
    assert [bool(one.why_nothing) for one in said] == [False, True]
    with CaptureQueriesContext(connection) as seen:
        pools.explained(pools.standings([full], now), now)
    assert len(seen) == 2
