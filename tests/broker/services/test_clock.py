"""The clock finds what is due by looking at rows; hints may all be lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from broker.models import Hypervisor, Operation, Pool
from broker.services import clock, nudges
from tests.broker.portal.cast import Estate


@pytest.fixture
def calm(house: Estate) -> Estate:
    """Nothing is due."""
    later = timezone.now() + timedelta(hours=1)
    Hypervisor.objects.update(next_inventory_at=later)
    Pool.objects.update(next_reconcile_at=later)
    return house


def _queue(house: Estate, **fields: Any) -> None:
    now = timezone.now()
    values: dict[str, Any] = {
        "kind": Operation.Kind.POWER,
        "hypervisor": house.hypervisor,
        "changes": False,
        "created_at": now,
        "deadline_at": now + timedelta(hours=1),
    }
    Operation.objects.create(**(values | fields))


def _ticks(hints: Callable[[], Any]) -> list[str]:
    with hints() as sent:
        clock.tick()
    return [task for task, _ in sent]


def test_nothing_due_wakes_nobody(calm: Estate, hints: Callable[[], Any]) -> None:
    assert _ticks(hints) == []


def test_a_pool_that_is_due_is_woken_once_however_many_clocks_run(calm: Estate, hints: Callable[[], Any]) -> None:
    Pool.objects.update(next_reconcile_at=timezone.now())
    assert _ticks(hints) + _ticks(hints) == [nudges.RECONCILE]


def test_a_pool_whose_hint_was_lost_has_its_turn_again(calm: Estate, hints: Callable[[], Any]) -> None:
    Pool.objects.update(next_reconcile_at=None)
    _ticks(hints)
    Pool.objects.update(next_reconcile_at=timezone.now() - timedelta(milliseconds=1))
    assert _ticks(hints) == [nudges.RECONCILE]


def test_a_hypervisor_that_is_due_is_looked_at(calm: Estate, hints: Callable[[], Any]) -> None:
    Hypervisor.objects.update(next_inventory_at=timezone.now())
    assert _ticks(hints) == [nudges.INVENTORY]


@pytest.mark.parametrize(
    "fields",
    [{}, {"state": "sent", "next_poll_at": timezone.now()}, {"state": "running", "next_poll_at": timezone.now()}],
)
def test_work_that_nobody_does_wakes_a_pump(calm: Estate, hints: Callable[[], Any], fields: dict[str, Any]) -> None:
    _queue(calm, **fields)
    assert _ticks(hints) == [nudges.PUMP]


@pytest.mark.parametrize(
    "fields",
    [
        {"pump_expires_at": timezone.now() + timedelta(hours=1)},
        {"retry_at": timezone.now() + timedelta(hours=1)},
        {"status": Hypervisor.Status.REFUSED},
    ],
)
def test_what_is_done_already_or_must_wait_wakes_nobody(
    calm: Estate, hints: Callable[[], Any], fields: dict[str, Any]
) -> None:
    _queue(calm)
    Hypervisor.objects.update(**fields)
    assert nudges.PUMP not in _ticks(hints)


def test_what_may_be_sent_later_wakes_nobody_yet(calm: Estate, hints: Callable[[], Any]) -> None:
    _queue(calm, not_before=timezone.now() + timedelta(minutes=1))
    assert _ticks(hints) == []


def test_a_pump_that_died_is_followed_by_another(calm: Estate, hints: Callable[[], Any]) -> None:
    _queue(calm)
    Hypervisor.objects.update(pump_expires_at=timezone.now() - timedelta(seconds=1))
    assert _ticks(hints) == [nudges.PUMP]


@pytest.mark.parametrize("waiting", [1, 300])
def test_a_tick_costs_the_same_whatever_waits(calm: Estate, waiting: int) -> None:
    for _ in range(waiting):
        _queue(calm)
    with CaptureQueriesContext(connection) as asked:
        clock.tick()
    assert len([query for query in asked.captured_queries if "SAVEPOINT" not in str(query["sql"])]) == 11


def test_all_that_is_due_is_said_in_one_breath(calm: Estate) -> None:
    """Each word alone would wait for a Redis that is away."""
    Hypervisor.objects.update(next_inventory_at=timezone.now())
    Pool.objects.update(next_reconcile_at=timezone.now())
    before = len(connection.run_on_commit)
    clock.tick()
    assert len(connection.run_on_commit) == before + 1
