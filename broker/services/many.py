"""Changes of many desktops at once: a few statements, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from broker.domain.lifecycle import State
from broker.domain.many import CHANGES, Change, select
from broker.domain.power import DesktopFacts
from broker.models import AuditEntry, Desktop, Event
from broker.selectors.power import facts_of
from broker.services import audit, nudges, operations, power
from broker.services.desktops import cancel_queued, retiring
from broker.services.errors import Clash, Invalid
from broker.services.permissions import Right, require


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of it."""

    desktops: list[Desktop]
    skipped: list[tuple[DesktopFacts, str]]
    """With why, as in "it is in maintenance already"."""


def change_many(*, actor: User, wanted: QuerySet[Desktop], change: str, at_most: int | None = None) -> Changed:
    """Do it to all of these desktops that it is for. Deleting is for operators, the rest for the help desk too.

    Raises `Forbidden`, `Invalid`, and `Clash` if `wanted` has grown beyond the `at_most` that the person was shown;
    then nothing is changed.
    """
    require(actor, Right.OPERATE if change == Change.RETIRE else Right.SERVE)
    if change not in CHANGES:
        raise Invalid("There is no such change.", {"change": f"One of {', '.join(Change)}."})
    with transaction.atomic():
        rows = power.locked(wanted)
        if at_most is not None and len(rows) > at_most:
            raise Clash(f"{len(rows)} desktops fit by now, and you were shown {at_most}. Look again first.")
        found = select(Change(change), [facts_of(desktop) for desktop in rows.values()])
        chosen = [rows[facts.id] for facts in found.chosen]
        if chosen:
            _CHANGES[Change(change)](actor, chosen)
            for pool_id in {desktop.pool_id for desktop in chosen}:
                nudges.nudge(nudges.RECONCILE, pool_id)
            nudges.announce("desktops")
    return Changed(chosen, list(found.skipped))


def _ids(desktops: Sequence[Desktop]) -> list[UUID]:
    return [desktop.pk for desktop in desktops]


def _set_maintenance(actor: User, desktops: Sequence[Desktop], *, on: bool) -> None:
    Desktop.objects.filter(pk__in=_ids(desktops)).update(is_in_maintenance=on)
    _record(actor, "desktop.maintenance", desktops, {"maintenance": [not on, on]})


def _recycle(actor: User, desktops: Sequence[Desktop]) -> None:
    Desktop.objects.filter(pk__in=_ids(desktops)).update(
        state=State.RECYCLING, state_since=timezone.now(), attempts=0, failure="", is_answering=False, ready_at=None
    )
    _record(actor, "desktop.recycle", desktops)


def _retire(actor: User, desktops: Sequence[Desktop]) -> None:
    """As `desktops.retire`: each pool's reconciler writes the delete orders."""
    now, reason = timezone.now(), f"Deleted by {actor.get_username()}."
    Desktop.objects.filter(pk__in=_ids(desktops)).update(**retiring(now))
    cancel_queued(_ids(desktops), now)
    Event.objects.bulk_create(operations.event("desktop.retired", reason, desktop=desktop) for desktop in desktops)
    _record(actor, "desktop.retire", desktops, {"reason": [None, reason]})


def _record(
    actor: User, action: str, desktops: Sequence[Desktop], changes: dict[str, list[object]] | None = None
) -> None:
    AuditEntry.objects.bulk_create(
        audit.entry(actor=actor, action=action, subject=desktop, changes=changes) for desktop in desktops
    )


_CHANGES: dict[Change, Callable[[User, Sequence[Desktop]], None]] = {
    Change.MAINTAIN: lambda actor, desktops: _set_maintenance(actor, desktops, on=True),
    Change.SERVE: lambda actor, desktops: _set_maintenance(actor, desktops, on=False),
    Change.RECYCLE: _recycle,
    Change.RETIRE: _retire,
}
