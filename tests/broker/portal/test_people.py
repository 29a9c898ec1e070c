"""Signing in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from broker.selectors import pulse
from broker.services import guesses
from tests.broker.portal.cast import PASSWORD, Estate

As = Callable[[User], Client]


@pytest.fixture(autouse=True)
def _own_counters(settings: Settings, redis_url: str) -> Iterator[None]:
    settings.REDIS_URL = redis_url
    pulse.connection.cache_clear()
    pulse.connection().flushdb()
    yield
    pulse.connection.cache_clear()
    guesses._own.clear()


def sign_in(client: Client, name: str = "alice", password: str = PASSWORD, **more: str) -> tuple[int, str]:
    response = client.post("/sign-in/", {"username": name, "password": password, **more})
    return response.status_code, response.content.decode() or response.headers.get("Location", "")


def test_the_right_password_leads_to_the_desktops_or_where_one_wanted_to_go(house: Estate, client: Client) -> None:
    assert sign_in(client) == (302, "/")
    client.logout()
    assert sign_in(client, next=f"/desktops/{house.desktop.pk}/open/") == (302, f"/desktops/{house.desktop.pk}/open/")


def test_nobody_is_led_to_a_foreign_page(house: Estate, client: Client) -> None:
    assert sign_in(client, next="https://evil.example/") == (302, "/")
    client.logout()
    assert sign_in(client, next="//evil.example/") == (302, "/")


def test_the_answer_does_not_tell_what_was_wrong(house: Estate, client: Client) -> None:
    User.objects.filter(username="bob").update(is_active=False)
    answers = {sign_in(client, *who)[1].count("The user name or the password is wrong") for who in
               [("alice", "wrong"), ("nobody", "wrong"), ("bob", PASSWORD)]}  # fmt: skip
    assert answers == {1}


def test_the_password_is_never_sent_back(house: Estate, client: Client) -> None:
    status, page = sign_in(client, password="my wrong secret")
    assert status == 422
    assert "my wrong secret" not in page


@pytest.mark.parametrize("is_redis_there", [True, False])
def test_guessing_is_slowed_down_and_others_are_not(house: Estate, settings: Settings, is_redis_there: bool) -> None:
    if not is_redis_there:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        pulse.connection.cache_clear()
    for _ in range(guesses.LIMITS["pair"]):
        assert sign_in(Client(), password="wrong")[0] == 422
    status, page = sign_in(Client())
    assert (status, "Too many wrong passwords. Try again in 15 minutes." in page) == (429, True)
    assert sign_in(Client(), name="ALICE")[0] == 429
    assert sign_in(Client(), name="bob")[0] == 302
    assert sign_in(Client(REMOTE_ADDR="192.0.2.7"))[0] == 302


def test_the_right_password_forgives_slips(house: Estate) -> None:
    for _ in range(3):
        for _ in range(guesses.LIMITS["pair"] - 1):
            sign_in(Client(), password="wrong")
        assert sign_in(Client())[0] == 302


def test_signing_out_ends_the_session_and_needs_a_post(house: Estate, as_: As) -> None:
    client = as_(house.alice)
    assert client.get("/sign-out/").status_code == 405
    response = client.post("/sign-out/", follow=True)
    assert "You are signed out." in response.content.decode()
    assert client.get("/").status_code == 302


def test_who_is_signed_in_is_not_asked_again(house: Estate, as_: As) -> None:
    assert as_(house.alice).get("/sign-in/").headers["Location"] == "/"
