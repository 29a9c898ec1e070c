"""Passwords of accounts in real guests, set by their own agents.

The tiny guest has no chpasswd: a stand-in takes down what the agent hands to it. That such a password lets somebody in
is seen on Debian (tests/broker/portal/test_rdp_guest.py).
"""

from __future__ import annotations

import time
from typing import Any

import libvirt
import pytest
from lxml import etree

from connectors.base import MachineRef, PowerAction, Receipt, SetGuestPassword, SetPower, Stage
from connectors.errors import Conflict, ConnectorError, NotFound, PlatformFault, Unsupported
from connectors.kvm.connector import KvmConnector
from tests.connectors.contract import clone, do, made, new_key, poll, ref, refuse, submit
from tests.connectors.kvm.test_crashes import killed_before, run_to_death
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import run_in_guest, wait_for_agent

CHPASSWD = """#!/bin/sh
IFS= read -r line
case $line in desk:*) echo "$line" >>/mnt/told ;; *) echo "no such account" >&2; exit 1 ;; esac
"""
WAITS = "Waiting for the guest's agent"
FIRST, SECOND = "Straw-Hat_1", "Red:Scarf 2"


@pytest.fixture
def machine(real: LibvirtWorld) -> MachineRef:
    """One that is on and whose agent answers, with the stand-in."""
    machine = made(real, real.connector(), clone(real, power_on=True))
    wait_for_agent(domain_of(real, machine.machine_id))
    script = "printf '%s' \"$0\" >/sbin/chpasswd && chmod +x /sbin/chpasswd"
    run_in_guest(domain_of(real, machine.machine_id), "/bin/sh", "-c", script, CHPASSWD)
    return ref(real, machine)


def domain_of(real: LibvirtWorld, machine: str) -> Any:
    return real.conn.lookupByUUIDString(machine)


def order_for(machine: MachineRef, password: str = FIRST, user: str = "desk") -> SetGuestPassword:
    return SetGuestPassword(key=new_key(), machine=machine, user=user, password=password)


def told(real: LibvirtWorld, machine: MachineRef) -> list[str]:
    return run_in_guest(domain_of(real, machine.id), "/bin/sh", "-c", "cat /mnt/told 2>/dev/null || true").splitlines()


def texts(error: ConnectorError) -> str:
    return f"{error} {error!r} {error.message} {error.platform_words}"


@pytest.mark.judges("kvm", "real libvirt and QEMU", SetGuestPassword)
def test_the_guest_gets_the_password_and_a_second_attempt_sets_the_same(
    real: LibvirtWorld, machine: MachineRef
) -> None:
    order = order_for(machine)
    assert FIRST not in repr(order)
    do(real, real.connector(), order)
    do(real, real.connector(), order)
    do(real, real.connector(), order_for(machine, SECOND))
    assert told(real, machine) == [f"desk:{FIRST}", f"desk:{FIRST}", f"desk:{SECOND}"]


def test_an_account_that_the_guest_does_not_know_is_said_in_words_without_the_password(
    real: LibvirtWorld, machine: MachineRef
) -> None:
    error = refuse(real, real.connector(), order_for(machine, user="nobody"))
    assert isinstance(error, PlatformFault)
    assert "does not take a password for 'nobody'" in error.message
    assert FIRST not in texts(error)
    assert told(real, machine) == []


def test_a_guest_that_cannot_listen_is_waited_for_and_one_that_does_not_run_is_not_asked(
    real: LibvirtWorld, machine: MachineRef
) -> None:
    domain = domain_of(real, machine.id)
    run_in_guest(domain, "/bin/sh", "-c", "(sleep 1; kill -STOP $(cat /run/ga.pid)) >/dev/null 2>&1 &")
    time.sleep(2)
    order, connector = order_for(machine), real.connector()
    outcome = submit(connector, [order])[order.key]
    eventually = time.monotonic() + 30
    while outcome.step != WAITS:
        assert time.monotonic() < eventually, outcome
        outcome = poll(connector, [Receipt(order, outcome.receipt or {})])[order.key]
    assert outcome.stage is Stage.RUNNING
    assert FIRST not in repr(outcome)
    for action in (PowerAction.SUSPEND, PowerAction.OFF):
        do(real, real.connector(), SetPower(key=new_key(), machine=machine, action=action))
        assert isinstance(refuse(real, real.connector(), order_for(machine)), Conflict)
    real.remove(machine.id)
    assert isinstance(refuse(real, real.connector(), order_for(machine)), NotFound)


def test_a_guest_whose_agent_is_not_there_yet_is_waited_for(real: LibvirtWorld) -> None:
    machine = ref(real, made(real, real.connector(), clone(real, power_on=True)))
    order = order_for(machine)
    outcome = submit(real.connector(), [order])[order.key]
    assert (outcome.stage, outcome.step) == (Stage.RUNNING, WAITS)
    # Its answer is heard then, though there is nothing in this guest that could do it.
    assert isinstance(refuse(real, real.connector(), order), PlatformFault)


def test_a_machine_that_no_agent_can_be_reached_in_never_gets_one(real: LibvirtWorld) -> None:
    machine = ref(real, made(real, real.connector(), clone(real)))
    domain = domain_of(real, machine.id)
    definition = etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    etree.strip_elements(definition, "channel")
    real.conn.defineXML(etree.tostring(definition, encoding="unicode")).create()
    error = refuse(real, real.connector(), order_for(machine))
    assert isinstance(error, Unsupported)
    assert "has no channel for a guest agent" in error.message


def test_one_that_dies_before_any_step_is_followed_by_one_that_sets_it(real: LibvirtWorld, machine: MachineRef) -> None:
    order, step = order_for(machine), 0
    while dies(real.connector(), order, step):
        do(real, real.connector(), order)
        step += 1
    assert step == 3
    assert set(told(real, machine)) == {f"desk:{FIRST}"}


def dies(connector: KvmConnector, order: SetGuestPassword, step: int) -> bool:
    with killed_before(step):
        return run_to_death(connector, order)
