"""RDP's way through the relay: WebSocket in, the guest's own remote desktop out.

1. `Origin` is checked before the WebSocket opens; a foreign page gets HTTP 403.
2. The browser's first message (RDCleanPath, at most 16 kB, within 10 s) carries the ticket and is burned with it. The
   destination in it is not read: the ticket's desktop says where to go.
3. The guest is reached at its own address within 15 s: TCP, X.224, TLS. Its certificate must be the one by which it was
   first met; then it is signed in to, if the pool has an account and the guest asks before it shows anything.
4. The browser is told how that went, in RDCleanPath, and bytes flow both ways until somebody hangs up or the right
   ends.

What fails from step 2 on is said twice: as an RDCleanPath error, and as the WebSocket's close code with a reason in
words.
"""

from __future__ import annotations

import asyncio

import structlog
from django.db import DatabaseError

from broker.relay.admission import refuse_foreign_origin, session_key
from broker.relay.browser import Browser, Receive, Scope, Send
from broker.relay.closing import BrowserGone, Closing, Code
from broker.relay.rdp import cleanpath, credssp, x224
from broker.relay.rdp import guest as guests_side
from broker.relay.rdp.address import way_to
from broker.relay.rdp.client_info import Account, Start
from broker.relay.rdp.conference import Changes
from broker.relay.rdp.der import Malformed
from broker.relay.rdp.guest import Guest
from broker.relay.rdp.speech import Rdp
from broker.relay.rdp.x224 import Security
from broker.relay.registry import registry
from broker.relay.rows import ask
from broker.relay.sessions import address_of, bid_farewell, carry_session, refuse
from broker.services import guests, screens
from broker.services.errors import Clash, Forbidden
from broker.services.guests import Way

log = structlog.get_logger()

REQUEST_S = 10
"""How long the browser's first message is awaited."""
REACH_S = 15
"""How long the guest may take until it speaks RDP."""
SIGN_IN_S = 10
CONNECTION_REFUSED = 10061
"""WSAECONNREFUSED, as the client knows it."""
STATUS = {Code.NOT_ALLOWED: 403, Code.REFUSED: 403, Code.BAD_BROWSER: 400, Code.NOT_READY: 504, Code.UNREACHABLE: 502}
"""What an RDCleanPath error says in HTTP's numbers; 500 for the rest."""


class NeedsNla(Exception):
    """The guest lets nobody in who does not sign in before it shows anything, and the browser cannot."""

    def __init__(self, confirmation: bytes) -> None:
        super().__init__()
        self.confirmation = confirmation


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket, from the request to its end."""
    try:
        refuse_foreign_origin(scope)
    except Forbidden as refusal:
        log.warning("screen.refused", reason=refusal.message, address=address_of(scope))
        await refuse(scope, send, 403, refusal.message)
        return
    await send({"type": "websocket.accept"})
    browser = Browser(receive, send, early_limit=2 * cleanpath.LIMIT)
    try:
        closing: Closing | None = await _serve(scope, browser)
    except BrowserGone:
        closing = None
    await bid_farewell(send, closing)


async def _serve(scope: Scope, browser: Browser) -> Closing:
    """Carry the stream. Returns why it ended. Raises `BrowserGone`."""
    try:
        request = await _request(browser)
        admission = await ask(
            screens.admit, ticket=request.ticket, session_key=session_key(scope), protocol=screens.RDP
        )
    except (Closing, Forbidden, DatabaseError) as failure:
        closing = _closing(failure)
        log.warning("screen.refused", reason=closing.reason, address=address_of(scope))
        await _tell(browser, closing)
        return closing
    facts = {"desktop": str(admission.desktop_id), "user": admission.user_id}
    try:
        closing = await _carry(scope, browser, request, admission)
    except BrowserGone:
        log.info("screen.left", **facts)
        raise
    log.info("screen.closed", code=int(closing.code), reason=closing.reason, **facts)
    return closing


def _closing(failure: Closing | Forbidden | DatabaseError) -> Closing:
    if isinstance(failure, Closing):
        return failure
    if isinstance(failure, Forbidden):
        return Closing(Code.NOT_ALLOWED, failure.message)
    log.error("screen.rows_unreachable", reason=type(failure).__name__)
    return Closing(Code.AWAY, "The broker cannot reach its database. Try again in a moment.")


async def _tell(browser: Browser, closing: Closing) -> None:
    """The same as the close frame says, to the client that waits for an RDCleanPath answer."""
    is_unreachable = closing.code is Code.UNREACHABLE
    await browser.send(
        cleanpath.refusal(
            cleanpath.GENERAL,
            http_status=STATUS.get(closing.code, 500),
            socket_error=CONNECTION_REFUSED if is_unreachable else None,
        )
    )


async def _request(browser: Browser) -> cleanpath.Request:
    """The browser's first message. Raises `Closing`."""
    try:
        async with asyncio.timeout(REQUEST_S):
            length = None
            wanted = 1
            while length is None:
                length = cleanpath.length_of(head := await browser.glimpse(wanted))
                wanted = len(head) + 1
            return cleanpath.read_request(await browser.readexactly(length))
    except TimeoutError:
        raise Closing(Code.BAD_BROWSER, "The viewer did not say in time what it wants.") from None
    except Malformed as fault:
        raise Closing(Code.BAD_BROWSER, f"The viewer sent {fault}.") from None


