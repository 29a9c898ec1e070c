"""What HyperCore's ways demand of each order: one change at a time, early ends of tasks, lossy clones, no revert."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from pathlib import Path
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
    Outcome,
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
from connectors.errors import (
    Busy,
    CapacityExhausted,
    Conflict,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.hypercore import work as working
from lab.hypercore.devices import MIB, Device, extra_of
from lab.nouns import Power as LabPower
from lab.screens import GuestScreens
from tests.connectors.contract import OURS, clone, do, finish, made, new_key, poll, ref, refuse, soon, submit
from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world


def machine_of(world: HyperCoreWorld, connector: Any, **how: Any) -> MachineRef:
    return ref(world, made(world, connector, clone(world, **how)))


def snapshot_of(world: HyperCoreWorld, connector: Any, machine: MachineRef, name: str = "before") -> str:
    result = do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name=name)).result
    assert isinstance(result, SnapshotTaken)
    return result.snapshot_id


def first_disk(world: HyperCoreWorld, machine: str) -> str:
    with world.lab:
        return extra_of(world.lab, world.found(machine)).devices[0].disk


def is_up(world: HyperCoreWorld, machine: str, within_s: float = 30.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with world.lab:
            if world.found(machine).guest.is_up:
                return True
        time.sleep(0.05)
    return False


# --- one change at a time --------------------------------------------------------------------------------------------


def test_only_one_change_is_under_way_at_a_time(world: HyperCoreWorld) -> None:
    """The cluster answers 500 to every change that comes too early: none does."""
    connector = world.connector()
    orders = [clone(world, power_on=True) for _ in range(4)]
    outcomes = submit(connector, orders)
    assert [outcomes[order.key].step for order in orders[1:]] == ["Waiting for the one before"] * 3
    while any(outcome.stage is Stage.RUNNING for outcome in outcomes.values()):
        time.sleep(0.05)
        running = [
            Receipt(order, outcomes[order.key].receipt or {})
            for order in orders
            if outcomes[order.key].stage is Stage.RUNNING
        ]
        outcomes |= poll(connector, running)
    assert all(outcome.stage is Stage.DONE for outcome in outcomes.values())
    assert not [seen for node in world.nodes for seen in node.requests if seen.status == 500]


def test_the_queue_is_in_the_receipts_and_survives_a_crash(world: HyperCoreWorld) -> None:
    first, second = clone(world), clone(world)
    outcomes = submit(world.connector(), [first, second])
    receipts = [Receipt(order, outcomes[order.key].receipt or {}) for order in (second, first)]
    heir = world.connector()
    outcomes = poll(heir, receipts)
    assert outcomes[second.key].step == "Waiting for the one before", "the heir knows of the first one's task"
    assert all(finish(world, heir, order, outcomes[order.key]).stage is Stage.DONE for order in (first, second))
    assert len(world.machines()) == 2
    assert not [seen for node in world.nodes for seen in node.requests if seen.status == 500]


def test_two_processes_do_not_break_each_other(world: HyperCoreWorld) -> None:
    """Neither knows of the other's tasks; a 500 that comes of it is waited out."""
    one, other = world.connector(), world.connector()
    mine, theirs = [clone(world) for _ in range(3)], [clone(world) for _ in range(3)]
    going = {**submit(one, mine), **submit(other, theirs)}
    until = time.monotonic() + 40
    while any(outcome.stage is Stage.RUNNING for outcome in going.values()):
        assert time.monotonic() < until
        for connector, orders in ((one, mine), (other, theirs)):
            left = [o for o in orders if going[o.key].stage is Stage.RUNNING]
            going |= poll(connector, [Receipt(o, going[o.key].receipt or {}) for o in left])
        time.sleep(0.05)
    assert {outcome.stage for outcome in going.values()} == {Stage.DONE}
    assert len(world.machines()) == 6


