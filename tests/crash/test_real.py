"""Sudden death while twenty real machines are built on a real libvirt host."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest
import redis
from django.utils import timezone
from lxml import etree

from broker.models import Desktop, Hypervisor, Operation, Pool
from broker.models.operations import UNFINISHED
from broker.selectors import pulse
from tests.crash.boundaries import BOUNDARIES
from tests.crash.estate import want
from tests.support import kvm_estate
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.redis import private_redis
from tests.support.stack import Stack, database, stack, wait_until

DESKTOPS = 20
SILENT = "silent"
ON_ITS_WAY = {"planned", "building", "preparing", "ready"}
LIMIT_S = 60
"""After the last restart every desktop is on its way or ready within this."""
STANDING_S = 180
READY_S = 420
"""Twenty emulated guests boot on two cores."""
BOUNDARY_S = 60
"""A worker starts, waits for what a dead one held, and comes to its boundary."""


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


@pytest.fixture
def silent(host: KvmHost) -> str:
    """Name of a template like the tiny one but without a kernel: its clones cost no time of a processor once they run.

    For tests in which twenty real machines are made, and nobody asks their guests.
    """
    conn = host.connect()
    definition = etree.fromstring(conn.lookupByName(host.template_name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    for path in ("uuid", "devices/interface/mac", "os/kernel", "os/initrd", "os/cmdline"):
        for element in definition.xpath(path):
            element.getparent().remove(element)
    for name in definition.xpath("name"):
        name.text = SILENT
    conn.defineXML(etree.tostring(definition, encoding="unicode"))
    conn.close()
    return SILENT


def build(running: Stack, host: KvmHost, size: int = DESKTOPS, image: str = "tiny", **wishes: Any) -> Pool:
    """Everything up to the pool, with a worker that may then be killed."""
    running.start("worker")
    hypervisor = kvm_estate.register(host, lambda: told(running))
    Hypervisor.objects.filter(pk=hypervisor.pk).update(build_budget=4, memory_ratio=4, vcpu_ratio=40)
    version = kvm_estate.version_on([hypervisor], image)
    running.kill("worker")
    return kvm_estate.pool_on(version, spare=size, maximum=DESKTOPS, minimum=0, **wishes)


def on_their_way(running: Stack) -> None:
    """What must hold within a minute of the last restart."""

    def all_on_their_way() -> bool:
        states = list(Desktop.objects.exclude(state="gone").values_list("state", flat=True))
        return len(states) == DESKTOPS and set(states) <= ON_ITS_WAY

    wait_until(all_on_their_way, LIMIT_S, "every desktop is on its way", lambda: told(running))


def all_stand(running: Stack, host: KvmHost, size: int) -> None:
    """In the end there are as many machines as desktops, whether they have booted or not, and nothing else."""
    standing = Desktop.objects.filter(state__in=["preparing", "ready"])
    wait_until(lambda: standing.count() == size, STANDING_S, "every desktop has its machine", lambda: told(running))
    unfinished = Operation.objects.filter(state__in=UNFINISHED)
    wait_until(lambda: not unfinished.exists(), 30, "nothing is left in flight", lambda: told(running))
    live = Desktop.objects.exclude(state="gone")
    assert machines(host) == set(live.values_list("machine_id", flat=True))
    assert live.count() == size
    assert volumes(host) == size * 2, "one disk and one seed each"


def all_ready(running: Stack, host: KvmHost) -> None:
    ready = Desktop.objects.filter(state="ready")
    wait_until(lambda: ready.count() == DESKTOPS, READY_S, "every desktop is ready", lambda: told(running))
    all_stand(running, host, DESKTOPS)


def machines(host: KvmHost) -> set[str]:
    """Ids of the host's machines but the template, asked of libvirt itself."""
    conn = host.connect()
    try:
        return {d.UUIDString() for d in conn.listAllDomains() if d.name() not in (host.template_name, SILENT)}
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
    for boundary in BOUNDARIES:
        die_at(running, boundary)
    running.start("worker")
    on_their_way(running)
    all_ready(running, host)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_worker_killed_at_one_boundary_again_and_again(boundary: str, running: Stack, host: KvmHost) -> None:
    pool = build(running, host, size=0)
    for size in range(4, DESKTOPS + 1, 4):
        want(pool, size)
        die_at(running, boundary)
        running.start("worker")
        all_stand(running, host, size)
        running.kill("worker")
    running.start("worker")
    on_their_way(running)
    all_ready(running, host)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["beat", "redis", "web"])
def test_beat_redis_or_web_killed_while_twenty_machines_are_built(
    part: str, running: Stack, host: KvmHost, silent: str
) -> None:
    pool = build(running, host, size=DESKTOPS - 4, image=silent, preparation="none")
    running.start("web")
    running.wait_for_web()
    running.start("worker")
    started = Desktop.objects.filter(state__in=["building", "preparing", "ready"])
    wait_until(lambda: started.count() >= 3, LIMIT_S, "some are being built", lambda: told(running), pause_s=0.02)
    assert Operation.objects.filter(kind="clone", state__in=UNFINISHED).exists(), "it is killed in the middle"
    kill(running, part)
    # Four more are wanted meanwhile, and nobody is told: whoever comes back finds the row.
    want(pool, DESKTOPS)
    wait_until(lambda: not lives(running, part), LIMIT_S, f"{part} is missed")
    restarted = timezone.now()
    restart(running, part)
    on_their_way(running)
    wait_until(lambda: lives(running, part), LIMIT_S, f"{part} is back", lambda: told(running))
    all_ready(running, host)
    seen = Desktop.objects.filter(observed_at__gt=restarted)
    wait_until(seen.exists, LIMIT_S, "the host is read again", lambda: told(running))


def die_at(running: Stack, boundary: str) -> None:
    """A worker that works until it passes the boundary, and is killed there."""
    running.start("worker", module="tests.crash.dying_worker", extra={"DESKYARD_DIE_AT": boundary})
    died = f"the worker came to: {boundary}"
    wait_until(lambda: running.has_died("worker"), BOUNDARY_S, died, lambda: told(running), pause_s=0.05)
    assert running.processes["worker"].returncode == -signal.SIGKILL, running.log_tail()
    running.kill("worker")


def kill(running: Stack, part: str) -> None:
    if part == "redis":
        running.redis.kill()
    else:
        running.kill(part)


def restart(running: Stack, part: str) -> None:
    if part == "redis":
        running.redis.start()
    else:
        running.start(part)


def lives(running: Stack, part: str) -> bool:
    """As anybody sees it: beat by its sign of life, Redis by the worker's, which it lost, web by its page."""
    if part == "web":
        return running._answers()
    try:
        return pulse.signs()["beat" if part == "beat" else "worker"]
    except redis.RedisError:
        return False
