"""What a platform replicates by itself, in virtual time."""

from __future__ import annotations

import pytest

from lab import mirrors
from lab.clock import Clock
from lab.mirrors import Course
from lab.nouns import Machine
from lab.world import World


@pytest.fixture
def world() -> World:
    world = World("mirrors", clock=Clock(speed=0.0))
    with world:
        world.add_host("h")
        world.add_storage("s")
        world.add_network("n")
    return world


@pytest.fixture
def machine(world: World) -> Machine:
    with world:
        made = world.create("m", vcpus=1, memory_mib=1024, networks=())
        mirrors.begin(world, made.id, "elsewhere", every_s=100.0, first_s=30.0)
    return made


def newest(world: World, machine: Machine) -> float | None:
    with world:
        return mirrors.newest_at(world, machine)


def turn(world: World, machine: Machine, course: Course) -> None:
    with world:
        mirrors.turn(world, machine.id, course)


def test_nothing_has_arrived_before_the_first_copy_is_complete(world: World, machine: Machine) -> None:
    world.clock.advance(29)
    assert newest(world, machine) is None


def test_what_has_arrived_is_never_older_than_an_interval_and_its_way(world: World, machine: Machine) -> None:
    for _ in range(20):
        world.clock.advance(37)
        at = newest(world, machine)
        assert at is not None
        assert 0 <= world.now - at <= 130


@pytest.mark.parametrize("course", [Course.BROKEN, Course.PAUSED])
def test_nothing_arrives_any_more_and_what_has_arrived_stays(world: World, machine: Machine, course: Course) -> None:
    world.clock.advance(250)
    before = newest(world, machine)
    turn(world, machine, course)
    world.clock.advance(1000)
    assert newest(world, machine) == before == 200


def test_what_lags_arrives_late_and_never_goes_back(world: World, machine: Machine) -> None:
    world.clock.advance(250)
    turn(world, machine, Course.LAGGING)
    assert newest(world, machine) == 200
    world.clock.advance(2000)
    assert newest(world, machine) == 1200


def test_what_goes_well_again_catches_up(world: World, machine: Machine) -> None:
    world.clock.advance(250)
    turn(world, machine, Course.BROKEN)
    world.clock.advance(1000)
    turn(world, machine, Course.WELL)
    assert newest(world, machine) == 1200


def test_what_is_replicated_no_more_is_forgotten(world: World, machine: Machine) -> None:
    with world:
        mirrors.end(world, machine.id)
        assert mirrors.of(machine) is None
