"""A real uvicorn on loopback, on the tests' own database, and people at their browsers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from pytest_django import DjangoDbBlocker, Settings
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from broker.selectors import pulse
from broker.services import screens
from connectors.base import ScreenOpened
from tests.broker.portal.cast import Estate, estate
from tests.broker.relay.rfb_screen import RfbScreen
from tests.support.prerequisites import REPOSITORY, free_port
from tests.support.process import die_with_us
from tests.support.redis import tasks_queued_at


@dataclass
class Web:
    """Web and relay in one server, as `make run` starts it."""

    port: int
    pid: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def relay(self) -> str:
        return f"ws://127.0.0.1:{self.port}{screens.RELAY_PATH}"

    def open(
        self, opening: screens.Opening, cookie: str = "", origin: str | None = "", max_queue: int = 16
    ) -> ClientConnection:
        """A WebSocket as a browser opens it. `origin` None: none is sent."""
        headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"} if cookie else {}
        found = self.origin if origin == "" else origin
        return connect(
            self.relay,
            origin=None if found is None else Origin(found),
            subprotocols=[Subprotocol(name) for name in opening.subprotocols],
            additional_headers=headers,
            compression=None,
            max_queue=max_queue,
        )

    @property
    def memory_kib(self) -> int:
        """What the server holds of its own (PSS)."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


DOOR_PORT, VNC_DOOR_PORT = free_port(), free_port()
"""Where the doors for programs are said to be, whether a test opens them or not."""


@pytest.fixture(scope="session")
def same_rows(django_db_setup: None, django_db_blocker: DjangoDbBlocker, redis_url: str) -> dict[str, str]:
    """The environment of a process of ours that sees the tests' own rows."""
    with django_db_blocker.unblock():
        database = connection.settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        url = f"sqlite:///{database['NAME']}"
    else:
        url = f"postgresql://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "DESKYARD_DATA": str(settings.DATA_DIR),
        "DESKYARD_PORT": str(settings.PORT),
        "DESKYARD_RDP_ADDRESS": f"127.0.0.1:{DOOR_PORT}",
        "DESKYARD_VNC_ADDRESS": f"localhost:{VNC_DOOR_PORT}",
    }


@pytest.fixture(scope="session")
def web(same_rows: dict[str, str]) -> Iterator[Web]:
    with serving(same_rows, free_port()) as started:
        yield started


@contextmanager
def serving(environment: dict[str, str], port: int) -> Iterator[Web]:
    """Web and relay for as long as the block lasts; then nobody answers there."""
    server = subprocess.Popen(
        die_with_us(
            sys.executable,
            "-m",
            "uvicorn",
            "broker.config.asgi:application",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--log-level",
            "warning",
            "--ws",
            "websockets-sansio",
            "--ws-per-message-deflate",
            "false",
            "--timeout-graceful-shutdown",
            "1",
        ),
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    started = Web(port, server.pid)
    try:
        _wait_until_it_answers(started, server)
        yield started
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_it_answers(web: Web, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.poll() is None, "uvicorn ended"
        try:
            with urlopen(web.origin + "/static/vendor/VERSIONS.md", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("uvicorn does not answer")


@pytest.fixture
def live_house(transactional_db: None, settings: Settings, redis_url: str) -> Iterator[Estate]:
    """The estate, in rows that the server sees."""
    settings.REDIS_URL = redis_url
    pulse.connection.cache_clear()
    with tasks_queued_at(redis_url):
        yield estate()
    pulse.connection.cache_clear()


def signed_in(estate: Estate, name: str) -> str:
    """The key of a browser session of that person: what the cookie holds."""
    client = Client()
    client.force_login(getattr(estate, name))
    key = client.session.session_key
    assert key
    return key


def show(opening: screens.Opening, screen: RfbScreen, password: str | None = None) -> None:
    """Do the pump's part: the order was carried out and the screen stands there."""
    assert opening.operation
    screens.store_target(
        opening.operation,
        ScreenOpened(
            protocol="vnc",
            host="127.0.0.1",
            port=screen.port,
            password=screen.password if password is None else password,
        ),
    )


def handshake(browser: ClientConnection) -> bytes:
    """The viewer's part of RFB with security type None. Returns ServerInit."""
    assert browser.recv() == b"RFB 003.008\n"
    browser.send(b"RFB 003.008\n")
    assert browser.recv() == bytes([1, 1])
    browser.send(bytes([1]))
    assert browser.recv() == bytes(4)
    browser.send(bytes([1]))
    found = browser.recv()
    assert isinstance(found, bytes)
    return found
