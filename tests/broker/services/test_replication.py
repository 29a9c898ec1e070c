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

from broker.hypervisors import gate
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
from broker.services import hypervisors, recovery, replication_policies, replication_promises, replication_runs, vaults
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.replication_policies import ChoiceWish
from connectors.errors import PlatformFault
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import disks
from tests.doubles.instant.world import World


def make_due(replicas: Replicas) -> None:
    ReplicationSource.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))


# --- vaults -----------------------------------------------------------------------------------------------------------


def test_a_vault_needs_a_folder_that_is_there(replicas: Replicas, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        vaults.create_vault(actor=replicas.plant.dana, name="B", kind="folder", location={"path": str(tmp_path / "no")})
    assert "is not there" in refused.value.fields["location"]
    for path in ("", "relative/path", "/srv/../etc"):
        with pytest.raises(Invalid) as refused:
            vaults.create_vault(actor=replicas.plant.dana, name="B", kind="folder", location={"path": path})
        assert "whole path" in refused.value.fields["path"]


def test_a_vault_that_is_there_is_opened_and_its_key_must_fit(replicas: Replicas, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    place = {"path": str(tmp_path / "safe")}
    key = vaults.new_key()
    first = vaults.create_vault(actor=replicas.plant.dana, name="Safe", kind="folder", location=place, key=key)
    assert first.is_encrypted
    for wrong, words in ((vaults.new_key(), "not the key"), ("", "is encrypted")):
        with pytest.raises(Invalid) as refused:
            vaults.create_vault(actor=replicas.plant.dana, name="Again", kind="folder", location=place, key=wrong)
        assert words in refused.value.fields["key"]
    again = vaults.create_vault(actor=replicas.plant.dana, name="Again", kind="folder", location=place, key=key)
    with vaults.opened(first) as one, vaults.opened(again) as other:
        assert one.id == other.id


def test_a_vaults_key_is_in_no_row_and_no_audit_entry(replicas: Replicas, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    key = vaults.new_key()
    row = vaults.create_vault(
        actor=replicas.plant.dana, name="Safe", kind="folder", location={"path": str(tmp_path / "safe")}, key=key
    )
    assert key not in str(bytes(row.secrets))
    assert key not in str(list(AuditEntry.objects.values_list("changes", flat=True)))
    assert key not in (tmp_path / "safe" / "vault.json").read_text()


def test_a_vault_in_use_is_not_removed(replicas: Replicas) -> None:
    policy = replicas.policy()
    with pytest.raises(Clash, match="Nightly"):
        vaults.remove_vault(actor=replicas.plant.dana, vault_id=replicas.vault.pk)
    replication_policies.delete_policy(actor=replicas.plant.dana, policy_id=policy.pk)
    vaults.remove_vault(actor=replicas.plant.dana, vault_id=replicas.vault.pk)


# --- policies ---------------------------------------------------------------------------------------------------------


def test_only_administrators_may(replicas: Replicas) -> None:
    policy = replicas.policy()
    alice = replicas.plant.alice
    for attempt in (
        lambda: replication_policies.create_policy(actor=alice, name="Mine"),
        lambda: replication_policies.change_policy(actor=alice, policy_id=policy.pk, name="Mine"),
        lambda: replication_policies.delete_policy(actor=alice, policy_id=policy.pk),
        lambda: replication_runs.run_now(actor=alice, policy_id=policy.pk),
        lambda: replication_policies.add_choice(actor=alice, policy_id=policy.pk, wish=ChoiceWish(kind="machine")),
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
def test_what_is_wrong_is_said_for_each_field(replicas: Replicas, field: str, value: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        replicas.policy(**{field: value})
    assert words in refused.value.fields[field]


def test_a_policy_has_an_interval_or_a_cron_expression(replicas: Replicas) -> None:
    for timing in ({"interval_s": None}, {"interval_s": 60, "cron": "* * * * *"}):
        with pytest.raises(Invalid) as refused:
            replicas.policy(**timing)
        assert "one of them" in refused.value.fields["interval_s"]
    with pytest.raises(Invalid) as refused:
        replicas.policy(interval_s=None, cron="every day")
    assert "five fields" in refused.value.fields["cron"]
    policy = replicas.policy(interval_s=None, cron="30 2 * * *", zone="Europe/Berlin")
    changed = replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, interval_s=300)
    assert (changed.interval_s, changed.cron) == (300, "")


def test_an_unknown_vault_or_machine_is_refused(replicas: Replicas) -> None:
    with pytest.raises(Invalid) as refused:
        replicas.policy(vault_id=uuid4())
    assert "no such vault" in refused.value.fields["vault_id"]
    policy = replicas.policy()
    wish = ChoiceWish(kind="machine", machine_id=uuid4())
    with pytest.raises(Invalid) as refused:
        replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)
    assert "no such machine" in refused.value.fields["machine_id"]
    with pytest.raises(Missing):
        replication_runs.run_now(actor=replicas.plant.dana, policy_id=uuid4())


def test_floating_desktops_are_refused_and_their_template_recommended(replicas: Replicas) -> None:
    pool = replicas.plant.add_pool()
    policy = replicas.policy()
    wish = ChoiceWish(kind="pool", pool_id=pool.pk)
    with pytest.raises(Invalid) as refused:
        replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)
    assert "Choose its template" in refused.value.fields["pool_id"]


def test_a_pool_stands_for_its_assigned_desktops_as_they_come_and_go(replicas: Replicas) -> None:
    pool = replicas.plant.add_pool(kind="dedicated")
    replicas.plant.fill()
    policy = replicas.policy()
    wish = ChoiceWish(kind="pool", pool_id=pool.pk)
    replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)
    assert policy.sources.count() == 1
    desktop = replicas.plant.ask(replicas.plant.alice).desktop
    assert desktop is not None
    replication_promises.watch()
    source = policy.sources.get(platform_id=desktop.machine_id)
    assert (source.name, source.is_chosen) == (desktop.name, True)
    Assignment.objects.update(until=timezone.now())
    replication_promises.watch()
    source.refresh_from_db()
    assert not source.is_chosen
    assert source.next_run_at is None


def test_a_machine_that_two_choices_come_to_is_one_source(replicas: Replicas) -> None:
    replicas.plant.add_pool(kind="dedicated")
    replicas.plant.fill()
    desktop = replicas.plant.ask(replicas.plant.alice).desktop
    assert desktop is not None
    policy = replicas.policy()
    replicas.plant.look()
    machine = Machine.objects.get(platform_id=desktop.machine_id)
    for wish in (
        ChoiceWish(kind="machine", machine_id=machine.pk, disks=["vda"]),
        ChoiceWish(kind="desktop", desktop_id=desktop.pk, disks=["vdb"]),
    ):
        replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)
    source = policy.sources.get(platform_id=desktop.machine_id)
    assert source.disks == ["vda", "vdb"]
    wish = ChoiceWish(kind="desktop", desktop_id=desktop.pk)
    with pytest.raises(Clash, match="already"):
        replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)


