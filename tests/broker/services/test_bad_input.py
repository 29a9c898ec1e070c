"""What replication makes of a world that is not as it should be: clocks that jump, disks that change, machines, keys
and places that go. Clear words, nothing lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from django.utils import timezone

from broker.hypervisors import gate, sealing
from broker.models import (
    Event,
    Hypervisor,
    Machine,
    RecoveryPoint,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Vault,
)
from broker.services import (
    movers,
    moving,
    recovery,
    replication_policies,
    replication_promises,
    replication_runs,
    vaults,
)
from broker.services.errors import Invalid
from disks.vault.folder import FolderStore
from disks.vault.points import Configuration, Origin
from disks.vault.vault import Vault as Opened
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import disks
from tests.support.small_disk import read_only_view

DAY = timedelta(days=1)


class Clock:
    """The broker's clock and the platform's, as far as they are from the right time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off = timedelta()
        right, clock = timezone.now, self

        class Moved(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return right() + clock.off

        monkeypatch.setattr(timezone, "now", lambda: right() + self.off)
        monkeypatch.setattr(disks, "datetime", Moved)

    def jump(self, by: timedelta) -> None:
        self.off += by


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def by_schedule(replicas: Replicas) -> ReplicationRun:
    """The run of the only source whose time has come, to its end."""
    before = list(ReplicationRun.objects.filter(kind="replicate").values_list("pk", flat=True))
    assert replication_runs.due() == 1
    replicas.work()
    return ReplicationRun.objects.exclude(pk__in=before).get(kind="replicate")


# --- clocks that jump -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_clock_that_jumps_between_runs_loses_no_run_and_makes_none_twice(
    jump: timedelta, replicas: Replicas, clock: Clock
) -> None:
    replicas.policy(keep_last=2, keep_daily=0)
    first = by_schedule(replicas)
    clock.jump(jump)
    replication_promises.watch()
    next_run_at = replicas.source().next_run_at
    assert next_run_at is not None
    assert next_run_at <= timezone.now() + timedelta(hours=1)
    clock.jump(timedelta(hours=1))
    replicas.write(0, b"since")
    second = by_schedule(replicas)
    assert replication_runs.due() == 0, "once, however long it looked"
    assert (first.state, second.state) == ("done", "done")
    assert second.point is not None
    assert second.whole == ""
    assert replicas.stored(second.point) == replicas.now()
    assert replicas.source().common == second.point


def test_a_clock_that_was_a_day_ahead_and_is_put_right_holds_nothing_up(replicas: Replicas, clock: Clock) -> None:
    replicas.policy(keep_last=1, keep_daily=0)
    clock.jump(DAY)
    early = by_schedule(replicas)
    Vault.objects.update(next_collection_at=timezone.now() + DAY)
    clock.jump(-DAY)
    replication_promises.watch()
    source = replicas.source()
    now = timezone.now()
    assert source.next_run_at is not None
    assert source.next_run_at <= now + timedelta(hours=1)
    assert source.newest_at is None, "no point of the future keeps a promise"
    assert source.breaks_at is not None
    assert source.breaks_at <= now + timedelta(hours=2)
    assert ReplicationRun.objects.filter(kind="collect").exists()
    clock.jump(timedelta(hours=1))
    late = by_schedule(replicas)
    source = replicas.source()
    assert late.point is not None
    assert source.newest_at == late.point.taken_at
    assert source.breaks_at == late.point.taken_at + timedelta(hours=2)
    assert set(RecoveryPoint.objects.values_list("pk", flat=True)) == {early.point_id, late.point_id}
    assert replicas.stored(late.point) == replicas.now()


def test_a_point_of_the_future_keeps_no_promise_though_nobody_looked_meanwhile(
    replicas: Replicas, clock: Clock
) -> None:
    policy = replicas.policy()
    clock.jump(DAY)
    replicas.run(policy)
    clock.jump(-DAY)
    run = replicas.run(policy)
    assert run.point is not None
    source = replicas.source()
    assert source.newest_at == run.point.taken_at
    assert source.breaks_at == run.point.taken_at + timedelta(hours=2)


