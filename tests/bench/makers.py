"""How long a pool of 1,000 desktops over every maker's platform takes, against the floor that the platforms set.

Clones take two seconds on each platform of the lab, and twenty builds may be in flight on each. The floor is what a
broker without any cost of its own would take for the same tasks: a platform's tasks, so many at a time as its budget
and its own rules allow (HyperCore takes one change at a time). The slowest platform's floor is the floor.
"""

from __future__ import annotations

import time
from pathlib import Path

from broker.models import Desktop, Pool, PoolMember
from lab.platform import Platform
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.support import lab_estate
from tests.support.stack import Stack, wait_until

DESKTOPS = 1_000
BUDGET = 20
AT_A_TIME = {"hypercore": 1}
HYPERCORE_MAXIMUM = 40
"""One change at a time: with an even share it alone would be measured."""
LIMIT_S = 1_500


def run(ground: Ground) -> None:
    folder = ground.folder / "lab"
    folder.mkdir()
    with installation(ground) as running, lab_estate.platforms(folder, speed=1.0) as stood:
        workers = [running.start("worker", f"worker-{number}") for number in range(2)]
        running.start("beat")
        made = lab_estate.register(stood, running.log_tail, build_budget=BUDGET, power_budget=BUDGET)
        pool = lab_estate.pool_over(stood, made, spare=0, maximum=DESKTOPS, delete_budget_per_hour=DESKTOPS)
        PoolMember.objects.filter(pool=pool, hypervisor__kind="hypercore").update(maximum=HYPERCORE_MAXIMUM)
        before, busy, began = [memory_mib(pid) for pid in workers], load(), time.perf_counter()
        Pool.objects.filter(pk=pool.pk).update(spare=DESKTOPS, next_reconcile_at=None)
        took = filled(running, pool, began)
        floors = {kind: floor(stood[kind], AT_A_TIME.get(kind, BUDGET)) for kind in made}
        for kind, hypervisor in made.items():
            count = Desktop.objects.filter(hypervisor=hypervisor, state="ready").count()
            report("estate", "floor", floors[kind], "s", platform=kind, desktops=count)
        report("estate", "seconds", took, "s", desktops=DESKTOPS, workers=2, load=busy)
        report("estate", "ratio", took / max(floors.values()), "times the floor", desktops=DESKTOPS)
        for pid, was in zip(workers, before, strict=True):
            report("estate", "worker_growth", memory_mib(pid) - was, "MiB", desktops=DESKTOPS)


def filled(running: Stack, pool: Pool, began: float) -> float:
    ready = Desktop.objects.filter(pool=pool, state="ready")

    def is_full() -> bool:
        say(f"{ready.count()} ready after {time.perf_counter() - began:.0f} s")
        return ready.count() >= DESKTOPS

    wait_until(is_full, LIMIT_S, "it is full", running.log_tail, pause_s=2)
    return time.perf_counter() - began


def floor(platform: Platform, at_a_time: int) -> float:
    """Seconds of all its tasks, so many at a time; and its guests must boot after the last one."""
    with platform.world as world:
        return sum(task.seconds for task in world.tasks.values()) / at_a_time + world.boot_s[0]


def memory_mib(pid: int) -> float:
    """What the process holds of its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")
