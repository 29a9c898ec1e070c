"""Asking with a form, deciding on it, and the lease on the tile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from broker.models import Assignment, Pool, Request
from broker.services import brokering, owners
from tests.broker.portal.cast import Estate, squeezed

As = Callable[[User], Client]
HTMX: dict[str, Any] = {"headers": {"HX-Request": "true"}}


@pytest.fixture
def asking(house: Estate) -> Estate:
    """A pool that asks for a reason and how long, and whose owner Alice decides."""
    Pool.objects.filter(pk=house.pool.pk).update(
        approval="owners", asks_why="required", asks_how_long=True, lease_h=168, renewals=1
    )
    owners.appoint(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk)
    return house


def page(client: Client, path: str = "/", status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return squeezed(answer.content)


def test_a_pool_that_asks_something_shows_a_form_with_what_it_asks(asking: Estate, as_: As) -> None:
    bob = as_(asking.bob)
    assert f'href="/pools/{asking.pool.pk}/request/"' in page(bob)
    form = page(bob, f"/pools/{asking.pool.pk}/request/")
    assert 'name="why"' in form
    assert '<option value="168">7 days</option>' in form
    assert "Those who look after this pool decide on your request." in form
    assert "You may renew it once." in form


def test_what_was_typed_stays_when_something_is_missing(asking: Estate, as_: As) -> None:
    bob = as_(asking.bob)
    answer = bob.post(f"/pools/{asking.pool.pk}/request/", {"why": "", "hours": "24"}, **HTMX)
    assert answer.status_code == 422
    html = squeezed(answer.content)
    assert "Say in a sentence what you need it for." in html
    assert '<option value="24" selected>1 day</option>' in html
    assert not Request.objects.filter(user=asking.bob).exists()


def test_what_the_service_refuses_stands_in_the_form_too(asking: Estate, as_: As) -> None:
    Pool.objects.filter(pk=asking.pool.pk).update(is_enabled=False, closed_words="Until Monday.")
    answer = as_(asking.bob).post(f"/pools/{asking.pool.pk}/request/", {"why": "Accounts", "hours": "24"}, **HTMX)
    assert answer.status_code == 422
    assert "Until Monday." in answer.content.decode()
    assert "Accounts" in answer.content.decode()


def test_sent_twice_it_is_one_request(asking: Estate, as_: As) -> None:
    bob = as_(asking.bob)
    for _ in range(2):
        assert bob.post(f"/pools/{asking.pool.pk}/request/", {"why": "Accounts", "hours": "24"}).status_code == 302
    assert Request.objects.get(user=asking.bob).asked_h == 24
    assert "Waiting for approval" in page(bob)


def test_a_page_that_does_not_know_yet_of_the_form_opens_it(asking: Estate, as_: As) -> None:
    answer = as_(asking.bob).post(f"/pools/{asking.pool.pk}/request/", **HTMX)
    assert answer.status_code == 422
    assert answer.headers["HX-Retarget"] == "#dialog-content"
    filled = as_(asking.bob).post(f"/pools/{asking.pool.pk}/request/", {"why": ""}, **HTMX)
    assert "HX-Retarget" not in filled.headers


def test_the_owner_sees_who_waits_and_why_and_approves(asking: Estate, as_: As) -> None:
    asking.make(name="office-777")
    made, _ = brokering.request_desktop(user=asking.bob, pool_id=asking.pool.pk, why="Accounts of <November>", hours=24)
    alice = as_(asking.alice)
    assert "To approve" in page(alice)
    html = page(alice, "/approvals/")
    assert "Accounts of &lt;November&gt;" in html
    answer = alice.post(f"/approvals/{made.pk}/approve/", **HTMX)
    assert "The request of bob was approved." in answer.headers["HX-Trigger"]
    assert "office-777" in page(as_(asking.bob))
    again = alice.post(f"/approvals/{made.pk}/approve/", **HTMX)
    assert "does not wait for a decision any more" in again.headers["HX-Trigger"]


def test_the_owner_declines_with_a_word_that_the_user_reads(asking: Estate, as_: As) -> None:
    made, _ = brokering.request_desktop(user=asking.bob, pool_id=asking.pool.pk, why="Games")
    alice = as_(asking.alice)
    assert "Decline the request of bob?" in page(alice, f"/approvals/{made.pk}/decline/")
    alice.post(f"/approvals/{made.pk}/decline/", {"note": "Not for games."})
    assert "Declined by alice. Not for games." in page(as_(asking.bob))


def test_too_long_a_word_is_refused_and_not_lost(asking: Estate, as_: As) -> None:
    made, _ = brokering.request_desktop(user=asking.bob, pool_id=asking.pool.pk, why="Games")
    answer = as_(asking.alice).post(f"/approvals/{made.pk}/decline/", {"note": "x" * 501}, **HTMX)
    assert answer.status_code == 422
    assert "x" * 501 in answer.content.decode()


def test_nobody_else_reaches_it(asking: Estate, as_: As) -> None:
    made, _ = brokering.request_desktop(user=asking.bob, pool_id=asking.pool.pk, why="Accounts")
    for person in (asking.bob, asking.charlie):
        client = as_(person)
        assert "To approve" not in page(client)
        page(client, "/approvals/", 404)
        page(client, f"/approvals/{made.pk}/decline/", 404)
        assert client.post(f"/approvals/{made.pk}/approve/").status_code == 404
        assert client.post(f"/approvals/{made.pk}/decline/").status_code == 404
    made.refresh_from_db()
    assert made.state == Request.State.WAITING


def test_the_tile_says_until_when_it_is_yours_and_renews_once(house: Estate, as_: As) -> None:
    Pool.objects.filter(pk=house.pool.pk).update(lease_h=168, renewals=1)
    house.make()
    bob = as_(house.bob)
    bob.post(f"/pools/{house.pool.pk}/request/")
    held = Assignment.objects.get(user=house.bob)
    assert held.lease_until is not None
    assert "Yours until" in page(bob)
    seen = {"until": held.lease_until.isoformat()}
    for _ in range(2):
        answer = bob.post(f"/desktops/{held.desktop_id}/renew/", seen, **HTMX)
        assert "is yours until" in answer.headers["HX-Trigger"]
    renewed = Assignment.objects.get(user=house.bob)
    assert renewed.lease_until == held.lease_until + timedelta(hours=168)
    assert "renew-" not in page(bob)
    assert as_(house.alice).post(f"/desktops/{held.desktop_id}/renew/", seen).status_code == 404


def test_the_page_sends_the_end_that_it_shows(house: Estate, as_: As) -> None:
    """What the hidden field holds is read back as the very moment, or pressing twice would count twice."""
    Pool.objects.filter(pk=house.pool.pk).update(lease_h=168, renewals=2)
    house.make()
    bob = as_(house.bob)
    bob.post(f"/pools/{house.pool.pk}/request/")
    held = Assignment.objects.get(user=house.bob)
    shown = page(bob).split('name="until" value="')[1].split('"')[0]
    for _ in range(2):
        bob.post(f"/desktops/{held.desktop_id}/renew/", {"until": shown})
    held.refresh_from_db()
    assert held.renewals == 1


def test_the_owner_sees_how_their_pools_stand_and_no_other(asking: Estate, as_: As) -> None:
    asking.make()
    asking.make(asking.open_pool("Laboratory"))
    html = page(as_(asking.alice), "/approvals/")
    rows = html[html.index("How your pools stand") :]
    assert '<td class="table__title">Office</td>' in rows
    assert '<td class="number" data-label="Ready">1</td><td class="number" data-label="Assigned">1</td>' in rows
    assert "Laboratory" not in html
    assert "kvm-01" not in rows, "where it stands is not theirs to know"


def test_the_owner_sees_which_leases_are_over(asking: Estate, as_: As) -> None:
    now = timezone.now()
    Assignment.objects.filter(desktop=asking.desktop).update(lease_until=now + timedelta(days=2, minutes=1))
    alice = as_(asking.alice)
    assert "in 2 days" in page(alice, "/approvals/")
    Assignment.objects.filter(desktop=asking.desktop).update(lease_until=now - timedelta(hours=2))
    assert "Over" in page(alice, "/approvals/")
