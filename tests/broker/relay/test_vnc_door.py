"""The door for VNC programs: VeNCrypt on one side, a machine's screen on the other."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from django.db import connections
from pytest_django import Settings

from broker.models import AuditEntry, Desktop, Operation, Pool, ScreenSession, Ticket
from broker.relay.vnc_door import OPENING_S
from broker.selectors import pulse
from broker.services import brokering, native, pools, screens
from connectors.base import ScreenOpened
from tests.broker.portal.cast import Estate
from tests.broker.relay.doors import Door, is_hung_up_on, vnc_opened
from tests.broker.relay.rfb_screen import SERVER_INIT, screen
from tests.broker.relay.serving import VNC_DOOR_PORT, signed_in
from tests.support.pki import new_authority
from tests.support.prerequisites import free_port, require_program
from tests.support.process import die_with_us
from tests.support.rdp_servers import RdpServer, display

ELSEWHERE = "127.0.0.2"
RUN_S = 60


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate of it for localhost."""
    folder = tmp_path_factory.mktemp("pki")
    new_authority("Deskyard's tests").issue_server(folder, "localhost", "127.0.0.1")
    return folder


@pytest.fixture(scope="module")
def one_door(same_rows: dict[str, str], pki: Path) -> Iterator[Door]:
    with vnc_opened(same_rows, pki) as door:
        yield door


@pytest.fixture
def door(one_door: Door, house: Estate, settings: Settings) -> Door:
    settings.VNC_ADDRESS = f"localhost:{VNC_DOOR_PORT}"
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, native_clients=True)
    pulse.connection().flushdb()
    return one_door


def file_of(house: Estate) -> native.ClientFile:
    return native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key=signed_in(house, "alice"))


def ask(house: Estate) -> str:
    (ticket,) = re.findall("^password=(.+)$", file_of(house).content.decode(), re.MULTILINE)
    return str(ticket)


@contextmanager
def pump(port: int, password: str) -> Iterator[None]:
    """Carries out every order for a screen as long as the block runs: the screen stands at that port."""
    stop = threading.Event()

    def work() -> None:
        opened = ScreenOpened(protocol="vnc", host="127.0.0.1", port=port, password=password)
        while not stop.wait(0.05):
            for ticket in Ticket.objects.filter(operation__isnull=False, target=b"", target_expires_at=None):
                assert ticket.operation
                screens.store_target(ticket.operation, opened)
                Operation.objects.filter(pk=ticket.operation.pk).update(state=Operation.State.DONE)
        connections.close_all()

    working = threading.Thread(target=work)
    working.start()
    try:
        yield
    finally:
        stop.set()
        working.join(30)


def received(program: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := program.recv(size - len(data))):
        data += more
    return data


def secured(door: Door, pki: Path, source: str = "127.0.0.1") -> ssl.SSLSocket:
    """A program that trusts the authority has begun TLS with the door, by the steps of VeNCrypt 0.2."""
    program = door.knock(source)
    assert received(program, 12) == b"RFB 003.008\n"
    program.sendall(b"RFB 003.008\n")
    assert received(program, 2) == bytes([1, 19])
    program.sendall(bytes([19]))
    assert received(program, 2) == bytes([0, 2])
    program.sendall(bytes([0, 2]))
    assert received(program, 6) == bytes([0, 1, 0, 0, 1, 6])
    program.sendall(bytes([0, 0, 1, 6]))
    assert received(program, 1) == bytes([1])
    context = ssl.create_default_context(cafile=str(pki / "cacert.pem"))
    return context.wrap_socket(program, server_hostname="localhost")


def show(program: ssl.SSLSocket, ticket: str, name: str = "alice") -> None:
    lengths = len(name).to_bytes(4, "big") + len(ticket).to_bytes(4, "big")
    program.sendall(lengths + name.encode() + ticket.encode())


def result(program: ssl.SSLSocket) -> str:
    """Empty if it was let in, else why not."""
    if received(program, 4) == bytes(4):
        return ""
    return received(program, int.from_bytes(received(program, 4), "big")).decode()


def let_in(door: Door, pki: Path, ticket: str) -> ssl.SSLSocket:
    program = secured(door, pki)
    show(program, ticket)
    assert result(program) == ""
    program.sendall(b"\x01")
    assert received(program, len(SERVER_INIT)) == SERVER_INIT
    return program


