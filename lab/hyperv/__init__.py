"""Microsoft Hyper-V as seen over WinRM: stand-alone hosts and the nodes of a cluster.

What is real: WS-Management, NTLMv2 with message sealing, TLS, shells with their quotas. What is played: PowerShell. The
lab knows the scripts that are sent by the name and number in their first line (`# deskyard-script: orders 1`) and
carries out on the world what they ask by their parameters; it never runs their text.
"""

from __future__ import annotations

from lab.hyperv.accounts import Account
from lab.hyperv.host import Estate, HypervHost
from lab.hyperv.server import WinRmServer
from lab.world import World

__all__ = ["Account", "Estate", "HypervHost", "WinRmServer", "furnish"]


def furnish(world: World, hosts: tuple[str, ...] = ("HV1",)) -> str:
    """A stand-alone host, or the nodes of a cluster and what they share; the golden image's id."""
    for name in hosts:
        world.add_host(name, id=name)
    drive = "D:\\" if len(hosts) == 1 else "C:\\ClusterStorage\\Volume1"
    world.add_storage("Desktops", id=drive)
    world.add_network("Office", id="Office")
    world.add_network("Lab", is_isolated=True, id="Lab")
    return world.add_template("golden").id
