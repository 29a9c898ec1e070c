"""What ends streams without anybody asking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from pytest_django import Settings

from broker.models import ScreenSession
from broker.relay import rows
from broker.relay.app import relay
from broker.relay.closing import Code, fitting
from broker.relay.registry import Registry
from broker.relay.rfb import INPUT
from broker.relay.streams import Stream
from broker.services import screens
from tests.broker.portal.cast import Estate
from tests.broker.relay.serving import signed_in


@pytest.fixture
async def _rows_let_go(transactional_db: None) -> AsyncIterator[None]:
    """Afterwards no thread that an async test started holds a connection: the tests' database can be dropped."""
    yield
    together = threading.Barrier(rows.THREADS)

    def let_go() -> None:
        together.wait(30)
        connections.close_all()

    await sync_to_async(connections.close_all)()
    await asyncio.gather(*(rows.ask(let_go) for _ in range(rows.THREADS)))


def admitted(house: Estate) -> tuple[screens.Admission, screens.Admission]:
    """Two streams of Alice's with all their rights."""
    cookie = signed_in(house, "alice")
    openings = [
        screens.connect(user=house.alice, desktop_id=house.desktop.pk, protocol="vnc", session_key=cookie) for _ in "ab"
    ]
    one, two = (screens.admit(ticket=opening.ticket, session_key=cookie) for opening in openings)
    return one, two


@pytest.mark.usefixtures("_rows_let_go")
async def test_a_stream_without_key_or_mouse_is_closed_after_the_limit_and_the_others_are_not(
    house: Estate, settings: Settings
) -> None:
    settings.SCREEN_IDLE_S = 60
    idle_one, busy_one = await sync_to_async(admitted)(house)
    now = asyncio.get_running_loop().time()
    names = [
        await sync_to_async(screens.start_session)(admission=admission, address=None)
        for admission in (idle_one, busy_one)
    ]
    idle = Stream(names[0], idle_one, input_at=now - 61, bytes_to_user=5)
    busy = Stream(names[1], busy_one, input_at=now - 59, bytes_to_user=6)
    here = Registry()
    with here.carrying(idle), here.carrying(busy):
        await here._beat()
    assert idle.ordered_end.result().code == Code.IDLE
    assert not busy.ordered_end.done()
    assert {one.bytes_to_user async for one in ScreenSession.objects.all()} == {5, 6}


def test_asking_for_the_next_picture_is_no_sign_of_a_person() -> None:
    assert {4, 5, 6} <= INPUT
    assert 3 not in INPUT


async def test_the_first_order_to_end_counts() -> None:
    from broker.relay.closing import Closing

    admission = screens.Admission(uuid4(), uuid4(), 1, 1, "vnc")
    stream = Stream(uuid4(), admission, input_at=0)
    stream.end(Closing(Code.NOT_ALLOWED, "first"))
    stream.end(Closing(Code.IDLE, "second"))
    assert stream.ordered_end.result().reason == "first"


@pytest.mark.parametrize("reason", ["short", "ü" * 100, "日本" * 60])
def test_a_reason_fits_into_a_close_frame(reason: str) -> None:
    assert len(fitting(reason).encode()) <= 123
    assert reason.startswith(fitting(reason))


async def test_the_relay_has_no_pages() -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await relay({"type": "http", "path": "/"}, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 404
