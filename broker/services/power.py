"""Power of desktops, by their users and by administrators."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from broker.domain.lifecycle import State
from broker.models import Desktop, Operation
from broker.services import audit, desktops, operations
from broker.services.errors import Clash, Forbidden, Invalid, Refusal

ACTIONS = {
    "on": "Switch on",
    "off": "Power off",
    "shutdown": "Shut down",
    "reboot": "Restart",
    "reset": "Reset",
    "suspend": "Suspend",
    "resume": "Resume",
}


def set_power(*, actor: User, desktop_id: UUID, action: str) -> Operation:
    """Order a power action. Users reach the desktop assigned to them, administrators every one.

    Raises `Invalid` for an unknown action, `Missing`, `Clash` if the desktop is busy or has no machine.
    """
    if action not in ACTIONS:
        raise Invalid(f"{action!r} is not a power action.", {"action": f"Choose one of {', '.join(ACTIONS)}."})
    desktop = desktops.may_use(actor, desktop_id)
    return _order(actor, desktop, action)


def _order(actor: User, desktop: Desktop, action: str) -> Operation:
    if not desktop.machine_id or desktop.state in (State.RECYCLING, State.RETIRING, State.GONE, State.MISSING):
        raise Clash(f"{desktop} is {desktop.state}: it has no power to switch now.")
    with transaction.atomic():
        operation = operations.order(
            kind=Operation.Kind.POWER,
            hypervisor_id=desktop.hypervisor_id,
            desktop=desktop,
            parameters=operations.machine_parameters(desktop) | {"action": action},
            requested_by=actor,
            rank=operations.rank_for_person(desktop.pool.priority),
        )
        audit.record(actor=actor, action=f"desktop.power_{action}", subject=desktop)
        operations.event(
            "desktop.power",
            f"{ACTIONS[action]}, asked by {actor.get_username()}.",
            desktop=desktop,
            operation=operation,
        ).save(force_insert=True)
    return operation


def set_power_of_many(
    *, actor: User, desktop_ids: Sequence[UUID], action: str
) -> tuple[list[Operation], list[tuple[str, str]]]:
    """The same for many: what was ordered, and (name, why not) for the rest. Administrators only."""
    if not actor.is_staff:
        raise Forbidden("Only administrators switch many desktops at once.")
    if action not in ACTIONS:
        raise Invalid(f"{action!r} is not a power action.", {"action": f"Choose one of {', '.join(ACTIONS)}."})
    started: list[Operation] = []
    refused: list[tuple[str, str]] = []
    for desktop in Desktop.objects.filter(pk__in=desktop_ids).select_related("pool").order_by("name"):
        try:
            started.append(_order(actor, desktop, action))
        except Refusal as refusal:
            refused.append((desktop.name, refusal.message))
    return started, refused
