"""The world behind the laboratory's servers."""

from __future__ import annotations

import pytest

from lab.clock import Clock
from lab.errors import GuestSilent, HostDown, InUse, NoSuch, OutOfMemory, OutOfStorage, TaskBroke, WrongState
from lab.nouns import Machine, Power, TaskState
from lab.world import World


@pytest.fixture
def world() -> World:
    """Two hosts, one storage, a network, a template; time stands still."""
    made = World("test", clock=Clock(speed=0))
    with made:
        made.add_host("one", vcpus=8, memory_mib=8_192)
        made.add_host("two", vcpus=8, memory_mib=8_192)
        made.add_storage("disks", capacity_mib=100_000)
        made.add_network("office", vlan=20)
        made.add_template("golden", memory_mib=2_048, disk_mib=20_480)
    return made


def template(world: World) -> str:
    return next(machine.id for machine in world.machines.values() if machine.is_template)


def running(world: World, name: str = "desk") -> Machine:
    with world:
        machine = world.clone(template(world), name=name)
        world.power_on(machine.id)
    world.clock.advance(30)
    return machine


def storage(world: World) -> str:
    return next(iter(world.storages))


def test_a_guest_comes_up_after_a_while_with_an_address_of_its_own(world: World) -> None:
    with world:
        machine = world.clone(template(world), name="desk")
        world.power_on(machine.id)
        assert world.addresses(machine) == ()
    world.clock.advance(30)
    with world:
        (address,) = world.addresses(machine)
        assert world.at_address(address) is machine
        world.power_off(machine.id)
        assert world.at_address(address) is None


def test_a_linked_clone_hangs_from_its_template_which_then_cannot_go(world: World) -> None:
    with world:
        machine = world.clone(template(world), name="desk")
        (disk,) = machine.disks
        assert world.disks[disk].parent == world.machines[template(world)].disks[0]
        with pytest.raises(InUse):
            world.delete(template(world))
        world.delete(machine.id)
        assert disk not in world.disks
        world.delete(template(world))


def test_a_full_clone_takes_room_and_hangs_from_nothing(world: World) -> None:
    with world:
        before = world.free_mib(storage(world))
        machine = world.clone(template(world), name="desk", linked=False)
        assert world.disks[machine.disks[0]].parent is None
        assert world.free_mib(storage(world)) == before - 2_048


def test_storage_and_memory_are_finite(world: World) -> None:
    with world:
        world.fill(storage(world), leaving_mib=200)
        with pytest.raises(OutOfStorage):
            world.clone(template(world), name="full", linked=False)
        first, second, third = (world.clone(template(world), name=f"desk-{number}") for number in range(3))
        for machine in (first, second, third):
            machine.host, machine.memory_mib = next(iter(world.hosts)), 3_000
        world.power_on(first.id)
        world.power_on(second.id)
        with pytest.raises(OutOfMemory):
            world.power_on(third.id)
        with pytest.raises(OutOfStorage):
            world.clone(template(world), name="one too many")


def test_a_guest_that_is_asked_goes_down_unless_it_does_not_listen(world: World) -> None:
    listens, deaf = running(world, "listens"), running(world, "deaf")
    deaf.guest.ignores_shutdown = True
    with world:
        world.shutdown_guest(listens.id)
        world.shutdown_guest(deaf.id)
    world.clock.advance(10)
    with world:
        assert (listens.power, deaf.power) == (Power.OFF, Power.ON)


def test_an_agent_is_asked_only_where_one_answers(world: World) -> None:
    machine = running(world)
    machine.guest.has_agent = False
    with world, pytest.raises(GuestSilent):
        world.reboot_guest(machine.id, needs_agent=True)


def test_a_restart_is_a_new_boot(world: World) -> None:
    machine = running(world)
    with world:
        world.reset(machine.id)
        assert not machine.guest.is_up
    world.clock.advance(30)
    with world:
        assert (machine.guest.is_up, machine.guest.boots) == (True, 2)


