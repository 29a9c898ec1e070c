"""Old rows go, in batches: finished operations and events by age. Audit entries stay."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from broker.models import Event, Hypervisor, Operation, ScreenSession, Ticket
from broker.services import outcomes, reservations, screens

KEEP_OPERATIONS = timedelta(days=30)
KEEP_EVENTS = timedelta(days=90)
KEEP_SESSIONS = timedelta(days=90)
KEEP_TICKETS = timedelta(hours=1)
BATCH = 1000


def tidy() -> int:
    """Delete at most one batch of each kind. Returns how many rows went."""
    now = timezone.now()
    reservations.recount()
    _time_out_unsent(now)
    screens.end_lost()
    finished = Operation.objects.filter(finished_at__lt=now - KEEP_OPERATIONS)
    return (
        _drop(Ticket.objects.filter(expires_at__lt=now - KEEP_TICKETS))
        + _drop(Event.objects.filter(at__lt=now - KEEP_EVENTS))
        + _drop(ScreenSession.objects.filter(ended_at__lt=now - KEEP_SESSIONS))
        + _drop(finished)
    )


def _time_out_unsent(now: datetime) -> None:
    """Operations whose hypervisor was not usable until their deadline fail in words instead of waiting for ever."""
    stuck = Operation.objects.filter(state=Operation.State.QUEUED, deadline_at__lt=now).exclude(
        hypervisor__status=Hypervisor.Status.UP
    )
    for hypervisor in Hypervisor.objects.filter(pk__in=stuck.values("hypervisor")):
        with transaction.atomic():
            outcomes.time_out(list(stuck.filter(hypervisor=hypervisor).select_related("hypervisor")[:BATCH]), now)


def _drop(rows: QuerySet[Any]) -> int:
    ids = list(rows.order_by().values_list("pk", flat=True)[:BATCH])
    return rows.model._default_manager.filter(pk__in=ids).delete()[0] if ids else 0
