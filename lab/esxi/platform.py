"""A vCenter with a cluster of two hosts, as it stands in the lab."""

from __future__ import annotations

from lab.esxi.server import EsxiServer
from lab.platform import Platform, Registration, Site
from lab.world import World

ADDRESS = "127.0.0.2"
USER, PASSWORD = "deskyard@vsphere.lab", "vcenter-lab-1"


def furnish(world: World) -> None:
    """Two hosts, two datastores, two port groups, and a golden image with the snapshot that links hang from."""
    for number in (9, 10):
        world.add_host(f"esxi-{number}.lab", vcpus=32, memory_mib=262_144, id=f"host-{number}")
    world.add_storage("vsan", 8_000_000, id="datastore-11")
    world.add_storage("backup", 2_000_000, id="datastore-12")
    world.add_network("Desktops", id="network-13")
    world.add_network("Labs", vlan=20, id="dvportgroup-14")
    template = world.add_template("golden-debian", folder="Templates")
    world.take_snapshot(template.id, "golden")


def stand_up(at: Site) -> Platform:
    world = at.world()
    with world:
        if not world.hosts:
            furnish(world)
        template = next(machine.id for machine in world.machines.values() if machine.is_template)
    server = EsxiServer(
        world, ADDRESS, at.port(ADDRESS), user=USER, password=PASSWORD, certificate_folder=at.certificates
    )
    things = server.things
    kept = at.kept()
    things.files |= kept.get("files", {})
    things.folders |= set(kept.get("folders", ()))
    registration = Registration(
        kind="esxi",
        name="Simulated vCenter",
        settings={
            "address": ADDRESS,
            "port": str(server.port),
            "user": USER,
            "ca_certificate": server.certificate.pem if server.certificate else "",
            "screen_port": str(at.screens_port),
        },
        secrets={"password": PASSWORD},
        template=template,
    )
    return Platform(
        world, [server], registration, keep=lambda: {"files": things.files, "folders": sorted(things.folders)}
    )
