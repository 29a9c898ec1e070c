"""The sessions in the console: found, sorted, taken along, disconnected, logged off, told; a pool's timers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from broker.models import DesktopSession, Notice, Operation, Pool, ScreenSession
from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import Estate


def at(name: str, *arguments: object) -> str:
    return reverse(f"console:{name}", args=arguments)


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_the_list_shows_who_is_where_and_not_what_is_over(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = text_of(dana.get(at("sessions")))
    for words in ("alice", "office-001", "Office", "Connected", "192.0.2.41", "Browser", "Logged on as alice"):
        assert words in page, words
    assert "Nobody came back" not in page
    everything = text_of(dana.get(at("sessions") + "?state=all"))
    assert "Nobody came back to it in time." in everything
    assert "Program of its user" in everything


@pytest.mark.parametrize(
    ("query", "found"),
    [("q=ali", 1), ("q=office-001", 1), ("q=192.0.2.41", 1), ("q=nobody", 0), ("state=idle", 0), ("state=connected", 1),
     ("state=logged_off", 1), ("state=what", 2)],
)  # fmt: skip
def test_it_is_filtered(house: Estate, furniture: Furniture, dana: Client, query: str, found: int) -> None:
    page = dana.get(f"{at('sessions')}?{query}")
    assert len(page.context["page"].object_list) == found


def test_it_is_sorted_and_taken_along(house: Estate, furniture: Furniture, dana: Client) -> None:
    now = timezone.now()
    DesktopSession.objects.create(
        desktop=house.give(house.bob, name="a-desktop"), user=house.bob, epoch=2, state_since=now, began_at=now,
        input_at=now,
    )  # fmt: skip
    lines = dana.get(f"{at('sessions')}?sort=desktop&format=csv").content.decode("utf-8-sig").splitlines()
    assert lines[0].startswith("user,desktop,pool,state,since")
    assert [line.split(",")[1] for line in lines[1:]] == ["a-desktop", "office-001"]


def test_dana_disconnects_tells_and_logs_off(house: Estate, furniture: Furniture, dana: Client) -> None:
    pk = furniture.session.pk
    dana.post(at("session-notice", pk), {"note": "We restart at noon."})
    assert Notice.objects.get(user=house.alice, kind="session_message").facts["words"] == "We restart at noon."
    dana.post(at("session-disconnect", pk))
    assert not ScreenSession.objects.filter(desktop=house.desktop, ended_at=None).exists()
    assert DesktopSession.objects.get(pk=pk).state == "disconnected"
    again = dana.post(at("session-disconnect", pk))
    assert again.status_code == 422
    assert "Nobody is connected" in text_of(again)
    dana.post(at("session-log-off", pk))
    assert DesktopSession.objects.get(pk=pk).ended_at is not None
    assert Operation.objects.filter(desktop=house.desktop, kind="recycle").exists()


def test_before_a_log_off_it_is_said_what_is_lost(house: Estate, furniture: Furniture, dana: Client) -> None:
    assert "gets a fresh disk" in text_of(dana.get(at("session-log-off", furniture.session.pk)))
    Pool.objects.filter(pk=house.pool.pk).update(kind="dedicated")
    assert "is restarted" in text_of(dana.get(at("session-log-off", furniture.session.pk)))


def test_desktop_and_person_show_their_sessions(house: Estate, furniture: Furniture, dana: Client) -> None:
    for address in (at("desktop", house.desktop.pk), at("user", house.alice.pk)):
        page = text_of(dana.get(address))
        assert "192.0.2.41" in page
        assert "192.0.2.40" in page


def test_timers_are_set_in_words_of_time_and_shown(house: Estate, dana: Client) -> None:
    address = at("pool-timers", house.pool.pk)
    dana.post(address, {"idle_min": "30 min", "disconnected_min": "2 h", "longest_min": ""})
    pool = Pool.objects.get(pk=house.pool.pk)
    assert (pool.idle_min, pool.disconnected_min, pool.longest_min) == (30, 120, None)
    assert 'value="2 h"' in dana.get(address).content.decode()
    page = text_of(dana.get(at("pool", house.pool.pk)))
    assert "disconnected after 30 min" in page
    assert "logged off after 2 h" in page


@pytest.mark.parametrize(
    ("value", "words"),
    [("90 s", "Whole minutes"), ("soon", "Write a number and a unit"), ("400 days", "A whole number from 1"),
     ("0 min", "A whole number from 1")],
)  # fmt: skip
def test_what_is_no_timer_is_said_beside_its_field(house: Estate, dana: Client, value: str, words: str) -> None:
    answer = dana.post(at("pool-timers", house.pool.pk), {"idle_min": value})
    assert answer.status_code == 422
    assert words in text_of(answer)


def test_saving_timers_looks_at_sessions_that_go_on(house: Estate, furniture: Furniture, dana: Client) -> None:
    dana.post(at("pool-timers", house.pool.pk), {"idle_min": "30 min"})
    furniture.session.refresh_from_db()
    assert furniture.session.next_at is not None
    assert furniture.session.next_at <= timezone.now() + timedelta(seconds=1)