def test_a_clock_that_is_put_back_during_a_breach_keeps_the_ledger_in_order(replicas: Replicas, clock: Clock) -> None:
    replicas.policy()
    by_schedule(replicas)
    clock.jump(DAY)
    replication_promises.watch()
    assert RpoBreach.objects.filter(until=None).count() == 1
    clock.jump(-DAY)
    replication_promises.watch()
    clock.jump(timedelta(hours=1))
    run = by_schedule(replicas)
    assert (run.state, run.error) == ("done", "")
    breach = RpoBreach.objects.get()
    assert breach.until is not None
    assert breach.until >= breach.since
    assert list(Event.objects.filter(kind__startswith="rpo.").values_list("kind", flat=True)) == [
        "rpo.kept", "rpo.broken",
    ]  # fmt: skip


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_clock_that_jumps_within_a_run_costs_at_most_the_attempt(
    jump: timedelta, replicas: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replicas.policy(keep_last=1, keep_daily=0)
    replicas.run(policy)
    replicas.write(0, b"new")
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    fill, jumps = moving._fill, iter([jump])

    def jumped(*given: object) -> object:
        clock.jump(next(jumps, timedelta()))
        movers.keep_once()  # as the keeper does meanwhile
        return fill(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_fill", jumped)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    assert run.attempt == (2 if jump > timedelta() else 1)
    assert ReplicationRun.objects.filter(kind="replicate").count() == 2
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()
    took_s = replicas.source().took_s
    assert took_s is not None
    assert 0 <= took_s < 60
    assert replicas.opened().runs() == []
    assert replicas.on_platform() == [replicas.source().bookmark["point"]]  # type: ignore[index]


def test_a_mover_whose_lease_a_jump_ended_writes_nothing_when_another_one_has_taken_over(
    replicas: Replicas, clock: Clock
) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    first = movers.take()
    assert first is not None
    assert movers.take() is None
    clock.jump(DAY)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt, RecoveryPoint.objects.count()) == ("done", 2, 1)
    with pytest.raises(movers.LeaseLost):
        moving._carry_out(first)
    movers.let_go(first)
    assert RecoveryPoint.objects.count() == 1
    assert replicas.stored(RecoveryPoint.objects.get()) == replicas.now()


def test_the_run_of_a_mover_that_died_before_the_clock_was_put_back_waits_no_day(
    replicas: Replicas, clock: Clock
) -> None:
    clock.jump(DAY)
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    dead = movers.take()
    assert dead is not None
    movers.let_go(dead)
    clock.jump(-DAY)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)


def test_a_pause_that_was_reckoned_by_a_wrong_clock_is_over(replicas: Replicas, clock: Clock) -> None:
    clock.jump(DAY)
    replicas.world.faults.set("fail_read", 1)
    run = replicas.run(replicas.policy())
    assert run.state == "queued"
    clock.jump(-DAY)
    replicas.work()
    run.refresh_from_db()
    assert run.state == "done"


def test_a_collection_that_is_at_work_outlives_a_jump_of_the_clock(replicas: Replicas, clock: Clock) -> None:
    policy = replicas.policy()
    replicas.run(policy)
    run = ReplicationRun.objects.create(kind="collect", vault=replicas.vault, subject="Cellar")
    hold = movers.take()
    assert hold is not None
    assert hold.run == run
    vault = replicas.opened()
    vault.collection("", id=hold.key(1))
    ours = vault.collection(gate.installation_id(), id=hold.key(2))
    ReplicationRun.objects.filter(pk=run.pk).update(attempt=2)
    clock.jump(2 * DAY)
    moving._end_dead(vault)
    assert ours.id in {one.id for one in vault.runs()}
    movers.let_go(hold)


# --- disks that change ------------------------------------------------------------------------------------------------


