"""Power: shutting down with and without Tools, restarting once, losing races."""

from __future__ import annotations

import dataclasses
import time

import pytest

from connectors.base import OpenScreen, Power, PowerAction, PowerSet, Receipt, ScreenOpened, SetPower, Stage
from connectors.errors import Busy, Conflict, PlatformFault, Unreachable, Unsupported
from connectors.esxi import screens
from lab.nouns import Machine
from tests.connectors.contract import clone, do, finish, made, new_key, ref, refuse, soon, submit
from tests.connectors.esxi.worlds import EsxiWorld


def running(world: EsxiWorld, *, is_up: bool = True) -> tuple[SetPower, Machine]:
    """A machine that is on, and an order to be given another action."""
    machine = made(world, world.connector(), clone(world, power_on=True))
    there = world.machine(machine.machine_id)
    if is_up:
        world.clock.advance(60)
        with world.world:
            assert there.guest.is_up
    return SetPower(key=new_key(), machine=ref(world, machine), action=PowerAction.ON), there


def to(order: SetPower, action: PowerAction, grace_s: int = 120) -> SetPower:
    return dataclasses.replace(order, key=new_key(), action=action, grace_s=grace_s)


def test_a_guest_with_tools_shuts_down_by_itself(world: EsxiWorld) -> None:
    order, _ = running(world)
    assert do(world, world.connector(), to(order, PowerAction.SHUTDOWN)).result == PowerSet(Power.OFF)
    assert len(world.sent("ShutdownGuest")) == 1, "it is asked once"
    assert not world.sent("PowerOffVM_Task")


def test_a_guest_that_does_not_listen_is_cut_off_after_its_grace(vcenter: EsxiWorld) -> None:
    order, machine = running(vcenter)
    machine.guest.ignores_shutdown = True
    began = time.monotonic()
    assert do(vcenter, vcenter.connector(), to(order, PowerAction.SHUTDOWN, grace_s=2)).result == PowerSet(Power.OFF)
    assert time.monotonic() - began >= 2
    assert vcenter.sent("PowerOffVM_Task")


def test_a_guest_without_tools_is_cut_off_at_once(vcenter: EsxiWorld) -> None:
    order, machine = running(vcenter)
    machine.guest.has_agent = False
    do(vcenter, vcenter.connector(), to(order, PowerAction.SHUTDOWN, grace_s=600))
    assert not vcenter.sent("ShutdownGuest")


def test_a_guest_that_is_still_booting_is_asked_once_its_tools_run(vcenter: EsxiWorld) -> None:
    vcenter.world.boot_s = (200.0, 200.0)
    order, machine = running(vcenter, is_up=False)
    do(vcenter, vcenter.connector(), to(order, PowerAction.SHUTDOWN, grace_s=600))
    assert machine.power == "off"
    assert len(vcenter.sent("ShutdownGuest")) > 1
    assert not vcenter.sent("PowerOffVM_Task")


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET])
def test_a_machine_is_restarted_once(action: PowerAction, world: EsxiWorld) -> None:
    order, machine = running(world)
    boots = machine.guest.boots
    assert do(world, world.connector(), to(order, action)).result == PowerSet(Power.ON)
    assert machine.guest.boots == boots + 1


def test_a_guest_without_tools_is_reset_instead_of_rebooted(vcenter: EsxiWorld) -> None:
    order, machine = running(vcenter)
    machine.guest.has_agent = False
    boots = machine.guest.boots
    do(vcenter, vcenter.connector(), to(order, PowerAction.REBOOT))
    assert machine.guest.boots == boots + 1
    assert vcenter.sent("ResetVM_Task")


@pytest.mark.parametrize(
    ("action", "method"), [(PowerAction.REBOOT, "RebootGuest"), (PowerAction.RESET, "ResetVM_Task")]
)
@pytest.mark.parametrize("same", [True, False], ids=["same object", "another object"])
def test_a_restart_whose_answer_was_lost_does_not_happen_again(
    action: PowerAction, method: str, same: bool, vcenter: EsxiWorld
) -> None:
    order, machine = running(vcenter)
    order = to(order, action)
    boots = machine.guest.boots
    connector = vcenter.connector()
    vcenter.faults.add("drop_after", f"^{method}$")
    with pytest.raises(Unreachable):
        finish(vcenter, connector, order)
    error = refuse(vcenter, connector if same else vcenter.connector(), dataclasses.replace(order, attempt=2))
    assert isinstance(error, PlatformFault)
    assert "not known" in error.message
    with vcenter.world:
        assert machine.guest.boots <= boots + 1
    assert len(vcenter.sent(method)) == 1


