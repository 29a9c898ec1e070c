"""Asking for a desktop by API, as scripts do."""

from __future__ import annotations

from uuid import uuid4

import pytest

from broker.models import Pool
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db


def test_asking_gives_201_and_asking_again_200_with_the_same(house: Estate, calling: Callers) -> None:
    bob, wish = calling(house.bob), {"pool": str(house.pool.pk)}
    first, again = bob.post("/requests", wish), bob.post("/requests", wish)
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body
    assert (first.body["state"], first.body["desktop"]) == ("approved", None)
    assert first.body["reason"]
    assert bob.get(f"/requests/{first.body['id']}").body == first.body


def test_a_ready_desktop_is_given_at_once(house: Estate, calling: Callers) -> None:
    ready = house.make()
    made = calling(house.bob).post("/requests", {"pool": str(house.pool.pk)})
    assert (made.status, made.body["state"], made.body["desktop"]) == (201, "ready", str(ready.pk))
    assert calling(house.bob).get(f"/desktops/{ready.pk}").body["user"] == "bob"


def test_a_foreign_pool_answers_as_an_unknown_one(house: Estate, calling: Callers) -> None:
    charlie = calling(house.charlie)
    foreign, unknown = (charlie.post("/requests", {"pool": str(id)}) for id in (house.pool.pk, uuid4()))
    assert foreign.status == unknown.status == 404
    assert foreign.body == unknown.body


def test_a_closed_pool_is_a_conflict_in_words(house: Estate, calling: Callers) -> None:
    Pool.objects.update(is_enabled=False)
    answer = calling(house.bob).post("/requests", {"pool": str(house.pool.pk)})
    assert (answer.status, answer.media_type) == (409, "application/problem+json")
    assert "closed" in answer.body["detail"]


def test_a_waiting_request_is_taken_back_by_its_user_only(house: Estate, calling: Callers) -> None:
    made = calling(house.bob).post("/requests", {"pool": str(house.pool.pk)}).body
    assert calling(house.charlie).post(f"/requests/{made['id']}/cancel").status == 404
    cancelled = calling(house.bob).post(f"/requests/{made['id']}/cancel")
    assert (cancelled.status, cancelled.body["state"]) == (200, "cancelled")
    assert calling(house.bob).post(f"/requests/{made['id']}/cancel").status == 409


@pytest.mark.parametrize("body", [{}, {"pool": "x"}, {"pool": None}, [], "x", {"pool": str(uuid4()), "colour": "blue"}])
def test_wrong_bodies_are_told_field_by_field(house: Estate, calling: Callers, body: object) -> None:
    answer = calling(house.bob).post("/requests", body)
    assert (answer.status, answer.media_type) == (422, "application/problem+json")
    assert answer.body["fields"]


def test_what_is_no_json_is_a_bad_request(house: Estate, calling: Callers) -> None:
    call = calling(house.bob)
    got = call.client.post(
        "/api/v1/requests", "{", content_type="application/json", headers={"Authorization": call.authorization}
    )
    assert (got.status_code, got.headers["Content-Type"]) == (400, "application/problem+json")
