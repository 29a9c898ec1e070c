"""A furnished house behind a real server, and a real browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser

from tests.broker.console.furniture import Furniture, furnish
from tests.broker.gallery.looking import Enter, Theme, Visitor
from tests.broker.portal.cast import Estate
from tests.broker.portal.conftest import chromium
from tests.broker.relay.serving import Web, live_house, same_rows, web

__all__ = ["chromium", "live_house", "same_rows", "web"]


@pytest.fixture
def furniture(live_house: Estate) -> Furniture:
    return furnish(live_house)


@pytest.fixture
def enter(chromium: Browser, web: Web) -> Iterator[Enter]:
    """`enter(dana, "dark")`: she sits down at a browser of her own, signed in; None: a stranger."""
    visitors: list[Visitor] = []

    def sit_down(person: User | None, theme: Theme) -> Visitor:
        cookies = {}
        if person is not None:
            client = Client()
            client.force_login(person)
            cookies = {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}
        visitors.append(Visitor(chromium, web.origin, cookies, theme))
        return visitors[-1]

    yield sit_down
    for visitor in visitors:
        visitor.leave()
