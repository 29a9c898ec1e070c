"""What the clock does each second: find what is due by looking at rows, and nudge it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from broker.models import Pool
from broker.services import (
    failover_steps,
    inventory,
    leases,
    mails,
    movers,
    nudges,
    publication_steps,
    pump,
    readiness,
    replication_runs,
    schedules,
    session_timers,
)

RECONCILE_EVERY_S = 10


def tick() -> None:
    """Nudge every pump, inventory, pool and schedule that is due. Any number of clocks may run."""
    replication_runs.due()
    due: list[tuple[str, UUID | str]] = [
        *((nudges.PUMP, hypervisor_id) for hypervisor_id in pump.backlog()),
        *((nudges.INVENTORY, hypervisor_id) for hypervisor_id in inventory.due()),
        *((nudges.RECONCILE, pool_id) for pool_id in pools_due()),
        *((nudges.SCHEDULE, schedule_id) for schedule_id in schedules.due()),
        *((nudges.MOVE, run_id) for run_id in movers.backlog()),
        *((nudges.FAILOVER, failover_id) for failover_id in failover_steps.running()),
        *((nudges.LEASE, assignment_id) for assignment_id in leases.due()),
        *([(nudges.MAIL, "outbox")] if mails.due() else []),
        *([(nudges.SESSIONS, "due")] if session_timers.due() else []),
        *([(nudges.READINESS, "due")] if readiness.due() else []),
        *((nudges.PUBLICATION, publication_id) for publication_id in publication_steps.running()),
    ]
    # In one transaction all is said at once: without Redis each word alone would cost its own time-out.
    with transaction.atomic():
        for task, subject in due:
            nudges.nudge(task, subject)


def pools_due() -> list[UUID]:
    """Pools to reconcile, claimed by moving their time: the hint may be lost, the next turn comes anyway."""
    now = timezone.now()
    due = Pool.objects.filter(Q(next_reconcile_at=None) | Q(next_reconcile_at__lte=now))
    found = []
    for pool_id, before in due.values_list("pk", "next_reconcile_at"):
        later = now + timedelta(seconds=RECONCILE_EVERY_S)
        if Pool.objects.filter(pk=pool_id, next_reconcile_at=before).update(next_reconcile_at=later):
            found.append(pool_id)
    return found
