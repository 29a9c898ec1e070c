"""A mover's process is killed again and again while it reads a real guest's disk."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import (
    Hypervisor,
    Machine,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Vault,
)
from broker.services import hypervisors, movers, moving, nudges, replication_policies, replication_runs, vaults
from broker.services.replication_policies import ChoiceWish
from connectors.base import CloneMachine, Stamp
from tests.connectors.contract import made as made_by
from tests.connectors.contract import new_key
from tests.connectors.kvm.test_disks import disk_now, left_on, qemu_img, saved
from tests.connectors.kvm.worlds import LibvirtWorld, host_world, ssh_settings
from tests.support.effort import IS_LONG
from tests.support.guests import run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.redis import RedisServer
from tests.support.small_disk import small_disk
from tests.support.stack import Stack, database, stack, wait_until

DEATHS = 40 if IS_LONG else 10
LIMIT_S = 120


@pytest.fixture
def host(kvm_hosts: KvmHosts) -> Iterator[KvmHost]:
    (taken,) = kvm_hosts.take(1)
    taken.wipe()
    taken.start_ssh()
    yield taken
    taken.wipe()


@pytest.fixture
def world(host: KvmHost, tmp_path: Path) -> Iterator[LibvirtWorld]:
    with host_world(host, tmp_path, ssh_settings(host)) as made:
        yield made


@pytest.fixture
def running(
    folder: Path, postgres_url: str, migrated: str, private_server: RedisServer, django_db_blocker: pytest.Item
) -> Iterator[Stack]:
    with (
        database(postgres_url, f"crash_{uuid4().hex[:12]}", template=migrated) as url,
        stack(folder, url, private_server, is_migrated=True) as made,
        django_db_blocker.unblock(),  # type: ignore[attr-defined]
        made.rows(),
    ):
        yield made


@pytest.mark.timeout(1500)
def test_a_mover_killed_at_any_moment_leaves_true_points_and_a_clean_host(
    running: Stack, world: LibvirtWorld, host: KvmHost, tmp_path: Path
) -> None:
    dice = random.Random(11)
    dana = User.objects.create_user("dana", is_staff=True)
    machine = made_by(world, world.connector(), CloneMachine(key=new_key(), name="alpha", template=world.template))
    domain = world.conn.lookupByUUIDString(machine.machine_id)
    wait_for_agent(domain)
    source = chosen(dana, world, host, tmp_path, machine.machine_id)
    deaths = 0
    for number in range(DEATHS):
        write(domain, dice)
        domain.suspend()
        run = replication_runs.run_now(actor=dana, policy_id=source.policy_id)[0]
        deaths += killed_on_the_way(running, run, dice.uniform(0.0, 0.3))
        finished(running, run)
        there = tmp_path / f"{number}"
        there.mkdir()
        compare(host, domain, run, there)
        source.refresh_from_db()
        assert source.bookmark is not None
        assert left_on(host, domain) == ([source.bookmark["checkpoint"]], [])
        domain.resume()
    assert deaths >= DEATHS // 3, "too few died on their way: the test is worth little"
    with vaults.opened(Vault.objects.get(policies=source.policy)) as vault:
        assert vault.runs() == []
        listed, stored = dict(RecoveryPoint.objects.values_list("pk", "state")), set(vault.point_ids())
        assert {str(pk) for pk, state in listed.items() if state == "usable"} <= stored
        assert stored <= {str(pk) for pk in listed}
        for point in vault.points():
            assert vault.verify(point).is_good


def chosen(dana: User, world: LibvirtWorld, host: KvmHost, tmp_path: Path, platform_id: str) -> ReplicationSource:
    """The guest in a policy of its own, as an administrator would put it there."""
    settings = ssh_settings(host)
    values = {
        "transport": "ssh", "address": settings.address, "user": settings.user, "ssh_key": settings.ssh_key,
        "known_hosts": settings.known_hosts, "acceleration": "qemu",
    }  # fmt: skip
    hypervisor = hypervisors.register_hypervisor(actor=dana, name="kvm", kind="kvm", values=values)
    Hypervisor.objects.filter(pk=hypervisor.pk).update(status="up")
    stamp = Stamp(gate.installation_id(), new_key())
    world.restamp(platform_id, stamp)
    row = Machine.objects.create(
        hypervisor=hypervisor, platform_id=platform_id, name="alpha", power="on", seen_at=timezone.now(),
        stamp_installation=stamp.installation, stamp_key=stamp.key,
    )  # fmt: skip
    (tmp_path / "vault").mkdir()
    vault = vaults.create_vault(actor=dana, name="Cellar", kind="folder", location={"path": str(tmp_path / "vault")})
    policy = replication_policies.create_policy(
        actor=dana, name="Nightly", vault_id=vault.pk, interval_s=86_400, rpo_s=86_400, keep_last=3, keep_daily=0,
        is_enabled=False, choices=[ChoiceWish(kind="machine", machine_id=row.pk)],
    )  # fmt: skip
    return policy.sources.get()


def write(domain: Any, dice: random.Random) -> None:
    name, pieces = f"/mnt/{dice.randrange(8)}", dice.randrange(1, 60)
    run_in_guest(domain, "/bin/sh", "-c", f"dd if=/dev/urandom of={name} bs=64k count={pieces} && sync")


def killed_on_the_way(running: Stack, run: ReplicationRun, after_s: float) -> bool:
    """Whether its mover died before the run was done."""
    running.start("mover")
    wait_until(lambda: begun(run), LIMIT_S, "a mover takes the run", running.log_tail, pause_s=0.02)
    time.sleep(after_s)
    running.kill("mover")
    run.refresh_from_db()
    return run.state != "done"


def begun(run: ReplicationRun) -> bool:
    nudges.nudge(nudges.MOVE, run.pk)
    run.refresh_from_db()
    return run.attempt > 0


def finished(running: Stack, run: ReplicationRun) -> None:
    """Another mover goes on once the lease of the dead one is over."""
    running.start("mover")

    def is_done() -> bool:
        past = timezone.now() - timedelta(seconds=1)
        ReplicationRun.objects.filter(state="running", mover_epoch=1, pk=run.pk).update(mover_expires_at=past)
        ReplicationRun.objects.filter(state="queued").update(not_before=None)
        for pk in ReplicationRun.objects.exclude(state="done").values_list("pk", flat=True):
            nudges.nudge(nudges.MOVE, pk)
        return not ReplicationRun.objects.exclude(state="done").exists()

    wait_until(is_done, LIMIT_S, "another mover ends the run", running.log_tail)
    running.kill("mover")


def compare(host: KvmHost, domain: Any, run: ReplicationRun, there: Path) -> None:
    """The point of the run against the paused guest's disk, by qemu-img."""
    compare_with(disk_now(host, domain, there), run, there)


