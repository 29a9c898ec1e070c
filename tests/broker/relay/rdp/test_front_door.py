"""The door for Remote Desktop programs, as a process: real TCP on one side, a real TLS server on the other."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as live_settings
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from broker.models import AuditEntry, Desktop, Entitlement, Pool, ScreenSession, Ticket
from broker.relay.programs import WAITING_EACH
from broker.relay.rdp import x224
from broker.relay.rdp.front_door import REQUEST_S
from broker.relay.rdp.x224 import Security
from broker.selectors import pulse
from broker.services import brokering, guesses, native, pools, presence, screens
from tests.broker.portal.cast import Estate
from tests.broker.relay.doors import Door, first_message, is_hung_up_on, opened
from tests.broker.relay.rdp.rdp_guest import TLS, RdpGuest, rdp_guest
from tests.broker.relay.serving import DOOR_PORT, signed_in
from tests.broker.services.test_native import ticket_in
from tests.support.prerequisites import free_port
from tests.support.rdp_servers import guest_address

ELSEWHERE = "127.0.0.2"


@pytest.fixture(scope="module")
def one_door(same_rows: dict[str, str]) -> Iterator[Door]:
    with opened(same_rows) as door:
        yield door


@pytest.fixture
def door(one_door: Door, house: Estate, settings: Settings) -> Door:
    """Open, and having heard of nobody yet."""
    settings.RDP_ADDRESS = f"127.0.0.1:{DOOR_PORT}"
    pulse.connection().flushdb()
    return one_door


@pytest.fixture
def guest(house: Estate, tmp_path: Path) -> Iterator[RdpGuest]:
    """Alice's desktop is this guest."""
    with guest_address() as address, rdp_guest(address, tmp_path) as served:
        pools.change_pool(
            actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=served.port,
            native_clients=True,
        )  # fmt: skip
        Desktop.objects.filter(pk=house.desktop.pk).update(addresses=[address])
        yield served


def ask(house: Estate, cookie: str = "") -> str:
    key = cookie or signed_in(house, "alice")
    return ticket_in(native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key=key))


def secured(program: socket.socket) -> ssl.SSLSocket:
    """The guest's answer is taken and TLS begun with it, as a program does."""
    assert received(program, len(TLS)) == TLS
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(program)


def received(program: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := program.recv(size - len(data))):
        data += more
    return data


