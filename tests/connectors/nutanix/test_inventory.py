"""What is shown: everything, what has changed, and what could not be read."""

from __future__ import annotations

import time

import pytest

from connectors.base import Agent, Power
from connectors.errors import NotFound
from lab.nouns import Power as LabPower
from tests.connectors.contract import clone, listing, made, new_key, soon
from tests.connectors.nutanix.worlds import PrismWorld


def test_hosts_storage_and_networks_have_their_numbers(world: PrismWorld) -> None:
    seen = listing(world.connector())
    assert {(host.name, host.vcpus, host.memory_mib, host.is_up) for host in seen.hosts} == {
        ("ahv-01", 32, 65_536, True),
        ("ahv-02", 32, 65_536, True),
    }
    (storage,) = seen.storages
    assert (storage.name, storage.capacity_mib) == ("default-container", 2_000_000)
    assert storage.free_mib == world.lab.free_mib(storage.id)
    assert {(network.name, network.kind) for network in seen.networks} == {
        ("desktops", "VLAN 20"),
        ("servers", "VLAN 30"),
    }


def test_prism_centrals_own_cluster_is_no_cluster(world: PrismWorld) -> None:
    platform = world.connector().check(soon())
    assert platform.version.startswith("pc.2024.3.1.1 ")
    with pytest.raises(NotFound):
        world.connector(cluster="Unnamed").check(soon())


def test_one_cluster_of_several_can_be_chosen(world: PrismWorld) -> None:
    assert len(listing(world.connector(cluster="prism-ahv")).hosts) == 2
    with pytest.raises(NotFound):
        world.connector(cluster="nowhere").inventory(None, soon())


def test_a_host_that_is_away_or_in_maintenance_is_not_up(world: PrismWorld) -> None:
    one, other = world.lab.hosts.values()
    world.lab.kill_host(one.id)
    other.marks["state"] = "ENTERED_MAINTENANCE_MODE"
    assert not any(host.is_up for host in listing(world.connector()).hosts)


def test_an_address_counts_once_dhcp_has_answered(world: PrismWorld) -> None:
    connector = world.connector()
    machine = world.machine(made(world, connector, clone(world)).machine_id)
    machine.guest.boots_s = 10_000
    with world.lab:
        machine.host = next(iter(world.lab.hosts))
        world.lab.power_on(machine.id)
    (seen,) = [one for one in listing(connector).machines if one.id == machine.id]
    assert (seen.power, seen.addresses, seen.agent) == (Power.ON, (), Agent.SILENT)
    world.lab.clock.advance(20_000)
    (seen,) = [one for one in listing(connector).machines if one.id == machine.id]
    assert (seen.addresses, seen.agent) == ((machine.guest.address,), Agent.ANSWERING)


def test_a_guest_without_tools_has_no_agent(world: PrismWorld) -> None:
    world.golden.guest.has_agent = False
    connector = world.connector()
    machine = made(world, connector, clone(world))
    (seen,) = [one for one in listing(connector).machines if one.id == machine.machine_id]
    assert seen.agent is Agent.ABSENT


# --- golden images ---------------------------------------------------------------------------------------------------


def test_without_a_category_whatever_is_off_and_not_ours_may_be_a_golden_image(world: PrismWorld) -> None:
    server = world.lab.create("server", disks_mib=(1_024,))
    bare = world.lab.create("bare")
    running = world.lab.create("running", disks_mib=(1_024,))
    world.lab.power_on(running.id)
    seen = {template.id: template.cannot for template in listing(world.connector()).templates}
    assert seen.keys() == {world.template, server.id, bare.id}
    assert seen[server.id] == ""
    assert seen[bare.id]


def test_with_a_category_only_what_bears_it_is_a_golden_image_and_no_machine(world: PrismWorld) -> None:
    connector = world.connector(template_category="Deskyard:Template")
    assert "Deskyard:Template" in connector.inventory(None, soon()).partial
    mark = new_key()
    world.server.categories[mark] = ("Deskyard", "Template")
    world.lab.create("server", disks_mib=(1_024,))
    world.golden.marks["categories"] = [mark]
    seen = listing(connector)
    assert [template.id for template in seen.templates] == [world.template]
    assert [machine.name for machine in seen.machines] == ["server"]
    made(world, connector, clone(world))  # it has its template's categories, and is none
    assert [template.id for template in listing(connector).templates] == [world.template]