def test_a_restart_that_was_refused_may_be_ordered_again(vcenter: EsxiWorld) -> None:
    order, machine = running(vcenter)
    order = to(order, PowerAction.RESET)
    connector = vcenter.connector()
    vcenter.world.forbidden.add("VirtualMachine.Interact.Reset")
    assert isinstance(refuse(vcenter, connector, order), Unsupported)
    vcenter.world.forbidden.clear()
    boots = machine.guest.boots
    do(vcenter, connector, dataclasses.replace(order, attempt=2))
    assert machine.guest.boots == boots + 1


@pytest.mark.parametrize("action", [PowerAction.REBOOT, PowerAction.RESET, PowerAction.SUSPEND, PowerAction.RESUME])
def test_what_needs_a_running_machine_is_a_conflict_on_one_that_is_off(action: PowerAction, vcenter: EsxiWorld) -> None:
    machine = ref(vcenter, made(vcenter, vcenter.connector(), clone(vcenter)))
    error = refuse(vcenter, vcenter.connector(), SetPower(key=new_key(), machine=machine, action=action))
    assert isinstance(error, Conflict)


def test_a_race_that_was_lost_is_judged_by_what_the_machine_shows(vcenter: EsxiWorld) -> None:
    """Somebody else switched it on meanwhile: the task ends with InvalidPowerState."""
    connector = vcenter.connector()
    machine = ref(vcenter, made(vcenter, connector, clone(vcenter)))
    vcenter.clock.speed = 0.0
    order = SetPower(key=new_key(), machine=machine, action=PowerAction.ON)
    outcome = submit(connector, [order])[order.key]
    with vcenter.world:
        vcenter.world.power_on(machine.id)
    vcenter.clock.speed = 60.0
    assert finish(vcenter, connector, order, outcome).result == PowerSet(Power.ON)


def test_a_suspended_machine_is_switched_off_without_its_memory(world: EsxiWorld) -> None:
    order, machine = running(world)
    do(world, world.connector(), to(order, PowerAction.SUSPEND))
    do(world, world.connector(), to(order, PowerAction.SHUTDOWN, grace_s=600))
    assert machine.power == "off"


# --- screens ---------------------------------------------------------------------------------------------------------


def test_a_screen_is_at_the_guests_own_address(vcenter: EsxiWorld) -> None:
    order, machine = running(vcenter)
    settings = dataclasses.replace(vcenter.settings, screen_port=5901, screen_password="viewer")
    result = do(vcenter, vcenter.connector(settings=settings), OpenScreen(key=new_key(), machine=order.machine)).result
    assert result == ScreenOpened("vnc", machine.guest.address, 5901, "viewer")
    assert "viewer" not in repr(result)


def test_a_screen_waits_for_the_guests_address_and_then_gives_up(
    vcenter: EsxiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter.world.boot_s = (10_000.0, 10_000.0)
    order, _ = running(vcenter, is_up=False)
    monkeypatch.setattr(screens, "PATIENCE_S", 0.5)
    connector = vcenter.connector()
    screen = OpenScreen(key=new_key(), machine=order.machine)
    first = submit(connector, [screen])[screen.key]
    assert first.stage is Stage.RUNNING
    outcome = finish(vcenter, connector, screen, first)
    assert isinstance(outcome.error, Busy)
    assert "no address yet" in outcome.error.message


def test_a_machine_that_is_off_shows_nothing(vcenter: EsxiWorld) -> None:
    machine = ref(vcenter, made(vcenter, vcenter.connector(), clone(vcenter)))
    assert isinstance(refuse(vcenter, vcenter.connector(), OpenScreen(key=new_key(), machine=machine)), Conflict)


def test_a_receipt_of_another_release_is_gone_on_with(vcenter: EsxiWorld) -> None:
    """What a receipt does not hold is looked up."""
    order, _ = running(vcenter)
    off = to(order, PowerAction.OFF)
    receipt = Receipt(off, {"task": "task-of-yesterday", "step": "Cutting the power", "unknown": [1, 2]})
    (outcome,) = vcenter.connector().poll([receipt], soon())
    assert finish(vcenter, vcenter.connector(), off, outcome).result == PowerSet(Power.OFF)
