"""What each order does on a Hyper-V host, and what it leaves alone."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import socket
from collections.abc import Iterator

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
    ResourceShare,
    RevertSnapshot,
    ScreenOpened,
    SetPower,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    TakeSnapshot,
)
from connectors.errors import Busy, CapacityExhausted, Conflict, NotFound, PlatformFault, Unsupported
from connectors.hyperv.connector import HypervConnector
from lab import nouns
from lab.screens import GuestScreens
from tests.connectors.contract import OURS, clone, do, finish, listing, made, new_key, poll, ref, refuse, submit
from tests.connectors.hyperv.worlds import HypervWorld

GIB = 1024


def one(world: HypervWorld, connector: HypervConnector, **changed: object) -> MachineMade:
    return made(world, connector, dataclasses.replace(clone(world), **changed))  # type: ignore[arg-type]


def until_it_answers(world: HypervWorld, machine: str) -> None:
    with world.world:
        world.world.clock.advance(10)
    with world.world:
        assert world.world.machine(machine).guest.is_up


def set_power(world: HypervWorld, connector: HypervConnector, machine: MachineRef, action: PowerAction) -> Power:
    result = do(world, connector, SetPower(key=new_key(), machine=machine, action=action)).result
    assert isinstance(result, PowerSet)
    return result.power


# --- making ----------------------------------------------------------------------------------------------------------


def test_a_linked_clone_hangs_from_its_template_and_lies_in_a_folder_of_its_own(world: HypervWorld) -> None:
    order = clone(world)
    machine = made(world, world.connector(), order)
    seen = world.machine(machine.machine_id)
    assert machine.disks == (f"D:\\Deskyard\\{order.key}\\disk0.vhdx",)
    (template_disk,) = world.machine(world.template).disks
    assert [world.world.disks[disk].parent for disk in seen.disks] == [template_disk]


def test_a_full_clone_hangs_from_nothing_and_tells_how_far_it_is(world: HypervWorld) -> None:
    world.world.clock.speed = 0
    connector, order = world.connector(), clone(world, linked=False)
    outcome = submit(connector, [order])[order.key]
    assert (outcome.stage, outcome.step, outcome.percent) == (Stage.RUNNING, "Copying the disks", 0)
    assert not world.machines(), "the machine is made when its disks stand"
    world.world.clock.advance(10)
    outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
    assert outcome.percent == 50
    world.world.clock.advance(11)
    outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
    assert isinstance(outcome.result, MachineMade)
    seen = world.machine(outcome.result.machine_id)
    assert [world.world.disks[disk].parent for disk in seen.disks] == [None]
    assert not world.estate.copies, "the task is gone"


def test_a_copy_that_fails_leaves_nothing(world: HypervWorld) -> None:
    world.faults.add("task_fails", "Convert-VHD")
    connector, order = world.connector(), clone(world, linked=False)
    assert isinstance(refuse(world, connector, order), PlatformFault)
    assert not world.machines()
    assert not world.litter()


def test_a_copy_under_way_is_ended_when_its_order_is_forgotten(world: HypervWorld) -> None:
    world.world.clock.speed = 0
    connector, order = world.connector(), clone(world, linked=False)
    submit(connector, [order])
    assert world.litter() == {f"task:{order.key}"}
    do(world, connector, DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, order.key))))
    world.world.clock.advance(60)
    assert not world.litter()
    assert not world.machines()


def test_size_networks_storage_and_generation_are_as_ordered(world: HypervWorld) -> None:
    with world.world:
        world.world.add_storage("Fast", id="E:\\")
        world.world.machine(world.template).marks["generation"] = 1
    machine = one(world, world.connector(), vcpus=4, memory_mib=8 * GIB, networks=("Lab", "Office"), storage="E:\\")
    seen = world.machine(machine.machine_id)
    assert (seen.vcpus, seen.memory_mib, seen.marks["generation"]) == (4, 8 * GIB, 1)
    assert [nic.network for nic in seen.nics] == ["Lab", "Office"]
    assert machine.disks[0].startswith("E:\\Deskyard\\")


def test_the_settings_folder_and_vlans_count(world: HypervWorld) -> None:
    connector = world.connector(folder="D:\\Desktops\\", vlans="Office: 20", switch="Office#20")
    machine = one(world, connector)
    assert machine.disks[0].startswith("D:\\Desktops\\")
    assert world.machine(machine.machine_id).marks["vlans"] == [20]
    do(world, connector, DeleteMachine(key=new_key(), machine=ref(world, machine)))
    assert not world.litter()


def test_a_seed_is_an_image_in_the_machines_own_folder(world: HypervWorld) -> None:
    seed = GuestSeed("desk-7", "#cloud-config\n{}\n", "<unattend>pa55</unattend>")
    machine = one(world, world.connector(), seed=seed)
    image = gzip.decompress(base64.b64decode(world.machine(machine.machine_id).marks["seed"]))
    assert b"desk-7" in image
    assert b"<unattend>pa55</unattend>" in image
    assert any(path.endswith("\\seed.iso") for path in world.litter())
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=ref(world, machine)))
    assert not world.litter()


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"networks": ("Nowhere",)}, NotFound),
        ({"storage": "Z:\\"}, NotFound),
        ({"memory_mib": 10**9}, CapacityExhausted),
    ],
)
def test_an_order_that_cannot_be_met_leaves_nothing(
    changed: dict[str, object], kind: type[Exception], world: HypervWorld
) -> None:
    order = dataclasses.replace(clone(world, power_on=True), **changed)  # type: ignore[arg-type]
    assert isinstance(refuse(world, world.connector(), order), kind)
    assert not world.machines()
    assert not world.litter()


@pytest.mark.parametrize("linked", [True, False])
def test_a_full_volume_is_told_by_its_code_whatever_windows_says(world: HypervWorld, linked: bool) -> None:
    with world.world:
        world.world.fill("D:\\", leaving_mib=10)
    error = refuse(world, world.connector(), clone(world, linked=linked))
    assert isinstance(error, CapacityExhausted)
    assert not world.machines()
    assert not world.litter()


def test_a_template_that_is_on_is_not_cloned(world: HypervWorld) -> None:
    with world.world:
        world.world.machine(world.template).power = nouns.Power.ON
    assert isinstance(refuse(world, world.connector(), clone(world)), Conflict)


@pytest.mark.parametrize("mark", ["checkpoints", "tpm", "no disk", "desktop"])
def test_a_template_that_cannot_serve_is_refused(mark: str, world: HypervWorld) -> None:
    with world.world:
        template = world.world.machine(world.template)
        if mark == "checkpoints":
            world.world.take_snapshot(template.id, "before")
        elif mark == "tpm":
            template.marks["has_tpm"] = True
        elif mark == "no disk":
            template.disks = []
        else:
            template.marks["notes"] = '{"deskyard":1,"installation":"x","key":"y"}'
    assert isinstance(refuse(world, world.connector(), clone(world)), Unsupported)


def test_a_marked_template_with_a_stamp_can_be_cloned(world: HypervWorld) -> None:
    with world.world:
        notes = '{"deskyard":1,"installation":"x","key":"y","stage":"template"}'
        world.world.machine(world.template).marks["notes"] = notes
    assert one(world, world.connector()).machine_id in world.machines()


def test_a_machine_that_nobody_stamped_yet_is_found_by_the_name_it_bears_meanwhile(world: HypervWorld) -> None:
    order = clone(world)
    with world.world:
        half = world.world.create(f"deskyard-{order.key}", disks_mib=())
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=MachineRef("", Stamp(OURS, order.key))))
    assert half.id not in world.machines()


# --- recycling -------------------------------------------------------------------------------------------------------


def recycle(world: HypervWorld, machine: MachineMade, **changed: object) -> RecycleMachine:
    order = RecycleMachine(
        key=new_key(), machine=ref(world, machine), name=machine.name, template=world.template, power_on=False
    )
    return dataclasses.replace(order, **changed)  # type: ignore[arg-type]


def test_a_recycled_machine_is_a_new_one_of_the_same_shape(world: HypervWorld) -> None:
    connector = world.connector()
    machine = one(world, connector, vcpus=3, memory_mib=5 * GIB, networks=("Lab",), power_on=True)
    share = ShareResources(key=new_key(), machine=ref(world, machine), share=ResourceShare(weight=300))
    do(world, connector, share)
    order = recycle(world, machine)
    fresh = made(world, connector, order)
    assert fresh.machine_id != machine.machine_id
    assert fresh.stamp == Stamp(OURS, order.key)
    assert list(world.machines()) == [fresh.machine_id]
    seen = world.machine(fresh.machine_id)
    assert (seen.vcpus, seen.memory_mib, seen.name) == (3, 5 * GIB, machine.name)
    assert [nic.network for nic in seen.nics] == ["Lab"]
    assert seen.marks["weight"] == 300
    assert all(machine.disks[0] != path for path in world.litter())


def test_checkpoints_of_the_last_user_go_with_the_machine(world: HypervWorld) -> None:
    connector = world.connector()
    machine = one(world, connector, power_on=True)
    do(world, connector, TakeSnapshot(key=new_key(), machine=ref(world, machine), name="private"))
    disks = set(world.world.disks)
    fresh = made(world, connector, recycle(world, machine))
    assert not world.machine(fresh.machine_id).snapshots
    assert not (disks - {*world.machine(world.template).disks}) & set(world.world.disks)


def test_recycling_into_a_template_that_is_gone_leaves_the_machine_as_it_was(world: HypervWorld) -> None:
    connector = world.connector()
    machine = one(world, connector, power_on=True)
    error = refuse(world, connector, recycle(world, machine, template=new_key()))
    assert isinstance(error, NotFound)
    assert "template" in error.message
    assert world.machine(machine.machine_id).power == "on"
    assert world.litter() == set(machine.disks)


def test_recycling_without_room_leaves_the_machine(world: HypervWorld) -> None:
    connector = world.connector()
    machine = one(world, connector)
    with world.world:
        world.world.fill("D:\\", leaving_mib=10)
    assert isinstance(refuse(world, connector, recycle(world, machine)), CapacityExhausted)
    assert list(world.machines()) == [machine.machine_id]
    assert world.litter() == set(machine.disks)


def test_a_full_recycle_is_copied_before_the_old_machine_goes(world: HypervWorld) -> None:
    world.world.clock.speed = 0
    connector = world.connector()
    machine = one(world, connector)
    order = recycle(world, machine, linked=False)
    outcome = submit(connector, [order])[order.key]
    assert outcome.stage is Stage.RUNNING
    assert list(world.machines()) == [machine.machine_id]
    world.world.clock.speed = 60
    assert finish(world, connector, order, outcome).stage is Stage.DONE
    assert machine.machine_id not in world.machines()


# --- deleting --------------------------------------------------------------------------------------------------------


def test_a_machine_somebody_else_made_loses_no_disk(world: HypervWorld) -> None:
    with world.world:
        theirs = world.world.create("payroll", disks_mib=(100,))
        disks = list(theirs.disks)
    do(world, world.connector(), DeleteMachine(key=new_key(), machine=MachineRef(theirs.id, None)))
    assert theirs.id not in world.machines()
    assert set(disks) <= set(world.world.disks), "its disks were not made for a desktop"


def test_a_template_with_clones_is_neither_deleted_nor_started(world: HypervWorld) -> None:
    connector = world.connector()
    one(world, connector)
    golden = MachineRef(world.template, None)
    for order in (
        DeleteMachine(key=new_key(), machine=golden),
        SetPower(key=new_key(), machine=golden, action=PowerAction.ON),
    ):
        assert isinstance(refuse(world, connector, order), Conflict)
    assert world.machine(world.template).power == "off"


def test_a_marked_template_is_no_machine_to_delete(world: HypervWorld) -> None:
    connector = world.connector()
    machine = one(world, connector)
    with world.world:
        notes = json.dumps(
            {"deskyard": 1, "installation": OURS, "key": "k", "stage": "template"}, separators=(",", ":")
        )
        world.world.machine(machine.machine_id).marks["notes"] = notes
    order = DeleteMachine(key=new_key(), machine=MachineRef(machine.machine_id, Stamp(OURS, "k")))
    assert isinstance(refuse(world, connector, order), Conflict)


def test_files_that_are_still_locked_are_removed_later(world: HypervWorld) -> None:
    world.world.clock.speed = 0
    connector = world.connector()
    machine = one(world, connector)
    world.estate.locked_s = 5
    order = DeleteMachine(key=new_key(), machine=ref(world, machine))
    outcome = submit(connector, [order])[order.key]
    assert (outcome.stage, outcome.step) == (Stage.RUNNING, "Removing the disks")
    assert world.litter()
    world.world.clock.advance(6)
    assert finish(world, world.connector(), order, outcome).stage is Stage.DONE
    assert not world.litter()


# --- power -----------------------------------------------------------------------------------------------------------


def test_a_guest_that_hears_shuts_down_before_its_grace_is_over(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    assert set_power(world, connector, machine, PowerAction.SHUTDOWN) is Power.OFF


def test_a_guest_that_does_not_hear_is_cut_off_after_its_grace(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    with world.world:
        world.world.machine(machine.id).guest.ignores_shutdown = True
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN, grace_s=1)
    outcome = submit(connector, [order])[order.key]
    assert outcome.stage is Stage.RUNNING
    assert "asked_at" in (outcome.receipt or {})
    assert finish(world, world.connector(), order, outcome).result == PowerSet(Power.OFF)


def test_a_guest_without_its_shutdown_service_is_asked_again_and_then_cut_off(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    with world.world:
        world.world.machine(machine.id).guest.has_agent = False
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN, grace_s=1)
    outcome = submit(connector, [order])[order.key]
    assert "asked_at" not in (outcome.receipt or {})
    assert finish(world, connector, order, outcome).result == PowerSet(Power.OFF)


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET])
def test_a_restart_happens_once(action: PowerAction, world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    order = SetPower(key=new_key(), machine=machine, action=action)
    do(world, connector, order)
    assert world.machine(machine.id).guest.boots == 2
    again = refuse(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert isinstance(again, PlatformFault)
    assert "not known" in again.message
    assert world.machine(machine.id).guest.boots == 2
    assert world.machines()[machine.id] == machine.stamp, "the stamp stays"


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET])
def test_a_restart_whose_answer_came_between_two_polls_is_told_and_not_repeated(
    action: PowerAction, world: HypervWorld
) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    world.server.think_s = 1.3
    order = SetPower(key=new_key(), machine=machine, action=action)
    outcome = submit(connector, [order])[order.key]
    assert outcome.stage is Stage.RUNNING
    world.server.wait_until_quiet()
    world.server.think_s = 0.0
    other = clone(world)
    submit(connector, [other])
    assert finish(world, connector, order, outcome).stage is Stage.DONE
    assert world.machine(machine.id).guest.boots == 2


def test_a_reboot_that_the_guest_does_not_hear_can_be_asked_again(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    with world.world:
        world.world.machine(machine.id).guest.has_agent = False
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.REBOOT)
    assert isinstance(refuse(world, connector, order), Busy)
    with world.world:
        world.world.machine(machine.id).guest.has_agent = True
    until_it_answers(world, machine.id)
    do(world, connector, dataclasses.replace(order, attempt=2))


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET, PowerAction.SUSPEND, PowerAction.RESUME])
def test_what_is_off_cannot_be_restarted_suspended_or_resumed(action: PowerAction, world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector))
    assert isinstance(refuse(world, connector, SetPower(key=new_key(), machine=machine, action=action)), Conflict)


def test_a_machine_whose_memory_was_saved_is_suspended_and_goes_on(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    with world.world:
        world.world.suspend(machine.id, to_disk=True)
    assert {it.id: it.power for it in listing(connector).machines}[machine.id] is Power.SUSPENDED
    assert set_power(world, connector, machine, PowerAction.RESUME) is Power.ON
    with world.world:
        world.world.suspend(machine.id, to_disk=True)
    assert set_power(world, connector, machine, PowerAction.OFF) is Power.OFF


def test_a_host_without_memory_is_told_so(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, memory_mib=10**7))
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.ON)
    assert isinstance(refuse(world, connector, order), CapacityExhausted)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def take(world: HypervWorld, connector: HypervConnector, machine: MachineRef, name: str = "before") -> str:
    result = do(world, connector, TakeSnapshot(key=new_key(), machine=machine, name=name)).result
    assert isinstance(result, SnapshotTaken)
    return result.snapshot_id


def test_a_checkpoint_is_taken_once_and_known_by_its_id(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector))
    order = TakeSnapshot(key=new_key(), machine=machine, name="before")
    first = do(world, connector, order).result
    second = do(world, world.connector(), dataclasses.replace(order, attempt=2)).result
    assert first == second
    take(world, connector, machine)  # names need not be unique
    assert len(world.machine(machine.id).snapshots) == 2


def test_a_revert_happens_once_and_keeps_the_stamp(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector))
    point = take(world, connector, machine)
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=point)
    before = list(world.machine(machine.id).disks)
    do(world, connector, order)
    reverted = list(world.machine(machine.id).disks)
    assert reverted != before
    do(world, world.connector(), dataclasses.replace(order, attempt=2))
    assert list(world.machine(machine.id).disks) == reverted
    assert world.machines()[machine.id] == machine.stamp


def test_a_checkpoint_that_is_not_there_cannot_be_reverted_to(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector))
    order = RevertSnapshot(key=new_key(), machine=machine, snapshot=new_key())
    assert isinstance(refuse(world, connector, order), NotFound)


def test_deleting_a_checkpoint_lasts_as_long_as_its_merge(world: HypervWorld) -> None:
    world.world.clock.speed = 0
    connector = world.connector()
    machine = ref(world, one(world, connector))
    point = take(world, connector, machine)
    order = DeleteSnapshot(key=new_key(), machine=machine, snapshot=point)
    outcome = submit(connector, [order])[order.key]
    assert (outcome.stage, outcome.step) == (Stage.RUNNING, "Merging the checkpoint's disks")
    world.world.clock.advance(11)
    assert finish(world, world.connector(), order, outcome).stage is Stage.DONE
    do(world, connector, DeleteSnapshot(key=new_key(), machine=machine, snapshot=point))


# --- size, share, screen ---------------------------------------------------------------------------------------------


def test_a_machine_is_resized_while_it_is_off_alone(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector))
    order = Reconfigure(key=new_key(), machine=machine, vcpus=6, memory_mib=3 * GIB)
    do(world, connector, order)
    seen = world.machine(machine.id)
    assert (seen.vcpus, seen.memory_mib) == (6, 3 * GIB)
    set_power(world, connector, machine, PowerAction.ON)
    do(world, connector, dataclasses.replace(order, attempt=2))
    larger = Reconfigure(key=new_key(), machine=machine, vcpus=8)
    assert isinstance(refuse(world, connector, larger), Unsupported)


def test_a_share_is_weight_reserve_limit_and_memory_priority(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    share = ResourceShare(weight=200, cpu_reservation_percent=25, cpu_limit_percent=75)
    order = ShareResources(key=new_key(), machine=machine, share=share)
    do(world, connector, order)
    do(world, connector, dataclasses.replace(order, attempt=2))
    marks = world.machine(machine.id).marks
    assert [marks[name] for name in ("weight", "reserve", "maximum", "priority")] == [200, 25, 75, 100]


@pytest.fixture
def screens(world: HypervWorld) -> Iterator[GuestScreens]:
    with GuestScreens([world.world]) as made_screens:
        yield made_screens


def test_a_screen_is_the_guests_own_at_its_address(world: HypervWorld, screens: GuestScreens) -> None:
    connector = world.connector(screen_port=screens.port)
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    opened = do(world, connector, OpenScreen(key=new_key(), machine=machine)).result
    assert isinstance(opened, ScreenOpened)
    with socket.create_connection((opened.host, opened.port), timeout=30) as viewer:
        assert viewer.recv(4) == b"RFB "


def test_a_guest_without_an_address_is_waited_for_and_then_has_no_screen(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    with world.world:
        world.world.machine(machine.id).guest.has_agent = False
    order = OpenScreen(key=new_key(), machine=machine, valid_s=1)
    outcome = submit(connector, [order])[order.key]
    assert (outcome.stage, outcome.step) == (Stage.RUNNING, "Waiting for the guest to tell its address")
    error = finish(world, connector, order, outcome).error
    assert isinstance(error, Conflict)
    assert "no address" in error.message
    set_power(world, connector, machine, PowerAction.OFF)
    assert isinstance(refuse(world, connector, OpenScreen(key=new_key(), machine=machine)), Conflict)


# --- identity, rights, batches ---------------------------------------------------------------------------------------


def changing(world: HypervWorld, machine: MachineRef) -> list[Order]:
    return [
        DeleteMachine(key=new_key(), machine=machine),
        RecycleMachine(key=new_key(), machine=machine, name="x", template=world.template),
        SetPower(key=new_key(), machine=machine, action=PowerAction.RESET),
        TakeSnapshot(key=new_key(), machine=machine, name="x"),
        RevertSnapshot(key=new_key(), machine=machine, snapshot=new_key()),
        DeleteSnapshot(key=new_key(), machine=machine, snapshot=new_key()),
        Reconfigure(key=new_key(), machine=machine, vcpus=9),
        ShareResources(key=new_key(), machine=machine, share=ResourceShare()),
        OpenScreen(key=new_key(), machine=machine),
    ]


def test_every_order_compares_the_stamp_first(world: HypervWorld) -> None:
    connector = world.connector()
    machine = ref(world, one(world, connector, power_on=True))
    until_it_answers(world, machine.id)
    world.restamp(machine.id, Stamp("installation-theirs", new_key()))
    before = dataclasses.asdict(world.machine(machine.id))
    for order in changing(world, machine):
        assert isinstance(refuse(world, connector, order), Conflict), type(order).__name__
    assert dataclasses.asdict(world.machine(machine.id)) == before


def test_an_account_without_rights_is_told_so_and_nothing_counts_as_gone(world: HypervWorld) -> None:
    machine = ref(world, one(world, world.connector()))
    world.server.accounts[world.account.principal] = dataclasses.replace(world.account, is_admin=False)
    for order in changing(world, machine):
        error = refuse(world, world.connector(), order)
        assert isinstance(error, Unsupported), type(order).__name__
        assert "administrator" in error.message


def test_a_right_that_is_missing_is_told_in_our_words(world: HypervWorld) -> None:
    world.world.forbidden.add("clone")
    error = refuse(world, world.connector(), clone(world))
    assert isinstance(error, Unsupported)
    assert "AccessDenied" in error.platform_words


def test_one_powershell_serves_a_round_however_many_orders_there_are(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    orders: list[CloneMachine] = [clone(world) for _ in range(50)]
    before = world.starts
    outcomes = submit(connector, orders)
    assert world.starts <= before + 1
    waiting = [Receipt(order, outcomes[order.key].receipt or {}) for order in orders]
    poll(connector, [receipt for receipt in waiting if outcomes[receipt.order.key].stage is Stage.RUNNING])
    assert world.starts <= before + 2


def test_orders_that_arrive_while_a_script_runs_go_with_the_next_one(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.think_s = 1.5
    first, second, third = clone(world), clone(world), clone(world)
    before = world.starts
    outcomes = submit(connector, [first]) | submit(connector, [second]) | submit(connector, [third])
    assert {outcome.stage for outcome in outcomes.values()} == {Stage.RUNNING}
    for order in (first, second, third):
        assert finish(world, connector, order, outcomes[order.key]).stage is Stage.DONE
    assert world.starts <= before + 3
    assert len(world.machines()) == 3
