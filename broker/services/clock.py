"""What the clock does each second: find what is due by looking at rows, and nudge it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from broker.models import Pool
from broker.services import failover_steps, inventory, movers, nudges, pump, replication, schedules

RECONCILE_EVERY_S = 10


def tick() -> None:
    """Nudge every pump, inventory, pool and schedule that is due. Any number of clocks may run."""
    replication.due()
    due = [
        *((nudges.PUMP, hypervisor_id) for hypervisor_id in pump.backlog()),
        *((nudges.INVENTORY, hypervisor_id) for hypervisor_id in inventory.due()),
        *((nudges.RECONCILE, pool_id) for pool_id in pools_due()),
        *((nudges.SCHEDULE, schedule_id) for schedule_id in schedules.due()),
        *((nudges.MOVE, run_id) for run_id in movers.backlog()),
        *((nudges.FAILOVER, failover_id) for failover_id in failover_steps.running()),
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
