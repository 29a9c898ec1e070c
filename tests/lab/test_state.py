"""A world that outlives its process."""

from __future__ import annotations

from pathlib import Path

from lab import state
from lab.clock import Clock
from lab.nouns import Power
from lab.world import World


def furnished(folder: Path) -> World:
    world = World("kept", clock=Clock(speed=0), folder=folder)
    with world:
        world.add_host("one")
        world.add_storage("disks")
        world.add_network("office", vlan=7, is_isolated=True)
        world.add_template("golden")
    return world


def test_what_stood_stands_again(tmp_path: Path) -> None:
    world = furnished(tmp_path / "disks")
    with world:
        golden = next(iter(world.machines))
        desk, booting = (world.clone(golden, name=name) for name in ("desk", "booting"))
        desk.marks["notes"] = {"key": "k-1"}
        world.write(desk.disks[0], 512, b"\x00letters\xff")
        world.take_snapshot(desk.id, "clean")
        world.power_on(desk.id)
        world.hidden.add("images")
    world.clock.advance(60)
    with world:
        world.power_on(booting.id)
    state.save(world, tmp_path / "world.json")

    again = World("kept", clock=Clock(speed=0), folder=tmp_path / "disks")
    assert state.load(again, tmp_path / "world.json")
    with again:
        assert again.machines.keys() == world.machines.keys()
        assert (again.hosts, again.storages, again.networks) == (world.hosts, world.storages, world.networks)
        assert again.disks == world.disks
        assert again.machines[desk.id] == desk
        assert again.addresses(again.machines[desk.id]) == world.addresses(desk)
        assert again.machines[booting.id].power is Power.ON
        assert not again.machines[booting.id].guest.is_up
        assert again.now >= 60
        fresh = again.clone(golden, name="fresh")
        assert fresh.number not in {machine.number for machine in world.machines.values()}
    again.clock.advance(60)
    with again:
        assert again.machines[booting.id].guest.is_up


def test_nothing_saved_is_an_empty_world(tmp_path: Path) -> None:
    world = World("fresh")
    assert not state.load(world, tmp_path / "world.json")
    assert not world.machines
