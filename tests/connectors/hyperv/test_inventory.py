"""What a Hyper-V host shows, and when that is not believed to be all."""

from __future__ import annotations

import dataclasses
import json

import pytest

from connectors.base import Agent, Power
from connectors.errors import Busy, Unreachable
from lab import nouns
from lab.hyperv import Account
from tests.connectors.contract import clone, listing, made, soon
from tests.connectors.hyperv.worlds import PASSWORD, HypervWorld


def without_rights(world: HypervWorld) -> None:
    world.server.accounts[world.account.principal] = dataclasses.replace(world.account, is_admin=False)


def test_a_listing_has_the_host_its_storage_networks_and_templates(world: HypervWorld) -> None:
    seen = listing(world.connector())
    (host,) = seen.hosts
    assert (host.id, host.vcpus, host.memory_mib) == ("HV1", 32, 131_072)
    assert [(it.id, it.capacity_mib) for it in seen.storages] == [("D:\\", 4_000_000)]
    assert {it.id: it.is_isolated for it in seen.networks} == {"Office": False, "Lab": True}
    assert [(it.name, it.storage, it.disk_mib, it.cannot) for it in seen.templates] == [("golden", "D:\\", 20_480, "")]


def test_a_running_guest_has_an_address_and_a_heartbeat(world: HypervWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world, power_on=True))
    with world.world:
        world.world.clock.advance(10)
    seen = {it.id: it for it in listing(connector).machines}[machine.machine_id]
    assert seen.agent is Agent.ANSWERING
    assert seen.addresses == (world.machine(machine.machine_id).guest.address,)
    assert (seen.power, seen.host) == (Power.ON, "HV1")


def test_a_guest_without_integration_services_is_silent(world: HypervWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world, power_on=True))
    with world.world:
        world.world.machine(machine.machine_id).guest.has_agent = False
        world.world.clock.advance(10)
    seen = {it.id: it for it in listing(connector).machines}[machine.machine_id]
    assert (seen.agent, seen.addresses) == (Agent.SILENT, ())


def test_people_write_notes_beside_our_mark(world: HypervWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    with world.world:
        world.world.machine(machine.machine_id).marks["notes"] += "\nAsk Maria first."
    assert {it.id: it.stamp for it in listing(connector).machines}[machine.machine_id] == machine.stamp


def test_a_template_marked_in_its_notes_is_no_machine(world: HypervWorld) -> None:
    with world.world:
        template = world.world.machine(world.template)
        template.marks["notes"] = json.dumps({"deskyard": 1, "stage": "template"}, separators=(",", ":"))
        template.power = nouns.Power.ON
    seen = listing(world.connector())
    assert world.template not in {it.id for it in seen.machines}
    assert {it.id: it.cannot for it in seen.templates}[world.template] == "It is switched on or saved."


def test_an_empty_listing_without_rights_is_never_all_gone(world: HypervWorld) -> None:
    made(world, world.connector(), clone(world))
    without_rights(world)
    seen = world.connector().inventory(None, soon())
    assert not seen.machines
    assert not seen.complete
    assert "neither an administrator nor a Hyper-V administrator" in seen.partial
    assert seen.cursor is None


def test_missing_rights_are_told_when_the_host_is_registered(world: HypervWorld) -> None:
    without_rights(world)
    (warning,) = world.connector().check(soon()).warnings
    assert "neither an administrator nor a Hyper-V administrator" in warning


def test_a_listing_that_leaves_something_out_says_so(world: HypervWorld) -> None:
    made(world, world.connector(), clone(world))
    world.faults.add("partial_inventory", "inventory HV1")
    seen = world.connector().inventory(None, soon())
    assert not seen.complete
    assert "HV1" in seen.partial


def test_doubtful_settings_are_warned_of(world: HypervWorld) -> None:
    warnings = world.connector(switch="Office2", vlans="Gone: 5").check(soon()).warnings
    assert {warning for warning in warnings if "no virtual switch" in warning} == {
        "There is no virtual switch 'Office2' there.",
        "There is no virtual switch 'Gone' there.",
    }
    assert not world.connector().check(soon()).warnings


def test_unproven_hosts_are_warned_of(sealed: HypervWorld) -> None:
    assert any("HTTPS" in warning for warning in sealed.connector().check(soon()).warnings)


# --- clusters --------------------------------------------------------------------------------------------------------


def test_a_clusters_listing_is_that_of_all_its_nodes(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    machines = [
        made(cluster, connector, dataclasses.replace(clone(cluster), host=host)) for host in ("HV1", "HV2", "HV3")
    ]
    seen = listing(connector)
    assert {it.id for it in seen.hosts} == {"HV1", "HV2", "HV3"}
    where = {it.id: it.host for it in seen.machines}
    assert [where[machine.machine_id] for machine in machines] == ["HV1", "HV2", "HV3"]
    assert [it.id for it in seen.storages] == ["C:\\ClusterStorage\\Volume1"]
    assert len(seen.networks) == 2
    assert not connector.check(soon()).warnings


def test_a_node_that_is_away_makes_the_listing_partial(cluster: HypervWorld) -> None:
    cluster.servers[1].cut_off()
    connector = cluster.connector()
    seen = connector.inventory(None, soon())
    assert not seen.complete
    assert "127.0.3.2 could not be read" in seen.partial
    assert {it.id for it in seen.hosts} == {"HV1", "HV3"}
    assert any("127.0.3.2" in warning for warning in connector.check(soon()).warnings)


def test_a_node_that_hangs_does_not_cost_what_the_others_said(cluster: HypervWorld) -> None:
    connector = cluster.connector()
    listing(connector)
    cluster.servers[2].think_s = 30
    seen = connector.inventory(None, soon(4))
    assert {it.id for it in seen.hosts} == {"HV1", "HV2"}
    assert "127.0.3.3 could not be read" in seen.partial


def test_a_cluster_of_which_nobody_answers_is_unreachable(cluster: HypervWorld) -> None:
    for server in cluster.servers:
        server.cut_off()
    with pytest.raises(Unreachable):
        cluster.connector().inventory(None, soon(5))


def test_nodes_that_are_not_named_and_hosts_of_no_cluster_are_warned_of(cluster: HypervWorld) -> None:
    (warning,) = cluster.connector(hosts="127.0.0.3\n127.0.3.2").check(soon()).warnings
    assert "HV3" in warning
    cluster.estate.cluster = ""
    warnings = cluster.connector().check(soon()).warnings
    assert any("not nodes of one cluster" in warning for warning in warnings)


def test_a_host_that_is_slow_is_busy(world: HypervWorld) -> None:
    connector = world.connector()
    listing(connector)
    world.server.think_s = 30
    with pytest.raises(Busy):
        connector.inventory(None, soon(2))


def test_another_account_has_shells_of_its_own(world: HypervWorld) -> None:
    other = Account("LAB", f"{world.account.user}-b", PASSWORD)
    world.server.add_account(other)
    listing(world.connector())
    listing(world.connector(user=f"LAB\\{other.user}"))
    assert {shell.owner for shell in world.server.shells.values()} == {world.account.principal, other.principal}
