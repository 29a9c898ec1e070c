"""What protection policies replicate, as Prism Central shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from connectors.base import MachineMade
from connectors.errors import Unreachable
from connectors.nutanix.mirrors import read_policy
from connectors.replication import Mirror, MirrorListing, Mirrors, MirrorState
from lab import mirrors
from lab.mirrors import Course
from tests.connectors.contract import clone, made, soon
from tests.connectors.nutanix.worlds import SPEED, PrismWorld


def replicated(world: PrismWorld, *, to: str = "dr-ahv", every_s: float = 3600.0) -> MachineMade:
    machine = made(world, world.connector(), clone(world))
    with world.lab as lab:
        mirrors.begin(lab, machine.machine_id, to, every_s=every_s, first_s=120.0)
    world.lab.clock.advance(10)  # a new machine is listed late
    world.lab.clock.speed = 0
    return machine


def turn(world: PrismWorld, machine: MachineMade, course: Course) -> None:
    with world.lab as lab:
        mirrors.turn(lab, machine.machine_id, course)


def the_mirror(world: PrismWorld) -> Mirror:
    listing: MirrorListing = world.connector().mirrors(soon())
    assert not listing.partial
    (found,) = listing.mirrors
    return found


def age(mirror: Mirror) -> timedelta:
    assert mirror.newest_at is not None
    return datetime.now(UTC) - mirror.newest_at


def test_the_connector_tells_of_mirrors(world: PrismWorld) -> None:
    assert isinstance(world.connector(), Mirrors)
    assert world.connector().mirrors(soon()) == MirrorListing(())


def test_the_newest_recovery_point_in_the_other_cluster_is_told(world: PrismWorld) -> None:
    machine = replicated(world)
    world.lab.clock.advance(4000)
    found = the_mirror(world)
    assert (found.machine, found.name, found.to) == (machine.machine_id, machine.name, "dr-ahv")
    assert (found.state, found.interval_s, found.fault) == (MirrorState.HEALTHY, 3600, "")
    assert found.can_fail_over
    assert timedelta(seconds=400) <= age(found) <= timedelta(seconds=430)


def test_a_point_that_is_on_its_way_does_not_count(world: PrismWorld) -> None:
    replicated(world)
    world.lab.clock.advance(3600 + 60)
    assert age(the_mirror(world)) > timedelta(seconds=3600)


def test_a_copy_is_as_old_as_the_point_and_not_as_its_arrival(world: PrismWorld) -> None:
    world.server.policies.stamps_arrival = True
    replicated(world)
    world.lab.clock.advance(4000)
    assert age(the_mirror(world)) >= timedelta(seconds=400)


def test_before_the_first_copy_there_is_nothing_to_go_back_to(world: PrismWorld) -> None:
    replicated(world)
    world.lab.clock.advance(60)
    found = the_mirror(world)
    assert (found.state, found.newest_at, found.can_fail_over) == (MirrorState.INITIAL, None, False)


@pytest.mark.parametrize("course", [Course.LAGGING, Course.BROKEN, Course.PAUSED])
def test_what_does_not_arrive_is_late_after_two_intervals(world: PrismWorld, course: Course) -> None:
    machine = replicated(world)
    world.lab.clock.advance(4000)
    turn(world, machine, course)
    assert the_mirror(world).state is MirrorState.HEALTHY
    world.lab.clock.advance(20_000)
    found = the_mirror(world)
    assert found.state is MirrorState.WARNING
    assert "dr-ahv is late" in found.fault
    assert age(found) > timedelta(seconds=2 * 3600)


def test_what_lies_behind_another_prism_central_is_not_guessed(world: PrismWorld) -> None:
    world.server.policies.far.add("dr-ahv")
    replicated(world)
    world.lab.clock.advance(4000)
    found = the_mirror(world)
    assert (found.state, found.newest_at, found.to) == (MirrorState.UNKNOWN, None, "Remote dr-ahv")
    assert "register that one too" in found.fault


def test_synchronous_replication_is_told_machine_by_machine_only(world: PrismWorld) -> None:
    machine = replicated(world)
    with world.lab as lab:
        lab.machine(machine.machine_id).marks[mirrors.MARK]["every_s"] = 0.5
    found = the_mirror(world)
    assert (found.state, found.interval_s) == (MirrorState.UNKNOWN, None)
    assert "synchronous" in found.fault


def test_a_machine_belongs_to_a_policy_by_its_category_too(world: PrismWorld) -> None:
    world.server.policies.tells_policy = False
    replicated(world)
    world.lab.clock.advance(4000)
    assert the_mirror(world).state is MirrorState.HEALTHY


def test_points_that_stay_at_home_are_no_replication() -> None:
    local = {"sourceLocationLabel": "here", "schedule": {"recoveryPointObjectiveTimeSeconds": 3600}}
    assert read_policy({"extId": "p", "replicationConfigurations": [local]}).ways == ()


def test_the_number_of_questions_does_not_grow_with_the_machines(world: PrismWorld) -> None:
    counts: list[int] = []
    for _ in range(3):
        world.lab.clock.speed = SPEED
        replicated(world)
        connector = world.connector()
        before = len(world.server.requests)
        assert len(connector.mirrors(soon()).mirrors) == len(counts) + 1
        counts.append(sum(1 for one in list(world.server.requests)[before:] if one.label.startswith("GET")))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("right", ["View_Protection_Policy", "View_Recovery_Point", "View_Virtual_Machine"])
def test_what_the_account_may_not_see_makes_the_listing_partial(world: PrismWorld, right: str) -> None:
    replicated(world)
    with world.lab:
        world.lab.forbidden = {right}
    assert "could not be read" in world.connector().mirrors(soon()).partial


def test_a_prism_central_that_is_silent_is_unreachable(world: PrismWorld) -> None:
    with pytest.raises(Unreachable):
        world.unreachable().mirrors(soon(3))
