"""Operations: written with the decision that needs them, cancelled and retried by people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.utils import timezone

from broker.models import Desktop, Event, Machine, Operation
from broker.models.operations import GIVES_WAY, UNFINISHED
from broker.services import audit, nudges, strays
from broker.services.errors import Clash, Missing
from broker.services.permissions import Right, has, require

RANK_SCREEN = -300
RANK_PERSON = -100
"""What a person waits for goes before the rest, whose rank is the pool's own priority (1 to 100)."""
RANK_MANY = -5
"""What a person orders for many at once: behind those who wait for one, before what the broker wants itself."""
RANK_SHARE = 200
"""Shares of resources come when there is nothing else to do: nobody waits for them."""


def rank_for_person(priority: int) -> int:
    """What a person waits for: among such things too the pool's priority decides."""
    return RANK_PERSON - 100 + priority


DEADLINE_S = {
    Operation.Kind.CLONE: 3600,
    Operation.Kind.RECYCLE: 3600,
    Operation.Kind.DELETE: 1800,
    Operation.Kind.POWER: 600,
    Operation.Kind.SCREEN: 30,
    Operation.Kind.PASSWORD: 60,
    Operation.Kind.PROBE: 300,
}
STAGGERED_S = 4 * 3600
"""One of many that has not been sent for so long has missed its time."""


def deadline_from_first_send(now: datetime) -> Case:
    """The deadline of an operation that is sent now.

    Builds may stand in the queue for as long as it takes, and one of many for long: their time begins with their first
    attempt.
    """

    def within(kind: Operation.Kind) -> Value:
        return Value(now + timedelta(seconds=DEADLINE_S[kind]), DateTimeField())

    first = [When(kind=kind, attempt=0, then=within(kind)) for kind in Operation.BUILDS]
    first.append(When(~Q(cause=""), kind=Operation.Kind.POWER, attempt=0, then=within(Operation.Kind.POWER)))
    return Case(*first, default=F("deadline_at"))


def draft(
    *,
    kind: str,
    hypervisor_id: UUID,
    desktop: Desktop | None = None,
    parameters: Mapping[str, Any],
    requested_by: User | None = None,
    rank: int = 50,
    deadline_s: int | None = None,
    changes: bool = True,
    retry_of: Operation | None = None,
    cause: str = "",
) -> Operation:
    """An unsaved operation, for callers that write many at once. They nudge the pump themselves."""
    now = timezone.now()
    limit = deadline_s if deadline_s is not None else DEADLINE_S.get(Operation.Kind(kind), 900)
    return Operation(
        kind=kind,
        hypervisor_id=hypervisor_id,
        desktop=desktop,
        epoch=desktop.epoch if desktop else 0,
        changes=changes and desktop is not None,
        parameters=dict(parameters),
        requested_by=requested_by,
        rank=rank,
        deadline_at=now + timedelta(seconds=limit),
        created_at=now,
        retry_of=retry_of,
        cause=cause[:200],
    )


def order(
    *,
    kind: str,
    hypervisor_id: UUID,
    desktop: Desktop | None = None,
    parameters: Mapping[str, Any],
    requested_by: User | None = None,
    rank: int = 50,
    deadline_s: int | None = None,
    changes: bool = True,
    retry_of: Operation | None = None,
) -> Operation:
    """Write an operation in the caller's transaction and hint to its pump after the commit.

    Raises `Clash` with the operation that stands in the way if the desktop already has an unfinished change; a
    schedule's order that was not sent yet is cancelled instead.
    """
    operation = draft(
        kind=kind,
        hypervisor_id=hypervisor_id,
        desktop=desktop,
        parameters=parameters,
        requested_by=requested_by,
        rank=rank,
        deadline_s=deadline_s,
        changes=changes,
        retry_of=retry_of,
    )
    try:
        _insert(operation)
    except IntegrityError:
        standing = unfinished_change(desktop) if desktop else None
        if standing is None:
            raise
        message = f"{desktop} is busy: {standing.get_kind_display().lower()} is under way. Try again when it is done."
        raise Clash(message, standing) from None
    nudges.nudge(nudges.PUMP, hypervisor_id)
    nudges.announce("operations")
    return operation


def _insert(operation: Operation) -> None:
    """Raises IntegrityError if the desktop has an unfinished change that does not give way."""
    try:
        with transaction.atomic():
            operation.save(force_insert=True)
    except IntegrityError:
        if operation.desktop_id is None or not give_way(Q(desktop=operation.desktop_id)):
            raise
        with transaction.atomic():
            operation.save(force_insert=True)


def give_way(which: Q) -> int:
    """Cancel the orders of schedules that were not sent yet, of these desktops. Returns how many."""
    return Operation.objects.filter(GIVES_WAY & which).update(
        state=Operation.State.CANCELLED,
        finished_at=timezone.now(),
        error="Something else was wanted of the desktop before it was sent.",
    )


