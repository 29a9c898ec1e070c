"""Who is logged on to a guest, as its own agent tells; and that nobody is said to be gone who could not be asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from connectors.base import PowerAction, SetPower
from connectors.kvm import mapping, presence
from connectors.kvm.inventory import AGENT_ANSWER_S, Agents
from connectors.presence import GuestUsers, TellsUsers
from tests.connectors.contract import clone, do, made, new_key, ref, soon
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import log_on, utmp_record, wait_for_agent


def test_a_record_is_as_long_as_the_systems() -> None:
    assert len(utmp_record("alice")) == 384


def test_a_guest_tells_who_is_logged_on_and_that_nobody_is(real: LibvirtWorld) -> None:
    connector = real.connector()
    assert isinstance(connector, TellsUsers)
    machine = made(real, connector, clone(real))
    do(real, connector, SetPower(key=new_key(), machine=ref(real, machine), action=PowerAction.ON))
    domain = real.conn.lookupByUUIDString(machine.machine_id)
    wait_for_agent(domain)

    def names() -> Any:
        (told,) = connector.guest_users([machine.machine_id], soon())
        return told.names

    log_on(domain, "alice", "bob", "alice")
    assert names() == ("alice", "bob")
    log_on(domain)
    assert names() == ()
    domain.suspend()
    assert names() is None, "a guest that does not answer"
    domain.resume()
    domain.destroy()
    assert names() is None, "one that is off"


def test_a_machine_that_is_gone_could_not_tell(world: LibvirtWorld) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    (told,) = world.connector().guest_users([nobody], soon())
    assert told.names is None


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({}, None),
        ({"user.count": 0}, ()),
        ({"user.count": 2, "user.0.name": "alice", "user.1.name": "alice"}, ("alice",)),
        ({"user.count": 1, "user.0.name": "alice", "user.0.domain": "CORP"}, ("CORP\\alice",)),
        ({"user.count": "2"}, None),
    ],
)
def test_names_are_read_once_each_and_nothing_is_not_nobody(info: dict[str, Any], names: Sequence[str] | None) -> None:
    assert mapping.user_names(info) == names


def test_nobody_is_asked_for_whom_there_is_no_time() -> None:
    told: list[GuestUsers] = list(presence.ask(None, ["a", "b"], time.monotonic() + AGENT_ANSWER_S / 2, Agents()))
    assert told == []
