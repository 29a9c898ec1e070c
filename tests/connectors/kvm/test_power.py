"""Power of real guests: asked by agent or button, cut when their time is over; nobody sleeps meanwhile."""

from __future__ import annotations

import time
from typing import Any

import libvirt
import pytest

from connectors.base import MachineRef, Outcome, Power, PowerAction, PowerSet, Receipt, SetPower, Stage
from connectors.errors import Conflict
from connectors.kvm.connector import KvmConnector
from tests.connectors.contract import clone, do, finish, listing, made, new_key, poll, ref, refuse, submit
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import run_in_guest, wait_for_agent


@pytest.fixture
def booted(real: LibvirtWorld) -> MachineRef:
    machine = ref(real, made(real, real.connector(), clone(real, power_on=True)))
    wait_for_agent(real.conn.lookupByUUIDString(machine.id))
    return machine


def shutdown(machine: MachineRef, grace_s: int) -> SetPower:
    return SetPower(key=new_key(), machine=machine, action=PowerAction.SHUTDOWN, grace_s=grace_s)


def why_off(real: LibvirtWorld, machine: MachineRef) -> int:
    state, reason = real.conn.lookupByUUIDString(machine.id).state()
    assert state == libvirt.VIR_DOMAIN_SHUTOFF
    return int(reason)


def test_a_guest_shuts_down_when_its_agent_is_asked(real: LibvirtWorld, booted: MachineRef) -> None:
    connector, order = real.connector(), shutdown(booted, 60)
    first = submit(connector, [order])[order.key]
    while first.stage is Stage.RUNNING and "button" not in (first.receipt or {}):
        first = poll(connector, [Receipt(order, first.receipt or {})])[order.key]
    assert first.receipt is not None
    assert first.receipt["button"] is False, "the agent was asked, not the button pressed"
    assert finish(real, connector, order, first).result == PowerSet(Power.OFF)
    assert why_off(real, booted) == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN


def test_a_guest_without_an_agent_hears_the_power_button(real: LibvirtWorld, booted: MachineRef) -> None:
    domain = real.conn.lookupByUUIDString(booted.id)
    _silence_agent(domain)
    connector, order = real.connector(), shutdown(booted, 60)
    assert finish(real, connector, order).result == PowerSet(Power.OFF)
    assert why_off(real, booted) == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN


def test_a_deaf_guest_is_cut_off_when_its_time_is_over_also_by_another_process(
    real: LibvirtWorld, booted: MachineRef
) -> None:
    domain = real.conn.lookupByUUIDString(booted.id)
    run_in_guest(domain, "/bin/sh", "-c", "printf '#!/bin/sh\\n' > /sbin/shutdown; rm -rf /etc/acpi")
    _silence_agent(domain)
    order = shutdown(booted, 6)
    began = time.monotonic()
    first = submit(real.connector(), [order])[order.key]
    fresh = real.connector()
    while time.monotonic() - began < 2:
        asked = time.monotonic()
        outcome = poll(fresh, [Receipt(order, first.receipt or {})])[order.key]
        assert outcome.stage is Stage.RUNNING
        assert time.monotonic() - asked < 3, "polling waits for nobody"
        time.sleep(0.3)
    assert finish(real, fresh, order, first).result == PowerSet(Power.OFF)
    assert 6 <= time.monotonic() - began < 40
    assert why_off(real, booted) == libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED


def test_a_suspended_guest_that_is_to_shut_down_is_cut_off(real: LibvirtWorld, booted: MachineRef) -> None:
    connector = real.connector()
    _set(real, connector, booted, PowerAction.SUSPEND)
    assert do(real, connector, shutdown(booted, 600)).result == PowerSet(Power.OFF)


def test_a_guest_restarts_when_asked_and_when_reset(real: LibvirtWorld, booted: MachineRef) -> None:
    connector, domain = real.connector(), real.conn.lookupByUUIDString(booted.id)
    for action in (PowerAction.REBOOT, PowerAction.RESET):
        run_in_guest(domain, "/bin/touch", "/tmp/this-boot")
        _set(real, connector, booted, action)
        until = time.monotonic() + 60
        while True:
            wait_for_agent(domain)
            try:
                if "absent" in run_in_guest(domain, "/bin/sh", "-c", "[ -e /tmp/this-boot ] || echo absent"):
                    break
            except libvirt.libvirtError:
                pass
            assert time.monotonic() < until, f"no restart after {action}"
            time.sleep(0.3)


def test_what_needs_a_running_machine_is_refused_when_it_is_off(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real)))
    for action in (PowerAction.REBOOT, PowerAction.RESET, PowerAction.SUSPEND, PowerAction.RESUME):
        error = refuse(real, connector, SetPower(key=new_key(), machine=machine, action=action))
        assert isinstance(error, Conflict)
        assert "off" in error.message


def test_a_machine_saved_to_disk_is_suspended_and_goes_on_where_it_was(real: LibvirtWorld, booted: MachineRef) -> None:
    connector, domain = real.connector(), real.conn.lookupByUUIDString(booted.id)
    run_in_guest(domain, "/bin/touch", "/tmp/this-boot")
    domain.managedSave()
    assert {found.id: found.power for found in listing(connector).machines}[booted.id] is Power.SUSPENDED
    _set(real, connector, booted, PowerAction.RESUME)
    wait_for_agent(domain)
    run_in_guest(domain, "/bin/ls", "/tmp/this-boot")
    domain.managedSave()
    assert _set(real, connector, booted, PowerAction.OFF).result == PowerSet(Power.OFF)
    assert not domain.hasManagedSaveImage()


def _set(real: LibvirtWorld, connector: KvmConnector, machine: MachineRef, action: PowerAction) -> Outcome:
    return do(real, connector, SetPower(key=new_key(), machine=machine, action=action))


def _silence_agent(domain: Any) -> None:
    """End the agent in the guest and wait until libvirt has noticed."""
    run_in_guest(domain, "/bin/sh", "-c", "(sleep 0.3; killall qemu-ga) >/dev/null 2>&1 &")
    until = time.monotonic() + 10
    while "state='connected'" in domain.XMLDesc():
        assert time.monotonic() < until
        time.sleep(0.1)
