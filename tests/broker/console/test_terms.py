"""What a pool asks, who decides, how long a lease is: set in the console, decided in its list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from broker.models import Pool, PoolOwner, Request
from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import Estate

HTMX: dict[str, Any] = {"headers": {"HX-Request": "true"}}
TERMS = {
    "approval": "owners", "asks_why": "optional", "asks_how_long": "on", "lease_h": "30 days", "renewals": "2",
    "renewal_h": "1 day", "notice_h": "2 days", "grace_h": "0 h", "trusted_group_id": "",
}  # fmt: skip


def at(name: str, *arguments: object) -> str:
    return reverse(f"console:{name}", args=arguments)


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_terms_are_set_in_words_of_time(house: Estate, dana: Client) -> None:
    dana.post(at("pool-terms", house.pool.pk), TERMS)
    pool = Pool.objects.get(pk=house.pool.pk)
    assert (pool.approval, pool.lease_h, pool.renewal_h, pool.notice_h, pool.grace_h) == ("owners", 720, 24, 48, 0)
    form = dana.get(at("pool-terms", house.pool.pk)).content.decode()
    assert 'value="30 days"' in form
    assert 'value="0 h"' in form
    assert "may be renewed 2 times" in text_of(dana.get(at("pool", house.pool.pk)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lease_h": "90 min"}, "Whole hours or days"),
        ({"lease_h": "soon"}, "Write a number and a unit"),
        ({"lease_h": ""}, "Say how long a lease may be at most"),
        ({"notice_h": "0 h"}, "A whole number from 1"),
        ({"renewals": "-1"}, "greater than or equal to 0"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_the_rest_stays(
    house: Estate, dana: Client, wrong: dict[str, str], words: str
) -> None:
    answer = dana.post(at("pool-terms", house.pool.pk), TERMS | wrong)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert 'value="2 days"' in answer.content.decode() or "notice_h" in wrong
    assert Pool.objects.get(pk=house.pool.pk).approval == "none"


def test_owners_come_and_go(house: Estate, dana: Client) -> None:
    dana.post(at("owner-add", house.pool.pk), {"user": "alice", "group": ""})
    owner = PoolOwner.objects.get(pool=house.pool)
    assert owner.user == house.alice
    assert "Its owners" in text_of(dana.get(at("pool", house.pool.pk)))
    assert dana.post(at("owner-add", house.pool.pk), {"user": "nobody"}).status_code == 422
    dana.post(at("owner-dismiss", owner.pk))
    assert not PoolOwner.objects.filter(pool=house.pool).exists()


def test_a_request_is_approved_or_declined_with_a_word_from_the_list(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    listed = text_of(dana.get(at("requests")))
    assert "Accounts of November." in listed
    assert "3 days" in listed
    asked = text_of(dana.get(at("request-decline", furniture.to_decide.pk)))
    assert "Their reason: Accounts of November." in asked
    answer = dana.post(at("request-decline", furniture.to_decide.pk), {"note": "Use the other pool."}, **HTMX)
    assert "was declined" in json.loads(answer.headers["HX-Trigger"])["toast"]["text"]
    furniture.to_decide.refresh_from_db()
    assert furniture.to_decide.state == Request.State.REFUSED
    again = dana.post(at("request-approve", furniture.to_decide.pk), **HTMX)
    assert again.status_code == 422
    assert "does not wait for a decision any more" in text_of(again)


def test_the_pools_page_shows_leases_that_end_soon(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "Leases that end soon" in page
    assert "in 1 day" in page


def test_many_requests_are_decided_at_once_said_first(house: Estate, furniture: Furniture, dana: Client) -> None:
    second = Request.objects.create(
        pool=furniture.held_pool, user=house.charlie, state=Request.State.WAITING, created_at=timezone.now()
    )
    chosen = {"request": [str(furniture.to_decide.pk), str(second.pk), str(furniture.waiting.pk), "x"]}
    asked = text_of(dana.post(at("requests-decide"), {**chosen, "action": "approve", "asked": "1"}, **HTMX))
    assert "Approve 2 requests?" in asked
    assert "charlie: Classroom" in asked
    second.refresh_from_db()
    assert second.state == Request.State.WAITING, "asked first"
    answer = dana.post(at("requests-decide"), {**chosen, "action": "approve", "note": "Welcome"}, **HTMX)
    said = json.loads(answer.headers["HX-Trigger"])["toast"]["text"]
    assert said == "2 requests were approved. 1 did not wait any more."
    second.refresh_from_db()
    assert (second.state, second.decision) == (Request.State.APPROVED, "Welcome")
    again = dana.post(at("requests-decide"), {**chosen, "action": "decline"}, **HTMX)
    assert again.status_code == 422
    assert "none of them waits any more" in text_of(again)
