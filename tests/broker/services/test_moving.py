"""What movers do: points that hold what the machines held, whatever dies, and nothing left anywhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from broker.models import Event, RecoveryPoint, ReplicationRun
from broker.services import movers, moving, replication
from tests.broker.plant import Plant
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import disks


@pytest.fixture
def made(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction; what it does is called by name.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return Replicas(plant, tmp_path / "vault")


# --- replicate --------------------------------------------------------------------------------------------------------


def test_a_run_brings_the_disk_into_the_vault(made: Replicas) -> None:
    run = made.run(made.policy())
    assert (run.state, run.error) == ("done", "")
    assert run.point is not None
    assert made.stored(run.point) == made.now()
    assert run.total_bytes == disks.SIZE
    assert run.whole == "It is the first point."
    source = made.source()
    assert source.newest_at == run.point.taken_at
    assert source.common == run.point
    assert run.point.machine_name == "alpha"


def test_the_next_run_reads_only_what_changed_and_both_points_stand(made: Replicas) -> None:
    policy = made.policy()
    first = made.run(policy).point
    before = made.now()
    made.write(1_000_000, b"new")
    run = made.run(policy)
    assert run.whole == ""
    assert 0 < run.read_bytes <= 2 * disks.GRAIN
    assert run.point is not None
    assert first is not None
    assert made.stored(run.point) == made.now()
    assert made.stored(first) == before


def test_the_platform_keeps_nothing_but_what_the_next_run_builds_on(made: Replicas) -> None:
    policy = made.policy()
    for _ in range(3):
        made.run(policy)
        assert len(made.on_platform()) == 1
    assert made.on_platform() == [made.source().bookmark["point"]]  # type: ignore[index]


def test_two_policies_over_one_machine_do_not_spoil_each_others_bookmarks(made: Replicas) -> None:
    policies = [made.policy(), made.policy(name="Off site")]
    for policy in policies:
        made.run(policy)
    made.write(0, b"x")
    for policy in policies:
        run = made.run(policy)
        assert run.whole == ""
        assert run.point is not None
        assert made.stored(run.point) == made.now()
    assert len(made.on_platform()) == 2


def test_what_the_platform_forgot_is_read_whole_and_says_so(made: Replicas) -> None:
    policy = made.policy()
    made.run(policy)
    made.write(2_000_000, bytes(100))
    made.world.faults.set("whole")
    run = made.run(policy)
    assert "does not remember" in run.whole
    assert run.point is not None
    assert made.stored(run.point) == made.now()
    assert made.source().whole == run.whole


def test_what_was_zeroed_since_is_zero_in_the_next_point_also_when_all_is_read(made: Replicas) -> None:
    policy = made.policy()
    made.run(policy)
    made.write(0, bytes(200_000))
    made.world.faults.set("whole")
    run = made.run(policy)
    assert run.point is not None
    assert made.stored(run.point) == bytes(disks.SIZE)


def test_a_vault_that_lost_the_common_point_gets_a_whole_one(made: Replicas) -> None:
    policy = made.policy()
    point = made.run(policy).point
    assert point is not None
    with_vault = made.opened()
    with_vault.delete_point(str(point.pk))
    run = made.run(policy)
    assert run.whole == "It is the first point."
    assert run.point is not None
    assert made.stored(run.point) == made.now()


def test_what_fails_for_a_moment_is_tried_again_and_leaves_nothing(made: Replicas) -> None:
    policy = made.policy()
    made.world.faults.set("fail_read", 1)
    run = made.run(policy)
    assert (run.state, run.attempt) == ("queued", 1)
    assert "went away" in run.error
    assert made.source().fault == run.error
    assert made.on_platform() == []
    assert made.opened().runs() == []
    made.pauses_pass()
    made.work()
    run.refresh_from_db()
    assert (run.state, run.attempt, run.error) == ("done", 2, "")
    assert made.source().fault == ""


def test_what_is_refused_fails_at_once_in_words(made: Replicas) -> None:
    made.world.faults.set("fail_point")
    run = made.run(made.policy())
    assert run.state == "failed"
    assert "No point of alpha" in run.error
    assert made.source().fault == run.error


def test_a_run_gives_up_after_so_many_attempts(made: Replicas) -> None:
    policy = made.policy()
    made.world.faults.set("fail_read")
    run = made.run(policy)
    for _ in range(movers.ATTEMPTS):
        made.pauses_pass()
        made.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("failed", movers.ATTEMPTS)


def test_how_long_a_run_took_leaves_out_attempts_that_failed_and_their_pauses(made: Replicas) -> None:
    policy = made.policy()
    made.world.faults.set("fail_read", 1)
    run = made.run(policy)
    assert run.state == "queued"
    made.world.faults.clear()
    ReplicationRun.objects.update(started_at=timezone.now() - timedelta(hours=2))
    made.pauses_pass()
    made.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    took_s = made.source().took_s
    assert took_s is not None
    assert took_s < 60


def test_what_cannot_be_taken_away_is_owed_and_paid_for_as_long_as_it_takes(
    made: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = made.policy()
    replication.run_now(actor=made.plant.dana, policy_id=policy.pk)
    monkeypatch.setattr(movers, "ATTEMPTS", 1)
    made.world.faults.set("fail_read")
    take = disks.take

    def take_and_go_away(*given: Any) -> disks.InstantPoint:
        point = take(*given)
        made.world.faults.set("fail_release")
        return point

    monkeypatch.setattr(disks, "take", take_and_go_away)
    made.work()
    debt = ReplicationRun.objects.get(kind="release")
    assert len(made.on_platform()) == 1
    for _ in range(movers.ATTEMPTS + 2):
        made.pauses_pass()
        made.work()
    debt.refresh_from_db()
    assert debt.state == "queued"
    made.world.faults.clear("fail_release")
    made.pauses_pass()
    made.work()
    debt.refresh_from_db()
    assert debt.state == "done"
    assert made.on_platform() == []


def test_a_dead_movers_run_begins_anew_under_another_key(made: Replicas) -> None:
    policy = made.policy()
    run = replication.run_now(actor=made.plant.dana, policy_id=policy.pk)[0]
    dead = movers.take()
    assert dead is not None
    movers.let_go(dead)
    vault = made.opened()
    vault.begin("an installation", "alpha", id=dead.key(1))
    made.work()
    run.refresh_from_db()
    assert run.state == "running", "its lease holds"
    made.expire(run)
    made.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert vault.runs() == []
    with pytest.raises(movers.LeaseLost), dead.writing():
        pass


def test_a_point_that_a_dead_mover_committed_is_entered_and_not_made_again(
    made: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = made.policy()
    run = replication.run_now(actor=made.plant.dana, policy_id=policy.pk)[0]

    class Dies(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(moving, "_enter", die)
        patch.setattr(moving, "_release", lambda *_: None)
        with pytest.raises(Dies):
            moving.work()
    committed = made.opened().point_ids()
    made.expire(run)
    made.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == ("done", 2)
    assert [str(run.point_id)] == committed == made.opened().point_ids()
    assert made.on_platform() == []
    assert made.stored(RecoveryPoint.objects.get()) == made.now()


def test_a_mover_that_was_frozen_and_thawed_enters_nothing(made: Replicas) -> None:
    policy = made.policy()
    run = replication.run_now(actor=made.plant.dana, policy_id=policy.pk)[0]
    frozen = movers.take()
    assert frozen is not None
    made.expire(run)
    made.work()
    assert RecoveryPoint.objects.count() == 1
    with pytest.raises(movers.LeaseLost):
        moving._carry_out(frozen)
    movers.let_go(frozen)
    run.refresh_from_db()
    assert run.state == "done"
    assert RecoveryPoint.objects.count() == 1


def test_a_mover_that_ends_gives_its_run_back(made: Replicas) -> None:
    policy = made.policy()
    run = replication.run_now(actor=made.plant.dana, policy_id=policy.pk)[0]
    movers.stop()
    assert moving.work()
    run.refresh_from_db()
    assert (run.state, run.mover_expires_at, run.error) == ("queued", None, "")
    movers._stopping.clear()
    made.work()
    run.refresh_from_db()
    assert run.state == "done"


def test_a_platform_that_needs_long_before_the_first_byte_is_waited_for(made: Replicas) -> None:
    made.world.faults.set("slow", 3)
    run = made.run(made.policy())
    assert (run.state, run.error) == ("done", "")
    assert not made.world.faults.strikes("slow"), "it was asked until it had nothing more to say"
    assert run.point is not None
    assert made.stored(run.point) == made.now()


def test_a_run_that_waits_for_a_platform_can_be_cancelled(made: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made.policy()
    run = replication.run_now(actor=made.plant.dana, policy_id=policy.pk)[0]
    made.world.faults.set("slow")  # for ever

    def says_and_hears(self: movers.Hold, step: str, **how: Any) -> None:
        """The keeper's part, which no thread does here."""
        says(self, step, **how)
        if "takes its time" in step:
            replication.cancel_run(actor=made.plant.dana, run_id=run.pk)
            movers.keep_once()

    says = movers.Hold.says
    monkeypatch.setattr(movers.Hold, "says", says_and_hears)
    made.work()
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert made.on_platform() == []


