"""The relay as an ASGI application: WebSocket in, the desktop's screen out.

1. Origin, ticket and cookie are checked before the WebSocket opens; a refusal is HTTP 403 in words.
2. The screen's address is awaited for at most 15 s: the ticket came with an order that a pump is carrying out.
3. The relay signs in to the screen (10 s) and tells the browser that no password is needed.
4. Bytes flow both ways until somebody hangs up, or the right to the screen ends.

Whatever fails after step 1 closes the WebSocket with a code of `closing.Code` and a reason in words.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

import structlog
from django.db import DatabaseError

from broker.relay import rfb
from broker.relay.admission import admit
from broker.relay.browser import Browser, Receive, Scope, Send
from broker.relay.closing import BrowserGone, Closing, Code, fitting
from broker.relay.registry import Registry, registry
from broker.relay.rows import ask
from broker.relay.streams import READ_LIMIT, Stream, carry
from broker.services import screens
from broker.services.errors import Clash, Forbidden

log = structlog.get_logger()

TARGET_S = 15
"""How long the address of a screen is awaited."""
LOOK_S = 0.5
"""How often rows are looked at meanwhile, should no hint come."""
HANDSHAKE_S = 10
FAREWELL_S = 5
"""How long a browser that does not read is given to take the close frame."""


async def relay(scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, from the request to its end. Anything else is not answered but by 404."""
    if scope["type"] != "websocket":
        await _no_page(scope, send)
        return
    await receive()  # websocket.connect
    if scope["path"] != screens.RELAY_PATH:
        await _refuse(scope, send, 404, "There is nothing here.")
        return
    try:
        admission = await admit(scope)
    except Forbidden as refusal:
        log.warning("screen.refused", reason=refusal.message, address=_address(scope))
        await _refuse(scope, send, 403, refusal.message)
        return
    except DatabaseError as error:
        log.error("screen.refused", reason=type(error).__name__, address=_address(scope))
        await _refuse(scope, send, 503, "The broker cannot reach its database. Try again in a moment.")
        return
    speaks = screens.SUBPROTOCOL if screens.SUBPROTOCOL in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": speaks})
    closing = await _serve(scope, admission, Browser(receive, send))
    if closing:
        with suppress(OSError, TimeoutError):
            message = {"type": "websocket.close", "code": int(closing.code), "reason": fitting(closing.reason)}
            await asyncio.wait_for(send(message), FAREWELL_S)


async def _no_page(scope: Scope, send: Send) -> None:
    """Where the relay runs apart, it has no pages."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"This is Deskyard's relay; there are no pages here.\n"})


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    """Answer the request instead of opening the WebSocket."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 4403})  # servers make HTTP 403 of it
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reason.encode()})


async def _serve(scope: Scope, admission: screens.Admission, browser: Browser) -> Closing | None:
    """Carry the stream. Returns why it ended, or None if the browser left."""
    here = registry()
    facts = {"desktop": str(admission.desktop_id), "user": admission.user_id}
    async with here.present():
        try:
            target = await browser.while_present(_target(here, admission))
            reader, writer = await browser.while_present(_open_screen(target))
            try:
                await _welcome(browser)
                closing = await _carry(scope, here, admission, browser, reader, writer)
            finally:
                writer.close()
        except Closing as failure:
            closing = failure
        except DatabaseError as error:
            log.error("screen.rows_unreachable", reason=type(error).__name__)
            closing = Closing(Code.AWAY, "The broker cannot reach its database. Try again in a moment.")
        except BrowserGone:
            log.info("screen.left", **facts)
            return None
        log.info("screen.closed", code=int(closing.code), reason=closing.reason, **facts)
        return closing


async def _target(here: Registry, admission: screens.Admission) -> screens.Target:
    """The screen's address, as soon as the pump has it. Raises `Closing`."""
    operation = await ask(screens.operation_of, admission.ticket_id)
    with here.waiting_for(operation) as arrived:
        try:
            async with asyncio.timeout(TARGET_S):
                while True:
                    arrived.clear()
                    target = await ask(screens.target_of, admission.ticket_id)
                    if target:
                        return target
                    with suppress(TimeoutError):
                        await asyncio.wait_for(arrived.wait(), LOOK_S)
        except TimeoutError:
            raise Closing(Code.NOT_READY, "The desktop's screen was not ready in time. Try again.") from None
        except Clash as clash:
            raise Closing(Code.FAILED, clash.message) from None
        except Forbidden as refusal:
            raise Closing(Code.NOT_ALLOWED, refusal.message) from None


async def _open_screen(target: screens.Target) -> tuple[StreamReader, StreamWriter]:
    """A connection to the screen, signed in. Raises `Closing`."""
    writer: StreamWriter | None = None
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=READ_LIMIT)
            await rfb.sign_in(reader, writer, target.password)
            return reader, writer
    except TimeoutError:
        reason = f"The desktop's screen did not answer within {HANDSHAKE_S} seconds. Try again."
    except rfb.ScreenRefused as refused:
        reason = f"The desktop's screen let nobody in. {refused}"
    except OSError as error:
        log.warning("screen.unreachable", host=target.host, port=target.port, reason=type(error).__name__)
        reason = "The desktop's screen cannot be reached. Try again; if it stays so, tell your administrator."
    except BaseException:
        if writer:
            writer.close()
        raise
    if writer:
        writer.close()
    raise Closing(Code.UNREACHABLE, reason)


async def _welcome(browser: Browser) -> None:
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await rfb.welcome(browser, browser.send)
    except TimeoutError:
        raise Closing(Code.BAD_BROWSER, "The viewer did not answer in time.") from None
    except rfb.BadBrowser as bad:
        raise Closing(Code.BAD_BROWSER, str(bad)) from None


async def _carry(
    scope: Scope,
    here: Registry,
    admission: screens.Admission,
    browser: Browser,
    reader: StreamReader,
    writer: StreamWriter,
) -> Closing:
    session_id = await ask(screens.start_session, admission=admission, address=_address(scope))
    stream = Stream(session_id, admission, input_at=asyncio.get_running_loop().time())
    reason = "The relay stopped."
    try:
        with here.carrying(stream):
            closing = await carry(stream, browser, reader, writer)
        reason = closing.reason
        return closing
    except BrowserGone:
        reason = "The browser left."
        raise
    finally:
        # Shielded: the server may be stopping, and the row is to say so.
        await asyncio.shield(ask(screens.end_session, heartbeat=stream.heartbeat, reason=reason))
