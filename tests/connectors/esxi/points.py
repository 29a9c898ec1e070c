"""Machines with bytes in them, and what is read of their points: for the tests of replication."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors.base import MachineRef
from connectors.esxi.connector import EsxiConnector
from connectors.replication import Bookmark, Point, PointWish
from disks.base import Source
from disks.copying import Progress, copy
from disks.raw import RawSink
from lab.nouns import Machine, Power
from tests.connectors.contract import new_key, soon
from tests.connectors.esxi.worlds import EsxiWorld

MIB = 1 << 20


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def machine_with(world: EsxiWorld, *sizes_mib: int, name: str = "work", is_on: bool = True) -> MachineRef:
    """A machine of nobody's, whose disks begin and end with noise and have some in their midst."""
    with world.world as there:
        made = there.create(name, disks_mib=sizes_mib or (16,), vcpus=3, memory_mib=3072)
        for number, disk in enumerate(made.disks):
            size = there.disks[disk].capacity
            there.write(disk, 0, noise(200_000, number))
            there.write(disk, size // 2 - 777, noise(70_000, number + 10))
            there.write(disk, size - 4096, noise(4096, number + 20))
        if is_on:
            there.power_on(made.id)
            there.machines[made.id].guest.is_up = True
    return MachineRef(made.id)


def there(world: EsxiWorld, machine: MachineRef) -> Machine:
    return world.machine(machine.id)


def write(world: EsxiWorld, machine: MachineRef, offset: int, data: bytes, disk: int = 0) -> None:
    """What the guest writes."""
    with world.world as within:
        within.write(within.machines[machine.id].disks[disk], offset, data)


def now(world: EsxiWorld, machine: MachineRef, disk: int = 0) -> bytes:
    """All of the disk, behind the connector's back."""
    with world.world as within:
        id = within.machines[machine.id].disks[disk]
        return within.read(id, 0, within.disks[id].capacity)


def take(connector: EsxiConnector, machine: MachineRef, since: Bookmark | None = None, **wish: Any) -> Point:
    return connector.take_point(PointWish(machine=machine, key=new_key(), since=since, **wish), soon(30))


def release(connector: EsxiConnector, machine: MachineRef, keep: Sequence[Bookmark] = ()) -> None:
    connector.release(machine, keep, soon(30))


def saved(source: Source, to: Path) -> bytes:
    sink = RawSink(to, source.size)
    copy(source, sink)
    sink.commit()
    source.close()
    return to.read_bytes()


def laid_over(source: Source, base: bytearray) -> Progress:
    """What the source names goes over what was there."""

    class Over:
        def write(self, offset: int, data: bytes) -> None:
            base[offset : offset + len(data)] = data

        def zero(self, offset: int, length: int) -> None:
            base[offset : offset + length] = bytes(length)

        def commit(self) -> None: ...

        def abandon(self) -> None: ...

    moved = copy(source, Over())
    source.close()
    return moved


def advance(end: Any) -> str:
    """One step of an end that is slow; what it is at, or nothing."""
    assert callable(end.advance)
    words: str = end.advance(time.monotonic())
    return words


def snapshots(world: EsxiWorld, machine: MachineRef) -> list[str]:
    """Names of those that the platform shows or keeps."""
    return [point.name for point in there(world, machine).snapshots.values()]


def power_off(world: EsxiWorld, machine: MachineRef) -> None:
    with world.world as within:
        if within.machines[machine.id].power is not Power.OFF:
            within.power_off(machine.id)