def test_a_cluster_that_stays_busy_is_told_as_busy(world: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "WAIT_S", 0.01)
    connector = world.connector()
    machine = machine_of(world, connector)
    with world.lab:  # somebody else's task, on another machine, that does not end
        other = world.lab.create("theirs", disks_mib=(10,))
        world.faults.add("task_hangs", "Export")
        world.cluster.begin("Export", "Export VM %@", [other.name], lambda: None, on=other)
    error = refuse(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    assert isinstance(error, Busy)
    assert error.platform_words == "An internal error occurred"


def test_a_lasting_500_without_any_task_is_the_platforms_fault(
    world: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "WAIT_S", 0.01)
    connector = world.connector()
    machine = machine_of(world, connector)
    body = '{"error": "An internal error occurred"}'
    world.faults.add("status", "POST /rest/v1/VirDomain/action", status=500, count=-1, body=body)
    error = refuse(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    assert isinstance(error, PlatformFault)


def test_a_sporadic_500_is_waited_out(world: HyperCoreWorld) -> None:
    world.faults.add("status", "POST .*/clone", status=500, count=2, body='{"error": "An internal error occurred"}')
    machine = made(world, world.connector(), clone(world))
    assert list(world.machines()) == [machine.machine_id]


def test_a_task_that_the_cluster_has_forgotten_is_over(world: HyperCoreWorld) -> None:
    connector, order = world.connector(), clone(world)
    outcome = submit(connector, [order])[order.key]
    time.sleep(0.3)
    with world.lab:
        world.cluster.tags.clear()
    assert finish(world, connector, order, outcome).stage is Stage.DONE
    assert len(world.machines()) == 1


# --- clones ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loses_boot", [True, False])
def test_a_clone_boots(world: HyperCoreWorld, loses_boot: bool) -> None:
    world.cluster.loses_boot = loses_boot
    machine = made(world, world.connector(), clone(world, power_on=True))
    assert machine.power is Power.ON
    assert is_up(world, machine.machine_id)


def test_a_clone_boots_from_what_its_template_boots_from(world: HyperCoreWorld) -> None:
    with world.lab:
        extra = extra_of(world.lab, world.golden)
        disk = world.lab.new_disk(next(iter(world.lab.storages)), 100).id
        extra.devices.insert(0, Device(world.lab.new_id(), "VIRTIO_DISK", 100 * MIB, slot=1, disk=disk))
        assert extra.boot == [extra.devices[1].uuid]
    machine = made(world, world.connector(), clone(world))
    with world.lab:
        copy = extra_of(world.lab, world.found(machine.machine_id))
        booting = next(device for device in copy.devices if device.uuid == copy.boot[0])
    assert booting.slot == 0
    assert len(copy.boot) == 1


def test_a_clones_size_host_and_networks_are_as_ordered(world: HyperCoreWorld) -> None:
    host = list(world.lab.hosts)[1]
    order = CloneMachine(
        key=new_key(), name="desk-1", template=world.template, vcpus=3, memory_mib=3072, host=host,
        networks=("vlan-20", "vlan-30"),
    )  # fmt: skip
    machine = made(world, world.connector(), order)
    found = world.found(machine.machine_id)
    assert (found.vcpus, found.memory_mib, found.host) == (3, 3072, host)
    assert [world.lab.networks[nic.network].vlan for nic in found.nics] == [20, 30]
    assert machine.host == host


def test_surplus_nics_of_the_template_go(world: HyperCoreWorld) -> None:
    with world.lab:
        world.golden.nics.append(world.lab.new_nic(world.golden.nics[0].network))
    order = CloneMachine(key=new_key(), name="d", template=world.template, networks=("vlan-20",), power_on=False)
    machine = made(world, world.connector(), order)
    assert [world.lab.networks[nic.network].vlan for nic in world.found(machine.machine_id).nics] == [20]


def test_a_clone_has_macs_of_its_own_and_keeps_the_templates_tags(world: HyperCoreWorld) -> None:
    with world.lab:
        extra_of(world.lab, world.golden).tags = "office,deskyard-template"
    machine = made(world, world.connector(), clone(world))
    found = world.found(machine.machine_id)
    assert found.nics[0].mac != world.golden.nics[0].mac
    tags = extra_of(world.lab, found).tags.split(",")
    assert tags[0] == "office", "the first tag is the group in HyperCore's own page"
    assert "deskyard-template" not in tags


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"networks": ("lan-party",)}, NotFound, "VLAN"),
        ({"host": "no-node"}, NotFound, "no-node"),
        ({"storage": "elsewhere"}, NotFound, "one storage"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    world: HyperCoreWorld, change: dict[str, Any], kind: type[Exception], word: str
) -> None:
    error = refuse(world, world.connector(), dataclasses.replace(clone(world), **change))
    assert isinstance(error, kind)
    assert word in error.message
    assert not world.asked("POST", "/clone")


def test_the_guest_gets_its_name_and_its_user_data(world: HyperCoreWorld) -> None:
    seed = GuestSeed('it\'s "quoted": yes', user_data="#cloud-config\npackages: [x]\n")
    order = dataclasses.replace(clone(world), seed=seed)
    machine = made(world, world.connector(), order)
    told = world.found(machine.machine_id).guest.seed
    assert told["hostname"] == seed.hostname
    assert told["user_data"] == seed.user_data
    assert told["instance"] == order.key
    (body,) = world.bodies("POST", "/clone")
    assert base64.b64decode(body["template"]["cloudInitData"]["userData"]).decode() == seed.user_data