def test_what_is_not_chosen_any_more_keeps_its_points_and_the_platform_forgets(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    assert len(replicas.on_platform()) == 1
    replication_policies.remove_choice(actor=replicas.plant.dana, choice_id=policy.choices.get().pk)
    replicas.work()
    assert replicas.on_platform() == []
    assert point is not None
    assert replicas.stored(point)
    assert replicas.source().bookmark is None


def test_deleting_a_policy_leaves_its_points_and_nothing_on_the_platform(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    replication_policies.delete_policy(actor=replicas.plant.dana, policy_id=policy.pk)
    replicas.work()
    assert replicas.on_platform() == []
    assert point is not None
    point.refresh_from_db()
    assert point.source is None
    assert replicas.stored(point) == replicas.now()


# --- when they run ----------------------------------------------------------------------------------------------------


def test_a_new_machine_is_replicated_at_once_and_then_by_the_interval(replicas: Replicas) -> None:
    replicas.policy()
    now = timezone.now()
    assert replicas.source().next_run_at <= now  # type: ignore[operator]
    assert replication_runs.due() == 1
    later = replicas.source().next_run_at
    assert later is not None
    assert now < later <= now + timedelta(hours=1)
    assert replication_runs.due() == 0


def test_many_machines_do_not_run_in_the_same_second(replicas: Replicas) -> None:
    replicas.policy(0, 1)
    replication_runs.due()
    assert replicas.source(0).offset_s != replicas.source(1).offset_s


def test_what_was_missed_is_caught_up_with_once(replicas: Replicas) -> None:
    replicas.policy(interval_s=60)
    replication_runs.due()
    replicas.work()
    ReplicationSource.objects.update(next_run_at=timezone.now() - timedelta(days=3))
    assert [replication_runs.due() for _ in range(3)] == [1, 0, 0]


def test_a_machine_that_is_still_being_replicated_is_left_out(replicas: Replicas) -> None:
    policy = replicas.policy(interval_s=60)
    replication_runs.due()
    make_due(replicas)
    assert replication_runs.due() == 0
    with pytest.raises(Clash, match="already"):
        replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)
    assert ReplicationRun.objects.count() == 1


def test_a_paused_policy_runs_when_asked_and_never_by_itself(replicas: Replicas) -> None:
    policy = replicas.policy(is_enabled=False)
    assert replicas.source().next_run_at is None
    assert replication_runs.due() == 0
    assert replicas.run(policy).state == "done"
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, is_enabled=True)
    assert replicas.source().next_run_at is not None