def test_a_cancelled_run_ends_and_leaves_nothing(made: Replicas) -> None:
    policy = made.policy()
    made.world.faults.set("fail_read", 1)
    run = made.run(policy)
    replication.cancel_run(actor=made.plant.dana, run_id=run.pk)
    made.work()
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert made.on_platform() == []
    assert RecoveryPoint.objects.count() == 0


def test_a_vault_that_is_away_is_told_once_when_lost_and_once_when_back(made: Replicas, tmp_path: Path) -> None:
    policy = made.policy()
    made.folder.rename(tmp_path / "elsewhere")
    run = made.run(policy)
    assert "not there" in run.error
    made.vault.refresh_from_db()
    assert made.vault.status == "down"
    assert list(Event.objects.filter(kind__startswith="vault.").values_list("kind", flat=True)) == ["vault.lost"]
    made.pauses_pass()
    made.work()
    (tmp_path / "elsewhere").rename(made.folder)
    made.pauses_pass()
    made.work()
    run.refresh_from_db()
    assert run.state == "done"
    kinds = Event.objects.filter(kind__startswith="vault.").order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["vault.lost", "vault.back"]


def test_retention_deletes_what_the_policy_does_not_keep(made: Replicas) -> None:
    policy = made.policy(keep_last=2, keep_daily=0)
    for number in range(4):
        made.write(number, b"z")
        made.run(policy)
    assert RecoveryPoint.objects.count() == 2
    listed = RecoveryPoint.objects.values_list("pk", flat=True)
    assert set(made.opened().point_ids()) == {str(pk) for pk in listed}


def test_a_fault_of_ours_ends_the_run_in_words_and_not_the_mover(
    made: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(moving.ACTS, ReplicationRun.Kind.REPLICATE, break_)
    run = made.run(made.policy())
    assert run.state == "failed"
    assert "mistake" in run.error
