"""A mover's process is killed again and again while it reads a real guest's disk."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from broker.hypervisors import gate
from broker.models import Hypervisor, Machine, RecoveryPoint, ReplicationRun, ReplicationSource
from broker.services import hypervisors, nudges, replication, vaults
from broker.services.replication import ChoiceWish
from connectors.base import CloneMachine, Stamp
from tests.connectors.contract import made as made_by
from tests.connectors.contract import new_key
from tests.connectors.kvm.test_disks import disk_now, left_on, qemu_img, saved
from tests.connectors.kvm.worlds import LibvirtWorld, host_world, ssh_settings
from tests.support.effort import IS_LONG
from tests.support.guests import run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost, KvmHosts
from tests.support.redis import RedisServer
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
        run = replication.run_now(actor=dana, policy_id=source.policy_id)[0]
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
    with vaults.opened(source.policy.vault) as vault:
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
    policy = replication.create_policy(
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
    run.refresh_from_db()
    assert run.vault is not None
    with vaults.opened(run.vault) as vault, closing(vault.open_disk(vault.point(str(run.point_id)), "vda")) as disk:
        restored = saved(disk, there / "restored.raw")
    qemu_img("compare", "-f", "qcow2", "-F", "raw", disk_now(host, domain, there), restored)
