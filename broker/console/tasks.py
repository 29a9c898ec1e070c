"""The drawer that every page has: what is being done, by whom, how far it is, and what came of the last things."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from broker.console.access import staff_only
from broker.domain.failover import Kind
from broker.domain.labels import Label, failover_label, operation_label, run_label
from broker.models import Failover, Operation, ReplicationRun
from broker.models.operations import UNFINISHED
from broker.selectors import failovers, operations, replication
from broker.services.operations import repeats_itself

SHOWN = 12
"""Of each sort, of what is not finished."""
ENDED_SHOWN = 8
LATELY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Task:
    """One line, of whatever sort."""

    what: str
    on: str
    who: str
    state: Label
    address: str
    at: datetime
    step: str = ""
    percent: int | None = None
    error: str = ""
    cancel: str = ""
    """Where cancelling is asked or done; empty: it cannot be."""
    asks_first: bool = False
    retry: str = ""


@staff_only
def tasks(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    rows = operations.operations()
    running = [
        *[_of_failover(row) for row in failovers.failovers().filter(state=Failover.State.RUNNING)[:SHOWN]],
        *[_of_run(row, now) for row in replication.runs().filter(state__in=replication.UNFINISHED)[:SHOWN]],
        *[_of_operation(row) for row in rows.filter(state__in=UNFINISHED)[:SHOWN]],
    ]
    ended = rows.filter(finished_at__gte=now - LATELY).order_by("-finished_at")[:ENDED_SHOWN]
    context = {
        "running": sorted(running, key=lambda task: task.at, reverse=True),
        "ended": [_of_operation(row) for row in ended],
    }
    return render(request, "console/operations/_drawer.html", context)


def _of_operation(row: Operation) -> Task:
    action = row.parameters.get("action", "")
    fails = row.state in (Operation.State.FAILED, Operation.State.CANCELLED)
    return Task(
        what=f"{row.get_kind_display()}: {action}" if action else row.get_kind_display(),
        on=f"{row.desktop} · {row.hypervisor}" if row.desktop else str(row.hypervisor),
        who=_who(row.requested_by, row.cause),
        state=operation_label(row.state),
        address=reverse("console:operation", args=[row.pk]),
        at=row.finished_at or row.created_at,
        step=row.step if row.state == Operation.State.RUNNING else "",
        percent=row.percent if row.state == Operation.State.RUNNING else None,
        error=row.error,
        cancel=reverse("console:operation-cancel", args=[row.pk]) if row.state == Operation.State.QUEUED else "",
        retry=reverse("console:operation-retry", args=[row.pk]) if fails and not repeats_itself(row) else "",
    )


def _of_run(row: ReplicationRun, now: datetime) -> Task:
    pace = replication.pace_of(row, now)
    is_running = row.state == ReplicationRun.State.RUNNING
    return Task(
        what=row.get_kind_display(),
        on=row.subject,
        who=_who(row.requested_by, ""),
        state=run_label(row.state, is_to_end=row.is_to_end, is_retried=row.attempt > 0),
        address=reverse("console:run", args=[row.pk]),
        at=row.created_at,
        step=row.step if is_running else "",
        percent=pace.percent if is_running else None,
        cancel="" if row.is_to_end else reverse("console:run-cancel", args=[row.pk]),
    )


def _of_failover(row: Failover) -> Task:
    return Task(
        what=failovers.KINDS[Kind(row.kind)],
        on=f"{row.subject} → {row.hypervisor}",
        who=_who(row.requested_by, ""),
        state=failover_label(row.state, row.step, is_to_end=row.is_to_end),
        address=reverse("console:failover", args=[row.pk]),
        at=row.created_at,
        cancel="" if row.is_to_end else reverse("console:failover-cancel", args=[row.pk]),
        asks_first=True,
    )


def _who(user: Any, cause: str) -> str:
    return ", ".join(str(part) for part in (user or _("Deskyard"), cause) if part)
