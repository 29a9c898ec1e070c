"""Standbys: machines that wait as their sources were at the newest point, taken by failovers, never anybody's lost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from broker.models import (
    Desktop,
    Event,
    Failover,
    Machine,
    Operation,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    Standby,
)
from broker.selectors import drift
from broker.services import housekeeping, movers, moving, replication_policies, replication_runs, standbys, strays
from broker.services.errors import Clash, Forbidden, Invalid
from tests.broker.plant import Plant
from tests.broker.services.movable import House
from tests.doubles.instant import disks


class Guarded(House):
    """A desktop whose policy keeps a standby on the other hypervisor."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        super().__init__(plant, folder)
        self.policy = self.replicate()
        self.guard()

    def guard(self, **fields: Any) -> None:
        wanted: dict[str, Any] = {"target_storage_id": self.target.storage_id, "keeps_standby": True}
        self.policy = replication_policies.change_policy(
            actor=self.plant.dana, policy_id=self.policy.pk, **(wanted | fields)
        )

    def write(self, offset: int, data: bytes) -> None:
        disks.write(self.world(self.here), self.desktop.machine_id, offset, data)

    def now(self) -> bytes:
        return self.bytes_of(self.here, self.desktop.machine_id)

    def run(self) -> RecoveryPoint:
        """A point, and all that follows from it."""
        replication_runs.run_now(actor=self.plant.dana, policy_id=self.policy.pk)
        self.work()
        return RecoveryPoint.objects.order_by("-taken_at")[0]

    def work(self) -> None:
        while moving.work():
            pass

    def watch(self) -> None:
        housekeeping.tidy()
        self.work()

    def start(self, standby: Standby) -> None:
        """Somebody does, at the platform."""
        with self.world(self.there).change() as db:
            db.execute("UPDATE machine SET power = 'on' WHERE id = ?", [standby.machine_id])

    def carry_out(self) -> None:
        for name in (self.here, self.there):
            self.plant.pump(name)
            self.plant.look(name)

    @property
    def standby(self) -> Standby:
        return Standby.objects.get(is_leaving=False)

    def held(self, standby: Standby) -> bytes:
        return self.bytes_of(self.there, standby.machine_id)

    def last_run(self) -> ReplicationRun:
        return ReplicationRun.objects.filter(kind="standby").order_by("-created_at")[0]


