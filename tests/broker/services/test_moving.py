"""What movers do: points that hold what the machines held, whatever dies, and nothing left anywhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from broker.hypervisors.abilities import runs_at_once
from broker.models import Event, RecoveryPoint, ReplicationRun
from broker.services import movers, moving, replication_runs
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import disks

# --- replicate --------------------------------------------------------------------------------------------------------


def test_a_run_brings_the_disk_into_the_vault(replicas: Replicas) -> None:
    run = replicas.run(replicas.policy())
    assert (run.state, run.error) == ("done", "")
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()
    assert run.total_bytes == disks.SIZE
    assert run.whole == "It is the first point."
    source = replicas.source()
    assert source.newest_at == run.point.taken_at
    assert source.common == run.point
    assert run.point.machine_name == "alpha"


def test_the_next_run_reads_only_what_changed_and_both_points_stand(replicas: Replicas) -> None:
    policy = replicas.policy()
    first = replicas.run(policy).point
    before = replicas.now()
    replicas.write(1_000_000, b"new")
    run = replicas.run(policy)
    assert run.whole == ""
    assert 0 < run.read_bytes <= 2 * disks.GRAIN
    assert run.point is not None
    assert first is not None
    assert replicas.stored(run.point) == replicas.now()
    assert replicas.stored(first) == before


def test_the_platform_keeps_nothing_but_what_the_next_run_builds_on(replicas: Replicas) -> None:
    policy = replicas.policy()
    for _ in range(3):
        replicas.run(policy)
        assert len(replicas.on_platform()) == 1
    assert replicas.on_platform() == [replicas.source().bookmark["point"]]  # type: ignore[index]


def test_two_policies_over_one_machine_do_not_spoil_each_others_bookmarks(replicas: Replicas) -> None:
    policies = [replicas.policy(), replicas.policy(name="Off site")]
    for policy in policies:
        replicas.run(policy)
    replicas.write(0, b"x")
    for policy in policies:
        run = replicas.run(policy)
        assert run.whole == ""
        assert run.point is not None
        assert replicas.stored(run.point) == replicas.now()
    assert len(replicas.on_platform()) == 2


def test_what_the_platform_forgot_is_read_whole_and_says_so(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.run(policy)
    replicas.write(2_000_000, bytes(100))
    replicas.world.faults.set("whole")
    run = replicas.run(policy)
    assert "does not remember" in run.whole
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()
    assert replicas.source().whole == run.whole


def test_what_was_zeroed_since_is_zero_in_the_next_point_also_when_all_is_read(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.run(policy)
    replicas.write(0, bytes(200_000))
    replicas.world.faults.set("whole")
    run = replicas.run(policy)
    assert run.point is not None
    assert replicas.stored(run.point) == bytes(disks.SIZE)


def test_a_vault_that_lost_the_common_point_gets_a_whole_one(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    assert point is not None
    with_vault = replicas.opened()
    with_vault.delete_point(str(point.pk))
    run = replicas.run(policy)
    assert run.whole == "It is the first point."
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()


def test_what_fails_for_a_moment_is_tried_again_and_leaves_nothing(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.world.faults.set("fail_read", 1)
    run = replicas.run(policy)
    assert (run.state, run.attempt) == ("queued", 1)
    assert "went away" in run.error
    assert replicas.source().fault == run.error
    assert replicas.on_platform() == []
    assert replicas.opened().runs() == []
    replicas.pauses_pass()
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt, run.error) == ("done", 2, "")
    assert replicas.source().fault == ""


def test_what_is_refused_fails_at_once_in_words(replicas: Replicas) -> None:
    replicas.world.faults.set("fail_point")
    run = replicas.run(replicas.policy())
    assert run.state == "failed"
    assert "No point of alpha" in run.error
    assert replicas.source().fault == run.error


def test_a_run_gives_up_after_so_many_attempts(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.world.faults.set("fail_read")
    run = replicas.run(policy)
    for _ in range(movers.ATTEMPTS):
        replicas.pauses_pass()
        replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("failed", movers.ATTEMPTS)


def test_how_long_a_run_took_leaves_out_attempts_that_failed_and_their_pauses(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.world.faults.set("fail_read", 1)
    run = replicas.run(policy)
    assert run.state == "queued"
    replicas.world.faults.clear()
    ReplicationRun.objects.update(started_at=timezone.now() - timedelta(hours=2))
    replicas.pauses_pass()
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    took_s = replicas.source().took_s
    assert took_s is not None
    assert took_s < 60


def test_what_cannot_be_taken_away_is_owed_and_paid_for_as_long_as_it_takes(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replicas.policy()
    replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)
    monkeypatch.setattr(movers, "ATTEMPTS", 1)
    replicas.world.faults.set("fail_read")
    take = disks.take

    def take_and_go_away(*given: Any) -> disks.InstantPoint:
        point = take(*given)
        replicas.world.faults.set("fail_release")
        return point

    monkeypatch.setattr(disks, "take", take_and_go_away)
    replicas.work()
    debt = ReplicationRun.objects.get(kind="release")
    assert len(replicas.on_platform()) == 1
    for _ in range(movers.ATTEMPTS + 2):
        replicas.pauses_pass()
        replicas.work()
    debt.refresh_from_db()
    assert debt.state == "queued"
    replicas.world.faults.clear("fail_release")
    replicas.pauses_pass()
    replicas.work()
    debt.refresh_from_db()
    assert debt.state == "done"
    assert replicas.on_platform() == []


def test_a_dead_movers_run_begins_anew_under_another_key(replicas: Replicas) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    dead = movers.take()
    assert dead is not None
    movers.let_go(dead)
    vault = replicas.opened()
    vault.begin("an installation", "alpha", id=dead.key(1))
    replicas.work()
    run.refresh_from_db()
    assert run.state == "running", "its lease holds"
    replicas.expire(run)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert vault.runs() == []
    with pytest.raises(movers.LeaseLost), dead.writing():
        pass


def test_a_point_that_a_dead_mover_committed_is_entered_and_not_made_again(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]

    class Dies(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(moving, "_enter", die)
        patch.setattr(moving, "_release", lambda *_: None)
        with pytest.raises(Dies):
            moving.work()
    committed = replicas.opened().point_ids()
    replicas.expire(run)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert [str(run.point_id)] == committed == replicas.opened().point_ids()
    assert replicas.on_platform() == []
    assert replicas.stored(RecoveryPoint.objects.get()) == replicas.now()


def test_a_mover_that_was_frozen_and_thawed_enters_nothing(replicas: Replicas) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    frozen = movers.take()
    assert frozen is not None
    replicas.expire(run)
    replicas.work()
    assert RecoveryPoint.objects.count() == 1
    with pytest.raises(movers.LeaseLost):
        moving._carry_out(frozen)
    movers.let_go(frozen)
    run.refresh_from_db()
    assert run.state == "done"
    assert RecoveryPoint.objects.count() == 1


def test_a_mover_that_ends_gives_its_run_back(replicas: Replicas) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    movers.stop()
    assert moving.work()
    run.refresh_from_db()
    assert (run.state, run.mover_expires_at, run.error) == ("queued", None, "")
    movers._stopping.clear()
    replicas.work()
    run.refresh_from_db()
    assert run.state == "done"


def test_a_mover_that_was_woken_goes_on_until_nothing_waits(replicas: Replicas) -> None:
    replication_runs.run_now(actor=replicas.plant.dana, policy_id=replicas.policy(0, 1).pk)
    moving.work_on()
    assert [run.state for run in ReplicationRun.objects.filter(kind="replicate")] == ["done", "done"]


def test_a_mover_that_ends_takes_nothing_more(replicas: Replicas) -> None:
    replication_runs.run_now(actor=replicas.plant.dana, policy_id=replicas.policy(0, 1).pk)
    movers.stop()
    moving.work_on()
    assert set(ReplicationRun.objects.values_list("state", "attempt")) == {("queued", 0)}


def test_the_clock_hints_at_the_first_of_many_runs_alone(replicas: Replicas) -> None:
    """A mover that has too much to do must not have to hear of each run every other second as well."""
    rows = [
        ReplicationRun(kind="verify", subject=str(number), rank=number % 2, vault=replicas.vault)
        for number in range(3 * movers.HINTS)
    ]
    ReplicationRun.objects.bulk_create(rows)
    hinted = movers.backlog()
    assert len(hinted) == movers.HINTS
    assert set(ReplicationRun.objects.filter(pk__in=hinted).values_list("rank", flat=True)) == {0}


def test_a_hypervisor_that_is_full_of_work_keeps_no_other_waiting(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a dead mover left there does not count."""
    monkeypatch.setattr(movers, "runs_at_once", lambda kind: 1)
    there = ReplicationRun.objects.filter(kind="replicate")
    replication_runs.run_now(actor=replicas.plant.dana, policy_id=replicas.policy(0, 1).pk)
    first = movers.take()
    assert first is not None
    assert (movers.take(), movers.backlog()) == (None, [])
    elsewhere = ReplicationRun.objects.create(kind="verify", subject="elsewhere", vault=replicas.vault)
    assert movers.backlog() == [elsewhere.pk]
    beside = movers.take()
    assert beside is not None
    assert beside.run == elsewhere
    replicas.expire(first.run)
    assert set(movers.backlog()) == set(there.values_list("pk", flat=True))
    for hold in (first, beside):
        movers.let_go(hold)


