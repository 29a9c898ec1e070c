"""A simulated Prism Central with one AHV cluster behind it."""

from __future__ import annotations

from lab.nutanix.server import Account, PrismServer
from lab.platform import Platform, Registration, Site
from lab.world import World

__all__ = ["Account", "PrismServer", "furnish", "stand_up"]

ADDRESS = "127.0.0.4"


def furnish(world: World) -> None:
    """Three nodes, a container, two networks and a golden image."""
    for number in (1, 2, 3):
        world.add_host(f"ahv-{number:02}", vcpus=64, memory_mib=262_144)
    world.add_storage("default-container", capacity_mib=20_000_000)
    world.add_network("desktops", vlan=20)
    world.add_network("servers", vlan=30)
    world.add_template("golden-windows-11", vcpus=4, memory_mib=8_192, disk_mib=65_536)


def stand_up(site: Site) -> Platform:
    """One Prism Central as an administrator would register it: with its certificate's fingerprint."""
    world = site.world()
    with world:
        if not world.machines:
            furnish(world)
        template = next(machine.id for machine in world.machines.values() if machine.is_template)
    account = Account()
    server = PrismServer(world, ADDRESS, site.port(), account=account, certificates=site.certificates)
    registration = Registration(
        kind="nutanix",
        name="Prism Central (lab)",
        settings={
            "address": ADDRESS,
            "port": str(server.port),
            "user": account.user,
            "fingerprint": server.certificate.sha256 if server.certificate else "",
            "screen_port": str(site.screens_port),
        },
        secrets={"password": account.password},
        template=template,
    )
    return Platform(world, (server,), registration)
