"""What is listed, what is partial, and what is told as changed."""

from __future__ import annotations

import time

import pytest

from connectors.base import Agent, Inventory, Power
from connectors.esxi.connector import EsxiConnector
from tests.connectors.contract import clone, listing, made, soon
from tests.connectors.esxi.worlds import EsxiWorld


def increment(connector: EsxiConnector, seen: Inventory) -> Inventory:
    told = connector.inventory(seen.cursor, soon())
    assert not told.complete, "an increment"
    return told


# --- complete --------------------------------------------------------------------------------------------------------


def test_hosts_storages_networks_and_templates_are_listed(vcenter: EsxiWorld) -> None:
    seen = listing(vcenter.connector())
    assert [(host.id, host.name, host.vcpus, host.memory_mib) for host in seen.hosts] == [
        ("host-9", "esxi-9", 32, 131_072), ("host-10", "esxi-10", 32, 131_072),
    ]  # fmt: skip
    assert {storage.name: storage.capacity_mib for storage in seen.storages} == {"fast": 4_000_000, "slow": 500_000}
    assert {(network.id, network.kind) for network in seen.networks} == {
        ("network-13", "port group"), ("dvportgroup-14", "VLAN 20 (distributed port group)"),
    }  # fmt: skip
    (template,) = seen.templates
    assert (template.id, template.storage, template.disk_mib) == (vcenter.template, "datastore-11", 20_480)


