"""Tasks about one hypervisor, pool, schedule, lease, failover or publication, and about sessions that are due."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from broker.services import (
    failover_steps,
    inventory,
    leases,
    nudges,
    publication_steps,
    pump,
    readiness,
    reconcile,
    schedules,
    session_timers,
)
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


@shared_task(name=nudges.PUBLICATION)
@with_database
def advance_publication(publication_id: str) -> None:
    publication_steps.advance(UUID(publication_id))


@shared_task(name=nudges.SCHEDULE)
@with_database
def run_schedule(schedule_id: str) -> None:
    schedules.run(UUID(schedule_id))


@shared_task(name=nudges.LEASE)
@with_database
def end_lease(assignment_id: str) -> None:
    leases.run(UUID(assignment_id))


@shared_task(name=nudges.READINESS)
@with_database
def ask_guests(which: str) -> None:
    """Of all desktops that wait for it: does the guest's RDP server answer?"""
    readiness.ask()


@shared_task(name=nudges.SESSIONS)
@with_database
def look_at_sessions(which: str) -> None:
    """All that are due; a hint names them as hints name what they are about."""
    session_timers.look()
