"""What the tests of points and landings have in common: a machine worth copying, copies of it, what is left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from connectors.base import MachineRef
from connectors.nutanix.connector import NutanixConnector
from connectors.replication import Landing, LandingWish, Point, PointWish
from disks.copying import copy
from lab.nouns import Machine, Power
from tests.connectors.contract import new_key, soon
from tests.connectors.nutanix.worlds import PrismWorld

MIB = 1 << 20


def quick(world: PrismWorld) -> None:
    """Prism's tasks take a moment."""
    for kind in ("CreateRecoveryPoint", "RestoreRecoveryPoint", "CreateImage", "CreateVm", "DeleteImage", "DeleteVm"):
        world.lab.task_s[kind] = 0.5
    world.lab.task_s["DeleteRecoveryPoint"] = 0.5
    world.server.listed_late_s = 0.0


def stand(world: PrismWorld, name: str = "source", *, sizes: tuple[int, ...] = (12, 5), **how: Any) -> Machine:
    """A machine that is off, with disks of so many MiB that hold something here and there, at their ends too."""
    with world.lab as lab:
        machine = lab.create(name, vcpus=2, memory_mib=1024, disks_mib=sizes, **how)
        for disk in machine.disks:
            end = lab.disks[disk].capacity
            for offset in (0, end // 4 + 700, end - 512):
                lab.write(disk, offset, os.urandom(min(90_000, end - offset)))
        return machine


def switch_on(world: PrismWorld, machine: Machine) -> None:
    """Returns once its guest is up."""
    with world.lab as lab:
        lab.power_on(machine.id)
        lab.clock.advance(10)
    with world.lab:
        assert machine.guest.is_up


def contents(world: PrismWorld, machine: Machine | str) -> list[bytes]:
    """What its disks hold now."""
    with world.lab as lab:
        found = lab.machines[machine] if isinstance(machine, str) else machine
        return [lab.read(disk, 0, lab.disks[disk].capacity) for disk in found.disks]


def scribble(world: PrismWorld, machine: Machine) -> None:
    """The guest goes on writing."""
    with world.lab as lab:
        for disk in machine.disks:
            lab.write(disk, 2 * MIB, os.urandom(70_000))


def take(connector: NutanixConnector, machine: Machine, **wish: Any) -> Point:
    return connector.take_point(PointWish(machine=MachineRef(machine.id), key=new_key(), **wish), soon(30))


def read(point: Point) -> list[bytes]:
    """All its disks, as a copy of them would be."""
    found = []
    for drive in point.configuration.disks:
        source, sink = point.open(drive.name), Memory(drive.size)
        copy(source, sink)
        source.close()
        found.append(bytes(sink.data))
    return found


@dataclass
class Memory:
    """A sink."""

    size: int
    data: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.data = bytearray(self.size)

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)

    def commit(self) -> None: ...

    def abandon(self) -> None: ...


def wish_for(world: PrismWorld, point: Point, name: str = "landed", **how: Any) -> LandingWish:
    told: dict[str, Any] = {"networks": tuple(world.lab.networks)[:1], "storage": next(iter(world.lab.storages))}
    return LandingWish(**{"key": new_key(), "name": name, "configuration": point.configuration, **told, **how})


def fill(point: Point, landing: Landing) -> None:
    """Every disk of the point into the landing's."""
    for drive in point.configuration.disks:
        source, sink = point.open(drive.name), landing.open(drive.name)
        copy(source, sink)
        source.close()
        sink.commit()


def left(world: PrismWorld) -> dict[str, list[str]]:
    """Names of all that replication makes for a while, and disks that belong to nobody."""
    with world.lab as lab:
        replicas, machines = world.server.replicas, lab.machines.values()
        held = {disk for machine in machines for disk in machine.disks}
        held |= {disk for machine in machines for point in machine.snapshots.values() for disk in point.disks}
        held |= {kept.disk for point in replicas.recovery.points.values() for kept in point.disks}
        held |= {image.disk for image in replicas.images.images.values()}
        found = {
            "recovery points": [point.name for point in replicas.recovery.points.values()],
            "machines": [machine.name for machine in machines if machine.name.startswith("dsky-")],
            "images": [image.name for image in replicas.images.images.values()],
            "objects": [key for _, key in world.server.objects.objects],
            "uploads": [upload.key for upload in world.server.objects.uploads.values()],
            "disks": sorted(set(lab.disks) - held),
        }
        return {kind: names for kind, names in found.items() if names}


def is_off(machine: Machine) -> bool:
    return machine.power is Power.OFF