# --- what else dies or is full ----------------------------------------------------------------------------------------


@pytest.fixture
def guest(running: Stack, world: LibvirtWorld, host: KvmHost, tmp_path: Path) -> Guest:
    """A guest that answers, chosen to be replicated; this process is the mover."""
    dana = User.objects.create_user("dana", is_staff=True)
    machine = made_by(world, world.connector(), CloneMachine(key=new_key(), name="alpha", template=world.template))
    domain = world.conn.lookupByUUIDString(machine.machine_id)
    wait_for_agent(domain)
    return Guest(dana, host, domain, chosen(dana, world, host, tmp_path, machine.machine_id))


@dataclass
class Guest:
    dana: User
    host: KvmHost
    domain: Any
    source: ReplicationSource

    def run(self) -> ReplicationRun:
        """One attempt."""
        run = replication_runs.run_now(actor=self.dana, policy_id=self.source.policy_id)[0]
        moving.work()
        run.refresh_from_db()
        return run

    def goes_on(self, run: ReplicationRun, there: Path) -> None:
        """The next attempt, or if the run was given up the next run, is whole and right, and nothing else is left."""
        self.domain.suspend()
        ReplicationRun.objects.filter(state="queued").update(not_before=None)
        while moving.work():
            pass
        run.refresh_from_db()
        if run.state == "failed":
            run = self.run()
        assert (run.state, run.error) == ("done", "")
        there.mkdir()
        compare(self.host, self.domain, run, there)
        self.domain.resume()
        self.source.refresh_from_db()
        assert self.source.bookmark is not None
        assert left_on(self.host, self.domain) == ([self.source.bookmark["checkpoint"]], [])
        assert run.vault is not None
        with vaults.opened(run.vault) as vault:
            assert vault.runs() == []


