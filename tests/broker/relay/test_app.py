"""The relay against a real WebSocket client on one side and a real RFB server on the other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from broker.models import ApiToken, DesktopSession, Entitlement, Operation, ScreenSession, Ticket
from broker.relay.closing import Code
from broker.services import brokering, screens
from tests.broker.portal.cast import Estate
from tests.broker.relay.rfb_screen import SERVER_INIT, RfbScreen, screen
from tests.broker.relay.serving import Web, handshake, show, signed_in

SPENT = "This ticket is unknown, was used before, or has expired. Open the desktop again."


def ask(house: Estate, cookie: str = "", token: ApiToken | None = None) -> screens.Opening:
    return screens.connect(
        user=house.alice, desktop_id=house.desktop.pk, protocol="vnc", session_key=cookie, token=token
    )


def eventually(claim: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def refusal(web: Web, opening: screens.Opening, cookie: str = "", origin: str | None = "") -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        web.open(opening, cookie, origin)
    response = refused.value.response
    return response.status_code, (response.body or b"").decode()


def nothing_was_opened(opening: screens.Opening, shown: RfbScreen) -> bool:
    """The refused ticket left no stream, no further order, and the screen's address where nobody read it."""
    address = Ticket.objects.get(operation=opening.operation).target
    orders = Operation.objects.filter(kind=Operation.Kind.SCREEN).count()
    nobody = not ScreenSession.objects.exists() and not shown.viewers and not shown.connected
    return nobody and bool(address) and orders == Ticket.objects.count()


def closing(browser: ClientConnection) -> tuple[int, str]:
    """How the relay closes it, within 20 s."""
    deadline = time.monotonic() + 20
    with suppress(ConnectionClosed):
        while time.monotonic() < deadline:
            browser.recv(timeout=30)
    assert browser.close_code is not None
    return browser.close_code, browser.close_reason or ""


