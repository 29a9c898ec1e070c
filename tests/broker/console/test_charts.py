"""Samples of the estate, and the charts that are drawn from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import Host, Hypervisor, Sample, ScreenSession, Storage
from broker.services import housekeeping, samples
from tests.broker.portal.cast import Estate

NOON = datetime(2026, 11, 27, 12, 3, 20, tzinfo=UTC)


def furnish(house: Estate) -> None:
    now = timezone.now()
    for number in range(2):
        Host.objects.create(
            hypervisor=house.hypervisor, platform_id=str(number), name=f"host-{number}", vcpus=8, memory_mib=1000,
            used_vcpus=2, reserved_vcpus=1, used_memory_mib=300, reserved_memory_mib=100, seen_at=now,
        )  # fmt: skip
    Storage.objects.create(
        hypervisor=house.hypervisor, platform_id="pool", name="pool", capacity_mib=4000, free_mib=1000, seen_at=now
    )
    house.make()
    house.make(state=State.BUILDING)
    house.make(state=State.MISSING)
    house.make(state=State.GONE)
    for _ in range(2):
        ScreenSession.objects.create(
            desktop=house.desktop, user=house.alice, epoch=2, protocol="vnc", started_at=now, seen_at=now
        )


def test_a_sample_tells_how_each_hypervisor_and_all_together_stand(house: Estate) -> None:
    furnish(house)
    Hypervisor.objects.create(name="idle", kind="kvm")
    assert samples.take(NOON) == 3
    own = Sample.objects.get(hypervisor=house.hypervisor)
    everything = Sample.objects.get(hypervisor=None)
    for sample in (own, everything):
        assert sample.at == NOON.replace(minute=0, second=0)
        assert (sample.ready, sample.assigned, sample.coming, sample.broken, sample.in_use) == (1, 1, 1, 1, 1)
        assert (sample.vcpus, sample.taken_vcpus) == (16, 6)
        assert (sample.memory_mib, sample.taken_memory_mib) == (2000, 800)
        assert (sample.storage_mib, sample.taken_storage_mib) == (4000, 3000)
    assert Sample.objects.get(hypervisor__name="idle").vcpus == 0


def test_there_is_one_sample_a_span_whoever_asks(house: Estate) -> None:
    assert samples.take(NOON) == 2
    assert samples.take(NOON + timedelta(seconds=90)) == 0
    assert samples.take(NOON + timedelta(seconds=100)) == 2
    assert Sample.objects.count() == 4
    for hypervisor in (None, house.hypervisor):
        with pytest.raises(IntegrityError), transaction.atomic():
            Sample.objects.create(at=NOON.replace(minute=0, second=0), hypervisor=hypervisor)


def test_a_sample_takes_the_same_statements_for_many_hypervisors(house: Estate) -> None:
    with CaptureQueriesContext(connection) as few:
        samples.take(NOON)
    for number in range(20):
        Hypervisor.objects.create(name=f"kvm-1{number:02}", kind="kvm")
    with CaptureQueriesContext(connection) as many:
        samples.take(NOON + timedelta(hours=1))
    assert len(many) == len(few)


def test_housekeeping_takes_them(house: Estate) -> None:
    housekeeping.tidy()
    assert Sample.objects.filter(hypervisor=None).count() == 1


def test_old_samples_thin_out_and_go(house: Estate) -> None:
    def at(age: timedelta) -> Sample:
        return Sample.objects.create(at=NOON.replace(minute=0, second=0) - age)

    kept = [at(timedelta(hours=1, minutes=5)), at(timedelta(days=3)), at(timedelta(days=99))]
    at(timedelta(days=3, minutes=5))
    at(timedelta(days=101))
    assert samples.tidy(NOON) == 2
    assert set(Sample.objects.all()) == set(kept)


def ask(dana: Client, name: str, **query: str) -> dict[str, Any]:
    answer = dana.get(reverse("console:chart", args=[name]), query)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_chart_of_desktops_counts_and_one_of_capacity_is_in_per_cent(house: Estate, dana: Client) -> None:
    furnish(house)
    samples.take(timezone.now())
    desktops = ask(dana, "desktops")
    assert [(line["name"], line["values"]) for line in desktops["lines"]] == [
        ("Assigned", [1.0]), ("In use", [1.0]), ("Ready", [1.0]), ("Failed or missing", [1.0]),
    ]  # fmt: skip
    capacity = ask(dana, "capacity", hypervisor=str(house.hypervisor.pk))
    assert capacity["unit"] == "%"
    assert [(line["name"], line["values"]) for line in capacity["lines"]] == [
        ("Memory", [40.0]), ("Processors", [37.5]), ("Storage", [75.0]),
    ]  # fmt: skip


def test_what_was_not_known_is_a_gap_and_not_a_nought(house: Estate, dana: Client) -> None:
    Sample.objects.create(at=timezone.now() - timedelta(hours=1))
    assert [line["values"] for line in ask(dana, "capacity")["lines"]] == [[None]] * 3


def test_a_span_shows_its_own_samples_and_never_more_than_fit(house: Estate, dana: Client) -> None:
    now = timezone.now()
    Sample.objects.bulk_create(Sample(at=now - timedelta(minutes=5 * number), ready=1) for number in range(1500))
    counts = {span: len(ask(dana, "desktops", span=span)["times"]) for span in ("day", "week", "month")}
    assert 280 <= counts["day"] <= 290
    assert counts["week"] <= 401
    assert counts["month"] <= 401
    assert len(ask(dana, "desktops", span="nonsense")["times"]) == counts["day"]


def test_charts_are_for_administrators_and_an_unknown_one_is_not_there(house: Estate, dana: Client) -> None:
    assert dana.get(reverse("console:chart", args=["moods"])).status_code == 404
    alice = Client()
    alice.force_login(house.alice)
    assert alice.get(reverse("console:chart", args=["desktops"])).status_code == 403
