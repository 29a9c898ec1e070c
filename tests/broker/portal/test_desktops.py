"""My desktops, as their user sees them and as nobody else does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from broker.domain.lifecycle import State
from broker.models import Assignment, Desktop, Entitlement, Hypervisor, Operation, Request, Ticket
from tests.broker.portal.cast import Estate, squeezed

As = Callable[[User], Client]


def home(client: Client) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return squeezed(response.content)


def power_operation(house: Estate, state: str, action: str = "on", error: str = "") -> Operation:
    now = timezone.now()
    return Operation.objects.create(
        kind="power",
        state=state,
        hypervisor=house.hypervisor,
        desktop=house.desktop,
        epoch=house.desktop.epoch,
        parameters={"action": action},
        error=error,
        created_at=now,
        deadline_at=now + timedelta(minutes=10),
    )


def test_alice_sees_her_desktop_with_one_main_button(house: Estate, as_: As) -> None:
    page = home(as_(house.alice))
    assert "office-001" in page
    assert f"/desktops/{house.desktop.pk}/open/" in page
    assert page.count("button--primary") == 1
    assert ">Ready<" in page


def test_a_desktop_that_is_moved_says_so_and_offers_nothing_that_would_be_refused(house: Estate, as_: As) -> None:
    Desktop.objects.filter(pk=house.desktop.pk).update(is_moving=True, is_in_maintenance=True)
    alice = as_(house.alice)
    page = home(alice)
    assert ">Being moved<" in page
    assert "It is being moved to another host and will be there in a while. You need do nothing." in page
    assert f"/desktops/{house.desktop.pk}/" not in page, "no button leads to it"
    assert "Your administrator is at work on it" not in page
    menu = squeezed(alice.get(f"/desktops/{house.desktop.pk}/choices/").content)
    assert "/release/" not in menu
    assert "/power/" not in menu
    # Its old host may be what was lost.
    Hypervisor.objects.update(status="down")
    page = home(alice)
    assert ">Being moved<" in page
    assert "cannot be reached" not in page


def test_bob_sees_the_pool_but_not_alices_desktop(house: Estate, as_: As) -> None:
    page = home(as_(house.bob))
    assert "office-001" not in page
    assert f"/pools/{house.pool.pk}/request/" in page


@pytest.mark.parametrize("who", ["charlie", "dana"])
def test_a_stranger_sees_a_friendly_empty_page(house: Estate, as_: As, who: str) -> None:
    page = home(as_(getattr(house, who)))
    assert "Nothing here for you yet" in page
    assert "office" not in page.lower()


def test_nobody_sees_anything_without_signing_in(house: Estate, client: Client) -> None:
    for path in ("/", "/desktops/", f"/desktops/{house.desktop.pk}/open/"):
        response = client.get(path)
        assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/sign-in/"), path
    assert client.post(f"/desktops/{house.desktop.pk}/connect/").status_code == 401


def test_a_fragment_asked_for_after_the_session_ended_sends_the_whole_page_to_the_sign_in(
    client: Client, db: None
) -> None:
    response = client.get("/desktops/", headers={"HX-Request": "true"})
    assert (response.status_code, response.headers["HX-Redirect"]) == (401, "/sign-in/?next=%2F")


@pytest.mark.parametrize("who", ["bob", "charlie", "dana"])
def test_somebody_elses_desktop_does_not_exist(house: Estate, as_: As, who: str) -> None:
    client = as_(getattr(house, who))
    for desktop in (house.desktop.pk, uuid4()):
        for path in ("open/", "state/", "choices/", "release/", "power/reboot/"):
            assert client.get(f"/desktops/{desktop}/{path}").status_code == 404, path
        for path in ("connect/", "release/", "power/reset/", "power/on/"):
            assert client.post(f"/desktops/{desktop}/{path}").status_code == 404, path
    assert not Operation.objects.exists()
    assert Assignment.objects.get().until is None


def test_an_action_that_is_none_is_not_found(house: Estate, as_: As) -> None:
    assert as_(house.alice).post(f"/desktops/{house.desktop.pk}/power/explode/").status_code == 404


@pytest.mark.parametrize(
    ("fields", "label", "button"),
    [
        ({"power": "off", "is_answering": False}, "Switched off", "Start"),
        ({"power": "suspended", "is_answering": False}, "Asleep", "Resume"),
        ({"is_answering": False}, "Preparing", "Open"),
        ({"state": State.MISSING}, "Cannot be found", ""),
    ],
)
def test_the_state_is_said_in_words(house: Estate, as_: As, fields: dict[str, object], label: str, button: str) -> None:
    for name, value in fields.items():
        setattr(house.desktop, name, value)
    house.desktop.save()
    page = home(as_(house.alice))
    assert f">{label}<" in page
    assert ("button--primary" in page) == bool(button)
    assert button in page


def test_a_start_under_way_shows_the_words_of_the_wait(house: Estate, as_: As) -> None:
    house.desktop.power = "off"
    house.desktop.save()
    power_operation(house, "running")
    page = home(as_(house.alice))
    assert '<li data-state="done">Finding</li>' in page
    assert '<li data-state="now" aria-current="step">Starting</li>' in page
    assert '<li data-state="later">Connecting</li>' in page


def test_a_start_that_failed_says_why_with_a_reference(house: Estate, as_: As) -> None:
    operation = power_operation(house, "failed", error="Its host has too little free memory.")
    page = home(as_(house.alice))
    assert "Its host has too little free memory." in page
    assert str(operation.pk)[:8].upper() in page


def test_what_failed_under_the_last_user_is_not_shown_to_the_next(house: Estate, as_: As) -> None:
    Operation.objects.filter(pk=power_operation(house, "failed", error="Old news.").pk).update(epoch=1)
    assert "Old news." not in home(as_(house.alice))


def test_a_lost_host_and_a_lost_entitlement_are_said(house: Estate, as_: As) -> None:
    Hypervisor.objects.update(status=Hypervisor.Status.DOWN, status_reason="no route to 10.0.0.1")
    page = home(as_(house.alice))
    assert "cannot be reached" in page
    assert "Out of reach" in page
    assert "10.0.0.1" not in page
    assert f"/desktops/{house.desktop.pk}/open/" not in page, "nothing would come of it"
    Hypervisor.objects.update(status=Hypervisor.Status.UP)
    assert f"/desktops/{house.desktop.pk}/open/" in home(as_(house.alice))
    Entitlement.objects.filter(user=house.alice).delete()
    page = home(as_(house.alice))
    assert "no longer have access" in page
    assert f"/desktops/{house.desktop.pk}/open/" not in page


def test_names_are_shown_as_text_whatever_they_hold(house: Estate, as_: As) -> None:
    house.pool.name = "<script>alert(1)</script>"
    house.pool.save()
    page = home(as_(house.alice))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_of_twenty_pools_takes_few_statements_however_many_desktops_there_are(
    house: Estate, as_: As, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        pool = house.open_pool(f"Pool {number:02}")
        Entitlement.objects.create(pool=pool, user=house.alice)
        for _ in range(number % 4):
            house.make(pool)
        if number % 3 == 0:
            house.give(house.alice, pool)
        if number % 3 == 1:
            Request.objects.create(pool=pool, user=house.alice, created_at=timezone.now())
    power_operation(house, "running")
    client = as_(house.alice)
    home(client)
    with django_assert_max_num_queries(10):
        few = home(client)
    for _ in range(200):
        house.make(house.pool)
    with django_assert_max_num_queries(10):
        assert home(client).count("tile__foot") == few.count("tile__foot")


# --- power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["reboot", "shutdown", "reset", "off"])
def test_what_can_lose_work_asks_first(house: Estate, as_: As, action: str) -> None:
    client = as_(house.alice)
    question = client.get(f"/desktops/{house.desktop.pk}/power/{action}/").content.decode()
    assert "not saved" in question
    assert "office-001" in question
    assert not Operation.objects.exists()
    response = client.post(f"/desktops/{house.desktop.pk}/power/{action}/", headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert "office-001" in response.headers["HX-Trigger"]
    operation = Operation.objects.get()
    assert (operation.parameters["action"], operation.requested_by) == (action, house.alice)


def test_a_question_in_the_dialog_comes_without_the_page_around_it(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    path = f"/desktops/{house.desktop.pk}/release/"
    assert "<html" not in client.get(path, headers={"HX-Request": "true"}).content.decode()
    assert "<html" in client.get(path).content.decode()


def test_the_menu_of_an_open_screen_can_be_asked_for_what_makes_sense_now(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    address = f"/desktops/{house.desktop.pk}/choices/"
    assert "Restart" in client.get(address).content.decode()
    house.desktop.power = "off"
    house.desktop.save(update_fields=["power"])
    offered = client.get(address).content.decode()
    assert "Switch on" in offered
    assert "Restart" not in offered
    assert address in client.get(f"/desktops/{house.desktop.pk}/open/").content.decode()


def test_a_desktop_that_is_busy_refuses_in_the_dialog(house: Estate, as_: As) -> None:
    power_operation(house, "running", "reboot")
    response = as_(house.alice).post(f"/desktops/{house.desktop.pk}/power/reset/", headers={"HX-Request": "true"})
    assert response.status_code == 422
    assert "busy" in response.content.decode()


# --- release ---------------------------------------------------------------------------------------------------------


def test_release_warns_of_the_files_then_gives_the_desktop_back(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    assert "deleted for good" in client.get(f"/desktops/{house.desktop.pk}/release/").content.decode()
    response = client.post(f"/desktops/{house.desktop.pk}/release/")
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert Assignment.objects.get().until
    page = home(client)
    assert "office-001 was released" in page
    assert f"/desktops/{house.desktop.pk}/" not in page
    assert client.get(f"/desktops/{house.desktop.pk}/open/").status_code == 404


def test_release_from_the_screens_page_leads_home(house: Estate, as_: As) -> None:
    response = as_(house.alice).post(
        f"/desktops/{house.desktop.pk}/release/",
        headers={"HX-Request": "true", "HX-Current-URL": f"http://testserver/desktops/{house.desktop.pk}/open/"},
    )
    assert response.headers["HX-Redirect"] == "/"


# --- screen ----------------------------------------------------------------------------------------------------------


def test_connect_gives_an_address_and_a_ticket_that_is_not_in_it(house: Estate, as_: As) -> None:
    response = as_(house.alice).post(f"/desktops/{house.desktop.pk}/connect/")
    assert response.status_code == 200
    answer = response.json()
    assert answer["url"] == "ws://testserver/relay/screen"
    assert answer["subprotocols"][0] == "binary"
    assert answer["subprotocols"][1].startswith("ticket.")
    assert response.headers["Cache-Control"] == "no-store"


def test_connect_to_a_desktop_that_is_off_starts_it_and_says_what_is_under_way(house: Estate, as_: As) -> None:
    house.desktop.power = "off"
    house.desktop.save()
    client = as_(house.alice)
    response = client.post(f"/desktops/{house.desktop.pk}/connect/")
    operation = Operation.objects.get()
    assert (response.status_code, response.json()["operation"]) == (409, str(operation.pk)[:8].upper())
    assert operation.parameters["action"] == "on"
    state = client.get(f"/desktops/{house.desktop.pk}/state/").json()
    assert (state["power"], state["steps"]["Starting"], state["problem"]) == ("off", "now", "")
    assert not Ticket.objects.exists()


def test_connect_without_the_entitlement_is_forbidden_in_words(house: Estate, as_: As) -> None:
    Entitlement.objects.filter(user=house.alice).delete()
    response = as_(house.alice).post(f"/desktops/{house.desktop.pk}/connect/")
    assert (response.status_code, "no longer" in response.json()["message"]) == (403, True)


def test_connect_wants_a_token_against_forged_requests(house: Estate) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(house.alice)
    assert client.post(f"/desktops/{house.desktop.pk}/connect/").status_code == 403
    assert not Ticket.objects.exists()


def test_the_screens_page_runs_only_scripts_of_our_own(house: Estate, as_: As) -> None:
    response = as_(house.alice).get(f"/desktops/{house.desktop.pk}/open/")
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    page = response.content.decode()
    assert " style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count("<script src=")
