"""Policies: kept by administrators, run once whoever sees them due, watched for what they promise."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import (
    Assignment,
    AuditEntry,
    Event,
    Hypervisor,
    Machine,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Storage,
    TemplateCopy,
)
from broker.services import hypervisors, movers, recovery, replication, vaults
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.replication import ChoiceWish
from tests.broker.plant import Plant
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import disks


@pytest.fixture
def made(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    movers._stopping.clear()
    # Its thread would not see the rows of the test's transaction; what it does is called by name.
    monkeypatch.setattr(movers, "_have_a_keeper", lambda: None)
    return Replicas(plant, tmp_path / "vault")


def make_due(made: Replicas) -> None:
    ReplicationSource.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))


# --- vaults -----------------------------------------------------------------------------------------------------------


def test_a_vault_needs_a_folder_that_is_there(made: Replicas, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        vaults.create_vault(actor=made.plant.dana, name="B", kind="folder", location={"path": str(tmp_path / "no")})
    assert "is not there" in refused.value.fields["location"]
    for path in ("", "relative/path", "/srv/../etc"):
        with pytest.raises(Invalid) as refused:
            vaults.create_vault(actor=made.plant.dana, name="B", kind="folder", location={"path": path})
        assert "whole path" in refused.value.fields["path"]


def test_a_vault_that_is_there_is_opened_and_its_key_must_fit(made: Replicas, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    place = {"path": str(tmp_path / "safe")}
    key = vaults.new_key()
    first = vaults.create_vault(actor=made.plant.dana, name="Safe", kind="folder", location=place, key=key)
    assert first.is_encrypted
    for wrong, words in ((vaults.new_key(), "not the key"), ("", "is encrypted")):
        with pytest.raises(Invalid) as refused:
            vaults.create_vault(actor=made.plant.dana, name="Again", kind="folder", location=place, key=wrong)
        assert words in refused.value.fields["key"]
    again = vaults.create_vault(actor=made.plant.dana, name="Again", kind="folder", location=place, key=key)
    with vaults.opened(first) as one, vaults.opened(again) as other:
        assert one.id == other.id


def test_a_vaults_key_is_in_no_row_and_no_audit_entry(made: Replicas, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    key = vaults.new_key()
    row = vaults.create_vault(
        actor=made.plant.dana, name="Safe", kind="folder", location={"path": str(tmp_path / "safe")}, key=key
    )
    assert key not in str(bytes(row.secrets))
    assert key not in str(list(AuditEntry.objects.values_list("changes", flat=True)))
    assert key not in (tmp_path / "safe" / "vault.json").read_text()


def test_a_vault_in_use_is_not_removed(made: Replicas) -> None:
    policy = made.policy()
    with pytest.raises(Clash, match="Nightly"):
        vaults.remove_vault(actor=made.plant.dana, vault_id=made.vault.pk)
    replication.delete_policy(actor=made.plant.dana, policy_id=policy.pk)
    vaults.remove_vault(actor=made.plant.dana, vault_id=made.vault.pk)


# --- policies ---------------------------------------------------------------------------------------------------------


def test_only_administrators_may(made: Replicas) -> None:
    policy = made.policy()
    alice = made.plant.alice
    for attempt in (
        lambda: replication.create_policy(actor=alice, name="Mine"),
        lambda: replication.change_policy(actor=alice, policy_id=policy.pk, name="Mine"),
        lambda: replication.delete_policy(actor=alice, policy_id=policy.pk),
        lambda: replication.run_now(actor=alice, policy_id=policy.pk),
        lambda: replication.add_choice(actor=alice, policy_id=policy.pk, wish=ChoiceWish(kind="machine")),
        lambda: vaults.create_vault(actor=alice, name="Mine", kind="folder", location={}),
        lambda: recovery.delete_point(actor=alice, point_id=uuid4()),
    ):
        with pytest.raises(Forbidden):
            attempt()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "Give a name"),
        ("interval_s", 59, "whole number from 60"),
        ("rpo_s", 10, "whole number from 60"),
        ("keep_last", 0, "whole number from 1"),
        ("zone", "Mars/Olympus", "time zone"),
        ("bytes_a_second", 5, "whole number"),
        ("verification", "hope", "One of"),
    ],
)
def test_what_is_wrong_is_said_for_each_field(made: Replicas, field: str, value: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        made.policy(**{field: value})
    assert words in refused.value.fields[field]


def test_a_policy_has_an_interval_or_a_cron_expression(made: Replicas) -> None:
    for timing in ({"interval_s": None}, {"interval_s": 60, "cron": "* * * * *"}):
        with pytest.raises(Invalid) as refused:
            made.policy(**timing)
        assert "one of them" in refused.value.fields["interval_s"]
    with pytest.raises(Invalid) as refused:
        made.policy(interval_s=None, cron="every day")
    assert "five fields" in refused.value.fields["cron"]
    policy = made.policy(interval_s=None, cron="30 2 * * *", zone="Europe/Berlin")
    changed = replication.change_policy(actor=made.plant.dana, policy_id=policy.pk, interval_s=300)
    assert (changed.interval_s, changed.cron) == (300, "")


def test_an_unknown_vault_or_machine_is_refused(made: Replicas) -> None:
    with pytest.raises(Invalid) as refused:
        made.policy(vault_id=uuid4())
    assert "no such vault" in refused.value.fields["vault_id"]
    policy = made.policy()
    wish = ChoiceWish(kind="machine", machine_id=uuid4())
    with pytest.raises(Invalid) as refused:
        replication.add_choice(actor=made.plant.dana, policy_id=policy.pk, wish=wish)
    assert "no such machine" in refused.value.fields["machine_id"]
    with pytest.raises(Missing):
        replication.run_now(actor=made.plant.dana, policy_id=uuid4())


def test_floating_desktops_are_refused_and_their_template_recommended(made: Replicas) -> None:
    pool = made.plant.add_pool()
    policy = made.policy()
    wish = ChoiceWish(kind="pool", pool_id=pool.pk)
    with pytest.raises(Invalid) as refused:
        replication.add_choice(actor=made.plant.dana, policy_id=policy.pk, wish=wish)
    assert "Choose its template" in refused.value.fields["pool_id"]


def test_a_pool_stands_for_its_assigned_desktops_as_they_come_and_go(made: Replicas) -> None:
    pool = made.plant.add_pool(kind="dedicated")
    made.plant.fill()
    policy = made.policy()
    replication.add_choice(actor=made.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="pool", pool_id=pool.pk))
    assert policy.sources.count() == 1
    desktop = made.plant.ask(made.plant.alice).desktop
    assert desktop is not None
    replication.watch()
    source = policy.sources.get(platform_id=desktop.machine_id)
    assert (source.name, source.is_chosen) == (desktop.name, True)
    Assignment.objects.update(until=timezone.now())
    replication.watch()
    source.refresh_from_db()
    assert not source.is_chosen
    assert source.next_run_at is None


def test_a_machine_that_two_choices_come_to_is_one_source(made: Replicas) -> None:
    made.plant.add_pool(kind="dedicated")
    made.plant.fill()
    desktop = made.plant.ask(made.plant.alice).desktop
    assert desktop is not None
    policy = made.policy()
    made.plant.look()
    machine = Machine.objects.get(platform_id=desktop.machine_id)
    for wish in (
        ChoiceWish(kind="machine", machine_id=machine.pk, disks=["vda"]),
        ChoiceWish(kind="desktop", desktop_id=desktop.pk, disks=["vdb"]),
    ):
        replication.add_choice(actor=made.plant.dana, policy_id=policy.pk, wish=wish)
    source = policy.sources.get(platform_id=desktop.machine_id)
    assert source.disks == ["vda", "vdb"]
    wish = ChoiceWish(kind="desktop", desktop_id=desktop.pk)
    with pytest.raises(Clash, match="already"):
        replication.add_choice(actor=made.plant.dana, policy_id=policy.pk, wish=wish)


def test_what_is_not_chosen_any_more_keeps_its_points_and_the_platform_forgets(made: Replicas) -> None:
    policy = made.policy()
    point = made.run(policy).point
    assert len(made.on_platform()) == 1
    replication.remove_choice(actor=made.plant.dana, choice_id=policy.choices.get().pk)
    made.work()
    assert made.on_platform() == []
    assert point is not None
    assert made.stored(point)
    assert made.source().bookmark is None


def test_deleting_a_policy_leaves_its_points_and_nothing_on_the_platform(made: Replicas) -> None:
    policy = made.policy()
    point = made.run(policy).point
    replication.delete_policy(actor=made.plant.dana, policy_id=policy.pk)
    made.work()
    assert made.on_platform() == []
    assert point is not None
    point.refresh_from_db()
    assert point.source is None
    assert made.stored(point) == made.now()


# --- when they run ----------------------------------------------------------------------------------------------------


def test_a_new_machine_is_replicated_at_once_and_then_by_the_interval(made: Replicas) -> None:
    made.policy()
    now = timezone.now()
    assert made.source().next_run_at <= now  # type: ignore[operator]
    assert replication.due() == 1
    later = made.source().next_run_at
    assert later is not None
    assert now < later <= now + timedelta(hours=1)
    assert replication.due() == 0


def test_many_machines_do_not_run_in_the_same_second(made: Replicas) -> None:
    made.policy(0, 1)
    replication.due()
    assert made.source(0).offset_s != made.source(1).offset_s


def test_what_was_missed_is_caught_up_with_once(made: Replicas) -> None:
    made.policy(interval_s=60)
    replication.due()
    made.work()
    ReplicationSource.objects.update(next_run_at=timezone.now() - timedelta(days=3))
    assert [replication.due() for _ in range(3)] == [1, 0, 0]


def test_a_machine_that_is_still_being_replicated_is_left_out(made: Replicas) -> None:
    policy = made.policy(interval_s=60)
    replication.due()
    make_due(made)
    assert replication.due() == 0
    with pytest.raises(Clash, match="already"):
        replication.run_now(actor=made.plant.dana, policy_id=policy.pk)
    assert ReplicationRun.objects.count() == 1


def test_a_paused_policy_runs_when_asked_and_never_by_itself(made: Replicas) -> None:
    policy = made.policy(is_enabled=False)
    assert made.source().next_run_at is None
    assert replication.due() == 0
    assert made.run(policy).state == "done"
    replication.change_policy(actor=made.plant.dana, policy_id=policy.pk, is_enabled=True)
    assert made.source().next_run_at is not None


def test_a_turn_of_the_clock_costs_the_same_for_few_and_for_many(made: Replicas) -> None:
    made.policy(0, 1)
    counts = []
    for which in (made.machines[:1], made.machines):
        made.work()
        past = timezone.now() - timedelta(seconds=1)
        ReplicationSource.objects.filter(platform_id__in=which).update(next_run_at=past)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            replication.due()
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_new_vault_gets_whole_points(made: Replicas, tmp_path: Path) -> None:
    policy = made.policy()
    made.run(policy)
    (tmp_path / "other").mkdir()
    other = vaults.create_vault(
        actor=made.plant.dana, name="Attic", kind="folder", location={"path": str(tmp_path / "other")}
    )
    replication.change_policy(actor=made.plant.dana, policy_id=policy.pk, vault_id=other.pk)
    made.work()
    run = made.run(policy)
    assert run.whole == "It is the first point."
    assert run.point is not None
    assert run.point.vault == other


# --- what was promised ------------------------------------------------------------------------------------------------


def test_a_broken_promise_is_told_once_and_ends_with_a_new_point(made: Replicas) -> None:
    policy = made.policy(rpo_s=600)
    made.run(policy)
    replication.watch()
    assert not RpoBreach.objects.exists()
    long_ago = timezone.now() - timedelta(seconds=700)
    ReplicationSource.objects.update(newest_at=long_ago, breaks_at=long_ago + timedelta(seconds=600), fault="No room.")
    for _ in range(2):
        replication.watch()
    breach = RpoBreach.objects.get()
    assert (breach.until, breach.reason) == (None, "No room.")
    assert abs((breach.since - (timezone.now() - timedelta(seconds=100))).total_seconds()) < 30
    assert Event.objects.filter(kind="rpo.broken").count() == 1
    made.run(policy)
    breach.refresh_from_db()
    assert breach.until is not None
    assert Event.objects.filter(kind="rpo.kept").count() == 1


def test_two_clocks_that_see_it_broken_in_the_same_moment_tell_it_once(made: Replicas) -> None:
    made.policy(rpo_s=600)
    ReplicationSource.objects.update(breaks_at=timezone.now() - timedelta(seconds=1))
    for _ in range(2):
        replication._begin_breach(made.source(), timezone.now())
    assert Event.objects.filter(kind="rpo.broken").count() == 1


def test_a_machine_that_never_had_a_point_breaks_the_promise_too(made: Replicas) -> None:
    made.policy(rpo_s=600)
    ReplicationSource.objects.update(breaks_at=timezone.now() - timedelta(seconds=1))
    replication.watch()
    assert "no recovery point yet" in Event.objects.get(kind="rpo.broken").message


def test_a_promise_that_is_loosened_is_kept_again(made: Replicas) -> None:
    policy = made.policy(rpo_s=600)
    made.run(policy)
    long_ago = timezone.now() - timedelta(seconds=700)
    ReplicationSource.objects.update(newest_at=long_ago, breaks_at=long_ago + timedelta(seconds=600))
    replication.watch()
    replication.change_policy(actor=made.plant.dana, policy_id=policy.pk, rpo_s=7200)
    assert not RpoBreach.objects.filter(until=None).exists()


# --- recovery points --------------------------------------------------------------------------------------------------


def test_a_point_becomes_a_machine_with_the_same_bytes_and_our_stamp(made: Replicas) -> None:
    point = made.run(made.policy()).point
    assert point is not None
    hypervisor = made.plant.hypervisor("instant-1")
    run = recovery.materialise(
        actor=made.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk, network_ids=[],
    )  # fmt: skip
    made.work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    landed = made.world.machine(run.platform_id)
    assert landed is not None
    assert (landed.name, landed.power, landed.key) == ("alpha-again", "off", str(run.pk))
    assert disks.read(made.world, landed.id) == made.now()
    assert disks.landings(made.world) == []


@pytest.mark.parametrize("knob", ["storage_full", "fail_write"])
def test_a_landing_that_fails_leaves_nothing(made: Replicas, knob: str) -> None:
    point = made.run(made.policy()).point
    assert point is not None
    hypervisor = made.plant.hypervisor("instant-1")
    made.world.faults.set(knob, 1)
    run = recovery.materialise(
        actor=made.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk,
    )  # fmt: skip
    made.work()
    run.refresh_from_db()
    assert run.state == ("failed" if knob == "storage_full" else "queued")
    assert run.error
    assert disks.landings(made.world) == []
    made.pauses_pass()
    made.work()
    assert len([m for m in made.world.machines() if m.name == "alpha-again"]) == (knob == "fail_write")


def test_a_mover_that_died_after_the_machine_was_made_makes_no_second_one(made: Replicas) -> None:
    point = made.run(made.policy()).point
    assert point is not None
    hypervisor = made.plant.hypervisor("instant-1")
    run = recovery.materialise(
        actor=made.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk,
    )  # fmt: skip
    made.work()
    ReplicationRun.objects.filter(pk=run.pk).update(
        state="running", mover_expires_at=timezone.now() - timedelta(seconds=1)
    )
    made.work()
    run.refresh_from_db()
    assert run.state == "done"
    assert len([m for m in made.world.machines() if m.key == str(run.pk)]) == 1


def test_a_damaged_point_is_found_told_and_healed_by_the_next_run(made: Replicas) -> None:
    policy = made.policy()
    point = made.run(policy).point
    assert point is not None
    chunk = max((made.folder / "chunks").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    run = recovery.verify_point(actor=made.plant.dana, point_id=point.pk)
    made.work()
    run.refresh_from_db()
    point.refresh_from_db()
    assert (run.state, point.state) == ("failed", "broken")
    assert "disk-1" in point.fault
    assert Event.objects.filter(kind="point.damaged").count() == 1
    assert made.source().newest_at is None, "a damaged point keeps no promise"
    hypervisor = made.plant.hypervisor("instant-1")
    with pytest.raises(Clash, match="damaged"):
        recovery.materialise(
            actor=made.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="x",
            storage_id=hypervisor.storages.get().pk,
        )  # fmt: skip
    healed = made.run(policy)
    assert healed.state == "done"
    point.refresh_from_db()
    assert point.state == "usable"
    assert point.verified_at is not None


def test_a_policy_may_have_every_point_read_back(made: Replicas) -> None:
    made.run(made.policy(verification="read_back"))
    point = made.source().points.get()
    assert point.verified_at is not None


def test_a_point_that_is_read_is_not_deleted_and_a_deleted_one_not_read(made: Replicas) -> None:
    policy = made.policy(keep_last=5)
    first = made.run(policy).point
    made.write(0, b"1")
    made.run(policy)
    assert first is not None
    recovery.verify_point(actor=made.plant.dana, point_id=first.pk)
    with pytest.raises(Clash, match="being read"):
        recovery.delete_point(actor=made.plant.dana, point_id=first.pk)
    made.work()
    recovery.delete_point(actor=made.plant.dana, point_id=first.pk)
    with pytest.raises(Clash, match="being deleted"):
        recovery.verify_point(actor=made.plant.dana, point_id=first.pk)
    made.work()
    assert str(first.pk) not in made.opened().point_ids()
    assert made.source().points.count() == 1


def test_a_collection_frees_what_nobody_needs_and_nothing_else(made: Replicas) -> None:
    policy = made.policy(keep_last=1, keep_daily=0)
    made.run(policy)
    made.write(0, b"\7" * 300_000)
    newest = made.run(policy).point
    before = len(list((made.folder / "chunks").rglob("*")))
    vault = made.opened()
    vault.begin(str(made.plant.hypervisor("instant-1").pk), "somebody else's")
    made.vault.next_collection_at = timezone.now()
    made.vault.save()
    replication.watch()
    made.work()
    run = ReplicationRun.objects.get(kind="collect")
    assert run.state == "done", run.error
    assert newest is not None
    assert made.stored(newest) == made.now()
    assert len(list((made.folder / "chunks").rglob("*"))) < before
    assert len(vault.runs()) == 1, "another installation's run is its own"
    made.vault.refresh_from_db()
    assert made.vault.next_collection_at > timezone.now()


# --- what kinds of hypervisors cannot do ------------------------------------------------------------------------------


def foreign(kind: str) -> Hypervisor:
    """A hypervisor of a kind whose connector cannot (yet) do what is asked here."""
    return Hypervisor.objects.create(name=f"{kind}-9", kind=kind, status="up", status_since=timezone.now())


def test_a_machine_that_no_connector_reads_is_refused_when_it_is_chosen(made: Replicas) -> None:
    machine = Machine.objects.create(
        hypervisor=foreign("no-such-kind"), platform_id="vm-1", name="vm-1", power="on", seen_at=timezone.now()
    )
    policy = made.policy()
    with pytest.raises(Invalid) as refused:
        replication.add_choice(
            actor=made.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="machine", machine_id=machine.pk)
        )
    assert "no-such-kind-9 cannot be replicated" in refused.value.fields["machine_id"]
    assert policy.choices.count() == 1


def test_of_a_template_the_copy_is_replicated_that_can_be_read(made: Replicas) -> None:
    made.plant.add_pool()
    policy = made.policy()
    template = made.plant.version.template
    readable = made.plant.version.copies.get()
    TemplateCopy.objects.create(
        version=made.plant.version, hypervisor=foreign("no-such-kind"), platform_id="golden", name="golden", vcpus=1,
        memory_mib=512,
    )  # fmt: skip
    TemplateCopy.objects.exclude(pk=readable.pk).update(created_at=readable.created_at - timedelta(days=1))
    replication.add_choice(
        actor=made.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="template", template_id=template.pk)
    )
    assert policy.sources.filter(hypervisor=readable.hypervisor, platform_id=readable.platform_id).exists()
    TemplateCopy.objects.filter(pk=readable.pk).update(
        hypervisor=TemplateCopy.objects.earliest("created_at").hypervisor
    )
    with pytest.raises(Invalid) as refused:
        replication.create_policy(
            actor=made.plant.dana, name="Images", vault_id=made.vault.pk, interval_s=3600, rpo_s=7200,
            choices=[ChoiceWish(kind="template", template_id=template.pk)],
        )  # fmt: skip
    assert "cannot be replicated" in refused.value.fields["template_id"]


def test_many_are_chosen_together_or_none_of_them(made: Replicas) -> None:
    policy = made.policy()
    wishes = [ChoiceWish(kind="machine", machine_id=made.row(number).pk) for number in (1, 0)]
    with pytest.raises(Clash, match="already"):
        replication.add_choices(actor=made.plant.dana, policy_id=policy.pk, wishes=wishes)
    assert policy.choices.count() == policy.sources.count() == 1
    replication.add_choices(actor=made.plant.dana, policy_id=policy.pk, wishes=wishes[:1])
    assert policy.sources.count() == 2


def test_nothing_is_brought_up_where_no_machine_can_be_made(made: Replicas) -> None:
    point = made.run(made.policy()).point
    assert point is not None
    other = foreign("no-such-kind")
    storage = Storage.objects.create(
        hypervisor=other, platform_id="s", name="s", capacity_mib=1, free_mib=1, seen_at=timezone.now()
    )
    with pytest.raises(Invalid) as refused:
        recovery.materialise(
            actor=made.plant.dana, point_id=point.pk, hypervisor_id=other.pk, name="x", storage_id=storage.pk
        )
    assert "makes no machines from recovery points" in refused.value.fields["hypervisor_id"]
    assert not ReplicationRun.objects.filter(kind="materialise").exists()


def test_a_hypervisor_whose_machines_are_replicated_is_not_removed(made: Replicas) -> None:
    policy = made.policy()
    point = made.run(policy).point
    hypervisor = made.plant.hypervisor("instant-1")
    with pytest.raises(Clash, match=r"replicated by Nightly\. Take them out first"):
        hypervisors.remove_hypervisor(actor=made.plant.dana, hypervisor_id=hypervisor.pk)
    replication.remove_choice(actor=made.plant.dana, choice_id=policy.choices.get().pk)
    made.work()
    hypervisors.remove_hypervisor(actor=made.plant.dana, hypervisor_id=hypervisor.pk)
    made.plant.hypervisors.clear()
    assert point is not None
    point.refresh_from_db()
    assert point.source is None, "what was copied stays"
