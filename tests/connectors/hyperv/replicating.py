"""Machines with bytes on their disks, points of them, and what is left of both."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from connectors.base import MachineRef, Stamp
from connectors.hyperv.connector import HypervConnector
from connectors.replication import Bookmark, Point, PointWish
from disks.base import Source
from disks.copying import Progress, copy
from disks.raw import RawSink
from lab.hyperv import points
from tests.connectors.contract import new_key, soon
from tests.connectors.hyperv.worlds import HypervWorld, stamp_of

MIB = 1 << 20


def running(world: HypervWorld, *, sizes_mib: tuple[int, ...] = (24,), stamped: bool = True, **made: Any) -> MachineRef:
    """A guest that is up and has written something, here and there, up to the last bytes."""
    with world.world as there:
        machine = there.create("replicated", disks_mib=sizes_mib, vcpus=2, memory_mib=2048, **made)
        stamp = {"installation": "installation-a", "key": new_key()} if stamped else None
        if stamped:
            world.restamp(machine.id, Stamp(**stamp))  # type: ignore[arg-type]
        for disk in machine.disks:
            there.write(disk, 0, b"boot" * 300)
            there.write(disk, 3 * MIB + 512, noise(3 * MIB, 1))
            there.write(disk, there.disks[disk].capacity - 512, b"the last sector!" * 32)
        there.power_on(machine.id)
        world.world.clock.advance(10)
    with world.world as there:
        assert there.machine(machine.id).guest.is_up
        return MachineRef(machine.id, stamp_of(machine))


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def write(world: HypervWorld, machine: MachineRef, offset: int, data: bytes, disk: int = 0) -> None:
    """What the guest writes."""
    with world.world as there:
        there.write(there.machine(machine.id).disks[disk], offset, data)


def now(world: HypervWorld, machine: MachineRef, disk: int = 0) -> bytes:
    """All of a disk as it is."""
    with world.world as there:
        found = there.disks[there.machine(machine.id).disks[disk]]
    return there.read(found.id, 0, found.capacity)


def is_same(first: bytes, second: bytes) -> bool:
    """Told without them, should they differ: they are large."""
    return first == second


def take(connector: HypervConnector, machine: MachineRef, since: Bookmark | None = None, **wish: Any) -> Point:
    return connector.take_point(PointWish(machine=machine, key=new_key(), since=since, **wish), soon())


def saved(source: Source, to: Path) -> tuple[bytes, Progress]:
    """What copying makes of it, on a disk of zeros."""
    sink = RawSink(to, source.size)
    progress = copy(source, sink)
    sink.commit()
    source.close()
    return to.read_bytes(), progress


def kept(bookmark: Bookmark | None) -> list[Bookmark]:
    assert bookmark is not None
    return [bookmark]


def checkpoints(world: HypervWorld, machine: MachineRef) -> list[str]:
    with world.world as there:
        return [it.name for it in points.points_of(there.machine(machine.id))]


def references(world: HypervWorld, machine: MachineRef) -> int:
    with world.world as there:
        return len(there.machine(machine.id).marks.get("references", {}))


def errands(world: HypervWorld) -> int:
    return sum(len(server.host.errands.known) for server in world.servers)


def nothing_is_left(world: HypervWorld, machine: MachineRef) -> None:
    assert checkpoints(world, machine) == []
    assert references(world, machine) == 0
    assert errands(world) == 0
    with world.world as there:
        assert "deskyard-points" not in str(there.machine(machine.id).marks.get("notes"))


def others(world: HypervWorld, machine: MachineRef, name: str = "Somebody's backup") -> None:
    """A checkpoint by another product."""
    with world.world as there:
        points.checkpoint(world.server.host, there.machine(machine.id), name)


def until(claim: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)