ANSWERS = GuestSeed("desk-1", answer_file='<?xml version="1.0"?><unattend><Password>Tuesday</Password></unattend>')


def told(world: HyperCoreWorld, machine: str) -> str:
    """The answer file that the guest found when it was switched on."""
    with world.lab:
        return world.found(machine).guest.seed.get("answer_file", "")


def test_a_windows_guest_finds_its_answer_file_on_a_disc(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, dataclasses.replace(clone(world, power_on=True), seed=ANSWERS)))
    assert told(world, machine.id) == ANSWERS.answer_file
    assert world.litter() >= set(world.cluster.isos)
    fresh = GuestSeed("desk-1", answer_file="<unattend>new</unattend>")
    made(world, connector, recycle(world, machine, seed=fresh))
    assert told(world, machine.id) == fresh.answer_file
    assert len(world.cluster.isos) == 1, "the last answer file has gone"
    made(world, connector, recycle(world, machine))
    assert told(world, machine.id) == ""
    assert not world.cluster.isos
    do(world, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not world.litter()


@pytest.mark.parametrize("is_named", [True, False])
def test_an_answer_file_goes_with_its_machine(world: HyperCoreWorld, is_named: bool) -> None:
    connector = world.connector()
    order = dataclasses.replace(clone(world), seed=ANSWERS)
    machine = made(world, connector, order)
    assert world.cluster.isos
    meant = MachineRef(machine.machine_id if is_named else "", Stamp(OURS, order.key))
    do(world, connector, DeleteMachine(key=new_key(), machine=meant))
    assert not world.litter()


@pytest.mark.parametrize("kind", ["AddIso", "UploadIso", "UpdateIso", "AddDisk", "Action START"])
def test_a_failed_clone_leaves_no_answer_file(world: HyperCoreWorld, kind: str) -> None:
    order = dataclasses.replace(clone(world, power_on=True), seed=ANSWERS)
    world.faults.add("task_fails", kind)
    error = refuse(world, world.connector(), order)
    assert "Tuesday" not in repr(error) + error.platform_words
    assert not world.machines()
    assert not world.litter()


@pytest.mark.parametrize("deaths", range(1, 8))
def test_an_answer_file_is_written_once_whatever_answer_is_lost(world: HyperCoreWorld, deaths: int) -> None:
    order = dataclasses.replace(clone(world, power_on=True), seed=ANSWERS)
    world.faults.add("drop_after", "(POST|PUT|PATCH|DELETE) /rest/v1/(Vir|ISO)", skip=deaths - 1)
    outcome, attempt, heir = None, 1, world.connector()
    until = time.monotonic() + 30
    while outcome is None or outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until
        try:
            if outcome is None:
                outcome = submit(heir, [dataclasses.replace(order, attempt=attempt)])[order.key]
            else:
                assert "Tuesday" not in json.dumps(dict(outcome.receipt or {}))
                outcome = poll(heir, [Receipt(order, outcome.receipt or {})])[order.key]
        except Unreachable:
            outcome, attempt, heir = None, attempt + 1, world.connector()
        time.sleep(0.05)
    assert isinstance(outcome.result, MachineMade), outcome.error
    assert told(world, outcome.result.machine_id) == ANSWERS.answer_file
    assert len(world.cluster.isos) == 1
    discs = [
        device
        for device in extra_of(world.lab, world.found(outcome.result.machine_id)).devices
        if device.type == "IDE_CDROM"
    ]
    assert len(discs) == 1


def test_an_empty_drive_of_the_template_is_used(world: HyperCoreWorld) -> None:
    with world.lab:
        extra_of(world.lab, world.golden).devices.append(Device(world.lab.new_id(), "IDE_CDROM", 0))
    machine = made(world, world.connector(), dataclasses.replace(clone(world, power_on=True), seed=ANSWERS))
    assert told(world, machine.machine_id) == ANSWERS.answer_file
    assert len(extra_of(world.lab, world.found(machine.machine_id)).devices) == 2


def test_a_lost_answer_to_the_clone_call_makes_no_second_machine(world: HyperCoreWorld) -> None:
    order = clone(world)
    world.faults.add("drop_after", "POST .*/clone")
    with pytest.raises(Unreachable):
        submit(world.connector(), [order])
    machine = made(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert list(world.machines()) == [machine.machine_id]
    assert len(world.asked("POST", "/clone")) == 1


def test_two_machines_of_one_order_become_one(world: HyperCoreWorld) -> None:
    """Where the template does not show that it is being cloned, two attempts at once may both clone."""
    world.cluster.marks_source = False
    world.cluster.is_strict = False
    order = clone(world)
    one, other = world.connector(), world.connector()
    first = submit(one, [order])[order.key]
    world.cluster._early = 1  # this call too early is not answered 500
    second = submit(other, [dataclasses.replace(order, attempt=2)])[order.key]
    assert len(world.asked("POST", "/clone")) == 2
    time.sleep(0.3)
    found = {finish(world, other, order, second).result, finish(world, one, order, first).result}
    (result,) = {made.machine_id for made in found if isinstance(made, MachineMade)}
    assert list(world.machines()) == [result]


def test_of_two_machines_of_one_order_that_are_both_on_none_is_touched(world: HyperCoreWorld) -> None:
    connector, order = world.connector(), clone(world, power_on=True)
    machine = made(world, connector, order)
    with world.lab:
        twin = world.lab.create("twin", disks_mib=(10,))
        extra_of(world.lab, twin).tags = extra_of(world.lab, world.found(machine.machine_id)).tags
        world.lab.power_on(twin.id)
    error = refuse(world, connector, dataclasses.replace(order, attempt=2))
    assert isinstance(error, Conflict)
    assert set(world.machines()) == {machine.machine_id, twin.id}
    assert world.found(twin.id).power is LabPower.ON


@pytest.mark.parametrize("shows_early", [True, False])
def test_a_clone_that_is_still_being_made_is_waited_for(world: HyperCoreWorld, shows_early: bool) -> None:
    world.cluster.shows_early = shows_early
    world.clock.speed = 0.5
    order = clone(world)
    submit(world.connector(), [order])
    again = submit(world.connector(), [dataclasses.replace(order, attempt=2)])[order.key]
    assert again.stage is Stage.RUNNING
    world.clock.speed = 20
    assert finish(world, world.connector(), order, again).stage is Stage.DONE
    assert len(world.machines()) == 1
    assert len(world.asked("POST", "/clone")) == 1


def test_a_full_ssd_tier_is_told_in_words(world: HyperCoreWorld) -> None:
    """The call itself is answered "Bad Request" and nothing else."""
    world.cluster.tier_percent = 93
    error = refuse(world, world.connector(), clone(world))
    assert isinstance(error, CapacityExhausted)
    assert "SSD storage tier is 93% full" in error.message
    assert not world.machines()


def test_a_full_storage_fails_the_clone_and_leaves_nothing(world: HyperCoreWorld) -> None:
    with world.lab:
        world.lab.fill(next(iter(world.lab.storages)))
    error = refuse(world, world.connector(), clone(world))
    assert isinstance(error, CapacityExhausted)
    assert "'golden'" not in error.platform_words
    assert "golden" in error.platform_words, "placeholders are filled in"
    assert not world.machines()
    assert not world.litter()


def test_a_clone_that_no_node_can_start_is_removed_again(world: HyperCoreWorld) -> None:
    order = dataclasses.replace(clone(world, power_on=True), memory_mib=70_000)
    error = refuse(world, world.connector(), order)
    assert isinstance(error, CapacityExhausted)
    assert "memory" in error.platform_words
    assert not world.machines()
    assert not world.litter()


def test_a_failed_clone_is_removed_by_whoever_goes_on_with_it(world: HyperCoreWorld) -> None:
    order = dataclasses.replace(clone(world, power_on=True), memory_mib=70_000)
    outcome = submit(world.connector(), [order])[order.key]
    until = time.monotonic() + 20
    while outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until
        time.sleep(0.1)
        receipt = Receipt(order, json.loads(json.dumps(dict(outcome.receipt or {}))))
        outcome = poll(world.connector(), [receipt])[order.key]
    assert isinstance(outcome.error, CapacityExhausted)
    assert not world.machines()


@pytest.mark.parametrize("kind", ["Clone", "Update", "Action START", "AddNic"])
def test_a_task_that_breaks_off_leaves_nothing(world: HyperCoreWorld, kind: str) -> None:
    world.faults.add("task_fails", kind)
    order = dataclasses.replace(clone(world, power_on=True), networks=("vlan-0", "vlan-20"))
    error = refuse(world, world.connector(), order)
    assert isinstance(error, PlatformFault)
    assert "Internal failure while working on" in error.platform_words
    assert not world.machines()
    assert not world.litter()
    machine = made(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert list(world.machines()) == [machine.machine_id]


# --- deleting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [True, False])
def test_a_deleted_machines_snapshots_go_with_it(world: HyperCoreWorld, keeps: bool) -> None:
    world.cluster.keeps_snapshots = keeps
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    snapshot_of(world, connector, machine)
    do(world, connector, DeleteMachine(key=new_key(), machine=machine))
    assert not world.machines()
    assert not world.litter()


def test_a_delete_without_an_id_waits_for_a_clone_under_way(world: HyperCoreWorld) -> None:
    order = clone(world)
    submit(world.connector(), [order])
    rest = DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, order.key)))
    outcome = submit(world.connector(), [rest])[rest.key]
    assert outcome.stage is Stage.RUNNING, "the clone does not show yet"
    assert finish(world, world.connector(), rest, outcome).stage is Stage.DONE
    assert not world.machines()
    assert not world.litter()


