"""Power of desktops, by their users, by administrators, and for schedules.

For many at once the rows are written set-wise: what is under way meanwhile is left out by the constraint, not by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet

from broker.domain.lifecycle import State
from broker.domain.power import DesktopFacts, Selection, select
from broker.models import AuditEntry, Desktop, Event, Operation
from broker.models.operations import UNFINISHED
from broker.selectors.power import facts_of, with_facts
from broker.services import audit, desktops, nudges, operations
from broker.services.errors import Clash, Invalid
from broker.services.permissions import Right, has, require

ACTIONS = {
    "on": "Switch on",
    "off": "Power off",
    "shutdown": "Shut down",
    "reboot": "Restart",
    "reset": "Reset",
    "suspend": "Suspend",
    "resume": "Resume",
}
STARTS = ("on", "resume")
OVERTAKEN = "busy with another change"


def set_power(*, actor: User, desktop_id: UUID, action: str) -> Operation:
    """Order a power action. Users reach the desktop assigned to them, administrators every one. Users of a session host
    only bring it up: others are on it.

    Raises `Invalid` for an unknown action, `Missing`, `Clash` if the desktop is busy or has no machine.
    """
    _refuse_unknown(action)
    desktop = desktops.may_use(actor, desktop_id)
    if desktop.pool.is_shared and action not in STARTS and not has(actor, Right.SERVE):
        raise Clash(f"Others are on {desktop} too: only an administrator may switch it off or restart it.")
    return _order(actor, desktop, action)


def _refuse_unknown(action: str) -> None:
    if action not in ACTIONS:
        raise Invalid(f"{action!r} is not a power action.", {"action": f"Choose one of {', '.join(ACTIONS)}."})


def _order(actor: User, desktop: Desktop, action: str) -> Operation:
    if not desktop.machine_id or desktop.state in (State.RECYCLING, State.RETIRING, State.GONE, State.MISSING):
        raise Clash(f"{desktop} is {desktop.state}: it has no power to switch now.")
    if desktop.is_moving:
        raise Clash(f"{desktop} is being moved to another host. Wait until it is there.")
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


def restart(desktop: Desktop, *, actor: User | None, reason: str) -> Operation:
    """Ask the guest to restart: that is how whoever is logged on is logged off. `actor` None: the broker itself.

    In the transaction that found it due, with the desktop locked. Needs `pool`. Raises `Clash` if the desktop is busy.
    """
    if desktop.is_moving:
        raise Clash(f"{desktop} is being moved to another host. Wait until it is there.")
    operation = operations.order(
        kind=Operation.Kind.POWER,
        hypervisor_id=desktop.hypervisor_id,
        desktop=desktop,
        parameters=operations.machine_parameters(desktop) | {"action": "reboot"},
        requested_by=actor,
        rank=desktop.pool.priority,
    )
    audit.record(actor=actor, action="desktop.power_reboot", subject=desktop)
    words = f"{ACTIONS['reboot']}: {reason}"
    operations.event("desktop.power", words, desktop=desktop, operation=operation).save(force_insert=True)
    return operation


# --- many at once ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ordered:
    """What came of an order for many."""

    operations: list[Operation]
    skipped: list[tuple[DesktopFacts, str]]
    """With why, as in "it is off already"."""
    in_use: int
    """Of those it was ordered for."""


def set_power_of_many(*, actor: User, wanted: QuerySet[Desktop], action: str, at_most: int | None = None) -> Ordered:
    """Order a power action for all of these desktops that it can be ordered for.

    For the help desk, operators and administrators.

    The statements are as many for a thousand as for ten. Raises `Forbidden`, `Invalid`, and `Clash` if `wanted` has
    grown beyond the `at_most` that the person was shown; then nothing is ordered.
    """
    require(actor, Right.SERVE)
    _refuse_unknown(action)
    with transaction.atomic():
        rows = locked(wanted)
        if at_most is not None and len(rows) > at_most:
            raise Clash(f"{len(rows)} desktops fit by now, and you were shown {at_most}. Look again first.")
        found = select(action, [facts_of(desktop) for desktop in rows.values()])
        others = len(found.chosen) - 1
        cause = f"together with {others} other{'s' if others > 1 else ''}" if others > 0 else ""
        ordered = order_together(
            found, rows, action=action, asked=f"asked by {actor.get_username()}", cause=cause, requested_by=actor,
            rank=operations.RANK_MANY if others > 0 else operations.RANK_PERSON,
        )  # fmt: skip
        AuditEntry.objects.bulk_create(
            audit.entry(actor=actor, action=f"desktop.power_{action}", subject=operation.desktop)
            for operation in ordered.operations
            if operation.desktop
        )
    return ordered


def locked(wanted: QuerySet[Desktop]) -> dict[UUID, Desktop]:
    """The desktops with their facts, in the order of their ids, as everybody locks them. Call inside a transaction."""
    rows = wanted.order_by("pk").select_for_update(no_key=True, of=("self",))
    ids = list(rows.values_list("pk", flat=True))
    # Looked at once they are locked: a statement that waited for a lock does not see to whom they were given meanwhile.
    return {desktop.pk: desktop for desktop in with_facts(Desktop.objects.filter(pk__in=ids)).order_by("pk")}


def order_together(
    found: Selection,
    rows: dict[UUID, Desktop],
    *,
    action: str,
    asked: str,
    cause: str,
    rank: int,
    requested_by: User | None = None,
    parameters: dict[str, Any] | None = None,
) -> Ordered:
    """Write the orders of a selection with one event each, in the caller's transaction. `rows` are `locked`.

    A schedule's orders for them that were not sent yet give way.
    """
    chosen = [rows[facts.id] for facts in found.chosen]
    drafts = [
        operations.draft(
            kind=Operation.Kind.POWER,
            hypervisor_id=desktop.hypervisor_id,
            desktop=desktop,
            parameters=operations.machine_parameters(desktop) | {"action": action} | (parameters or {}),
            requested_by=requested_by,
            rank=rank,
            deadline_s=operations.STAGGERED_S if cause else None,
            cause=cause,
        )
        for desktop in chosen
    ]
    if not drafts:
        return Ordered([], list(found.skipped), 0)
    operations.give_way(Q(desktop__in=[desktop.pk for desktop in chosen]))
    # Somebody's order of this very moment stands already: that desktop is left out, the rest is not held up.
    Operation.objects.bulk_create(drafts, ignore_conflicts=True)
    written = set(_unfinished([operation.pk for operation in drafts]))
    made = [operation for operation in drafts if operation.pk in written]
    overtaken = [facts for facts, operation in zip(found.chosen, drafts, strict=True) if operation.pk not in written]
    Event.objects.bulk_create(
        operations.event(
            "desktop.power", f"{ACTIONS[action]}, {asked}.", desktop=operation.desktop, operation=operation
        )
        for operation in made
    )
    for hypervisor_id in {operation.hypervisor_id for operation in made}:
        nudges.nudge(nudges.PUMP, hypervisor_id)
    nudges.announce("operations")
    nudges.announce("desktops")
    lost = {facts.id for facts in overtaken}
    return Ordered(
        made,
        [*found.skipped, *((facts, OVERTAKEN) for facts in overtaken)],
        sum(facts.is_in_use for facts in found.chosen if facts.id not in lost),
    )


def _unfinished(ids: Sequence[UUID]) -> QuerySet[Operation, UUID]:
    return Operation.objects.filter(pk__in=ids, state__in=UNFINISHED).values_list("pk", flat=True)