def test_a_turn_of_the_clock_costs_the_same_for_few_and_for_many(replicas: Replicas) -> None:
    replicas.policy(0, 1)
    counts = []
    for which in (replicas.machines[:1], replicas.machines):
        replicas.work()
        past = timezone.now() - timedelta(seconds=1)
        ReplicationSource.objects.filter(platform_id__in=which).update(next_run_at=past)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            replication_runs.due()
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_new_vault_gets_whole_points(replicas: Replicas, tmp_path: Path) -> None:
    policy = replicas.policy()
    replicas.run(policy)
    (tmp_path / "other").mkdir()
    other = vaults.create_vault(
        actor=replicas.plant.dana, name="Attic", kind="folder", location={"path": str(tmp_path / "other")}
    )
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, vault_id=other.pk)
    replicas.work()
    run = replicas.run(policy)
    assert run.whole == "It is the first point."
    assert run.point is not None
    assert run.point.vault == other


# --- what was promised ------------------------------------------------------------------------------------------------


def test_a_broken_promise_is_told_once_and_ends_with_a_new_point(replicas: Replicas) -> None:
    policy = replicas.policy(rpo_s=600)
    replicas.run(policy)
    replication_promises.watch()
    assert not RpoBreach.objects.exists()
    long_ago = timezone.now() - timedelta(seconds=700)
    ReplicationSource.objects.update(newest_at=long_ago, breaks_at=long_ago + timedelta(seconds=600), fault="No room.")
    for _ in range(2):
        replication_promises.watch()
    breach = RpoBreach.objects.get()
    assert (breach.until, breach.reason) == (None, "No room.")
    assert abs((breach.since - (timezone.now() - timedelta(seconds=100))).total_seconds()) < 30
    assert Event.objects.filter(kind="rpo.broken").count() == 1
    replicas.run(policy)
    breach.refresh_from_db()
    assert breach.until is not None
    assert Event.objects.filter(kind="rpo.kept").count() == 1


def test_two_clocks_that_see_it_broken_in_the_same_moment_tell_it_once(replicas: Replicas) -> None:
    replicas.policy(rpo_s=600)
    ReplicationSource.objects.update(breaks_at=timezone.now() - timedelta(seconds=1))
    for _ in range(2):
        replication_promises._begin_breach(replicas.source(), timezone.now())
    assert Event.objects.filter(kind="rpo.broken").count() == 1


