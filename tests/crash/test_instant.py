"""A worker dies at every boundary, for every desktop, and nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import time

import pytest

from broker.models import Desktop, Hypervisor, Operation
from broker.services import brokering
from tests.crash import lives
from tests.crash.boundaries import BOUNDARIES, freeze
from tests.crash.conftest import Estate
from tests.crash.estate import assert_nothing_lost_or_doubled, entitled, let_time_pass, make_pool
from tests.doubles.instant.faults import BOUNDARIES as CONNECTOR_BOUNDARIES

DESKTOPS = 20
LIMIT_S = 60
"""Within this after the last restart every desktop must be ready."""


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_worker_that_dies_at_a_boundary_for_every_desktop_loses_and_doubles_none(
    boundary: str, estate: Estate
) -> None:
    # One build at a time, so that each desktop passes the boundary by itself.
    make_pool(estate.world, DESKTOPS, budget=1)
    deaths = 0
    for number in range(DESKTOPS):
        marker = estate.stack.folder / f"death {number}"
        pid = lives.life(until=lambda: lives.ready(DESKTOPS), limit_s=10, boundary=boundary, marker=marker)
        deaths += lives.ended(pid) == -signal.SIGKILL
        let_time_pass()
    assert deaths, "no life died: the boundary was never passed"
    finish(estate)


@pytest.mark.parametrize("boundary", CONNECTOR_BOUNDARIES)
def test_a_worker_that_dies_inside_the_connector_for_every_desktop_loses_and_doubles_none(
    boundary: str, estate: Estate
) -> None:
    # Clones take a while, so that polls have something to ask after.
    make_pool(estate.world, DESKTOPS, budget=1, latency_s=0.05)
    deaths = 0
    for _ in range(DESKTOPS):
        estate.world.faults.set("crash_at", boundary)
        deaths += lives.ended(lives.life(until=lambda: lives.ready(DESKTOPS), limit_s=10)) == -signal.SIGKILL
        let_time_pass()
    estate.world.faults.clear("crash_at")
    assert deaths, "no life died: the boundary was never passed"
    finish(estate)


@pytest.mark.parametrize("boundary", ["act.before", "act.between", "act.after", "marked as sent"])
def test_a_pump_frozen_in_mid_submit_beyond_its_lease_and_thawed_makes_nothing_twice(
    boundary: str, estate: Estate
) -> None:
    make_pool(estate.world, 1)
    if boundary in BOUNDARIES:
        frozen = lives.life(
            until=lambda: False, limit_s=3, boundary=boundary, marker=estate.stack.folder / "frozen", act=freeze
        )
    else:
        estate.world.faults.set("freeze_at", boundary)
        frozen = lives.life(until=lambda: False, limit_s=3)
    assert lives.stopped(frozen), "the worker never stood still"
    successor = lives.life(until=lambda: lives.ready(1), limit_s=20)
    assert lives.ended(successor) == 0
    assert lives.ready(1)
    epoch = Hypervisor.objects.get().pump_epoch
    lives.go_on(frozen)
    time.sleep(0.2)
    os.kill(frozen, signal.SIGKILL)
    lives.ended(frozen)
    assert Hypervisor.objects.get().pump_epoch >= epoch
    finish(estate, 1)


def test_twenty_recycles_survive_a_worker_that_dies_after_each_answer(estate: Estate) -> None:
    pool = make_pool(estate.world, DESKTOPS, budget=1)
    assert lives.ended(lives.life(until=lambda: lives.ready(DESKTOPS), limit_s=LIMIT_S)) == 0
    for number in range(DESKTOPS):
        user = entitled(pool, f"user{number}")
        request, _ = brokering.request_desktop(user=user, pool_id=pool.pk)
        assert request.desktop is not None
        estate.world.write(request.desktop.machine_id, f"letters of {user}")
        brokering.release_desktop(actor=user, desktop_id=request.desktop.pk)
    for number in range(DESKTOPS):
        marker = estate.stack.folder / f"death {number}"
        lives.ended(
            lives.life(until=lambda: lives.ready(DESKTOPS), limit_s=10, boundary="answered, not written", marker=marker)
        )
    finish(estate)
    for desktop in Desktop.objects.filter(state="ready"):
        assert "letters" not in estate.world.read(desktop.machine_id)


def finish(estate: Estate, size: int = DESKTOPS) -> None:
    """A life that is left in peace brings everything to its end."""
    pid = lives.life(until=lambda: lives.ready(size) and quiet(), limit_s=LIMIT_S)
    assert lives.ended(pid) == 0
    assert_nothing_lost_or_doubled(estate.world, size)


def quiet() -> bool:
    return not Operation.objects.filter(state__in=["queued", "sent", "running"]).exists()
