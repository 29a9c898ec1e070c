"""Policies that watch what platforms replicate by themselves, in the console."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from broker.models import Hypervisor, ReplicationPolicy, ReplicationSource
from tests.broker.console.furniture import machine
from tests.broker.console.test_acts import at, text_of
from tests.broker.console.test_replication import seen
from tests.broker.portal.cast import Estate

HALF_AN_HOUR = timedelta(minutes=30)


@pytest.fixture
def telling(house: Estate) -> Hypervisor:
    """A hypervisor that tells what it replicates, beside the house's, which does not."""
    return Hypervisor.objects.create(name="hv-01", kind="instant", status="up")


@pytest.fixture
def policy(telling: Hypervisor) -> ReplicationPolicy:
    return ReplicationPolicy.objects.create(name="Of the makers", engine="platform", rpo_s=1800)


def watched(policy: ReplicationPolicy, newest_at: datetime | None, **fields: Any) -> ReplicationSource:
    now = timezone.now()
    mirror = {
        "to": "HV-DR", "state": "healthy", "newest_at": newest_at and newest_at.isoformat(), "interval_s": 300,
        "fault": "", "can_fail_over": True,
    }  # fmt: skip
    values: dict[str, Any] = {
        "hypervisor": Hypervisor.objects.get(name="hv-01"), "platform_id": "srv-1", "name": "srv-1",
        "newest_at": newest_at, "breaks_at": (newest_at or now) + HALF_AN_HOUR, "mirrors": [mirror], "mirrors_at": now,
    }  # fmt: skip
    return ReplicationSource.objects.create(policy=policy, **(values | fields))


def test_without_a_vault_there_is_another_way_where_a_platform_tells_what_it_replicates(
    house: Estate, dana: Client
) -> None:
    assert at("policy-watch") not in dana.get(at("replication")).content.decode()
    Hypervisor.objects.create(name="hv-01", kind="instant", status="up")
    for page in (dana.get(at("replication")), dana.get(at("policy-add"))):
        assert at("policy-watch") in page.content.decode()


def test_a_policy_that_watches_asks_for_a_name_and_a_promise_alone(telling: Hypervisor, dana: Client) -> None:
    page = seen(dana.get(at("policy-watch")))
    assert "These tell what they replicate: hv-01." in page
    assert "vault" not in page.replace("into a vault", "")
    answer = dana.post(at("policy-watch"), {"name": "Of the makers", "rpo": "30 min"}, follow=True)
    made = ReplicationPolicy.objects.get()
    assert answer.redirect_chain == [(at("policy-choose", made.pk), 302)]
    assert (made.engine, made.vault, made.rpo_s, made.interval_s) == ("platform", None, 1800, None)


def test_what_is_wrong_with_it_is_said(telling: Hypervisor, dana: Client) -> None:
    answer = dana.post(at("policy-watch"), {"name": "", "rpo": "30 s"})
    assert answer.status_code == 422
    assert "This field is required." in text_of(answer)
    answer = dana.post(at("policy-watch"), {"name": "Of the makers", "rpo": "30 s"})
    assert answer.status_code == 422
    assert "A whole number from 60" in text_of(answer)


def test_only_machines_of_hypervisors_that_tell_are_offered_and_no_disks(
    house: Estate, telling: Hypervisor, policy: ReplicationPolicy, dana: Client
) -> None:
    machine(telling, "srv-1")
    machine(house.hypervisor, "srv-2")
    page = dana.get(at("policy-choose", policy.pk))
    assert "What shall Of the makers watch?" in seen(page)
    assert f"Not offered: {house.hypervisor}. Hypervisors of that kind do not tell" in seen(page)
    assert "srv-1" in seen(page)
    assert "srv-2" not in seen(page)
    assert "Only these disks" not in seen(page)


def test_the_page_tells_where_each_machine_goes_and_how_old_what_has_arrived_is(
    policy: ReplicationPolicy, dana: Client
) -> None:
    watched(policy, timezone.now() - timedelta(minutes=10))
    page = seen(dana.get(at("policy", policy.pk)))
    assert "Its machines are replicated by their platforms themselves, and Deskyard watches." in page
    assert "The newest replica of each is promised to be at most 30 min old." in page
    assert "HV-DR Replicating every 5 min · a whole replica is there" in page
    assert "RPO kept" in page
    for word in ("Run now", "Latest runs", "Kept:", "Smallest RPO", "into None"):
        assert word not in page


def test_a_machine_that_is_not_replicated_stands_out_with_what_to_do(policy: ReplicationPolicy, dana: Client) -> None:
    watched(policy, None, mirrors=[], fault="The platform does not replicate this machine: set it up there.")
    page = seen(dana.get(at("policy", policy.pk)))
    assert "Not replicated there The platform does not replicate this machine: set it up there." in page
    assert "nowhere, as far as is known" in page


def test_the_overview_and_the_dashboard_tell_of_a_promise_that_a_platform_breaks(
    policy: ReplicationPolicy, dana: Client
) -> None:
    watched(policy, timezone.now() - timedelta(hours=2), fault="Replication to HV-DR is paused.")
    for name in ("replication", "dashboard"):
        page = seen(dana.get(at(name)))
        assert "The RPO of 1 machine is broken. srv-1 : its newest replica is of 2 h ago" in page
        assert "Replication to HV-DR is paused." in page
    assert "by the platforms themselves" in seen(dana.get(at("replication")))


def test_it_is_changed_and_deleted_in_words_of_its_own(policy: ReplicationPolicy, dana: Client) -> None:
    assert 'value="30 min"' in dana.get(at("policy-edit", policy.pk)).content.decode()
    dana.post(at("policy-edit", policy.pk), {"name": "Theirs", "rpo": "1 h"})
    policy.refresh_from_db()
    assert (policy.name, policy.rpo_s) == ("Theirs", 3600)
    assert "they go on to replicate" in seen(dana.get(at("policy-delete", policy.pk)))
