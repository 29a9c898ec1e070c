"""Hyper-V hosts of the lab behind a connector's back."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from connectors.base import ResourceShare, Stamp, Surroundings
from connectors.hyperv.connector import HypervConnector
from connectors.hyperv.settings import HypervSettings
from lab.clock import Clock
from lab.faults import Faults
from lab.hyperv import Account, Estate, HypervHost, WinRmServer, furnish
from lab.nouns import Machine
from lab.world import World
from tests.connectors.contract import OURS

ADDRESSES = ("127.0.0.3", "127.0.3.2", "127.0.3.3")
PASSWORD = "hunter2-and-more"
_numbers = itertools.count(1)


class HypervWorld:
    """One host, or the nodes of a cluster: an estate, an endpoint for each host, and connectors to them."""

    reading = "Receive inventory"
    changing = "Receive orders"

    def __init__(self, workdir: Path, *, hosts: tuple[str, ...] = ("HV1",), tls: bool = True) -> None:
        self.workdir = workdir
        self.world = World("hyperv", clock=Clock(speed=60.0), guest_network="127.65.0.0/16", boot_s=(2.0, 4.0))
        with self.world:
            self.template = furnish(self.world, hosts)
        self.estate = Estate(self.world, cluster="CLUSTER" if len(hosts) > 1 else "")
        # Users are the process's (see lab.hyperv.accounts): each world has its own.
        self.account = Account("LAB", f"deskyard{next(_numbers)}", PASSWORD)
        self.servers = [
            WinRmServer(HypervHost(self.estate, host), address, accounts=(self.account,), tls=tls)
            for host, address in zip(hosts, ADDRESSES, strict=False)
        ]
        port = 0
        for server in self.servers:
            server.port = port
            server.start()
            port = server.port
        pems = "".join(server.certificate.pem for server in self.servers if server.certificate)
        self.settings = HypervSettings(
            hosts="\n".join(server.address for server in self.servers),
            transport="https" if tls else "http",
            port=port,
            user=f"LAB\\{self.account.user}",
            password=PASSWORD,
            ca_certificate=pems,
        )
        self.secrets: tuple[str, ...] = (PASSWORD,)
        self.limit_s = 30.0
        self._connectors: list[HypervConnector] = []
        self._mute = socket.create_server(("127.0.0.1", 0))

    @property
    def server(self) -> WinRmServer:
        return self.servers[0]

    @property
    def faults(self) -> Faults:
        return self.world.faults

    @property
    def starts(self) -> int:
        """PowerShells started on all hosts."""
        return sum(server.starts for server in self.servers)

    def connector(self, installation: str = OURS, **changed: object) -> HypervConnector:
        settings = dataclasses.replace(self.settings, **changed)  # type: ignore[arg-type]
        connector = HypervConnector(settings, Surroundings(installation=installation, workdir=self.workdir))
        self._connectors.append(connector)
        return connector

    def unreachable(self) -> HypervConnector:
        return self.connector(hosts="127.0.0.1", port=self._mute.getsockname()[1])

    def machines(self) -> Mapping[str, Stamp | None]:
        with self.world:
            return {machine.id: stamp_of(machine) for machine in self._all()}

    def names(self) -> Mapping[str, str]:
        with self.world:
            return {machine.id: machine.name for machine in self._all()}

    def litter(self) -> set[str]:
        with self.world:
            return self.estate.litter()

    def restamp(self, machine: str, stamp: Stamp) -> None:
        mark = {"deskyard": 1, "installation": stamp.installation, "key": stamp.key, "stage": "made"}
        with self.world:
            self.world.machine(machine).marks["notes"] = json.dumps(mark, separators=(",", ":"))

    def share(self, machine: str) -> ResourceShare:
        """Set-VMProcessor's words; memory is static, so there is nothing to reserve."""
        with self.world:
            marks = self.world.machine(machine).marks
            return ResourceShare(
                weight=marks.get("weight", 100),
                cpu_reservation_percent=marks.get("reserve", 0),
                cpu_limit_percent=marks.get("maximum", 100),
            )

    def remove(self, machine: str) -> None:
        with self.world:
            found = self.world.machine(machine)
            if found.power != "off":
                self.world.power_off(machine)
            home = str(found.marks.get("home", "")).rpartition("\\")[2]
            self.world.delete(machine)
            for path in self.estate.home_files(home) if home else ():
                del self.estate.files[path]

    def machine(self, id: str) -> Machine:
        with self.world:
            return self.world.machine(id)

    def close(self) -> None:
        self.faults.clear()
        for connector in self._connectors:
            connector.close()
        for server in self.servers:
            server.stop()
        self._mute.close()

    def _all(self) -> list[Machine]:
        return [machine for machine in self.world.machines.values() if machine.id != self.template]


def stamp_of(machine: Machine) -> Stamp | None:
    """Written out here, not imported: machines stamped by an earlier release must still be known."""
    for line in str(machine.marks.get("notes", "")).splitlines():
        if line.startswith('{"deskyard"'):
            told = json.loads(line)
            return Stamp(told["installation"], told["key"]) if "installation" in told else None
    return None


@contextmanager
def host_world(workdir: Path, *, tls: bool = True) -> Iterator[HypervWorld]:
    world = HypervWorld(workdir, tls=tls)
    try:
        yield world
    finally:
        world.close()


@contextmanager
def cluster_world(workdir: Path) -> Iterator[HypervWorld]:
    world = HypervWorld(workdir, hosts=("HV1", "HV2", "HV3"))
    try:
        yield world
    finally:
        world.close()