def at_the_first_bytes(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Of the next run that carries any."""
    moved = movers.Hold.moved

    def once(self: movers.Hold, **how: int) -> None:
        monkeypatch.setattr(movers.Hold, "moved", moved)
        act()
        moved(self, **how)

    monkeypatch.setattr(movers.Hold, "moved", once)


@pytest.mark.timeout(600)
def test_a_guest_whose_qemu_is_killed_while_it_is_read_costs_an_attempt_and_nothing_else(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    domain, dice = guest.domain, random.Random(5)

    def kill() -> None:
        (pid,) = guest.host.guest_pids()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not domain.isActive(), LIMIT_S, "libvirt notices that the guest has gone")

    for number in range(2):
        for _ in range(6):
            write(domain, dice)
        at_the_first_bytes(monkeypatch, kill)
        run = guest.run()
        assert run.state in ("queued", "failed")
        assert run.error.endswith(".")
        assert "alpha" in run.error or "vda" in run.error
        assert left_on(guest.host, domain)[1] == [], "no scratch file"
        domain.create()
        wait_for_agent(domain)
        guest.goes_on(run, tmp_path / f"{number}")


@pytest.mark.timeout(600)
def test_a_vault_that_is_full_in_fact_ends_the_run_in_words_and_goes_on_once_there_is_room(
    guest: Guest, tmp_path: Path
) -> None:
    with small_disk(96) as place:
        vault = vaults.create_vault(actor=guest.dana, name="Small", kind="folder", location={"path": str(place)})
        ReplicationPolicy.objects.filter(pk=guest.source.policy_id).update(vault=vault)
        first = guest.run()
        assert (first.state, first.error) == ("done", "")
        run_in_guest(guest.domain, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/much bs=1M count=24 && sync")
        ballast = place / ".ballast"
        fill(ballast, leaving_mib=8)
        full = guest.run()
        assert full.state == "failed"
        assert full.error == f"The vault {place} is full. Make room there, or delete points and collect."
        guest.source.refresh_from_db()
        assert guest.source.bookmark is not None
        assert left_on(guest.host, guest.domain) == ([guest.source.bookmark["checkpoint"]], [])
        with vaults.opened(vault) as opened:
            assert opened.runs() == []
            assert [point.id for point in opened.points()] == [str(first.point_id)]
            assert opened.verify(opened.point(str(first.point_id))).is_good
        ballast.unlink()
        guest.goes_on(full, tmp_path / "after")


def fill(file: Path, leaving_mib: int) -> None:
    room = os.statvfs(file.parent)
    with file.open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - (leaving_mib << 20))


@pytest.mark.timeout(600)
def test_a_source_whose_storage_is_full_while_it_is_read_gives_a_true_point_or_none(
    running: Stack, world: LibvirtWorld, host: KvmHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU cannot keep what the guest overwrites, and the guest cannot write: neither becomes a false point."""
    dana = User.objects.create_user("dana", is_staff=True)
    order = CloneMachine(key=new_key(), name="alpha", template=world.template, storage=host.small_pool_name)
    machine = made_by(world, world.connector(), order)
    domain = world.conn.lookupByUUIDString(machine.machine_id)
    wait_for_agent(domain)
    guest = Guest(dana, host, domain, chosen(dana, world, host, tmp_path, machine.machine_id))
    run_in_guest(domain, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/much bs=1M count=4 && sync")
    domain.suspend()
    then = beside(guest)

    def fill_up() -> None:
        host.run("sh", "-c", "dd if=/dev/zero of=/var/lib/libvirt/small/filling bs=64k || true")
        domain.resume()
        with suppress(libvirt.libvirtError):  # QEMU stops a guest that finds no room
            run_in_guest(domain, "/bin/sh", "-c", "dd if=/dev/urandom of=/mnt/much bs=1M count=4 conv=notrunc; sync")

    at_the_first_bytes(monkeypatch, fill_up)
    run = guest.run()
    assert run.state == "done" or run.error.endswith("."), run.error
    assert "mistake" not in run.error
    for point in RecoveryPoint.objects.all():
        compare_with(then, run, tmp_path)
        assert point.pk == run.point_id
    assert left_on(host, domain)[1] == []
    host.run("rm", "/var/lib/libvirt/small/filling")
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    wait_for_agent(domain)
    domain.suspend()
    ReplicationRun.objects.filter(state="queued").update(not_before=None)
    while moving.work():
        pass
    after = guest.run()
    assert (after.state, after.error) == ("done", "")
    compare_with(beside(guest), after, tmp_path)
    guest.source.refresh_from_db()
    assert guest.source.bookmark is not None
    assert left_on(host, domain) == ([guest.source.bookmark["checkpoint"]], [])


def beside(guest: Guest) -> Path:
    """The paused guest's own disk, put where its template's is."""
    path = guest.domain.XMLDesc(0).split("<source file='")[1].split("'")[0]
    guest.host.run("cp", path, "/var/lib/libvirt/images/beside")
    copy = guest.host.images / "beside"
    golden = Path(guest.host.image_info("beside")["full-backing-filename"]).name
    qemu_img("rebase", "-u", "-F", "qcow2", "-b", guest.host.images / golden, copy)
    return copy


def compare_with(image: Path, run: ReplicationRun, there: Path) -> None:
    run.refresh_from_db()
    assert run.vault is not None
    with vaults.opened(run.vault) as vault, closing(vault.open_disk(vault.point(str(run.point_id)), "vda")) as disk:
        qemu_img("compare", "-f", "qcow2", "-F", "raw", image, saved(disk, there / "restored.raw"))
