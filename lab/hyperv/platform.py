"""A Hyper-V cluster of two nodes, as it stands in the demo."""

from __future__ import annotations

from typing import Any

from lab.hyperv import Account, Estate, HypervHost, WinRmServer, furnish
from lab.platform import Platform, Registration, Site

ADDRESSES = {"HV1": "127.0.0.3", "HV2": "127.0.3.2"}
POWERSHELL_S = 0.5
"""What a start of PowerShell takes; on a real host rather more."""
ACCOUNT = Account("LAB", "deskyard", "lab-hyperv-7c1f")


def stand_up(site: Site) -> Platform:
    world = site.world()
    with world:
        if not world.hosts:
            furnish(world, tuple(ADDRESSES))
        golden = next(one for one in world.machines.values() if one.is_template)
    kept = site.kept()
    estate = Estate(world, cluster="LAB-CLUSTER", files=kept.get("files", {}), homes=set(kept.get("homes", ())))
    port = site.port(*ADDRESSES.values())
    servers = [
        WinRmServer(
            HypervHost(estate, name), address, port, accounts=(ACCOUNT,), certificate_folder=site.certificates / name
        )
        for name, address in ADDRESSES.items()
    ]
    for server in servers:
        server.think_s = POWERSHELL_S
    settings = {
        "hosts": "\n".join(ADDRESSES.values()),
        "port": str(port),
        "user": f"{ACCOUNT.domain}\\{ACCOUNT.user}",
        "ca_certificate": "".join(server.certificate.pem for server in servers if server.certificate),
        "screen_port": str(site.screens_port),
    }
    registration = Registration(
        "hyperv", "Simulated Hyper-V cluster", settings, {"password": ACCOUNT.password}, golden.id
    )

    def keep() -> dict[str, Any]:
        return {"files": dict(estate.files), "homes": sorted(estate.homes)}

    return Platform(world, servers, registration, keep)
