"""RDP through the relay: a real WebSocket client on one side, a real TLS server on the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from broker.models import AuditEntry, Desktop, Entitlement, GuestCertificate, Pool, ScreenSession
from broker.relay.closing import Code
from broker.relay.rdp import cleanpath, client_info, conference, der, x224
from broker.relay.rdp.conference import Changes
from broker.relay.rdp.x224 import Security
from broker.services import brokering, guests, pools, screens
from tests.broker.portal.cast import Estate
from tests.broker.relay.rdp.rdp_guest import WANTS_NLA, RdpGuest, rdp_guest
from tests.broker.relay.serving import Web, signed_in
from tests.support.rdp_servers import guest_address

CONNECT_INITIAL = (Path(__file__).parent / "ironrdp-0.7.0-connect-initial.bin").read_bytes()
CLIENT_INFO = (Path(__file__).parent / "ironrdp-0.7.0-client-info.bin").read_bytes()
SPENT = "This ticket is unknown, was used before, or has expired. Open the desktop again."


@pytest.fixture
def guest(house: Estate, tmp_path: Path) -> Iterator[RdpGuest]:
    """Alice's desktop is this guest."""
    with guest_address() as address, rdp_guest(address, tmp_path) as served:
        pools.change_pool(actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=served.port)
        Desktop.objects.filter(pk=house.desktop.pk).update(addresses=[address])
        yield served


def ask(house: Estate, cookie: str) -> str:
    return screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=cookie).ticket


def open_socket(web: Web, cookie: str = "", origin: str | None = "") -> ClientConnection:
    headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"} if cookie else {}
    found = web.origin if origin == "" else origin
    return connect(
        f"ws://127.0.0.1:{web.port}{screens.RDP_PATH}",
        origin=None if found is None else Origin(found),
        additional_headers=headers,
        compression=None,
    )


def request(ticket: str, offered: Security = Security.TLS | Security.NLA, destination: str = "10.0.0.1:22") -> bytes:
    parts = (
        (0, der.integer(cleanpath.VERSION)),
        (2, der.encode(der.UTF8_STRING, destination.encode())),
        (3, der.encode(der.UTF8_STRING, ticket.encode())),
        (6, der.encode(der.OCTET_STRING, x224.request(offered))),
    )
    return der.encode(der.SEQUENCE, b"".join(der.encode(der.context(tag), content) for tag, content in parts))


def answer(browser: ClientConnection) -> dict[int, bytes]:
    data = browser.recv(timeout=30)
    assert isinstance(data, bytes)
    return der.fields(data)


def error(found: dict[int, bytes]) -> dict[int, int]:
    return {tag: der.number(value) for tag, value in der.fields(found[1]).items()}


def closing(browser: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        while True:
            browser.recv(timeout=30)
    assert browser.close_code is not None
    return browser.close_code, browser.close_reason or ""


def eventually(claim: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_a_browser_reaches_the_guest_of_its_ticket_and_not_the_place_it_names(
    house: Estate, web: Web, guest: RdpGuest
) -> None:
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), destination="127.0.0.1:22"))
        found = answer(browser)
        assert der.text(found[9]) == guest.address
        assert x224.read_confirmation(der.only(found[6], der.OCTET_STRING)).security is Security.TLS
        browser.send(CONNECT_INITIAL)
        changed = conference.rewritten(CONNECT_INITIAL, Changes(asks_32_bpp=True, has_clipboard=True))
        assert browser.recv() == changed != CONNECT_INITIAL
        browser.send(CLIENT_INFO)
        browser.send(b"\x44\x04\x00\x10")
    eventually(lambda: ScreenSession.objects.get().ended_at)
    assert guest.requests == [x224.request(Security.TLS | Security.NLA)]
    changed += client_info.signing_in(CLIENT_INFO, None)
    assert bytes(guest.received) == changed + b"\x44\x04\x00\x10"
    session = ScreenSession.objects.get()
    assert (session.user, session.protocol, session.bytes_from_user) == (house.alice, "rdp", len(changed) + 4)


def test_a_request_in_pieces_is_put_together(house: Estate, web: Web, guest: RdpGuest) -> None:
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        whole = request(ask(house, cookie))
        for at in range(0, len(whole), 7):
            browser.send(whole[at : at + 7])
        assert 6 in answer(browser)


def test_a_pool_without_clipboard_lets_no_clipboard_through(house: Estate, web: Web, guest: RdpGuest) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, has_clipboard=False, asks_32_bpp=False)
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        answer(browser)
        browser.send(CONNECT_INITIAL)
        found = browser.recv()
    assert isinstance(found, bytes)
    assert (b"cliprdr" in found, len(found)) == (False, len(CONNECT_INITIAL))


