"""Favourites, time left, other devices, opening by itself: what makes the first page pleasant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from broker.domain import devices, tiles
from broker.domain.lifecycle import State
from broker.models import Desktop, Device, Entitlement, Event, Operation, Preferences, Request, ScreenSession
from broker.selectors.search import find
from broker.services import presence, screens
from broker.services.errors import Missing
from tests.broker.portal.cast import PASSWORD, Estate, squeezed

As = Callable[[User], Client]
HTMX: dict[str, Any] = {"headers": {"HX-Request": "true"}}
TYPED: dict[str, Any] = {"headers": {"Sec-Fetch-Site": "none"}}


def page(client: Client, path: str = "/") -> str:
    return squeezed(client.get(path).content)


# --- favourites ------------------------------------------------------------------------------------------------------


def test_favourites_come_first_among_desktops_and_offers(house: Estate, as_: As) -> None:
    zoo = house.open_pool("Zoo")
    Entitlement.objects.create(pool=zoo, user=house.bob)
    bob = as_(house.bob)
    assert page(bob).index(">Office<") < page(bob).index(">Zoo<")
    bob.post(f"/pools/{zoo.pk}/favourite/", {"on": "1"}, **HTMX)
    bob.post(f"/pools/{zoo.pk}/favourite/", {"on": "1"}, **HTMX)
    assert page(bob).index(">Zoo<") < page(bob).index(">Office<")
    assert f'id="favourite-{zoo.pk}" aria-pressed="true"' in page(bob)
    for pool in (house.pool, zoo):
        house.give(house.bob, pool)
    assert page(bob).index(">Zoo<") < page(bob).index(">Office<")
    bob.post(f"/pools/{zoo.pk}/favourite/", {"on": "0"})
    assert page(bob).index(">Office<") < page(bob).index(">Zoo<")


def test_a_pool_that_is_not_open_to_one_is_nobodys_favourite(house: Estate, as_: As) -> None:
    assert as_(house.charlie).post(f"/pools/{house.pool.pk}/favourite/", {"on": "1"}).status_code == 404


# --- how long it takes -----------------------------------------------------------------------------------------------

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_the_time_left_is_the_median_less_what_has_passed_for_the_one_at_ones_place() -> None:
    begun = [NOON - timedelta(seconds=90), NOON - timedelta(seconds=30)]
    builds = [100.0, 120.0, 900.0]
    assert tiles.time_left(builds, begun, 1, NOON) == 30
    assert tiles.time_left(builds, begun, 2, NOON) == 90
    assert tiles.time_left(builds, begun, 3, NOON) is None
    assert tiles.time_left([], begun, 1, NOON) is None
    assert tiles.time_left([10.0], begun, 1, NOON) == 0


def test_whoever_waits_reads_the_place_and_how_long_it_may_take(house: Estate, as_: As) -> None:
    now = timezone.now()
    bob = as_(house.bob)
    bob.post(f"/pools/{house.pool.pk}/request/")
    assert "left, by what the last ones took" not in page(bob)
    for took_s in (280, 300, 4000):
        house.make(epoch=2, state=State.ASSIGNED, ready_at=now)
        newest = Desktop.objects.latest("created_at")
        Desktop.objects.filter(pk=newest.pk).update(created_at=now - timedelta(seconds=took_s))
    house.make(state=State.BUILDING, clean_epoch=0)
    html = page(bob)
    assert "You are next in line." in html
    assert "About 5 min left" in html or "About 4 min 59 s left" in html


def test_a_waiting_request_gives_its_reference(house: Estate, as_: As) -> None:
    bob = as_(house.bob)
    bob.post(f"/pools/{house.pool.pk}/request/")
    assert str(Request.objects.get(user=house.bob).pk)[:8].upper() in page(bob)


def test_the_help_desk_finds_what_a_person_reads_out(house: Estate) -> None:
    request = Request.objects.get(user=house.alice)
    operation = Operation.objects.create(
        kind="power", hypervisor=house.hypervisor, desktop=house.desktop, deadline_at=timezone.now(),
        created_at=timezone.now(),
    )  # fmt: skip
    for row, noun in ((house.desktop, "desktop"), (request, "request"), (operation, "operation")):
        for text in (str(row.pk)[:8], str(row.pk)[:8].upper()):
            assert [(hit.noun, hit.pk) for hit in find(text)] == [(noun, row.pk)]
    assert find("zzzzzzzz") == []


# --- other devices ---------------------------------------------------------------------------------------------------

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Version/18.0 Mobile/15E148 Safari/604.1"
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        (SAFARI, "Safari on an iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/143.0 Safari/537.36 Edg/143.0", "Edge on Windows"),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/537.36 Chrome/143.0 Safari/537.36",
            "Chrome on a Mac",
        ),
        ("curl/8", "a browser"),
        ("", "a browser"),
    ],
)
def test_a_browser_is_named_as_people_name_it(said: str, words: str) -> None:
    assert devices.in_words(said) == words


def look(house: Estate, client: Client, user_agent: str) -> ScreenSession:
    """A screen that the relay carries for this browser."""
    client.post(f"/desktops/{house.desktop.pk}/connect/", headers={"User-Agent": user_agent})
    key, now = client.session.session_key, timezone.now()
    assert key
    return ScreenSession.objects.create(
        desktop=house.desktop, user=house.alice, epoch=house.desktop.epoch, protocol="vnc", started_at=now, seen_at=now,
        session_key=screens.digest(key),
    )  # fmt: skip


def test_a_desktop_that_is_open_elsewhere_says_where_and_is_ended_from_here(house: Estate, as_: As) -> None:
    phone, desk = as_(house.alice), as_(house.alice)
    session = look(house, phone, SAFARI)
    html = page(desk)
    assert "Open on another device:" in html
    assert "Safari on an iPhone" in html
    assert "Resume" in html
    assert "Open on another device:" not in page(phone)
    assert "This browser" in page(phone, "/screens/")
    assert "This browser" not in page(desk, "/screens/")
    answer = desk.post(f"/screens/{session.pk}/end/", **HTMX)
    assert "The desktop keeps running." in answer.headers["HX-Trigger"]
    assert "Open on another device:" not in page(desk)
    assert Event.objects.get(kind="screen.closed").desktop == house.desktop
    assert Desktop.objects.get(pk=house.desktop.pk).state == State.ASSIGNED


def test_the_relay_is_told_to_end_what_was_ended_elsewhere(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    session = look(house, client, FIREFOX)
    admission = screens.Admission(
        ticket_id=session.pk, desktop_id=house.desktop.pk, epoch=house.desktop.epoch, user_id=house.alice.pk,
        protocol="vnc", session_key=client.session.session_key or "", auth_hash=house.alice.get_session_auth_hash(),
        token_id=None,
    )  # fmt: skip
    assert screens.closures({session.pk: admission}) == {}
    assert presence.end_screen(user=house.alice, session_id=session.pk)
    assert screens.closures({session.pk: admission}) == {session.pk: presence.ENDED}
    assert not presence.end_screen(user=house.alice, session_id=session.pk)


def test_nobody_ends_anothers_screen(house: Estate, as_: As) -> None:
    session = look(house, as_(house.alice), FIREFOX)
    for stranger in (house.bob, house.dana):
        with pytest.raises(Missing):
            presence.end_screen(user=stranger, session_id=session.pk)
        assert as_(stranger).post(f"/screens/{session.pk}/end/").status_code == 404
    assert "Firefox" not in page(as_(house.bob), "/screens/")


def test_a_browser_is_noted_once_and_without_its_key(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    for _ in range(2):
        look(house, client, FIREFOX)
    device = Device.objects.get()
    assert device.words == "Firefox on Linux"
    assert str(client.session.session_key) not in device.session_key


# --- opening by itself -----------------------------------------------------------------------------------------------


def wants_it(house: Estate) -> None:
    Preferences.objects.create(user=house.alice, opens_single=True)


def test_a_single_desktop_opens_by_itself_for_those_who_chose_so(house: Estate, as_: As) -> None:
    alice = as_(house.alice)
    assert alice.get("/", **TYPED).status_code == 200
    wants_it(house)
    assert alice.get("/", **TYPED)["Location"] == f"/desktops/{house.desktop.pk}/open/"


def test_the_way_back_does_not_open_it_again(house: Estate, as_: As) -> None:
    wants_it(house)
    alice = as_(house.alice)
    assert alice.get("/", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert alice.get("/").status_code == 200


def test_after_the_sign_in_it_opens_once(house: Estate, client: Client) -> None:
    wants_it(house)
    client.post("/sign-in/", {"username": "alice", "password": PASSWORD})
    first, second = (client.get("/", headers={"Sec-Fetch-Site": "same-origin"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (302, 200)


def test_whoever_signed_in_on_the_way_elsewhere_is_not_led_away_later(house: Estate, client: Client) -> None:
    wants_it(house)
    client.post("/sign-in/", {"username": "alice", "password": PASSWORD, "next": "/notices/"})
    assert client.get("/", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda house: house.give(house.alice, house.open_pool("Zoo")),
        lambda house: Desktop.objects.update(is_in_maintenance=True),
        lambda house: Desktop.objects.update(state=State.MISSING),
        lambda house: Entitlement.objects.all().delete(),
        lambda house: Request.objects.create(pool=house.open_pool("Zoo"), user=house.alice, created_at=timezone.now()),
    ],
)
def test_where_there_is_something_to_choose_or_to_read_it_does_not(
    house: Estate, as_: As, change: Callable[[Estate], object]
) -> None:
    wants_it(house)
    change(house)
    assert as_(house.alice).get("/", **TYPED).status_code == 200
