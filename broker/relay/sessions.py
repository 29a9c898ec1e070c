"""What all streams of the relay have in common, whatever they carry: refusal, farewell, and the stream's session."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from broker.relay.browser import Scope, Send
from broker.relay.closing import BrowserGone, Closing, fitting
from broker.relay.registry import Registry
from broker.relay.rows import ask
from broker.relay.streams import Speech, Stream, Viewer, carry
from broker.services import screens

FAREWELL_S = 5
"""How long a browser that does not read is given to take the close frame."""


def address_of(scope: Scope) -> str | None:
    """Whence the browser comes; None if the server does not know."""
    client = scope.get("client")
    return client[0] if client else None


async def refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    """Answer the request instead of opening the WebSocket."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 4403})  # servers make HTTP 403 of it
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reason.encode()})


async def bid_farewell(send: Send, closing: Closing | None) -> None:
    """Close the WebSocket with code and reason; nothing to do for a browser that left (None)."""
    if closing:
        with suppress(OSError, TimeoutError):
            message = {"type": "websocket.close", "code": int(closing.code), "reason": fitting(closing.reason)}
            await asyncio.wait_for(send(message), FAREWELL_S)


async def carry_session(
    address: str | None,
    here: Registry,
    admission: screens.Admission,
    speech: Speech,
    browser: Viewer,
    reader: StreamReader,
    writer: StreamWriter,
) -> Closing:
    """Carry an open stream to its end, with a row that says so. Raises `BrowserGone`."""
    session_id = await ask(screens.start_session, admission=admission, address=address)
    stream = Stream(session_id, admission, input_at=asyncio.get_running_loop().time())
    reason = "The relay stopped."
    try:
        with here.carrying(stream):
            closing = await carry(stream, speech, browser, reader, writer)
        reason = closing.reason
        return closing
    except BrowserGone:
        reason = "Its program left." if admission.client == screens.NATIVE else "The browser left."
        raise
    finally:
        # Shielded: the server may be stopping, and the row is to say so.
        await asyncio.shield(ask(screens.end_session, heartbeat=stream.heartbeat, reason=reason))