def test_hypercore_is_asked_for_four_points_at_once_and_others_for_half_of_what_a_mover_carries() -> None:
    assert {kind: runs_at_once(kind) for kind in ("hypercore", "esxi", "kvm")} == {"hypercore": 4, "esxi": 8, "kvm": 8}


def test_a_platform_that_needs_long_before_the_first_byte_is_waited_for(replicas: Replicas) -> None:
    replicas.world.faults.set("slow", 3)
    run = replicas.run(replicas.policy())
    assert (run.state, run.error) == ("done", "")
    assert not replicas.world.faults.strikes("slow"), "it was asked until it had nothing more to say"
    assert run.point is not None
    assert replicas.stored(run.point) == replicas.now()


def test_a_run_that_waits_for_a_platform_can_be_cancelled(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replicas.policy()
    run = replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)[0]
    replicas.world.faults.set("slow")  # for ever

    def says_and_hears(self: movers.Hold, step: str, **how: Any) -> None:
        """The keeper's part, which no thread does here."""
        says(self, step, **how)
        if "takes its time" in step:
            replication_runs.cancel_run(actor=replicas.plant.dana, run_id=run.pk)
            movers.keep_once()

    says = movers.Hold.says
    monkeypatch.setattr(movers.Hold, "says", says_and_hears)
    replicas.work()
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert replicas.on_platform() == []


