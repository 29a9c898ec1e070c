"""Sudden death while twenty real machines are built on a real libvirt host."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from broker.models import Desktop, Hypervisor, Operation
from tests.crash.boundaries import BOUNDARIES
from tests.support import kvm_estate
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.redis import private_redis
from tests.support.stack import Stack, database, stack, wait_until

DESKTOPS = 20
ON_ITS_WAY = {"planned", "building", "preparing", "ready"}
LIMIT_S = 60
"""After the last restart every desktop is on its way or ready within this."""
READY_S = 420
"""Twenty emulated guests boot on two cores."""


@pytest.fixture
def host(kvm_hosts: KvmHosts) -> Iterator[KvmHost]:
    (taken,) = kvm_hosts.take(1)
    taken.wipe()
    yield taken
    taken.wipe()


@pytest.fixture
def running(
    folder: Path, postgres_url: str, migrated: str, tiny_image: Path, django_db_blocker: pytest.Item
) -> Iterator[Stack]:
    """A stack with everything but the worker running, on a Redis of its own."""
    extra = {"DESKYARD_PROBE_IMAGE": str(tiny_image)}
    with (
        private_redis() as server,
        database(postgres_url, f"crash_{uuid4().hex[:12]}", template=migrated) as url,
        stack(folder, url, server, extra=extra, is_migrated=True) as made,
        django_db_blocker.unblock(),  # type: ignore[attr-defined]
        made.rows(),
    ):
        made.start("beat")
        yield made


def build(running: Stack, host: KvmHost) -> None:
    """Everything up to the pool, with a worker that may then be killed."""
    running.start("worker")
    hypervisor = kvm_estate.register(host, lambda: told(running))
    Hypervisor.objects.filter(pk=hypervisor.pk).update(build_budget=4, memory_ratio=4, vcpu_ratio=40)
    version = kvm_estate.version_on([hypervisor])
    running.kill("worker")
    kvm_estate.pool_on(version, spare=DESKTOPS, maximum=DESKTOPS, minimum=0)


def finish(running: Stack, host: KvmHost) -> None:
    """What must hold after the last restart, within a minute, and in the end."""
    restarted = time.monotonic()

    def all_on_their_way() -> bool:
        states = list(Desktop.objects.exclude(state="gone").values_list("state", flat=True))
        return len(states) == DESKTOPS and set(states) <= ON_ITS_WAY

    wait_until(all_on_their_way, LIMIT_S, "every desktop is on its way", lambda: told(running))
    assert time.monotonic() - restarted <= LIMIT_S
    ready = Desktop.objects.filter(state="ready")
    wait_until(lambda: ready.count() == DESKTOPS, READY_S, "every desktop is ready", lambda: told(running))
    assert machines(host) == set(ready.values_list("machine_id", flat=True))
    assert volumes(host) == DESKTOPS * 2, "one disk and one seed each"
    unfinished = Operation.objects.filter(state__in=["queued", "sent", "running"])
    wait_until(lambda: not unfinished.exists(), 30, "nothing is left in flight")


def machines(host: KvmHost) -> set[str]:
    """Ids of the host's machines but the template, asked of libvirt itself."""
    conn = host.connect()
    try:
        return {d.UUIDString() for d in conn.listAllDomains() if d.name() != host.template_name}
    finally:
        conn.close()


def volumes(host: KvmHost) -> int:
    conn = host.connect()
    try:
        pools = conn.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
        for pool in pools:
            pool.refresh()
        names = itertools.chain.from_iterable(pool.listVolumes() for pool in pools)
        return sum(1 for name in names if name.startswith("deskyard-") and "probe" not in name)
    finally:
        conn.close()


def told(running: Stack) -> str:
    rows = Desktop.objects.exclude(state="gone").values_list("name", "state", "failure")
    late = Operation.objects.exclude(state="done").values_list("kind", "state", "step", "error", "platform_words")
    hypervisors = Hypervisor.objects.values_list("name", "status", "status_reason", "next_inventory_at", "retry_at")
    return f"{list(hypervisors)}\n{list(rows)}\n{list(late)}\n{running.log_tail()}"


@pytest.mark.timeout(900)
def test_a_worker_killed_once_at_each_boundary_while_twenty_machines_are_built(running: Stack, host: KvmHost) -> None:
    build(running, host)
    deaths = []
    for name in BOUNDARIES:
        running.start("worker", module="tests.crash.dying_worker", extra={"DESKYARD_DIE_AT": name})
        end = time.monotonic() + 20
        while not running.has_died("worker") and time.monotonic() < end:
            time.sleep(0.05)
        deaths += [name] if running.has_died("worker") else []
        running.kill("worker")
    running.start("worker")
    finish(running, host)
    assert set(deaths) >= {"marked as sent", "answered, not written", "answer written", "pool reconciled"}, deaths


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_worker_killed_at_one_boundary_again_and_again(boundary: str, running: Stack, host: KvmHost) -> None:
    build(running, host)
    for number in range(5):
        (running.folder / f"died at {boundary}").unlink(missing_ok=True)
        running.start(
            "worker", module="tests.crash.dying_worker", extra={"DESKYARD_DIE_AT": f"{boundary}:{number + 1}"}
        )
        end = time.monotonic() + 40
        while not running.has_died("worker") and time.monotonic() < end:
            time.sleep(0.05)
        running.kill("worker")
    running.start("worker")
    finish(running, host)


@pytest.mark.timeout(900)
def test_beat_redis_and_web_killed_while_twenty_machines_are_built(running: Stack, host: KvmHost) -> None:
    build(running, host)
    running.start("web")
    running.wait_for_web()
    running.start("worker")
    building = Desktop.objects.filter(state__in=["building", "preparing", "ready"])
    wait_until(lambda: building.count() >= 3, 60, "some are being built", lambda: told(running))
    running.kill("beat")
    running.start("beat")
    wait_until(lambda: building.count() >= 6, 60, "it goes on after beat died", lambda: told(running))
    running.redis.kill()
    time.sleep(3)
    running.redis.start()
    wait_until(lambda: building.count() >= 10, 60, "it goes on after Redis died", lambda: told(running))
    running.kill("web")
    running.start("web")
    running.wait_for_web()
    finish(running, host)
