"""Opening, switching and releasing desktops by API, as scripts do."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from broker.models import Desktop, Hypervisor, Operation, Ticket
from broker.services import operations, people, pools
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_connect_gives_an_absolute_address_and_the_ticket_as_a_subprotocol(house: Estate, calling: Callers) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"})
    assert answer.status == 200
    assert answer.body["url"] == "ws://testserver/relay/screen"
    plain, ticket = answer.body["subprotocols"]
    assert plain == "binary"
    assert ticket.startswith("ticket.")
    assert ticket.removeprefix("ticket.") not in answer.body["url"]
    assert answer.body["expires_at"].endswith("Z")
    assert answer.body["operation"]["kind"] == "screen"
    kept = Ticket.objects.get()
    assert kept.token is not None
    assert kept.session_key == ""


def test_behind_tls_the_address_is_wss(house: Estate, calling: Callers, settings: Settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    call = calling(house.alice)
    answer = call(
        "POST",
        f"/desktops/{house.desktop.pk}/connect",
        {"protocol": "vnc"},
        **{"X-Forwarded-Proto": "https", "Host": "testserver"},
    )
    assert answer.body["url"] == "wss://testserver/relay/screen"


def test_a_relay_of_its_own_is_named(house: Estate, calling: Callers, settings: Settings) -> None:
    settings.RELAY_URL = "wss://relay.example"
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {})
    assert answer.body["url"] == "wss://relay.example/relay/screen"


def test_a_browsers_ticket_is_bound_to_its_session(house: Estate) -> None:
    browser = Client()
    browser.force_login(house.alice)
    got = browser.post(f"/api/v1/desktops/{house.desktop.pk}/connect", {}, content_type="application/json")
    assert got.status_code == 200
    kept = Ticket.objects.get()
    assert kept.token is None
    assert kept.session_key


def test_a_desktop_that_is_off_is_started_and_the_conflict_names_the_start(house: Estate, calling: Callers) -> None:
    Desktop.objects.update(power="off")
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"})
    assert (answer.status, answer.media_type) == (409, "application/problem+json")
    assert (answer.body["operation"]["kind"], answer.body["operation"]["action"]) == ("power", "on")
    assert answer.body["operation"]["id"] == str(Operation.objects.get().pk)
    again = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"})
    assert again.body["operation"]["id"] == answer.body["operation"]["id"]


def test_a_host_that_is_down_is_a_conflict_in_words(house: Estate, calling: Callers) -> None:
    Hypervisor.objects.update(status="down")
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "vnc"})
    assert answer.status == 409
    assert "cannot be reached" in answer.body["detail"]
    assert "operation" not in answer.body


def test_an_unknown_protocol_is_told(house: Estate, calling: Callers) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/connect", {"protocol": "telepathy"})
    assert (answer.status, list(answer.body["fields"])) == (422, ["protocol"])


@pytest.mark.parametrize("action", ["on", "off", "shutdown", "reboot", "reset", "suspend", "resume"])
def test_every_power_action_is_an_operation(house: Estate, calling: Callers, action: str) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/power", {"action": action})
    assert answer.status == 202
    assert (answer.body["kind"], answer.body["action"], answer.body["state"]) == ("power", action, "queued")
    assert answer.body["desktop"] == str(house.desktop.pk)


def test_a_busy_desktop_is_a_conflict_with_what_is_under_way(house: Estate, calling: Callers) -> None:
    call = calling(house.alice)
    first = call.post(f"/desktops/{house.desktop.pk}/power", {"action": "reset"}).body
    second = call.post(f"/desktops/{house.desktop.pk}/power", {"action": "off"})
    assert (second.status, second.body["operation"]["id"]) == (409, first["id"])


def test_an_unknown_action_is_told(house: Estate, calling: Callers) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/power", {"action": "explode"})
    assert (answer.status, list(answer.body["fields"])) == (422, ["action"])


def test_releasing_gives_202_with_the_recycling(house: Estate, calling: Callers) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/release")
    assert (answer.status, answer.body["kind"]) == (202, "recycle")
    assert calling(house.alice).get("/requests").body["items"][0]["state"] == "ended"


def test_releasing_while_something_is_in_flight_names_that(house: Estate, calling: Callers) -> None:
    flying = operations.order(
        kind="power", hypervisor_id=house.hypervisor.pk, desktop=house.desktop, parameters={"action": "off"}
    )
    Operation.objects.update(state="sent", sent_at=timezone.now())
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/release")
    assert (answer.status, answer.body["id"]) == (202, str(flying.pk))


def test_the_administrator_reclaims_retires_and_sets_aside(house: Estate, calling: Callers) -> None:
    dana, spare = calling(house.dana), house.make()
    assert dana.post(f"/desktops/{house.desktop.pk}/retire").status == 409
    assert dana.post(f"/desktops/{house.desktop.pk}/release").status == 202
    assert dana.post(f"/desktops/{spare.pk}/maintenance", {"on": True}).body["is_in_maintenance"] is True
    assert dana.post(f"/desktops/{spare.pk}/maintenance", {"on": False}).body["is_in_maintenance"] is False
    retired = dana.post(f"/desktops/{spare.pk}/retire")
    assert (retired.status, retired.body["state"]) == (202, "retiring")
    assert dana.post(f"/desktops/{spare.pk}/recycle").status == 409


def test_a_file_for_a_remote_desktop_program_is_given_to_its_user_alone(
    house: Estate, calling: Callers, settings: Settings
) -> None:
    settings.RDP_ADDRESS = "desk.example:3390"
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol="rdp", native_clients=True)
    token, plain = people.make_token(actor=house.alice, user=house.alice, name="script")
    path = f"/api/v1/desktops/{house.desktop.pk}/client-file"
    answer = Client().generic("POST", path, headers={"Authorization": f"Bearer {plain}"})  # without any body
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-rdp")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="office-001.rdp"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert "loadbalanceinfo:s:Cookie: msts=" in answer.content.decode("utf-16")
    assert Ticket.objects.get().token == token
    for person in (house.bob, house.dana):
        assert calling(person).post(f"/desktops/{house.desktop.pk}/client-file", {}).status == 404


def test_where_a_desktop_is_opened_in_the_browser_only_no_file_is_given(house: Estate, calling: Callers) -> None:
    answer = calling(house.alice).post(f"/desktops/{house.desktop.pk}/client-file", {})
    assert (answer.status, "in the browser only" in answer.body["detail"]) == (409, True)
