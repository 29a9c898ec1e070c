"""Old rows go, in batches: finished operations, runs, publications and events by age. Audit entries stay."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from broker.models import (
    DesktopSession,
    Device,
    Event,
    Hypervisor,
    Notice,
    Operation,
    Publication,
    ReplicationRun,
    RpoBreach,
    ScreenSession,
    Submission,
    Ticket,
)
from broker.models.operations import UNFINISHED
from broker.services import outcomes, publications, replication_promises, reservations, samples, screens, standbys

KEEP_OPERATIONS = timedelta(days=30)
KEEP_EVENTS = timedelta(days=90)
KEEP_SESSIONS = timedelta(days=90)
KEEP_BREACHES = timedelta(days=366)
KEEP_NOTICES = timedelta(days=180)
KEEP_TICKETS = timedelta(hours=1)
BATCH = 1000


def tidy() -> int:
    """Delete at most one batch of each kind. Returns how many rows went."""
    now = timezone.now()
    reservations.recount()
    _time_out_unreachable(now)
    screens.end_lost()
    replication_promises.watch()
    standbys.watch(now)
    samples.take(now)
    finished = Operation.objects.filter(finished_at__lt=now - KEEP_OPERATIONS)
    return (
        _drop(Ticket.objects.filter(expires_at__lt=now - KEEP_TICKETS))
        + _drop(Submission.objects.filter(until__lt=now))
        + _drop(Event.objects.filter(at__lt=now - KEEP_EVENTS))
        + _drop(ScreenSession.objects.filter(ended_at__lt=now - KEEP_SESSIONS))
        + _drop(DesktopSession.objects.filter(ended_at__lt=now - KEEP_SESSIONS))
        + _drop(finished)
        + _drop(Device.objects.filter(seen_at__lt=now - KEEP_SESSIONS))
        + samples.tidy(now)
        + _drop(Notice.objects.filter(created_at__lt=now - KEEP_NOTICES))
        + publications.forget(now - KEEP_OPERATIONS, BATCH)
        + _drop(_runs(now - KEEP_OPERATIONS))
        + _drop(RpoBreach.objects.filter(until__lt=now - KEEP_BREACHES))
    )


def _runs(before: datetime) -> QuerySet[ReplicationRun]:
    """Those of publications stay as long as these: they tell which recovery points were made for them."""
    told = Publication.objects.filter(copying=OuterRef("pk"))
    return ReplicationRun.objects.filter(~Exists(told), finished_at__lt=before)


def _time_out_unreachable(now: datetime) -> None:
    """Operations whose hypervisor was not usable until their deadline fail in words instead of waiting for ever."""
    late = Operation.objects.filter(state__in=UNFINISHED, deadline_at__lt=now)
    unusable = Hypervisor.objects.exclude(status=Hypervisor.Status.UP).filter(pk__in=late.values("hypervisor"))
    for pk in list(unusable.values_list("pk", flat=True)):
        with transaction.atomic():
            hypervisor = Hypervisor.objects.select_for_update(no_key=True).filter(pk=pk).first()
            if hypervisor:
                outcomes.time_out(hypervisor, Operation.objects.filter(hypervisor=hypervisor), now, limit=BATCH)


def _drop(rows: QuerySet[Any]) -> int:
    ids = list(rows.order_by().values_list("pk", flat=True)[:BATCH])
    return rows.model._default_manager.filter(pk__in=ids).delete()[0] if ids else 0
