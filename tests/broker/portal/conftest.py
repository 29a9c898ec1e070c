"""The people of the portal's tests at their browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, expect, sync_playwright

from tests.broker.portal.cast import Estate, estate
from tests.broker.portal.watching import alices_page
from tests.broker.relay.serving import live_house, same_rows, web
from tests.support.prerequisites import require_program

__all__ = ["alices_page", "as_", "chromium", "house", "live_house", "same_rows", "web"]


@pytest.fixture
def house(db: None) -> Estate:
    return estate()


@pytest.fixture
def as_(house: Estate) -> Callable[[User], Client]:
    """A browser in which that person is signed in."""

    def signed_in(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return signed_in


@pytest.fixture
def chromium(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """A real browser."""
    # Playwright runs a loop in this thread, and Django would take the tests' own queries for the loop's.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    program = require_program("chromium", "chromium")
    # Five seconds, as it comes, are little on a machine that emulates guests beside the browser.
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(program), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