def eventually(claim: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def ends(program: ssl.SSLSocket, within_s: float = 30) -> bool:
    program.settimeout(within_s)
    try:
        return program.recv(1) == b""
    except (ConnectionResetError, ssl.SSLEOFError):
        return True


def test_a_program_reaches_the_guest_of_its_ticket_by_tls_of_its_own(
    house: Estate, door: Door, guest: RdpGuest
) -> None:
    with secured(door.show(ask(house))) as program:
        program.sendall(b"hello")
        assert received(program, 5) == b"hello"
        shown = program.getpeercert(binary_form=True)
        assert shown == ssl.PEM_cert_to_DER_cert((guest.folder / "certificate.pem").read_text())
        session = ScreenSession.objects.get()
        assert (session.user, session.client, session.protocol, session.address, session.ended_at) == (
            house.alice, "native", "rdp", "127.0.0.1", None,
        )  # fmt: skip
    assert guest.requests == [x224.request(Security.TLS | Security.NLA)]
    eventually(lambda: ScreenSession.objects.get().ended_at)
    session = ScreenSession.objects.get()
    assert session.end_reason == "Its program left."
    assert session.bytes_from_user > 5 < session.bytes_to_user


def test_a_first_message_in_pieces_is_put_together(house: Estate, door: Door, guest: RdpGuest) -> None:
    with door.knock() as program:
        for byte in first_message(ask(house)):
            program.sendall(bytes([byte]))
        assert received(program, len(TLS)) == TLS


def test_its_program_may_come_back_and_nobody_elsewhere(house: Estate, door: Door, guest: RdpGuest) -> None:
    ticket = ask(house)
    with secured(door.show(ticket)) as first:
        assert is_hung_up_on(door.show(ticket, ELSEWHERE))
        first.sendall(b"still")
        assert received(first, 5) == b"still"
    entry = AuditEntry.objects.get(action="desktop.refuse_client")
    assert entry.changes["address"] == ["127.0.0.1", ELSEWHERE]
    with secured(door.show(ticket)) as second:
        second.sendall(b"again")
        assert received(second, 5) == b"again"


def test_who_comes_back_before_anybody_noticed_takes_the_place_of_the_stream(
    house: Estate, door: Door, guest: RdpGuest
) -> None:
    ticket = ask(house)
    with secured(door.show(ticket)) as first, secured(door.show(ticket)) as second:
        assert ends(first)
        second.sendall(b"here")
        assert received(second, 4) == b"here"
    reasons = list(ScreenSession.objects.order_by("started_at").values_list("end_reason", flat=True))
    assert reasons[0] == screens.CAME_BACK


@pytest.mark.parametrize("how", ["too late", "epoch", "forged", "browser's", "signed out", "plain"])
def test_who_has_no_good_ticket_is_hung_up_on_and_the_guest_never_hears_of_it(
    house: Estate, door: Door, guest: RdpGuest, how: str
) -> None:
    cookie = signed_in(house, "alice")
    ticket, asked = ask(house, cookie), Security.TLS | Security.NLA
    if how == "too late":
        Ticket.objects.update(expires_at=timezone.now())
    elif how == "epoch":
        Desktop.objects.filter(pk=house.desktop.pk).update(epoch=house.desktop.epoch + 1)
    elif how == "forged":
        ticket = ticket[:-1] + ("A" if ticket[-1] != "A" else "B")
    elif how == "browser's":
        ticket = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=cookie).ticket
    elif how == "signed out":
        client = Client()
        client.cookies[live_settings.SESSION_COOKIE_NAME] = cookie
        client.logout()
    else:
        asked = Security.PLAIN
    program = door.knock()
    program.sendall(first_message(ticket, asked))
    assert is_hung_up_on(program)
    assert not guest.requests
    assert not ScreenSession.objects.exists()
    written = AuditEntry.objects.filter(action__in=["desktop.refuse_client", "client.refuse"]).count()
    assert written == (0 if how == "plain" else 1)


@pytest.mark.parametrize("how", ["release", "sign out", "entitlement", "epoch", "ended there"])
def test_who_loses_the_desktop_loses_the_stream_and_does_not_come_back(
    house: Estate, door: Door, guest: RdpGuest, how: str
) -> None:
    cookie = signed_in(house, "alice")
    ticket = ask(house, cookie)
    with secured(door.show(ticket)) as program:
        eventually(ScreenSession.objects.exists)
        if how == "release":
            brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
        elif how == "sign out":
            client = Client()
            client.cookies[live_settings.SESSION_COOKIE_NAME] = cookie
            client.logout()
            screens.recheck(user=house.alice.pk)
        elif how == "entitlement":
            Entitlement.objects.filter(user=house.alice).delete()
            screens.recheck(user=house.alice.pk)
        elif how == "epoch":
            Desktop.objects.filter(pk=house.desktop.pk).update(epoch=house.desktop.epoch + 1)
            screens.recheck(desktop=house.desktop.pk)
        else:
            presence.end_screen(user=house.alice, session_id=ScreenSession.objects.get().pk)
        assert ends(program)
    assert is_hung_up_on(door.show(ticket))
    eventually(lambda: not guest.connected)
    eventually(lambda: ScreenSession.objects.get().ended_at)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: desk.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x03\x00\xff\xff" + bytes(100_000),
        x224.request(Security.TLS),
        first_message("A" * 43) + bytes(100_000),
    ],
)
def test_garbage_is_hung_up_on(house: Estate, door: Door, data: bytes) -> None:
    program = door.knock()
    with suppress(ConnectionError):
        program.sendall(data)
    assert is_hung_up_on(program)


