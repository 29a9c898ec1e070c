"""A server that does not answer is said, nothing that was typed is lost, and all heals when it is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from broker.models import Desktop, Pool, Request
from tests.broker.console.furniture import Furniture
from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import serving
from tests.support.prerequisites import free_port

HEALS_MS = 15_000
TELLS = "addEventListener('deskyard:stream', ({ detail }) => (document.documentElement.dataset.stream = detail), true)"
"""Whether the page hears of changes, where a test can see it."""


class Server:
    """One that can be stopped, and started again at the same address."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment, self._port, self._running = environment, free_port(), ExitStack()
        self.origin = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._running.enter_context(serving(self._environment, self._port))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def server(same_rows: dict[str, str]) -> Iterator[Server]:
    started = Server(same_rows)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def at(server: Server, chromium: Browser) -> Callable[[User, str], Page]:
    """`at(dana, address)`: what she has before her, once the page hears of changes."""

    def open_page(person: User, address: str) -> Page:
        client = Client()
        client.force_login(person)
        context = chromium.new_context(base_url=server.origin, reduced_motion="reduce")
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": server.origin}])
        page = context.new_page()
        page.add_init_script(TELLS)
        page.goto(address)
        expect(page.locator("html[data-stream=on]")).to_be_attached()
        return page

    return open_page


def lost(page: Page) -> None:
    expect(page.get_by_role("alert").filter(has_text="No connection to the server since")).to_be_visible()


def healed(page: Page) -> None:
    expect(page.locator("#lost")).to_be_hidden(timeout=HEALS_MS)
    expect(page.locator("html[data-stream=on]")).to_be_attached(timeout=HEALS_MS)


def test_the_console_says_it_keeps_what_was_typed_and_goes_on(
    live_house: Estate, furniture: Furniture, server: Server, at: Callable[[User, str], Page]
) -> None:
    page, form = at(live_house.dana, reverse("console:desktops")), at(live_house.dana, reverse("console:group-add"))
    form.get_by_label("Name").fill("Painters")
    server.stop()
    for one in (page, form):
        lost(one)
    expect(page.locator("[data-live]")).to_have_text("Not live")
    form.get_by_role("button", name="Add the group").click()
    expect(form.locator(".toast")).to_contain_text("What you typed is still here")
    expect(form.get_by_label("Name")).to_have_value("Painters")
    Desktop.objects.filter(name="office-002").update(state="failed")
    server.start()
    for one in (page, form):
        healed(one)
    expect(page.get_by_role("row").filter(has_text="office-002")).to_contain_text("Failed")
    expect(form.locator(".toast")).to_have_count(0)
    form.get_by_role("button", name="Add the group").click()
    expect(form.get_by_role("heading", name="People")).to_be_visible()
    assert Group.objects.filter(name="Painters").count() == 1


def test_the_portal_says_it_keeps_what_was_typed_and_goes_on(
    live_house: Estate, server: Server, at: Callable[[User, str], Page]
) -> None:
    Pool.objects.filter(pk=live_house.pool.pk).update(asks_why=Pool.Asks.REQUIRED)
    bob = at(live_house.bob, reverse("portal:home"))
    bob.get_by_role("button", name="Request").or_(bob.get_by_role("link", name="Request")).first.click()
    dialog = bob.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("Accounts of November")
    server.stop()
    lost(bob)
    dialog.get_by_role("button", name="Request").click()
    expect(dialog.locator(".toast")).to_contain_text("What you typed is still here")
    expect(dialog.get_by_role("textbox")).to_have_value("Accounts of November")
    server.start()
    healed(bob)
    dialog.get_by_role("button", name="Request").click()
    expect(dialog).to_be_hidden()
    assert Request.objects.get(user=live_house.bob).why == "Accounts of November"
