"""The lab's control port."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from lab.clock import Clock
from lab.control import Control
from lab.http import LabServer, Request, Response
from lab.platform import Platform, Registration
from lab.world import World


class Hello(LabServer):
    def handle(self, request: Request) -> Response:
        return Response(200, b"{}")


@pytest.fixture
def platform() -> Iterator[Platform]:
    clock = Clock(speed=0)
    world = World("north", clock=clock)
    with world:
        world.add_host("one")
        world.add_storage("disks")
        world.add_network("office")
        world.add_template("golden", folder="images")
    made = Platform(world, [Hello(world, "127.0.0.9", tls=False)], Registration("hello", "North", {}, {}, "golden"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def control(platform: Platform) -> Iterator[httpx.Client]:
    with (
        Control(platform.world.clock, [platform]) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def is_answering(platform: Platform) -> bool:
    try:
        return httpx.get(platform.servers[0].url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_it_tells_what_there_is(control: httpx.Client, platform: Platform) -> None:
    (world,) = control.get("/").json()["worlds"]
    assert (world["name"], world["machines"], world["endpoints"]) == ("north", 1, [platform.servers[0].url])
    (machine,) = control.get("/worlds/north/machines").json()["done"]
    assert (machine["name"], machine["power"], machine["is_template"]) == ("golden", "off", True)


def test_it_moves_the_clock_forward_only(control: httpx.Client, platform: Platform) -> None:
    assert control.post("/clock", json={"advance_s": 60}).json()["now_s"] == 60
    assert control.post("/clock", json={"speed": 3}).json()["speed"] == 3
    assert control.post("/clock", json={"advance_s": -1}).status_code == 422


def test_it_cuts_an_endpoint_off_and_brings_it_back(control: httpx.Client, platform: Platform) -> None:
    control.post("/worlds/north/endpoint", json={"is_up": False})
    assert not is_answering(platform)
    control.post("/worlds/north/endpoint", json={"is_up": True})
    assert is_answering(platform)


def test_it_makes_faults_and_clears_them(control: httpx.Client, platform: Platform) -> None:
    control.post("/worlds/north/faults", json={"kind": "status", "status": 500, "count": -1})
    assert not is_answering(platform)
    control.delete("/worlds/north/faults")
    assert is_answering(platform)
    refused = control.post("/worlds/north/faults", json={"kind": "explode"})
    assert (refused.status_code, "There is no fault" in refused.json()["error"]) == (422, True)


def test_it_kills_hosts_fills_storages_and_takes_rights(control: httpx.Client, platform: Platform) -> None:
    control.post("/worlds/north/hosts/one", json={"is_up": False})
    control.post("/worlds/north/storages/disks", json={"is_full": True})
    control.post("/worlds/north/rights", json={"hidden": ["images"]})
    (world,) = control.get("/").json()["worlds"]
    assert (world["hosts"][0]["is_up"], world["storages"][0]["free_mib"]) == (False, 0)
    with platform.world:
        assert list(platform.world.visible()) == []
    assert control.post("/worlds/north/hosts/none", json={"is_up": True}).status_code == 404


def test_it_has_a_guest_write_to_its_disk(control: httpx.Client, platform: Platform) -> None:
    with platform.world as world:
        desk = world.create("desk", disks_mib=(1,))
        world.power_on(desk.id)
    world.clock.advance(60)
    assert control.post("/worlds/north/diary/desk", json={"seed": "x", "times": 3}).status_code == 200
    world.clock.advance(60)
    with world:
        assert world.allocated(desk.disks[0])
    assert control.post("/worlds/north/diary/nobody", json={"seed": "x", "times": 3}).status_code == 404


def test_it_is_not_for_web_pages(control: httpx.Client, platform: Platform) -> None:
    evil = {"Origin": "https://evil.example"}
    assert control.post("/worlds/north/endpoint", json={"is_up": False}, headers=evil).status_code == 403
    form = control.post("/worlds/north/endpoint", content=b'{"is_up": false}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert is_answering(platform)


def test_a_machine_can_be_replicated_by_its_platform_well_or_not(control: httpx.Client, platform: Platform) -> None:
    path, (machine,) = "/worlds/north/mirrors/golden", platform.world.machines.values()
    assert control.post(path, json={"course": "broken"}).status_code == 404
    assert control.post(path, json={"to": "elsewhere", "every_s": 60}).status_code == 200
    assert (machine.marks["mirror"]["to"], machine.marks["mirror"]["course"]) == ("elsewhere", "well")
    assert control.post(path, json={"course": "broken"}).status_code == 200
    assert machine.marks["mirror"]["course"] == "broken"
    assert control.post(path, json={"course": "sideways"}).status_code == 422
