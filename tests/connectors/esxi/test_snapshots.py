"""Snapshots: taken once, reverted to once, deleted once."""

from __future__ import annotations

import dataclasses

import pytest

from connectors.base import DeleteSnapshot, MachineRef, Reconfigure, RevertSnapshot, SnapshotTaken, TakeSnapshot
from connectors.errors import Conflict, NotFound, Unreachable, Unsupported
from tests.connectors.contract import clone, do, finish, made, new_key, ref, refuse
from tests.connectors.esxi.worlds import EsxiWorld


def standing(world: EsxiWorld) -> MachineRef:
    return ref(world, made(world, world.connector(), clone(world)))


def taken(world: EsxiWorld, machine: MachineRef, name: str = "before") -> str:
    result = do(world, world.connector(), TakeSnapshot(key=new_key(), machine=machine, name=name)).result
    assert isinstance(result, SnapshotTaken)
    return result.snapshot_id


def test_a_snapshot_whose_answer_was_lost_is_taken_once(world: EsxiWorld) -> None:
    machine = standing(world)
    order = TakeSnapshot(key=new_key(), machine=machine, name="before")
    world.faults.add("drop_after", "^CreateSnapshot_Task$")
    with pytest.raises(Unreachable):
        finish(world, world.connector(), order)
    world.clock.advance(5)
    do(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert len(world.machine(machine.id).snapshots) == 1


def test_two_snapshots_may_have_one_name(world: EsxiWorld) -> None:
    machine = standing(world)
    assert taken(world, machine) != taken(world, machine)


def test_a_revert_brings_back_the_disk_and_the_size_and_keeps_the_stamp(world: EsxiWorld) -> None:
    machine = standing(world)
    snapshot = taken(world, machine)
    connector = world.connector()
    do(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=8))
    with world.world:
        (disk,) = world.world.machines[machine.id].disks
        world.world.write(disk, 0, b"a user's secret")
    do(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=snapshot))
    there = world.machine(machine.id)
    assert there.vcpus == 2
    assert there.disks != [disk]
    assert world.machines()[machine.id] == machine.stamp


def test_a_second_attempt_does_not_throw_away_what_happened_since(world: EsxiWorld) -> None:
    machine = standing(world)
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=taken(world, machine))
    do(world, world.connector(), order)
    disks = list(world.machine(machine.id).disks)
    do(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert world.machine(machine.id).disks == disks
    assert len(world.sent("RevertToSnapshot_Task")) == 1


def test_a_snapshot_that_is_not_there_cannot_be_reverted_to(world: EsxiWorld) -> None:
    machine, other = standing(world), standing(world)
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=taken(world, other))
    assert isinstance(refuse(world, world.connector(), order), NotFound)


def test_a_deleted_snapshot_is_gone_and_twice_is_success(world: EsxiWorld) -> None:
    machine = standing(world)
    order = DeleteSnapshot(key=new_key(), machine=machine, snapshot=taken(world, machine))
    for attempt in (1, 2):
        do(world, world.connector(), dataclasses.replace(order, attempt=attempt))
    assert not world.machine(machine.id).snapshots


def test_what_linked_clones_hang_from_is_not_deleted(esxi: EsxiWorld) -> None:
    standing(esxi)
    (point,) = esxi.machine(esxi.template).snapshots
    order = DeleteSnapshot(key=new_key(), machine=MachineRef(esxi.template), snapshot=f"snapshot-{point}")
    assert isinstance(refuse(esxi, esxi.connector(), order), Unsupported)
    assert list(esxi.machine(esxi.template).snapshots) == [point]


def test_snapshots_of_a_stranger_are_let_be(world: EsxiWorld) -> None:
    machine = standing(world)
    snapshot = taken(world, machine)
    foreign = MachineRef(machine.id, None)
    for order in (
        RevertSnapshot(key=new_key(), machine=foreign, snapshot=snapshot),
        DeleteSnapshot(key=new_key(), machine=foreign, snapshot=snapshot),
    ):
        assert isinstance(refuse(world, world.connector(), order), Conflict)
    assert len(world.machine(machine.id).snapshots) == 1