def test_a_machine_that_never_had_a_point_breaks_the_promise_too(replicas: Replicas) -> None:
    replicas.policy(rpo_s=600)
    ReplicationSource.objects.update(breaks_at=timezone.now() - timedelta(seconds=1))
    replication_promises.watch()
    assert "no recovery point yet" in Event.objects.get(kind="rpo.broken").message


def test_a_promise_that_is_loosened_is_kept_again(replicas: Replicas) -> None:
    policy = replicas.policy(rpo_s=600)
    replicas.run(policy)
    long_ago = timezone.now() - timedelta(seconds=700)
    ReplicationSource.objects.update(newest_at=long_ago, breaks_at=long_ago + timedelta(seconds=600))
    replication_promises.watch()
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, rpo_s=7200)
    assert not RpoBreach.objects.filter(until=None).exists()


# --- recovery points --------------------------------------------------------------------------------------------------


def test_a_point_becomes_a_machine_with_the_same_bytes_and_our_stamp(replicas: Replicas) -> None:
    point = replicas.run(replicas.policy()).point
    assert point is not None
    hypervisor = replicas.plant.hypervisor("instant-1")
    run = recovery.materialise(
        actor=replicas.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk, network_ids=[],
    )  # fmt: skip
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    landed = replicas.world.machine(run.platform_id)
    assert landed is not None
    assert (landed.name, landed.power, landed.key) == ("alpha-again", "off", str(run.pk))
    assert disks.read(replicas.world, landed.id) == replicas.now()
    assert disks.landings(replicas.world) == []


@pytest.mark.parametrize("knob", ["storage_full", "fail_write"])
def test_a_landing_that_fails_leaves_nothing(replicas: Replicas, knob: str) -> None:
    point = replicas.run(replicas.policy()).point
    assert point is not None
    hypervisor = replicas.plant.hypervisor("instant-1")
    replicas.world.faults.set(knob, 1)
    run = recovery.materialise(
        actor=replicas.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk,
    )  # fmt: skip
    replicas.work()
    run.refresh_from_db()
    assert run.state == ("failed" if knob == "storage_full" else "queued")
    assert run.error
    assert disks.landings(replicas.world) == []
    replicas.pauses_pass()
    replicas.work()
    assert len([m for m in replicas.world.machines() if m.name == "alpha-again"]) == (knob == "fail_write")


def test_a_mover_that_died_after_the_machine_was_made_makes_no_second_one(replicas: Replicas) -> None:
    point = replicas.run(replicas.policy()).point
    assert point is not None
    hypervisor = replicas.plant.hypervisor("instant-1")
    run = recovery.materialise(
        actor=replicas.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="alpha-again",
        storage_id=hypervisor.storages.get().pk,
    )  # fmt: skip
    replicas.work()
    ReplicationRun.objects.filter(pk=run.pk).update(
        state="running", mover_expires_at=timezone.now() - timedelta(seconds=1)
    )
    replicas.work()
    run.refresh_from_db()
    assert run.state == "done"
    assert len([m for m in replicas.world.machines() if m.key == str(run.pk)]) == 1


