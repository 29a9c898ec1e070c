"""Applications by API: published, changed, withdrawn by those who run pools; seen and opened by whose they are."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings

from broker.models import Application, Entitlement, Ticket
from tests.broker.api.conftest import Caller, Callers
from tests.broker.api.test_failovers import refused
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


@pytest.fixture
def dana(house: Estate, calling: Callers, settings: Settings) -> Caller:
    settings.RDP_ADDRESS = "desk.example:3390"
    house.pool.protocol = "rdp"
    house.pool.native_clients = True
    house.pool.save()
    return calling(house.dana)


def writer(house: Estate, **more: object) -> dict[str, Any]:
    return {"pool": str(house.pool.pk), "name": "Writer", "command": "/usr/bin/libreoffice", **more}


def test_it_is_published_changed_and_withdrawn(house: Estate, dana: Caller) -> None:
    made = dana.post("/applications", writer(house, arguments="--writer", folder="/srv"))
    assert (made.status, made.body["is_enabled"], made.body["entitled"]) == (201, True, 0)
    path = f"/applications/{made.body['id']}"
    let_in = dana.post("/entitlements", {"pool": made.body["pool"], "application": made.body["id"], "user": "bob"})
    assert let_in.status == 201
    changed = dana("PATCH", path, {"name": "Texts", "is_enabled": False})
    assert changed.body == made.body | {"name": "Texts", "is_enabled": False, "entitled": 1}, "the rest stays"
    assert dana.get(path).body == changed.body
    assert dana.get("/applications").body == {"items": [changed.body], "total": 1}
    assert dana("DELETE", path).status == 204
    assert dana.get(path).status == 404
    assert not Entitlement.objects.filter(user=house.bob).exists()


@pytest.mark.parametrize(
    ("wish", "field", "words"),
    [
        ({"command": ""}, "command", "Say what is to be started."),
        ({"icon": "dragon"}, "icon", ""),
        ({"guest": "beos"}, "guest", ""),
        ({"name": "x" * 101}, "name", ""),
        ({"arguments": "x" * 200, "command": "y" * 100}, "arguments", "255 characters together"),
        ({"command": "a\nb"}, "command", ""),
    ],
)
def test_what_is_wrong_is_said_field_by_field(
    house: Estate, dana: Caller, wish: dict[str, object], field: str, words: str
) -> None:
    answer = dana.post("/applications", writer(house) | wish)
    assert (answer.status, list(answer.body["fields"])) == (422, [field])
    assert words in str(answer.body["fields"][field])
    assert not Application.objects.exists()


def test_a_pool_of_machine_screens_has_none_and_an_unknown_one_is_missing(house: Estate, dana: Caller) -> None:
    house.pool.protocol = "vnc"
    house.pool.save()
    assert "protocol RDP" in str(dana.post("/applications", writer(house)).body["fields"]["pool"])
    refused(dana.post("/applications", writer(house) | {"pool": str(uuid4())}), 404, "There is no such pool.")


def test_people_see_what_they_may_open_and_not_how_it_is_started(house: Estate, dana: Caller, calling: Callers) -> None:
    mine = dana.post("/applications", writer(house)).body
    foreign = dana.post("/applications", writer(house, name="Accounts")).body
    dana.post("/entitlements", {"pool": mine["pool"], "application": mine["id"], "user": "alice"})
    alice = calling(house.alice)
    assert [item["name"] for item in alice.get("/applications").body["items"]] == ["Writer"]
    assert not alice.get(f"/applications/{mine['id']}").body.keys() & {"command", "arguments", "folder", "entitled"}
    unknown = alice.get(f"/applications/{uuid4()}")
    assert alice.get(f"/applications/{foreign['id']}").body == unknown.body
    assert unknown.status == 404
    dana("PATCH", f"/applications/{mine['id']}", {"is_enabled": False})
    assert alice.get("/applications").body["total"] == 0


def test_its_screen_and_its_file_are_asked_for_by_the_desktop(house: Estate, dana: Caller, calling: Callers) -> None:
    mine = dana.post("/applications", writer(house)).body
    foreign = dana.post("/applications", writer(house, name="Accounts")).body
    dana.post("/entitlements", {"pool": mine["pool"], "application": mine["id"], "user": "alice"})
    alice, path = calling(house.alice), f"/desktops/{house.desktop.pk}"
    assert alice.post(f"{path}/connect", {"application": mine["id"]}).status == 200
    assert Ticket.objects.get().application_id == Application.objects.get(name="Writer").pk
    assert alice.post(f"{path}/client-file", {"application": mine["id"]}).status == 200
    assert set(Ticket.objects.values_list("application__name", flat=True)) == {"Writer"}
    for verb in ("connect", "client-file"):
        answer = alice.post(f"{path}/{verb}", {"application": foreign["id"]})
        assert (answer.status, "no longer have access to this application" in answer.body["detail"]) == (403, True)
    assert Ticket.objects.count() == 2