@pytest.fixture
def guarded(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    movers._stopping.clear()
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return Guarded(plant, tmp_path / "vault")


def test_a_policy_that_begins_to_keep_standbys_has_them_made_of_the_newest_points(guarded: Guarded) -> None:
    guarded.watch()
    standby = guarded.standby
    assert guarded.held(standby) == guarded.now()
    assert standby.point == RecoveryPoint.objects.get()
    assert standby.hypervisor.name == guarded.there
    machine = guarded.world(guarded.there).machine(standby.machine_id)
    assert machine is not None
    assert machine.power == "off"
    guarded.watch()
    assert ReplicationRun.objects.filter(kind="standby").count() == 1, "nothing is done where nothing has changed"


def test_each_new_point_comes_into_the_standby_by_what_changed(guarded: Guarded) -> None:
    guarded.watch()
    first = guarded.standby
    for turn in range(3):
        guarded.write(turn * 1_000_000, b"letter %d" % turn)
        point = guarded.run()
        standby = guarded.standby
        assert (standby.pk, standby.machine_id, standby.point) == (first.pk, first.machine_id, point)
        assert guarded.held(standby) == guarded.now()
        assert 0 < guarded.last_run().read_bytes <= 2 << 20
    assert Machine.objects.filter(hypervisor=first.hypervisor, platform_id=first.machine_id).count() <= 1


def test_the_point_that_a_standby_holds_is_not_thinned_out(guarded: Guarded) -> None:
    guarded.guard(keep_last=1, keep_daily=0)
    guarded.watch()
    held = guarded.standby.point
    guarded.world(guarded.there).faults.set("fail_write", "9")
    for turn in range(3):
        guarded.write(0, b"letter %d" % turn)
        guarded.run()
    assert guarded.standby.point == held
    assert held in RecoveryPoint.objects.exclude(state="deleting")


def test_where_changes_cannot_be_written_a_new_one_takes_its_place_and_the_old_one_goes(guarded: Guarded) -> None:
    guarded.watch()
    old = guarded.standby
    guarded.world(guarded.there).faults.set("no_refresh", "1")
    guarded.write(0, b"new")
    guarded.run()
    new = guarded.standby
    assert new.machine_id != old.machine_id
    assert guarded.held(new) == guarded.now()
    guarded.watch()
    guarded.carry_out()
    guarded.watch()
    assert guarded.world(guarded.there).machine(old.machine_id) is None
    assert list(Standby.objects.all()) == [new]


def test_a_platform_that_takes_whole_disks_only_gets_them_so_often_and_no_more(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standbys, "can_refresh", lambda kind: False)
    guarded.guard(standby_every_s=3600)
    guarded.watch()
    made = guarded.standby
    guarded.write(0, b"new")
    guarded.run()
    assert guarded.standby.point == made.point
    Standby.objects.update(refreshed_at=timezone.now() - timedelta(hours=2))
    guarded.watch()
    assert guarded.standby.point != made.point


@pytest.mark.parametrize("boundary", ["refresh.written", "refresh.made", "landing.written", "landing.made"])
def test_a_death_while_a_standby_is_brought_up_to_date_is_made_up_for(boundary: str, guarded: Guarded) -> None:
    class Dies(BaseException): ...

    def die(self: object, at: str) -> None:
        if at == boundary and not died:
            died.append(at)
            raise Dies

    died: list[str] = []
    if boundary.startswith("refresh"):
        guarded.watch()
    guarded.write(0, b"new")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(guarded.world(guarded.there).faults), "reach", die)
        replication_runs.run_now(actor=guarded.plant.dana, policy_id=guarded.policy.pk)
        with pytest.raises(Dies):
            guarded.work()
    assert died
    ReplicationRun.objects.filter(state="running").update(mover_expires_at=timezone.now() - timedelta(seconds=1))
    guarded.work()
    standby = guarded.standby
    assert guarded.held(standby) == guarded.now()
    assert not standby.is_changing
    guarded.watch()
    guarded.carry_out()
    guarded.watch()
    there = [one.id for one in guarded.world(guarded.there).machines() if one.key == standby.machine_key]
    assert there == [standby.machine_id]
    assert Standby.objects.count() == 1


def test_a_run_that_failed_is_made_up_for_after_a_while_and_not_at_once(guarded: Guarded) -> None:
    guarded.world(guarded.there).faults.set("storage_full", "1")
    guarded.watch()
    ReplicationRun.objects.filter(kind="standby").update(state="failed", finished_at=timezone.now())
    for _ in range(2):
        guarded.watch()
    assert not Standby.objects.exists()
    ReplicationRun.objects.filter(kind="standby").update(finished_at=timezone.now() - timedelta(hours=1))
    guarded.watch()
    assert guarded.held(guarded.standby) == guarded.now()


def test_a_machine_on_the_target_itself_has_none(guarded: Guarded) -> None:
    guarded.watch()
    guarded.end(guarded.emergency(even_if_up=True))
    guarded.watch()
    replication_runs.run_now(actor=guarded.plant.dana, policy_id=guarded.policy.pk)
    guarded.work()
    for _ in range(2):
        guarded.watch()
    source = guarded.policy.sources.get(is_chosen=True)
    assert source.hypervisor.name == guarded.there
    assert source.newest_at is not None
    assert not Standby.objects.exists()


