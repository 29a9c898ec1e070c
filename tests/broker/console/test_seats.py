"""Session hosts in the console: who is on one, how full a pool is, and how a seat is taken back."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from lxml import html

from broker.domain.lifecycle import State
from broker.models import Assignment, Desktop, Pool
from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import Estate


def text_of(answer: Any) -> str:
    """What a reader reads, in one line."""
    return " ".join(html.fromstring(answer.content).text_content().split())


def at(name: str, *arguments: object) -> str:
    return reverse(f"console:{name}", args=arguments)


def test_the_lists_say_how_many_are_on_a_host(furniture: Furniture, dana: Client) -> None:
    assert "2 of 8 seats" in text_of(dana.get(at("desktops")))
    pool = text_of(dana.get(at("pool", furniture.session_host.pool_id)))
    assert "2 of 8 seats" in pool
    assert "of 16 seats taken, on 2 session hosts" in pool
    assert "14 seats free, of 4 spare" in pool
    assert "8 users at once on each" in pool
    csv = dana.get(at("desktops"), {"format": "csv", "q": "task-001"}).content.decode()
    assert "2 of 8 seats" in csv


def test_one_that_is_to_empty_says_so(furniture: Furniture, dana: Client) -> None:
    Desktop.objects.filter(pk=furniture.session_host.pk).update(is_emptying=True)
    assert "2 of 8 seats, takes nobody new" in text_of(dana.get(at("desktop", furniture.session_host.pk)))


def test_a_seat_is_taken_back_from_the_hosts_page_and_the_others_stay(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    host = furniture.session_host
    page = dana.get(at("desktop", host.pk))
    assert "Who is on it" in text_of(page)
    address = f"{at('desktop-release', host.pk)}?user={house.bob.pk}"
    assert address in page.content.decode()
    assert "Take the seat of bob on task-001 back?" in text_of(dana.get(address))
    dana.post(address)
    assert [row.user for row in Assignment.objects.filter(desktop=host, until=None)] == [house.dana]
    assert dana.get(address).status_code == 404
    for user in ("x", "0", "9" * 40):
        assert dana.get(f"{at('desktop-release', host.pk)}?user={user}").status_code == 404


def test_maintenance_is_said_to_empty_a_session_host(furniture: Furniture, dana: Client) -> None:
    said = dana.post(at("desktop-maintenance", furniture.session_host.pk), {"on": "1"}, follow=True)
    assert "it takes nobody new, and those who are on it stay until they leave" in text_of(said)


def test_a_shared_pool_is_set_up_in_the_form_and_refused_what_it_cannot_be(furniture: Furniture, dana: Client) -> None:
    hall = furniture.session_host.pool_id
    form = dana.get(at("pool-edit", hall)).context["form"]
    fields = {name: value for name, value in form.initial.items() if value is not None and value is not False}
    changed: dict[str, Any] = fields | {"network_id": "", "seats": "20", "freshens_when_empty": ""}
    dana.post(at("pool-edit", hall), changed)
    pool = Pool.objects.get(pk=hall)
    assert (pool.seats, pool.freshens_when_empty) == (20, False)
    for wish, words in (
        ({"protocol": "vnc"}, "the machine has one screen for all"),
        ({"guest_account": "pool", "guest_user": "kiosk"}, "everybody signs in as themselves"),
        ({"seats": "201"}, "less than or equal to 200"),
        ({"kind": "dedicated"}, "Desktops of it are in use."),
    ):
        refused = dana.post(at("pool-edit", hall), changed | wish)
        assert (refused.status_code, words in text_of(refused)) == (422, True), wish


def test_pages_cost_the_same_however_many_have_a_seat(furniture: Furniture, dana: Client) -> None:
    host = furniture.session_host
    pages = [at("desktop", host.pk), at("pool", host.pool_id), at("desktops"), at("pools")]
    few = [asked(dana, page) for page in pages]
    users = User.objects.bulk_create([User(username=f"guest-{n}") for n in range(5)])
    Assignment.objects.bulk_create(
        Assignment(pool_id=host.pool_id, user=user, desktop=host, seat=number, since=timezone.now())
        for number, user in enumerate(users, 3)
    )
    assert [asked(dana, page) for page in pages] == few
    assert "7 of 8 seats" in text_of(dana.get(pages[0]))


def asked(browser: Client, page: str) -> int:
    with CaptureQueriesContext(connection) as statements:
        assert browser.get(page).status_code == 200
    return len(statements)


def test_a_host_that_stands_empty_has_nobody_to_take_back(furniture: Furniture, dana: Client) -> None:
    empty = Desktop.objects.get(name="task-002")
    assert empty.state == State.READY
    assert "Nobody at the moment." in text_of(dana.get(at("desktop", empty.pk)))