# --- what could not be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "word"),
    [
        ("View_Virtual_Machine", "machines"),
        ("View_Cluster", "clusters"),
        ("View_Host", "hosts"),
        ("View_Storage_Container", "storage containers"),
        ("View_Subnet", "networks"),
    ],
)
def test_what_the_account_may_not_list_makes_the_listing_partial(world: PrismWorld, right: str, word: str) -> None:
    made(world, world.connector(), clone(world))
    world.lab.forbidden.add(right)
    seen = world.connector().inventory(None, soon())
    assert not seen.complete
    assert seen.cursor is None
    assert word in seen.partial
    assert any(word in warning for warning in world.connector().check(soon()).warnings)


def test_an_empty_listing_of_a_cluster_with_machines_is_never_all_gone(world: PrismWorld) -> None:
    made(world, world.connector(), clone(world))
    world.lab.hidden.add("")
    seen = world.connector().inventory(None, soon())
    assert not seen.complete
    assert "may not see them" in seen.partial


def test_a_cluster_without_any_machine_is_empty(world: PrismWorld) -> None:
    world.lab.delete(world.template)
    assert listing(world.connector()).machines == ()


def test_a_machine_that_the_server_counts_and_does_not_give_makes_the_listing_partial(world: PrismWorld) -> None:
    world.lab.create("server")
    world.faults.add("partial_inventory", "^server$", count=-1)
    seen = world.connector().inventory(None, soon())
    assert not seen.complete
    assert "machines" in seen.partial


def test_a_list_that_changed_while_it_was_read_is_read_again(world: PrismWorld) -> None:
    world.lab.create("server")
    world.faults.add("partial_inventory", "^server$", count=1)
    assert len(listing(world.connector()).machines) == 2


def test_a_broken_statistic_leaves_the_storage_with_its_capacity(world: PrismWorld) -> None:
    world.server.lacks.add("GET clustermgmt/stats/storage-containers/{}")
    (storage,) = listing(world.connector()).storages
    assert storage.free_mib == storage.capacity_mib


# --- increments ------------------------------------------------------------------------------------------------------


def test_an_increment_asks_for_the_machines_alone_and_tells_what_differs(world: PrismWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    cursor = listing(connector).cursor
    world.server.requests.clear()
    quiet = connector.inventory(cursor, soon())
    assert not quiet.complete
    assert quiet.machines == ()
    assert [seen.label for seen in world.server.requests] == ["GET vmm/ahv/config/vms"]
    world.machine(machine.machine_id).name = "renamed"
    told = connector.inventory(quiet.cursor, soon())
    assert [(one.id, one.name) for one in told.machines] == [(machine.machine_id, "renamed")]
    assert told.hosts == ()


def test_a_machine_is_gone_once_prism_says_so_and_not_because_a_list_lacks_it(world: PrismWorld) -> None:
    connector = world.connector()
    machine = made(world, connector, clone(world))
    time.sleep(0.1)
    cursor = listing(connector).cursor
    found = world.machine(machine.machine_id)
    found.marks["listed_at"] = world.lab.now + 10_000
    told = connector.inventory(cursor, soon())
    assert (told.gone, told.machines) == ((), ())
    found.marks["listed_at"] = 0.0
    told = connector.inventory(told.cursor, soon())
    assert (told.gone, told.machines) == ((), ())
    world.remove(machine.machine_id)
    assert connector.inventory(told.cursor, soon()).gone == (machine.machine_id,)


def test_many_missing_machines_are_left_to_the_broker_to_judge(world: PrismWorld) -> None:
    made_here = [world.lab.create(f"server-{number}") for number in range(10)]
    connector = world.connector()
    cursor = listing(connector).cursor
    for machine in made_here:
        world.lab.delete(machine.id)
    told = connector.inventory(cursor, soon())
    assert told.complete
    assert told.gone == ()


def test_an_increment_that_could_not_read_all_is_followed_by_a_complete_listing(world: PrismWorld) -> None:
    connector = world.connector()
    cursor = listing(connector).cursor
    world.lab.forbidden.add("View_Virtual_Machine")
    world.server.requests.clear()
    told = connector.inventory(cursor, soon())
    assert told.partial
    assert told.gone == ()
    assert [seen.label for seen in world.server.requests] == ["GET vmm/ahv/config/vms"], (
        "nobody is asked for one by one"
    )
    world.lab.forbidden.clear()
    assert connector.inventory(told.cursor, soon()).complete


def test_a_template_that_is_switched_on_is_told(world: PrismWorld) -> None:
    connector = world.connector(template_category="Deskyard:Template")
    mark = new_key()
    world.server.categories[mark] = ("Deskyard", "Template")
    world.golden.marks["categories"] = [mark]
    cursor = listing(connector).cursor
    world.golden.power = LabPower.ON
    told = connector.inventory(cursor, soon())
    assert [template.cannot for template in told.templates] == ["It is switched on."]
