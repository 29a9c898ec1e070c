"""The browser's side of a stream: an ASGI WebSocket as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from broker.relay.closing import BrowserGone, Closing, Code

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

EARLY_LIMIT = 4096
"""Bytes that a browser may send before the stream is open."""


class Browser:
    """Reads exact numbers of bytes until the stream is open; afterwards the relay takes whole messages."""

    def __init__(self, receive: Receive, send: Send, early_limit: int = EARLY_LIMIT) -> None:
        self._receive = receive
        self._send = send
        self._early_limit = early_limit
        self._early = bytearray()

    async def next(self) -> bytes:
        """The next message's bytes. Raises `BrowserGone`, and `Closing` for text, which neither RFB nor RDP has."""
        if self._early:
            early = bytes(self._early)
            self._early.clear()
            return early
        return await self._next_message()

    async def _next_message(self) -> bytes:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise BrowserGone
        data: bytes | None = message.get("bytes")
        if data is None:
            raise Closing(Code.BAD_BROWSER, "The viewer sent text where the screen's protocol has bytes.")
        return data

    async def _read_early(self) -> None:
        self._early += await self._next_message()
        if len(self._early) > self._early_limit:
            raise Closing(Code.BAD_BROWSER, "The viewer sent too much before the screen was open.")

    async def glimpse(self, n: int) -> bytes:
        """The next bytes, at least one and at most `n`, without taking them."""
        while not self._early:
            await self._read_early()
        return bytes(self._early[:n])

    async def readexactly(self, n: int, /) -> bytes:
        while len(self._early) < n:
            await self._read_early()
        taken = bytes(self._early[:n])
        del self._early[:n]
        return taken

    async def send(self, data: bytes, /) -> None:
        """Returns once the server took it: with uvicorn, once the browser keeps up. Raises `BrowserGone`."""
        try:
            await self._send({"type": "websocket.send", "bytes": data})
        except OSError:  # what ASGI servers raise after a disconnect
            raise BrowserGone from None

    async def while_present(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns; raises `BrowserGone` and drops the work as soon as the browser leaves."""
        working = asyncio.create_task(work)
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return await working
            await watching
            raise BrowserGone
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._read_early()
