"""Alice's browser, real, at a page of a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import Web, signed_in


@pytest.fixture
def alices_page(chromium: Browser, web: Web, live_house: Estate) -> Iterator[Page]:
    """Alice's browser; what its scripts or the content security policy complain about fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    key = signed_in(live_house, "alice")
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": key, "url": web.origin}])
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert not complaints


def is_complaint(said: ConsoleMessage) -> bool:
    """Refused answers (409 while a desktop starts) and requests lost on the way are the page's own business."""
    return said.type in ("error", "warning") and not said.text.startswith("Failed to load resource")


def eventually(page: Page, claim: Callable[[], object], limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if claim():
            return
        page.wait_for_timeout(50)
    raise AssertionError("did not happen in time")
