"""Old rows go, in batches: finished operations and events by age. Audit entries stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from broker.models import Event, Operation, ScreenSession, Ticket
from broker.services import reconcile

KEEP_OPERATIONS = timedelta(days=30)
KEEP_EVENTS = timedelta(days=90)
KEEP_SESSIONS = timedelta(days=90)
KEEP_TICKETS = timedelta(hours=1)
BATCH = 1000


def tidy() -> int:
    """Delete at most one batch of each kind. Returns how many rows went."""
    now = timezone.now()
    reconcile.recount_reservations()
    finished = Operation.objects.filter(finished_at__lt=now - KEEP_OPERATIONS)
    return (
        _drop(Ticket.objects.filter(expires_at__lt=now - KEEP_TICKETS))
        + _drop(Event.objects.filter(at__lt=now - KEEP_EVENTS))
        + _drop(ScreenSession.objects.filter(ended_at__lt=now - KEEP_SESSIONS))
        + _drop(finished)
    )


def _drop(rows: QuerySet[Any]) -> int:
    ids = list(rows.order_by().values_list("pk", flat=True)[:BATCH])
    return rows.model._default_manager.filter(pk__in=ids).delete()[0] if ids else 0
