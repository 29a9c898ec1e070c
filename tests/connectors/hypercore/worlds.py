"""A simulated HyperCore cluster behind a connector's back: the world of the contract checks."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from connectors.base import Connector, Stamp, Surroundings
from connectors.hypercore.connector import HyperCoreConnector
from connectors.hypercore.settings import HyperCoreSettings
from lab.clock import Clock
from lab.hypercore.cluster import Cluster
from lab.hypercore.devices import MIB, Device, disk_size, extra_of, free_slot, sync_disks
from lab.hypercore.server import HyperCoreNode, start_cluster
from lab.nouns import Machine, Power
from lab.world import World
from tests.connectors.contract import OURS
from tests.support.samba import SambaServer

PASSWORD = "hunter2-and-more"


class HyperCoreWorld:
    """All machines but the template, all devices and snapshots but its own."""

    limit_s = 60.0
    reading = r"^GET /rest/v1/VirDomain @"
    changing = r"^POST /rest/v1/VirDomain/[^/]+/clone @"

    def __init__(self, workdir: Path, *, version: str = "9.7.4.225310", nodes: int = 3, speed: float = 20.0) -> None:
        self.clock = Clock(speed)
        self.lab = World("hc3", 7, self.clock)
        with self.lab:
            for place in range(nodes):
                self.lab.add_host(f"node-{place + 1}", vcpus=32, memory_mib=65_536)
            self.lab.add_storage("pool", 2_000_000)
            self.lab.add_network("LAN", 0)
            self.lab.add_network("VLAN 20", 20)
            self.cluster = Cluster(self.lab, user="deskyard", password=PASSWORD, version=version)
            self.golden = self.cluster.add_template("golden")
        self.template = self.golden.id
        self.nodes: list[HyperCoreNode] = start_cluster(self.cluster)
        self.secrets: tuple[str, ...] = (PASSWORD,)
        self._workdir = workdir
        self._connectors: list[Connector] = []
        self._mute = socket.create_server(("127.0.0.1", 0))
        self.settings = HyperCoreSettings(
            addresses=", ".join(node.address for node in self.nodes),
            port=self.nodes[0].port,
            user="deskyard",
            password=PASSWORD,
            ca_certificate="".join(node.certificate.pem for node in self.nodes if node.certificate),
        )

    @property
    def faults(self) -> Any:
        return self.lab.faults

    def connector(self, installation: str = OURS, **changes: Any) -> HyperCoreConnector:
        return self._made(replace(self.settings, **changes), installation)

    def unreachable(self) -> HyperCoreConnector:
        port = self._mute.getsockname()[1]
        return self._made(replace(self.settings, addresses="127.0.0.1", port=port), OURS)

    def _made(self, settings: HyperCoreSettings, installation: str) -> HyperCoreConnector:
        made = HyperCoreConnector(settings, Surroundings(installation=installation, workdir=self._workdir))
        self._connectors.append(made)
        return made

    # --- what the checks ask ---

    def machines(self) -> Mapping[str, Stamp | None]:
        with self.lab:
            return {machine.id: stamp_of(extra_of(self.lab, machine).tags) for machine in self._all()}

    def names(self) -> Mapping[str, str]:
        with self.lab:
            return {machine.id: machine.name for machine in self._all()}

    def litter(self) -> set[str]:
        with self.lab:
            devices = {device.uuid for machine in self._all() for device in extra_of(self.lab, machine).devices}
            mine = {device.disk for device in extra_of(self.lab, self.golden).devices}
            used = {device.disk for machine in self._all() for device in extra_of(self.lab, machine).devices}
            frozen = {device.disk for point in self.cluster.points.values() for device in point.devices}
            return (
                devices
                | set(self.cluster.points)
                | set(self.cluster.isos)
                | (set(self.lab.disks) - mine - used - frozen)
            )

    def restamp(self, machine: str, stamp: Stamp) -> None:
        with self.lab:
            found = self.lab.machine(machine)
            extra_of(self.lab, found).tags = f"deskyard-i-{stamp.installation},deskyard-k-{stamp.key}"

    def remove(self, machine: str) -> None:
        with self.lab:
            found = self.lab.machine(machine)
            if found.power is not Power.OFF:
                self.lab.power_off(machine)
            self.lab.delete(machine)
            for point in [point for point in self.cluster.points.values() if point.domain == machine]:
                self.cluster._drop_point(point)

    def close(self) -> None:
        self.lab.faults.clear()
        for connector in self._connectors:
            connector.close()
        for node in self.nodes:
            node.stop()
        self._mute.close()

    # --- disks ---

    def share_on(self, samba: SambaServer) -> None:
        """Connectors made from now on know the share."""
        self.settings = replace(
            self.settings, share=samba.address, share_user=samba.user, share_password=samba.password
        )
        self.secrets = (PASSWORD, samba.password, quote(samba.password, safe=""))

    def machine(self, *kinds: str, size: int = 16 * MIB, name: str = "source", bytes_each: int = MIB) -> Machine:
        """One that nobody made, off, with disks of these kinds that hold something at their beginning and end."""
        with self.lab:
            network = next(id for id, network in self.lab.networks.items() if network.vlan == 20)
            machine = self.lab.create(name, vcpus=3, memory_mib=1536, networks=(network,))
            extra = extra_of(self.lab, machine)
            storage = next(iter(self.lab.storages))
            for kind in kinds or ("VIRTIO_DISK",):
                disk = self.lab.new_disk(storage, capacity=disk_size(size))
                for at in (0, disk.capacity - bytes_each):
                    self.lab.write(disk.id, at, self.lab.random.randbytes(bytes_each))
                slot = free_slot(extra.devices, kind)
                extra.devices.append(Device(self.lab.new_id(), kind, size, slot=slot, disk=disk.id))
            extra.boot = [extra.devices[0].uuid]
            sync_disks(machine, extra)
            return machine

    def disk(self, machine: str, place: int = 0) -> str:
        """Id of the world's disk."""
        with self.lab:
            return extra_of(self.lab, self.lab.machine(machine)).devices[place].disk

    def content(self, machine: str, place: int = 0) -> bytes:
        disk = self.disk(machine, place)
        return self.lab.read(disk, 0, self.lab.disks[disk].capacity)

    def write(self, machine: str, offset: int, data: bytes, place: int = 0) -> None:
        disk = self.disk(machine, place)
        with self.lab:
            self.lab.write(disk, offset, data)

    # --- what our own tests ask ---

    def found(self, machine: str) -> Machine:
        return self.lab.machine(machine)

    def asked(self, *words: str) -> list[str]:
        """What was asked of any node, in order of each node's own record; all words have to be in it."""
        labels = [seen.label for node in self.nodes for seen in node.requests]
        return [label for label in labels if all(word in label for word in words)]

    def bodies(self, *words: str) -> list[Any]:
        return [
            json.loads(seen.body or b"null")
            for node in self.nodes
            for seen in node.requests
            if all(word in seen.label for word in words)
        ]

    def _all(self) -> list[Machine]:
        return [machine for machine in self.lab.machines.values() if machine.id != self.template]


def stamp_of(tags: str) -> Stamp | None:
    """Written out here, not imported: machines stamped by an earlier release must still be known."""
    found = {tag[:11]: unquote(tag[11:]) for tag in tags.split(",") if tag.startswith(("deskyard-i-", "deskyard-k-"))}
    if len(found) < 2:
        return None
    return Stamp(found["deskyard-i-"], found["deskyard-k-"])


@contextmanager
def cluster_world(workdir: Path, **how: Any) -> Iterator[HyperCoreWorld]:
    world = HyperCoreWorld(workdir, **how)
    try:
        yield world
    finally:
        world.close()
