"""A Prism Central with one cluster of three hosts, as it stands in the demo."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lab.nutanix.server import Orphan, PrismServer
from lab.platform import Platform, Registration, Site

ADDRESS = "127.0.0.4"


def stand_up(site: Site) -> Platform:
    world = site.world()
    with world:
        if not world.hosts:
            for number in range(1, 4):
                world.add_host(f"ahv-{number:02}", vcpus=32, memory_mib=131_072)
            world.add_storage("default-container", capacity_mib=8_000_000)
            world.add_network("desktops", vlan=20)
            world.add_network("servers", vlan=30)
            world.add_template("golden-linux")
        golden = next(one for one in world.machines.values() if one.is_template)
        server = PrismServer(world, ADDRESS, site.port(ADDRESS), certificates=site.certificates)
        server.categories = {id: (key, value) for id, key, value in site.kept().get("categories", ())}
        server.replicas.recovery.load(site.kept().get("points", []))
        server.replicas.images.load(site.kept().get("images", []))
        server.orphans = {one["id"]: Orphan(**one) for one in site.kept().get("orphans", ())}
    settings = {
        "address": ADDRESS,
        "port": str(server.port),
        "user": server.account.user,
        "ca_certificate": server.certificate.pem if server.certificate else "",
        "screen_port": str(site.screens_port),
        "listing_lag_s": "3",
    }
    registration = Registration(
        "nutanix", "Simulated Prism Central", settings, {"password": server.account.password}, golden.id
    )

    def keep() -> dict[str, Any]:
        return {
            "categories": [[id, *pair] for id, pair in server.categories.items()],
            "orphans": [asdict(one) for one in server.orphans.values()],
            "points": server.replicas.recovery.dump(),
            "images": server.replicas.images.dump(),
        }

    return Platform(world, [server], registration, keep)