def test_a_guest_that_does_not_ask_first_is_given_the_pools_account_by_the_relay(
    house: Estate, web: Web, guest: RdpGuest
) -> None:
    account = {"guest_account": "pool", "guest_user": "CORP\\vdi", "guest_password": "open sesame"}
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, **account)  # type: ignore[arg-type]
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        answer(browser)
        browser.send(CONNECT_INITIAL + CLIENT_INFO)
        browser.recv()
    expected = client_info.signing_in(CLIENT_INFO, client_info.Account("CORP\\vdi", "open sesame"))
    eventually(lambda: bytes(guest.received).endswith(expected))


def test_a_ticket_serves_once_and_a_refusal_is_said_in_numbers_and_in_words(
    house: Estate, web: Web, guest: RdpGuest
) -> None:
    cookie = signed_in(house, "alice")
    ticket = ask(house, cookie)
    with open_socket(web, cookie) as browser:
        browser.send(request(ticket))
        assert 6 in answer(browser)
    with open_socket(web, cookie) as browser:
        browser.send(request(ticket))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 403}
        assert closing(browser) == (Code.NOT_ALLOWED, SPENT)
    assert len(guest.requests) == 1


def test_a_ticket_is_worth_nothing_in_another_browser(house: Estate, web: Web, guest: RdpGuest) -> None:
    cookie, other = signed_in(house, "alice"), signed_in(house, "bob")
    for stolen in ("", other):
        with open_socket(web, stolen) as browser:
            browser.send(request(ask(house, cookie)))
            assert closing(browser) == (Code.NOT_ALLOWED, "This ticket was given to another browser session.")
    assert guest.requests == []


@pytest.mark.parametrize("origin", [None, "http://evil.example"])
def test_a_foreign_page_opens_no_socket(house: Estate, web: Web, guest: RdpGuest, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        open_socket(web, signed_in(house, "alice"), origin)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x30\x82\xff\xff", b"\x30\x03\x02\x01\x01"])
def test_what_is_no_request_is_turned_away(house: Estate, web: Web, data: bytes) -> None:
    with open_socket(web, signed_in(house, "alice")) as browser:
        browser.send(data)
        assert error(answer(browser))[1] == 400
        assert closing(browser)[0] == Code.BAD_BROWSER


def test_a_guest_with_another_certificate_is_refused_until_an_administrator_lets_it_be_met_anew(
    house: Estate, web: Web, guest: RdpGuest
) -> None:
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        answer(browser)
    first = GuestCertificate.objects.get().sha256
    guest.renew()
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 403}
        code, words = closing(browser)
    assert code == Code.REFUSED
    assert words.startswith("The desktop answers with another certificate than when it was first opened")
    assert AuditEntry.objects.get(action="desktop.refuse_certificate").changes["certificate"][0] == first
    assert not guest.received, "something was said to a stranger"
    guests.forget_certificate(actor=house.dana, desktop_id=house.desktop.pk)
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        assert 6 in answer(browser)


def test_a_guest_that_wants_to_know_first_who_comes_says_so_itself(house: Estate, web: Web, guest: RdpGuest) -> None:
    guest.confirmation = WANTS_NLA
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie), Security.TLS))
        found = answer(browser)
        assert error(found) == {0: cleanpath.NEGOTIATION}
        assert der.only(found[6], der.OCTET_STRING) == WANTS_NLA
        assert closing(browser)[0] == Code.REFUSED


def test_a_guest_that_does_not_answer_is_said_in_words(house: Estate, web: Web, guest: RdpGuest) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, rdp_port=1)
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        assert error(answer(browser)) == {0: cleanpath.GENERAL, 1: 502, 2: 10061}
        code, words = closing(browser)
    assert (code, "does not answer" in words) == (Code.UNREACHABLE, True)


@pytest.mark.parametrize("how", ["release", "sign out", "entitlement"])
def test_who_loses_the_desktop_loses_the_stream(house: Estate, web: Web, guest: RdpGuest, how: str) -> None:
    cookie = signed_in(house, "alice")
    with open_socket(web, cookie) as browser:
        browser.send(request(ask(house, cookie)))
        answer(browser)
        browser.send(CONNECT_INITIAL)
        browser.recv()
        if how == "release":
            brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
        elif how == "sign out":
            client = Client()
            client.cookies[settings.SESSION_COOKIE_NAME] = cookie
            client.logout()
            screens.recheck(user=house.alice.pk)
        else:
            Entitlement.objects.filter(user=house.alice).delete()
            screens.recheck(user=house.alice.pk)
        assert closing(browser)[0] == Code.NOT_ALLOWED
    eventually(lambda: guest.connected == 0)
