"""Runs of movers: what is copied, brought up or read back, and how far it is. Operators and auditors only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import Out
from broker.models import ReplicationRun
from broker.selectors import replication as selectors
from broker.services import replication_runs

router = Router(tags=["replication"])


class RunOut(Out):
    id: UUID
    kind: str
    """replicate, materialise (a recovery point becomes a machine), verify, collect, release, standby (what
    waits for a machine becomes its newest point), mirror (a step of a failover that the platform carries out)"""
    state: str
    """queued, running, done, failed, cancelled"""
    is_to_end: bool
    """Somebody has cancelled it; a mover will hear of it."""
    subject: str
    """The machine's name; of a collection the vault's."""
    policy: UUID | None
    source: UUID | None
    recovery_point: UUID | None
    """replicate: the one that came of it. materialise, verify: the one that is read."""
    vault: UUID | None
    hypervisor: UUID | None
    platform_id: str
    """The machine that is replicated; of one that was brought up once it is there."""
    requested_by: str | None
    """Null: the broker itself."""
    attempt: int
    not_before: datetime | None
    """When it is tried again."""
    step: str
    """What is being done now, in words."""
    percent: int | None
    total_bytes: int | None
    done_bytes: int
    """How far into the disks, of `total_bytes`."""
    read_bytes: int
    new_bytes: int
    """What the vault had to take up."""
    rate_bytes_s: float | None
    """That it reads a second."""
    time_left_s: float | None
    """At the rate so far; null: nothing can be said, or it has ended."""
    whole: str
    """Why everything had to be read and not only what changed; empty if only that was."""
    findings: list[str]
    """What could not be kept of a machine, what a verification found, in sentences."""
    error: str
    """What failed, on what, what to do."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["replicate", "materialise", "verify", "collect", "release", "standby", "mirror"]
"""Spelt out: enumerations of the models would meet others of their name in the description."""


class RunFilter(Window):
    policy: UUID | None = None
    source: UUID | None = None
    state: State | None = None
    kind: Kind | None = None


def show_run(row: ReplicationRun, now: datetime) -> RunOut:
    pace = selectors.pace_of(row, now)
    is_running = row.state == ReplicationRun.State.RUNNING
    return RunOut(
        id=row.pk,
        kind=row.kind,
        state=row.state,
        is_to_end=row.is_to_end,
        subject=row.subject,
        policy=row.source.policy_id if row.source else None,
        source=row.source_id,
        recovery_point=row.point_id,
        vault=row.vault_id,
        hypervisor=row.hypervisor_id,
        platform_id=row.platform_id,
        requested_by=row.requested_by.get_username() if row.requested_by else None,
        attempt=row.attempt,
        not_before=row.not_before,
        step=row.step,
        percent=pace.percent,
        total_bytes=row.total_bytes,
        done_bytes=row.done_bytes,
        read_bytes=row.read_bytes,
        new_bytes=row.new_bytes,
        rate_bytes_s=pace.bytes_a_second,
        time_left_s=pace.left_s if is_running else None,
        whole=row.whole,
        findings=row.findings,
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def get_shown(run_id: UUID) -> RunOut:
    """Raises `Missing`."""
    return show_run(one(selectors.runs(), run_id, "run"), timezone.now())


@router.get("", response=Page[RunOut])
def list_runs(request: HttpRequest, wanted: Query[RunFilter]) -> Page[RunOut]:
    staff(request, Right.REVIEW)
    found = selectors.RunFilter(
        state=wanted.state or "", kind=wanted.kind or "", policy=wanted.policy, source=wanted.source
    )
    now = timezone.now()
    return page(found.apply(selectors.runs()), wanted, lambda row: show_run(row, now))


@router.get("/{id}", response=RunOut)
def get_run(request: HttpRequest, id: UUID) -> RunOut:
    staff(request, Right.REVIEW)
    return get_shown(id)


@router.post("/{id}/cancel", response={202: RunOut})
def cancel_run(request: HttpRequest, id: UUID) -> RunOut:
    """A queued run ends now, one at work when its mover hears of it. 409 if it has ended."""
    replication_runs.cancel_run(actor=staff(request, Right.OPERATE), run_id=id)
    return get_shown(id)