@pytest.mark.parametrize("loses", ["finish", "clear"])
def test_a_machine_that_stands_is_the_runs_though_what_came_after_its_making_failed(
    loses: str, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = replicas.run(replicas.policy()).point
    assert point is not None
    run = recovery.order_landing(
        point, Hypervisor.objects.get(name="instant-1"), replicas.plant.dana, name="again", storage="storage-1",
        networks=[],
    )  # fmt: skip
    make, clear, refusals = disks.InstantLanding.machine, disks.clear, iter([True])

    def made_and_not_told(self: disks.InstantLanding) -> str:
        id = make(self)
        if loses == "finish" and next(refusals, False):
            raise PlatformFault("Making the machine failed. Look at the platform's log.")
        return id

    def stays(world: World, key: str) -> None:
        if loses == "clear" and world.machines_of(gate.installation_id(), key) and next(refusals, False):
            raise PlatformFault("Removing what was sent failed. Look at the platform's log.")
        clear(world, key)

    monkeypatch.setattr(disks.InstantLanding, "machine", made_and_not_told)
    monkeypatch.setattr(disks, "clear", stays)
    replicas.work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("done", "")
    assert [machine.id for machine in replicas.world.machines() if machine.key == str(run.pk)] == [run.platform_id]
    owed = list(ReplicationRun.objects.filter(kind="release").values_list("wish", flat=True))
    assert owed == ([{"clear": str(run.pk)}] if loses == "clear" else [])


def test_a_damaged_point_is_found_told_and_healed_by_the_next_run(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    assert point is not None
    chunk = max((replicas.folder / "chunks").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    run = recovery.verify_point(actor=replicas.plant.dana, point_id=point.pk)
    replicas.work()
    run.refresh_from_db()
    point.refresh_from_db()
    assert (run.state, point.state) == ("failed", "broken")
    assert "disk-1" in point.fault
    assert Event.objects.filter(kind="point.damaged").count() == 1
    assert replicas.source().newest_at is None, "a damaged point keeps no promise"
    hypervisor = replicas.plant.hypervisor("instant-1")
    with pytest.raises(Clash, match="damaged"):
        recovery.materialise(
            actor=replicas.plant.dana, point_id=point.pk, hypervisor_id=hypervisor.pk, name="x",
            storage_id=hypervisor.storages.get().pk,
        )  # fmt: skip
    healed = replicas.run(policy)
    assert healed.state == "done"
    point.refresh_from_db()
    assert point.state == "usable"
    assert point.verified_at is not None


def test_a_policy_may_have_every_point_read_back(replicas: Replicas) -> None:
    replicas.run(replicas.policy(verification="read_back"))
    point = replicas.source().points.get()
    assert point.verified_at is not None


def test_a_point_that_is_read_is_not_deleted_and_a_deleted_one_not_read(replicas: Replicas) -> None:
    policy = replicas.policy(keep_last=5)
    first = replicas.run(policy).point
    replicas.write(0, b"1")
    replicas.run(policy)
    assert first is not None
    recovery.verify_point(actor=replicas.plant.dana, point_id=first.pk)
    with pytest.raises(Clash, match="being read"):
        recovery.delete_point(actor=replicas.plant.dana, point_id=first.pk)
    replicas.work()
    recovery.delete_point(actor=replicas.plant.dana, point_id=first.pk)
    with pytest.raises(Clash, match="being deleted"):
        recovery.verify_point(actor=replicas.plant.dana, point_id=first.pk)
    replicas.work()
    assert str(first.pk) not in replicas.opened().point_ids()
    assert replicas.source().points.count() == 1


def test_a_collection_frees_what_nobody_needs_and_nothing_else(replicas: Replicas) -> None:
    policy = replicas.policy(keep_last=1, keep_daily=0)
    replicas.run(policy)
    replicas.write(0, b"\7" * 300_000)
    newest = replicas.run(policy).point
    before = len(list((replicas.folder / "chunks").rglob("*")))
    vault = replicas.opened()
    vault.begin(str(replicas.plant.hypervisor("instant-1").pk), "somebody else's")
    replicas.vault.next_collection_at = timezone.now()
    replicas.vault.save()
    replication_promises.watch()
    replicas.work()
    run = ReplicationRun.objects.get(kind="collect")
    assert run.state == "done", run.error
    assert newest is not None
    assert replicas.stored(newest) == replicas.now()
    assert len(list((replicas.folder / "chunks").rglob("*"))) < before
    assert len(vault.runs()) == 1, "another installation's run is its own"
    replicas.vault.refresh_from_db()
    assert replicas.vault.next_collection_at > timezone.now()


# --- what kinds of hypervisors cannot do ------------------------------------------------------------------------------


def foreign(kind: str) -> Hypervisor:
    """A hypervisor of a kind whose connector cannot (yet) do what is asked here."""
    return Hypervisor.objects.create(name=f"{kind}-9", kind=kind, status="up", status_since=timezone.now())


def test_a_machine_that_no_connector_reads_is_refused_when_it_is_chosen(replicas: Replicas) -> None:
    machine = Machine.objects.create(
        hypervisor=foreign("no-such-kind"), platform_id="vm-1", name="vm-1", power="on", seen_at=timezone.now()
    )
    policy = replicas.policy()
    with pytest.raises(Invalid) as refused:
        replication_policies.add_choice(
            actor=replicas.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="machine", machine_id=machine.pk)
        )
    assert "no-such-kind-9 cannot be replicated" in refused.value.fields["machine_id"]
    assert policy.choices.count() == 1


def test_of_a_template_the_copy_is_replicated_that_can_be_read(replicas: Replicas) -> None:
    replicas.plant.add_pool()
    policy = replicas.policy()
    template = replicas.plant.version.template
    readable = replicas.plant.version.copies.get()
    TemplateCopy.objects.create(
        version=replicas.plant.version, hypervisor=foreign("no-such-kind"), platform_id="golden", name="golden",
        vcpus=1, memory_mib=512,
    )  # fmt: skip
    TemplateCopy.objects.exclude(pk=readable.pk).update(created_at=readable.created_at - timedelta(days=1))
    replication_policies.add_choice(
        actor=replicas.plant.dana, policy_id=policy.pk, wish=ChoiceWish(kind="template", template_id=template.pk)
    )
    assert policy.sources.filter(hypervisor=readable.hypervisor, platform_id=readable.platform_id).exists()
    TemplateCopy.objects.filter(pk=readable.pk).update(
        hypervisor=TemplateCopy.objects.earliest("created_at").hypervisor
    )
    with pytest.raises(Invalid) as refused:
        replication_policies.create_policy(
            actor=replicas.plant.dana, name="Images", vault_id=replicas.vault.pk, interval_s=3600, rpo_s=7200,
            choices=[ChoiceWish(kind="template", template_id=template.pk)],
        )  # fmt: skip
    assert "cannot be replicated" in refused.value.fields["template_id"]


def test_many_are_chosen_together_or_none_of_them(replicas: Replicas) -> None:
    policy = replicas.policy()
    wishes = [ChoiceWish(kind="machine", machine_id=replicas.row(number).pk) for number in (1, 0)]
    with pytest.raises(Clash, match="already"):
        replication_policies.add_choices(actor=replicas.plant.dana, policy_id=policy.pk, wishes=wishes)
    assert policy.choices.count() == policy.sources.count() == 1
    replication_policies.add_choices(actor=replicas.plant.dana, policy_id=policy.pk, wishes=wishes[:1])
    assert policy.sources.count() == 2


def test_nothing_is_brought_up_where_no_machine_can_be_made(replicas: Replicas) -> None:
    point = replicas.run(replicas.policy()).point
    assert point is not None
    other = foreign("no-such-kind")
    storage = Storage.objects.create(
        hypervisor=other, platform_id="s", name="s", capacity_mib=1, free_mib=1, seen_at=timezone.now()
    )
    with pytest.raises(Invalid) as refused:
        recovery.materialise(
            actor=replicas.plant.dana, point_id=point.pk, hypervisor_id=other.pk, name="x", storage_id=storage.pk
        )
    assert "makes no machines from recovery points" in refused.value.fields["hypervisor_id"]
    assert not ReplicationRun.objects.filter(kind="materialise").exists()


def test_a_hypervisor_whose_machines_are_replicated_is_not_removed(replicas: Replicas) -> None:
    policy = replicas.policy()
    point = replicas.run(policy).point
    hypervisor = replicas.plant.hypervisor("instant-1")
    with pytest.raises(Clash, match=r"replicated by Nightly\. Take them out first"):
        hypervisors.remove_hypervisor(actor=replicas.plant.dana, hypervisor_id=hypervisor.pk)
    replication_policies.remove_choice(actor=replicas.plant.dana, choice_id=policy.choices.get().pk)
    replicas.work()
    hypervisors.remove_hypervisor(actor=replicas.plant.dana, hypervisor_id=hypervisor.pk)
    replicas.plant.hypervisors.clear()
    assert point is not None
    point.refresh_from_db()
    assert point.source is None, "what was copied stays"
