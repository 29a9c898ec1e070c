"""What the pages ask of replication: set-wise, and right at the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import (
    Assignment,
    Machine,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Vault,
)
from broker.selectors import replication
from tests.broker.console.furniture import machine
from tests.broker.portal.cast import Estate, estate

pytestmark = pytest.mark.django_db
NOW = timezone.now()
HOUR = timedelta(hours=1)


@pytest.fixture
def house() -> Estate:
    return estate()


@pytest.fixture
def policy() -> ReplicationPolicy:
    vault = Vault.objects.create(name="Cellar", kind="folder", location={"path": "/srv/vault"}, status="up")
    return ReplicationPolicy.objects.create(name="Nightly", vault=vault, interval_s=3600, rpo_s=7200)


@pytest.fixture
def add(house: Estate, policy: ReplicationPolicy) -> Callable[..., ReplicationSource]:
    def make(name: str, **fields: Any) -> ReplicationSource:
        values: dict[str, Any] = {"policy": policy, "hypervisor": house.hypervisor, "platform_id": name, "name": name}
        return ReplicationSource.objects.create(**(values | fields))

    return make


def told(rows: Iterable[Any], *names: str) -> list[tuple[Any, ...]]:
    """Columns of each row, those that the selector added among them."""
    return [tuple(getattr(row, name) for name in names) for row in rows]


def asked(question: Callable[[], object]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        question()
    return len(queries)


def test_minutes_in_violation_are_those_of_the_last_30_days(add: Callable[..., ReplicationSource]) -> None:
    source, other = add("alpha"), add("beta")
    days = timedelta(days=1)
    for since, until in (
        (NOW - 31 * days, NOW - 30 * days + 2 * HOUR),  # two hours of it count
        (NOW - 40 * days, NOW - 35 * days),  # too long ago
        (NOW - 2 * days, NOW - 2 * days + HOUR),
        (NOW - timedelta(minutes=30), None),  # lasts
    ):
        RpoBreach.objects.create(source=source, since=since, until=until)
    found = {row.pk: replication.source_standing(row, NOW).broken_minutes for row in replication.sources(NOW)}
    assert found == {source.pk: 120 + 60 + 30, other.pk: 0}


def test_a_policy_counts_those_that_are_chosen_only(
    policy: ReplicationPolicy, add: Callable[..., ReplicationSource]
) -> None:
    add("kept", newest_at=NOW - HOUR, breaks_at=NOW + HOUR, next_run_at=NOW + HOUR)
    add("broken", newest_at=NOW - 3 * HOUR, breaks_at=NOW - HOUR, took_s=5000.0, next_run_at=NOW - HOUR)
    add("fresh", breaks_at=NOW + HOUR)
    add("dropped", is_chosen=False, newest_at=NOW - 90 * HOUR, took_s=99_999.0)
    standing = replication.standing_of(replication.policies(NOW).get(), NOW)
    assert (standing.machines, standing.broken, standing.without_point, standing.kept) == (3, 1, 1, 2)
    assert (standing.newest_at, standing.oldest_at) == (NOW - HOUR, NOW - 3 * HOUR)
    assert (standing.is_due, standing.oldest_age_s) == (True, 3 * 3600)
    assert standing.label.text == "RPO broken for 1 of 3"
    assert "took 1 h 23 min" in standing.warning


def test_broken_promises_come_first_and_what_is_not_chosen_last(add: Callable[..., ReplicationSource]) -> None:
    add("a-dropped", is_chosen=False, newest_at=NOW - 90 * HOUR)
    add("b-kept", newest_at=NOW, breaks_at=NOW + HOUR)
    add("c-broken", newest_at=NOW - 3 * HOUR, breaks_at=NOW - HOUR)
    rows = [replication.source_standing(row, NOW) for row in replication.sources(NOW)]
    assert [row.source.name for row in rows] == ["c-broken", "b-kept", "a-dropped"]
    assert [row.is_kept for row in rows] == [False, True, True]
    assert rows[0].lag.broken_since == NOW - HOUR


def test_a_paused_policy_promises_nothing(policy: ReplicationPolicy, add: Callable[..., ReplicationSource]) -> None:
    add("alpha", newest_at=NOW - 90 * HOUR, breaks_at=None)
    policy.is_enabled = False
    policy.save()
    standing = replication.source_standing(replication.sources(NOW).get(), NOW)
    assert (standing.is_kept, standing.label.text) == (True, "Paused")
    assert not replication.alarms(NOW)


def test_alarms_name_the_longest_broken_first_and_count_the_rest(
    policy: ReplicationPolicy, add: Callable[..., ReplicationSource]
) -> None:
    assert not replication.alarms(NOW)
    for number in range(8):
        add(f"m-{number}", breaks_at=NOW - number * HOUR)
    Vault.objects.create(name="Bucket", kind="s3", status="refused")
    RecoveryPoint.objects.create(
        vault=Vault.objects.get(policies=policy), machine_name="m", taken_at=NOW, committed_at=NOW, consistency="off",
        size_bytes=1, new_bytes=1, state="broken",
    )  # fmt: skip
    found = replication.alarms(NOW)
    assert [source.name for source in found.broken] == ["m-7", "m-6", "m-5", "m-4", "m-3"]
    assert (found.broken_count, found.damaged_count) == (8, 1)
    assert [vault.name for vault in found.vaults] == ["Bucket"]


@pytest.mark.parametrize(
    ("started", "not_before", "rate"),
    [(60, None, 1.0), (60, 30, 2.0), (60, -30, 1.0)],
    ids=["first attempt", "after a pause", "the pause is yet to come"],
)
def test_the_pace_counts_from_the_attempt_that_is_at_work(started: int, not_before: int | None, rate: float) -> None:
    def ago(seconds: int | None) -> datetime | None:
        return None if seconds is None else NOW - timedelta(seconds=seconds)

    run = ReplicationRun(
        started_at=ago(started), not_before=ago(not_before), total_bytes=600, done_bytes=60, read_bytes=60
    )
    assert replication.pace_of(run, NOW).bytes_a_second == pytest.approx(rate)


def test_questions_cost_the_same_for_few_and_for_many(
    house: Estate, policy: ReplicationPolicy, add: Callable[..., ReplicationSource]
) -> None:
    questions: list[Callable[[], object]] = [
        lambda: [replication.standing_of(row, NOW) for row in replication.policies(NOW)],
        lambda: [(replication.source_standing(row, NOW), row.hypervisor.name) for row in replication.sources(NOW)],
        lambda: [(row.source and row.source.policy.name, row.vault and row.vault.name) for row in replication.runs()],
        lambda: [(row.vault.name, row.source and row.source.policy.name) for row in replication.points()],
        lambda: [row.source.name for row in replication.breaches_of(policy.pk)],
        lambda: [replication.name_of(row) for row in replication.choices_of(policy.pk)],
        lambda: [row.name for row in replication.vaults()],
    ]
    counts = []
    for round_ in range(2):
        for number in range(1 + 6 * round_):
            source = add(f"m-{round_}-{number}", breaks_at=NOW - HOUR)
            RpoBreach.objects.create(source=source, since=NOW - HOUR)
            policy.choices.create(kind="machine", hypervisor=house.hypervisor, platform_id=source.platform_id)
            vault = Vault.objects.get(policies=policy)
            ReplicationRun.objects.create(kind="replicate", source=source, vault=vault, subject=source.name)
            RecoveryPoint.objects.create(
                vault=vault, source=source, machine_name=source.name, taken_at=NOW, committed_at=NOW,
                consistency="off", size_bytes=1, new_bytes=1,
            )  # fmt: skip
        counts.append([asked(question) for question in questions])
    # Standbys come with their machines in a statement of their own.
    assert counts == [[1, 2, 1, 1, 1, 1, 1]] * 2


def test_desktops_and_templates_are_not_offered_as_machines(house: Estate, policy: ReplicationPolicy) -> None:
    server = machine(house.hypervisor, "server-1")
    machine(house.hypervisor, house.desktop.name, platform_id=house.desktop.machine_id)
    machine(house.hypervisor, "image", is_template=True)
    machine(house.hypervisor, "vanished", absences=1)
    offered = replication.machines_to_choose(policy.pk, ["kvm"])
    assert told(offered, "name", "is_taken") == [("server-1", False)]
    policy.choices.create(kind="machine", hypervisor=house.hypervisor, platform_id=server.platform_id)
    found = replication.machines_to_choose(policy.pk, ["kvm"], "SERV")
    assert told(found, "is_taken") == [(True,)]
    assert not replication.machines_to_choose(policy.pk, ["esxi"]).exists()
    assert not replication.machines_to_choose(policy.pk, ["kvm"], "nothing").exists()


def test_only_dedicated_desktops_and_pools_are_offered_and_found_by_their_user(
    house: Estate, policy: ReplicationPolicy
) -> None:
    own = house.open_pool("Own", kind="dedicated")
    desktop = house.give(house.bob, own, name="own-001")
    desktops, pools = replication.desktops_to_choose, replication.pools_to_choose
    assert told(desktops(policy.pk, ["kvm"]), "name", "is_taken") == [("own-001", False)]
    assert told(desktops(policy.pk, ["kvm"], "bob"), "owner") == [("bob",)]
    assert not desktops(policy.pk, ["kvm"], "alice").exists()
    assert told(pools(policy.pk, ["kvm"]), "name", "assigned", "is_taken") == [("Own", 1, False)]
    policy.choices.create(kind="desktop", desktop=desktop)
    policy.choices.create(kind="pool", pool=own)
    Assignment.objects.update(until=NOW)
    assert told(desktops(policy.pk, ["kvm"]), "is_taken") == [(True,)]
    assert told(pools(policy.pk, ["kvm"]), "assigned", "is_taken") == [(0, True)]


def test_templates_are_offered_where_a_copy_can_be_read(house: Estate, policy: ReplicationPolicy) -> None:
    assert [row.name for row in replication.templates_to_choose(policy.pk, ["kvm"], "deb")] == ["Debian 12"]
    assert not replication.templates_to_choose(policy.pk, ["esxi"]).exists()


def test_a_machine_that_is_off_or_gone_does_not_run_any_more(
    house: Estate, policy: ReplicationPolicy, add: Callable[..., ReplicationSource]
) -> None:
    seen = machine(house.hypervisor, "alpha", platform_id="alpha")
    point = RecoveryPoint(vault=Vault.objects.get(policies=policy), source=add("alpha"))
    assert replication.still_runs(point)
    Machine.objects.filter(pk=seen.pk).update(power="off")
    assert not replication.still_runs(point)
    assert not replication.still_runs(RecoveryPoint(vault=Vault.objects.get(policies=policy)))


@pytest.fixture
def watching(house: Estate) -> ReplicationPolicy:
    return ReplicationPolicy.objects.create(name="Of the makers", engine="platform", rpo_s=7200)


def test_a_broken_promise_that_nobody_copies_for_is_an_alarm_with_and_without_a_vault(
    house: Estate, watching: ReplicationPolicy
) -> None:
    for number in range(7):
        ReplicationSource.objects.create(
            policy=watching, hypervisor=house.hypervisor, platform_id=f"w-{number}", name=f"w-{number}", breaks_at=NOW
        )
    assert asked(lambda: replication.alarms(NOW)) == 3
    assert replication.alarms(NOW).broken_count == 7
    Vault.objects.create(name="Cellar", kind="folder")
    Vault.objects.create(name="Attic", kind="folder")
    found = replication.alarms(NOW)
    assert (found.broken_count, len(found.broken)) == (7, 5)
    assert asked(lambda: replication.alarms(NOW)) == 2
    ReplicationSource.objects.update(breaks_at=NOW + HOUR)
    assert asked(lambda: replication.alarms(NOW)) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mirrors": None}, "First replica to come"),
        ({"mirrors": []}, "Not replicated there"),
        ({"mirrors": [], "newest_at": NOW}, "Not replicated there"),
        ({"mirrors": [{}], "newest_at": NOW}, "RPO kept"),
        ({"mirrors": [{}], "newest_at": NOW, "breaks_at": NOW}, "RPO broken"),
        ({"mirrors": [], "is_chosen": False}, "Not replicated any more"),
    ],
)
def test_a_machine_that_its_platform_replicates_has_words_of_its_own(
    house: Estate, watching: ReplicationPolicy, fields: dict[str, Any], words: str
) -> None:
    values: dict[str, Any] = {"breaks_at": NOW + HOUR, **fields}
    ReplicationSource.objects.create(policy=watching, hypervisor=house.hypervisor, platform_id="w", name="w", **values)
    standing = replication.source_standing(replication.sources(NOW).get(), NOW)
    assert standing.label.text == words


def test_a_policy_that_watches_has_no_rhythm_and_its_replicas_are_told(
    house: Estate, watching: ReplicationPolicy
) -> None:
    told = {
        "to": "HV-DR", "state": "paused", "newest_at": NOW.isoformat(), "interval_s": 300, "fault": "It is paused.",
        "can_fail_over": True,
    }  # fmt: skip
    ReplicationSource.objects.create(
        policy=watching, hypervisor=house.hypervisor, platform_id="w", name="w", mirrors=[told], breaks_at=NOW + HOUR
    )
    standing = replication.standing_of(replication.policies(NOW).get(), NOW)
    assert (standing.rhythm, standing.label.text) == ("", "First replicas to come")
    (mirror,) = replication.source_standing(replication.sources(NOW).get(), NOW).mirrors
    assert (mirror.to, mirror.newest_at, mirror.label.text) == ("HV-DR", NOW, "Paused there")
