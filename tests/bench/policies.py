"""How late runs begin: five hundred policies of five minutes, one mover, the platforms of four makers in the lab.

Each policy has one machine with a small disk on which its guest writes a little every half minute. The platforms' tasks
take what they take in the demo: half a second to two seconds, where real ones take rather more. vCenter and Hyper-V
tell what changed; Prism Central and HyperCore give whole disks. Lab, database, Redis, worker, clock and mover share the
machine's cores.

A run is late by what lies between the moment at which its policy wants it and the one at which the mover took it up.
Counted from when each machine has had its first run, since the first runs are all due in the same moment; a moment at
which no run came at all counts as late too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from broker.models import Hypervisor, Machine, ReplicationPolicy, ReplicationRun, ReplicationSource
from broker.services import hypervisors, replication, replication_policies, vaults
from broker.services.replication_policies import ChoiceWish
from lab.hypercore.devices import Device, disk_size, extra_of, free_slot, sync_disks
from lab.nouns import Machine as Simulated
from lab.platform import KINDS, Platform
from lab.world import World
from tests.bench.counting import cpu_s, statements_run
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground
from tests.bench.installation import installation
from tests.bench.makers import memory_mib
from tests.support import lab_estate
from tests.support.kvm_estate import administrator
from tests.support.samba import SambaServer, private_samba
from tests.support.stack import Stack, wait_until

MIB = 1 << 20
SHARES = {"esxi": 50, "hyperv": 25, "nutanix": 20, "hypercore": 5}
"""Of a hundred machines. HyperCore takes one change at a time."""
POLICIES = int(os.environ.get("DESKYARD_BENCH_POLICIES", "500"))
INTERVAL_S = int(os.environ.get("DESKYARD_BENCH_INTERVAL_S", "300"))
"""Fewer policies of a shorter interval come to as many runs a second, sooner."""
INTERVALS = 2
LATE_S = 10.0
DISK_MIB, WRITTEN = 32, 1 * MIB
SCRIBBLE_S = 30.0
FIRST_RUNS_S = 1_800


def run(ground: Ground) -> None:
    folder = ground.folder / "lab"
    folder.mkdir()
    (ground.folder / "vault").mkdir()
    platforms = lab_estate.platforms(folder, names=KINDS, speed=1.0, size=10)
    with installation(ground) as running, private_samba() as samba, platforms as stood:
        machines = {kind: furnish(stood[kind], kind) for kind in KINDS}
        mover = running.start("mover", extra={"MALLOC_ARENA_MAX": "2"})  # as deploy/supervisord.conf does
        running.start("worker")
        running.start("beat")
        made = registered(stood, running, samba)
        replicate(ground, running, made, machines)
        measure(mover, running)


def registered(stood: Mapping[str, Platform], running: Stack, samba: SambaServer) -> dict[str, Hypervisor]:
    made = lab_estate.register(stood, running.log_tail)
    told, it = stood["hypercore"].registration, made["hypercore"]
    share = {"share": samba.address, "share_user": samba.user, "share_password": samba.password}
    values = {**told.settings, **told.secrets, **share}
    hypervisors.change_hypervisor(actor=administrator(), hypervisor_id=it.pk, name=it.name, values=values)
    return made


def furnish(platform: Platform, kind: str) -> list[str]:
    """Ids of machines that run and write a little now and then."""
    found = []
    with platform.world as world:
        world.boot_s = (0.0, 0.0)
        for number in range(POLICIES * SHARES[kind] // 100):
            machine = _machine(world, kind, f"{kind}-{number:03}")
            for disk in machine.disks:
                world.write(disk, MIB, os.urandom(WRITTEN))
            world.power_on(machine.id)
            world.scribble(machine.id, machine.name, times=1_000_000, every_s=SCRIBBLE_S)
            found.append(machine.id)
    return found


def _machine(world: World, kind: str, name: str) -> Simulated:
    if kind != "hypercore":
        return world.create(name, disks_mib=(DISK_MIB,))
    machine = world.create(name)
    extra = extra_of(world, machine)
    disk = world.new_disk(next(iter(world.storages)), capacity=disk_size(DISK_MIB * MIB))
    slot = free_slot(extra.devices, "VIRTIO_DISK")
    extra.devices.append(Device(world.new_id(), "VIRTIO_DISK", DISK_MIB * MIB, slot=slot, disk=disk.id))
    extra.boot = [extra.devices[0].uuid]
    sync_disks(machine, extra)
    return machine


def replicate(
    ground: Ground, running: Stack, made: Mapping[str, Hypervisor], machines: Mapping[str, list[str]]
) -> None:
    """A vault, a policy for each machine, and the first run of each."""
    wanted = [(made[kind].pk, id) for kind, ids in machines.items() for id in ids]

    def rows() -> dict[tuple[object, str], Machine]:
        there = Machine.objects.filter(hypervisor__in=[one.pk for one in made.values()])
        return {(row.hypervisor_id, row.platform_id): row for row in there}

    wait_until(lambda: rows().keys() >= set(wanted), 120, "all machines are listed", running.log_tail, pause_s=1)
    actor, listed = administrator(), rows()
    place = {"path": str(ground.folder / "vault")}
    vault = vaults.create_vault(actor=actor, name="Cellar", kind="folder", location=place)
    say(f"{len(wanted)} policies")
    for number, key in enumerate(wanted):
        replication_policies.create_policy(
            actor=actor,
            name=f"policy-{number:03}",
            vault_id=vault.pk,
            interval_s=INTERVAL_S,
            rpo_s=4 * INTERVAL_S,
            choices=[ChoiceWish(kind="machine", machine_id=listed[key].pk)],
        )
    began = time.monotonic()

    def all_have_a_point() -> bool:
        left = ReplicationSource.objects.filter(newest_at=None).count()
        say(f"{left} without a point after {time.monotonic() - began:.0f} s")
        return not left

    wait_until(all_have_a_point, FIRST_RUNS_S, "each has its first point", running.log_tail, pause_s=5)
    report("policies", "first_runs", time.monotonic() - began, "s", policies=len(wanted), load=load())
    say("waiting until what became due meanwhile has been taken up, for an interval at most")
    until = time.monotonic() + INTERVAL_S
    while ReplicationRun.objects.filter(state="queued", not_before=None).exists() and time.monotonic() < until:
        time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Due:
    """A moment at which a source was to be replicated."""

    kind: str
    """Of its platform."""
    late_s: float
    """Until its run began; of one that has not begun, until now."""


def measure(mover: int, running: Stack) -> None:
    began, statements, spent = timezone.now(), statements_run(), cpu_s(mover)
    until = began + timedelta(seconds=INTERVALS * INTERVAL_S)
    loads = [load()]
    while (now := timezone.now()) < until + timedelta(seconds=LATE_S):
        time.sleep(10)
        loads.append(load())
        found = dues(began, min(until, now - timedelta(seconds=LATE_S)))
        say(f"{len(found)} runs, the latest {max((due.late_s for due in found), default=0.0):.1f} s late")
    found = dues(began, until)
    seconds, spent = (timezone.now() - began).total_seconds(), cpu_s(mover) - spent
    done = ReplicationRun.objects.filter(kind="replicate", state="done", finished_at__gte=began)
    asked = (statements_run() - statements) / done.count()
    busy = [min(loads), statistics.median(loads), max(loads)]
    tell(found, done, policies=ReplicationPolicy.objects.count(), interval_s=INTERVAL_S, load=busy)
    report("policies", "statements_a_run", asked, "statements", note="of all processes")
    report("policies", "mover_cpu_a_run", spent / done.count(), "s")
    report("policies", "mover_cores", spent / seconds, "cores")
    report("policies", "mover_memory", memory_mib(mover), "MiB")
    wrong = ReplicationRun.objects.exclude(error="").filter(created_at__gte=began).values_list("error", flat=True)
    say(f"{len(wrong)} went wrong: {Counter(wrong).most_common(5)}")
    worst = max(due.late_s for due in found)
    if worst > LATE_S:
        raise AssertionError(f"A run began {worst:.1f} s late. {running.log_tail()}")


def tell(found: list[Due], done: QuerySet[ReplicationRun], **params: object) -> None:
    late = sorted(due.late_s for due in found)
    for metric, share in (("late_median", 0.5), ("late_p95", 0.95), ("late_p99", 0.99), ("late_max", 1.0)):
        report("policies", metric, nth(late, share), "s", runs=len(late), **params)
    for kind in KINDS:
        mine = [due.late_s for due in found if due.kind == kind]
        times = done.filter(hypervisor__kind=kind).values_list("started_at", "finished_at")
        took = sorted((end - start).total_seconds() for start, end in times if start and end)
        report("policies", "late_max", max(mine), "s", platform=kind, runs=len(mine))
        report("policies", "took_median", nth(took, 0.5), "s", platform=kind)


def dues(since: datetime, until: datetime) -> list[Due]:
    """Of all sources, each moment in that time."""
    now = timezone.now()
    begun: dict[UUID | None, list[tuple[datetime, datetime]]] = {}
    rows = ReplicationRun.objects.filter(kind="replicate").values_list("source_id", "created_at", "started_at")
    for source_id, created, started in rows:
        begun.setdefault(source_id, []).append((created, started or now))
    found = []
    for source in ReplicationSource.objects.select_related("policy", "hypervisor"):
        for due in moments(source, since, until):
            end = due + timedelta(seconds=INTERVAL_S)
            starts = [start for created, start in begun.get(source.pk, []) if due <= created < end]
            found.append(Due(source.hypervisor.kind, (min(starts, default=now) - due).total_seconds()))
    return found


def moments(source: ReplicationSource, since: datetime, until: datetime) -> list[datetime]:
    found = []
    due = replication.next_run(source.policy, source, since)
    while due < until:
        found.append(due)
        due = replication.next_run(source.policy, source, due)
    return found


def nth(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
