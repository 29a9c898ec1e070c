"""The lab's platforms as ground for movers that die: one machine on each, and what the platform itself shows of it.

Nothing here asks a connector. What is left behind is read from the lab's own books.
"""

from __future__ import annotations

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors.base import Stamp
from lab.http import LabServer
from lab.hypercore.devices import Point, extra_of
from lab.hyperv import points as hyperv_points
from lab.nouns import Machine
from lab.world import World
from tests.connectors.esxi.worlds import EsxiWorld
from tests.connectors.esxi.worlds import stamp_of as esxi_stamp
from tests.connectors.hypercore.worlds import HyperCoreWorld
from tests.connectors.hypercore.worlds import stamp_of as hypercore_stamp
from tests.connectors.hyperv.worlds import HypervWorld
from tests.connectors.hyperv.worlds import stamp_of as hyperv_stamp
from tests.connectors.nutanix import replicas
from tests.connectors.nutanix.worlds import PrismWorld
from tests.connectors.nutanix.worlds import stamp_of as prism_stamp
from tests.support.samba import SambaServer

MIB = 1 << 20
SIZE = 4 * MIB
KINDS = ("esxi", "hyperv", "nutanix", "hypercore")
Left = Mapping[str, Sequence[str]]
"""What of -> names; nothing is named for which there is nothing."""


class Ground(ABC):
    """A platform with one machine that is replicated."""

    kind: str
    world: World
    servers: Sequence[LabServer]
    storage: str
    """The platform's id of where machines are brought up."""
    machine: str
    """The platform's id."""
    _there: Any
    """The world of the connector's own tests."""

    @property
    def settings(self) -> Any:
        """The connector's, as an administrator would enter them."""
        return self._there.settings

    def doors(self) -> Sequence[LabServer]:
        """All that listens now, of which some goes and comes with a server."""
        return self.servers

    def stamp(self, stamp: Stamp) -> None:
        """The machine is one of this installation's."""
        self._there.restamp(self.machine, stamp)

    def disk(self, machine: str) -> str:
        """Id of the world's disk, the only one of a machine."""
        return self.world.machines[machine].disks[0]

    def made(self, key: str) -> list[str]:
        """Ids of the machines that bear this key."""
        with self.world as world:
            return [it.id for it in world.machines.values() if (mark := self._stamp_of(it)) and mark.key == key]

    @abstractmethod
    def _stamp_of(self, machine: Machine) -> Stamp | None: ...

    @abstractmethod
    def theirs(self) -> None:
        """Somebody else takes a snapshot of the machine, in the way of the platform."""

    @abstractmethod
    def of_others(self) -> Sequence[str]:
        """Names of others' snapshots."""

    @abstractmethod
    def left(self, known: Iterable[str]) -> Left:
        """What of ours is there beside the machine, the golden image and these machines."""

    def close(self) -> None:
        self._there.close()


def write(ground: Ground, dice: random.Random) -> None:
    """What the guest writes: a few pieces anywhere, and zeros now and then."""
    with ground.world as world:
        disk = ground.disk(ground.machine)
        for _ in range(dice.randrange(1, 4)):
            length = dice.randrange(1, 200_000)
            offset = dice.randrange(world.disks[disk].capacity - length)
            world.write(disk, offset, dice.choice((dice.randbytes(length), bytes(length))))


def now(ground: Ground, machine: str = "") -> bytes:
    """All that the machine's disk holds."""
    with ground.world as world:
        disk = ground.disk(machine or ground.machine)
        return world.read(disk, 0, world.disks[disk].capacity)


def named(**found: Iterable[str]) -> Left:
    return {what: names for what, some in found.items() if (names := sorted(some))}