def test_a_revert_brings_disks_and_configuration_back(world: World) -> None:
    with world:
        machine = world.clone(template(world), name="desk")
        world.write(machine.disks[0], 0, b"before")
        point = world.take_snapshot(machine.id, "clean")
        world.write(machine.disks[0], 0, b"after")
        world.reconfigure(machine.id, memory_mib=4_096)
        world.revert(machine.id, point.id)
        assert machine.memory_mib == 2_048
        now = world.copy_disk(machine.disks[0], linked=False)
        assert world.read(now.id, 0, 6) == b"before"
        world.delete_snapshot(machine.id, point.id)
        assert not machine.snapshots
        world.drop_disk(now.id)
        world.delete(machine.id)
        assert len(world.disks) == 1, "the template's alone is left"


def test_a_snapshot_from_which_a_clone_hangs_stays(world: World) -> None:
    with world:
        golden = template(world)
        point = world.take_snapshot(golden, "for clones")
        clone = world.clone(golden, name="desk", snapshot=point.id)
        with pytest.raises(InUse):
            world.delete_snapshot(golden, point.id)
        world.delete(clone.id)
        world.delete_snapshot(golden, point.id)


def test_tasks_take_their_time_one_after_the_other_if_told_so(world: World) -> None:
    done: list[str] = []
    with world:
        first = world.start_task("clone", "", 10, lambda: done.append("first"))
        second = world.start_task("clone", "", 10, lambda: done.append("second"), after=first)
    world.clock.advance(9)
    with world:
        assert (first.state, first.percent(world.now), second.state) == (TaskState.RUNNING, 90, TaskState.QUEUED)
    world.clock.advance(2)
    with world:
        assert (done, second.state) == (["first"], TaskState.RUNNING)
    world.clock.advance(11)
    with world:
        assert done == ["first", "second"]


def test_a_task_fails_in_mid_flight_when_told_to_and_nothing_of_it_is_done(world: World) -> None:
    world.faults.add("task_fails", "clone")
    with world:
        task = world.start_task("clone", "", 10, lambda: world.clone(template(world), name="desk"))
    world.clock.advance(6)
    with world:
        assert task.state is TaskState.FAILED
        assert isinstance(task.error, TaskBroke)
        assert [machine.name for machine in world.visible()] == ["golden"]


def test_what_a_task_raises_is_its_error(world: World) -> None:
    with world:
        task = world.start_task("power", "", 1, lambda: world.power_on("nobody"))
    world.clock.advance(2)
    with world:
        assert isinstance(task.error, NoSuch)


def test_a_dead_host_takes_its_machines_down_and_takes_no_more(world: World) -> None:
    machine = running(world)
    with world:
        world.kill_host(machine.host)
        assert machine.power is Power.OFF
        with pytest.raises(HostDown):
            world.power_on(machine.id)
        assert world.clone(template(world), name="elsewhere").host != machine.host


def test_what_lies_in_a_hidden_folder_is_not_there(world: World) -> None:
    with world:
        machine = world.clone(template(world), name="desk", folder="pool")
        seen = world.sequence
        world.hide("pool")
        assert world.changes_since(seen) == [machine.id]
        assert machine not in list(world.visible())
        with pytest.raises(NoSuch):
            world.machine(machine.id)
        world.hide()
        assert machine in list(world.visible())


def test_changes_are_told_in_their_order_gone_machines_too(world: World) -> None:
    with world:
        first, second = (world.clone(template(world), name=name) for name in ("first", "second"))
        seen = world.sequence
        world.touch(second)
        world.delete(first.id)
        assert world.changes_since(seen) == [second.id, first.id]
        assert world.changes_since(world.sequence) == []


def test_a_template_is_not_switched_on(world: World) -> None:
    with world, pytest.raises(WrongState):
        world.power_on(template(world))


def test_the_same_seed_gives_the_same_world() -> None:
    def ids(seed: int) -> list[str]:
        made = World("same", seed, Clock(speed=0))
        with made:
            made.add_host("one")
            made.add_storage("disks")
            made.add_network("office")
            golden = made.add_template("golden")
            return [golden.id, *(made.clone(golden.id, name="x").id for _ in range(3))]

    assert ids(7) == ids(7)
    assert ids(7) != ids(8)
