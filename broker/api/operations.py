"""Operations: what was ordered and how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import caller
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import Out
from broker.models import Operation
from broker.selectors import operations as selectors
from broker.services import operations as services

router = Router(tags=["operations"])


class OperationOut(Out):
    id: UUID
    kind: str
    """clone, recycle, delete, power, snapshot, revert, unsnapshot, reconfigure, share, screen, probe"""
    action: str | None
    """Of a power operation: on, off, shutdown, reboot, reset, suspend, resume."""
    state: str
    """queued, sent, running, done, failed, cancelled"""
    desktop: UUID | None
    percent: int | None
    step: str
    """What is being done now, in words."""
    error: str
    """What failed, on what, what to do."""
    created_at: datetime
    finished_at: datetime | None
    hypervisor: UUID | None
    """This and what follows: for staff only, else null."""
    requested_by: str | None
    """Null also if the broker asked itself."""
    cause: str | None
    """What it was ordered by or with, such as "by the schedule Evenings"; empty: for itself."""
    attempt: int | None
    error_kind: str | None
    platform_words: str | None
    """The platform's own words for the failure."""


class OperationFilter(Window):
    state: Operation.State | None = None
    kind: Operation.Kind | None = None
    desktop: UUID | None = None


def show_operation(request: HttpRequest, operation: Operation) -> OperationOut:
    """The operation as the caller may see it."""
    is_told_all = caller(request).sees_all
    asker = operation.requested_by
    return OperationOut(
        id=operation.pk,
        kind=operation.kind,
        action=operation.parameters.get("action"),
        state=operation.state,
        desktop=operation.desktop_id,
        percent=operation.percent,
        step=operation.step,
        error=operation.error,
        created_at=operation.created_at,
        finished_at=operation.finished_at,
        hypervisor=operation.hypervisor_id if is_told_all else None,
        requested_by=asker.get_username() if is_told_all and asker else None,
        cause=operation.cause if is_told_all else None,
        attempt=operation.attempt if is_told_all else None,
        error_kind=operation.error_kind if is_told_all else None,
        platform_words=operation.platform_words if is_told_all else None,
    )


def _seen(request: HttpRequest) -> Any:
    found = caller(request)
    return selectors.operations() if found.sees_all else selectors.operations_seen_by(found.user)


@router.get("", response=Page[OperationOut])
def list_operations(request: HttpRequest, wanted: Query[OperationFilter]) -> Page[OperationOut]:
    rows = _seen(request)
    for field in ("state", "kind", "desktop"):
        if (value := getattr(wanted, field)) is not None:
            rows = rows.filter(**{field: value})
    return page(rows, wanted, lambda operation: show_operation(request, operation))


@router.get("/{id}", response=OperationOut)
def get_operation(request: HttpRequest, id: UUID) -> OperationOut:
    return show_operation(request, one(_seen(request), id, "operation"))


@router.post("/{id}/cancel", response=OperationOut)
def cancel_operation(request: HttpRequest, id: UUID) -> OperationOut:
    """Only what has not been sent to the hypervisor can be cancelled; 409 otherwise."""
    operation = services.cancel_operation(actor=caller(request).user, operation_id=id)
    return show_operation(request, operation)


@router.post("/{id}/retry", response={202: OperationOut})
def retry_operation(request: HttpRequest, id: UUID) -> OperationOut:
    """Order the same again; the new operation. Help desk and up."""
    return show_operation(request, services.retry_operation(actor=caller(request).user, operation_id=id))
