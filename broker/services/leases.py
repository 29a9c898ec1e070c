"""Leases: renewed by their users, ended by the clock.

Everything that ends or lengthens a lease changes one row of `Assignment` under the values it has read: of an expiry, a
renewal and a release that meet, one wins, and the others find that they came too late.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from broker.domain import leases as rules
from broker.domain.leases import Lease, Step
from broker.domain.notices import Kind
from broker.models import Assignment, Pool
from broker.services import audit, brokering, notices, nudges, operations
from broker.services.errors import Clash
from broker.services.permissions import Right, has

log = structlog.get_logger()

AT_ONCE = 200
"""Leases that one turn of the clock hints at; the next turn comes in a second."""
LATER = timedelta(minutes=5)
"""When a desktop that cannot be reclaimed now is looked at again."""


def renew(
    *, actor: User, desktop_id: UUID, seen_until: datetime | None = None, user_id: int | None = None
) -> tuple[Assignment, bool]:
    """Lengthen the lease of one's desktop as its pool allows; administrators do so for others.

    `seen_until`: the end that was shown to who asks. If it is another by now, the lease was renewed a moment ago (the
    button was pressed twice) and stays as it is. `user_id`: whose, as with `brokering.held`. Returns the assignment and
    whether it was renewed by this call.

    Raises `Missing` if the desktop is not theirs, `Clash` if it is not leased or there is no renewal left.
    """
    now = timezone.now()
    assignment = brokering.held(actor, desktop_id, user_id)
    lease = assignment.lease
    if lease is None:
        raise Clash(f"{assignment.desktop} is not leased: it stays yours until you release it.")
    if not has(actor, Right.SERVE) and not brokering.is_entitled(actor, assignment.pool_id):
        raise Clash(f"You no longer have access to the pool {assignment.pool}. Ask your administrator.")
    if seen_until is not None and seen_until != lease.until:
        return assignment, False
    terms = assignment.pool.terms
    after = rules.renewed(lease, terms, now)
    if after is None:
        raise Clash(f"The lease of {assignment.desktop} cannot be renewed again. Save what you need elsewhere in time.")
    with transaction.atomic():
        changed = Assignment.objects.filter(
            pk=assignment.pk, until=None, lease_until=lease.until, renewals=lease.renewals
        ).update(
            lease_until=after.until,
            renewals=after.renewals,
            told_at=None,
            end_told_at=None,
            next_lease_at=rules.next_at(after, terms),
        )
        if not changed:
            # Somebody was faster: another renewal, or the end.
            return brokering.held(actor, desktop_id, user_id), False
        audit.record(
            actor=actor,
            action="lease.renew",
            subject=assignment.desktop,
            changes={"until": [lease.until.isoformat(), after.until.isoformat()]},
        )
        words = f"The lease was renewed until {notices.moment(after.until)}."
        operations.event("lease.renewed", words, desktop=assignment.desktop).save(force_insert=True)
        nudges.announce("desktops", user=str(assignment.user_id), desktop=str(desktop_id))
    assignment.refresh_from_db()
    return assignment, True


DECIDES_THE_END = frozenset({"kind", "reclaims", "grace_h", "notice_h"})
"""What of a pool decides when a desktop whose lease has begun is taken back."""


def terms_changed(pool: Pool) -> None:
    """What its users were told of the end holds no longer: they are told anew, and have the pool's notice again.

    Inside the change's transaction.
    """
    leased = Assignment.objects.filter(pool=pool, until=None, lease_until__isnull=False)
    leased.update(told_at=None, end_told_at=None, next_lease_at=timezone.now())


# --- ended by the clock ----------------------------------------------------------------------------------------------


def due() -> list[UUID]:
    """Assignments whose lease needs something now. They stay due until one who does it has moved their time."""
    waiting = Assignment.objects.filter(until=None, next_lease_at__lte=timezone.now())
    return list(waiting.order_by("next_lease_at").values_list("pk", flat=True)[:AT_ONCE])


def run(assignment_id: UUID) -> None:
    """Take the step that is due, if one is and nobody else takes it."""
    nudges.taken(nudges.LEASE, assignment_id)
    now = timezone.now()
    rows = Assignment.objects.select_related("desktop__pool", "pool", "user")
    assignment = rows.filter(pk=assignment_id, until=None, next_lease_at__lte=now).first()
    lease = assignment.lease if assignment else None
    if assignment is None or lease is None:
        return
    step = rules.step(lease, assignment.pool.terms, now)
    if step == Step.RECLAIM:
        _reclaim(assignment, now)
    elif step == Step.ALARM:
        _alarm(assignment)
    elif step is not None:
        _tell(assignment, lease, step, now)
    else:
        # The pool's terms have changed: the time is another one.
        _move(assignment, next_lease_at=rules.next_at(lease, assignment.pool.terms))


def _move(assignment: Assignment, **values: datetime | None) -> bool:
    """Whether nobody else has taken this step, nor renewed or ended the lease."""
    unchanged = Assignment.objects.filter(
        pk=assignment.pk,
        until=None,
        lease_until=assignment.lease_until,
        renewals=assignment.renewals,
        next_lease_at=assignment.next_lease_at,
    )
    return bool(unchanged.update(**values))


def _tell(assignment: Assignment, lease: Lease, step: Step, now: datetime) -> None:
    terms = assignment.pool.terms
    told = Lease(
        lease.since, lease.until, lease.renewals, lease.told_at or now, now if step == Step.END else lease.end_told_at
    )
    facts: dict[str, object] = {
        "pool": assignment.pool.name,
        "desktop": assignment.desktop.name,
        "until": notices.moment(lease.until),
    }
    gone = rules.reclaim_at(told, terms)
    if terms.reclaims and gone is not None:
        facts["gone"] = notices.moment(gone)
    if rules.renewed(lease, terms, now):
        facts["may_renew"] = True
    with transaction.atomic():
        moved = _move(
            assignment, told_at=told.told_at, end_told_at=told.end_told_at, next_lease_at=rules.next_at(told, terms)
        )
        if not moved:
            return
        kind = Kind.LEASE_ENDED if step == Step.END else Kind.LEASE_SOON
        notices.tell(
            [assignment.user_id], kind, now=now, pool_id=assignment.pool_id, desktop_id=assignment.desktop_id,
            facts=facts,
        )  # fmt: skip
        nudges.announce("desktops", user=str(assignment.user_id), desktop=str(assignment.desktop_id))


def _reclaim(assignment: Assignment, now: datetime) -> None:
    try:
        brokering.reclaim_leased(assignment, now)
    except Clash as clash:
        # It is being moved, or was released or renewed this moment.
        log.info("lease.not_reclaimed", desktop=assignment.desktop.name, reason=clash.message)
        _move(assignment, next_lease_at=now + LATER)


def _alarm(assignment: Assignment) -> None:
    """The pool takes nothing back by itself: whoever answers for it is told, once."""
    now = timezone.now()
    with transaction.atomic():
        if not _move(assignment, next_lease_at=None, end_told_at=assignment.end_told_at or now):
            return
        facts = {
            "pool": assignment.pool.name,
            "desktop": assignment.desktop.name,
            "user": assignment.user.get_username(),
        }
        if assignment.end_told_at is None:
            held = {"pool": facts["pool"], "desktop": facts["desktop"]}
            notices.tell(
                [assignment.user_id], Kind.LEASE_ENDED, now=now, pool_id=assignment.pool_id,
                desktop_id=assignment.desktop_id, facts=held,
            )  # fmt: skip
        notices.tell(
            notices.responsible_for(assignment.pool_id), Kind.LEASE_OVERDUE, now=now, pool_id=assignment.pool_id,
            desktop_id=assignment.desktop_id, facts=facts,
        )  # fmt: skip
        words = f"The lease of {facts['user']} is over; the pool takes nothing back by itself."
        operations.event("lease.overdue", words, level="warning", desktop=assignment.desktop).save(force_insert=True)
        nudges.announce("desktops", desktop=str(assignment.desktop_id))
