"""Old rows go in batches, the audit stays, and nothing waits for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.models import AuditEntry, Desktop, Event, Hypervisor, Operation
from broker.services import housekeeping
from tests.broker.portal.cast import Estate

YEARS_AGO = timezone.now() - timedelta(days=1000)


def _operation(house: Estate, **fields: Any) -> Operation:
    values: dict[str, Any] = {
        "kind": Operation.Kind.POWER,
        "hypervisor": house.hypervisor,
        "changes": "desktop" in fields,
        "created_at": YEARS_AGO,
        "deadline_at": YEARS_AGO,
    }
    return Operation.objects.create(**(values | fields))


def test_what_finished_long_ago_goes_and_what_is_recent_or_unfinished_stays(house: Estate) -> None:
    _operation(house, state="done", finished_at=YEARS_AGO)
    recent = _operation(house, state="done", finished_at=timezone.now())
    running = _operation(house, state="running")
    housekeeping.tidy()
    assert set(Operation.objects.values_list("pk", flat=True)) == {recent.pk, running.pk}


def test_old_events_go_and_the_audit_stays(house: Estate) -> None:
    Event.objects.create(at=YEARS_AGO, kind="desktop.built", message="Built.")
    AuditEntry.objects.create(at=YEARS_AGO, actor_name="dana", action="pool.create", noun="pool", object_id="1")
    housekeeping.tidy()
    assert not Event.objects.exists()
    assert AuditEntry.objects.count() == 1


def test_one_batch_goes_at_a_time(house: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 3)
    Event.objects.bulk_create(Event(at=YEARS_AGO, kind="k", message="m") for _ in range(7))
    assert [housekeeping.tidy() for _ in range(4)] == [3, 3, 1, 0]


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("status", ["down", "refused", "doubt", "new"])
def test_what_is_late_at_a_hypervisor_that_cannot_be_used_fails_in_words(
    house: Estate, state: str, status: str
) -> None:
    Hypervisor.objects.update(status=status)
    desktop = house.make(state=State.BUILDING, machine_id="", clean_epoch=0)
    late = _operation(house, kind="clone", state=state, desktop=desktop, epoch=1, attempt=1)
    housekeeping.tidy()
    late.refresh_from_db()
    desktop.refresh_from_db()
    assert late.state == Operation.State.FAILED
    assert "was not done within" in late.error
    assert desktop.state == State.FAILED


def test_what_is_late_where_a_pump_is_at_work_is_left_to_it(house: Estate) -> None:
    late = _operation(house, state="queued")
    housekeeping.tidy()
    late.refresh_from_db()
    assert late.state == Operation.State.QUEUED


def test_an_order_whose_call_lasts_is_not_failed_under_it(house: Estate) -> None:
    Hypervisor.objects.update(status="down")
    calling = _operation(house, state="sent", call_deadline=timezone.now() + timedelta(seconds=5))
    housekeeping.tidy()
    calling.refresh_from_db()
    assert calling.state == Operation.State.SENT


def test_an_order_that_was_cancelled_meanwhile_does_not_become_a_failed_one(house: Estate) -> None:
    Hypervisor.objects.update(status="down")
    desktop = house.make(state=State.PLANNED, machine_id="", clean_epoch=0)
    cancelled = _operation(house, kind="clone", state="cancelled", desktop=desktop, epoch=1)
    housekeeping.tidy()
    cancelled.refresh_from_db()
    assert cancelled.state == Operation.State.CANCELLED
    assert Desktop.objects.get(pk=desktop.pk).state == State.PLANNED


@pytest.mark.parametrize("kind", Operation.BUILDS)
def test_a_build_that_was_never_sent_waits_for_its_turn_however_long_that_takes(house: Estate, kind: str) -> None:
    Hypervisor.objects.update(status="doubt")
    waiting = _operation(house, kind=kind, state="queued", attempt=0)
    housekeeping.tidy()
    waiting.refresh_from_db()
    assert waiting.state == Operation.State.QUEUED
