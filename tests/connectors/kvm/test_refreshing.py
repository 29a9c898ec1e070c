"""Machines that stand by, brought to later points on real hosts by what differs alone."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path

import libvirt
import pytest

from connectors.base import DeleteMachine, MachineRef, PowerAction, SetPower
from connectors.errors import Busy, Conflict, Unsupported
from connectors.kvm import refreshing
from connectors.kvm.connector import KvmConnector
from connectors.replication import LandingWish, Refreshes, RefreshWish
from disks.copying import copy
from disks.raw import RawSource
from disks.vault.folder import FolderStore
from disks.vault.points import Configuration, Drive, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.connectors.contract import do, listing, new_key, soon
from tests.connectors.kvm.test_landing import MIB, files_of, require_same
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.kvm_hosts import KvmHost

SIZE = 96 * MIB


class Chest:
    """A vault, and a machine's disk as a file that becomes points in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.vault = Vault.create(FolderStore(folder))
        self.disk = folder.parent / "disk.raw"
        with self.disk.open("wb") as file:
            file.truncate(SIZE)
        self.size = SIZE

    def write(self, offset: int, data: bytes) -> None:
        with self.disk.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def grow(self, size: int) -> None:
        os.truncate(self.disk, size)
        self.size = size

    @property
    def configuration(self) -> Configuration:
        return Configuration(1, 128, "bios", disks=(Drive("disk", "virtio", self.size),))

    def point(self) -> RecoveryPoint:
        run = self.vault.begin("here", "disk")
        source, sink = RawSource(self.disk), run.disk("disk", self.size)
        copy(source, sink)
        source.close()
        sink.commit()
        return run.commit(origin=Origin("1", "one"), configuration=self.configuration, read_at=datetime.now(UTC))


@pytest.fixture
def chest(tmp_path: Path) -> Chest:
    made = Chest(tmp_path / "vault")
    made.write(3 * MIB, os.urandom(20 * MIB))
    made.write(60 * MIB, os.urandom(8 * MIB))
    return made


def landed(connector: KvmConnector, chest: Chest, point: RecoveryPoint) -> MachineRef:
    wish = LandingWish(key=new_key(), name="waits", configuration=point.configuration, storage="default")
    landing = connector.land(wish, soon(30))
    sink = landing.open("disk")
    copy(chest.vault.open_disk(point, "disk"), sink)
    sink.commit()
    return landing.finish(soon(30))


def refreshed(connector: KvmConnector, chest: Chest, wish: RefreshWish, since: RecoveryPoint, to: RecoveryPoint) -> int:
    """How many bytes went there."""
    assert isinstance(connector, Refreshes)
    going = connector.refresh(dataclasses.replace(wish, configuration=to.configuration), soon(30))
    try:
        sink = going.open("disk")
        moved = copy(chest.vault.open_changes(to, "disk", since), sink).moved
        sink.commit()
        going.finish(soon(60))
    finally:
        going.close()
    return moved


def wish_for(connector: KvmConnector, machine: MachineRef, point: RecoveryPoint) -> RefreshWish:
    mark = connector.mark(machine, soon(30))
    return RefreshWish(machine=machine, key=new_key(), configuration=point.configuration, mark=mark)


def test_a_machine_becomes_what_each_later_point_holds_by_what_differs_alone(
    real: LibvirtWorld, host: KvmHost, chest: Chest
) -> None:
    connector = real.connector()
    before = chest.point()
    machine = landed(connector, chest, before)
    for turn in range(3):
        chest.write((5 + 7 * turn) * MIB, os.urandom(2 * MIB))
        chest.write(61 * MIB + turn * MIB, bytes(MIB))
        if turn == 2:
            chest.grow(SIZE + 16 * MIB)
            chest.write(SIZE + 9 * MIB, os.urandom(MIB))
        point = chest.point()
        moved = refreshed(connector, chest, wish_for(connector, machine, point), before, point)
        assert moved == (3 if turn == 2 else 2) * MIB
        (image,) = files_of(real, host, machine)
        require_same(image, chest.disk)
        before = point
    assert real.machines().keys() == {machine.id}
    assert len(real.litter()) == 1
    do(real, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not real.litter()


def test_a_machine_that_somebody_has_started_is_not_written_to(real: LibvirtWorld, chest: Chest) -> None:
    connector = real.connector()
    point = chest.point()
    machine = landed(connector, chest, point)
    wish = wish_for(connector, machine, point)
    do(real, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    with pytest.raises(Conflict, match="runs"):
        connector.refresh(wish, soon(30))
    do(real, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))
    connector.refresh(wish, soon(30)).close()


def test_a_disk_that_somebody_has_written_on_is_known(real: LibvirtWorld, host: KvmHost, chest: Chest) -> None:
    connector = real.connector()
    point = chest.point()
    machine = landed(connector, chest, point)
    wish = wish_for(connector, machine, point)
    (image,) = files_of(real, host, machine)
    with image.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(Conflict, match="written to by somebody else"):
        connector.refresh(wish, soon(30))


def test_a_disk_that_shrinks_is_brought_up_anew(real: LibvirtWorld, chest: Chest) -> None:
    connector = real.connector()
    machine = landed(connector, chest, chest.point())
    chest.grow(SIZE - 16 * MIB)
    with pytest.raises(Unsupported, match="shrunk"):
        connector.refresh(wish_for(connector, machine, chest.point()), soon(30))


def test_what_a_dead_attempt_left_goes_with_the_next_one_and_with_the_machine(real: LibvirtWorld, chest: Chest) -> None:
    connector = real.connector()
    before = chest.point()
    machine = landed(connector, chest, before)
    chest.write(0, os.urandom(MIB))
    point = chest.point()
    wish = wish_for(connector, machine, point)
    for _ in range(2):
        dead = connector.refresh(wish, soon(30))
        sink = dead.open("disk")
        copy(chest.vault.open_changes(point, "disk", before), sink)
        sink.commit()
    assert len(real.litter()) == 2
    do(real, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not real.litter()


def test_changes_that_are_not_whole_are_not_written(real: LibvirtWorld, host: KvmHost, chest: Chest) -> None:
    connector = real.connector()
    point = chest.point()
    machine = landed(connector, chest, point)
    going = connector.refresh(wish_for(connector, machine, point), soon(30))
    going.open("disk").write(0, os.urandom(MIB))
    with pytest.raises(Conflict, match="not there in whole"):
        going.finish(soon(30))
    going.close()
    (image,) = files_of(real, host, machine)
    require_same(image, chest.disk)
    assert len(real.litter()) == 1


def test_what_dies_while_the_changes_are_written_leaves_a_machine_of_which_that_is_known(
    real: LibvirtWorld, chest: Chest, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = real.connector()
    before = chest.point()
    machine = landed(connector, chest, before)
    chest.write(0, os.urandom(2 * MIB))
    point = chest.point()
    wish = wish_for(connector, machine, point)
    seen: list[list[str]] = []

    def dies(writer: libvirt.virDomain, target: str) -> bool:
        names = [domain.name() for domain in real.conn.listAllDomains()]
        seen.append([name for name in names if name.startswith("deskyard-refresh-")])
        listed = {one.id for one in listing(connector).machines}
        assert listed - {real.template} == {machine.id}, "QEMU that writes is no machine"
        raise Busy("It died.")

    monkeypatch.setattr(refreshing, "_is_level", dies)
    with pytest.raises(Busy):
        refreshed(connector, chest, wish, before, point)
    assert len(seen[0]) == 1
    assert real.machines().keys() == {machine.id}
    with pytest.raises(Conflict, match="written to by somebody else"):
        connector.refresh(wish, soon(30))
