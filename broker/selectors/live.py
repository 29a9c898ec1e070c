"""What changes, as it changes: one subscription to Redis a process, shared by every open page and by the relay.

Messages are hints. When Redis is away nothing comes but keep-alives, and the pages ask by themselves every while; when
it is back, everybody is told that something may have been missed (`GAP`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio
import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection

log = structlog.get_logger()

Change = Mapping[str, str]
"""`noun`, and facts that narrow it: `desktop`, `user`, …"""

GAP: Change = {"noun": "*"}
"""Something may have been missed: look at everything again."""

KEEP_ALIVE_S = 15
PAUSE_S = 1.0
"""A page hears of a noun at most once in this time, however busy the estate is."""
LIFE_S = 300
"""A stream of events ends after this; the browser comes back by itself and is asked again who it is."""
QUEUE_LENGTH = 500
RECONNECT_S = 1.0


class Hub:
    """Reads one Redis channel as long as anybody listens and hands every message to all who do."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._queues: set[asyncio.Queue[Change]] = set()
        self._reader: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Queue[Change]]:
        """A queue that gets every change until the block is left. Who does not keep up finds `GAP` in it."""
        queue: asyncio.Queue[Change] = asyncio.Queue(QUEUE_LENGTH)
        self._queues.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            yield queue
        finally:
            self._queues.discard(queue)
            if not self._queues and self._reader:
                self._reader.cancel()
                self._reader = None

    async def _read(self) -> None:
        while True:
            try:
                await self._read_until_lost()
            except (redis.asyncio.RedisError, OSError) as error:
                # Where the farewell to Redis fails, its error takes the place of the order to stop.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError from error
                log.info("live.lost", reason=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _read_until_lost(self) -> None:
        client: Any = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=2, health_check_interval=10, retry=None
        )
        async with client, client.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            # Whatever was said before the subscription stood went unheard.
            self._hand_out(GAP)
            while True:
                message = await subscription.get_message(ignore_subscribe_messages=True, timeout=5)
                if message is not None:
                    self._hand_out(_change(message["data"]))

    def _hand_out(self, change: Change) -> None:
        for queue in self._queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                change = GAP
            queue.put_nowait(change)


def _change(data: bytes) -> Change:
    """What was announced; `GAP` for what cannot be read."""
    try:
        found = json.loads(data)
    except ValueError:
        return GAP
    return found if isinstance(found, dict) and "noun" in found else GAP


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Hub]] = WeakKeyDictionary()


def hub(channel: str) -> Hub:
    """The hub of this channel in the running event loop."""
    return _hubs.setdefault(asyncio.get_running_loop(), {}).setdefault(channel, Hub(channel))


async def events(
    channel: str, nouns: frozenset[str], concerns: Callable[[Change], bool], *, pause_s: float = PAUSE_S
) -> AsyncIterator[str]:
    """Server-sent events: one named after each noun that changed, if the change concerns this page.

    Gathers what comes within `pause_s`, sends comments to keep the line open, and ends after some minutes.
    """
    await sync_to_async(_let_go_of_the_database)()
    yield "retry: 2000\n\n"
    clock = asyncio.get_running_loop().time
    end = clock() + LIFE_S
    async with hub(channel).listening() as queue:
        while clock() < end:
            try:
                changed = await asyncio.wait_for(_next(queue, nouns, concerns), KEEP_ALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            yield "".join(f"event: {noun}\ndata: changed\n\n" for noun in sorted(changed))
            await asyncio.sleep(pause_s)


def _let_go_of_the_database() -> None:
    """A page that stays open for hours must not hold a connection: its request's thread lives as long as it does."""
    if not connection.in_atomic_block:
        connection.close()


async def _next(queue: asyncio.Queue[Change], nouns: frozenset[str], concerns: Callable[[Change], bool]) -> set[str]:
    """The nouns that changed, as soon as there is one: all that wait in the queue at once."""
    changed: set[str] = set()
    while not changed:
        change: Change | None = await queue.get()
        while change is not None:
            if change["noun"] == GAP["noun"]:
                changed |= nouns
            elif change["noun"] in nouns and concerns(change):
                changed.add(change["noun"])
            change = None if queue.empty() else queue.get_nowait()
    return changed
