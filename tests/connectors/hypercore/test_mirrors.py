"""What a cluster replicates to others by itself, as it tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from connectors.base import MachineMade
from connectors.errors import Unreachable, Unsupported
from connectors.replication import Mirror, MirrorListing, Mirrors, MirrorState
from lab import mirrors
from lab.hypercore.devices import extra_of
from lab.mirrors import Course
from tests.connectors.contract import clone, made, soon
from tests.connectors.hypercore.worlds import HyperCoreWorld


def replicated(world: HyperCoreWorld, *, to: str = "hc3-dr", every_s: float = 600.0) -> MachineMade:
    machine = made(world, world.connector(), clone(world))
    with world.lab as lab:
        mirrors.begin(lab, machine.machine_id, to, every_s=every_s, first_s=30.0)
    world.clock.speed = 0
    return machine


def turn(world: HyperCoreWorld, machine: MachineMade, course: Course) -> None:
    with world.lab as lab:
        mirrors.turn(lab, machine.machine_id, course)


def the_mirror(world: HyperCoreWorld) -> Mirror:
    listing: MirrorListing = world.connector().mirrors(soon())
    assert not listing.partial
    (found,) = listing.mirrors
    return found


def age(mirror: Mirror) -> timedelta:
    assert mirror.newest_at is not None
    return datetime.now(UTC) - mirror.newest_at


def test_the_connector_tells_of_mirrors(world: HyperCoreWorld) -> None:
    assert isinstance(world.connector(), Mirrors)
    assert world.connector().mirrors(soon()) == MirrorListing(())


def test_a_snapshot_that_has_arrived_whole_is_the_newest_state(world: HyperCoreWorld) -> None:
    machine = replicated(world)
    world.clock.advance(700)
    found = the_mirror(world)
    assert (found.machine, found.name, found.to) == (machine.machine_id, machine.name, "hc3-dr")
    assert (found.state, found.fault, found.can_fail_over) == (MirrorState.HEALTHY, "", True)
    assert found.interval_s is None, "HyperCore does not tell"
    assert timedelta(seconds=95) <= age(found) <= timedelta(seconds=110)


def test_nothing_is_said_of_what_has_arrived_while_a_snapshot_is_on_its_way(world: HyperCoreWorld) -> None:
    replicated(world)
    world.clock.advance(1200 + 20)
    found = the_mirror(world)
    assert (found.state, found.newest_at, found.can_fail_over) == (MirrorState.HEALTHY, None, False)


def test_a_snapshot_that_was_taken_just_now_is_not_counted_at_100_percent(world: HyperCoreWorld) -> None:
    """The cluster may not have begun with it, and speaks of the one before."""
    replicated(world)
    world.clock.advance(600 + 40)
    assert age(the_mirror(world)) > timedelta(seconds=600)


def test_the_first_copy_is_told_apart(world: HyperCoreWorld) -> None:
    machine = replicated(world, every_s=100_000)
    with world.lab as lab:
        lab.machine(machine.machine_id).marks[mirrors.MARK]["first_s"] = 5000
    world.clock.advance(300)
    found = the_mirror(world)
    assert (found.state, found.newest_at) == (MirrorState.INITIAL, None)
    assert "not complete" in found.fault


def test_a_machine_without_a_schedule_is_not_replicated_though_it_is_set_up(world: HyperCoreWorld) -> None:
    replicated(world)
    found = the_mirror(world)
    assert (found.state, found.newest_at) == (MirrorState.INITIAL, None)
    assert "snapshot schedule" in found.fault


def test_replication_that_does_not_work_is_failing(world: HyperCoreWorld) -> None:
    machine = replicated(world)
    world.clock.advance(700)
    turn(world, machine, Course.BROKEN)
    world.clock.advance(3000)
    found = the_mirror(world)
    assert (found.state, found.newest_at) == (MirrorState.FAILING, None)
    assert "hc3-dr does not work" in found.fault


def test_a_connection_that_is_down_is_failing(world: HyperCoreWorld) -> None:
    replicated(world)
    world.clock.advance(700)
    world.cluster.cut_from.add("hc3-dr")
    found = the_mirror(world)
    assert found.state is MirrorState.FAILING
    assert "connection to hc3-dr is down" in found.fault


def test_what_somebody_switched_off_is_paused(world: HyperCoreWorld) -> None:
    machine = replicated(world)
    world.clock.advance(700)
    turn(world, machine, Course.PAUSED)
    assert the_mirror(world).state is MirrorState.PAUSED


def test_a_replica_that_is_kept_here_for_another_cluster_is_no_mirror(world: HyperCoreWorld) -> None:
    machine = replicated(world)
    with world.lab as lab:
        extra_of(lab, lab.machine(machine.machine_id)).replica_of = "a" * 8
    assert world.connector().mirrors(soon()).mirrors == ()


def test_the_number_of_questions_does_not_grow_with_the_machines(world: HyperCoreWorld) -> None:
    def asked() -> int:
        return sum(1 for node in world.nodes for one in node.requests if one.label.startswith("GET"))

    counts = []
    for _ in range(3):
        world.clock.speed = 20
        replicated(world)
        connector, before = world.connector(), asked()
        connector.mirrors(soon())
        counts.append(asked() - before)
    assert counts == [4, 4, 4]


def test_a_cluster_that_knows_no_replication_says_so(world: HyperCoreWorld) -> None:
    world.cluster.has_replication = False
    with pytest.raises(Unsupported, match="does not tell what it replicates"):
        world.connector().mirrors(soon())


def test_an_account_that_sees_nothing_is_not_told_that_nothing_is_replicated(world: HyperCoreWorld) -> None:
    replicated(world)
    world.cluster.roles = {"VM Delete"}
    listing = world.connector().mirrors(soon())
    assert listing.mirrors == ()
    assert "role Read" in listing.partial


def test_a_cluster_that_is_silent_is_unreachable(world: HyperCoreWorld) -> None:
    with pytest.raises(Unreachable):
        world.unreachable().mirrors(soon(3))
