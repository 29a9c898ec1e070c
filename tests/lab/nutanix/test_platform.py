"""The Prism Central of the demo: it outlives its process, and what it registers is right."""

from __future__ import annotations

from pathlib import Path

from connectors.base import Surroundings
from connectors.nutanix.connector import NutanixConnector
from connectors.nutanix.settings import NutanixSettings
from lab.clock import Clock
from lab.nutanix import PrismServer
from lab.nutanix.server import Orphan
from lab.platform import Platform, site, stand_up
from tests.connectors.contract import listing, soon


def connector(platform: Platform, folder: Path) -> NutanixConnector:
    """From what it registers, as the console makes one from its form."""
    told: dict[str, object] = {**platform.registration.settings, **platform.registration.secrets}
    told |= {name: int(str(told[name])) for name in ("port", "screen_port", "listing_lag_s")}
    return NutanixConnector(NutanixSettings(**told), Surroundings("here", folder))  # type: ignore[arg-type]


def test_what_it_registers_opens_it_and_shows_its_golden_image(tmp_path: Path) -> None:
    platform = stand_up(site("nutanix", tmp_path, Clock()))
    platform.start()
    try:
        made = connector(platform, tmp_path)
        made.check(soon())
        seen = listing(made)
        made.close()
    finally:
        platform.stop()
    assert [template.id for template in seen.templates] == [platform.registration.template]
    assert len(seen.hosts) == 3


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    at = site("nutanix", tmp_path, Clock())
    first = stand_up(at)
    (server,) = first.servers
    assert isinstance(server, PrismServer)
    server.categories["one"] = ("Deskyard", "Template")
    server.orphans["two"] = Orphan("two", "before", "machine", 1.0)
    replicas = server.replicas
    with first.world as world:
        machine = world.create("server", disks_mib=(2,))
        world.write(machine.disks[0], 0, b"then")
        point = replicas.recovery.take(machine, "kept", "CRASH_CONSISTENT", "")
        image = replicas.images.from_disk({"name": "image", "type": "DISK_IMAGE"}, machine.disks[0])
        world.write(machine.disks[0], 0, b"now!")
    at.save(first)
    first.stop()
    second = stand_up(site("nutanix", tmp_path, Clock()))
    (server,) = second.servers
    assert isinstance(server, PrismServer)
    assert second.registration == first.registration
    assert server.categories == {"one": ("Deskyard", "Template")}
    assert list(server.orphans) == ["two"]
    assert server.replicas.recovery.points == {point.id: point}
    assert server.replicas.images.images == {image.id: image}
    for disk, held in ((point.disks[0].disk, b"then"), (image.disk, b"then"), (machine.disks[0], b"now!")):
        assert second.world.read(disk, 0, 4) == held
    second.stop()
