"""What a cluster shows, what the account may see of it, and what `check` tells an administrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.base import Agent, CloneMachine, DeleteMachine, Outcome, Power, Receipt, SetPower
from lab.hypercore.devices import extra_of
from tests.connectors.contract import clone, listing, made, soon
from tests.connectors.hypercore.test_orders import is_up
from tests.connectors.hypercore.worlds import HyperCoreWorld, cluster_world


def test_hosts_storage_and_networks_are_listed(world: HyperCoreWorld) -> None:
    with world.lab:
        world.lab.kill_host(list(world.lab.hosts)[2])
    inventory = listing(world.connector(vlans="40, 41"))
    assert [(host.name, host.vcpus, host.memory_mib) for host in inventory.hosts] == [
        (node.address, 32, 65_536) for node in world.nodes
    ]
    assert [host.is_up for host in inventory.hosts] == [True, True, False], "ONLINE in the network proves nothing"
    (storage,) = inventory.storages
    assert storage.id == world.cluster.id
    assert storage.name == "hc3"
    assert abs(storage.capacity_mib - 2_000_000) < 3
    assert 0 < storage.free_mib < storage.capacity_mib
    assert [network.id for network in inventory.networks] == ["vlan-0", "vlan-40", "vlan-41"]
    assert inventory.templates[0].storage == storage.id


def test_vlans_that_machines_use_are_networks(world: HyperCoreWorld) -> None:
    order = CloneMachine(key="b" * 8, name="d", template=world.template, networks=("vlan-20",), power_on=False)
    made(world, world.connector(), order)
    assert {network.name for network in listing(world.connector()).networks} == {"LAN (untagged)", "VLAN 20"}


def test_addresses_and_agent_come_once_the_guest_is_up(world: HyperCoreWorld) -> None:
    world.clock.speed = 0
    connector = world.connector()
    order = clone(world, power_on=True)
    outcome: Outcome | None = None
    for _ in range(60):
        if outcome is None:
            (outcome,) = list(connector.submit([order], soon()))
        else:
            (outcome,) = list(connector.poll([Receipt(order, outcome.receipt or {})], soon()))
        if outcome.result is not None:
            break
        world.clock.advance(0.5)
    (machine,) = [found for found in listing(connector).machines if found.stamp]
    assert (machine.power, machine.agent, machine.addresses) == (Power.ON, Agent.SILENT, ())
    world.clock.advance(60)
    (machine,) = [found for found in listing(connector).machines if found.stamp]
    assert machine.agent is Agent.ANSWERING
    assert machine.addresses
    assert machine.host in world.lab.hosts


def test_every_listing_is_complete_since_nothing_tells_what_changed(world: HyperCoreWorld) -> None:
    connector = world.connector()
    inventory = connector.inventory(listing(connector).cursor, soon())
    assert inventory.complete
    assert not inventory.gone


@pytest.mark.parametrize("version", ["9.6.27.225000", "9.7.4.225310"])
def test_a_template_is_what_is_set_apart_or_off_and_nobodys(tmp_path: Path, version: str) -> None:
    with cluster_world(tmp_path, version=version) as world:
        with world.lab:
            on = world.lab.create("server", disks_mib=(100,))
            world.lab.power_on(on.id)
            tagged = world.lab.create("tagged", disks_mib=(100,))
            extra_of(world.lab, tagged).tags = "group,deskyard-template"
            world.lab.power_on(tagged.id)
            replica = world.lab.create("replica", disks_mib=(100,))
            extra_of(world.lab, replica).replica_of = "another"
            empty = world.lab.create("empty")
        desk = made(world, world.connector(), clone(world))
        inventory = listing(world.connector())
        templates = {template.name: template.cannot for template in inventory.templates}
        assert templates.keys() == {"golden", "tagged", "empty"}
        assert templates["golden"] == ""
        assert "switched on" in templates["tagged"]
        assert "no disk" in templates["empty"]
        machines = {machine.id: machine for machine in inventory.machines}
        assert {on.id, replica.id, desk.machine_id} <= machines.keys()
        assert tagged.id not in machines
        assert empty.id in machines
        assert "replica" in machines[replica.id].cannot["SetPower"]


def test_hidden_machines_are_not_listed_and_an_empty_listing_is_believed_of_those_who_may_see(
    world: HyperCoreWorld,
) -> None:
    with world.lab:
        world.lab.delete(world.template)
    assert listing(world.connector()).machines == ()


def test_an_empty_listing_without_the_right_to_see_is_not_all_gone(world: HyperCoreWorld) -> None:
    made(world, world.connector(), clone(world))
    world.cluster.roles = {"VM Create/Edit", "VM Power Controls"}
    inventory = world.connector().inventory(None, soon())
    assert inventory.machines == ()
    assert not inventory.complete
    assert "Read" in inventory.partial


@pytest.mark.parametrize("kind", ["User", "Role"])
def test_an_empty_listing_of_an_account_that_cannot_be_read_is_partial(world: HyperCoreWorld, kind: str) -> None:
    with world.lab:
        world.lab.delete(world.template)
    world.faults.add("status", f"GET /rest/v1/{kind}", status=403, count=-1)
    inventory = world.connector().inventory(None, soon())
    assert not inventory.complete
    assert "could not be read" in inventory.partial


@pytest.mark.parametrize("kind", ["Node", "Cluster"])
def test_what_could_not_be_read_is_named(world: HyperCoreWorld, kind: str) -> None:
    world.faults.add("status", f"GET /rest/v1/{kind} ", status=500, count=-1)
    inventory = world.connector().inventory(None, soon())
    assert not inventory.complete
    assert f"the {kind.lower()}" in inventory.partial
    assert inventory.machines or inventory.templates


def test_a_record_that_cannot_be_understood_makes_the_listing_partial(world: HyperCoreWorld) -> None:
    body = '[{"uuid": "a", "name": "odd", "mem": "plenty"}, {"uuid": "b", "name": "fine", "state": "RUNNING"}]'
    world.faults.add("status", "GET /rest/v1/VirDomain ", status=200, body=body)
    inventory = world.connector().inventory(None, soon())
    assert "odd" in inventory.partial
    assert [machine.name for machine in inventory.machines] == ["fine"]


# --- check -----------------------------------------------------------------------------------------------------------


def check(world: HyperCoreWorld, **changes: Any) -> tuple[str, tuple[str, ...]]:
    platform = world.connector(**changes).check(soon())
    return platform.version, platform.warnings


def test_a_sound_cluster_has_no_warnings(world: HyperCoreWorld) -> None:
    assert check(world) == ("9.7.4.225310", ())


def test_missing_roles_are_told_in_words_and_narrow_what_it_takes(world: HyperCoreWorld) -> None:
    world.cluster.roles = {"Read", "VM Create/Edit"}
    platform = world.connector().check(soon())
    assert any("VM Power Controls" in warning for warning in platform.warnings)
    assert any("VM Delete" in warning for warning in platform.warnings)
    assert CloneMachine in platform.takes
    assert SetPower not in platform.takes
    assert DeleteMachine not in platform.takes


def test_the_role_to_see_is_missed(world: HyperCoreWorld) -> None:
    world.cluster.roles = {"VM Create/Edit", "VM Power Controls", "VM Delete"}
    assert any("role Read" in warning for warning in check(world)[1])


def test_nodes_of_different_versions_are_told(world: HyperCoreWorld) -> None:
    world.nodes[1].version = "9.8.4.227597"
    assert any("9.8.4.227597" in warning and "update" in warning for warning in check(world)[1])


def test_a_node_that_does_not_answer_and_one_that_is_not_named_are_told(world: HyperCoreWorld) -> None:
    world.nodes[1].cut_off()
    warnings = check(world, addresses=f"{world.nodes[0].address} {world.nodes[1].address}")[1]
    assert any(f"Node {world.nodes[1].address} does not answer" in warning for warning in warnings)
    assert any(f"add {world.nodes[2].address}" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("status", "is_told"),
    [
        (None, False),
        ({"prepareStatus": {"state": "COMPLETE"}, "updateStatus": {"masterState": "COMPLETE"}}, False),
        ({"prepareStatus": {"state": "DOWNLOAD RPMS"}, "updateStatus": {"percent": "3"}}, True),
        ({"prepareStatus": {"state": "COMPLETE"}, "updateStatus": {"masterState": "EXECUTING"}}, True),
    ],
)
def test_a_running_update_is_told(world: HyperCoreWorld, status: dict[str, Any] | None, is_told: bool) -> None:
    world.cluster.update_status = status
    assert any("being updated" in warning for warning in check(world)[1]) is is_told


def test_a_full_tier_is_told(world: HyperCoreWorld) -> None:
    world.cluster.tier_percent = 91
    assert "The cluster says: SSD storage tier is 91% full." in check(world)[1]


def test_a_guest_is_up_soon_in_this_world(world: HyperCoreWorld) -> None:
    machine = made(world, world.connector(), clone(world, power_on=True))
    assert is_up(world, machine.machine_id)
