"""A mover dies anywhere: no recovery point is wrong or lost, nothing is left on the platform or in the vault."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from broker.models import (
    Hypervisor,
    Machine,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Vault,
)
from broker.services import inventory, movers, moving, pump, recovery, replication_policies, replication_runs, vaults
from broker.services.replication_policies import ChoiceWish
from disks.vault.folder import FolderStore
from tests.crash.conftest import Estate
from tests.crash.lives import was_killed
from tests.crash.mover_lives import die_at, life
from tests.doubles.instant import disks
from tests.support.effort import IS_LONG

SEEDS = range(200) if IS_LONG else range(30)
MOMENTS = (
    "taken", "point.taken", "point.read", "put", "put", "put", "committed", "entered", "point.released", "deleted",
)  # fmt: skip
"""Where a mover dies: in the connector, at the n-th object put into the vault, before and after rows are written."""


@dataclass
class Cellar:
    """A machine that is replicated, and what it held when each point was taken."""

    estate: Estate
    folder: Path
    dana: User
    machine: str
    policy: ReplicationPolicy
    held: dict[UUID, bytes] = field(default_factory=dict)

    def write(self, dice: random.Random) -> None:
        for _ in range(dice.randrange(1, 4)):
            disks.write(
                self.estate.world, self.machine, dice.randrange(disks.SIZE - 200_000),
                dice.randbytes(dice.randrange(1, 200_000)),
            )  # fmt: skip

    def run(self) -> None:
        replication_runs.run_now(actor=self.dana, policy_id=self.policy.pk)

    def time_passes(self) -> None:
        """The leases of the dead and all pauses are over."""
        past = timezone.now() - timedelta(seconds=1)
        ReplicationRun.objects.filter(state="running").update(mover_expires_at=past)
        ReplicationRun.objects.filter(state="queued").update(not_before=None)

    def end(self) -> None:
        """Whoever comes next goes on until nothing waits."""
        self.time_passes()
        assert not was_killed(life())
        assert not ReplicationRun.objects.exclude(state="done").exists(), list(
            ReplicationRun.objects.exclude(state="done").values_list("kind", "state", "error")
        )

    def check(self) -> None:
        """Each point that is listed stands in the vault and holds what the machine held; and nothing else is there."""
        now = disks.read(self.estate.world, self.machine)
        listed = list(RecoveryPoint.objects.filter(state="usable").order_by("taken_at"))
        assert listed
        self.held[listed[-1].pk] = now
        vault_row = Vault.objects.get(policies=self.policy)
        with vaults.opened(vault_row) as vault:
            there = {UUID(one) for one in vault.point_ids()}
            assert {point.pk for point in listed} <= there
            going = RecoveryPoint.objects.filter(state="deleting").values_list("pk", flat=True)
            assert there <= {point.pk for point in listed} | set(going)
            assert vault.runs() == []
            for point in listed:
                stored = vault.point(str(point.pk))
                assert vault.verify(stored).is_good
                with closing(vault.open_disk(stored, disks.ONLY)) as source:
                    assert source.read(0, source.size) == self.held[point.pk], "a point holds what never was"
        bookmark = ReplicationSource.objects.get().bookmark
        kept = [str(bookmark["point"])] if bookmark else []
        assert disks.points(self.estate.world, self.machine) == kept


@pytest.fixture
def cellar(estate: Estate, folder: Path) -> Cellar:
    movers._stopping.clear()
    place = folder / "vault"
    place.mkdir()
    dana = User.objects.create_user("dana", is_staff=True)
    hypervisor = Hypervisor.objects.create(
        name="instant", kind="instant", status="up", settings={"world": str(estate.world.folder)}
    )
    machine = estate.world.add_foreign_machine("alpha")
    row = Machine.objects.create(
        hypervisor=hypervisor, platform_id=machine, name="alpha", power="on", seen_at=timezone.now()
    )
    vault = vaults.create_vault(actor=dana, name="Cellar", kind="folder", location={"path": str(place)})
    policy = replication_policies.create_policy(
        actor=dana, name="Nightly", vault_id=vault.pk, interval_s=3600, rpo_s=7200, keep_last=3, keep_daily=0,
        choices=[ChoiceWish(kind="machine", machine_id=row.pk)],
    )  # fmt: skip
    return Cellar(estate, place, dana, machine, policy)


def doom(cellar: Cellar, dice: random.Random) -> Callable[[], None]:
    moment, turn = dice.choice(MOMENTS), dice.randrange(1, 6)

    def arm() -> None:
        if moment == "taken":
            die_at(movers, "take", after=True)
        elif moment == "put":
            die_at(FolderStore, "put", after=bool(turn % 2), turn=turn)
        elif moment == "committed":
            die_at(moving, "_enter", after=False)
        elif moment == "entered":
            die_at(moving, "_enter", after=True)
        elif moment == "deleted":
            die_at(recovery, "deleted", after=False)
        else:
            cellar.estate.world.faults.set("crash_at", f"{moment} {turn if moment == 'point.read' else 1}")

    return arm


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mover_killed_anywhere_loses_no_point_and_leaves_nothing(seed: int, cellar: Cellar) -> None:
    """Five runs; before the end of each of the later four a mover dies, and the next one dies as well now and then."""
    dice = random.Random(seed)
    cellar.write(dice)
    cellar.run()
    cellar.end()
    cellar.check()
    deaths = 0
    for _ in range(4):
        cellar.write(dice)
        cellar.run()
        for _ in range(dice.choice((1, 1, 2))):
            deaths += was_killed(life(doom(cellar, dice)))
            cellar.estate.world.faults.clear()
            cellar.time_passes()
        cellar.end()
        cellar.check()
    assert deaths, "nobody died: the test is worth nothing"


def test_a_collection_beside_a_dying_mover_frees_what_it_left_and_nothing_else(cellar: Cellar) -> None:
    dice = random.Random(7)
    cellar.write(dice)
    cellar.run()
    cellar.end()
    cellar.check()
    for turn in range(1, 4):
        cellar.write(dice)
        cellar.run()
        assert was_killed(life(lambda turn=turn: die_at(FolderStore, "put", after=True, turn=turn)))  # type: ignore[misc]
        # The dead one's run is still registered: what it put there stays until somebody says that it is dead.
        vault = cellar.policy.vault
        ReplicationRun.objects.create(kind="collect", vault=vault, subject="Cellar")
        assert not was_killed(life())
        cellar.end()
        cellar.check()
    ReplicationRun.objects.create(kind="collect", vault=cellar.policy.vault, subject="Cellar")
    cellar.end()
    cellar.check()
    stored = {file.name for file in (cellar.folder / "chunks").rglob("*") if file.is_file()}
    with vaults.opened(Vault.objects.get(policies=cellar.policy)) as opened:
        needed = set()
        for point in opened.points():
            for leaf in point.disks[0].leaves:
                if leaf:
                    needed |= {name for name in opened._objects.chunk_names(leaf) if name}
    assert stored == needed


@pytest.mark.parametrize("boundary", ["landing.written 1", "landing.made"])
def test_a_mover_killed_while_it_brings_a_point_up_makes_one_machine(boundary: str, cellar: Cellar) -> None:
    cellar.write(random.Random(1))
    cellar.run()
    cellar.end()
    point = RecoveryPoint.objects.get()
    run = recovery.order_landing(
        point, Hypervisor.objects.get(), cellar.dana, name="again", storage="storage-1", networks=[]
    )
    for _ in range(2):
        cellar.estate.world.faults.set("crash_at", boundary)
        killed = was_killed(life())
        assert killed or boundary == "landing.made"
        cellar.time_passes()
    cellar.estate.world.faults.clear()
    cellar.end()
    run.refresh_from_db()
    made = [machine for machine in cellar.estate.world.machines() if machine.key == str(run.pk)]
    assert [machine.id for machine in made] == [run.platform_id]
    assert disks.read(cellar.estate.world, run.platform_id) == disks.read(cellar.estate.world, cellar.machine)
    assert disks.landings(cellar.estate.world) == []


@pytest.mark.parametrize("boundary", ["landing.written 1", "landing.made"])
def test_a_mover_killed_while_it_makes_a_template_makes_one(boundary: str, cellar: Cellar) -> None:
    cellar.write(random.Random(2))
    cellar.run()
    cellar.end()
    run = recovery.order_landing(
        RecoveryPoint.objects.get(), Hypervisor.objects.get(), cellar.dana, name="published", storage="storage-1",
        networks=[], is_template=True,
    )  # fmt: skip
    for _ in range(2):
        cellar.estate.world.faults.set("crash_at", boundary)
        assert was_killed(life()) or boundary == "landing.made"
        cellar.time_passes()
    cellar.estate.world.faults.clear()
    cellar.end()
    run.refresh_from_db()
    made = cellar.estate.world.rows("SELECT id FROM template WHERE name = 'published'")
    assert made == [(run.platform_id,)]
    assert disks.read(cellar.estate.world, run.platform_id) == disks.read(cellar.estate.world, cellar.machine)
    assert disks.landings(cellar.estate.world) == []


def test_a_landing_that_is_cancelled_after_its_mover_died_at_the_end_leaves_no_machine(cellar: Cellar) -> None:
    """The machine stands, and no row says so: the next listing shows whose it is, and that nobody waits for it."""
    cellar.write(random.Random(4))
    cellar.run()
    cellar.end()
    hypervisor, world = Hypervisor.objects.get(), cellar.estate.world
    run = recovery.order_landing(
        RecoveryPoint.objects.get(), hypervisor, cellar.dana, name="again", storage="storage-1", networks=[]
    )
    world.faults.set("crash_at", "landing.made")
    assert was_killed(life())
    world.faults.clear()
    replication_runs.cancel_run(actor=cellar.dana, run_id=run.pk)
    cellar.time_passes()
    assert not was_killed(life())
    run.refresh_from_db()
    assert (run.state, run.platform_id) == ("cancelled", "")
    assert [machine.key for machine in world.machines() if machine.name == "again"] == [str(run.pk)]
    inventory.take(hypervisor.pk)
    pump.run(hypervisor.pk)
    assert [machine.name for machine in world.machines()] == ["alpha"]


def test_a_template_that_stands_when_its_landing_is_cancelled_is_told_all_the_same(cellar: Cellar) -> None:
    """No order of ours deletes a template: whoever cancelled it learns that it is there."""
    cellar.write(random.Random(5))
    cellar.run()
    cellar.end()
    run = recovery.order_landing(
        RecoveryPoint.objects.get(), Hypervisor.objects.get(), cellar.dana, name="published", storage="storage-1",
        networks=[], is_template=True,
    )  # fmt: skip
    cellar.estate.world.faults.set("crash_at", "landing.made")
    assert was_killed(life())
    cellar.estate.world.faults.clear()
    replication_runs.cancel_run(actor=cellar.dana, run_id=run.pk)
    cellar.end()
    run.refresh_from_db()
    assert cellar.estate.world.rows("SELECT id FROM template WHERE name = 'published'") == [(run.platform_id,)]


def test_a_frozen_mover_that_thaws_after_another_did_its_run_changes_nothing(cellar: Cellar) -> None:
    cellar.write(random.Random(3))
    cellar.run()
    cellar.estate.world.faults.set("freeze_at", "point.read")
    frozen = life()
    _, status = os.waitpid(frozen, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    cellar.estate.world.faults.clear()
    cellar.end()
    cellar.check()
    os.kill(frozen, signal.SIGCONT)
    end = time.monotonic() + 30
    while time.monotonic() < end and os.waitpid(frozen, os.WNOHANG)[0] == 0:
        time.sleep(0.02)
    cellar.check()