def _begun(world: World, name: str, **how: Any) -> Machine:
    """A machine whose disk begins with something."""
    with world:
        made = world.create(name, disks_mib=(SIZE // MIB,), vcpus=1, memory_mib=512, **how)
        world.write(made.disks[0], 0, random.Random(name).randbytes(300_000))
        return made


def _loose(world: World, *held: str) -> set[str]:
    """Disks that no machine and no snapshot has, nor what they hang from, nor any of those."""
    machines = world.machines.values()
    used = {*held, *(disk for it in machines for disk in it.disks)}
    used |= {disk for it in machines for point in it.snapshots.values() for disk in point.disks}
    used |= {above for disk in used for above in world._chain(disk)}
    return set(world.disks) - used


class EsxiGround(Ground):
    kind, storage = "esxi", "datastore-11"

    def __init__(self, folder: Path) -> None:
        self._there = EsxiWorld(folder)
        self.world = self._there.world
        self.servers: Sequence[LabServer] = [self._there.server]
        self.machine = _begun(self.world, "work").id
        with self.world as world:
            world.power_on(self.machine)

    def doors(self) -> Sequence[LabServer]:
        host = self._there.server.leases._host
        return [*self.servers, *([host] if host is not None else [])]

    def stamp(self, stamp: Stamp) -> None:
        with self.world as world:
            world.machines[self.machine].marks.setdefault("extraConfig", {})
        self._there.restamp(self.machine, stamp)

    def _stamp_of(self, machine: Machine) -> Stamp | None:
        return esxi_stamp(machine)

    def theirs(self) -> None:
        with self.world as world:
            world.take_snapshot(self.machine, "before the update", "somebody's")

    def of_others(self) -> Sequence[str]:
        with self.world as world:
            return [it.name for it in self._snapshots(world) if it.description == "somebody's"]

    def _snapshots(self, world: World) -> list[Any]:
        return list(world.machines[self.machine].snapshots.values())

    def left(self, known: Iterable[str]) -> Left:
        with self.world as world:
            stay = {self.machine, self._there.template, *known}
            return named(
                snapshots=[it.name for it in self._snapshots(world) if it.description != "somebody's"],
                machines=[it.name for it in world.machines.values() if it.id not in stay],
                disks=_loose(world),
            )


class HypervGround(Ground):
    kind, storage = "hyperv", "D:\\"

    def __init__(self, folder: Path) -> None:
        self._there = HypervWorld(folder)
        self.world = self._there.world
        self.servers: Sequence[LabServer] = self._there.servers
        self.machine = _begun(self.world, "work").id
        with self.world as world:
            world.power_on(self.machine)
            world.clock.advance(10)

    def _stamp_of(self, machine: Machine) -> Stamp | None:
        return hyperv_stamp(machine)

    def theirs(self) -> None:
        with self.world as world:
            hyperv_points.checkpoint(self._there.server.host, world.machines[self.machine], "Somebody's backup")

    def of_others(self) -> Sequence[str]:
        return [name for name in self._points() if name == "Somebody's backup"]

    def _points(self) -> list[str]:
        with self.world as world:
            return [it.name for it in hyperv_points.points_of(world.machines[self.machine])]

    def left(self, known: Iterable[str]) -> Left:
        with self.world as world:
            stay = {self.machine, self._there.template, *known}
            machines = world.machines.values()
            homes = tuple(home for it in machines if (home := str(it.marks.get("home", ""))))
            return named(
                checkpoints=[name for name in self._points() if name != "Somebody's backup"],
                # One is the mark from which the next run counts.
                references=list(world.machines[self.machine].marks.get("references", {}))[1:],
                errands=[str(key) for server in self._there.servers for key in server.host.errands.known],
                files=[path for path in self._there.estate.litter() if not path.startswith(homes)],
                machines=[it.name for it in machines if it.id not in stay],
                disks=_loose(world),
            )


class NutanixGround(Ground):
    kind = "nutanix"

    def __init__(self, folder: Path) -> None:
        self._there = PrismWorld(folder)
        replicas.quick(self._there)
        self.world = self._there.lab
        self.servers: Sequence[LabServer] = [self._there.server]
        self.storage = next(iter(self.world.storages))
        self.machine = _begun(self.world, "work").id
        with self.world as world:
            world.power_on(self.machine)

    def _stamp_of(self, machine: Machine) -> Stamp | None:
        return prism_stamp(machine)

    def theirs(self) -> None:
        with self.world as world:
            recovery = self._there.server.replicas.recovery
            recovery.take(world.machines[self.machine], "theirs", "CRASH_CONSISTENT", "")

    def of_others(self) -> Sequence[str]:
        return [name for name in replicas.left(self._there).get("recovery points", []) if name == "theirs"]

    def left(self, known: Iterable[str]) -> Left:
        there = replicas.left(self._there)
        found = {what: [name for name in names if name != "theirs"] for what, names in there.items()}
        with self.world as world:
            stay = {self.machine, self._there.template, *known}
            found["machines"] = [it.name for it in world.machines.values() if it.id not in stay]
        return named(**found)


class HyperCoreGround(Ground):
    kind = "hypercore"

    def __init__(self, folder: Path, samba: SambaServer) -> None:
        self._samba = samba
        self._there = HyperCoreWorld(folder, nodes=2)
        self._there.share_on(samba)
        self.world = self._there.lab
        self.servers: Sequence[LabServer] = self._there.nodes
        self.storage = self._there.cluster.id
        self.machine = self._there.machine(size=SIZE, name="work").id
        with self.world as world:
            world.power_on(self.machine)

    def disk(self, machine: str) -> str:
        found: str = self._there.disk(machine)
        return found

    def _stamp_of(self, machine: Machine) -> Stamp | None:
        return hypercore_stamp(extra_of(self.world, machine).tags)

    def theirs(self) -> None:
        with self.world as world:
            id = world.new_id()
            point = Point(id, self.machine, "somebody's", "USER", True, world.now, [], [], {})
            self._there.cluster.points[id] = point

    def of_others(self) -> Sequence[str]:
        return [point.label for point in self._there.cluster.points.values() if point.label == "somebody's"]

    def left(self, known: Iterable[str]) -> Left:
        cluster = self._there.cluster
        with self.world as world:
            stay = {self.machine, self._there.template, *known}
            held = {it.disk for machine in world.machines.values() for it in extra_of(world, machine).devices}
            held |= {it.disk for point in cluster.points.values() for it in point.devices}
            return named(
                snapshots=[point.label for point in cluster.points.values() if point.label != "somebody's"],
                machines=[it.name for it in world.machines.values() if it.id not in stay],
                images=[str(it) for it in cluster.virtual_disks],
                disks=_loose(world, *held),
                share=[path.name for path in self._samba.files.iterdir()],
            )


@contextmanager
def ground_of(kind: str, folder: Path, samba: SambaServer) -> Iterator[Ground]:
    """A platform of that maker, standing for the length of the block."""
    makers: Mapping[str, Callable[[], Ground]] = {
        "esxi": lambda: EsxiGround(folder),
        "hyperv": lambda: HypervGround(folder),
        "nutanix": lambda: NutanixGround(folder),
        "hypercore": lambda: HyperCoreGround(folder, samba),
    }
    made = makers[kind]()
    try:
        yield made
    finally:
        made.close()


def values(ground: Ground) -> dict[str, str]:
    """The settings as a form would send them."""
    return {name: str(value) for name, value in dataclasses.asdict(ground.settings).items()}
