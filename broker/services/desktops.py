"""What administrators do to single desktops, and who may use one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain.lifecycle import Event as Move
from broker.domain.lifecycle import State, sources
from broker.models import Assignment, Desktop, Hypervisor, Operation
from broker.services import audit, nudges, operations, reservations
from broker.services.errors import Clash, Missing
from broker.services.permissions import Right, has, require


def may_use(user: User, desktop_id: UUID) -> Desktop:
    """The desktop, for its user and those who help people; `Missing` for everybody else, whether it exists or not."""
    mine = Assignment.objects.filter(desktop_id=desktop_id, user=user, until=None).exists()
    desktop = Desktop.objects.select_related("pool", "hypervisor", "copy").filter(pk=desktop_id).first()
    if desktop is None or not (mine or has(user, Right.SERVE)):
        raise Missing("There is no such desktop.")
    return desktop


def _for_staff(actor: User, desktop_id: UUID, right: Right) -> Desktop:
    require(actor, right)
    return may_use(actor, desktop_id)


def retire_desktop(*, actor: User, desktop_id: UUID) -> Desktop:
    """Delete a desktop with its machine. Refused while somebody uses it: reclaim it first."""
    desktop = _for_staff(actor, desktop_id, Right.OPERATE)
    if desktop.state == State.ASSIGNED or desktop.assignments.filter(until=None).exists():
        raise Clash(f"{desktop} is assigned. Reclaim it before you delete it.")
    if not retire(desktop, reason=f"Deleted by {actor.get_username()}.", actor=actor):
        raise Clash(f"{desktop} is {desktop.state} and cannot be deleted now.")
    desktop.refresh_from_db()
    return desktop


def retire(desktop: Desktop, *, reason: str, actor: User | None = None) -> bool:
    """Move a desktop towards gone by compare-and-swap. False if it moved elsewhere meanwhile. Its pool's reconciler
    writes the delete order as soon as nothing else is in flight."""
    now = timezone.now()
    with transaction.atomic():
        moved = Desktop.objects.filter(
            pk=desktop.pk, epoch=desktop.epoch, state__in=sources(Move.RETIRED) - {State.RETIRING}
        ).update(**retiring(now))
        if not moved:
            return False
        cancel_queued([desktop.pk], now)
        operations.event("desktop.retired", reason, desktop=desktop).save(force_insert=True)
        audit.record(actor=actor, action="desktop.retire", subject=desktop, changes={"reason": [None, reason]})
        nudges.nudge(nudges.RECONCILE, desktop.pool_id)
        nudges.announce("desktops", desktop=str(desktop.pk))
    return True


def retiring(now: datetime) -> dict[str, Any]:
    """The columns of a desktop that begins to go."""
    return {"state": State.RETIRING, "state_since": now, "is_answering": False, "ready_at": None, "attempts": 0}


def cancel_queued(desktop_ids: Collection[UUID], now: datetime) -> None:
    """What was not sent yet is not wanted of desktops that are being deleted."""
    Operation.objects.filter(desktop__in=desktop_ids, state=Operation.State.QUEUED).update(
        state=Operation.State.CANCELLED, finished_at=now, error="The desktop is being deleted."
    )


def forget_desktop(*, actor: User, desktop_id: UUID) -> Desktop:
    """Give up a desktop whose machine cannot be deleted: its hypervisor is lost, or it refuses every time.

    Nothing is asked of the hypervisor. Should the machine turn up again, it stands on the drift page, or is deleted
    unasked if nobody ever had it. Raises `Clash` while somebody has it or deleting it may still go well.
    """
    desktop = _for_staff(actor, desktop_id, Right.OPERATE)
    if desktop.assignments.filter(until=None).exists():
        raise Clash(f"{desktop} is assigned. Reclaim it before you forget it.")
    if desktop.state not in sources(Move.FORGOTTEN):
        raise Clash(f"{desktop} is {desktop.state}. Delete it first; what cannot be deleted may be forgotten.")
    if not is_out_of_reach(desktop):
        if desktop.state == State.RETIRING:
            raise Clash(f"{desktop.hypervisor} answers, and {desktop} is being deleted there. Wait for that.")
        raise Clash(f"{desktop.hypervisor} answers. Delete {desktop} instead.")
    now = timezone.now()
    with transaction.atomic():
        moved = Desktop.objects.filter(pk=desktop.pk, epoch=desktop.epoch, state=desktop.state).update(
            state=State.GONE, state_since=now, is_answering=False
        )
        if not moved:
            raise Clash(f"{desktop} moved on a moment ago. Look at it again.")
        Operation.objects.filter(desktop=desktop, state=Operation.State.QUEUED).update(
            state=Operation.State.CANCELLED, finished_at=now, error="The desktop was forgotten."
        )
        reservations.end([desktop])
        words = f"Forgotten by {actor.get_username()}; its machine was not deleted."
        operations.event("desktop.forgotten", words, level="warning", desktop=desktop).save(force_insert=True)
        audit.record(actor=actor, action="desktop.forget", subject=desktop)
        nudges.nudge(nudges.RECONCILE, desktop.pool_id)
        nudges.announce("desktops", desktop=str(desktop.pk))
    desktop.refresh_from_db()
    return desktop


def is_out_of_reach(desktop: Desktop) -> bool:
    """Whether nothing can be asked of its hypervisor, or deleting it there failed."""
    return desktop.hypervisor.status != Hypervisor.Status.UP or (
        desktop.state == State.RETIRING and desktop.attempts > 0
    )


def recycle_desktop(*, actor: User, desktop_id: UUID) -> Desktop:
    """Give a failed desktop that is nobody's a fresh disk. Assigned ones are released instead."""
    desktop = _for_staff(actor, desktop_id, Right.SERVE)
    if not desktop.machine_id:
        raise Clash(f"{desktop} has no machine to recycle. Delete it; the pool builds another one.")
    now = timezone.now()
    with transaction.atomic():
        moved = Desktop.objects.filter(pk=desktop.pk, state__in=sources(Move.RETRIED)).update(
            state=State.RECYCLING, state_since=now, attempts=0, failure=""
        )
        if not moved:
            raise Clash(f"Only failed desktops are recycled by hand; {desktop} is {desktop.state}.")
        audit.record(actor=actor, action="desktop.recycle", subject=desktop)
        nudges.nudge(nudges.RECONCILE, desktop.pool_id)
        nudges.announce("desktops", desktop=str(desktop.pk))
    desktop.refresh_from_db()
    return desktop


def set_maintenance(*, actor: User, desktop_id: UUID, on: bool) -> Desktop:
    """In maintenance a desktop is neither given out nor retired."""
    desktop = _for_staff(actor, desktop_id, Right.SERVE)
    with transaction.atomic():
        if Desktop.objects.filter(pk=desktop.pk, is_in_maintenance=not on).update(is_in_maintenance=on):
            audit.record(
                actor=actor, action="desktop.maintenance", subject=desktop, changes={"maintenance": [not on, on]}
            )
            nudges.nudge(nudges.RECONCILE, desktop.pool_id)
            nudges.announce("desktops", desktop=str(desktop.pk))
    desktop.refresh_from_db()
    return desktop