def test_a_template_is_never_deleted_nor_switched_on(world: HyperCoreWorld) -> None:
    connector = world.connector()
    golden = MachineRef(world.template, None)
    for order in (
        DeleteMachine(key=new_key(), machine=golden),
        SetPower(key=new_key(), machine=golden, action=PowerAction.ON),
    ):
        assert isinstance(refuse(world, connector, order), Conflict)
    assert world.template in world.lab.machines


# --- power -----------------------------------------------------------------------------------------------------------


def power(world: HyperCoreWorld, connector: Any, machine: MachineRef, action: PowerAction, **how: Any) -> Outcome:
    return finish(world, connector, SetPower(key=new_key(), machine=machine, action=action, **how))


def test_a_state_that_comes_after_its_task_is_waited_for(world: HyperCoreWorld) -> None:
    world.cluster.lag_s = 20.0
    connector = world.connector()
    machine = machine_of(world, connector)
    assert power(world, connector, machine, PowerAction.ON).result == PowerSet(Power.ON)
    assert world.found(machine.id).power is LabPower.ON
    assert len(world.asked("POST", "/VirDomain/action")) == 1, "an action is sent once"


def test_a_state_that_never_comes_is_told(world: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "SETTLE_S", 0.5)
    world.cluster.lag_s = 1e9
    connector = world.connector()
    machine = machine_of(world, connector)
    error = power(world, connector, machine, PowerAction.ON).error
    assert isinstance(error, PlatformFault)
    assert "SHUTOFF" in error.message


