"""A Prism Central behind a connector's back: the world of the contract checks, over the lab."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from connectors.base import Connector, PowerAction, Stamp, Surroundings
from connectors.nutanix.connector import NutanixConnector
from connectors.nutanix.settings import NutanixSettings
from lab.clock import Clock
from lab.faults import Faults
from lab.nouns import Machine, Power
from lab.nutanix import PrismServer
from lab.world import World
from tests.connectors.contract import OURS

SPEED = 40.0
"""Virtual seconds a second."""


class PrismWorld:
    """All machines and disks but the template's, and recovery points that outlived their machine."""

    lacks = frozenset({PowerAction.SUSPEND})
    """AHV's API has no call for it; a machine that is on has nothing to resume."""
    limit_s = 30.0
    reading = r"^GET vmm/ahv/config/vms$"
    changing = r"^POST vmm/ahv/config/vms/\{\}/\$actions/clone$"

    def __init__(self, workdir: Path, *, address: str = "127.0.0.4") -> None:
        self.lab = World("prism", clock=Clock(SPEED), boot_s=(2.0, 4.0), guest_network="127.66.0.0/16")
        self.lab.add_host("ahv-01", vcpus=32, memory_mib=65_536)
        self.lab.add_host("ahv-02", vcpus=32, memory_mib=65_536)
        self.lab.add_storage("default-container", capacity_mib=2_000_000)
        self.lab.add_network("desktops", vlan=20)
        self.lab.add_network("servers", vlan=30)
        self.golden = self.lab.add_template("golden", vcpus=2, memory_mib=2_048, disk_mib=20_480)
        self.template = self.golden.id
        self.server = PrismServer(self.lab, address)
        self.server.rates = {"*": 1_000, "GET *": 1_000, "GET vmm/ahv/config/vms": 1_000}
        self.server.start()
        self.settings = NutanixSettings(
            address=address,
            port=self.server.port,
            user=self.server.account.user,
            password=self.server.account.password,
            ca_certificate=self.server.certificate.pem if self.server.certificate else "",
            listing_lag_s=1,
            screen_port=5999,
        )
        self.secrets: tuple[str, ...] = (self.server.account.password, self.server.account.api_key)
        self._workdir = workdir
        self._connectors: list[Connector] = []
        self._mute = socket.create_server(("127.0.0.1", 0))

    @property
    def faults(self) -> Faults:
        return self.lab.faults

    def connector(self, installation: str = OURS, **changes: object) -> NutanixConnector:
        settings = dataclasses.replace(self.settings, **changes)  # type: ignore[arg-type]
        connector = NutanixConnector(settings, Surroundings(installation=installation, workdir=self._workdir))
        self._connectors.append(connector)
        return connector

    def trusted(self) -> str:
        """A file with the certificate to trust."""
        file = self._workdir / "trusted.pem"
        file.write_text(self.settings.ca_certificate)
        return str(file)

    def unreachable(self) -> NutanixConnector:
        return self.connector(address="127.0.0.1", port=self._mute.getsockname()[1])

    def machine(self, id: str) -> Machine:
        return self.lab.machines[id]

    def machines(self) -> Mapping[str, Stamp | None]:
        with self.lab:
            return {machine.id: stamp_of(machine) for machine in self._machines()}

    def names(self) -> Mapping[str, str]:
        with self.lab:
            return {machine.id: machine.name for machine in self._machines()}

    def litter(self) -> set[str]:
        with self.lab:
            return set(self.lab.disks) - set(self.golden.disks) | set(self.server.orphans)

    def restamp(self, machine: str, stamp: Stamp) -> None:
        with self.lab:
            found = self.lab.machines[machine]
            found.marks["description"] = f"[deskyard {stamp.installation} {stamp.key}]"
            self.lab.touch(found)

    def remove(self, machine: str) -> None:
        with self.lab:
            if self.lab.machines[machine].power is not Power.OFF:
                self.lab.power_off(machine)
            self.lab.delete(machine)

    def close(self) -> None:
        self.lab.faults.clear()
        for connector in self._connectors:
            connector.close()
        self.server.stop()
        self._mute.close()

    def _machines(self) -> list[Machine]:
        return [machine for machine in self.lab.machines.values() if not machine.is_template]


def stamp_of(machine: Machine) -> Stamp | None:
    """Written out here, not imported: machines stamped by an earlier release must still be known."""
    if fresh := re.fullmatch(r"dsky\.(.+)\.([0-9a-f-]{36})", machine.name):
        return Stamp(fresh[1], fresh[2])
    found = re.search(r"\[deskyard (\S+) (\S+)\]", machine.marks.get("description", ""))
    return Stamp(found[1], found[2]) if found else None


@contextmanager
def prism_world(workdir: Path) -> Iterator[PrismWorld]:
    world = PrismWorld(workdir)
    try:
        yield world
    finally:
        world.close()
