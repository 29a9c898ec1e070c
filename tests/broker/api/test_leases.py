"""Terms, decisions, leases and notices by API."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from broker.models import Assignment, Pool
from tests.broker.api.conftest import Callers
from tests.broker.portal.cast import Estate

pytestmark = pytest.mark.django_db

TERMS = {
    "approval": "owners", "asks_why": "required", "asks_how_long": True, "lease_h": 168, "renewals": 1,
    "notice_h": 12, "grace_h": 4, "trusted_group": None,
}  # fmt: skip


def test_the_whole_way_by_script(house: Estate, calling: Callers) -> None:
    alice, bob, dana = calling(house.alice), calling(house.bob), calling(house.dana)
    pool = f"/pools/{house.pool.pk}"
    changed = dana("PATCH", pool, TERMS)
    assert changed.status == 200
    assert {name: changed.body[name] for name in TERMS} == TERMS
    assert bob.get(pool).body["asks_why"] == "required"
    owner = dana.post(f"{pool}/owners", {"user": "alice"})
    assert (owner.status, dana.post(f"{pool}/owners", {"user": "alice"}).status) == (201, 200)

    refused = bob.post("/requests", {"pool": str(house.pool.pk)})
    assert (refused.status, list(refused.body["fields"])) == (422, ["why"])
    house.make()
    made = bob.post("/requests", {"pool": str(house.pool.pk), "why": "Accounts", "hours": 24}).body
    assert (made["state"], made["why"], made["hours"]) == ("waiting", "Accounts", 24)
    assert alice.get("/requests?owned=true&state=waiting").body["items"][0]["id"] == made["id"]
    assert alice.get(f"/requests/{made['id']}").status == 200
    assert [notice["kind"] for notice in alice.get("/notices?unread=true").body["items"]] == ["request_asked"]

    approved = alice.post(f"/requests/{made['id']}/approve", {"words": "Welcome"}).body
    assert (approved["state"], approved["decision"]) == ("ready", "Welcome")
    assert alice.post(f"/requests/{made['id']}/decline", {}).status == 409
    desktop = f"/desktops/{approved['desktop']}"
    leased = bob.get(desktop).body
    assert leased["renewals_left"] == 1
    for _ in range(2):
        renewed = bob.post(f"{desktop}/renew", {"seen_until": leased["lease_until"]})
        assert renewed.status == 200
    longer = datetime.fromisoformat(renewed.body["lease_until"]) - datetime.fromisoformat(leased["lease_until"])
    assert longer == timedelta(hours=168)
    assert bob.post(f"{desktop}/renew", {}).status == 409
    assert alice.post(f"{desktop}/renew", {}).status == 404

    told = bob.get("/notices").body["items"]
    assert {notice["kind"] for notice in told} == {"request_approved", "desktop_ready"}
    assert bob.post(f"/notices/{told[0]['id']}/read").body["read_at"]
    assert bob.post("/notices/read").body == {"changed": 1}
    assert alice.get(f"/notices/{told[0]['id']}").status == alice.post(f"/notices/{uuid4()}/read").status == 404
    assert dana("DELETE", f"{pool}/owners/{owner.body['id']}").status == 204


def test_strangers_decide_on_nothing_and_do_not_learn_of_it(house: Estate, calling: Callers) -> None:
    Pool.objects.update(approval="owners")
    made = calling(house.bob).post("/requests", {"pool": str(house.pool.pk)}).body
    for person in (house.alice, house.bob, house.charlie):
        call = calling(person)
        foreign = call.post(f"/requests/{made['id']}/approve", {})
        unknown = call.post(f"/requests/{uuid4()}/approve", {})
        assert foreign.status == unknown.status == 404
        assert foreign.body == unknown.body
    assert calling(house.charlie).get(f"/requests/{made['id']}").status == 404


def test_many_are_decided_at_once_and_what_was_not_is_said(house: Estate, calling: Callers) -> None:
    Pool.objects.update(approval="owners")
    made = calling(house.bob).post("/requests", {"pool": str(house.pool.pk)}).body
    unknown = str(uuid4())
    wish = {"ids": [made["id"], unknown], "approve": False, "words": "Not now."}
    answer = calling(house.dana).post("/requests/decide", wish)
    assert [row["state"] for row in answer.body["decided"]] == ["refused"]
    assert [row["request"] for row in answer.body["refused"]] == [unknown]
    assert calling(house.dana).post("/requests/decide", {"ids": [], "approve": True}).status == 422


def test_terms_that_contradict_themselves_are_told_by_field(house: Estate, calling: Callers) -> None:
    pool, dana = f"/pools/{house.pool.pk}", calling(house.dana)
    for wrong, field in (
        ({"asks_how_long": True}, "asks_how_long"),
        ({"approval": "all"}, "approval"),
        ({"lease_h": 0}, "lease_h"),
        ({"trusted_group": "nobody"}, "trusted_group"),
    ):
        answer = dana("PATCH", pool, wrong)
        assert (answer.status, list(answer.body["fields"])) == (422, [field])
    assert dana("PATCH", pool, {"trusted_group": house.staff.name}).body["trusted_group"] == house.staff.name


def test_one_chooses_for_oneself(house: Estate, calling: Callers) -> None:
    bob = calling(house.bob)
    before = bob.get("/notices/preferences").body
    assert before == {"address": "", "wants_mail": True, "opens_single": False, "opens_natively": False}
    changed = bob("PATCH", "/notices/preferences", {"address": "bob@example.org", "wants_mail": False}).body
    assert changed == {
        "address": "bob@example.org",
        "wants_mail": False,
        "opens_single": False,
        "opens_natively": False,
    }
    assert bob("PATCH", "/notices/preferences", {"address": "nowhere"}).status == 422
    assert calling(house.alice).get("/notices/preferences").body["address"] == ""


def test_a_desktop_without_a_lease_says_so(house: Estate, calling: Callers) -> None:
    desktop = calling(house.alice).get(f"/desktops/{house.desktop.pk}").body
    assert (desktop["lease_until"], desktop["renewals_left"]) == (None, 0)
    assert calling(house.alice).post(f"/desktops/{house.desktop.pk}/renew", {}).status == 409
    assert Assignment.objects.get(desktop=house.desktop).lease_until is None