def test_a_cancelled_run_ends_and_leaves_nothing(replicas: Replicas) -> None:
    policy = replicas.policy()
    replicas.world.faults.set("fail_read", 1)
    run = replicas.run(policy)
    replication_runs.cancel_run(actor=replicas.plant.dana, run_id=run.pk)
    replicas.work()
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert replicas.on_platform() == []
    assert RecoveryPoint.objects.count() == 0


def test_a_vault_that_is_away_is_told_once_when_lost_and_once_when_back(replicas: Replicas, tmp_path: Path) -> None:
    policy = replicas.policy()
    replicas.folder.rename(tmp_path / "elsewhere")
    run = replicas.run(policy)
    assert "not there" in run.error
    replicas.vault.refresh_from_db()
    assert replicas.vault.status == "down"
    assert list(Event.objects.filter(kind__startswith="vault.").values_list("kind", flat=True)) == ["vault.lost"]
    replicas.pauses_pass()
    replicas.work()
    (tmp_path / "elsewhere").rename(replicas.folder)
    replicas.pauses_pass()
    replicas.work()
    run.refresh_from_db()
    assert run.state == "done"
    kinds = Event.objects.filter(kind__startswith="vault.").order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["vault.lost", "vault.back"]


def test_retention_deletes_what_the_policy_does_not_keep(replicas: Replicas) -> None:
    policy = replicas.policy(keep_last=2, keep_daily=0)
    for number in range(4):
        replicas.write(number, b"z")
        replicas.run(policy)
    assert RecoveryPoint.objects.count() == 2
    listed = RecoveryPoint.objects.values_list("pk", flat=True)
    assert set(replicas.opened().point_ids()) == {str(pk) for pk in listed}


def test_a_fault_of_ours_ends_the_run_in_words_and_not_the_mover(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(moving.ACTS, ReplicationRun.Kind.REPLICATE, break_)
    run = replicas.run(replicas.policy())
    assert run.state == "failed"
    assert "mistake" in run.error
