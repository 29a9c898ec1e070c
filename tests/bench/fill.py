"""How long a pool takes to fill: from its creation to the last ready desktop, with one worker and one beat.

The hypervisor answers at once, so what is measured is the broker alone, with the budgets of a fresh installation: at
most eight builds in flight.
"""

from __future__ import annotations

import time

from django.utils import timezone

from broker.models import Desktop, Host, Pool
from broker.services import nudges
from tests.bench.figures import load, report
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.crash.estate import make_pool
from tests.doubles.instant.world import World
from tests.support.stack import wait_until

DESKTOPS = 100
RUNS = 3


def run(ground: Ground) -> None:
    world = World.make(ground.folder / "world")
    with installation(ground) as running:
        pool = make_pool(world, 0)
        running.start("worker")
        running.start("beat")
        wait_until(Host.objects.exists, 60, "the hypervisor's inventory was taken", running.log_tail)
        for number in range(1, RUNS + 1):
            busy = load()
            began = time.perf_counter()
            _want(pool, number * DESKTOPS)
            ready = Desktop.objects.filter(pool=pool, state="ready")
            wait_until(lambda: ready.count() == number * DESKTOPS, 120, "it is full", running.log_tail, pause_s=0.05)  # noqa: B023
            took = time.perf_counter() - began
            report("fill", "seconds", took, "s", desktops=DESKTOPS, run=number, workers=1, load=busy)


def _want(pool: Pool, desktops: int) -> None:
    """As `pools.change_pool` does, without its checks."""
    Pool.objects.filter(pk=pool.pk).update(spare=desktops, maximum=desktops, next_reconcile_at=timezone.now())
    nudges.nudge(nudges.RECONCILE, pool.pk)