async def _carry(scope: Scope, browser: Browser, request: cleanpath.Request, admission: screens.Admission) -> Closing:
    here = registry()
    async with here.present():
        try:
            way = await browser.while_present(way_to(admission))
            asked = _asked(request)
            guest = await browser.while_present(_reach(way, asked))
        except NeedsNla as needs:
            await browser.send(cleanpath.refusal(cleanpath.NEGOTIATION, x224=needs.confirmation))
            return Closing(Code.REFUSED, "The desktop wants to know who comes before it shows anything (NLA).")
        except (Closing, Forbidden, DatabaseError) as failure:
            closing = _closing(failure)
            await _tell(browser, closing)
            return closing
        try:
            speech = await browser.while_present(_welcome(browser, way, asked, guest, admission))
            return await carry_session(address_of(scope), here, admission, speech, browser, guest.reader, guest.writer)
        except (Closing, Forbidden, DatabaseError) as failure:
            closing = _closing(failure)
            await _tell(browser, closing)
            return closing
        finally:
            guest.writer.close()


def _asked(request: cleanpath.Request) -> Security:
    """Which security the browser can do, of what we know. Raises `Closing`."""
    try:
        asked = x224.asked_for(request.x224)
    except Malformed as fault:
        raise Closing(Code.BAD_BROWSER, f"The viewer sent {fault}.") from None
    if not asked & (Security.TLS | Security.NLA):
        raise Closing(Code.BAD_BROWSER, "The viewer asks for a connection without TLS.")
    return asked & (Security.TLS | Security.NLA)


async def _reach(way: Way, asked: Security) -> Guest:
    offered = Security.TLS | Security.NLA if way.account else asked
    try:
        async with asyncio.timeout(REACH_S):
            return await guests_side.reach(way.addresses, way.port, offered)
    except guests_side.Refused as refused:
        raise NeedsNla(refused.confirmation) from None
    except (TimeoutError, guests_side.NobodyAnswers):
        log.warning("screen.unreachable", addresses=list(way.addresses), port=way.port)
        words = (
            "The desktop's remote desktop (RDP) does not answer. Try again; if it stays so, tell your administrator."
        )
        raise Closing(Code.UNREACHABLE, words) from None


async def _welcome(browser: Browser, way: Way, asked: Security, guest: Guest, admission: screens.Admission) -> Rdp:
    """Recognise the guest, sign in to it if that is ours to do, and tell the browser. Raises `Closing`, `Forbidden`."""
    try:
        await ask(guests.recognise, admission=admission, sha256=guest.fingerprint)
    except Clash as clash:
        raise Closing(Code.REFUSED, clash.message) from None
    chosen: Security | None = None
    told = guest.confirmation
    account = Account(way.account.user, way.account.password) if way.account else None
    if account and guest.security is Security.NLA:
        await _sign_in(guest, account, way, admission)
        account = None
        chosen, told = guest.security, x224.telling(guest.confirmation, Security.TLS)
        if not asked & Security.TLS:
            raise Closing(Code.BAD_BROWSER, "The viewer insists on signing in itself.")
    await browser.send(cleanpath.response(x224=told, certificates=[guest.certificate], address=guest.address))
    start = Start(way.program.line, way.program.folder) if way.program else None
    return Rdp(Changes(way.asks_32_bpp, way.has_clipboard, chosen, account, start))


async def _sign_in(guest: Guest, account: Account, way: Way, admission: screens.Admission) -> None:
    try:
        async with asyncio.timeout(SIGN_IN_S):
            await credssp.sign_in(
                guest.reader, guest.writer, host=guest.address, certificate=guest.certificate, account=account
            )
    except TimeoutError:
        raise Closing(Code.UNREACHABLE, "The desktop did not answer to the sign-in in time. Try again.") from None
    except credssp.NotLetIn:
        if way.can_renew:
            await ask(guests.distrust, admission=admission)
            words = "The desktop did not know its user's password and gets it anew. Try again."
            raise Closing(Code.NOT_READY, words) from None
        words = "The desktop does not take the account that its pool has. Tell your administrator."
        raise Closing(Code.REFUSED, words) from None
    except credssp.Imposter:
        words = "What answers at the desktop's address could not prove to be it. Tell your administrator."
        raise Closing(Code.REFUSED, words) from None
