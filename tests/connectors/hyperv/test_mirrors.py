"""What Hyper-V Replica does, as its hosts tell it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from connectors.base import MachineMade
from connectors.errors import Unreachable, Unsupported
from connectors.hyperv.mirrors import state_of
from connectors.replication import Mirror, Mirrors, MirrorState
from lab import mirrors
from lab.hyperv.mirrors import MODE
from lab.mirrors import Course
from tests.connectors.contract import clone, made, soon
from tests.connectors.hyperv.worlds import HypervWorld


def replicated(world: HypervWorld, *, every_s: float = 300.0, first_s: float = 20.0) -> MachineMade:
    """A machine that goes to HV-DR, from now on."""
    machine = made(world, world.connector(), clone(world))
    with world.world as there:
        mirrors.begin(there, machine.machine_id, "HV-DR", every_s=every_s, first_s=first_s)
    return machine


def turn(world: HypervWorld, machine: MachineMade, course: Course) -> None:
    with world.world as there:
        mirrors.turn(there, machine.machine_id, course)


def the_mirror(world: HypervWorld) -> Mirror:
    listing = world.connector().mirrors(soon())
    assert not listing.partial
    (found,) = listing.mirrors
    return found


def age(mirror: Mirror) -> timedelta:
    assert mirror.newest_at is not None
    return datetime.now(UTC) - mirror.newest_at


def test_the_connector_tells_of_mirrors(world: HypervWorld) -> None:
    assert isinstance(world.connector(), Mirrors)
    assert world.connector().mirrors(soon()).mirrors == ()


def test_a_machine_that_is_replicated_well_is_healthy(world: HypervWorld) -> None:
    machine = replicated(world)
    world.world.clock.advance(400)
    found = the_mirror(world)
    assert (found.machine, found.name) == (machine.machine_id, machine.name)
    assert (found.to, found.state, found.interval_s, found.fault) == ("HV-DR", MirrorState.HEALTHY, 300, "")
    assert timedelta(0) <= age(found) < timedelta(seconds=400)
    assert found.can_fail_over


def test_nothing_is_there_to_go_back_to_before_the_first_copy_is_complete(world: HypervWorld) -> None:
    replicated(world, first_s=100_000)
    found = the_mirror(world)
    assert (found.state, found.newest_at, found.can_fail_over) == (MirrorState.INITIAL, None, False)
    assert "not complete" in found.fault


@pytest.mark.parametrize(
    ("course", "state"),
    [
        (Course.LAGGING, MirrorState.WARNING),
        (Course.BROKEN, MirrorState.FAILING),
        (Course.PAUSED, MirrorState.PAUSED),
    ],
)
def test_what_arrives_late_or_not_at_all_is_told_with_its_age(
    world: HypervWorld, course: Course, state: MirrorState
) -> None:
    machine = replicated(world)
    world.world.clock.advance(400)
    turn(world, machine, course)
    world.world.clock.advance(3000)
    found = the_mirror(world)
    assert found.state is state
    assert "HV-DR" in found.fault
    assert age(found) > timedelta(seconds=2900)
    assert found.can_fail_over


def test_a_replica_that_is_kept_here_for_another_host_is_no_mirror(world: HypervWorld) -> None:
    machine = replicated(world)
    with world.world as there:
        there.machine(machine.machine_id).marks[MODE] = "Replica"
    assert world.connector().mirrors(soon()).mirrors == ()


def test_an_account_without_rights_is_told_so_and_not_that_nothing_is_replicated(world: HypervWorld) -> None:
    replicated(world)
    world.server.accounts[world.account.principal] = dataclasses.replace(world.account, is_admin=False)
    with pytest.raises(Unsupported, match="no administrator"):
        world.connector().mirrors(soon())


def test_one_powershell_a_host_lists_all_mirrors(world: HypervWorld) -> None:
    for _ in range(3):
        replicated(world)
    connector = world.connector()
    before = world.starts
    assert len(connector.mirrors(soon()).mirrors) == 3
    assert world.starts == before + 1


def test_a_node_that_is_silent_makes_the_listing_partial(cluster: HypervWorld) -> None:
    machine = replicated(cluster)
    with cluster.world as there:
        there.machine(machine.machine_id).host = "HV1"
    cluster.servers[2].cut_off()
    listing = cluster.connector().mirrors(soon())
    assert [one.machine for one in listing.mirrors] == [machine.machine_id]
    assert cluster.servers[2].address in listing.partial


def test_a_host_that_is_silent_is_unreachable(world: HypervWorld) -> None:
    with pytest.raises(Unreachable):
        world.unreachable().mirrors(soon(3))


@pytest.mark.parametrize(
    ("state", "health", "expected"),
    [
        ("Replicating", "Normal", MirrorState.HEALTHY),
        ("Replicating", "Critical", MirrorState.FAILING),
        ("Resynchronizing", "Normal", MirrorState.WARNING),
        ("WaitingForStartResynchronize", "Warning", MirrorState.FAILING),
        ("ResynchronizeSuspended", "Critical", MirrorState.PAUSED),
        ("PreparedForFailover", "Normal", MirrorState.WARNING),
        ("InitialReplicationInProgress", "Warning", MirrorState.INITIAL),
        ("SomethingOfTomorrow", "Normal", MirrorState.WARNING),
    ],
)
def test_a_state_of_hyper_v_comes_to_one_of_ours(state: str, health: str, expected: MirrorState) -> None:
    assert state_of(state, health) is expected
