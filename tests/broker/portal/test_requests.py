"""Asking for a desktop in the portal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Assignment, Entitlement, Hypervisor, Pool, Request
from broker.services import desktops, pools, reconcile
from tests.broker.portal.cast import Estate, squeezed

As = Callable[[User], Client]


def home(client: Client) -> str:
    return squeezed(client.get("/").content)


def test_bob_asks_and_gets_a_ready_desktop_at_once(house: Estate, as_: As) -> None:
    ready = house.make(name="office-002")
    client = as_(house.bob)
    assert "A desktop is ready for you." in home(client)
    response = client.post(f"/pools/{house.pool.pk}/request/", headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert "Your desktop is there." in response.headers["HX-Trigger"]
    assert Assignment.objects.get(user=house.bob).desktop == ready
    assert "office-002" in home(client)


def test_bob_waits_in_line_and_may_give_up(house: Estate, as_: As) -> None:
    ahead = User.objects.create_user("first")
    Request.objects.create(pool=house.pool, user=ahead, created_at=timezone.now() - timedelta(minutes=1))
    client = as_(house.bob)
    client.post(f"/pools/{house.pool.pk}/request/")
    page = home(client)
    assert "You are number 2 in line." in page
    assert '<li data-state="now" aria-current="step">Finding</li>' in page
    assert f"/pools/{house.pool.pk}/request/" not in page
    request = Request.objects.get(user=house.bob)
    client.post(f"/requests/{request.pk}/cancel/")
    request.refresh_from_db()
    assert request.state == Request.State.CANCELLED
    assert f"/pools/{house.pool.pk}/request/" in home(client)


def test_asking_twice_keeps_the_place(house: Estate, as_: As) -> None:
    client = as_(house.bob)
    client.post(f"/pools/{house.pool.pk}/request/")
    response = client.post(f"/pools/{house.pool.pk}/request/", headers={"HX-Request": "true"})
    assert "already" in response.headers["HX-Trigger"]
    assert Request.objects.filter(user=house.bob).count() == 1


def test_a_stranger_cannot_ask_and_nobody_cancels_for_others(house: Estate, as_: As) -> None:
    for pool in (house.pool.pk, uuid4()):
        assert as_(house.charlie).post(f"/pools/{pool}/request/").status_code == 404
    request = Request.objects.create(pool=house.pool, user=house.bob, created_at=timezone.now())
    for person in (house.alice, house.charlie):
        assert as_(person).post(f"/requests/{request.pk}/cancel/").status_code == 404
    request.refresh_from_db()
    assert request.state == Request.State.APPROVED


def test_a_request_changes_nothing_by_being_looked_at(house: Estate, as_: As) -> None:
    assert as_(house.bob).get(f"/pools/{house.pool.pk}/request/").status_code == 200
    assert as_(house.charlie).get(f"/pools/{house.pool.pk}/request/").status_code == 404
    assert not Request.objects.filter(user=house.bob).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda house: house.make(state=State.BUILDING, clean_epoch=0), "one is being prepared"),
        (lambda house: Pool.objects.update(maximum=1), "All of its desktops are in use"),
        (lambda house: Hypervisor.objects.update(status="down"), "hosts cannot be reached"),
        (lambda house: Pool.objects.update(is_enabled=False), "Closed at the moment"),
        (lambda house: None, "One is built when you ask"),
    ],
)
def test_why_none_is_free_is_said_before_one_asks(
    house: Estate, as_: As, change: Callable[[Estate], object], words: str
) -> None:
    change(house)
    assert words in home(as_(house.bob))


def test_a_failed_request_gives_its_reason_and_a_reference_for_a_day(house: Estate, as_: As) -> None:
    now = timezone.now()
    request = Request.objects.create(
        pool=house.pool, user=house.bob, state="failed", reason="The storage is full.", created_at=now, ended_at=now
    )
    client = as_(house.bob)
    page = home(client)
    assert "The storage is full." in page
    assert str(request.pk)[:8].upper() in page
    Request.objects.update(ended_at=now - timedelta(days=2))
    assert "The storage is full." not in home(client)


def test_the_group_of_a_person_opens_a_pool(house: Estate, as_: As) -> None:
    assert house.pool.name not in home(as_(house.charlie))
    house.charlie.groups.add(house.staff)
    assert house.pool.name in home(as_(house.charlie))
    Entitlement.objects.filter(group=house.staff).delete()
    assert house.pool.name not in home(as_(house.charlie))


def test_a_closed_pool_says_why_and_until_when_to_who_asks_and_who_waits(house: Estate, as_: As) -> None:
    client = as_(house.bob)
    client.post(f"/pools/{house.pool.pk}/request/")
    pools.enable_pool(actor=house.dana, pool_id=house.pool.pk, on=False, words="New images until <14:00>.")
    reconcile.run(house.pool.pk)
    assert "Office is closed at the moment. New images until &lt;14:00&gt;." in home(client)
    Request.objects.all().delete()
    assert "Closed at the moment. New images until &lt;14:00&gt;." in home(client)
    refused = client.post(f"/pools/{house.pool.pk}/request/", headers={"HX-Request": "true"})
    assert "New images until" in refused.headers["HX-Trigger"]
    assert not Request.objects.exists()
    pools.enable_pool(actor=house.dana, pool_id=house.pool.pk, on=True)
    house.pool.refresh_from_db()
    assert house.pool.closed_words == ""
    assert "Closed at the moment" not in home(client)


def test_a_desktop_in_maintenance_says_so_to_its_user_and_stays_usable(house: Estate, as_: As) -> None:
    desktops.set_maintenance(actor=house.dana, desktop_id=house.desktop.pk, on=True)
    page = home(as_(house.alice))
    assert "Your administrator is at work on it." in page
    assert f"open-{house.desktop.pk}" in page
