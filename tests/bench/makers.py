"""How long a pool of 1,000 desktops over five platforms of the lab takes, against the floor that the platforms set.

Clones take two seconds on each platform, and twenty builds may be in flight on each. The floor is what a broker without
any cost of its own would take for the same tasks and calls: a platform's tasks, so many at a time as its budget and its
own rules allow (HyperCore takes one change at a time), and its calls, so many a second as it takes (Prism Central's
rates). The slowest platform's floor is the floor.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from broker.models import Desktop, Hypervisor, Pool, PoolMember
from lab.nutanix.server import PrismServer
from lab.platform import Platform
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.support import lab_estate
from tests.support.stack import Stack, wait_until

DESKTOPS = 1_000
BUDGET = 20
CLONE_S = 2.0
CLONES = ("VirtualMachine.clone", "Folder.createVm", "CloneVm", "Clone")
"""What cloning is called on the platforms whose clones take time; Hyper-V makes a linked machine at once."""
AT_A_TIME = {"hypercore": 1}
HYPERCORE_MAXIMUM = 40
"""One change at a time: with an even share it alone would be measured."""
LIMIT_S = 1_500


def run(ground: Ground) -> None:
    folder = ground.folder / "lab"
    folder.mkdir()
    platforms = lab_estate.platforms(folder, names=lab_estate.FIVE, speed=1.0, size=10)
    with installation(ground) as running, platforms as stood:
        for platform in stood.values():
            platform.world.task_s = dict.fromkeys(CLONES, CLONE_S)
        workers = [running.start("worker", f"worker-{number}") for number in range(2)]
        running.start("beat")
        made = lab_estate.register(stood, running.log_tail, build_budget=BUDGET, power_budget=BUDGET)
        pool = lab_estate.pool_over(stood, made, spare=0, maximum=DESKTOPS, delete_budget_per_hour=DESKTOPS)
        PoolMember.objects.filter(pool=pool, hypervisor__kind="hypercore").update(maximum=HYPERCORE_MAXIMUM)
        busy, began = load(), time.perf_counter()
        Pool.objects.filter(pk=pool.pk).update(spare=DESKTOPS, next_reconcile_at=None)
        took = filled(running, pool, made, began, workers)
        floors = {name: floor(stood[name], AT_A_TIME.get(name, BUDGET)) for name in made}
        for name, hypervisor in made.items():
            count = Desktop.objects.filter(hypervisor=hypervisor, state="ready").count()
            report("estate", "floor", floors[name], "s", platform=name, desktops=count)
            report("estate", "seconds", took[name], "s", platform=name, desktops=count)
        whole = max(took.values())
        report("estate", "seconds", whole, "s", desktops=DESKTOPS, workers=2, load=busy)
        report("estate", "ratio", whole / max(floors.values()), "times the floor", desktops=DESKTOPS)


def filled(
    running: Stack, pool: Pool, made: dict[str, Hypervisor], began: float, workers: Sequence[int] = ()
) -> dict[str, float]:
    """Name -> when the last of its desktops became ready, in seconds since it began. Tells the workers' memory at each
    quarter."""
    names = {hypervisor.pk: name for name, hypervisor in made.items()}
    last: dict[str, tuple[int, float]] = {}
    quarters = [DESKTOPS * part // 4 for part in range(5)]

    def is_full() -> bool:
        at = time.perf_counter() - began
        ready = Counter(Desktop.objects.filter(pool=pool, state="ready").values_list("hypervisor_id", flat=True))
        for id, count in ready.items():
            if last.get(names[id], (0, 0.0))[0] != count:
                last[names[id]] = (count, at)
        told = {names[id]: count for id, count in ready.items()}
        say(f"{ready.total()} ready after {at:.0f} s: {told}")
        if quarters and ready.total() >= quarters[0]:
            quarters.pop(0)
            for number, pid in enumerate(workers):
                report("estate", "worker_memory", memory_mib(pid), "MiB", worker=number, ready=ready.total())
        return ready.total() >= DESKTOPS

    wait_until(is_full, LIMIT_S, "it is full", running.log_tail, pause_s=1)
    return {name: last.get(name, (0, 0.0))[1] for name in made}


def floor(platform: Platform, at_a_time: int) -> float:
    """Seconds of all its tasks, so many at a time, or of all its calls at its rates; then a guest boots."""
    with platform.world as world:
        tasks = sum(task.seconds for task in world.tasks.values()) / at_a_time
        calls = max((_asking_s(server) for server in platform.servers if isinstance(server, PrismServer)), default=0.0)
        return max(tasks, calls) + world.boot_s[0]


def _asking_s(server: PrismServer) -> float:
    """At least so long for what it was asked, at its rates."""
    asked = Counter(seen.label for seen in server.requests)
    routes = [count / server.rates[route] for route, count in asked.items() if route in server.rates]
    return max([asked.total() / server.rates["*"], *routes])


def memory_mib(pid: int) -> float:
    """What the process holds of its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")
