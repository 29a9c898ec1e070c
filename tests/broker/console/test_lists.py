"""Lists are sorted by their columns and taken along as files; their address says all of it."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from broker.console.lists import as_cell
from broker.models import Desktop
from tests.broker.console.furniture import Furniture, operation
from tests.broker.portal.cast import Estate

FILES = (
    "desktops", "pools", "operations", "audit", "people", "hypervisors", "runs", "points", "failovers",
    "requests", "applications", "sessions",
)  # fmt: skip
NAME = re.compile(r'class="table__title"[^>]*>\s*<a class="table__name" href="[^"]*">\s*([^<]*?)\s*<')


def names(answer: Any) -> list[str]:
    return NAME.findall(answer.content.decode())


def rows_of(answer: Any) -> list[dict[str, str]]:
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


def of(name: str, query: str = "") -> str:
    return reverse(f"console:{name}") + query


def test_a_columns_head_sorts_by_it_and_then_the_other_way_round(house: Estate, dana: Client) -> None:
    for name in ("b-desk", "c-desk", "a-desk"):
        house.make(name=name)
    page = dana.get(of("desktops", "?q=-desk&page=1"))
    assert 'href="?q=-desk&amp;sort=name"' in page.content.decode(), "the filter stays, the page does not"
    rising = dana.get(of("desktops", "?q=-desk&sort=name"))
    assert names(rising) == ["a-desk", "b-desk", "c-desk"]
    assert 'aria-sort="ascending"' in rising.content.decode()
    assert 'href="?q=-desk&amp;sort=-name"' in rising.content.decode()
    falling = dana.get(of("desktops", "?q=-desk&sort=-name"))
    assert names(falling) == ["c-desk", "b-desk", "a-desk"]
    assert 'aria-sort="descending"' in falling.content.decode()


def test_a_column_of_times_begins_with_the_newest(house: Estate, dana: Client) -> None:
    assert "sort=-since" in dana.get(of("desktops")).content.decode()


def test_rows_without_a_value_stand_last_either_way(house: Estate, dana: Client) -> None:
    house.make(name="nobodys")
    house.give(house.bob, house.open_pool("Lab"), name="bobs")
    assert names(dana.get(of("desktops", "?sort=user"))) == ["office-001", "bobs", "nobodys"]
    assert names(dana.get(of("desktops", "?sort=-user"))) == ["bobs", "office-001", "nobodys"]


@pytest.mark.parametrize("word", ["nonsense", "-", "--name", "pool__name", "address", "-created_at", "name;drop"])
def test_an_unknown_word_leaves_the_lists_own_order(house: Estate, dana: Client, word: str) -> None:
    """Only columns are sorted by: no field of a table can be probed through the address."""
    house.make(name="newest")
    page = dana.get(of("desktops"), {"sort": word})
    assert names(page)[0] == "newest"
    assert 'aria-sort="ascending"' not in page.content.decode()
    assert 'aria-sort="descending"' not in page.content.decode()


@pytest.mark.parametrize("name", FILES)
def test_every_list_can_be_sorted_by_every_column_that_says_so(
    house: Estate, furniture: Furniture, dana: Client, name: str
) -> None:
    page = dana.get(of(name)).content.decode()
    words = set(re.findall(r'<option value="([a-z-]+)"[^>]*>\s*[^<]*(?:rising|falling)', page))
    assert len(words) >= 4
    assert {answer.status_code for word in words if (answer := dana.get(of(name, f"?sort={word}")))} == {200}
    heads = re.findall(r'class="table__sort" href="\?sort=(-?[a-z-]+)"', page)
    assert heads
    assert set(heads) <= words


@pytest.mark.parametrize("name", FILES)
def test_every_list_can_be_taken_along(house: Estate, furniture: Furniture, dana: Client, name: str) -> None:
    page, answer = dana.get(of(name)), dana.get(of(name, "?format=csv"))
    file = "recovery-points" if name == "points" else name
    pattern = rf'attachment; filename="deskyard-{file}-\d{{4}}-\d\d-\d\d.csv"'
    assert re.fullmatch(pattern, answer["Content-Disposition"])
    rows = rows_of(answer)
    assert len(rows) == page.context["page"].paginator.count
    assert 'href="?format=csv"' in page.content.decode()


def test_a_file_holds_all_pages_as_filtered_and_sorted(house: Estate, dana: Client) -> None:
    for number in range(60):
        house.make(name=f"many-{number:02}")
    rows = rows_of(dana.get(of("desktops", "?q=many&sort=-name&page=2&format=csv")))
    assert [row["name"] for row in rows] == [f"many-{number:02}" for number in reversed(range(60))]
    assert rows[0] | {"since": "", "id": ""} == {
        "name": "many-59", "state": "Ready", "failure": "", "user": "", "assigned": "", "pool": "Office",
        "hypervisor": "kvm-01", "address": "", "since": "", "id": "",
    }  # fmt: skip


def test_a_word_that_a_spreadsheet_would_run_is_kept_from_it(house: Estate, dana: Client) -> None:
    Desktop.objects.filter(pk=house.desktop.pk).update(failure='=HYPERLINK("http://evil.example")')
    (row,) = rows_of(dana.get(of("desktops", "?format=csv")))
    assert row["failure"] == '\'=HYPERLINK("http://evil.example")'
    assert [as_cell(value) for value in ("+1", "-1", "@x", "\tx", "a=1", -1, None, True)] == [
        "'+1", "'-1", "'@x", "'\tx", "a=1", "-1", "", "yes",
    ]  # fmt: skip
    assert as_cell(datetime(2026, 11, 27, 3, 4, 5, 678, UTC)) == "2026-11-27T03:04:05+00:00"


def test_a_person_whose_name_a_spreadsheet_would_run_is_kept_from_it_too(house: Estate, dana: Client) -> None:
    person = User.objects.create_user("@SUM(A1)")
    operation(house.hypervisor, requested_by=person)
    (row,) = rows_of(dana.get(of("operations", "?format=csv")))
    assert row["who"] == "'@SUM(A1)"


def test_a_file_is_for_administrators_alone(house: Estate, client: Client) -> None:
    client.force_login(house.alice)
    for name in FILES:
        assert client.get(of(name, "?format=csv")).status_code == 403


def test_pools_below_their_spare_are_found_on_every_page(house: Estate, dana: Client) -> None:
    for number in range(60):
        house.open_pool(f"Pool {number:02}", spare=1)
    page = dana.get(of("pools", "?short=1"))
    assert page.context["page"].paginator.count == 61, "the sixty, and the office that lacks one too"
    assert "1–50 of 61" in page.content.decode()
    assert rows_of(dana.get(of("pools", "?short=1&format=csv")))[0]["name"] == "Office"


def test_the_dashboards_number_of_desktops_in_use_opens_their_list(house: Estate, dana: Client) -> None:
    now = timezone.now()
    house.make(name="idle")
    for _ in range(2):
        house.desktop.sessions.create(user=house.alice, epoch=1, protocol="vnc", started_at=now, seen_at=now)
    page = dana.get(of("dashboard")).content.decode()
    assert re.search(r'href="/console/desktops/\?state=used"><span>In use right now</span><b>1</b>', page)
    assert names(dana.get(of("desktops", "?state=used"))) == ["office-001"]
