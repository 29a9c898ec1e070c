"""A live stream and its bytes: two loops with back-pressure, no rows, no parsing beyond the first byte of a message."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from broker.relay.browser import Browser
from broker.relay.closing import Closing, Code
from broker.services.screens import Admission, Heartbeat

CHUNK = 64 * 1024
READ_LIMIT = 256 * 1024
"""asyncio stops reading from the screen at twice this, so a slow browser costs no more memory than that."""

INPUT = frozenset({4, 5, 6, 255})
"""RFC 6143 §7.5 messages that a person causes: key, pointer, cut text, and QEMU's extended key. Asking for the next
picture (3) is the viewer's own doing and does not count as presence."""


@dataclass(slots=True, eq=False)
class Stream:
    session_id: UUID
    admission: Admission
    input_at: float
    """When a key or the mouse last moved, by the loop's clock."""
    bytes_to_user: int = 0
    bytes_from_user: int = 0
    ordered_end: asyncio.Future[Closing] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, closing: Closing) -> None:
        """Order the stream to end. The first order counts."""
        if not self.ordered_end.done():
            self.ordered_end.set_result(closing)

    @property
    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self.session_id, self.bytes_to_user, self.bytes_from_user)


async def carry(stream: Stream, browser: Browser, reader: StreamReader, writer: StreamWriter) -> Closing:
    """Relay both ways until the screen hangs up or the stream is ordered to end; says why it ended.

    Raises `BrowserGone` when the browser hangs up.
    """
    down = asyncio.create_task(_to_browser(stream, browser, reader))
    up = asyncio.create_task(_to_screen(stream, browser, writer))
    try:
        ends: set[asyncio.Future[Any]] = {down, up, stream.ordered_end}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if stream.ordered_end.done():
            return stream.ordered_end.result()
        # Where both ended, what the browser did comes first: a screen often hangs up only because of it.
        with suppress(ConnectionError):
            await (up if up.done() else down)
        return Closing(Code.ENDED, "The desktop's screen closed. It may have been switched off.")
    except Closing as closing:
        return closing
    finally:
        for task in (down, up):
            task.cancel()
        await asyncio.gather(down, up, return_exceptions=True)


async def _to_browser(stream: Stream, browser: Browser, reader: StreamReader) -> None:
    while data := await reader.read(CHUNK):
        await browser.send(data)
        stream.bytes_to_user += len(data)


async def _to_screen(stream: Stream, browser: Browser, writer: StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        data = await browser.next()
        if data and data[0] in INPUT:
            stream.input_at = clock()
        writer.write(data)
        await writer.drain()
        stream.bytes_from_user += len(data)
