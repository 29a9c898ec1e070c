"""Microsoft Hyper-V as seen over WinRM: stand-alone hosts and the nodes of a cluster.

What is real: WS-Management, NTLMv2 with message sealing, TLS, shells with their quotas. What is played: PowerShell. The
lab knows the scripts that are sent by the name and number in their first line (`# deskyard-script: orders 1`) and
carries out on the world what they ask by their parameters; it never runs their text.
"""

from __future__ import annotations

from lab.hyperv.accounts import Account
from lab.hyperv.host import Estate, HypervHost
from lab.hyperv.server import WinRmServer
from lab.platform import Platform, Registration, Site
from lab.world import World

__all__ = ["Account", "Estate", "HypervHost", "WinRmServer", "furnish", "stand_up"]

ADDRESS = "127.0.0.3"
ACCOUNT = Account("LAB", "deskyard", "lab-hyperv-7c1f")


def furnish(world: World, hosts: tuple[str, ...] = ("HV1",)) -> str:
    """A small estate; the golden image's id."""
    for name in hosts:
        world.add_host(name, id=name)
    drive = "D:\\" if len(hosts) == 1 else "C:\\ClusterStorage\\Volume1"
    world.add_storage("Desktops", id=drive)
    world.add_network("Office", id="Office")
    world.add_network("Lab", is_isolated=True, id="Lab")
    return world.add_template("golden").id


def stand_up(site: Site) -> Platform:
    world = site.world()
    with world:
        golden = next((it.id for it in world.machines.values() if it.is_template), "") or furnish(world)
    host = next(iter(world.hosts))
    server = WinRmServer(
        HypervHost(Estate(world), host),
        ADDRESS,
        site.port(),
        accounts=(ACCOUNT,),
        certificate_folder=site.certificates,
    )
    server.start()
    certificate = server.certificate
    settings = {
        "hosts": ADDRESS,
        "port": str(server.port),
        "user": f"{ACCOUNT.domain}\\{ACCOUNT.user}",
        "ca_certificate": certificate.pem if certificate else "",
        "screen_port": str(site.screens_port),
    }
    registration = Registration("hyperv", "Hyper-V lab", settings, {"password": ACCOUNT.password}, golden)
    return Platform(world, (server,), registration)
