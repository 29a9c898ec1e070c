"""A process that dies between any two steps of any order, on libvirt's test driver. Real hosts: see test_machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
import pytest

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    MachineMade,
    Order,
    Power,
    PowerAction,
    Reconfigure,
    RecycleMachine,
    SetPower,
    TakeSnapshot,
)
from connectors.kvm.connector import KvmConnector
from connectors.kvm.work import Work
from tests.connectors.contract import clone, do, made, new_key, ref, refuse, soon
from tests.connectors.kvm.worlds import LibvirtWorld


class Killed(Exception):
    """No error of libvirt's or ours: nothing answers it, as nothing answers a kill."""


@contextmanager
def killed_before(step: int) -> Iterator[list[str]]:
    """Every order dies before that step; tells the steps that were begun."""
    begin, begun = Work.begin, list[str]()

    def begin_or_die(self: Work[Any], name: str) -> None:
        if len(begun) == step:
            raise Killed
        begun.append(name)
        begin(self, name)

    Work.begin = begin_or_die  # type: ignore[method-assign, assignment]
    try:
        yield begun
    finally:
        Work.begin = begin  # type: ignore[method-assign]


def run_to_death(connector: KvmConnector, order: Order) -> bool:
    """True if it died on the way."""
    try:
        list(connector.submit([order], soon()))
    except Killed:
        return True
    for going in list(connector._jobs.values()):
        assert going.job.ended.wait(30)
        return isinstance(going.job.fault, Killed)
    return False


def a_clone(world: LibvirtWorld) -> Order:
    return clone(world, power_on=True)


def a_full_clone(world: LibvirtWorld) -> Order:
    return clone(world, power_on=True, linked=False)


def a_recycle(world: LibvirtWorld) -> Order:
    machine = ref(world, made(world, world.connector(), clone(world, power_on=True)))
    return RecycleMachine(key=new_key(), machine=machine, name="renamed", template=world.template)


def a_delete(world: LibvirtWorld) -> Order:
    return DeleteMachine(key=new_key(), machine=ref(world, made(world, world.connector(), clone(world, power_on=True))))


def a_power_off(world: LibvirtWorld) -> Order:
    machine = ref(world, made(world, world.connector(), clone(world, power_on=True)))
    return SetPower(key=new_key(), machine=machine, action=PowerAction.OFF)


def a_snapshot(world: LibvirtWorld) -> Order:
    return TakeSnapshot(key=new_key(), machine=ref(world, made(world, world.connector(), clone(world))), name="s")


def a_resize(world: LibvirtWorld) -> Order:
    return Reconfigure(key=new_key(), machine=ref(world, made(world, world.connector(), clone(world))), vcpus=2)


def test_a_clone_waits_while_something_else_holds_its_machine(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a daemon does that finds its guests again after a restart: whatever is asked of them times out meanwhile."""
    create, refusals = libvirt.virDomain.create, iter(range(2))

    def busy_at_first(self: Any) -> int:
        if next(refusals, None) is None:
            return int(create(self))
        error = libvirt.libvirtError("")
        words = "Timed out during operation: cannot acquire state change lock"
        error.err = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_FROM_QEMU, words, 2, None, None, None, 0, 0)
        raise error

    monkeypatch.setattr(libvirt.virDomain, "create", busy_at_first)
    monkeypatch.setattr("connectors.kvm.machines.BUSY_S", 0.05)
    machine = made(world, world.connector(), clone(world, power_on=True))
    assert machine.power is Power.ON
    assert list(world.machines()) == [machine.machine_id]


def test_a_machine_that_a_daemon_held_for_running_until_it_looked_is_switched_on_after_all(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirtd 9.0, killed while it started a guest and back again: first the guest is running, then it is not."""
    create, refusals = libvirt.virDomain.create, iter(range(1))

    def held_at_first(self: Any) -> int:
        if next(refusals, None) is None:
            return int(create(self))
        words = "Requested operation is not valid: domain is already running"
        error = libvirt.libvirtError(words)
        error.args = (words,)
        error.err = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_QEMU, words, 2, None, None, None, 0, 0)
        raise error

    monkeypatch.setattr(libvirt.virDomain, "create", held_at_first)
    machine = made(world, world.connector(), clone(world, power_on=True))
    assert machine.power is Power.ON
    assert list(world.machines()) == [machine.machine_id]


def test_a_recycle_that_fails_late_leaves_no_disk_made_in_vain(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    order = RecycleMachine(key=new_key(), machine=ref(world, machine), name="n", template=world.template)

    def refuse_it(self: Any, xml: str) -> Any:
        raise libvirt.libvirtError("it does not work")

    with monkeypatch.context() as patch:
        patch.setattr(libvirt.virConnect, "defineXML", refuse_it)
        refuse(world, connector, order)
    assert world.litter() == set(machine.disks), "the machine stands as it was"
    do(world, connector, order)


MAKERS = [a_clone, a_full_clone, a_recycle, a_delete, a_power_off, a_snapshot, a_resize]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_next_attempt_mends_what_a_kill_left(make: Callable[[LibvirtWorld], Order], world: LibvirtWorld) -> None:
    step = 0
    while True:
        order = make(world)
        with killed_before(step) as begun:
            died = run_to_death(world.connector(), order)
        if not died:
            break
        result = do(world, world.connector(), order).result
        where = f"killed after {begun}"
        if isinstance(order, DeleteMachine):
            assert not world.machines(), where
            assert not world.litter(), where
        else:
            assert len(world.machines()) == 1, where
            assert len(world.litter()) == 1, where
        if isinstance(order, (CloneMachine, RecycleMachine)):
            assert isinstance(result, MachineMade), where
            assert set(result.disks) == world.litter(), where
        world.wipe()
        step += 1
    assert step >= 3, "the order has that many steps at least"