def test_a_guest_that_ignores_the_shutdown_is_cut_off_after_its_grace(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    assert is_up(world, machine.id)
    world.found(machine.id).guest.ignores_shutdown = True
    began = time.monotonic()
    outcome = power(world, connector, machine, PowerAction.SHUTDOWN, grace_s=1)
    assert outcome.result == PowerSet(Power.OFF)
    assert time.monotonic() - began >= 1
    assert [body[0]["actionType"] for body in world.bodies("VirDomain/action")][-2:] == ["SHUTDOWN", "STOP"]


def test_a_guest_that_hears_is_not_cut_off(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    assert is_up(world, machine.id)
    assert power(world, connector, machine, PowerAction.SHUTDOWN, grace_s=60).result == PowerSet(Power.OFF)
    assert "STOP" not in [body[0]["actionType"] for body in world.bodies("VirDomain/action")]


@pytest.mark.parametrize("action", [PowerAction.RESET, PowerAction.REBOOT])
def test_a_restart_of_a_stopped_machine_is_refused_before_it_is_asked(
    world: HyperCoreWorld, action: PowerAction
) -> None:
    """HyperCore would answer "An internal error occurred"."""
    connector = world.connector()
    machine = machine_of(world, connector)
    assert isinstance(power(world, connector, machine, action).error, Conflict)
    assert not world.asked("VirDomain/action")


@pytest.mark.parametrize("action", [PowerAction.RESET, PowerAction.REBOOT])
def test_a_restart_happens_once_and_is_noted(world: HyperCoreWorld, action: PowerAction) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    assert is_up(world, machine.id)
    order = SetPower(key=new_key(), machine=machine, action=action)
    assert do(world, connector, order).result == PowerSet(Power.ON)
    assert world.found(machine.id).guest.boots == 2
    assert isinstance(refuse(world, connector, dataclasses.replace(order, attempt=2)), PlatformFault)
    assert world.found(machine.id).guest.boots == 2


def test_a_restart_whose_answer_was_lost_is_not_repeated(world: HyperCoreWorld) -> None:
    """Whoever had the receipt died after asking for the restart: the same receipt comes again."""
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    assert is_up(world, machine.id)
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.RESET)
    outcome = submit(connector, [order])[order.key]
    noted = Receipt(order, outcome.receipt or {})
    until = time.monotonic() + 10
    while not [body for body in world.bodies("VirDomain/action") if body[0]["actionType"] == "RESET"]:
        assert time.monotonic() < until
        poll(connector, [noted])
        time.sleep(0.1)
    time.sleep(0.3)
    error = finish(world, world.connector(), order, poll(world.connector(), [noted])[order.key]).error
    assert isinstance(error, PlatformFault)
    assert "not known" in error.message
    assert world.found(machine.id).guest.boots == 2


def test_a_crashed_machine_is_cut_off_before_it_is_switched_on(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    world.found(machine.id).marks["hypercore_state"] = "CRASHED"
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.ON)
    outcome = submit(connector, [order])[order.key]
    assert world.bodies("VirDomain/action")[-1][0]["actionType"] == "STOP"
    time.sleep(0.2)
    del world.found(machine.id).marks["hypercore_state"]
    assert finish(world, connector, order, outcome).result == PowerSet(Power.ON)


# --- size, shares ----------------------------------------------------------------------------------------------------


def test_the_size_is_changed_while_the_machine_is_off_only(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector)
    do(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=4, memory_mib=4096))
    assert (world.found(machine.id).vcpus, world.found(machine.id).memory_mib) == (4, 4096)
    power(world, connector, machine, PowerAction.ON)
    error = refuse(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=2))
    assert isinstance(error, Unsupported)
    do(world, connector, Reconfigure(key=new_key(), machine=machine, vcpus=4))


