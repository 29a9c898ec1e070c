"""A HyperCore cluster of three nodes, as it stands in the demo."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any

from lab.hypercore.cluster import Cluster
from lab.hypercore.devices import Device, Extra, Iso, Point
from lab.hypercore.server import HyperCoreNode
from lab.hypercore.uploads import VirtualDisk
from lab.platform import Platform, Registration, Site

USER, PASSWORD = "deskyard", "lab-hypercore"
ADDRESSES = ("127.0.0.5", "127.0.0.6", "127.0.0.7")


def stand_up(site: Site) -> Platform:
    world = site.world()
    with world:
        if not world.hosts:
            for number in range(1, len(ADDRESSES) + 1):
                world.add_host(f"hc3-node-{number}", vcpus=32, memory_mib=131_072)
            world.add_storage("hc3-pool", capacity_mib=8_000_000)
            world.add_network("LAN")
            world.add_network("VLAN 20", vlan=20)
        cluster = Cluster(world, name="lab-hc3", user=USER, password=PASSWORD)
        _restore(cluster, site.kept())
        golden = next((one for one in world.machines.values() if one.is_template), None)
        golden = golden or cluster.add_template("golden-linux", vlan=20)
        golden.is_template = True
    nodes = _nodes(cluster, site)
    certificates = "".join(node.certificate.pem for node in nodes if node.certificate)
    return Platform(world, nodes, _registration(nodes, certificates, site, golden.id), keep=lambda: _kept(cluster))


def _nodes(cluster: Cluster, site: Site) -> list[HyperCoreNode]:
    """All at one port, as HyperCore has it."""
    neighbours: dict[str, str] = {}
    port = site.port(*ADDRESSES)
    return [
        HyperCoreNode(cluster, host, address, port, neighbours=neighbours, certificates=site.certificates / address)
        for host, address in zip(cluster.world.hosts, ADDRESSES, strict=True)
    ]


def _registration(nodes: list[HyperCoreNode], certificates: str, site: Site, template: str) -> Registration:
    settings = {
        "addresses": ", ".join(ADDRESSES),
        "port": str(nodes[0].port),
        "user": USER,
        "ca_certificate": certificates,
        "screen_port": str(site.screens_port),
    }
    return Registration("hypercore", "Simulated HyperCore", settings, {"password": PASSWORD}, template)


def _kept(cluster: Cluster) -> dict[str, Any]:
    isos = [asdict(iso) | {"content": b64encode(iso.content).decode()} for iso in cluster.isos.values()]
    points = [asdict(point) for point in cluster.points.values()]
    # Uploads end with the process, as tasks do.
    disks = [asdict(disk) for disk in cluster.virtual_disks.values() if disk.is_ready]
    return {"id": cluster.id, "points": points, "isos": isos, "virtual_disks": disks}


def _restore(cluster: Cluster, kept: dict[str, Any]) -> None:
    cluster.id = kept.get("id", cluster.id)
    for it in kept.get("points", ()):
        cluster.points[it["uuid"]] = Point(**it | {"devices": [Device(**device) for device in it["devices"]]})
    for it in kept.get("isos", ()):
        cluster.isos[it["uuid"]] = Iso(**it | {"content": b64decode(it["content"])})
    for it in kept.get("virtual_disks", ()):
        cluster.virtual_disks[it["uuid"]] = VirtualDisk(**it)
    for machine in cluster.world.machines.values():
        if isinstance(it := machine.marks.get("hypercore"), dict):
            machine.marks["hypercore"] = Extra(**it | {"devices": [Device(**device) for device in it["devices"]]})