def test_an_address_that_shows_too_many_bad_tickets_is_not_listened_to(
    house: Estate, door: Door, guest: RdpGuest
) -> None:
    for _ in range(guesses.TICKET_LIMIT):
        assert is_hung_up_on(door.show("x" * 43, ELSEWHERE))
    ticket = ask(house)
    assert is_hung_up_on(door.show(ticket, ELSEWHERE))
    assert Ticket.objects.get().used_at is None
    assert AuditEntry.objects.filter(action="client.refuse").count() == 2
    with secured(door.show(ticket)):
        pass


def test_one_address_does_not_fill_the_door_with_those_who_say_nothing(
    house: Estate, door: Door, guest: RdpGuest
) -> None:
    silent = [door.knock(ELSEWHERE) for _ in range(WAITING_EACH)]
    try:
        began = time.monotonic()
        assert is_hung_up_on(door.knock(ELSEWHERE))
        assert time.monotonic() - began < REQUEST_S / 2, "it was borne as long as the others"
        with secured(door.show(ask(house))):
            pass
    finally:
        for program in silent:
            program.close()


def test_who_says_nothing_is_hung_up_on(house: Estate, door: Door) -> None:
    program = door.knock()
    program.sendall(first_message("A" * 43)[:20])
    began = time.monotonic()
    assert is_hung_up_on(program)
    assert 8 < time.monotonic() - began < 15


def test_a_slow_program_slows_the_guest_down_and_takes_no_memory(house: Estate, door: Door, guest: RdpGuest) -> None:
    """The guest sends back what it gets, and nobody reads it."""
    with secured(door.show(ask(house))) as program:
        before = door.memory_kib
        program.settimeout(2)
        sent = 0
        with suppress(TimeoutError):
            while sent < 200 * 1024 * 1024:
                sent += program.send(bytes(64 * 1024))
        assert sent < 100 * 1024 * 1024, "nobody slowed the program down"
        assert door.memory_kib - before < 8 * 1024


def test_a_guest_that_does_not_answer_ends_the_try(house: Estate, door: Door, guest: RdpGuest) -> None:
    Pool.objects.update(rdp_port=1)
    program = door.show(ask(house))
    program.settimeout(30)
    assert is_hung_up_on(program)
    assert not ScreenSession.objects.exists()


def test_a_door_that_is_killed_leaves_no_session_behind(
    house: Estate, same_rows: dict[str, str], guest: RdpGuest, settings: Settings
) -> None:
    settings.RDP_ADDRESS = "127.0.0.1:1"
    with opened(same_rows, free_port()) as door, secured(door.show(ask(house))):
        eventually(ScreenSession.objects.exists)
        door.kill()
        eventually(lambda: not guest.connected)
    assert ScreenSession.objects.get().ended_at is None
    ScreenSession.objects.update(seen_at=timezone.now() - timedelta(seconds=screens.LOST_S + 1))
    screens.end_lost()
    assert ScreenSession.objects.get().end_reason == "The relay stopped."


def test_a_door_that_is_asked_to_stop_says_so_in_the_rows_and_its_programs_may_come_back(
    house: Estate, same_rows: dict[str, str], guest: RdpGuest, settings: Settings
) -> None:
    settings.RDP_ADDRESS = "127.0.0.1:1"
    ticket = ask(house)
    with opened(same_rows, free_port()) as door, secured(door.show(ticket)) as program:
        eventually(ScreenSession.objects.exists)
        door.process.terminate()
        assert ends(program)
        door.process.wait(30)
    assert ScreenSession.objects.get().end_reason == "The relay stopped."
    assert native.admit(ticket=ticket, address="127.0.0.1")
