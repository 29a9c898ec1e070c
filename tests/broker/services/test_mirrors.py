"""Policies that watch what platforms replicate by themselves: the same promise, the same ledger, and no run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from broker.models import Event, ReplicationPolicy, ReplicationRun, ReplicationSource, RpoBreach
from broker.services import replication_policies, replication_promises, replication_runs
from broker.services.errors import Clash, Invalid
from broker.services.mirrors import NOT_REPLICATED
from broker.services.replication_policies import ChoiceWish
from connectors.replication import Mirror, MirrorState
from tests.broker.services.replicas import Replicas
from tests.doubles.instant import mirrors

MINUTE = timedelta(minutes=1)


@pytest.fixture
def policy(replicas: Replicas) -> ReplicationPolicy:
    """It watches the first machine, and promises a replica of at most half an hour."""
    return watching(replicas)


def watching(replicas: Replicas, **fields: Any) -> ReplicationPolicy:
    wish = ChoiceWish(kind="machine", machine_id=replicas.row().pk)
    values: dict[str, Any] = {"name": "Of the makers", "engine": "platform", "rpo_s": 1800}
    return replication_policies.create_policy(actor=replicas.plant.dana, choices=[wish], **(values | fields))


def mirror(replicas: Replicas, newest_at: datetime | None, number: int = 0, **fields: Any) -> Mirror:
    values: dict[str, Any] = {"to": "elsewhere", "state": MirrorState.HEALTHY, "interval_s": 300}
    return Mirror(machine=replicas.machines[number], name="alpha", newest_at=newest_at, **(values | fields))


def look(replicas: Replicas) -> ReplicationSource:
    """An inventory, a while after the last one."""
    ReplicationSource.objects.update(mirrors_at=None)
    replicas.plant.look()
    return replicas.source()


def test_a_policy_that_watches_has_no_vault_no_schedule_and_no_run(
    replicas: Replicas, policy: ReplicationPolicy
) -> None:
    assert (policy.vault, policy.interval_s, policy.cron) == (None, None, "")
    source = replicas.source()
    assert source.next_run_at is None
    assert source.breaks_at is not None
    assert replication_runs.due() == 0
    with pytest.raises(Clash, match="Start it there"):
        replication_runs.run_now(actor=replicas.plant.dana, policy_id=policy.pk)
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, is_enabled=False)
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=policy.pk, is_enabled=True)
    assert replicas.source().next_run_at is None
    assert not ReplicationRun.objects.exists()


@pytest.mark.parametrize(
    "field",
    [
        {"interval_s": 3600}, {"cron": "30 2 * * *"}, {"keep_last": 5}, {"verification": "read_back"},
        {"bytes_a_second": 1_000_000},
    ],
)  # fmt: skip
def test_what_the_platform_decides_is_not_asked_of_a_policy_that_watches(
    replicas: Replicas, field: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as refused:
        watching(replicas, **field)
    assert "set on the platform" in refused.value.fields[next(iter(field))]


def test_a_policy_that_watches_takes_no_vault_and_one_that_copies_needs_one(replicas: Replicas) -> None:
    with pytest.raises(Invalid) as refused:
        watching(replicas, vault_id=replicas.vault.pk)
    assert "vault_id" in refused.value.fields
    with pytest.raises(Invalid) as refused:
        replicas.policy(vault_id=None)
    assert refused.value.fields["vault_id"] == "Choose a vault."
    with pytest.raises(Invalid) as refused:
        watching(replicas, engine="pigeons")
    assert "engine" in refused.value.fields


def test_who_copies_is_never_changed(replicas: Replicas, policy: ReplicationPolicy) -> None:
    with pytest.raises(Invalid) as refused:
        replication_policies.change_policy(
            actor=replicas.plant.dana, policy_id=policy.pk, engine="vault", vault_id=replicas.vault.pk
        )
    assert "chosen once" in refused.value.fields["engine"]


def test_the_database_knows_no_policy_between_the_two(replicas: Replicas, policy: ReplicationPolicy) -> None:
    for changes in ({"vault_id": replicas.vault.pk}, {"interval_s": 60}, {"engine": "vault"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            ReplicationPolicy.objects.filter(pk=policy.pk).update(**changes)


def test_disks_are_not_chosen_of_what_the_platform_replicates(replicas: Replicas, policy: ReplicationPolicy) -> None:
    wish = ChoiceWish(kind="machine", machine_id=replicas.row(1).pk, disks=["vda"])
    with pytest.raises(Invalid) as refused:
        replication_policies.add_choice(actor=replicas.plant.dana, policy_id=policy.pk, wish=wish)
    assert "on the platform" in refused.value.fields["disks"]


@pytest.mark.usefixtures("policy")
def test_the_age_of_the_newest_replica_is_what_the_promise_is_measured_by(replicas: Replicas) -> None:
    newest = timezone.now() - 10 * MINUTE
    mirrors.tell(replicas.world, mirror(replicas, newest))
    source = look(replicas)
    assert (source.newest_at, source.breaks_at, source.fault) == (newest, newest + 30 * MINUTE, "")
    assert source.mirrors == [
        {
            "to": "elsewhere", "state": "healthy", "newest_at": newest.isoformat(), "interval_s": 300, "fault": "",
            "can_fail_over": False,
        }
    ]  # fmt: skip


@pytest.mark.usefixtures("policy")
def test_of_several_replicas_the_newest_counts_and_the_fault_of_the_other_is_told(replicas: Replicas) -> None:
    now = timezone.now()
    lame = mirror(replicas, now - 60 * MINUTE, to="far", state=MirrorState.FAILING, fault="Nothing gets to far.")
    mirrors.tell(replicas.world, mirror(replicas, now - MINUTE), lame)
    source = look(replicas)
    assert (source.newest_at, source.fault) == (now - MINUTE, "Nothing gets to far.")


@pytest.mark.usefixtures("policy")
def test_a_machine_that_the_platform_does_not_replicate_says_what_to_do(replicas: Replicas) -> None:
    mirrors.tell(replicas.world, mirror(replicas, timezone.now(), number=1))
    source = look(replicas)
    assert (source.fault, source.newest_at, source.mirrors) == (NOT_REPLICATED, None, [])


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"partial": "host two is silent"}, "could not tell of all it replicates: host two is silent."),
        ({"refusal": "The account may not look."}, "could not be asked what it replicates. The account may not look."),
    ],
)
def test_a_listing_that_is_not_whole_tells_nothing_of_what_it_does_not_name(
    replicas: Replicas, answer: dict[str, str], words: str
) -> None:
    newest = timezone.now() - MINUTE
    mirrors.tell(replicas.world, mirror(replicas, newest))
    before = look(replicas)
    mirrors.tell(replicas.world, **answer)
    source = look(replicas)
    assert words in source.fault
    assert (source.newest_at, source.breaks_at, source.mirrors) == (newest, before.breaks_at, before.mirrors)


@pytest.mark.usefixtures("policy")
def test_a_whole_listing_without_the_machine_keeps_its_newest_state_too(replicas: Replicas) -> None:
    newest = timezone.now() - MINUTE
    mirrors.tell(replicas.world, mirror(replicas, newest))
    look(replicas)
    mirrors.tell(replicas.world)
    source = look(replicas)
    assert (source.newest_at, source.breaks_at, source.fault) == (newest, newest + 30 * MINUTE, NOT_REPLICATED)


@pytest.mark.usefixtures("policy")
def test_a_hypervisor_that_is_down_is_said_and_takes_nothing_back(replicas: Replicas) -> None:
    newest = timezone.now() - MINUTE
    mirrors.tell(replicas.world, mirror(replicas, newest))
    look(replicas)
    replicas.world.faults.set("refuse")
    source = look(replicas)
    assert "could not be asked" in source.fault
    assert source.newest_at == newest


@pytest.mark.usefixtures("policy")
def test_a_clock_that_is_ahead_over_there_promises_nothing(replicas: Replicas) -> None:
    mirrors.tell(replicas.world, mirror(replicas, timezone.now() + 600 * MINUTE))
    newest = look(replicas).newest_at
    assert newest is not None
    assert newest <= timezone.now()


@pytest.mark.usefixtures("policy")
def test_a_platform_that_replicates_less_often_than_is_promised_is_told_at_once(replicas: Replicas) -> None:
    mirrors.tell(replicas.world, mirror(replicas, timezone.now(), interval_s=3600))
    assert "every hour: an RPO of 30 min cannot be kept" in look(replicas).fault


@pytest.mark.usefixtures("policy")
def test_a_promise_that_is_broken_is_in_the_ledger_until_a_newer_replica_comes(replicas: Replicas) -> None:
    fault = "Replication is paused there."
    late = timezone.now() - 40 * MINUTE
    mirrors.tell(replicas.world, mirror(replicas, late, state=MirrorState.PAUSED, fault=fault))
    look(replicas)
    replication_promises.watch()
    replication_promises.watch()
    breach = RpoBreach.objects.get()
    assert (breach.since, breach.until, breach.reason) == (late + 30 * MINUTE, None, fault)
    told = Event.objects.get(kind="rpo.broken")
    assert "its newest replica is too old. Replication is paused there." in told.message
    mirrors.tell(replicas.world, mirror(replicas, timezone.now() - MINUTE))
    look(replicas)
    assert RpoBreach.objects.get().until is not None
    assert Event.objects.filter(kind="rpo.kept").count() == 1


@pytest.mark.usefixtures("policy")
def test_one_question_a_hypervisor_and_minute_whatever_the_number_of_machines(replicas: Replicas) -> None:
    other = ChoiceWish(kind="machine", machine_id=replicas.row(1).pk)
    replication_policies.add_choice(actor=replicas.plant.dana, policy_id=ReplicationPolicy.objects.get().pk, wish=other)
    for _ in range(3):
        replicas.plant.look()
    assert mirrors.times_asked(replicas.world) == 1
    ReplicationSource.objects.update(mirrors_at=timezone.now() - 2 * MINUTE)
    replicas.plant.look()
    assert mirrors.times_asked(replicas.world) == 2


def test_nobody_is_asked_what_nobody_watches(replicas: Replicas) -> None:
    replicas.policy()
    paused = watching(replicas, is_enabled=False)
    replicas.plant.look()
    assert mirrors.times_asked(replicas.world) == 0
    replication_policies.change_policy(actor=replicas.plant.dana, policy_id=paused.pk, is_enabled=True)
    replicas.plant.look()
    assert mirrors.times_asked(replicas.world) == 1


def test_what_is_watched_and_copied_at_once_stays_apart(replicas: Replicas) -> None:
    copied = replicas.policy()
    watched = watching(replicas)
    newest = timezone.now() - MINUTE
    mirrors.tell(replicas.world, mirror(replicas, newest))
    replicas.plant.look()
    assert watched.sources.get().newest_at == newest
    assert copied.sources.get().newest_at is None
    assert copied.sources.get().mirrors is None
