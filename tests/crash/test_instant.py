"""A worker dies at every boundary, for every desktop, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from broker.models import Desktop, Hypervisor, Operation, Pool
from broker.services import brokering
from tests.crash import lives
from tests.crash.boundaries import BOUNDARIES, arm, freeze
from tests.crash.conftest import Estate
from tests.crash.estate import assert_nothing_lost_or_doubled, entitled, let_time_pass, make_pool, want
from tests.doubles.instant.faults import BOUNDARIES as CONNECTOR_BOUNDARIES
from tests.doubles.instant.world import World
from tests.support import effort

DESKTOPS = 20 if effort.IS_LONG else 10
LIMIT_S = 60
"""Within this after the last restart every desktop must be ready."""


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_worker_that_dies_at_a_boundary_for_every_desktop_loses_and_doubles_none(
    boundary: str, estate: Estate
) -> None:
    pool = make_pool(estate.world, 0)
    grow_with_a_death_for_each_desktop(pool, lambda: arm(boundary))
    finish(estate)


@pytest.mark.parametrize("boundary", CONNECTOR_BOUNDARIES)
def test_a_worker_that_dies_inside_the_connector_for_every_desktop_loses_and_doubles_none(
    boundary: str, estate: Estate
) -> None:
    # Clones take a while, so that polls have something to ask after.
    pool = make_pool(estate.world, 0, latency_s=0.05)
    grow_with_a_death_for_each_desktop(pool, lambda: estate.world.faults.set("crash_at", boundary))
    finish(estate)


def grow_with_a_death_for_each_desktop(pool: Pool, arm_death: Callable[[], None]) -> None:
    """Each life repairs what the last one left, until all that was wanted is ready; then the pool wants one more
    desktop, and the life dies as that one comes to the boundary."""
    found_ready = []

    def want_one_more(number: int) -> None:
        want(pool, number)
        arm_death()

    for number in range(DESKTOPS):
        pid = lives.life(
            first=partial(at_rest, number), then=partial(want_one_more, number + 1), until=never, limit_s=LIMIT_S / 2
        )
        assert lives.was_killed(pid), f"with {number} desktops ready the boundary was not met"
        found_ready.append(Desktop.objects.filter(state="ready").count())
        let_time_pass()
    # One more was ready at each death, or two if it came after the new one was seen to answer.
    late = found_ready[-1] - (DESKTOPS - 1)
    assert late in (0, 1), found_ready
    assert found_ready == [number + late for number in range(DESKTOPS)]


@pytest.mark.parametrize("boundary", ["act.before", "act.between", "act.after", "marked as sent"])
def test_a_pump_frozen_in_mid_submit_beyond_its_lease_and_thawed_makes_nothing_twice(
    boundary: str, estate: Estate
) -> None:
    pool = make_pool(estate.world, 0)

    def want_one_and_freeze() -> None:
        want(pool, 1)
        if boundary in BOUNDARIES:
            arm(boundary, freeze)
        else:
            estate.world.faults.set("freeze_at", boundary)

    frozen = lives.life(
        first=partial(at_rest, 0), then=want_one_and_freeze, until=partial(lives.ready, 1), limit_s=LIMIT_S
    )
    assert lives.stopped(frozen), "the worker never stood still"
    epoch = Hypervisor.objects.get().pump_epoch
    successor = lives.life(until=partial(lives.ready, 1), limit_s=LIMIT_S)
    assert lives.ended(successor) == 0
    assert lives.ready(1)
    assert Hypervisor.objects.get().pump_epoch > epoch, "nobody took the lease over"
    told = list(Operation.objects.values())
    lives.go_on(frozen)
    # It carries what it was at to the end, and ends by itself only then.
    assert lives.ended(frozen) == 0
    assert list(Operation.objects.values()) == told, "the thawed pump wrote under a lease that was no longer its own"
    finish(estate, 1)


def test_recycles_survive_a_worker_that_dies_after_each_answer(estate: Estate) -> None:
    pool = make_pool(estate.world, DESKTOPS)
    users = [f"user{number}" for number in range(DESKTOPS)]
    for user in users:
        pid = lives.life(
            first=partial(at_rest, DESKTOPS),
            then=partial(use_and_release, pool, user, arm_death=lambda: arm("answered, not written")),
            until=never,
            limit_s=LIMIT_S,
        )
        assert lives.was_killed(pid), f"what {user} gave back was not recycled"
        let_time_pass()
    finish(estate)
    assert Desktop.objects.filter(epoch__gt=1).count() == DESKTOPS, "each was somebody's"
    for desktop in Desktop.objects.filter(state="ready"):
        assert "letters" not in estate.world.read(desktop.machine_id)


def use_and_release(pool: Pool, name: str, *, arm_death: Callable[[], None]) -> None:
    """Somebody takes a desktop, leaves letters on its disk and gives it back."""
    user = entitled(pool, name)
    request, _ = brokering.request_desktop(user=user, pool_id=pool.pk)
    assert request.desktop is not None
    with closing(World(pool.members.get().hypervisor.settings["world"])) as world:
        world.write(request.desktop.machine_id, f"letters of {user}")
    brokering.release_desktop(actor=user, desktop_id=request.desktop.pk)
    arm_death()


def finish(estate: Estate, size: int = DESKTOPS) -> None:
    """A life that is left in peace brings everything to its end."""
    pid = lives.life(until=partial(at_rest, size), limit_s=LIMIT_S)
    assert lives.ended(pid) == 0
    assert_nothing_lost_or_doubled(estate.world, size)


def at_rest(size: int) -> bool:
    return is_known() and lives.ready(size) and quiet()


def is_known() -> bool:
    """The hypervisor has been read, and probed: only then may anything be built there."""
    return Operation.objects.filter(kind=Operation.Kind.PROBE, state=Operation.State.DONE).exists()


def quiet() -> bool:
    return not Operation.objects.filter(state__in=["queued", "sent", "running"]).exists()


def never() -> bool:
    return False
