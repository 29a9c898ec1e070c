"""What open pages hear, and that they go on hearing when Redis was away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import httpx
import pytest
import redis
from django.conf import settings
from django.test import AsyncClient
from pytest_django import Settings

from broker.selectors import live
from broker.services import nudges
from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import Web, signed_in
from tests.support.redis import RedisServer, private_redis

CHANNEL = "test:live"
NOUNS = frozenset({"desktops", "requests"})
MINE = "7"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with private_redis() as running:
        yield running


@pytest.fixture
def said(server: RedisServer, settings: Settings) -> Iterator[redis.Redis]:
    """Somebody who announces; the server runs when the test begins."""
    server.start()
    settings.REDIS_URL = server.url
    with redis.Redis.from_url(server.url) as client:
        yield client


def say(client: redis.Redis, noun: str, **facts: str) -> None:
    client.publish(CHANNEL, json.dumps({"noun": noun, **facts}))


async def listening(stream: AsyncIterator[str]) -> None:
    """Until the page has heard that it may have missed something, which says that it hears now."""
    assert await anext(stream) == "retry: 2000\n\n"
    assert "event: desktops\n" in await anext(stream)


def stream() -> AsyncIterator[str]:
    return live.events(CHANNEL, NOUNS, lambda change: change.get("user", MINE) == MINE, pause_s=0.1)


async def heard(stream: AsyncIterator[str], within_s: float = 30) -> str:
    return await asyncio.wait_for(anext(stream), within_s)


async def test_a_page_hears_of_what_concerns_it_and_of_nothing_else(said: redis.Redis) -> None:
    page = stream()
    await listening(page)
    say(said, "templates")
    say(said, "desktops", user="8")
    say(said, "requests", user=MINE)
    assert await heard(page) == "event: requests\ndata: changed\n\n"


async def test_what_comes_in_quick_succession_is_told_once(said: redis.Redis) -> None:
    page = stream()
    await listening(page)
    for _ in range(50):
        say(said, "desktops")
        say(said, "requests")
    first = await heard(page)
    assert "desktops" in first
    told = 1
    with suppress(TimeoutError):
        while told < 10:
            await heard(page, 0.5)
            told += 1
    assert told <= 3


async def test_two_pages_share_one_subscription(said: redis.Redis) -> None:
    one, two = stream(), stream()
    await listening(one)
    assert await anext(two) == "retry: 2000\n\n"
    hears = asyncio.ensure_future(heard(two))
    await asyncio.sleep(0.1)
    say(said, "desktops")
    assert await heard(one) == await hears
    assert said.pubsub_numsub(CHANNEL) == [(CHANNEL.encode(), 1)]


async def test_after_redis_was_away_a_page_is_told_to_look_at_everything_again(
    said: redis.Redis, server: RedisServer
) -> None:
    page = stream()
    await listening(page)
    server.kill()
    await asyncio.sleep(0.2)
    server.start()
    assert await heard(page) == "event: desktops\ndata: changed\n\nevent: requests\ndata: changed\n\n"
    say(said, "requests")
    assert "requests" in await heard(page)


async def test_nonsense_on_the_channel_counts_as_a_gap(said: redis.Redis) -> None:
    page = stream()
    await listening(page)
    said.publish(CHANNEL, "{not json")
    assert "desktops" in await heard(page)


async def test_a_page_that_does_not_keep_up_finds_a_gap(said: redis.Redis) -> None:
    async with live.hub(CHANNEL).listening() as queue:
        assert await asyncio.wait_for(queue.get(), 5) == live.GAP
        for number in range(live.QUEUE_LENGTH + 10):
            say(said, "desktops", number=str(number))
        await asyncio.sleep(0.5)
        found = [queue.get_nowait() for _ in range(queue.qsize())]
    assert live.GAP in found
    assert found[-1]["number"] == str(live.QUEUE_LENGTH + 9)


@pytest.mark.django_db
async def test_who_is_signed_out_hears_nothing() -> None:
    assert (await AsyncClient().get("/live/")).status_code == 401


def test_the_stream_is_one_of_events_and_nobody_keeps_it(web: Web, live_house: Estate) -> None:
    cookies = {settings.SESSION_COOKIE_NAME: signed_in(live_house, "alice")}
    with httpx.stream("GET", f"{web.origin}/live/", cookies=cookies, timeout=10) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        lines = response.iter_lines()
        assert next(lines) == "retry: 2000"
        nudges.announce("requests", user=str(live_house.alice.pk))
        assert "event: requests" in lines


class Sticky:
    """A connection to Redis that says nothing, and once fails to close."""

    fails = True

    async def __aenter__(self) -> Sticky:
        return self

    async def __aexit__(self, *_how: object) -> None:
        if self.fails:
            self.fails = False
            raise TimeoutError("Timed out closing connection after 2")

    def pubsub(self) -> Sticky:
        return self

    async def subscribe(self, _channel: str) -> None: ...

    async def get_message(self, **_how: object) -> None:
        await asyncio.sleep(60)


async def test_a_reader_that_is_told_to_stop_stops_also_if_its_farewell_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Sticky()
    monkeypatch.setattr(redis.asyncio.Redis, "from_url", lambda *_where, **_how: connection)
    heard = live.Hub(CHANNEL)
    async with heard.listening() as changes:
        assert await changes.get() == live.GAP
        reader = heard._reader
        assert reader is not None
    await asyncio.wait({reader}, timeout=5)
    assert reader.cancelled()
