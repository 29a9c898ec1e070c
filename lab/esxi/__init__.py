"""A simulated vCenter, or stand-alone ESXi host, that speaks the vSphere Web Services API (SOAP, `urn:vim25`)."""

from __future__ import annotations

from lab.esxi.server import EsxiServer
from lab.platform import Platform, Registration, Site
from lab.world import World

USER, PASSWORD = "deskyard@vsphere.lab", "vcenter-lab-1"


def furnish(world: World) -> str:
    """Two hosts of a cluster, two datastores, two port groups, a golden image. Id of the golden image."""
    for number in (1, 2):
        world.add_host(f"esxi-0{number}.lab", vcpus=32, memory_mib=262_144, id=f"host-{8 + number}")
    world.add_storage("vsan", 8_000_000, id="datastore-11")
    world.add_storage("backup", 2_000_000, id="datastore-12")
    world.add_network("Desktops", id="network-13")
    world.add_network("Labs", vlan=20, id="dvportgroup-14")
    template = world.add_template("golden-debian", folder="Templates")
    world.take_snapshot(template.id, "golden")
    return template.id


def stand_up(site: Site) -> Platform:
    world = site.world()
    with world:
        if not world.hosts:
            furnish(world)
        template = next(machine.id for machine in world.machines.values() if machine.is_template)
    server = EsxiServer(world, port=site.port(), user=USER, password=PASSWORD, certificate_folder=site.certificates)
    server.start()  # the port is known from here on
    certificate = server.certificate
    settings = {
        "address": server.address, "port": str(server.port), "user": USER,
        "ca_certificate": certificate.pem if certificate else "", "screen_port": str(site.screens_port),
    }  # fmt: skip
    registration = Registration("esxi", "vcenter.lab", settings, {"password": PASSWORD}, template)
    return Platform(world, [server], registration)
