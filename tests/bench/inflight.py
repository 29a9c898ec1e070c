"""What ten thousand operations in flight cost one worker: statements a round, and memory from beginning to end.

The pools' desktops are planned and ordered by the reconciler as ever; the clones take longer than the bench. Statements
are counted in this process on one round of the pump at two sizes; memory and load are those of a real worker process.
"""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import Host, Hypervisor, Operation, Pool, PoolMember
from broker.services import inventory, pump, reconcile
from tests.bench.counting import statements, statements_run
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.crash.estate import make_pool
from tests.doubles.instant.world import World
from tests.support.stack import Stack, wait_until

SIZES, SMALL_SIZES = (100, 10_000), (100, 1_000)
POOL_SIZE = 500
CLONE_S = 3600
WARM_UP_S, WATCH_S, LOOKS = 60, 180, 6


def run(ground: Ground) -> None:
    world = World.make(ground.folder / "world", hosts=20)
    hypervisor = _hypervisor(world)
    for size in SMALL_SIZES if ground.is_small else SIZES:
        _order(hypervisor, size)
        measure_round(hypervisor, size)
    if not ground.is_small:
        with installation(ground) as running:
            measure_memory(running, size)


def _hypervisor(world: World) -> Hypervisor:
    """One that takes everything at once, with nothing to build yet."""
    pool = make_pool(world, 0, latency_s=CLONE_S)
    Pool.objects.filter(pk=pool.pk).update(is_enabled=False)
    Hypervisor.objects.update(build_budget=100_000, memory_ratio=100, vcpu_ratio=100)
    hypervisor = Hypervisor.objects.get()
    inventory.take(hypervisor.pk)
    pump.run(hypervisor.pk)
    if not Host.objects.exists():
        raise AssertionError("The hypervisor shows no host.")
    return hypervisor


def _order(hypervisor: Hypervisor, size: int) -> None:
    """Have the reconciler order so many clones in all, and the pump send them."""
    say(f"ordering {size} clones")
    member = PoolMember.objects.select_related("copy").first()
    assert member is not None
    while (missing := size - Operation.objects.filter(kind=Operation.Kind.CLONE).count()) > 0:
        name = f"wave-{Pool.objects.count()}"
        wanted = min(missing, POOL_SIZE)
        pool = Pool.objects.create(name=name, naming=f"{name}-####", spare=wanted, maximum=wanted)
        PoolMember.objects.create(pool=pool, hypervisor=hypervisor, copy=member.copy)
        reconcile.run(pool.pk)
    while Operation.objects.exclude(state=Operation.State.RUNNING).filter(kind=Operation.Kind.CLONE).exists():
        _one_round(hypervisor)


def _one_round(hypervisor: Hypervisor) -> None:
    hypervisor.refresh_from_db()
    lease = pump.take_lease(hypervisor.pk)
    assert lease is not None
    pump.adopt(lease)
    with gate.opened(hypervisor) as connector:
        pump._round(lease, hypervisor, connector)
    pump.let_go(lease)


def measure_round(hypervisor: Hypervisor, size: int) -> None:
    """One round in which everything in flight is due."""
    hypervisor.refresh_from_db()
    lease = pump.take_lease(hypervisor.pk)
    assert lease is not None
    pump.adopt(lease)
    with gate.opened(hypervisor) as connector:
        with statements() as sent:
            began = time.perf_counter()
            pump._round(lease, hypervisor, connector)
            took = time.perf_counter() - began
        left = Operation.objects.filter(state=Operation.State.RUNNING, next_poll_at__lte=timezone.now()).count()
    pump.let_go(lease)
    report("inflight", "statements_a_round", len(sent), "statements", operations=size)
    report("inflight", "round_ms", took * 1000, "ms", operations=size, not_reached=left, load=load())


def measure_memory(running: Stack, size: int) -> None:
    """The worker's resident memory and the statements of all that it does."""
    worker = running.start("worker", extra={"MALLOC_ARENA_MAX": "2"})  # as deploy/supervisord.conf does
    running.start("beat")
    hypervisor = Hypervisor.objects.get()
    wait_until(lambda: _epoch(hypervisor.pk) > hypervisor.pump_epoch, 120, "the worker pumps", running.log_tail)
    time.sleep(WARM_UP_S)
    calls, began, sizes = statements_run(), time.monotonic(), []
    for _ in range(LOOKS):
        time.sleep(WATCH_S / LOOKS)
        sizes.append(_resident_mib(worker))
        report(
            "inflight",
            "rss_mib",
            sizes[-1],
            "MiB",
            operations=size,
            after_s=round(time.monotonic() - began),
            load=load(),
        )
    seconds = time.monotonic() - began
    rate = (statements_run() - calls) / seconds
    report(
        "inflight",
        "statements_a_second",
        rate,
        "statements/s",
        operations=size,
        note="pump, inventory, reconciler, clock",
    )
    unfinished = Operation.objects.filter(Q(state="running") | Q(state="sent")).count()
    if unfinished < size:
        raise AssertionError(f"Only {unfinished} of {size} are still in flight. {running.log_tail()}")


def _epoch(hypervisor_id: UUID) -> int:
    return Hypervisor.objects.values_list("pump_epoch", flat=True).get(pk=hypervisor_id)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20
