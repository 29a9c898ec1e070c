"""Every page, furnished and bare, and who may come in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse

from broker.models import Desktop, Pool
from tests.broker.console.furniture import Furniture, more_replication, operation
from tests.broker.console.pages import LISTS, PLAIN, SHARED, acts, all_pages
from tests.broker.portal.cast import PASSWORD, Estate

As = Callable[[User], Client]
OF_THEIR_OWN = {"live", "chart", "client-files-certificate"}
"""Addresses with tests of their own: a stream, JSON, a file."""
COUNTS = Path(__file__).parent / "query_counts.json"


def test_the_administrator_sees_every_page(house: Estate, furniture: Furniture, dana: Client) -> None:
    wrong = {
        name: answer.status_code
        for name, address in all_pages(house, furniture).items()
        if (answer := dana.get(address)).status_code != 200
    }
    assert not wrong


def test_no_address_of_the_console_is_left_out_of_these_tests(house: Estate, furniture: Furniture) -> None:
    known = {str(name) for name in get_resolver().namespace_dict["console"][1].reverse_dict if isinstance(name, str)}
    assert known | SHARED == set(all_pages(house, furniture)) | set(acts(house, furniture)) | OF_THEIR_OWN


def test_a_user_is_refused_every_page_whether_it_exists_or_not(house: Estate, furniture: Furniture, as_: As) -> None:
    alice = as_(house.alice)
    pages = all_pages(house, furniture)
    missing = reverse("console:desktop", args=["00000000-0000-4000-8000-000000000000"])
    answers = {name: alice.get(address).status_code for name, address in (pages | {"missing": missing}).items()}
    assert set(answers.values()) == {403}, answers


def test_a_user_can_do_nothing_by_posting(house: Estate, furniture: Furniture, as_: As) -> None:
    alice = as_(house.alice)
    before = list(Desktop.objects.order_by("pk").values_list("state", "is_in_maintenance", "power"))
    posts = [
        alice.post(reverse("console:desktops-change"), {"desktop": [house.desktop.pk], "action": "off"}),
        alice.post(reverse("console:desktop-maintenance", args=[house.desktop.pk]), {"on": "1"}),
        alice.post(reverse("console:pool-resume", args=[house.pool.pk])),
        alice.post(reverse("console:operation-retry", args=[furniture.failed.pk])),
        alice.post(reverse("console:user-password", args=[house.dana.pk]), {"password": "something quite else"}),
    ]
    assert [answer.status_code for answer in posts] == [403] * 5
    assert list(Desktop.objects.order_by("pk").values_list("state", "is_in_maintenance", "power")) == before
    house.dana.refresh_from_db()
    assert house.dana.check_password(PASSWORD)


def test_a_stranger_is_sent_to_the_sign_in_and_back(house: Estate, client: Client) -> None:
    answer = client.get(reverse("console:pools") + "?short=1")
    assert answer.status_code == 302
    assert answer["Location"] == "/sign-in/?next=/console/pools/%3Fshort%3D1"


def test_a_closed_administrator_sees_nothing(house: Estate, as_: As) -> None:
    browser = as_(house.dana)
    User.objects.filter(pk=house.dana.pk).update(is_active=False)
    assert browser.get(reverse("console:dashboard")).status_code == 302


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "patterns"])
def test_a_bare_house_says_what_to_do_first(db: None, client: Client, name: str) -> None:
    client.force_login(User.objects.create_user("dana", password=PASSWORD, is_staff=True))
    answer = client.get(reverse(f"console:{name}"), follow=True)
    assert answer.status_code == 200


def test_the_first_page_of_a_bare_house_begins_with_a_hypervisor(db: None, client: Client) -> None:
    client.force_login(User.objects.create_user("dana", password=PASSWORD, is_staff=True))
    assert reverse("console:hypervisor-kinds") in client.get(reverse("console:dashboard")).content.decode()


def test_an_installation_on_sqlite_says_how_far_that_reaches(house: Estate, dana: Client) -> None:
    page = dana.get(reverse("console:dashboard")).content.decode()
    said = "keeps its data in SQLite: one machine, about 500 desktops" in page
    assert said == (connection.vendor == "sqlite")


def test_an_unknown_id_is_not_found(house: Estate, dana: Client) -> None:
    nowhere = "00000000-0000-4000-8000-000000000000"
    for name in ("desktop", "pool", "template", "hypervisor", "operation", "drift-delete", "token-revoke"):
        assert dana.get(reverse(f"console:{name}", args=[nowhere])).status_code == 404


def test_what_is_not_there_is_said_within_the_console(house: Estate, dana: Client) -> None:
    """So that the way on, and what is wrong with the broker, are in sight there too."""
    for address in (reverse("console:pool", args=[uuid4()]), reverse("console:dashboard") + "attic/"):
        answer = dana.get(address)
        page = answer.content.decode()
        assert answer.status_code == 404
        assert "There is nothing here" in page
        assert (page.count("<h1"), page.count('id="banners"'), page.count('role="search"')) == (1, 1, 1)


def test_nobody_else_sees_the_console_round_what_is_not_there(house: Estate, as_: As, dana: Client) -> None:
    attic = reverse("console:dashboard") + "attic/"
    answers = {
        "a user": as_(house.alice).get(attic), "a stranger": Client().get(attic), "another door": dana.get("/attic/"),
        "a part of a page": dana.get(attic, headers={"HX-Request": "true"}),
    }  # fmt: skip
    for who, answer in answers.items():
        assert answer.status_code == 404, who
        assert "There is nothing here" in answer.content.decode(), who
        assert 'id="banners"' not in answer.content.decode(), who


def test_every_page_has_one_heading_a_title_and_its_room_marked(
    house: Estate, furniture: Furniture, dana: Client
) -> None:
    for name, address in all_pages(house, furniture).items():
        if name in ("pulse", "tasks"):
            continue
        page = dana.get(address).content.decode()
        assert re.search(r"<title>\s*\S.* · Deskyard</title>", page), name
        headings = page.count("<h1")
        assert headings == 1 or name == "patterns", (name, headings)
        assert page.count('aria-current="page"') >= 1 or name in ("search", "patterns"), name


def test_no_page_has_inline_scripts_or_styles(house: Estate, furniture: Furniture, dana: Client) -> None:
    """The content security policy would silently drop them."""
    for name, address in all_pages(house, furniture).items():
        page = dana.get(address).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son[a-z]+=|javascript:", page), name


def _measure(dana: Client, pages: dict[str, str]) -> dict[str, int]:
    counts = {}
    for name, address in pages.items():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            dana.get(address)
        counts[name] = len(queries)
    return counts


def test_the_statements_of_each_page_are_pinned(house: Estate, furniture: Furniture, dana: Client) -> None:
    """A figure that is meant to change is written anew by running this with DESKYARD_PIN_QUERIES=1."""
    pages = all_pages(house, furniture)
    dana.get(reverse("console:dashboard"))
    measured = _measure(dana, pages)
    if os.environ.get("DESKYARD_PIN_QUERIES"):
        COUNTS.write_text(json.dumps(measured, indent=2, sort_keys=True) + "\n")
    assert measured == json.loads(COUNTS.read_text())


def test_lists_need_no_more_statements_for_more_rows(house: Estate, furniture: Furniture, dana: Client) -> None:
    pages = {name: reverse(f"console:{name}") for name in LISTS}
    house.open_pool("Short", spare=1)  # why one is, is asked once for all
    dana.get(reverse("console:dashboard"))
    before = _measure(dana, pages)
    for number in range(30):
        house.make(name=f"more-{number:03d}")
        operation(house.hypervisor, kind="probe", changes=False)
        pool = house.open_pool(f"Pool {number}", spare=1)
        User.objects.create_user(f"user-{number}").groups.add(house.staff)
        more_replication(house.hypervisor, furniture, number)
        assert pool.members.exists()
    assert _measure(dana, pages) == before


def test_lists_come_in_pages(house: Estate, dana: Client) -> None:
    for number in range(60):
        house.make(name=f"many-{number:03d}")
    first = dana.get(reverse("console:desktops"))
    second = dana.get(reverse("console:desktops") + "?page=2&q=many")
    assert "1–50 of 61" in first.content.decode()
    assert "51–60 of 60" in second.content.decode()
    assert "q=many" in second.content.decode(), "the filter stays in the links to other pages"
    assert dana.get(reverse("console:desktops") + "?page=999").status_code == 200


@pytest.mark.parametrize("text", ["'", '"><script>alert(1)</script>', "\0", "%", "ü" * 300, "../../etc", "\n"])
def test_odd_words_in_filters_are_only_words(house: Estate, furniture: Furniture, dana: Client, text: str) -> None:
    for name in LISTS:
        address = reverse(f"console:{name}")
        fields = ("q", "state", "pool", "hypervisor", "kind", "noun", "actor", "object", "page", "status", "short")
        answer = dana.get(address, dict.fromkeys(fields, text))
        assert answer.status_code == 200, name
        assert "<script>alert" not in answer.content.decode()


def test_names_are_shown_as_words_never_as_markup(house: Estate, furniture: Furniture, dana: Client) -> None:
    evil = "<img src=x onerror=alert(1)>"
    Pool.objects.filter(pk=house.pool.pk).update(name=evil, description=evil)
    house.hypervisor.name = evil
    house.hypervisor.save()
    Desktop.objects.filter(pk=furniture.failed_desktop.pk).update(failure=evil)
    for name, address in all_pages(house, furniture).items():
        assert evil not in dana.get(address).content.decode(), name