def test_a_running_guest_answers_at_its_address(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    machine = made(vcenter, connector, clone(vcenter, power_on=True))
    vcenter.clock.advance(60)
    seen = {one.id: one for one in listing(connector).machines}[machine.machine_id]
    assert (seen.power, seen.agent) == (Power.ON, Agent.ANSWERING)
    assert seen.addresses[0].startswith("127.64.")


def test_everything_is_read_page_by_page(vcenter: EsxiWorld) -> None:
    with vcenter.world:
        for number in range(23):
            vcenter.world.create(f"m{number}")
    vcenter.server.page = 5
    seen = listing(vcenter.connector())
    assert len(seen.machines) == 23
    assert len(vcenter.sent("ContinueRetrievePropertiesEx")) >= 4


def test_what_was_read_before_time_ran_out_is_told_as_partial(vcenter: EsxiWorld) -> None:
    with vcenter.world:
        for number in range(23):
            vcenter.world.create(f"m{number}")
    vcenter.server.page = 20
    connector = vcenter.connector()
    connector.check(soon())
    vcenter.faults.add("hang", "ContinueRetrievePropertiesEx", count=-1)
    seen = connector.inventory(None, soon(2))
    assert not seen.complete
    assert "in time" in seen.partial
    assert 0 < len(seen.machines) < 23
    assert seen.cursor is None


def test_what_the_account_may_not_read_makes_the_listing_partial(vcenter: EsxiWorld) -> None:
    """A property collector tells it in missingSet, without a fault."""
    connector = vcenter.connector()
    machine = made(vcenter, connector, clone(vcenter))
    with vcenter.world:
        vcenter.server.unreadable.add(vcenter.server.things.vm_id(vcenter.world.machines[machine.machine_id]))
    seen = connector.inventory(None, soon())
    assert not seen.complete
    assert "may not read" in seen.partial


def test_a_machine_without_a_configuration_makes_the_listing_partial(vcenter: EsxiWorld) -> None:
    """Its datastore is away: vSphere shows it as inaccessible, and does not say which machine it is."""
    connector = vcenter.connector()
    machine = made(vcenter, connector, clone(vcenter, name="stranded"))
    vcenter.machine(machine.machine_id).marks["inaccessible"] = True
    seen = connector.inventory(None, soon())
    assert not seen.complete
    assert "'stranded' is inaccessible" in seen.partial


def test_a_folder_that_is_hidden_is_not_taken_for_gone_at_once(vcenter: EsxiWorld) -> None:
    """vCenter leaves out in silence what an account may not see."""
    connector = vcenter.connector()
    made(vcenter, connector, clone(vcenter))
    listing(connector)
    vcenter.world.hidden.add("Templates")  # clones lie beside their template
    seen = connector.inventory(None, soon())
    assert not seen.complete
    assert "visible" in seen.partial
    assert not seen.machines


def test_an_account_that_sees_no_host_has_seen_nothing(vcenter: EsxiWorld) -> None:
    hosts, vcenter.world.hosts = vcenter.world.hosts, {}
    seen = vcenter.connector().inventory(None, soon())
    vcenter.world.hosts = hosts
    assert not seen.complete
    assert "no host at all" in seen.partial


def test_a_server_that_knows_no_keys_of_arrays_is_read_in_whole(vcenter: EsxiWorld) -> None:
    vcenter.server.knows_keyed_paths = False
    connector = vcenter.connector()
    order = clone(vcenter)
    machine = made(vcenter, connector, order)
    seen = {one.id: one for one in listing(vcenter.connector()).machines}[machine.machine_id]
    assert seen.stamp is not None
    assert seen.stamp.key == order.key


def test_a_host_that_dies_is_listed_as_down(vcenter: EsxiWorld) -> None:
    with vcenter.world:
        vcenter.world.kill_host("host-9")
    assert {host.id: host.is_up for host in listing(vcenter.connector()).hosts} == {"host-9": False, "host-10": True}


def test_a_stand_alone_hosts_own_machines_serve_as_templates(esxi: EsxiWorld) -> None:
    seen = listing(esxi.connector())
    assert esxi.template in {template.id for template in seen.templates}
    assert esxi.template in {machine.id for machine in seen.machines}


def test_a_template_that_is_switched_on_says_so(esxi: EsxiWorld) -> None:
    with esxi.world:
        esxi.world.machines[esxi.template].marks["extraConfig"] = {}
    seen = listing(esxi.connector())
    assert [template.cannot for template in seen.templates if template.id == esxi.template] == [""]


# --- incremental -----------------------------------------------------------------------------------------------------


def test_a_first_increment_tells_what_changed_since_the_listing_and_nothing_else(vcenter: EsxiWorld) -> None:
    connector, actor = vcenter.connector(), vcenter.connector()
    made(vcenter, actor, clone(vcenter))
    before = listing(connector)
    assert increment(connector, before).machines == ()
    machine = made(vcenter, actor, clone(vcenter))
    told = increment(connector, before)
    assert [one.id for one in told.machines] == [machine.machine_id]
    assert increment(connector, told).machines == ()


def test_an_old_cursor_of_the_same_object_tells_all_since_then(vcenter: EsxiWorld) -> None:
    connector, actor = vcenter.connector(), vcenter.connector()
    first = listing(connector)
    one = made(vcenter, actor, clone(vcenter))
    increment(connector, first)
    other = made(vcenter, actor, clone(vcenter))
    vcenter.remove(one.machine_id)
    told = increment(connector, first)
    assert {machine.id for machine in told.machines} == {other.machine_id}
    assert one.machine_id in told.gone


@pytest.mark.parametrize("when", ["before the first increment", "after it"])
def test_a_machine_that_goes_is_told(when: str, vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    machine = made(vcenter, vcenter.connector(), clone(vcenter))
    seen = listing(connector)
    if when == "after it":
        seen = increment(connector, seen)
    vcenter.remove(machine.machine_id)
    assert increment(connector, seen).gone == (machine.machine_id,)


def test_updates_come_in_parts(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    seen = listing(connector)
    seen = increment(connector, seen)
    vcenter.server.page = 3
    with vcenter.world:
        made_ids = {vcenter.world.create(f"m{number}").id for number in range(10)}
    asked = len(vcenter.sent("WaitForUpdatesEx"))
    told = increment(connector, seen)
    assert {machine.id for machine in told.machines} == made_ids
    assert len(vcenter.sent("WaitForUpdatesEx")) - asked >= 4


def test_a_session_that_ended_gives_a_complete_listing(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    seen = increment(connector, listing(connector))
    vcenter.server.expire_sessions()
    told = connector.inventory(seen.cursor, soon())
    if not told.complete:  # the session was found to have ended while this was read
        told = connector.inventory(told.cursor, soon())
    assert told.complete


def test_a_session_that_ends_between_two_pages_costs_nothing(vcenter: EsxiWorld) -> None:
    """The view and the pages not fetched end with it."""
    with vcenter.world:
        for number in range(13):
            vcenter.world.create(f"m{number}")
    connector = vcenter.connector()
    listing(connector)
    vcenter.server.page = 5
    vcenter.faults.add("session_expires", "ContinueRetrievePropertiesEx")
    assert len(listing(connector).machines) == 13


def test_a_collector_that_the_server_forgot_gives_a_complete_listing(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    seen = increment(connector, listing(connector))
    for session in vcenter.server._sessions.values():
        session.watchers.clear()
    told = connector.inventory(seen.cursor, soon())
    assert told.complete
    assert increment(connector, told).gone == ()


def test_an_address_that_appears_is_told(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    machine = made(vcenter, vcenter.connector(), clone(vcenter, power_on=True))
    seen = listing(connector)
    vcenter.clock.advance(60)
    until = time.monotonic() + 4
    while not any(one.addresses for one in seen.machines if one.id == machine.machine_id):
        assert time.monotonic() < until
        seen = increment(connector, seen)


def test_rights_that_are_missing_are_told_in_words(vcenter: EsxiWorld) -> None:
    vcenter.world.forbidden.add("VirtualMachine.Inventory.Delete")
    (warning,) = vcenter.connector().check(soon()).warnings
    assert "VirtualMachine.Inventory.Delete" in warning
    vcenter.world.forbidden.clear()
    assert vcenter.connector().check(soon()).warnings == ()
