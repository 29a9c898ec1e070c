"""A real Remote Desktop program opens our signed file, through the real door, at real RDP servers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_django import Settings

from broker.models import Desktop, Pool, ScreenSession
from broker.services import native, pools, presence
from tests.broker.portal.cast import Estate
from tests.broker.relay.doors import Door, opened
from tests.broker.relay.rdp.test_front_door import eventually
from tests.broker.relay.serving import DOOR_PORT, signed_in
from tests.support.prerequisites import require_program
from tests.support.process import die_with_us
from tests.support.rdp_servers import NLA_PASSWORD, NLA_USER, RdpServer, display, guest_address, shadow, xrdp

RUN_S = 60
PICTURE = 5000
"""Bytes that no server sends before it shows something."""


@pytest.fixture
def door(same_rows: dict[str, str], house: Estate, settings: Settings) -> Iterator[Door]:
    settings.RDP_ADDRESS = f"127.0.0.1:{DOOR_PORT}"
    with opened(same_rows) as door:
        yield door


def file_for(house: Estate, server: RdpServer, folder: Path) -> Path:
    """Alice's, of her desktop, which is this server."""
    pools.change_pool(
        actor=house.dana, pool_id=house.pool.pk, protocol=Pool.Protocol.RDP, rdp_port=server.port, native_clients=True
    )
    Desktop.objects.filter(pk=house.desktop.pk).update(addresses=[server.address])
    key = signed_in(house, "alice")
    file = native.client_file(user=house.alice, desktop_id=house.desktop.pk, session_key=key)
    path = folder / file.name
    path.write_bytes(file.content)
    return path


@contextmanager
def freerdp(file: Path, *options: str, screen: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """FreeRDP with that file. Which certificate is right is not its question here: guests make their own."""
    program = require_program("xfreerdp", "freerdp2-x11")
    process = subprocess.Popen(
        die_with_us(program, file, "/cert:ignore", "/log-level:INFO", *options),
        env=os.environ | {"HOME": str(file.parent), "DISPLAY": screen},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=RUN_S)


def test_a_guest_that_asks_who_comes_first_is_signed_in_to_end_to_end(
    house: Estate, door: Door, tmp_path: Path
) -> None:
    with guest_address() as address, shadow(address, tmp_path) as server, display(server) as screen:
        file = file_for(house, server, tmp_path)
        with freerdp(file, f"/u:{NLA_USER}", f"/p:{NLA_PASSWORD}", "+auth-only", screen=screen) as program:
            said = program.communicate(timeout=RUN_S)[0].decode()
        assert program.returncode == 0, said[-2000:]
        with freerdp(file, f"/u:{NLA_USER}", "/p:wrong", "+auth-only", screen=screen) as program:
            said = program.communicate(timeout=RUN_S)[0].decode()
        assert program.returncode != 0, said[-2000:]
    sessions = list(ScreenSession.objects.all())
    assert {(one.client, one.user, one.address) for one in sessions} == {("native", house.alice, "127.0.0.1")}


def test_a_guests_desktop_is_shown_and_an_end_from_the_portal_closes_it(
    house: Estate, door: Door, tmp_path: Path
) -> None:
    with guest_address() as address, xrdp(address, tmp_path) as server, display(server) as screen:
        file = file_for(house, server, tmp_path)
        with freerdp(file, "/p:any", screen=screen) as program:
            eventually(lambda: ScreenSession.objects.filter(bytes_to_user__gt=PICTURE, ended_at=None), within_s=40)
            assert program.poll() is None
            presence.end_screen(user=house.alice, session_id=ScreenSession.objects.get(ended_at=None).pk)
            # It would come back by itself.
            eventually(lambda: native.TOO_LATE.encode() in door.said(), within_s=40)
        assert not ScreenSession.objects.filter(ended_at=None).exists()
