"""What a page asks for by itself: its live part, the pulse of the frame, the stream of changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
import redis.asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connections
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import reverse
from pytest_django import Settings

from broker.console import live
from broker.selectors import pulse
from broker.services import nudges
from tests.broker.console.furniture import Furniture
from tests.broker.console.pages import LISTS, all_pages
from tests.broker.portal.cast import Estate


@pytest.fixture(autouse=True)
def _forget_health() -> Iterator[None]:
    """What was found out about Redis here is nobody else's business."""
    yield
    pulse.connection.cache_clear()
    cache.delete("health.processes")


@pytest.fixture
async def connections_closed() -> AsyncIterator[None]:
    """Async tests reach the database from a thread of their own, whose connection would outlive them."""
    yield
    await sync_to_async(connections.close_all)()


ASKING = {"HX-Request": "true", "HX-Target": "live"}


@pytest.mark.parametrize("name", LISTS)
def test_a_page_that_asks_for_its_live_part_gets_that_alone(
    house: Estate, furniture: Furniture, dana: Client, name: str
) -> None:
    address = reverse(f"console:{name}")
    whole, part = dana.get(address).content.decode(), dana.get(address, headers=ASKING).content.decode()
    assert 'id="live"' in whole
    assert "<html" in whole
    assert "<html" not in part
    assert 'id="live"' not in part, "it would nest itself"


def test_live_parts_keep_the_filter_of_the_page(house: Estate, furniture: Furniture, dana: Client) -> None:
    page = dana.get(reverse("console:desktops") + "?state=failed&q=office").content.decode()
    assert 'hx-get="/console/desktops/?state=failed&amp;q=office"' in page
    assert "office-008" in page
    assert "office-002" not in page


def test_the_pulse_counts_what_runs(house: Estate, furniture: Furniture, dana: Client) -> None:
    assert "2 operations are not finished" in " ".join(dana.get(reverse("console:pulse")).content.decode().split())


def _redis_at(settings: Settings, url: str) -> None:
    settings.REDIS_URL = url
    pulse.connection.cache_clear()
    cache.delete("health.processes")


def test_every_page_says_that_no_worker_runs(
    house: Estate, furniture: Furniture, dana: Client, settings: Settings, redis_url: str
) -> None:
    _redis_at(settings, redis_url)
    words = "No worker is running: nothing is carried out. Start one."
    pages = all_pages(house, furniture) | {
        "a desktop that is gone": reverse("console:desktop", args=[uuid4()]),
        "an address that never was": reverse("console:dashboard") + "attic/",
    }
    del pages["tasks"]  # a part of the frame; the banners are another one
    silent = [name for name, address in pages.items() if words not in dana.get(address).content.decode()]
    assert not silent
    pulse.connection().set(pulse.key("worker"), "here", ex=10)
    cache.delete("health.processes")
    assert words not in dana.get(reverse("console:pulse")).content.decode(), "an open page learns it too"


def test_while_redis_is_away_one_banner_says_all_there_is_to_say(
    house: Estate, dana: Client, settings: Settings
) -> None:
    _redis_at(settings, "redis://127.0.0.1:9/0")
    page = dana.get(reverse("console:dashboard")).content.decode()
    assert "Redis does not answer" in page
    assert "Unknown while Redis is away" not in page


def _browser(person: User) -> AsyncClient:
    browser = AsyncClient()
    browser.force_login(person)
    return browser


@pytest.mark.django_db(transaction=True)
async def test_the_stream_names_what_changed_and_what_may_have_been_missed(settings: Settings, redis_url: str) -> None:
    settings.REDIS_URL = redis_url
    dana = await sync_to_async(User.objects.create_user)("dana", is_staff=True)
    answer = await (await sync_to_async(_browser)(dana)).get(reverse("console:live"))
    assert answer["Content-Type"] == "text/event-stream"
    streamed: Any = cast(StreamingHttpResponse, answer).streaming_content
    stream = aiter(streamed)
    assert await anext(stream) == b"retry: 2000\n\n"
    missed = (await anext(stream)).decode()
    assert {f"event: {noun}" for noun in live.NOUNS} <= set(missed.splitlines()), "at first, everything"
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.publish(nudges.LIVE_CHANNEL, json.dumps({"noun": "desktops", "desktop": "x"}))
        await client.publish(nudges.LIVE_CHANNEL, json.dumps({"noun": "screens"}))
    assert await anext(stream) == b"event: desktops\ndata: changed\n\n"
    await stream.aclose()


@pytest.mark.django_db(transaction=True)
async def test_users_and_strangers_hear_nothing(connections_closed: None) -> None:
    alice = await sync_to_async(User.objects.create_user)("alice")
    assert (await (await sync_to_async(_browser)(alice)).get(reverse("console:live"))).status_code == 403
    assert (await AsyncClient().get(reverse("console:live"))).status_code == 403