def test_one_that_somebody_has_started_is_left_alone(guarded: Guarded) -> None:
    guarded.watch()
    standby = guarded.standby
    guarded.start(standby)
    guarded.plant.look(guarded.there)
    guarded.watch()
    assert guarded.standby.is_used
    told = Event.objects.get(kind="standby.used")
    assert "left alone" in told.message
    disks.write(guarded.world(guarded.there), standby.machine_id, 0, b"somebody's work")
    guarded.write(0, b"new")
    guarded.run()
    assert guarded.held(standby).startswith(b"somebody's work")
    guarded.guard(keeps_standby=False)
    guarded.watch()
    guarded.carry_out()
    assert guarded.world(guarded.there).machine(standby.machine_id) is not None


def test_one_that_somebody_has_written_on_is_never_written_over(guarded: Guarded) -> None:
    guarded.watch()
    standby = guarded.standby
    disks.write(guarded.world(guarded.there), standby.machine_id, 0, b"somebody's work")
    guarded.write(0, b"new")
    guarded.run()
    assert guarded.held(standby).startswith(b"somebody's work")
    assert guarded.standby.is_used
    run = guarded.last_run()
    assert run.state == "failed"
    assert "Have a new one made" in run.error


def test_an_administrator_has_a_new_one_made_beside_one_that_is_used(guarded: Guarded) -> None:
    guarded.watch()
    used = guarded.standby
    with pytest.raises(Clash, match="waits as it should"):
        standbys.make_anew(actor=guarded.plant.dana, standby_id=used.pk)
    Standby.objects.update(is_used=True)
    with pytest.raises(Forbidden):
        standbys.make_anew(actor=guarded.plant.alice, standby_id=used.pk)
    standbys.make_anew(actor=guarded.plant.dana, standby_id=used.pk)
    guarded.work()
    assert guarded.standby.machine_id != used.machine_id
    assert guarded.world(guarded.there).machine(used.machine_id) is not None


def test_one_that_runs_when_it_is_to_go_stays(guarded: Guarded) -> None:
    guarded.watch()
    standby = guarded.standby
    Standby.objects.update(is_leaving=True)
    guarded.start(standby)
    guarded.plant.look(guarded.there)
    guarded.watch()
    guarded.carry_out()
    assert guarded.world(guarded.there).machine(standby.machine_id) is not None


@pytest.mark.parametrize("end", ["policy keeps none", "target changes", "choice goes", "policy goes"])
def test_one_that_nobody_wants_any_more_goes(end: str, guarded: Guarded) -> None:
    guarded.watch()
    machine = guarded.standby.machine_id
    policy, dana = guarded.policy, guarded.plant.dana
    if end == "policy keeps none":
        guarded.guard(keeps_standby=False)
    elif end == "target changes":
        storage = guarded.plant.hypervisor(guarded.here).storages.get()
        replication_policies.change_policy(actor=dana, policy_id=policy.pk, target_storage_id=storage.pk)
    elif end == "choice goes":
        replication_policies.remove_choice(actor=dana, choice_id=policy.choices.get().pk)
    else:
        replication_policies.delete_policy(actor=dana, policy_id=policy.pk)
    for _ in range(2):
        guarded.watch()
        guarded.carry_out()
    assert guarded.world(guarded.there).machine(machine) is None
    assert not Standby.objects.filter(machine_id=machine).exists()


def test_a_deletion_that_fails_is_ordered_again(guarded: Guarded) -> None:
    guarded.watch()
    guarded.guard(keeps_standby=False)
    guarded.watch()
    ordered = Operation.objects.filter(kind="delete").get()
    Operation.objects.filter(pk=ordered.pk).update(state="failed", finished_at=timezone.now())
    guarded.watch()
    assert Operation.objects.filter(kind="delete").count() == 1, "not at once"
    Operation.objects.filter(pk=ordered.pk).update(finished_at=timezone.now() - timedelta(hours=1))
    guarded.watch()
    assert Operation.objects.filter(kind="delete").count() == 2


