"""What orders do on Prism Central: crashes at every step, failures that leave nothing, identity, power, snapshots."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    DeleteSnapshot,
    GuestSeed,
    MachineMade,
    MachineRef,
    OpenScreen,
    Order,
    Power,
    PowerAction,
    PowerSet,
    Receipt,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    ScreenOpened,
    SetPower,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import CapacityExhausted, Conflict, NotFound, PlatformFault, Unsupported
from connectors.nutanix.connector import NutanixConnector
from lab.nouns import Machine
from lab.screens import GuestScreens
from tests.connectors.contract import (
    OURS,
    again,
    clone,
    do,
    finish,
    listing,
    made,
    new_key,
    poll,
    ref,
    refuse,
    soon,
    submit,
)
from tests.connectors.nutanix.worlds import PrismWorld


def asked(world: PrismWorld, label: str) -> list[Any]:
    """The requests of a label, such as "POST vmm/ahv/config/vms/{}/$actions/clone"."""
    return [seen for seen in world.server.requests if seen.label == label]


def stand(world: PrismWorld, *, power_on: bool = False, **how: Any) -> tuple[NutanixConnector, MachineRef, Machine]:
    """A connector and a machine."""
    connector = world.connector()
    order = CloneMachine(key=new_key(), name="desk-1", template=world.template, power_on=power_on, **how)
    machine = made(world, connector, order)
    return connector, ref(world, machine), world.machine(machine.machine_id)


def until_booted(world: PrismWorld, machine: Machine) -> None:
    until = time.monotonic() + 10
    while True:
        with world.lab:  # time passes when somebody looks
            if machine.guest.is_up:
                return
        assert time.monotonic() < until
        time.sleep(0.02)


# --- crashes ---------------------------------------------------------------------------------------------------------


def crash_after(world: PrismWorld, order: Order, looks: int) -> bool:
    """Submit, poll so often, each time from another process; then all is forgotten. Whether it was over before."""
    outcome = submit(world.connector(), [order])[order.key]
    for _ in range(looks):
        if outcome.stage is not Stage.RUNNING:
            return True
        time.sleep(outcome.poll_after_s)
        data = json.loads(json.dumps(dict(outcome.receipt or {})))
        outcome = poll(world.connector(), [Receipt(order, data)])[order.key]
    return outcome.stage is not Stage.RUNNING


@pytest.mark.parametrize("looks", range(9))
def test_a_clone_whose_receipt_was_lost_after_any_step_makes_one_machine(world: PrismWorld, looks: int) -> None:
    order = clone(world, power_on=True)
    crash_after(world, order, looks)
    machine = made(world, world.connector(), again(order))
    assert list(world.machines()) == [machine.machine_id]
    assert machine.name == order.name
    assert machine.power is Power.ON


@pytest.mark.parametrize("looks", range(0, 14, 2))
def test_a_recycling_whose_receipt_was_lost_after_any_step_leaves_one_new_machine(
    world: PrismWorld, looks: int
) -> None:
    _, machine, old = stand(world, power_on=True)
    disks = set(old.disks)
    order = RecycleMachine(key=new_key(), machine=machine, name="desk-1", template=world.template)
    crash_after(world, order, looks)
    order = RecycleMachine(key=order.key, machine=machine, name="desk-1", template=world.template, attempt=2)
    recycled = made(world, world.connector(), order)
    assert list(world.machines()) == [recycled.machine_id]
    assert not set(recycled.disks) & disks
    assert world.litter() == set(recycled.disks)
    assert recycled.stamp == Stamp(OURS, order.key)


@pytest.mark.parametrize("looks", range(5))
def test_a_deletion_whose_receipt_was_lost_after_any_step_leaves_nothing(world: PrismWorld, looks: int) -> None:
    connector, machine, _ = stand(world, power_on=True)
    do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name="before"))
    order = DeleteMachine(key=new_key(), machine=machine)
    crash_after(world, order, looks)
    do(world, world.connector(), DeleteMachine(key=order.key, machine=machine, attempt=2))
    assert not world.machines()
    assert not world.litter()


def test_a_clone_is_ours_from_its_first_moment(world: PrismWorld) -> None:
    order = clone(world)
    connector = world.connector()
    submit(connector, [order])
    until = time.monotonic() + 5
    while not world.machines():  # looking lets time pass
        assert time.monotonic() < until
    assert list(world.machines().values()) == [Stamp(OURS, order.key)]
    assert list(world.names().values()) != [order.name]


def test_a_lost_answer_is_asked_for_again_with_the_same_request_id(world: PrismWorld) -> None:
    world.faults.add("drop_after", world.changing, count=1)
    machine = made(world, world.connector(), clone(world))
    assert list(world.machines()) == [machine.machine_id]
    sent = {seen.headers["NTNX-Request-Id"] for seen in asked(world, "POST vmm/ahv/config/vms/{}/$actions/clone")}
    assert len(sent) == 1


def test_what_a_running_clone_will_have_made_is_deleted_by_its_key(world: PrismWorld) -> None:
    order = clone(world)
    submit(world.connector(), [order])
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, order.key))))
    time.sleep(0.3)  # the clone is over by now, in any case
    assert not world.machines()
    assert not world.litter()


def test_an_order_for_nothing_at_all_is_a_conflict(world: PrismWorld) -> None:
    order = DeleteMachine(key=new_key(), machine=MachineRef("", None))
    assert isinstance(refuse(world, world.connector(), order), Conflict)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_clone_that_cannot_be_switched_on_is_removed_and_the_same_order_succeeds_later(world: PrismWorld) -> None:
    for host in world.lab.hosts.values():
        host.memory_mib = 1_024
    order = clone(world, power_on=True)
    error = refuse(world, world.connector(), order)
    assert isinstance(error, CapacityExhausted)
    assert "NoHostResources" in error.platform_words
    assert "NoHostResources" not in error.message
    assert not world.machines()
    assert not world.litter()
    for host in world.lab.hosts.values():
        host.memory_mib = 65_536
    assert made(world, world.connector(), again(order)).power is Power.ON
    assert len(world.machines()) == 1


def test_a_full_container_is_no_room_and_leaves_nothing(world: PrismWorld) -> None:
    storage = next(iter(world.lab.storages))
    world.lab.fill(storage)
    order = clone(world)
    assert isinstance(refuse(world, world.connector(), order), CapacityExhausted)
    assert not world.machines()
    world.lab.drain(storage)
    made(world, world.connector(), again(order))


@pytest.mark.parametrize("kind", ["CloneVm", "UpdateVm", "PowerOnVm"])
def test_a_task_that_breaks_off_leaves_nothing_and_the_same_order_succeeds_later(world: PrismWorld, kind: str) -> None:
    world.faults.add("task_fails", f"^{kind}$")
    order = clone(world, power_on=True)
    assert isinstance(refuse(world, world.connector(), order), PlatformFault)
    assert not world.machines()
    assert not world.litter()
    made(world, world.connector(), again(order))
    assert len(world.machines()) == 1


def test_a_recycling_that_fails_leaves_the_old_machine_as_it_was(world: PrismWorld) -> None:
    connector, machine, old = stand(world, power_on=True)
    disks = list(old.disks)
    world.faults.add("task_fails", "^UpdateVm$")
    order = RecycleMachine(key=new_key(), machine=machine, name="desk-1", template=world.template)
    assert isinstance(refuse(world, connector, order), PlatformFault)
    assert list(world.machines()) == [machine.id]
    assert old.disks == disks
    assert world.litter() == set(disks)


def test_a_recycling_that_fails_after_the_old_machine_went_keeps_the_new_one(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    world.faults.add("task_fails", "^PowerOnVm$")
    order = RecycleMachine(key=new_key(), machine=machine, name="desk-1", template=world.template)
    assert isinstance(refuse(world, connector, order), PlatformFault)
    assert list(world.machines().values()) == [Stamp(OURS, order.key)]
    order = RecycleMachine(key=order.key, machine=machine, name="desk-1", template=world.template, attempt=2)
    assert made(world, world.connector(), order).power is Power.ON


def test_a_task_that_never_ends_keeps_the_order_running(world: PrismWorld) -> None:
    world.faults.add("task_hangs", "^CloneVm$")
    order = clone(world)
    connector = world.connector()
    outcome = submit(connector, [order])[order.key]
    for _ in range(4):
        time.sleep(0.1)
        outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
        assert outcome.stage is Stage.RUNNING
    assert outcome.poll_after_s > 0.25, "it is asked after more and more rarely"


# --- identity --------------------------------------------------------------------------------------------------------


def test_a_machine_that_changes_hands_while_it_is_deleted_is_left_alone(world: PrismWorld) -> None:
    connector, machine, _ = stand(world, power_on=True)
    order = DeleteMachine(key=new_key(), machine=machine)
    outcome = submit(connector, [order])[order.key]
    world.restamp(machine.id, Stamp("somebody-else", new_key()))
    outcome = finish(world, connector, order, outcome)
    assert isinstance(outcome.error, Conflict)
    assert machine.id in world.machines()


def test_a_desktop_is_no_template(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    error = refuse(world, connector, CloneMachine(key=new_key(), name="x", template=machine.id))
    assert isinstance(error, Unsupported)
    assert machine.id not in {template.id for template in listing(connector).templates}


def test_a_template_that_is_on_is_not_cloned(world: PrismWorld) -> None:
    world.golden.is_template = False
    world.lab.power_on(world.template)
    world.golden.is_template = True
    assert isinstance(refuse(world, world.connector(), clone(world)), Conflict)


def test_a_helper_of_the_platform_is_neither_listed_nor_touched(world: PrismWorld) -> None:
    connector, machine, found = stand(world)
    found.marks["isAgentVm"] = True
    assert machine.id not in {seen.id for seen in listing(connector).machines}
    assert isinstance(refuse(world, connector, DeleteMachine(key=new_key(), machine=machine)), Conflict)


def test_deleting_the_template_of_a_clone_harms_nobody(world: PrismWorld) -> None:
    connector, machine, found = stand(world)
    disks = list(found.disks)
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef(world.template, None)))
    assert world.machine(machine.id).disks == disks
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))


# --- what a clone is like --------------------------------------------------------------------------------------------


def test_a_clone_gets_size_networks_and_seed_and_keeps_the_words_of_its_template(world: PrismWorld) -> None:
    world.golden.marks["description"] = "Golden image of the school."
    networks = tuple(reversed(tuple(world.lab.networks)))
    seed = GuestSeed("desk-1", "#cloud-config\nusers: []\n")
    _, _, found = stand(world, vcpus=6, memory_mib=3_072, networks=networks, seed=seed)
    assert (found.vcpus, found.memory_mib) == (6, 3_072)
    assert tuple(nic.network for nic in found.nics) == networks
    assert found.guest.seed["user_data"] == seed.user_data
    assert found.guest.seed["hostname"] == "desk-1"
    assert found.marks["description"].startswith("Golden image of the school.\n[deskyard ")


def test_windows_is_prepared_by_its_answer_file(world: PrismWorld) -> None:
    _, _, found = stand(world, seed=GuestSeed("desk-1", answer_file="<unattend>geheim</unattend>"))
    assert found.guest.seed["answer_file"] == "<unattend>geheim</unattend>"
    assert "user_data" not in found.guest.seed


def test_an_answer_file_that_prism_would_refuse_is_refused_in_words_before_anything_is_made(world: PrismWorld) -> None:
    order = CloneMachine(
        key=new_key(), name="x", template=world.template, seed=GuestSeed("x", answer_file="geheim" * 5_000)
    )
    error = refuse(world, world.connector(), order)
    assert isinstance(error, Unsupported)
    assert "32000" in error.message
    assert "geheim" not in str(error)
    assert not asked(world, "POST vmm/ahv/config/vms/{}/$actions/clone")


def test_a_recycled_machine_keeps_size_and_networks(world: PrismWorld) -> None:
    networks = tuple(world.lab.networks)
    connector, machine, _ = stand(world, vcpus=6, memory_mib=3_072, networks=networks)
    order = RecycleMachine(key=new_key(), machine=machine, name="desk-2", template=world.template, power_on=False)
    found = world.machine(made(world, connector, order).machine_id)
    assert (found.name, found.vcpus, found.memory_mib) == ("desk-2", 6, 3_072)
    assert tuple(nic.network for nic in found.nics) == networks


def test_another_container_than_the_templates_is_refused_in_words(world: PrismWorld) -> None:
    other = world.lab.add_storage("other")
    order = CloneMachine(key=new_key(), name="x", template=world.template, storage=other.id)
    assert isinstance(refuse(world, world.connector(), order), Unsupported)
    here = next(iter(world.lab.storages))
    made(world, world.connector(), CloneMachine(key=new_key(), name="x", template=world.template, storage=here))


def test_a_host_has_to_exist_and_ahv_chooses_among_its_own(world: PrismWorld) -> None:
    error = refuse(
        world, world.connector(), CloneMachine(key=new_key(), name="x", template=world.template, host=new_key())
    )
    assert isinstance(error, NotFound)
    host = next(iter(world.lab.hosts))
    machine = made(world, world.connector(), CloneMachine(key=new_key(), name="x", template=world.template, host=host))
    assert machine.host in world.lab.hosts


def test_a_batch_of_clones_of_one_template_survives_its_stale_etags(world: PrismWorld) -> None:
    world.server.checks_etags_late = True
    connector = world.connector()
    orders = [clone(world) for _ in range(6)]
    outcomes = submit(connector, orders)
    for order in orders:
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert len(world.machines()) == 6
    failed = [task for task in world.lab.tasks.values() if task.error]
    assert failed, "the trap was sprung"


def test_a_batch_reads_its_template_once(world: PrismWorld) -> None:
    connector = world.connector()
    outcomes = submit(connector, [clone(world) for _ in range(5)])
    assert {outcome.stage for outcome in outcomes.values()} == {Stage.RUNNING}
    assert len(asked(world, "POST vmm/ahv/config/vms/{}/$actions/clone")) == 5
    assert len(asked(world, "GET vmm/ahv/config/vms/{}")) == 1


def test_a_clone_reads_its_machine_once_after_each_change_of_it(world: PrismWorld) -> None:
    machine = made(world, world.connector(), clone(world, power_on=True))
    paths = [seen.raw_path.rsplit("/", 1)[1] for seen in asked(world, "GET vmm/ahv/config/vms/{}")]
    assert paths == [world.template, *[machine.machine_id] * 3]


def test_a_template_that_was_switched_on_since_it_was_read_is_not_cloned(world: PrismWorld) -> None:
    connector = world.connector()
    submit(connector, [clone(world)])
    switch_template(world, is_on=True)
    order = clone(world)
    assert isinstance(refuse(world, connector, order), Conflict)
    told = [seen.status for seen in asked(world, "POST vmm/ahv/config/vms/{}/$actions/clone")]
    assert told == [202, 412], "its ETag told, and it was read again at once"


def test_no_clone_is_refused_because_of_what_its_template_was_like_before(world: PrismWorld) -> None:
    connector = world.connector()
    switch_template(world, is_on=True)
    assert isinstance(refuse(world, connector, clone(world)), Conflict)
    switch_template(world, is_on=False)
    made(world, connector, clone(world))
    other = world.lab.add_storage("other")
    with world.lab:
        for disk in world.golden.disks:
            world.lab.disks[disk].storage = other.id
        world.lab.touch(world.golden)
    made(world, connector, CloneMachine(key=new_key(), name="x", template=world.template, storage=other.id))


def switch_template(world: PrismWorld, *, is_on: bool) -> None:
    with world.lab:
        world.golden.is_template = False
        (world.lab.power_on if is_on else world.lab.power_off)(world.template)
        world.golden.is_template = True


def test_a_template_whose_old_reading_a_task_fails_of_is_read_again(world: PrismWorld) -> None:
    world.server.checks_etags_late = True
    connector = world.connector()
    first = clone(world)
    outcome = submit(connector, [first])[first.key]
    with world.lab:
        world.lab.touch(world.golden)
    second = clone(world)
    made(world, connector, second)
    tasks = [task for task in world.lab.tasks.values() if task.kind == "CloneVm" and task.error]
    assert len(tasks) <= 2, "each order fails of it once at most"
    assert finish(world, connector, first, outcome).stage is Stage.DONE


def test_a_second_attempt_that_waits_for_its_turn_looks_for_the_first_ones_machine_once(world: PrismWorld) -> None:
    connector, order = world.connector(), again(clone(world))
    world.faults.add("status", world.changing, count=2, status=429, headers={"X-Ratelimit-Reset": "1"})
    made(world, connector, order)
    assert len(asked(world, "GET vmm/ahv/config/vms")) == 1


# --- power -----------------------------------------------------------------------------------------------------------


def test_a_guest_with_tools_is_shut_down_by_them(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    until_booted(world, found)
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN))
    assert asked(world, "POST vmm/ahv/config/vms/{}/$actions/guest-shutdown")
    assert not asked(world, "POST vmm/ahv/config/vms/{}/$actions/power-off")


def test_a_guest_without_tools_is_shut_down_by_the_power_button(world: PrismWorld) -> None:
    world.golden.guest.has_agent = False
    connector, machine, found = stand(world, power_on=True)
    until_booted(world, found)
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN))
    assert asked(world, "POST vmm/ahv/config/vms/{}/$actions/shutdown")
    assert not asked(world, "POST vmm/ahv/config/vms/{}/$actions/guest-shutdown")
    assert not asked(world, "POST vmm/ahv/config/vms/{}/$actions/power-off")


def test_the_power_of_a_guest_that_hears_nothing_is_cut_after_its_grace(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    until_booted(world, found)
    found.guest.ignores_shutdown = True
    began = time.monotonic()
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN, grace_s=2)
    assert do(world, connector, order).result == PowerSet(Power.OFF)
    assert time.monotonic() - began >= 2
    assert asked(world, "POST vmm/ahv/config/vms/{}/$actions/power-off")


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET])
def test_a_restart_happens_once_however_often_it_is_ordered(world: PrismWorld, action: PowerAction) -> None:
    connector, machine, found = stand(world, power_on=True)
    until_booted(world, found)
    before = found.guest.boots
    order = SetPower(key=new_key(), machine=machine, action=action)
    do(world, connector, order)
    do(world, world.connector(), SetPower(key=order.key, machine=machine, action=action, attempt=2))
    assert found.guest.boots == before + 1


def test_a_machine_that_is_off_cannot_be_restarted_or_suspended(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    for action in (PowerAction.REBOOT, PowerAction.RESET, PowerAction.SUSPEND, PowerAction.RESUME):
        assert isinstance(refuse(world, connector, SetPower(key=new_key(), machine=machine, action=action)), Conflict)


def test_an_order_to_switch_on_is_not_believed_done_because_it_once_was(world: PrismWorld) -> None:
    connector, machine, found = stand(world)
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.ON)
    do(world, connector, order)
    world.lab.power_off(machine.id)
    do(world, world.connector(), SetPower(key=order.key, machine=machine, action=PowerAction.ON, attempt=2))
    assert found.power == "on"


def test_a_paused_machine_shows_as_suspended_and_can_be_switched_off(world: PrismWorld) -> None:
    connector, machine, _ = stand(world, power_on=True)
    world.lab.suspend(machine.id, to_disk=False)
    assert {seen.id: seen.power for seen in listing(connector).machines}[machine.id] is Power.SUSPENDED
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))


# --- snapshots, size, screens ----------------------------------------------------------------------------------------


def test_a_snapshot_taken_twice_under_one_key_is_one(world: PrismWorld) -> None:
    connector, machine, found = stand(world)
    order = TakeSnapshot(key=new_key(), machine=machine, name="before")
    first = do(world, connector, order).result
    second = do(world, world.connector(), TakeSnapshot(key=order.key, machine=machine, name="before", attempt=2)).result
    assert first == second
    assert len(found.snapshots) == 1


def test_a_revert_brings_back_the_disks_and_the_power(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    taken = do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name="before")).result
    assert isinstance(taken, SnapshotTaken)
    world.lab.write(found.disks[0], 0, b"what the user wrote")
    do(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id))
    assert world.lab.read(found.disks[0], 0, 19) != b"what the user wrote"
    assert found.power == "on"


def test_another_machines_snapshot_is_neither_reverted_to_nor_deleted(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    other = ref(world, made(world, connector, clone(world)))
    taken = do(world, connector, TakeSnapshot(key=new_key(), machine=other, name="theirs")).result
    assert isinstance(taken, SnapshotTaken)
    revert = RevertSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id)
    assert isinstance(refuse(world, connector, revert), NotFound)
    drop = DeleteSnapshot(key=new_key(), machine=machine, snapshot=taken.snapshot_id)
    assert isinstance(refuse(world, connector, drop), Conflict)
    assert taken.snapshot_id in world.machine(other.id).snapshots


def test_recovery_points_that_others_took_outlive_the_machine_and_ours_do_not(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    for number in range(12):
        world.lab.take_snapshot(machine.id, f"before-{number} [deskyard {new_key()}]")
    kept = world.lab.take_snapshot(machine.id, "nightly by policy")
    do(world, connector, DeleteMachine(key=new_key(), machine=machine))
    assert set(world.server.orphans) == {kept.id}


def test_snapshots_are_not_offered_where_prism_speaks_v4_0(world: PrismWorld) -> None:
    world.server.versions["vmm"] = (4, 0)
    connector, machine, _ = stand(world)
    platform = connector.check(soon())
    assert TakeSnapshot not in platform.takes
    assert any("v4.0" in warning for warning in platform.warnings)
    order = TakeSnapshot(key=new_key(), machine=machine, name="before")
    assert isinstance(refuse(world, connector, order), Unsupported)
    do(world, connector, DeleteMachine(key=new_key(), machine=machine))


def test_the_size_of_a_running_machine_is_not_changed(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    assert isinstance(refuse(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=8)), Unsupported)
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))
    do(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=8))
    assert found.vcpus == 8
    assert found.memory_mib == 2_048


def test_an_update_loses_nothing_that_prism_told(world: PrismWorld) -> None:
    connector, machine, found = stand(world)
    found.marks["extra"] = {"nextYearsField": {"isThere": True}}
    found.marks["categories"] = [new_key()]
    before = dict(found.marks)
    do(world, connector, Reconfigure(key=new_key(), machine=machine, memory_mib=4_096))
    assert found.marks["categories"] == before["categories"]
    assert found.marks["description"] == before["description"]
    (sent,) = asked(world, "PUT vmm/ahv/config/vms/{}")[-1:]
    assert json.loads(sent.body)["nextYearsField"] == {"isThere": True}


def test_a_screen_is_the_guests_own_at_its_address(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    opened = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
    assert opened == ScreenOpened(protocol="vnc", host=found.guest.address, port=5999)


def test_a_viewer_finds_the_guest_where_the_screen_is_said_to_be(world: PrismWorld) -> None:
    with GuestScreens([world.lab]) as screens:
        _, machine, _ = stand(world, power_on=True)
        connector = world.connector(screen_port=screens.port)
        opened = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
        assert isinstance(opened, ScreenOpened)
        with socket.create_connection((opened.host, opened.port), timeout=30) as viewer:
            assert viewer.recv(12) == b"RFB 003.008\n"


def test_a_screen_without_an_address_is_waited_for_and_then_refused_in_words(world: PrismWorld) -> None:
    connector, machine, found = stand(world, power_on=True)
    found.guest.boots_s = 10_000
    world.lab.reset(machine.id)
    error = refuse(world, connector, OpenScreen(key=new_key(), machine=machine, valid_s=1))
    assert isinstance(error, Conflict)
    assert "address" in error.message


def test_desktops_without_screens_do_not_offer_any(world: PrismWorld) -> None:
    connector = world.connector(screen_port=0)
    assert OpenScreen not in connector.check(soon()).takes


def test_shares_are_not_taken_because_ahv_has_no_weights() -> None:
    assert ShareResources not in NutanixConnector.takes


def test_a_receipt_stays_small_however_long_an_order_takes(world: PrismWorld) -> None:
    connector, machine, _ = stand(world)
    for number in range(25):
        world.lab.take_snapshot(machine.id, f"before-{number} [deskyard {new_key()}]")
    order = DeleteMachine(key=new_key(), machine=machine)
    do(world, connector, order)  # each outcome is looked at on its way
    assert not world.litter()


def test_what_was_made_says_so(world: PrismWorld) -> None:
    result = do(world, world.connector(), clone(world, power_on=True)).result
    assert isinstance(result, MachineMade)
    assert result.power is Power.ON
    assert result.host in world.lab.hosts
    assert set(result.disks) == set(world.machine(result.machine_id).disks)