def unfinished_change(desktop: Desktop) -> Operation | None:
    """The one unfinished changing operation that stands in the way of another, if there is one."""
    return Operation.objects.filter(desktop=desktop, changes=True, state__in=UNFINISHED).exclude(GIVES_WAY).first()


def event(
    kind: str,
    message: str,
    *,
    level: str = "info",
    operation: Operation | None = None,
    desktop: Desktop | None = None,
    hypervisor_id: UUID | None = None,
    pool_id: UUID | None = None,
) -> Event:
    """An unsaved event row."""
    return Event(
        at=timezone.now(),
        kind=kind,
        message=message,
        level=level,
        operation=operation,
        desktop=desktop,
        hypervisor_id=hypervisor_id or (operation.hypervisor_id if operation else None),
        pool_id=pool_id or (desktop.pool_id if desktop else None),
    )


def machine_parameters(desktop: Desktop) -> dict[str, Any]:
    """What every order about an existing machine names: its id and the stamp it was made with."""
    return {"machine": desktop.machine_id, "stamp_key": desktop.stamp_key}


def _for_people(actor: User, operation_id: UUID) -> Operation:
    """The operation, if this person may act on it: administrators any, others those they asked for themselves."""
    operation = Operation.objects.select_related("desktop", "hypervisor").filter(pk=operation_id).first()
    if operation is None or not (has(actor, Right.SERVE) or operation.requested_by_id == actor.pk):
        raise Missing("There is no such operation.")
    return operation


def cancel_operation(*, actor: User, operation_id: UUID) -> Operation:
    """Cancel an operation that has not been sent. Raises `Clash` in words when it is too late.

    What the broker still needs, it orders anew; a build that was tried already is ended with its desktop.
    """
    operation = _for_people(actor, operation_id)
    with transaction.atomic():
        now = timezone.now()
        begun = Q(kind=Operation.Kind.CLONE, attempt__gt=0)
        cancellable = Operation.objects.filter(pk=operation.pk, state=Operation.State.QUEUED).exclude(begun)
        cancelled = cancellable.update(
            state=Operation.State.CANCELLED, finished_at=now, error=f"Cancelled by {actor.get_username()}."
        )
        if not cancelled:
            operation.refresh_from_db()
            if operation.state == Operation.State.QUEUED:
                words = "It was sent before, and what came of that is not known yet. Delete the desktop instead."
                raise Clash(words, operation)
            state = operation.get_state_display().lower()
            raise Clash(f"It is too late to cancel: the operation is {state}. What was sent will finish.", operation)
        audit.record(actor=actor, action="operation.cancel", subject=operation)
        event("operation.cancelled", f"Cancelled by {actor.get_username()}.", operation=operation).save()
        if operation.desktop:
            nudges.nudge(nudges.RECONCILE, operation.desktop.pool_id)
        nudges.announce("operations")
    operation.refresh_from_db()
    return operation


def repeats_itself(operation: Operation) -> bool:
    """Whether the broker orders this anew by itself while it is needed, so that nobody needs to retry it."""
    kinds = Operation.Kind
    builds = (kinds.CLONE, kinds.RECYCLE, kinds.SCREEN, kinds.PASSWORD, kinds.SHARE)
    return operation.kind in builds or (operation.kind == Operation.Kind.DELETE and operation.desktop_id is not None)


def _check_still_astray(delete: Operation) -> None:
    """A machine that was to be deleted as drift may be somebody's desktop by now."""
    machines = Machine.objects.select_for_update(of=("self",)).filter(hypervisor=delete.hypervisor_id)
    machine = machines.filter(platform_id=delete.parameters["machine"]).first()
    if machine is None:
        raise Clash("The machine is not there any more.", delete)
    if machine.stamp_key != delete.parameters["stamp_key"]:
        raise Clash(f"{machine.name} is another machine by now. Look at it on the drift page.", delete)
    strays.check(machine)
    strays.refuse_foreign(machine, "deleted")
    strays.refuse_second_delete(machine)


def retry_operation(*, actor: User, operation_id: UUID) -> Operation:
    """Order the same again as a new operation. Raises `Clash` if it has not ended or no longer fits its desktop."""
    require(actor, Right.SERVE)
    old = _for_people(actor, operation_id)
    if not old.is_finished or old.state == Operation.State.DONE:
        raise Clash("Only failed or cancelled operations can be retried.", old)
    if repeats_itself(old):
        raise Clash("The broker repeats this by itself when it is still needed; see the desktop's page.", old)
    if old.desktop and old.epoch != old.desktop.epoch:
        raise Clash(f"{old.desktop} has changed hands since; the old order no longer holds.", old)
    with transaction.atomic():
        if old.kind == Operation.Kind.DELETE:
            _check_still_astray(old)
        operation = order(
            kind=old.kind,
            hypervisor_id=old.hypervisor_id,
            desktop=old.desktop,
            parameters=old.parameters,
            requested_by=actor,
            rank=RANK_PERSON,
            changes=old.changes,
            retry_of=old,
        )
        audit.record(actor=actor, action="operation.retry", subject=old)
    return operation
