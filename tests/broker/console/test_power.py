"""Power for many desktops: of the chosen rows or of all that fit the filter, reviewed first."""

from __future__ import annotations

import re
from html import unescape

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import Desktop, Operation
from tests.broker.console.test_acts import HTMX, at, events_of, text_of
from tests.broker.portal.cast import Estate


def many(house: Estate, count: int = 60) -> None:
    for number in range(count):
        house.make(name=f"many-{number:03d}")


def hidden_of(page: str) -> dict[str, str]:
    """The hidden fields of a page's question, as the browser would send them again."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def test_the_list_offers_all_that_fit_where_they_do_not_fit_on_a_page(house: Estate, dana: Client) -> None:
    assert "Choose all" not in text_of(dana.get(at("desktops"))).replace("Choose all on this page", "")
    many(house)
    page = text_of(dana.get(at("desktops") + "?q=many&state=ready"))
    assert "Choose all 60 that fit the filter, on every page" in page
    assert 'name="q" value="many"' in page
    assert '<input type="hidden" name="state" value="ready">' in page


def test_all_that_fit_are_reviewed_before_they_are_switched(house: Estate, dana: Client) -> None:
    many(house)
    house.make(name="many-off", power="off")
    now, used = timezone.now(), Desktop.objects.get(name="many-007")
    used.sessions.create(user=house.alice, epoch=1, protocol="vnc", started_at=now, seen_at=now)
    sent = {"all": "1", "asked": "1", "q": "many", "action": "shutdown"}
    question = dana.post(at("desktops-change"), sent, headers=HTMX)
    said = text_of(question)
    assert "Shut down 60 desktops?" in said
    assert "61 desktops fit the filter." in said
    assert "1 of them is in use right now." in said
    assert "1 is left out: 1 off already." in said
    assert not Operation.objects.exists()
    again = hidden_of(question.content.decode())
    assert again == {
        "all": "1", "q": "many", "state": "", "pool": "", "hypervisor": "", "shown": "61", "action": "shutdown",
        "sort": "",
    }  # fmt: skip
    answer = dana.post(at("desktops-change"), again, headers=HTMX)
    assert events_of(answer)["toast"]["text"] == "Ordered for 60 desktops. Not for 1: many-off is off already."
    assert Operation.objects.filter(parameters__action="shutdown", desktop__name__startswith="many").count() == 60


def test_more_that_fit_by_now_are_shown_first(house: Estate, dana: Client) -> None:
    many(house, 2)
    sent = {"all": "1", "q": "many", "action": "off", "shown": "2"}
    house.make(name="many-more")
    answer = dana.post(at("desktops-change"), sent, headers=HTMX)
    assert answer.status_code == 422
    said = text_of(answer)
    assert "3 desktops fit by now, and you were shown 2. Look again first." in said
    assert "Power off 3 desktops?" in said
    assert 'name="shown" value="3"' in said
    assert not Operation.objects.exists()


def test_without_javascript_it_leads_back_to_the_list_as_it_was_filtered(house: Estate, dana: Client) -> None:
    many(house, 2)
    sent = {"all": "1", "q": "many", "state": "ready", "action": "off", "shown": "2"}
    answer = dana.post(at("desktops-change"), sent)
    assert answer["Location"] == at("desktops") + "?q=many&state=ready"
    assert "Ordered for 2 desktops." in text_of(dana.get(answer["Location"]))


def test_a_filter_that_nothing_fits_says_so(house: Estate, dana: Client) -> None:
    sent = {"all": "1", "q": "nobody", "action": "off", "shown": "0"}
    answer = dana.post(at("desktops-change"), sent, headers=HTMX)
    assert answer.status_code == 422
    assert "Nothing was ordered" in text_of(answer)


def test_the_review_takes_the_same_few_statements_whatever_fits(house: Estate, dana: Client) -> None:
    costs = []
    for count in (5, 100):
        Desktop.objects.filter(name__startswith="many").delete()
        many(house, count)
        with CaptureQueriesContext(connection) as asked:
            dana.post(at("desktops-change"), {"all": "1", "asked": "1", "action": "off"}, headers=HTMX)
        costs.append(len(asked))
    assert costs[0] == costs[1]