def test_shares_are_nothing_that_hypercore_knows(world: HyperCoreWorld) -> None:
    assert ShareResources not in world.connector().takes


# --- snapshots, reverting, recycling ---------------------------------------------------------------------------------


def test_a_snapshot_is_taken_once_and_not_replicated(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector)
    order = TakeSnapshot(key=new_key(), machine=machine, name="before")
    first = do(world, connector, order).result
    assert do(world, world.connector(), dataclasses.replace(order, attempt=2)).result == first
    (point,) = world.cluster.points.values()
    assert not point.replication
    assert isinstance(refuse(world, connector, TakeSnapshot(key=new_key(), machine=machine, name="before")), Conflict)
    do(world, connector, DeleteSnapshot(key=new_key(), machine=machine, snapshot=point.uuid))
    do(world, connector, DeleteSnapshot(key=new_key(), machine=machine, snapshot=point.uuid))
    assert not world.cluster.points


def test_a_lost_answer_to_a_snapshot_takes_no_second_one(world: HyperCoreWorld) -> None:
    connector = world.connector()
    order = TakeSnapshot(key=new_key(), machine=machine_of(world, connector), name="before")
    world.faults.add("drop_after", "POST .*VirDomainSnapshot")
    with pytest.raises(Unreachable):
        submit(connector, [order])
    do(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert len(world.cluster.points) == 1


def test_a_revert_brings_back_what_was_written_and_the_machine_boots(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    with world.lab:
        world.lab.write(first_disk(world, machine.id), 0, b"then\0")
    snapshot = snapshot_of(world, connector, machine)
    with world.lab:
        world.lab.write(first_disk(world, machine.id), 0, b"since")
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=snapshot)
    do(world, connector, order)
    assert world.lab.read(first_disk(world, machine.id), 0, 5) == b"then\0"
    assert len(extra_of(world.lab, world.found(machine.id)).devices) == 1
    assert is_up(world, machine.id), "it was on, so it is on again"
    bodies = world.bodies("POST", "VirDomainBlockDevice", "/clone")
    assert all(body["options"]["regenerateDiskID"] is False for body in bodies)
    assert world.machines()[machine.id] == machine.stamp
    assert "deskyard-o-" not in extra_of(world.lab, world.found(machine.id)).tags


def test_a_second_attempt_of_a_revert_does_not_throw_away_what_came_since(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector)
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=snapshot_of(world, connector, machine))
    do(world, connector, order)
    with world.lab:
        world.lab.write(first_disk(world, machine.id), 0, b"newer")
    do(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert world.lab.read(first_disk(world, machine.id), 0, 5) == b"newer"


def test_one_can_revert_to_the_same_snapshot_again(world: HyperCoreWorld) -> None:
    """Its disks were copied from live ones that are gone by now."""
    connector = world.connector()
    machine = machine_of(world, connector)
    snapshot = snapshot_of(world, connector, machine)
    for _ in range(2):
        do(world, connector, RevertSnapshot(key=new_key(), machine=machine, snapshot=snapshot))
    assert len(extra_of(world.lab, world.found(machine.id)).devices) == 1


def test_a_snapshot_of_another_machine_is_a_conflict(world: HyperCoreWorld) -> None:
    connector = world.connector()
    one, other = machine_of(world, connector), machine_of(world, connector)
    snapshot = snapshot_of(world, connector, other)
    for order in (
        RevertSnapshot(key=new_key(), machine=one, snapshot=snapshot),
        DeleteSnapshot(key=new_key(), machine=one, snapshot=snapshot),
    ):
        assert isinstance(refuse(world, connector, order), Conflict)
    missing = RevertSnapshot(key=new_key(), machine=one, snapshot=new_key())
    assert isinstance(refuse(world, connector, missing), NotFound)


def recycle(world: HyperCoreWorld, machine: MachineRef, **how: Any) -> RecycleMachine:
    name = world.names()[machine.id]
    return RecycleMachine(key=new_key(), machine=machine, name=name, template=world.template, **how)


def test_recycling_leaves_nothing_of_the_last_user(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    with world.lab:
        world.lab.write(first_disk(world, machine.id), 4096, b"my diary")
    snapshot_of(world, connector, machine)
    result = made(world, connector, recycle(world, machine, seed=GuestSeed("fresh")))
    assert result.machine_id == machine.id
    assert result.stamp == machine.stamp
    assert result.power is Power.ON
    assert not world.cluster.points, "neither the machine's snapshots nor the one of the template"
    assert not [disk for disk in world.lab.disks if world.lab.read(disk, 4096, 8) == b"my diary"]
    assert is_up(world, machine.id)
    assert world.found(machine.id).guest.hostname == "fresh"


def test_uefi_variables_and_tpm_are_exchanged_too(world: HyperCoreWorld) -> None:
    with world.lab:
        extra = extra_of(world.lab, world.golden)
        for kind in ("NVRAM", "VTPM"):
            disk = world.lab.new_disk(next(iter(world.lab.storages)), 1).id
            extra.devices.append(Device(world.lab.new_id(), kind, MIB, disk=disk))
    connector = world.connector()
    first = made(world, connector, clone(world))
    assert len(first.disks) == 3
    second = made(world, connector, recycle(world, ref(world, first)))
    assert len(second.disks) == 3
    assert not set(first.disks) & set(second.disks)


@pytest.mark.parametrize("kind", ["Update", "Snapshot", "CloneDisk"])
def test_a_recycling_that_breaks_off_leaves_the_machine_as_it_was(world: HyperCoreWorld, kind: str) -> None:
    connector = world.connector()
    first = made(world, connector, clone(world))
    order = recycle(world, ref(world, first))
    world.faults.add("task_fails", kind)
    assert isinstance(refuse(world, connector, order), PlatformFault)
    extra = extra_of(world.lab, world.found(first.machine_id))
    assert tuple(device.uuid for device in extra.devices) == first.disks
    assert "deskyard-x-" not in extra.tags
    assert not world.cluster.points
    second = made(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert not set(first.disks) & set(second.disks)


@pytest.mark.parametrize("deaths", range(1, 9))
def test_a_recycling_goes_on_after_a_death_at_any_step(world: HyperCoreWorld, deaths: int) -> None:
    """Every change's answer is lost once, and every attempt comes without a receipt."""
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    first = extra_of(world.lab, world.found(machine.id)).devices[0].uuid
    order = recycle(world, machine)
    world.faults.add("drop_after", "(POST|PATCH|DELETE) /rest/v1/Vir", skip=deaths - 1)
    outcome, attempt, heir = None, 1, world.connector()
    until = time.monotonic() + 30
    while outcome is None or outcome.stage is Stage.RUNNING:
        assert time.monotonic() < until
        try:
            if outcome is None:
                outcome = submit(heir, [dataclasses.replace(order, attempt=attempt)])[order.key]
            else:
                outcome = poll(heir, [Receipt(order, outcome.receipt or {})])[order.key]
        except Unreachable:
            outcome, attempt, heir = None, attempt + 1, world.connector()
        time.sleep(0.05)
    assert outcome.stage is Stage.DONE, outcome.error
    devices = extra_of(world.lab, world.found(machine.id)).devices
    assert len(devices) == 1
    assert devices[0].uuid != first
    assert not world.cluster.points
    assert is_up(world, machine.id)


def test_an_exchange_that_another_order_left_half_done_is_taken_over(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector)
    order = recycle(world, machine)
    outcome = submit(connector, [order])[order.key]
    until = time.monotonic() + 10
    while len(extra_of(world.lab, world.found(machine.id)).devices) < 2:
        assert time.monotonic() < until
        outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
        time.sleep(0.05)
    time.sleep(0.2)
    result = made(world, world.connector(), recycle(world, machine, power_on=False))
    devices = extra_of(world.lab, world.found(machine.id)).devices
    assert tuple(device.uuid for device in devices) == result.disks
    assert len(devices) == 1


def test_a_disk_that_was_copied_twice_goes_again(world: HyperCoreWorld) -> None:
    """Two processes at once may both copy it."""
    connector = world.connector()
    machine = machine_of(world, connector)
    extra = extra_of(world.lab, world.found(machine.id))
    order = recycle(world, machine, power_on=False)
    outcome = submit(connector, [order])[order.key]
    until = time.monotonic() + 10
    while "deskyard-x-" not in extra.tags:
        assert time.monotonic() < until
        outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
        time.sleep(0.05)
    with world.lab:
        disk = world.lab.new_disk(next(iter(world.lab.storages)), 20_480).id
        extra.devices.append(Device(world.lab.new_id(), "VIRTIO_DISK", extra.devices[0].capacity, slot=7, disk=disk))
        twice = Device(world.lab.new_id(), "VIRTIO_DISK", extra.devices[0].capacity, slot=8)
        extra.devices.append(twice)
    result = finish(world, connector, order, outcome).result
    assert isinstance(result, MachineMade)
    assert len(extra.devices) == 1
    assert twice.uuid not in result.disks


def test_a_replica_is_left_alone(world: HyperCoreWorld) -> None:
    connector = world.connector()
    machine = machine_of(world, connector)
    extra_of(world.lab, world.found(machine.id)).replica_of = new_key()
    error = refuse(world, connector, recycle(world, machine))
    assert isinstance(error, Unsupported)
    assert "replica" in error.message


# --- screens ---------------------------------------------------------------------------------------------------------


def test_a_screen_is_the_guests_own_and_can_be_seen(tmp_path: Path) -> None:
    with cluster_world(tmp_path) as world, GuestScreens([world.lab]) as screens:
        connector = world.connector(screen_port=screens.port)
        machine = machine_of(world, connector, power_on=True, name="desk-77")
        opened = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
        assert isinstance(opened, ScreenOpened)
        assert opened.port == screens.port
        assert greeting(opened.host, opened.port) == "desk-77"


def greeting(host: str, port: int) -> str:
    """The name that a VNC server without a password gives itself (RFC 6143, 7.1 to 7.3)."""
    import socket
    import struct

    with socket.create_connection((host, port), timeout=30) as peer, peer.makefile("rwb", buffering=0) as stream:
        assert stream.read(12) == b"RFB 003.008\n"
        stream.write(b"RFB 003.008\n")
        count = stream.read(1)
        assert count
        assert b"\x01" in (stream.read(count[0]) or b"")
        stream.write(b"\x01")
        assert stream.read(4) == bytes(4)
        stream.write(b"\x01")
        head = stream.read(24) or b""
        (length,) = struct.unpack(">I", head[20:24])
        return (stream.read(length) or b"").decode()


def test_a_guest_without_an_address_has_no_screen(world: HyperCoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.hypercore.screens.PATIENCE_S", 0.5)
    connector = world.connector()
    machine = machine_of(world, connector, power_on=True)
    world.found(machine.id).guest.has_agent = False
    error = refuse(world, connector, OpenScreen(key=new_key(), machine=machine))
    assert isinstance(error, Conflict)
    assert "guest tools" in error.message
    power(world, connector, machine, PowerAction.OFF)
    assert "off" in refuse(world, connector, OpenScreen(key=new_key(), machine=machine)).message


def test_the_guests_vnc_password_is_handed_on_unseen(world: HyperCoreWorld) -> None:
    connector = world.connector(screen_password="sesame")
    machine = machine_of(world, connector, power_on=True)
    opened = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
    assert isinstance(opened, ScreenOpened)
    assert opened.password == "sesame"
    assert "sesame" not in repr(opened)


def test_nothing_is_done_in_haste_after_the_deadline(world: HyperCoreWorld) -> None:
    connector, order = world.connector(), clone(world)
    outcome = submit(connector, [order])[order.key]
    receipt = Receipt(order, outcome.receipt or {})
    (late,) = list(connector.poll([receipt], time.monotonic() - 1))
    assert late.stage is Stage.RUNNING
    assert late.receipt == outcome.receipt
    assert finish(world, connector, order, late).stage is Stage.DONE
    assert soon() > time.monotonic()
