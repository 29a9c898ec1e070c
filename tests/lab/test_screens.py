"""The screens of simulated guests, seen by an independent VNC client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncvnc
import pytest

from lab.clock import Clock
from lab.nouns import Machine
from lab.screens import GuestScreens
from lab.world import World


@pytest.fixture
def world() -> World:
    made = World("test", clock=Clock(speed=0), guest_network="127.79.0.0/16")
    with made:
        made.add_host("one")
        made.add_storage("disks")
        made.add_network("office")
        made.add_template("golden")
    return made


@pytest.fixture
def screens(world: World) -> Iterator[GuestScreens]:
    with GuestScreens([world]) as running:
        yield running


@pytest.fixture
def desk(world: World) -> Machine:
    with world:
        machine = world.clone(next(iter(world.machines)), name="desk-007")
        world.power_on(machine.id)
    world.clock.advance(30)
    with world:
        assert machine.guest.is_up
    return machine


async def test_a_guest_shows_its_name_and_what_is_typed(desk: Machine, screens: GuestScreens) -> None:
    async with asyncvnc.connect(desk.guest.address, screens.port) as client:
        assert client.video.name == "desk-007"
        before = await client.screenshot()
        assert before.shape[:2] == (600, 800)
        client.keyboard.write("hello")
        await client.drain()
        for _ in range(100):
            if desk.guest.typed == "hello":
                break
            await asyncio.sleep(0.05)
        assert desk.guest.typed == "hello"
        assert (await client.screenshot() != before).any()


async def test_nobody_answers_where_no_guest_is(desk: Machine, screens: GuestScreens) -> None:
    reader, writer = await asyncio.open_connection("127.79.200.200", screens.port)
    assert await reader.read(12) == b""
    writer.close()


async def test_a_screen_ends_with_its_guest(desk: Machine, screens: GuestScreens, world: World) -> None:
    async with asyncvnc.connect(desk.guest.address, screens.port) as client:
        await client.screenshot()
        with world:
            world.power_off(desk.id)
        client.video.refresh()
        with pytest.raises((EOFError, ConnectionError)):
            await asyncio.wait_for(_read_for_ever(client), 10)


async def _read_for_ever(client: asyncvnc.Client) -> None:
    while True:
        await client.read()