def test_a_failover_takes_the_standby_and_writes_nothing(guarded: Guarded) -> None:
    guarded.watch()
    guarded.write(500_000, b"the last letter")
    guarded.run()
    standby, held = guarded.standby, guarded.now()
    before = ReplicationRun.objects.count()
    done = guarded.end(guarded.emergency(even_if_up=True))
    assert (done.state, done.error) == ("done", "")
    desktop = Desktop.objects.get(pk=guarded.desktop.pk)
    assert (desktop.machine_id, desktop.stamp_key) == (standby.machine_id, standby.machine_key)
    assert guarded.bytes_of(guarded.there, desktop.machine_id) == held
    assert ReplicationRun.objects.count() == before
    assert any("is used" in line["words"] for line in done.report)
    guarded.watch()
    guarded.carry_out()
    assert guarded.world(guarded.there).machine(standby.machine_id) is not None


@pytest.mark.parametrize("why", ["older point", "other networks", "being changed", "used"])
def test_a_standby_that_is_not_what_is_wanted_is_not_taken(why: str, guarded: Guarded) -> None:
    guarded.watch()
    standby = guarded.standby
    point = standby.point
    assert point is not None
    networks = list(standby.networks)
    if why == "older point":
        guarded.world(guarded.there).faults.set("fail_write", "9")
        guarded.write(0, b"new")
        point = guarded.run()
    elif why == "other networks":
        networks = ["another"]
    else:
        Standby.objects.update(**{{"being changed": "is_changing", "used": "is_used"}[why]: True})
    assert standbys.take(point=point, hypervisor_id=standby.hypervisor_id, networks=networks) is None
    assert Standby.objects.exists()


def test_a_standby_is_no_drift_and_nobody_deletes_it_by_hand(guarded: Guarded) -> None:
    guarded.watch()
    guarded.plant.look(guarded.there)
    machine = Machine.objects.get(platform_id=guarded.standby.machine_id)
    assert machine not in drift.drifting_machines()
    with pytest.raises(Clash, match="stands by"):
        strays.check(machine)
    Standby.objects.update(is_used=True)
    assert machine in drift.drifting_machines()


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        ({"target_storage_id": None}, "target_storage_id", "Choose where the machines stand by."),
        ({"target_storage_id": None, "keeps_standby": False, "verification": "boot"}, "target_storage_id", "started"),
        ({"target_storage_id": UUID(int=1)}, "target_storage_id", "no such storage"),
        ({"standby_every_s": 1}, "standby_every_s", "from 60"),
    ],
)
def test_what_cannot_be_kept_is_refused(wanted: dict[str, Any], field: str, words: str, guarded: Guarded) -> None:
    with pytest.raises(Invalid) as refused:
        guarded.guard(**wanted)
    assert words in refused.value.fields[field]


# --- points that are tried --------------------------------------------------------------------------------------------


def test_a_policy_that_tries_its_points_has_the_newest_one_started_once_a_day(guarded: Guarded) -> None:
    guarded.guard(keeps_standby=False, verification=ReplicationPolicy.Verification.BOOT)
    point = guarded.run()
    trial = Failover.objects.get(kind="test")
    assert (trial.point, trial.requested_by) == (point, None)
    guarded.end(trial)
    assert trial.state == "done"
    source = guarded.policy.sources.get()
    assert source.trial_fault == ""
    point.refresh_from_db()
    assert point.verified_at is not None
    guarded.run()
    assert Failover.objects.filter(kind="test").count() == 1
    guarded.policy.sources.update(tried_at=timezone.now() - timedelta(days=2))
    guarded.run()
    assert Failover.objects.filter(kind="test").count() == 2


def test_a_point_that_does_not_live_is_told(guarded: Guarded) -> None:
    guarded.guard(keeps_standby=False, verification=ReplicationPolicy.Verification.BOOT)
    guarded.world(guarded.there).faults.set("storage_full", "99")
    guarded.run()
    guarded.end(Failover.objects.get(kind="test"))
    source = guarded.policy.sources.get()
    assert "No room" in source.trial_fault
    assert Event.objects.filter(kind="failover.failed").exists()