def said(program: socket.socket) -> bytes:
    """All that the door says until it hangs up."""
    data = b""
    with suppress(ConnectionResetError):
        while more := program.recv(4096):
            data += more
    return data


def eventually(claim: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_a_file_names_the_door_and_neither_a_hypervisor_nor_its_password(house: Estate, door: Door) -> None:
    file = file_of(house)
    assert (file.name, file.content_type) == ("office-001.vv", "application/x-virt-viewer")
    head, *lines = file.content.decode().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert head == "[virt-viewer]"
    assert screens.digest(values.pop("password")) == Ticket.objects.get().hash
    assert values == {
        "type": "vnc", "host": "localhost", "port": str(VNC_DOOR_PORT), "username": "alice",
        "title": "Office (office-001)", "delete-this-file": "1",
    }  # fmt: skip
    assert not Operation.objects.exists(), "the screen is ordered when somebody comes for it"


def test_a_program_sees_and_types_into_the_screen_under_the_doors_own_tls(house: Estate, door: Door, pki: Path) -> None:
    with screen() as shown, pump(shown.port, shown.password):
        with let_in(door, pki, ask(house)) as program:
            program.sendall(b"\x04\x01\0\0\0\0\0A")
            assert received(program, 8) == b"\x04\x01\0\0\0\0\0A"
            session = ScreenSession.objects.get()
            assert (session.client, session.protocol, session.address) == ("native", "vnc", "127.0.0.1")
        eventually(lambda: ScreenSession.objects.get().end_reason == "Its program left.")
        eventually(lambda: not shown.connected)


def test_its_program_may_come_back_with_a_screen_ordered_anew_and_nobody_elsewhere(
    house: Estate, door: Door, pki: Path
) -> None:
    ticket = ask(house)
    with screen() as shown, pump(shown.port, shown.password):
        for _ in range(2):
            with let_in(door, pki, ticket):
                pass
        with secured(door, pki, ELSEWHERE) as stranger:
            show(stranger, ticket)
            assert result(stranger) == native.ELSEWHERE
        assert Operation.objects.filter(kind=Operation.Kind.SCREEN).count() == 2
    assert AuditEntry.objects.filter(action="desktop.refuse_client").count() == 1


def test_a_ticket_that_is_not_good_is_refused_in_words(house: Estate, door: Door, pki: Path) -> None:
    with secured(door, pki) as program:
        show(program, "x" * 43)
        assert result(program) == native.UNKNOWN
    key = signed_in(house, "alice")
    browsers = screens.connect(user=house.alice, desktop_id=house.desktop.pk, session_key=key).ticket
    with secured(door, pki) as program:
        show(program, browsers)
        assert result(program) == native.UNKNOWN
    assert not ScreenSession.objects.exists()


def test_a_desktop_that_is_off_is_started_and_that_is_said(house: Estate, door: Door, pki: Path) -> None:
    ticket = ask(house)
    Desktop.objects.update(power="off")
    with secured(door, pki) as program:
        show(program, ticket)
        assert result(program) == "office-001 is being started."


def test_release_ends_the_stream(house: Estate, door: Door, pki: Path) -> None:
    ticket = ask(house)
    with screen() as shown, pump(shown.port, shown.password), let_in(door, pki, ticket) as program:
        brokering.release_desktop(actor=house.alice, desktop_id=house.desktop.pk)
        program.settimeout(10)
        with suppress(ConnectionResetError, ssl.SSLEOFError):
            assert program.recv(1) == b""
        with secured(door, pki) as again:
            show(again, ticket)
            assert result(again) == "The desktop has changed hands since the file was made."


def test_a_pool_without_clipboard_lets_none_through_here_either(house: Estate, door: Door, pki: Path) -> None:
    pools.change_pool(actor=house.dana, pool_id=house.pool.pk, has_clipboard=False)
    cut, key = b"\x06\0\0\0\0\0\0\x06secret", b"\x04\x01\0\0\0\0\0A"
    with screen() as shown, pump(shown.port, shown.password), let_in(door, pki, ask(house)) as program:
        program.sendall(cut + key)
        assert received(program, 8) == key


def test_what_is_said_in_clear_before_tls_never_counts(house: Estate, door: Door, pki: Path) -> None:
    """Somebody on the way puts a name and ticket of theirs before what the program says under TLS."""
    name, ticket = b"mallory", ask(house).encode()
    word = len(name).to_bytes(4, "big") + len(ticket).to_bytes(4, "big") + name + ticket
    with door.knock() as program:
        program.sendall(b"RFB 003.008\n" + bytes([19, 0, 2, 0, 0, 1, 6]) + word)
        received(program, 12 + 2 + 2 + 6 + 1)
        context = ssl.create_default_context(cafile=str(pki / "cacert.pem"))
        with pytest.raises(OSError):
            context.wrap_socket(program, server_hostname="localhost")
    assert Ticket.objects.get().used_at is None


@pytest.mark.parametrize(
    "data",
    [
        b"RFB 003.003\n\x13\0\x02",
        b"GET / HTTP/1\x13\0\x02",
        b"RFB 003.008\n\x01\0\x02",
        b"RFB 003.008\n\x13\0\x01",
    ],
)
def test_who_speaks_otherwise_is_hung_up_on(house: Estate, door: Door, data: bytes) -> None:
    with door.knock() as program:
        program.sendall(data)
        assert b"\x01\x00\x00\x01\x06" not in said(program)


def test_a_password_without_end_is_not_listened_to(house: Estate, door: Door, pki: Path) -> None:
    program = secured(door, pki)
    program.sendall((5).to_bytes(4, "big") + (1 << 30).to_bytes(4, "big") + bytes(1000))
    began = time.monotonic()
    assert is_hung_up_on(program)
    assert time.monotonic() - began < OPENING_S / 2, "more was waited for"


# --- in earnest ------------------------------------------------------------------------------------------------------


@contextmanager
def qemu(folder: Path, password: str) -> Iterator[int]:
    """A machine with a VNC screen that takes this password: the port."""
    port, control = free_port(), folder / "qmp"
    while port < 5900:
        port = free_port()
    options = (
        "-display",
        "none",
        "-vnc",
        f"127.0.0.1:{port - 5900},password=on",
        "-qmp",
        f"unix:{control},server,nowait",
    )
    program = require_program("qemu-system-x86_64", "qemu-system-x86")
    machine = subprocess.Popen(die_with_us(program, "-m", "16", "-nodefaults", "-vga", "std", *options))
    try:
        eventually(control.exists, within_s=RUN_S)
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.settimeout(RUN_S)
            qmp.connect(str(control))
            wish = {"execute": "set_password", "arguments": {"protocol": "vnc", "password": password}}
            lines = qmp.makefile("rwb")
            for order in ({"execute": "qmp_capabilities"}, wish):
                lines.write(json.dumps(order).encode() + b"\n")
            lines.flush()
            assert [b"error" in lines.readline() for _ in range(3)] == [False] * 3
        yield port
    finally:
        machine.terminate()
        machine.wait(20)


TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
TRUSTING = (
    "unshare", "--mount", "--propagation", "private",
    "sh", "-c", f'mount --bind "$0" {TRUSTED} && exec "$@"',
)  # fmt: skip
"""Runs what follows on a machine, as it were, whose trusted authorities are in the file that comes first."""


def test_remote_viewer_opens_the_file_and_shows_a_real_machines_screen(
    house: Estate, door: Door, pki: Path, tmp_path: Path
) -> None:
    file = tmp_path / "office-001.vv"
    viewer = require_program("remote-viewer", "virt-viewer")
    shelf = RdpServer("", 0, tmp_path)
    with qemu(tmp_path, "one-time") as port, pump(port, "one-time"), display(shelf) as there:
        file.write_bytes(file_of(house).content)
        environment = os.environ | {"HOME": str(tmp_path), "DISPLAY": there, "GDK_BACKEND": "x11"}
        with (tmp_path / "viewer.log").open("wb") as log:
            watching = subprocess.Popen(
                die_with_us(*TRUSTING, pki / "cacert.pem", viewer, "--debug", file),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(lambda: ScreenSession.objects.filter(bytes_to_user__gt=2000), within_s=RUN_S)
            assert watching.poll() is None
            assert not file.exists(), "the file is to be gone once it was used"
        finally:
            watching.terminate()
            watching.wait(20)
    assert (ScreenSession.objects.get().client, Pool.objects.get().protocol) == ("native", "vnc")
