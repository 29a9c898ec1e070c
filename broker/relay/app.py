"""The relay as an ASGI application: WebSocket in, the desktop's screen out.

1. Origin, ticket and cookie are checked before the WebSocket opens; a refusal is HTTP 403 in words.
2. The screen's address is awaited for at most 15 s: the ticket came with an order that a pump is carrying out.
3. The relay signs in to the screen (10 s) and tells the browser that no password is needed.
4. Bytes flow both ways until somebody hangs up, or the right to the screen ends.

Whatever fails after step 1 closes the WebSocket with a code of `closing.Code` and a reason in words. RDP goes another
way from the first step on: `rdp/door.py`.
"""

from __future__ import annotations

import asyncio

import structlog
from django.db import DatabaseError

from broker.relay import rfb, screen
from broker.relay.admission import admit
from broker.relay.browser import Browser, Receive, Scope, Send
from broker.relay.closing import BrowserGone, Closing, Code
from broker.relay.rdp import door as rdp_door
from broker.relay.registry import registry
from broker.relay.sessions import address_of, bid_farewell, carry_session, refuse
from broker.services import screens
from broker.services.errors import Forbidden

log = structlog.get_logger()


async def relay(scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, from the request to its end. Anything else is not answered but by 404."""
    if scope["type"] != "websocket":
        await _no_page(scope, send)
        return
    await receive()  # websocket.connect
    if scope["path"] == screens.RDP_PATH:
        await rdp_door.serve(scope, receive, send)
        return
    if scope["path"] != screens.RELAY_PATH:
        await refuse(scope, send, 404, "There is nothing here.")
        return
    try:
        admission = await admit(scope)
    except Forbidden as refusal:
        log.warning("screen.refused", reason=refusal.message, address=address_of(scope))
        await refuse(scope, send, 403, refusal.message)
        return
    except DatabaseError as error:
        log.error("screen.refused", reason=type(error).__name__, address=address_of(scope))
        await refuse(scope, send, 503, "The broker cannot reach its database. Try again in a moment.")
        return
    speaks = screens.SUBPROTOCOL if screens.SUBPROTOCOL in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": speaks})
    closing = await _serve(scope, admission, Browser(receive, send))
    await bid_farewell(send, closing)


async def _no_page(scope: Scope, send: Send) -> None:
    """Where the relay runs apart, it has no pages."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"This is Deskyard's relay; there are no pages here.\n"})


async def _serve(scope: Scope, admission: screens.Admission, browser: Browser) -> Closing | None:
    """Carry the stream. Returns why it ended, or None if the browser left."""
    here = registry()
    facts = {"desktop": str(admission.desktop_id), "user": admission.user_id}
    async with here.present():
        try:
            target = await browser.while_present(screen.target_of(here, admission))
            reader, writer = await browser.while_present(screen.open_screen(target))
            try:
                await _welcome(browser)
                speech = rfb.Rfb(target.has_clipboard)
                closing = await carry_session(address_of(scope), here, admission, speech, browser, reader, writer)
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


async def _welcome(browser: Browser) -> None:
    try:
        async with asyncio.timeout(screen.HANDSHAKE_S):
            await rfb.welcome(browser, browser.send)
    except TimeoutError:
        raise Closing(Code.BAD_BROWSER, "The viewer did not answer in time.") from None
    except rfb.BadBrowser as bad:
        raise Closing(Code.BAD_BROWSER, str(bad)) from None
