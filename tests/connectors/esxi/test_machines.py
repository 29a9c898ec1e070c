"""Machines on a vCenter: made, lost and found, undone, recycled, deleted, sized."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    GuestSeed,
    MachineMade,
    MachineRef,
    Order,
    Outcome,
    Power,
    Receipt,
    Reconfigure,
    RecycleMachine,
    ResourceShare,
    ShareResources,
    Stage,
    Stamp,
)
from connectors.errors import CapacityExhausted, Conflict, NotFound, PlatformFault, Unreachable, Unsupported
from connectors.esxi import names
from tests.connectors.contract import OURS, again, clone, do, finish, made, new_key, ref, refuse, soon, submit
from tests.connectors.esxi.worlds import EsxiWorld


def by_fresh_connectors(world: EsxiWorld, order: Order) -> Outcome:
    """The process dies after every answer; receipts are all that is left."""
    outcome = submit(world.connector(), [order])[order.key]
    until = time.monotonic() + 30
    while outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until, outcome.step
        time.sleep(0.02)
        data = json.loads(json.dumps(dict(outcome.receipt or {})))
        (outcome,) = world.connector().poll([Receipt(order, data)], soon())
    return outcome


# --- clones ----------------------------------------------------------------------------------------------------------


def test_a_linked_clone_hangs_from_the_templates_snapshot(world: EsxiWorld) -> None:
    machine = made(world, world.connector(), clone(world))
    with world.world:
        template = world.world.machines[world.template]
        (disk,) = world.world.machines[machine.machine_id].disks
        assert template.snapshot is not None
        assert world.world.disks[disk].parent in template.snapshots[template.snapshot].disks


def test_orders_whose_answers_were_lost_share_one_reading_of_all_machines(world: EsxiWorld) -> None:
    """Each looks for what its first attempt may have made under another uuid."""
    connector = world.connector()
    made(world, connector, clone(world))
    orders = [dataclasses.replace(clone(world), attempt=2) for _ in range(12)]
    world.server.requests.clear()
    outcomes = submit(connector, orders)
    assert 1 <= [seen.label for seen in world.server.requests].count("CreateContainerView") <= 3
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE


def test_a_full_clone_hangs_from_nothing(world: EsxiWorld) -> None:
    machine = made(world, world.connector(), clone(world, linked=False))
    with world.world:
        assert [world.world.disks[disk].parent for disk in world.world.machines[machine.machine_id].disks] == [None]


def test_many_links_hang_from_one_snapshot(world: EsxiWorld) -> None:
    connector = world.connector()
    orders = [clone(world) for _ in range(4)]
    first = submit(connector, orders)
    for order in orders:
        assert finish(world, connector, order, first[order.key]).stage is Stage.DONE
    with world.world:
        assert len(world.world.machines[world.template].snapshots) == 1


def test_a_template_without_a_snapshot_can_be_copied_and_not_linked(vcenter: EsxiWorld) -> None:
    """vSphere takes no snapshot of what is marked as a template."""
    with vcenter.world:
        bare = vcenter.world.add_template("bare").id
        vcenter._kept |= set(vcenter.world.machines[bare].disks)
    connector = vcenter.connector()
    order = dataclasses.replace(clone(vcenter), template=bare)
    error = refuse(vcenter, connector, order)
    assert isinstance(error, Unsupported)
    assert "snapshot" in error.message
    made(vcenter, connector, dataclasses.replace(order, key=new_key(), linked=False))


def test_a_machine_is_as_large_and_where_it_was_ordered(vcenter: EsxiWorld) -> None:
    order = dataclasses.replace(
        clone(vcenter, linked=False), vcpus=6, memory_mib=12_288, host="host-10", storage="datastore-12",
        networks=("dvportgroup-14", "network-13"),
    )  # fmt: skip
    machine = made(vcenter, vcenter.connector(), order)
    there = vcenter.machine(machine.machine_id)
    assert (there.vcpus, there.memory_mib, there.host) == (6, 12_288, "host-10")
    assert [nic.network for nic in there.nics] == ["dvportgroup-14", "network-13"]
    with vcenter.world:
        assert {vcenter.world.disks[disk].storage for disk in there.disks} == {"datastore-12"}
    assert machine.disks[0].startswith("[slow] ")


@pytest.mark.parametrize("target", ["host-10", "domain-c7", "resgroup-8", None])
def test_a_host_a_cluster_or_a_pool_can_be_the_target(target: str | None, vcenter: EsxiWorld) -> None:
    machine = made(vcenter, vcenter.connector(), dataclasses.replace(clone(vcenter), host=target))
    if target == "host-10":
        assert machine.host == "host-10"
    sent = vcenter.sent("CloneVM_Task")[-1]
    assert b'<pool type="ResourcePool">resgroup-8</pool>' in sent
    assert (b"<host " in sent) is (target == "host-10")


@pytest.mark.parametrize(
    ("change", "word"),
    [({"host": "host-99"}, "host-99"), ({"host": "domain-c99"}, "domain-c99"), ({"host": "resgroup-99"}, "resgroup-99"),
     ({"networks": ("network-99",)}, "network-99"), ({"networks": ("dvportgroup-99",)}, "dvportgroup-99")],
)  # fmt: skip
def test_a_place_that_does_not_exist_is_named(change: dict[str, object], word: str, vcenter: EsxiWorld) -> None:
    order = dataclasses.replace(clone(vcenter), **change)  # type: ignore[arg-type]
    error = refuse(vcenter, vcenter.connector(), order)
    assert isinstance(error, NotFound)
    assert word in error.message
    assert not vcenter.machines()


def test_the_guest_gets_its_seed(world: EsxiWorld) -> None:
    order = dataclasses.replace(clone(world), seed=GuestSeed("desk-7", "#cloud-config\nusers: []\n"))
    machine = made(world, world.connector(), order)
    seed = world.machine(machine.machine_id).guest.seed
    assert (seed["hostname"], seed["user_data"]) == ("desk-7", "#cloud-config\nusers: []\n")
    assert seed["instance"] == order.key


def test_an_answer_file_reaches_sysprep_and_no_text(vcenter: EsxiWorld) -> None:
    seed = GuestSeed("desk-7", answer_file="<unattend>TopSecret1</unattend>")
    connector = vcenter.connector()
    machine = made(vcenter, connector, dataclasses.replace(clone(vcenter), seed=seed))
    assert vcenter.machine(machine.machine_id).guest.seed["answer_file"] == "<unattend>TopSecret1</unattend>"
    assert "TopSecret1" not in json.dumps(vcenter.machine(machine.machine_id).marks["extraConfig"])
    vcenter.world.forbidden.add("VirtualMachine.Provisioning.Clone")
    error = refuse(vcenter, connector, dataclasses.replace(clone(vcenter), seed=seed))
    assert "TopSecret1" not in repr(error) + error.message + error.platform_words


def test_odd_letters_of_a_name_survive_the_wire(vcenter: EsxiWorld) -> None:
    name = r"50% a/b\c %2f"
    machine = made(vcenter, vcenter.connector(), clone(vcenter, name=name))
    assert vcenter.names()[machine.machine_id] == name
    assert machine.name == name


# --- lost and found --------------------------------------------------------------------------------------------------


def test_every_order_goes_on_in_another_process(world: EsxiWorld) -> None:
    order = clone(world, power_on=True)
    outcome = by_fresh_connectors(world, order)
    assert isinstance(outcome.result, MachineMade)
    assert outcome.result.power is Power.ON
    machine = ref(world, outcome.result)
    template = world.template
    recycling = RecycleMachine(key=new_key(), machine=machine, name=order.name, template=template)
    outcome = by_fresh_connectors(world, recycling)
    assert isinstance(outcome.result, MachineMade)
    assert list(world.names().values()) == [order.name]
    deleting = DeleteMachine(key=new_key(), machine=ref(world, outcome.result))
    assert by_fresh_connectors(world, deleting).stage is Stage.DONE
    assert not world.machines()
    assert not world.litter()


def test_a_clone_whose_answer_was_lost_is_waited_for_and_found(world: EsxiWorld) -> None:
    """The name is taken from the moment the clone began, by a machine that cannot be seen yet."""
    order = clone(world)
    connector = world.connector()
    world.clock.speed = 2.0
    world.faults.add("drop_after", world.changing)
    outcome = None
    with pytest.raises(Unreachable):
        outcome = finish(world, connector, order)
    assert outcome is None
    machine = made(world, world.connector(), again(order))
    assert list(world.machines()) == [machine.machine_id]


def test_two_clones_under_way_end_as_one_machine(vcenter: EsxiWorld) -> None:
    """A vCenter that takes the name only once the machine is made."""
    vcenter.server.reserves_names = False
    order = clone(vcenter)
    one, other = vcenter.connector(), vcenter.connector()
    first, second = submit(one, [order])[order.key], submit(other, [again(order)])[order.key]
    done = [finish(vcenter, one, order, first), finish(vcenter, other, order, second)]
    assert [outcome.stage for outcome in done] == [Stage.DONE, Stage.DONE]
    assert len(vcenter.machines()) == 1


def test_a_machine_to_which_vcenter_gave_another_uuid_is_found_by_its_stamp(vcenter: EsxiWorld) -> None:
    """vCenter changes instance uuids that it thinks are double."""
    order = clone(vcenter)
    with vcenter.world:
        squatter = vcenter.world.create("squatter", id=names.uuid_of(order.key), folder="Elsewhere")
        vcenter.world.hidden.add("Elsewhere")
    machine = made(vcenter, vcenter.connector(), again(order))
    assert machine.machine_id != squatter.id
    assert machine.stamp == Stamp(OURS, order.key)
    with vcenter.world:
        vcenter.world.machines[machine.machine_id].name = "renamed by somebody"
    assert made(vcenter, vcenter.connector(), again(order)).machine_id == machine.machine_id
    rest = MachineRef("", Stamp(OURS, order.key))
    do(vcenter, vcenter.connector(), DeleteMachine(key=new_key(), machine=rest))
    assert set(vcenter.machines()) == {squatter.id}


def test_a_session_that_ends_while_a_stamp_is_looked_for_costs_nothing(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.faults.add("session_expires", "^RetrievePropertiesEx$")
    machine = made(vcenter, connector, again(clone(vcenter)))
    assert list(vcenter.machines()) == [machine.machine_id]


def test_a_machine_of_somebody_else_with_our_uuid_is_let_be(vcenter: EsxiWorld) -> None:
    order = clone(vcenter)
    with vcenter.world:
        vcenter.world.create("theirs", id=names.uuid_of(order.key))
    assert isinstance(refuse(vcenter, vcenter.connector(), order), Conflict)
    assert list(vcenter.names().values()) == ["theirs"]


def test_a_name_that_a_stranger_has_is_a_conflict_at_once(world: EsxiWorld) -> None:
    with world.world:
        world.world.create("taken", folder=world.world.machines[world.template].folder)
    began = time.monotonic()
    error = refuse(world, world.connector(), clone(world, name="taken"))
    assert isinstance(error, Conflict)
    assert "taken" in error.message
    assert time.monotonic() - began < 10
    assert list(world.names().values()) == ["taken"]


def test_a_machine_that_was_made_and_deleted_by_others_is_not_made_again(vcenter: EsxiWorld) -> None:
    connector, order = vcenter.connector(), clone(vcenter, power_on=True)
    outcome = submit(connector, [order])[order.key]
    while not vcenter.machines() or not (outcome.receipt or {}).get("made"):
        (outcome,) = connector.poll([Receipt(order, dict(outcome.receipt or {}))], soon())
        time.sleep(0.02)
    vcenter.remove(next(iter(vcenter.machines())))
    outcome = finish(vcenter, connector, order, outcome)
    if outcome.stage is Stage.FAILED:
        assert isinstance(outcome.error, NotFound)
    assert not vcenter.machines() or outcome.stage is Stage.DONE


# --- failures leave nothing ------------------------------------------------------------------------------------------


def fill(world: EsxiWorld) -> None:
    for storage in world.world.storages:
        world.world.fill(storage)


def crowd(world: EsxiWorld) -> None:
    for host in world.world.hosts.values():
        host.memory_mib = 1024


@pytest.mark.parametrize("trouble", [fill, crowd])
@pytest.mark.parametrize("linked", [True, False], ids=["linked", "full"])
def test_want_of_room_is_told_and_leaves_nothing(
    trouble: Callable[[EsxiWorld], None], linked: bool, world: EsxiWorld
) -> None:
    with world.world:
        trouble(world)
    error = refuse(world, world.connector(), clone(world, power_on=True, linked=linked))
    assert isinstance(error, CapacityExhausted)
    assert not world.machines()
    assert not world.litter()


@pytest.mark.parametrize(
    "kind", ["VirtualMachine.clone", "Folder.createVm", "VirtualDiskManager.copyVirtualDisk", "VirtualMachine.powerOn"]
)
@pytest.mark.parametrize("linked", [True, False], ids=["linked", "full"])
def test_a_task_that_breaks_off_is_told_and_leaves_nothing(kind: str, linked: bool, world: EsxiWorld) -> None:
    rule = world.faults.add("task_fails", f"^{kind}$")
    order = clone(world, power_on=True, linked=linked)
    outcome = finish(world, world.connector(), order)
    if not rule.struck:
        assert outcome.stage is Stage.DONE
        return
    assert isinstance(outcome.error, PlatformFault)
    assert not world.machines()
    assert not world.litter()
    made(world, world.connector(), dataclasses.replace(order, key=new_key()))


def test_a_task_that_somebody_cancels_is_told_and_leaves_nothing(vcenter: EsxiWorld) -> None:
    vcenter.clock.speed = 1.0
    connector, order = vcenter.connector(), clone(vcenter)
    outcome = submit(connector, [order])[order.key]
    with vcenter.world:
        vcenter.world.cancel_task(str((outcome.receipt or {})["task"]).removeprefix("task-"))
    outcome = finish(vcenter, connector, order, outcome)
    assert isinstance(outcome.error, PlatformFault)
    assert "RequestCanceled" in outcome.error.platform_words
    assert not vcenter.machines()


def test_a_task_says_how_far_it_is(vcenter: EsxiWorld) -> None:
    vcenter.clock.speed = 0.0
    connector, order = vcenter.connector(), clone(vcenter)
    outcome = submit(connector, [order])[order.key]
    vcenter.clock.advance(3)
    (outcome,) = connector.poll([Receipt(order, dict(outcome.receipt or {}))], soon())
    assert (outcome.percent, outcome.step) == (50, "Cloning the template")


def test_tasks_of_many_orders_are_asked_after_in_one_call(vcenter: EsxiWorld) -> None:
    vcenter.clock.speed = 0.0
    connector = vcenter.connector()
    orders = [clone(vcenter) for _ in range(10)]
    outcomes = submit(connector, orders)
    before = len(vcenter.server.requests)
    receipts = [Receipt(order, dict(outcomes[order.key].receipt or {})) for order in orders]
    assert all(outcome.stage is Stage.RUNNING for outcome in connector.poll(receipts, soon()))
    assert len(vcenter.server.requests) - before == 1


def test_a_right_that_is_missing_is_named(vcenter: EsxiWorld) -> None:
    vcenter.world.forbidden.add("VirtualMachine.Provisioning.Clone")
    error = refuse(vcenter, vcenter.connector(), clone(vcenter))
    assert isinstance(error, Unsupported)
    assert "VirtualMachine.Provisioning.Clone" in error.message


def test_a_template_that_is_on_or_a_desktop_is_refused(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    desktop = made(vcenter, connector, clone(vcenter))
    error = refuse(vcenter, connector, dataclasses.replace(clone(vcenter), template=desktop.machine_id))
    assert isinstance(error, Unsupported)
    with vcenter.world:
        running = vcenter.world.create("running", disks_mib=(10,))
        vcenter.world.power_on(running.id)
    error = refuse(vcenter, connector, dataclasses.replace(clone(vcenter), template=running.id))
    assert isinstance(error, Conflict)


# --- recycling -------------------------------------------------------------------------------------------------------


def test_a_recycled_machine_keeps_name_size_network_and_shares(world: EsxiWorld) -> None:
    connector = world.connector()
    network = "network-13" if world.is_esxi else "dvportgroup-14"
    order = dataclasses.replace(clone(world), vcpus=4, memory_mib=4096, networks=(network,))
    old = ref(world, made(world, connector, order))
    do(world, connector, ShareResources(key=new_key(), machine=old, share=ResourceShare(weight=150)))
    recycling = RecycleMachine(key=new_key(), machine=old, name=order.name, template=world.template, power_on=True)
    new = made(world, connector, recycling)
    there = world.machine(new.machine_id)
    assert new.stamp == Stamp(OURS, recycling.key)
    assert (there.name, there.vcpus, there.memory_mib, there.power) == (order.name, 4, 4096, "on")
    assert [nic.network for nic in there.nics] == [network]
    assert there.marks["cpu"] == {"level": "custom", "shares": 6000, "reservation": 0, "limit": -1}


def test_a_recycling_that_fails_leaves_the_old_machine(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    order = clone(vcenter, power_on=True)
    old = ref(vcenter, made(vcenter, connector, order))
    with vcenter.world:
        fill(vcenter)
    recycling = RecycleMachine(key=new_key(), machine=old, name=order.name, template=vcenter.template)
    assert isinstance(refuse(vcenter, connector, recycling), CapacityExhausted)
    assert list(vcenter.machines()) == [old.id]
    assert vcenter.machine(old.id).power == "off"


# --- deleting --------------------------------------------------------------------------------------------------------


def test_a_template_is_never_deleted(vcenter: EsxiWorld) -> None:
    order = DeleteMachine(key=new_key(), machine=MachineRef(vcenter.template))
    assert isinstance(refuse(vcenter, vcenter.connector(), order), Conflict)
    assert vcenter.machine(vcenter.template)


def test_a_machine_that_vanishes_while_it_is_deleted_is_deleted(vcenter: EsxiWorld) -> None:
    vcenter.clock.speed = 1.0
    connector = vcenter.connector()
    vcenter.clock.speed = 60.0
    machine = ref(vcenter, made(vcenter, connector, clone(vcenter)))
    vcenter.clock.speed = 0.0
    order = DeleteMachine(key=new_key(), machine=machine)
    outcome = submit(connector, [order])[order.key]
    vcenter.remove(machine.id)
    vcenter.clock.speed = 60.0
    assert finish(vcenter, connector, order, outcome).stage is Stage.DONE


# --- size and shares -------------------------------------------------------------------------------------------------


def test_a_size_is_changed_while_the_machine_is_off(world: EsxiWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    do(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=4, memory_mib=8192))
    assert (world.machine(machine.id).vcpus, world.machine(machine.id).memory_mib) == (4, 8192)


def test_a_machine_that_is_on_grows_only_where_it_may(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    machine = ref(vcenter, made(vcenter, connector, clone(vcenter, power_on=True)))
    order = Reconfigure(key=new_key(), machine=machine, vcpus=4)
    assert isinstance(refuse(vcenter, connector, order), Unsupported)
    vcenter.machine(machine.id).marks["hot"] = True
    do(vcenter, connector, dataclasses.replace(order, key=new_key()))
    assert vcenter.machine(machine.id).vcpus == 4
    smaller = Reconfigure(key=new_key(), machine=machine, vcpus=1)
    assert isinstance(refuse(vcenter, connector, smaller), Unsupported)


def test_shares_are_set_once_and_a_share_that_is_set_is_let_be(world: EsxiWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world)))
    share = ResourceShare(weight=200, cpu_reservation_percent=50, cpu_limit_percent=80, memory_reservation_percent=25)
    for _ in range(2):
        do(world, connector, ShareResources(key=new_key(), machine=machine, share=share))
    marks = world.machine(machine.id).marks
    assert marks["cpu"] == {"level": "high", "shares": 4000, "reservation": 2600, "limit": 4160}
    assert (marks["memory"]["level"], marks["memory"]["reservation"]) == ("high", 512)
    assert len([body for body in world.sent("ReconfigVM_Task") if b"<cpuAllocation>" in body]) == 1


def test_a_reservation_that_no_host_has_is_want_of_room(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    machine = ref(vcenter, made(vcenter, connector, dataclasses.replace(clone(vcenter), vcpus=128)))
    order = ShareResources(key=new_key(), machine=machine, share=ResourceShare(cpu_reservation_percent=100))
    assert isinstance(refuse(vcenter, connector, order), CapacityExhausted)


def test_a_busy_machine_is_asked_again(vcenter: EsxiWorld) -> None:
    """vSphere answers TaskInProgress while something else has the machine."""
    connector = vcenter.connector()
    machine = ref(vcenter, made(vcenter, connector, clone(vcenter)))
    vcenter.clock.speed = 0.0
    one = Reconfigure(key=new_key(), machine=machine, vcpus=4)
    other = Reconfigure(key=new_key(), machine=machine, memory_mib=4096)
    first = submit(connector, [one])[one.key]
    second = submit(connector, [other])[other.key]
    assert second.error is not None
    assert second.error.retry
    vcenter.clock.speed = 60.0
    assert finish(vcenter, connector, one, first).stage is Stage.DONE
    do(vcenter, connector, dataclasses.replace(other, attempt=2))
    assert (vcenter.machine(machine.id).vcpus, vcenter.machine(machine.id).memory_mib) == (4, 4096)


def test_a_clone_order_takes_no_time_for_the_platforms_work(vcenter: EsxiWorld) -> None:
    vcenter.clock.speed = 0.0
    began = time.monotonic()
    orders: list[CloneMachine] = [clone(vcenter) for _ in range(20)]
    assert len(submit(vcenter.connector(), orders)) == 20
    assert time.monotonic() - began < 5