def test_a_browser_sees_and_types_into_the_screen_without_knowing_its_password(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            assert browser.subprotocol == "binary"
            assert handshake(browser) == SERVER_INIT
            browser.send(b"\x04\x01\0\0\0\0\0A")
            assert browser.recv() == b"\x04\x01\0\0\0\0\0A"
            session = ScreenSession.objects.get()
            assert (session.user, session.desktop, session.ended_at) == (house.alice, house.desktop, None)
    eventually(lambda: ScreenSession.objects.get().ended_at)
    session = ScreenSession.objects.get()
    assert (session.bytes_from_user, session.bytes_to_user) == (9, len(SERVER_INIT) + 8)


KEY, POINTER, UPDATE = b"\x04\x01\0\0\0\0\0A", b"\x05\0\0\1\0\1", b"\x03" + bytes(9)


@pytest.mark.parametrize(("last", "counts"), [(KEY, True), (POINTER, True), (UPDATE, False)])
def test_keys_and_mouse_count_as_presence_and_asking_for_pictures_does_not(
    house: Estate, web: Web, last: bytes, counts: bool
) -> None:
    """A key, a second of silence, and one more message: when did somebody last move?"""
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            browser.send(KEY)
            browser.recv()
            assert DesktopSession.objects.get().state == "connected"
            with pytest.raises(TimeoutError):
                browser.recv(timeout=1)
            browser.send(last)
            assert browser.recv() == last
    eventually(lambda: ScreenSession.objects.get().ended_at)
    stream = ScreenSession.objects.get()
    assert stream.input_at
    assert stream.ended_at
    assert (stream.ended_at - stream.input_at < timedelta(seconds=0.9)) == counts
    session = DesktopSession.objects.get()
    assert (session.state, session.input_at) == ("disconnected", stream.input_at)


def test_the_browser_may_come_before_the_address_is_known(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        with web.open(opening, cookie) as browser:
            time.sleep(0.7)
            show(opening, shown)
            assert handshake(browser) == SERVER_INIT


def test_a_forged_ticket_is_refused(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    genuine = ask(house, cookie)
    forged = screens.Opening(genuine.ticket[:-1] + "!", genuine.operation, genuine.expires_at)
    assert refusal(web, forged, cookie) == (403, SPENT)
    assert not ScreenSession.objects.exists()


def test_a_request_without_a_ticket_is_refused(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    none = screens.Opening("", ask(house, cookie).operation, timezone.now())
    assert refusal(web, none, cookie) == (403, SPENT)
    assert not ScreenSession.objects.exists()


def test_a_ticket_serves_once(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            assert refusal(web, opening, cookie) == (403, SPENT)
            browser.send(b"still here")
            assert browser.recv() == b"still here"
        assert (shown.viewers, ScreenSession.objects.count(), Operation.objects.count()) == (1, 1, 1)


def test_two_tabs_have_a_ticket_each(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        first, second = ask(house, cookie), ask(house, cookie)
        show(first, shown)
        show(second, shown)
        with web.open(first, cookie) as one, web.open(second, cookie) as two:
            assert handshake(one) == handshake(two) == SERVER_INIT


def test_an_expired_ticket_is_refused(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        Ticket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert refusal(web, opening, cookie) == (403, SPENT)
        assert nothing_was_opened(opening, shown)


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:1"],
)
def test_a_page_that_is_not_ours_is_refused_and_the_ticket_stays_good(
    house: Estate, web: Web, origin: str | None
) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        status, words = refusal(web, opening, cookie, origin.format(port=web.port) if origin else None)
        assert (status, "Origin" in words) == (403, True)
        with web.open(opening, cookie) as browser:
            assert handshake(browser) == SERVER_INIT


def test_a_ticket_is_worth_nothing_without_the_browser_session_that_asked(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    others = {"nobody": "", "bob": signed_in(house, "bob"), "alice elsewhere": signed_in(house, "alice")}
    with screen() as shown:
        for who, other in others.items():
            opening = ask(house, cookie)
            show(opening, shown)
            assert refusal(web, opening, other) == (403, "This ticket was given to another browser session."), who
            assert refusal(web, opening, cookie) == (403, SPENT), "it has leaked: nobody may use it any more"
            assert nothing_was_opened(opening, shown), who


def test_a_ticket_of_a_token_needs_no_cookie_but_the_token_must_still_be_valid(house: Estate, web: Web) -> None:
    token = ApiToken.objects.create(
        user=house.alice, name="script", hash="h", prefix="p", expires_at=timezone.now() + timedelta(days=1)
    )
    with screen() as shown:
        opening = ask(house, token=token)
        show(opening, shown)
        with web.open(opening) as browser:
            assert handshake(browser) == SERVER_INIT
    with screen() as shown:
        late = ask(house, token=token)
        show(late, shown)
        ApiToken.objects.update(revoked_at=timezone.now())
        assert refusal(web, late) == (403, "The API token that asked for this ticket is no longer valid.")
        assert (shown.connected, ScreenSession.objects.count()) == (0, 1)


def test_a_ticket_from_before_the_desktop_changed_hands_is_refused(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
        words = "The desktop has changed hands since the ticket was given out."
        assert refusal(web, opening, cookie) == (403, words)
        assert nothing_was_opened(opening, shown)


def test_release_closes_the_stream(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="flood", pause_s=0.01) as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            began = time.monotonic()
            brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
            assert closing(browser) == (Code.NOT_ALLOWED, "The desktop was released.")
            assert time.monotonic() - began < 15, "at once, not at the next look"
        eventually(lambda: shown.connected == 0)
    assert ScreenSession.objects.get().end_reason == "The desktop was released."


def test_a_release_between_ticket_and_stream_closes_it_too(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        with web.open(opening, cookie) as browser:
            brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
            show(opening, shown)
            assert closing(browser) == (Code.NOT_ALLOWED, "The desktop was released.")
        assert shown.viewers == 0


def test_signing_out_closes_the_streams_of_that_browser_only(house: Estate, web: Web) -> None:
    from django.test import Client

    here, elsewhere = signed_in(house, "alice"), signed_in(house, "alice")
    with screen() as shown:
        first, second = ask(house, here), ask(house, elsewhere)
        show(first, shown)
        show(second, shown)
        with web.open(first, here) as one, web.open(second, elsewhere) as two:
            handshake(one)
            handshake(two)
            client = Client()
            client.cookies[settings.SESSION_COOKIE_NAME] = here
            client.logout()
            screens.recheck(user=house.alice.pk)
            assert closing(one) == (Code.NOT_ALLOWED, "You signed out.")
            two.send(b"still here")
            assert two.recv() == b"still here"


def test_a_lost_entitlement_closes_the_stream(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            Entitlement.objects.filter(user=house.alice).delete()
            screens.recheck(user=house.alice.pk)
            assert closing(browser) == (Code.NOT_ALLOWED, "You no longer have access to this desktop.")


def test_an_order_that_failed_says_why(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    opening = ask(house, cookie)
    Operation.objects.update(state=Operation.State.FAILED, error="The machine is switched off.")
    with web.open(opening, cookie) as browser:
        assert closing(browser) == (Code.FAILED, "The machine is switched off.")


def test_a_screen_at_which_nobody_listens_is_said_to_be_unreachable(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        gone = shown
    opening = ask(house, cookie)
    show(opening, gone)
    with web.open(opening, cookie) as browser:
        code, words = closing(browser)
    assert (code, "cannot be reached" in words) == (Code.UNREACHABLE, True)


def test_a_half_open_screen_is_given_up_within_ten_seconds(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="mute") as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        began = time.monotonic()
        with web.open(opening, cookie) as browser:
            code, words = closing(browser)
        assert (code, "did not answer" in words) == (Code.UNREACHABLE, True)
        assert time.monotonic() - began < 14
        eventually(lambda: shown.connected == 0)


def test_a_wrong_one_time_password_is_said_in_words(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown, password="stale")
        with web.open(opening, cookie) as browser:
            code, words = closing(browser)
        assert (code, "password" in words) == (Code.UNREACHABLE, True)
        assert shown.viewers == 0


def test_a_screen_that_hangs_up_ends_the_stream_in_words(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="hang up") as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            assert handshake(browser) == SERVER_INIT
            assert closing(browser)[0] == Code.ENDED


def test_a_browser_that_hangs_up_lets_the_screen_go(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="flood", pause_s=0.01) as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            assert shown.connected == 1
            browser.socket.shutdown(socket.SHUT_RDWR)
            eventually(lambda: shown.connected == 0)
    eventually(lambda: ScreenSession.objects.get().ended_at)


def test_a_browser_that_talks_nonsense_is_turned_away(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen() as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            browser.send(b"GET / HTTP/1.1\r\n\r\n")
            assert closing(browser)[0] == Code.BAD_BROWSER


def test_a_slow_reader_costs_no_memory_and_slows_the_screen_down(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="flood") as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie, max_queue=1) as browser:
            handshake(browser)
            before = web.memory_kib
            sent = -1
            while sent != shown.sent:  # until neither the kernel nor anybody else takes more
                sent = shown.sent
                time.sleep(0.5)
            assert web.memory_kib - before < 4096
            assert sent < 32 * 1024 * 1024
            taken = 0
            while taken < 2 * sent:  # it goes on as soon as somebody reads
                taken += len(browser.recv(timeout=30))


def test_a_browser_that_floods_a_deaf_screen_costs_no_memory(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    with screen(mode="deaf") as shown:
        opening = ask(house, cookie)
        show(opening, shown)
        with web.open(opening, cookie) as browser:
            handshake(browser)
            before = web.memory_kib
            sent = 0

            def flood() -> None:
                nonlocal sent
                with suppress(ConnectionClosed, OSError):
                    while sent < 256:
                        browser.send(bytes(256 * 1024))
                        sent += 1

            flooding = threading.Thread(target=flood)
            flooding.start()
            flooding.join(3)
            assert flooding.is_alive(), "64 MiB went somewhere"
            assert web.memory_kib - before < 8192
            browser.socket.shutdown(socket.SHUT_RDWR)
            flooding.join(30)


def test_no_address_within_fifteen_seconds_is_said_in_words(house: Estate, web: Web) -> None:
    cookie = signed_in(house, "alice")
    opening = ask(house, cookie)
    with web.open(opening, cookie) as browser:
        code, words = closing(browser)
    assert (code, "not ready in time" in words) == (Code.NOT_READY, True)
