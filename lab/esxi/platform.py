"""A vCenter with a cluster of two hosts, as it stands in the lab; and a stand-alone host."""

from __future__ import annotations

from collections.abc import Callable

from lab.esxi.server import EsxiServer
from lab.platform import Platform, Registration, Site
from lab.world import World

GOLDEN = "golden-debian"
ADDRESS = "127.0.0.2"
USER, PASSWORD = "deskyard@vsphere.lab", "vcenter-lab-1"
HOST_ADDRESS = "127.0.0.8"
HOST_USER, HOST_PASSWORD = "deskyard", "esxi-lab-1"


def furnish(world: World) -> None:
    """Two hosts, two datastores, two port groups, and a golden image with the snapshot that links hang from."""
    for number in (9, 10):
        world.add_host(f"esxi-{number}.lab", vcpus=32, memory_mib=262_144, id=f"host-{number}")
    world.add_storage("vsan", 8_000_000, id="datastore-11")
    world.add_storage("backup", 2_000_000, id="datastore-12")
    world.add_network("Desktops", id="network-13")
    world.add_network("Labs", vlan=20, id="dvportgroup-14")
    template = world.add_template(GOLDEN, folder="Templates")
    world.take_snapshot(template.id, "golden")


def furnish_host(world: World) -> None:
    """One host with a datastore, a port group, and a golden image: a machine that is off; hosts have no templates."""
    world.add_host("esxi-11.lab", vcpus=32, memory_mib=262_144, id="ha-host")
    world.add_storage("local", 8_000_000, id="datastore-1")
    world.add_network("VM Network", id="HaNetwork-VM Network")
    world.add_template(GOLDEN).is_template = False


def stand_up(at: Site) -> Platform:
    return _stand_up(at, furnish, "Simulated vCenter", ADDRESS, USER, PASSWORD, is_esxi=False)


def stand_up_host(at: Site) -> Platform:
    """A stand-alone ESXi host, which has no CloneVM."""
    return _stand_up(at, furnish_host, "Simulated ESXi host", HOST_ADDRESS, HOST_USER, HOST_PASSWORD, is_esxi=True)


def _stand_up(
    at: Site, furnish: Callable[[World], None], name: str, address: str, user: str, password: str, *, is_esxi: bool
) -> Platform:
    world = at.world()
    with world:
        if not world.hosts:
            furnish(world)
        template = next(machine.id for machine in world.machines.values() if machine.name == GOLDEN)
    server = EsxiServer(
        world, address, at.port(address), user=user, password=password, is_esxi=is_esxi,
        certificate_folder=at.certificates,
    )  # fmt: skip
    things = server.things
    kept = at.kept()
    things.files |= kept.get("files", {})
    things.folders |= set(kept.get("folders", ()))
    settings = {
        "address": address,
        "port": str(server.port),
        "user": user,
        "ca_certificate": server.certificate.pem if server.certificate else "",
        "screen_port": str(at.screens_port),
    }
    registration = Registration("esxi", name, settings, {"password": password}, template)
    return Platform(
        world, [server], registration, keep=lambda: {"files": things.files, "folders": sorted(things.folders)}
    )
