"""A simulated vCenter or ESXi host behind a connector's back: the world of the contract checks."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.base import ResourceShare, Stamp, Surroundings
from connectors.esxi.connector import EsxiConnector
from connectors.esxi.settings import EsxiSettings
from lab.clock import Clock
from lab.esxi.server import EsxiServer
from lab.faults import Faults
from lab.nouns import Machine, Power
from lab.world import World
from tests.connectors.contract import OURS

USER, PASSWORD = "deskyard@vsphere.local", "s3cret & <sharp>"
INSTALLATION, KEY = "deskyard.installation", "deskyard.key"
"""Written out here, not imported: machines stamped by an earlier release must still be known."""

FAST = 60.0
"""Virtual seconds a second."""


class EsxiWorld:
    """Everything but the golden image; the account is an administrator's until a test takes rights away."""

    reading = "RetrievePropertiesEx"
    changing = "^(CloneVM_Task|CreateVM_Task)$"

    def __init__(self, workdir: Path, *, is_esxi: bool = False, speed: float = FAST) -> None:
        self.clock = Clock(speed)
        self.world = World("esxi" if is_esxi else "vcenter", 7, self.clock)
        self.is_esxi = is_esxi
        self._workdir = workdir
        with self.world:
            self.template = self._furnish()
            self._kept = set(self.world.disks)
        self.server = EsxiServer(self.world, user=USER, password=PASSWORD, is_esxi=is_esxi)
        self.server.start()
        self.faults: Faults = self.server.faults
        self.secrets: tuple[str, ...] = (PASSWORD,)
        self.limit_s = 20.0
        self._connectors: list[EsxiConnector] = []
        self._mute = socket.create_server(("127.0.0.2", 0))

    def _furnish(self) -> str:
        world = self.world
        if self.is_esxi:
            world.add_host("esxi-1", id="ha-host")
        else:
            for number in (9, 10):
                world.add_host(f"esxi-{number}", id=f"host-{number}")
        world.add_storage("fast", id="datastore-11")
        world.add_storage("slow", 500_000, id="datastore-12")
        world.add_network("VM Network", id="network-13")
        if not self.is_esxi:
            world.add_network("Labs", vlan=20, id="dvportgroup-14")
        template = world.add_template("golden", folder="" if self.is_esxi else "Templates")
        if self.is_esxi:
            template.is_template = False  # there are none: a machine that is off serves
        else:
            world.take_snapshot(template.id, "golden")
        return template.id

    @property
    def settings(self) -> EsxiSettings:
        assert self.server.certificate is not None
        return EsxiSettings(
            address=self.server.address,
            port=self.server.port,
            user=USER,
            password=PASSWORD,
            ca_certificate=self.server.certificate.pem,
        )

    def connector(self, installation: str = OURS, settings: EsxiSettings | None = None) -> EsxiConnector:
        made = EsxiConnector(settings or self.settings, Surroundings(installation=installation, workdir=self._workdir))
        self._connectors.append(made)
        return made

    def unreachable(self) -> EsxiConnector:
        settings = EsxiSettings(
            address="127.0.0.2", port=self._mute.getsockname()[1], user=USER, password=PASSWORD, fingerprint="0" * 64
        )
        return self.connector(settings=settings)

    # --- behind the connector's back ---

    def machine(self, id: str) -> Machine:
        with self.world:
            return self.world.machines[id]

    def _others(self) -> list[Machine]:
        return [machine for machine in self.world.machines.values() if machine.id != self.template]

    def machines(self) -> Mapping[str, Stamp | None]:
        with self.world:
            return {machine.id: stamp_of(machine) for machine in self._others()}

    def names(self) -> Mapping[str, str]:
        with self.world:
            return {machine.id: machine.name for machine in self._others()}

    def litter(self) -> set[str]:
        """Files of disks that are not the golden image's, and folders made by hand."""
        with self.world:
            things = self.server.things
            template = self.world.machines.get(self.template)
            kept = set(self._kept)
            if template is not None:
                kept |= {*template.disks, *(disk for point in template.snapshots.values() for disk in point.disks)}
            files = {things.file_of(disk) for disk in self.world.disks if disk not in kept}
            return files | {folder for folder in things.folders if "deskyard-" in folder and not self._is_used(folder)}

    def _is_used(self, folder: str) -> bool:
        return any(self.server.things.home(machine) == folder for machine in self.world.machines.values())

    def restamp(self, machine: str, stamp: Stamp) -> None:
        with self.world:
            there = self.world.machines[machine]
            there.marks["extraConfig"] |= {INSTALLATION: stamp.installation, KEY: stamp.key}
            self.world.touch(there)

    def remove(self, machine: str) -> None:
        with self.world:
            there = self.world.machines[machine]
            if there.power is not Power.OFF:
                self.world.power_off(machine)
            self.server.things.folders.discard(self.server.things.home(there))
            self.world.delete(machine)

    def share(self, machine: str) -> ResourceShare:
        """What vSphere would give it, in percents of its own size. CPU and memory must agree on the weight."""
        with self.world:
            there = self.world.machines[machine]
            cpu, memory = there.marks.get("cpu", UNSHARED), there.marks.get("memory", UNSHARED)
            mhz = there.vcpus * CORE_MHZ
        weights = {_weight(cpu, 1000 * there.vcpus), _weight(memory, 10 * there.memory_mib)}
        assert len(weights) == 1, weights
        return ResourceShare(
            weight=weights.pop(),
            cpu_reservation_percent=round(100 * cpu["reservation"] / mhz),
            cpu_limit_percent=100 if cpu["limit"] < 0 else round(100 * cpu["limit"] / mhz),
            memory_reservation_percent=round(100 * memory["reservation"] / there.memory_mib),
        )

    def sent(self, method: str) -> list[bytes]:
        """The bodies of all requests of that method so far."""
        return [seen.body for seen in self.server.requests if seen.label == method]

    def methods(self) -> set[str]:
        return {seen.label for seen in self.server.requests}

    def close(self) -> None:
        for connector in self._connectors:
            connector.close()
        self._mute.close()
        self.server.stop()


UNSHARED = {"level": "normal", "shares": 0, "reservation": 0, "limit": -1}
CORE_MHZ = 2_600


def _weight(allocation: dict[str, Any], normal: int) -> int:
    levels = {"low": 50, "normal": 100, "high": 200}
    return levels.get(allocation["level"]) or round(100 * allocation["shares"] / normal)


def stamp_of(machine: Machine) -> Stamp | None:
    entries = machine.marks.get("extraConfig", {})
    return Stamp(entries[INSTALLATION], entries[KEY]) if entries.get(INSTALLATION) and entries.get(KEY) else None