def resize(replicas: Replicas, size: int) -> None:
    with disks.path_of(replicas.world, replicas.machines[0]).open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("size", [disks.SIZE * 2, disks.SIZE // 2, disks.SIZE + 512, disks.SIZE - 512])
@pytest.mark.parametrize("forgot", [False, True])
def test_a_disk_that_grows_or_shrinks_between_runs_is_each_time_what_it_was(
    size: int, forgot: bool, replicas: Replicas
) -> None:
    policy = replicas.policy()
    replicas.write(disks.SIZE - 512, b"end" * 100)
    kept = {}
    for number, length in enumerate((disks.SIZE, size, disks.SIZE)):
        resize(replicas, length)
        replicas.write(1000 * number, b"written")
        replicas.write(length - 600, bytes([number + 1]) * 600)
        if forgot:
            replicas.world.faults.set("whole")
        run = replicas.run(policy)
        assert (run.state, run.error) == ("done", "")
        assert run.point is not None
        assert run.point.size_bytes == length
        kept[run.point] = replicas.now()
    for point, held in kept.items():
        assert replicas.stored(point) == held
    assert len(replicas.on_platform()) == 1


def test_a_disk_that_is_not_there_any_more_is_said_and_its_points_stay(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    assert point is not None
    held = replicas.now()
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, name="Nightly")
    source = replicas.source()
    source.disks = ["disk-9"]
    source.save()
    run = replicas.run(policy)
    assert run.state == "failed"
    assert run.error == "Machine alpha has no disk 'disk-9'. Choose among its disks anew."
    assert replicas.stored(point) == held
    assert replicas.on_platform() == [source.bookmark["point"]]  # type: ignore[index]


# --- things that go ---------------------------------------------------------------------------------------------------


def test_a_machine_that_was_deleted_is_said_breaks_its_promise_and_can_be_brought_up_again(
    replicas: Replicas, clock: Clock
) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    assert point is not None
    held = replicas.now()
    replicas.world.remove_machine(replicas.machines[0])
    run = replicas.run(policy)
    assert run.state == "failed"
    assert "alpha" in run.error or "machine" in run.error.lower()
    assert replicas.source().fault == run.error
    clock.jump(DAY)
    replication_promises.watch()
    assert run.error in RpoBreach.objects.get().reason
    landing = recovery.order_landing(
        point, Hypervisor.objects.get(name="instant-1"), replicas.plant.dana, name="alpha", storage="storage-1",
        networks=[],
    )  # fmt: skip
    replicas.work()
    landing.refresh_from_db()
    assert (landing.state, landing.error) == ("done", "")
    assert disks.read(replicas.world, landing.platform_id) == held
    assert list(RecoveryPoint.objects.values_list("pk", flat=True)) == [point.pk]


def test_a_checkpoint_that_is_gone_costs_a_whole_reading_and_says_so(replicas: Replicas) -> None:
    policy = replicas.policy()
    first = replicas.run(policy).point
    held = replicas.now()
    (checkpoint,) = replicas.on_platform()
    shutil.rmtree(replicas.world.folder / "points" / replicas.machines[0] / checkpoint)
    replicas.write(1_000_000, bytes(100_000))
    run = replicas.run(policy)
    assert run.whole == "The machine does not remember the last point any more."
    assert first is not None
    assert run.point is not None
    assert replicas.stored(first) == held
    assert replicas.stored(run.point) == replicas.now()


# --- vaults -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(replicas: Replicas) -> Iterator[Callable[[], None]]:
    """Makes the vault's place read-only, as a share is that somebody mounted anew."""
    opened: list[int] = []

    def remount() -> None:
        path, handle = read_only_view(replicas.folder)
        opened.append(handle)
        Vault.objects.filter(pk=replicas.vault.pk).update(location={"path": str(path)})
        replicas.vault.refresh_from_db()

    yield remount
    for handle in opened:
        os.close(handle)


def test_a_vault_that_is_read_only_gives_its_points_and_takes_no_more(
    replicas: Replicas, read_only: Callable[[], None]
) -> None:
    policy = replicas.policy(keep_last=1, keep_daily=0)
    point = replicas.run(policy).point
    assert point is not None
    held = replicas.now()
    place = dict(replicas.vault.location)
    read_only()
    run = replicas.run(policy)
    assert run.state in ("queued", "failed")
    assert "is read-only for us" in run.error
    assert "Check mount and rights." in run.error
    assert len(replicas.on_platform()) == 1, "nothing is left of the attempt"
    assert replicas.stored(point) == held
    verification = recovery.verify_point(actor=replicas.plant.dana, point_id=point.pk)
    replicas.work()
    verification.refresh_from_db()
    assert (verification.state, verification.error) == ("done", "")
    recovery.delete_point(actor=replicas.plant.dana, point_id=point.pk)
    replicas.work()
    assert RecoveryPoint.objects.get().state == "deleting", "it is not said to be gone while it is there"
    assert replicas.opened().has_point(str(point.pk))
    Vault.objects.update(location=place, status="up")
    replicas.vault.refresh_from_db()
    replicas.pauses_pass()
    replicas.work()
    if run.state == "failed":
        run = replicas.run(policy)
    run.refresh_from_db()
    assert run.state == "done"
    assert run.point is not None
    assert replicas.opened().point_ids() == [str(run.point.pk)]


def test_a_vault_whose_key_changed_is_refused_until_the_right_one_is_given(replicas: Replicas, tmp_path: Path) -> None:
    key = vaults.new_key()
    place = tmp_path / "sealed"
    place.mkdir()
    dana = replicas.plant.dana
    sealed = vaults.create_vault(actor=dana, name="Sealed", kind="folder", location={"path": str(place)}, key=key)
    policy = replicas.policy(vault_id=sealed.pk)
    replicas.vault = sealed
    point = replicas.run(policy).point
    assert point is not None
    held = replicas.now()
    with pytest.raises(Invalid) as refused:
        vaults.change_vault(
            actor=dana, vault_id=sealed.pk, name="Sealed", location={"path": str(place)}, key=vaults.new_key()
        )
    assert "not the key that the vault was made with" in refused.value.fields["key"]
    Vault.objects.filter(pk=sealed.pk).update(secrets=sealing.seal({vaults.KEY: vaults.new_key()}))
    run = replicas.run(policy)
    sealed.refresh_from_db()
    assert (run.state, sealed.status) == ("failed", "refused")
    assert "This is not the key that the vault was made with." in run.error
    assert replicas.on_platform() == [replicas.source().bookmark["point"]]  # type: ignore[index]
    later = replication_runs.run_now(actor=dana, policy_id=policy.pk)[0]
    replicas.work()
    later.refresh_from_db()
    assert (later.state, later.attempt) == ("queued", 0), "nobody tries a key again and again that was refused"
    vaults.change_vault(actor=dana, vault_id=sealed.pk, name="Sealed", location={"path": str(place)}, key=key)
    replicas.work()
    later.refresh_from_db()
    replicas.vault = sealed = Vault.objects.get(pk=sealed.pk)
    assert (later.state, sealed.status) == ("done", "up")
    assert later.whole == "", "nothing was lost"
    assert replicas.stored(point) == held


def test_two_installations_share_a_vault_and_neither_ends_or_collects_what_is_the_others(replicas: Replicas) -> None:
    policy = replicas.policy(keep_last=1, keep_daily=0)
    replicas.run(policy)
    theirs = Opened.open(FolderStore(replicas.folder))
    content = random.Random(5).randbytes(3 << 20)
    done = theirs.begin("another installation", "their desk", threads=0)
    disk = done.disk("vda", len(content))
    disk.write(0, content)
    disk.commit()
    their_point = done.commit(
        origin=Origin("m", "theirs"), configuration=Configuration(1, 512, "bios"), read_at=timezone.now() - 9 * DAY
    )
    going = theirs.begin("another installation", "their desk", threads=0)
    half = going.disk("vda", len(content))
    half.write(0, content[::-1])
    dead = theirs.collection("another installation")
    for number in range(3):
        replicas.write(number, b"ours")
        replicas.run(policy)
    ReplicationRun.objects.create(kind="collect", vault=replicas.vault, subject="Cellar")
    replicas.work()
    assert {run.id for run in theirs.runs()} == {going.id, dead.id}, "whether they live only their owner knows"
    half.commit()
    later = going.commit(
        origin=Origin("m", "theirs"), configuration=Configuration(1, 512, "bios"), read_at=timezone.now()
    )
    ours = RecoveryPoint.objects.get()
    assert set(theirs.point_ids()) == {their_point.id, later.id, str(ours.pk)}
    theirs.end_run(dead.id)
    theirs.collect("another installation")
    with vaults.opened(replicas.vault) as vault:
        for point, held in ((their_point, content), (later, content[::-1])):
            source = vault.open_disk(vault.point(point.id), "vda")
            assert source.read(0, source.size) == held, "ours reads theirs"
    there = theirs.point(str(ours.pk))
    source = theirs.open_disk(there, disks.ONLY)
    assert source.read(0, source.size) == replicas.now(), "theirs reads ours"
    assert all(theirs.verify(point).is_good for point in theirs.points())


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = (
    "../../etc/passwd", "..", ".", "a/b", "a\\b", 'quo"te', "apo'strophe", "$(reboot)", "`x`", "tür-ø-桌面-🖥",
    "x" * 200, "-rf", "%2f%00", "con", "a;b|c&d", "two  blanks", "line\nbreak", "\u202egnp.exe",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_is_replicated_whatever_it_is_called(name: str, replicas: Replicas, tmp_path: Path) -> None:
    policy = replicas.policy()
    for model in (Machine, ReplicationSource):
        model.objects.filter(platform_id=replicas.machines[0]).update(name=name)
    run = replicas.run(policy)
    assert (run.state, run.error) == ("done", "")
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()
    assert replicas.opened().point(str(run.point.pk)).origin.machine_name == name
    inside = {path.name for path in tmp_path.rglob("*") if name in path.name and len(name) > 2}
    assert not inside, "no name becomes a path"
    assert name not in {path.name for path in tmp_path.parent.iterdir()}
