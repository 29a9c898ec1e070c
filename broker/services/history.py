"""Removes what only tells of the past, when the thing it hangs from is removed. The audit is kept, always."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet

from broker.domain.lifecycle import State
from broker.models import Assignment, Desktop, Hypervisor, Operation
from broker.models.operations import UNFINISHED
from broker.services.errors import Clash


def forget_gone_desktops(desktops: QuerySet[Desktop]) -> None:
    """Delete the rows of desktops that are gone, with their ended assignments, operations, sessions and events.

    Their requests stay and no longer name a desktop. Live desktops are left alone; call inside a transaction.
    """
    gone = desktops.filter(state=State.GONE).values("pk")
    Assignment.objects.filter(desktop__in=gone, until__isnull=False).delete()
    Operation.objects.filter(desktop__in=gone).exclude(state__in=UNFINISHED).delete()
    held = Exists(Assignment.objects.filter(desktop=OuterRef("pk")))
    at_work = Exists(Operation.objects.filter(desktop=OuterRef("pk")))
    desktops.filter(~held, ~at_work, state=State.GONE).delete()


def forget_operations(hypervisor: Hypervisor) -> None:
    """Delete the finished operations of a hypervisor. Raises `Clash` while one is unfinished."""
    rows = Operation.objects.filter(hypervisor=hypervisor)
    if unfinished := rows.filter(state__in=UNFINISHED).first():
        raise Clash(f"{hypervisor.name} is still busy: {unfinished}. Wait, or cancel it.", unfinished)
    rows.delete()
