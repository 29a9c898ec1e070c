"""Tasks about one hypervisor, one pool, one schedule or one failover."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from broker.services import failover_steps, inventory, nudges, pump, reconcile, schedules
from broker.tasks.database import with_database


@shared_task(name=nudges.PUMP)
@with_database
def run_pump(hypervisor_id: str) -> None:
    pump.run(UUID(hypervisor_id))


@shared_task(name=nudges.INVENTORY)
@with_database
def take_inventory(hypervisor_id: str) -> None:
    inventory.take(UUID(hypervisor_id))


@shared_task(name=nudges.RECONCILE)
@with_database
def reconcile_pool(pool_id: str) -> None:
    reconcile.run(UUID(pool_id))


@shared_task(name=nudges.FAILOVER)
@with_database
def advance_failover(failover_id: str) -> None:
    failover_steps.advance(UUID(failover_id))


@shared_task(name=nudges.SCHEDULE)
@with_database
def run_schedule(schedule_id: str) -> None:
    schedules.run(UUID(schedule_id))
