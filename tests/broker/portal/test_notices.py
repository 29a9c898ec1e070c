"""The bell, the list, read marks, and one's own choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from broker.domain.notices import KEPT, WORDS, Kind
from broker.models import Notice, Preferences
from broker.services import notices, owners
from tests.broker.portal.cast import Estate, squeezed

As = Callable[[User], Client]
HTMX: dict[str, Any] = {"headers": {"HX-Request": "true"}}
FACTS = {
    "pool": "Office", "desktop": "office-001", "user": "bob", "until": "Friday", "gone": "Saturday", "at": "noon",
    "version": "Debian 12 v2",
}  # fmt: skip


def tell(house: Estate, person: User, kind: Kind = Kind.DESKTOP_READY, **facts: object) -> Notice:
    notices.tell([person.pk], kind, now=timezone.now(), pool_id=house.pool.pk, facts=FACTS | facts)
    return Notice.objects.filter(user=person)[0]


def page(client: Client, path: str = "/notices/", status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return squeezed(answer.content)


def bell(client: Client) -> str:
    return page(client, "/head/").split('id="bell"')[1]


def test_the_bell_counts_what_is_new_and_the_list_says_it(house: Estate, as_: As) -> None:
    bob = as_(house.bob)
    assert "unread" not in bell(bob)
    tell(house, house.bob, words="Take <care>")
    tell(house, house.bob, Kind.LEASE_SOON, may_renew=True)
    assert ">2<" in bell(bob)
    html = page(bob)
    assert "Your desktop of Office is ready" in html
    assert "Take &lt;care&gt;" in html
    assert "Mark all as read" in html
    assert "Mark all as read" in bob.get("/notices/", **HTMX).content.decode()
    assert "You can renew it in the portal." in html
    assert ">2<" in bell(bob), "looking at the list marks nothing"


def test_each_is_marked_as_read_when_it_is_followed_and_all_at_once(house: Estate, as_: As) -> None:
    bob = as_(house.bob)
    first = tell(house, house.bob)
    tell(house, house.bob)
    assert bob.post(f"/notices/{first.pk}/follow/")["Location"] == "/"
    assert ">1<" in bell(bob)
    bob.post("/notices/read/", **HTMX)
    assert "unread" not in bell(bob)
    assert "Mark all as read" not in page(bob)


def test_notices_are_their_readers_alone(house: Estate, as_: As) -> None:
    notice = tell(house, house.bob)
    alice = as_(house.alice)
    assert "Nothing to tell you" in page(alice)
    assert alice.post(f"/notices/{notice.pk}/follow/").status_code == 404
    alice.post("/notices/read/")
    notice.refresh_from_db()
    assert notice.read_at is None


def test_what_waits_for_a_word_leads_owners_to_their_page_and_administrators_to_theirs(house: Estate, as_: As) -> None:
    owners.appoint(actor=house.dana, pool_id=house.pool.pk, user_id=house.alice.pk)
    for person, place in ((house.alice, "/approvals/"), (house.dana, "/console/requests/")):
        notice = tell(house, person, Kind.REQUEST_ASKED)
        assert as_(person).post(f"/notices/{notice.pk}/follow/")["Location"] == place


def test_word_of_a_push_that_stopped_leads_to_its_pool(house: Estate, as_: As) -> None:
    notice = tell(house, house.dana, Kind.PUSH_STOPPED)
    assert as_(house.dana).post(f"/notices/{notice.pk}/follow/")["Location"] == f"/console/pools/{house.pool.pk}/"


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_words_for_the_facts_it_comes_with(house: Estate, as_: As, kind: Kind) -> None:
    tell(house, house.bob, kind)
    html = page(as_(house.bob))
    assert WORDS[kind].title % FACTS in html
    assert "%(" not in html


@pytest.mark.parametrize("kind", list(KEPT))
def test_of_what_is_not_taken_back_nobody_reads_that_it_is_deleted(house: Estate, as_: As, kind: Kind) -> None:
    notices.tell(
        [house.bob.pk], kind, now=timezone.now(), pool_id=house.pool.pk,
        facts={"desktop": "office-001", "until": "Friday"},
    )  # fmt: skip
    html = page(as_(house.bob))
    assert KEPT[kind] in html
    assert "deleted" not in html


def test_one_chooses_where_mail_goes_and_whether(house: Estate, as_: As) -> None:
    bob = as_(house.bob)
    assert "checked" in page(bob, "/me/").split('name="wants_mail"')[1].split(">")[0]
    wrong = bob.post("/me/", {"address": "bob at home", "wants_mail": "on"})
    assert wrong.status_code == 422
    assert 'value="bob at home"' in wrong.content.decode()
    bob.post("/me/", {"address": "bob@example.org", "opens_single": "on"})
    house.bob.refresh_from_db()
    assert house.bob.email == "bob@example.org"
    chosen = Preferences.objects.get(user=house.bob)
    assert (chosen.wants_mail, chosen.opens_single) == (False, True)


def test_strangers_are_sent_to_the_sign_in(house: Estate, client: Client) -> None:
    for path in ("/notices/", "/me/", "/head/", "/approvals/"):
        assert client.get(path)["Location"].startswith("/sign-in/")
