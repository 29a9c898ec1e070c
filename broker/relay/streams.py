"""A live stream and its bytes: two loops with back-pressure, no rows, and no more parsing than the speech needs."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from broker.relay.closing import Closing, Code
from broker.services.screens import NATIVE, Admission, Heartbeat

CHUNK = 64 * 1024
READ_LIMIT = 256 * 1024
"""asyncio stops reading from the screen at twice this, so a slow browser costs no more memory than that."""


class Viewer(Protocol):
    """The user's side of a stream: a browser, or a program of their own."""

    async def next(self) -> bytes:
        """The next bytes, never none. Raises `BrowserGone`, and `Closing` for what does not belong there."""
        ...

    async def send(self, data: bytes, /) -> None:
        """Returns once it keeps up. Raises `BrowserGone`."""
        ...


class Speech(Protocol):
    """The protocol that a stream carries, as far as the relay has to know it."""

    def is_input(self, data: bytes, /) -> bool:
        """Whether a message of the browser was caused by a person: a key, the mouse."""
        ...

    def passed(self, data: bytes, /) -> bytes:
        """What of a message from the browser goes on to the screen. Raises `Closing` for what must not pass."""
        ...

    def messages(self, data: bytes, /) -> Iterable[bytes]:
        """What of the screen's bytes goes on to the browser now, cut into the messages it takes."""
        ...


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
        idle_s = max(asyncio.get_running_loop().time() - self.input_at, 0.0)
        ticket_id = self.admission.ticket_id if self.admission.client == NATIVE else None
        return Heartbeat(self.session_id, self.bytes_to_user, self.bytes_from_user, idle_s, ticket_id)


async def carry(stream: Stream, speech: Speech, browser: Viewer, reader: StreamReader, writer: StreamWriter) -> Closing:
    """Relay both ways until the screen hangs up or the stream is ordered to end; says why it ended.

    Raises `BrowserGone` when the browser hangs up.
    """
    down = asyncio.create_task(_to_browser(stream, speech, browser, reader))
    up = asyncio.create_task(_to_screen(stream, speech, browser, writer))
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


async def _to_browser(stream: Stream, speech: Speech, browser: Viewer, reader: StreamReader) -> None:
    while data := await reader.read(CHUNK):
        for message in speech.messages(data):
            await browser.send(message)
            stream.bytes_to_user += len(message)


async def _to_screen(stream: Stream, speech: Speech, browser: Viewer, writer: StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        data = await browser.next()
        if speech.is_input(data):
            stream.input_at = clock()
        writer.write(speech.passed(data))
        await writer.drain()
        stream.bytes_from_user += len(data)
