"""Who gets which desktop: request, claim, queue, release.

A claim is one statement over a partial index; the quota and "already has one" are constraints, so that no number of
processes can hand one desktop to two people or two desktops to one. A seat on a session host is taken under locks
(`services/seats`) and its number is unique by constraint; the rest of its life is that of any assignment.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, F, Model, Q, QuerySet
from django.utils import timezone

from broker.domain import leases as rules
from broker.domain.leases import Terms
from broker.domain.lifecycle import Event as Move
from broker.domain.lifecycle import State, sources
from broker.domain.notices import Kind
from broker.domain.tiles import closed
from broker.models import Assignment, AuditEntry, Desktop, Event, Operation, Pool, Request
from broker.models.operations import UNFINISHED
from broker.selectors.pools import entitling
from broker.services import audit, guest_passwords, notices, nudges, operations, seats, sessions
from broker.services.errors import Clash, Missing
from broker.services.intake import Intake
from broker.services.permissions import Right, has, require
from broker.services.setwise import insert_together

log = structlog.get_logger()

NOBODY_LEFT = "All desktops are in use or being built. You are in the queue and get the next one."
NOT_DECIDED = "Those who look after this pool decide on it. You are told as soon as they have."
NOT_ASKED = "The request was not made."
WHY_LENGTH = 500

CLAIM = """
UPDATE broker_desktop
   SET state = 'assigned', state_since = %(now)s, epoch = epoch + 1
 WHERE state = 'ready'
   AND id = (
       SELECT d.id FROM broker_desktop d
        WHERE d.pool_id = %(pool)s AND d.state = 'ready' AND NOT d.is_in_maintenance
          AND (d.is_answering
               OR (SELECT p.preparation = 'none' OR ((p.starts_powered_off OR d.is_resting) AND d.power = 'off')
                     FROM broker_pool p WHERE p.id = d.pool_id))
          AND NOT EXISTS (
               SELECT 1 FROM broker_operation o
                WHERE o.desktop_id = d.id AND o.changes AND o.state IN ('queued', 'sent', 'running')
                  AND NOT {gives_way})
          AND (SELECT h.status = 'up' FROM broker_hypervisor h WHERE h.id = d.hypervisor_id)
        ORDER BY d.is_answering DESC, d.ready_at, d.id
        LIMIT 1 {lock})
   AND (SELECT p.is_enabled AND p.kind <> 'shared' FROM broker_pool p WHERE p.id = %(pool)s)
   AND EXISTS (
       SELECT 1 FROM broker_entitlement e
        WHERE e.pool_id = %(pool)s
          AND (e.user_id = %(user)s
               OR e.group_id IN (SELECT group_id FROM auth_user_groups WHERE user_id = %(user)s)))
   {queue}
RETURNING id, name, epoch, hypervisor_id, machine_id, stamp_key, power, is_answering,
          EXISTS (SELECT 1 FROM broker_operation o
                   WHERE o.desktop_id = broker_desktop.id AND o.changes AND o.state IN ('queued', 'sent', 'running')),
          (SELECT p.lease_h FROM broker_pool p WHERE p.id = %(pool)s),
          (SELECT p.notice_h FROM broker_pool p WHERE p.id = %(pool)s)
"""
"""One that is being changed is left alone: whoever got it would have it switched off under their hands.

A schedule's order that was never sent changes nothing yet: it is cancelled when the desktop is handed over.
"""
GIVES_WAY = """(o.state = 'queued' AND o.attempt = 0 AND o.kind = 'power' AND o.cause <> ''
                           AND o.requested_by_id IS NULL)"""
"""`models.operations.GIVES_WAY`, in a statement by hand."""
AHEAD = """AND NOT EXISTS (
       SELECT 1 FROM broker_request r WHERE r.pool_id = %(pool)s AND r.state IN ('approved', 'building'))
   AND NOT EXISTS (
       SELECT 1 FROM broker_assignment a WHERE a.pool_id = %(pool)s AND a.user_id = %(user)s AND a.until IS NULL)
   AND (SELECT (p.approval = 'none'
                OR p.trusted_group_id IN (SELECT group_id FROM auth_user_groups WHERE user_id = %(user)s))
               AND (p.asks_why <> 'required' OR %(gives_reason)s)
               AND (CAST(%(hours)s AS integer) IS NULL
                    OR (p.asks_how_long AND CAST(%(hours)s AS integer) <= p.lease_h))
          FROM broker_pool p WHERE p.id = %(pool)s)"""
"""A newcomer takes nothing while others wait: the queue is served in order. Nor without what the pool asks for, or
somebody's word where the pool wants that; what is missing is then said at leisure."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person says with a request."""

    why: str = ""
    hours: int | None = None
    """None: as long as the pool gives."""


NO_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Claimed:
    id: UUID
    name: str
    epoch: int
    hypervisor_id: UUID
    machine_id: str
    stamp_key: str
    power: str
    is_answering: bool
    has_order: bool
    """Something was to be switched on it: by a schedule, or a start for another user of a session host."""
    lease_h: int | None
    notice_h: int
    seat: int = 0
    """Of a session host; 0: all of the desktop."""
    why: str = ""
    """Why this session host."""


def _uuid(value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


def _claim(*, pool_id: UUID, user_id: int, now: datetime, from_queue: bool, wish: Wish = NO_WISH) -> Claimed | None:
    """Take one ready desktop for this user in one statement; None if there is none or the user may not."""
    lock = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    statement = CLAIM.format(lock=lock, queue="" if from_queue else AHEAD, gives_way=GIVES_WAY)
    pool = pool_id if connection.features.has_native_uuid_field else pool_id.hex
    with connection.cursor() as cursor:
        moment = connection.ops.adapt_datetimefield_value(now)
        values = {"now": moment, "pool": pool, "user": user_id, "gives_reason": bool(wish.why), "hours": wish.hours}
        cursor.execute(statement, values)
        row = cursor.fetchone()
    if row is None:
        return None
    desktop = (_uuid(row[0]), row[1], row[2], _uuid(row[3]), row[4], row[5], row[6], bool(row[7]), bool(row[8]))
    return Claimed(*desktop, lease_h=row[9], notice_h=row[10])


def _claim_seat(pool: Pool, user: User, now: datetime) -> Claimed | None:
    """Take a seat for this user on one of the pool's session hosts; None if all are taken or the user may not."""
    if not pool.is_enabled or not is_entitled(user, pool.pk):
        return None
    found = seats.take(pool, now)
    if found is None:
        return None
    host, seat = found
    has_order = Operation.objects.filter(desktop=host, changes=True, state__in=UNFINISHED).exists()
    return Claimed(
        host.pk, host.name, host.epoch, host.hypervisor_id, host.machine_id, host.stamp_key, host.power,
        host.is_answering, has_order, pool.lease_h, pool.notice_h, seat.number, seat.reason,
    )  # fmt: skip


def _assigned(claimed: Claimed, *, user: User, request: Request, now: datetime) -> Assignment:
    """The assignment with its lease, unsaved."""
    assignment = Assignment(pool_id=request.pool_id, user=user, slot=0, desktop_id=claimed.id, since=now)
    assignment.seat = claimed.seat
    set_lease(assignment, Terms(claimed.lease_h, 0, None, claimed.notice_h, 0, reclaims=True), request.asked_h)
    return assignment


def set_lease(assignment: Assignment, terms: Terms, asked_h: int | None = None) -> None:
    """Let the lease of a new assignment begin with it."""
    assignment.lease_until = rules.lease_until(terms, assignment.since, asked_h)
    lease = assignment.lease
    assignment.next_lease_at = rules.next_at(lease, terms) if lease else None


def _hand_over(claimed: Claimed, *, user: User, request: Request, is_new: bool, now: datetime) -> None:
    """Write what follows from a claim: assignment, request, event, audit and, if it is off, the start order."""
    request.state, request.desktop_id, request.served_at, request.reason = Request.State.READY, claimed.id, now, ""
    if not is_new:
        request.save(update_fields=["state", "desktop", "served_at", "reason"])
    new: list[Model] = [request] if is_new else []
    new.append(_assigned(claimed, user=user, request=request, now=now))
    event = Event(
        at=now,
        kind="desktop.claimed",
        message=f"{f'Seat {claimed.seat} assigned' if claimed.seat else 'Assigned'} to {user.get_username()}."
        + (f" {claimed.why}" if claimed.why else ""),
        desktop_id=claimed.id,
        pool_id=request.pool_id,
        hypervisor_id=claimed.hypervisor_id,
    )
    entry = AuditEntry(
        at=now,
        actor=user,
        actor_name=user.get_username(),
        action="desktop.claim",
        noun="desktop",
        object_id=str(claimed.id),
        object_name=claimed.name,
    )
    new += [event, entry]
    if not is_new:
        new += notices.draft(
            user.pk, Kind.DESKTOP_READY, now=now, pool_id=request.pool_id, request_id=request.pk, desktop_id=claimed.id,
            facts={"pool": request.pool.name, "desktop": claimed.name},
        )  # fmt: skip
        notices.announce([user.pk])
    is_being_switched = claimed.has_order and _is_being_switched(claimed)
    if not claimed.is_answering and claimed.power == "off" and not is_being_switched:
        new.append(_start_order(claimed, user=user, now=now, pool_id=request.pool_id))
        nudges.nudge(nudges.PUMP, claimed.hypervisor_id)
    insert_together(new)
    nudges.nudge(nudges.RECONCILE, request.pool_id)
    nudges.announce("desktops", user=str(user.pk))
    nudges.announce("requests", user=str(user.pk))


def _is_being_switched(claimed: Claimed) -> bool:
    """Cancels a schedule's order of the desktop; True if it went out in this very moment, so that none may follow it.

    What that one leaves switched off is started when its user opens it.
    """
    operations.give_way(Q(desktop=claimed.id))
    return Operation.objects.filter(desktop=claimed.id, changes=True, state__in=UNFINISHED).exists()


def _start_order(claimed: Claimed, *, user: User, now: datetime, pool_id: UUID) -> Operation:
    priority = Pool.objects.values_list("priority", flat=True).get(pk=pool_id)
    return Operation(
        kind=Operation.Kind.POWER,
        hypervisor_id=claimed.hypervisor_id,
        desktop_id=claimed.id,
        epoch=claimed.epoch,
        parameters={"machine": claimed.machine_id, "stamp_key": claimed.stamp_key, "action": "on"},
        requested_by=user,
        rank=operations.rank_for_person(priority),
        created_at=now,
        deadline_at=now + timedelta(seconds=operations.DEADLINE_S[Operation.Kind.POWER]),
    )


def request_desktop(*, user: User, pool_id: UUID, why: str = "", hours: int | None = None) -> tuple[Request, bool]:
    """Ask for a desktop of a pool. Returns the request and whether it is new; asking again gives the open one.

    Ready at once if there is one and nobody must approve; otherwise the request waits, with a reason in words. `why`
    and `hours` (for how long) are what the pool's form asks for. Raises `Missing` if the pool does not exist or this
    person is not entitled to it, `Clash` if it is closed, `Invalid` for what its form would not take.
    """
    now = timezone.now()
    intake = Intake()
    wish = Wish(intake.text("why", why, length=WHY_LENGTH), hours)
    if hours is not None:
        intake.whole("hours", hours, lowest=1, highest=rules.LONGEST_H)
    intake.refuse_faults(NOT_ASKED)
    try:
        with transaction.atomic():
            claimed = _claim(pool_id=pool_id, user_id=user.pk, now=now, from_queue=False, wish=wish)
            request = Request(id=uuid4(), pool_id=pool_id, user=user, created_at=now, why=wish.why, asked_h=wish.hours)
            if claimed:
                _hand_over(claimed, user=user, request=request, is_new=True, now=now)
                return request, True
            open_request = _open_request(user, pool_id)
            if open_request:
                return open_request, False
            pool = _check_may_ask(user, pool_id)
            _check_wish(pool, wish)
            request.pool = pool
            if claimed := _newcomers_seat(pool, user, now):
                _hand_over(claimed, user=user, request=request, is_new=True, now=now)
                return request, True
            _wait(request, pool)
    except IntegrityError:
        # The same person asked twice at once: the constraint let one through, the other is told about that one.
        open_request = _open_request(user, pool_id)
        if open_request is None:
            raise
        return open_request, False
    # The second look: a claim that was rolled back meanwhile may have hidden a desktop from the first.
    serve_queue(pool_id=pool_id)
    request.refresh_from_db()
    return request, True


def _newcomers_seat(pool: Pool, user: User, now: datetime) -> Claimed | None:
    """A seat for somebody who waits for nobody: not for a decision, and not for others who came before."""
    if not pool.is_shared or _must_ask(pool, user):
        return None
    if Request.objects.filter(pool=pool, state__in=Request.IN_QUEUE).exists():
        return None
    return _claim_seat(pool, user, now)


def _must_ask(pool: Pool, user: User) -> bool:
    return pool.approval == Pool.Approval.OWNERS and not user.groups.filter(pk=pool.trusted_group_id).exists()


def _wait(request: Request, pool: Pool) -> None:
    """Write the request: into the queue, or before those who decide."""
    user = request.user
    must_ask = _must_ask(pool, user)
    request.state = Request.State.WAITING if must_ask else Request.State.APPROVED
    request.reason = NOT_DECIDED if must_ask else NOBODY_LEFT
    request.save(force_insert=True)
    audit.record(actor=user, action="request.create", subject=request)
    if must_ask:
        deciding = [user_id for user_id in notices.responsible_for(pool.pk) if user_id != user.pk]
        facts = {"pool": pool.name, "user": user.get_username(), "words": request.why}
        notices.tell(
            deciding, Kind.REQUEST_ASKED, now=request.created_at, pool_id=pool.pk, request_id=request.pk, facts=facts
        )
    nudges.nudge(nudges.RECONCILE, pool.pk)
    nudges.announce("requests", user=str(user.pk))


def _check_wish(pool: Pool, wish: Wish) -> None:
    """Raises `Invalid` for what the pool's form would not take."""
    intake = Intake()
    if pool.asks_why == Pool.Asks.REQUIRED and not wish.why:
        intake.faults["why"] = f"Say why you need it: those who look after {pool} want to know."
    if wish.hours is not None and not pool.asks_how_long:
        intake.faults["hours"] = f"{pool} does not ask for how long."
    elif wish.hours is not None and pool.lease_h is not None and wish.hours > pool.lease_h:
        intake.faults["hours"] = f"At most {rules.in_words(pool.lease_h)}."
    intake.refuse_faults(NOT_ASKED)


def _open_request(user: User, pool_id: UUID) -> Request | None:
    return Request.objects.filter(user=user, pool_id=pool_id, state__in=Request.OPEN).first()


def is_entitled(user: User, pool_id: UUID) -> bool:
    """Whether this person may have desktops of the pool, whole ones or for an application, directly or by a group."""
    return entitling(user).filter(pool=pool_id).exists()


def may_open(user: User, pool_id: UUID, application_id: UUID | None) -> bool:
    """Whether this person may open whole desktops of the pool, or (with its id) that application of it."""
    return entitling(user).filter(pool=pool_id, application=application_id).exists()


def _check_may_ask(user: User, pool_id: UUID) -> Pool:
    pool = Pool.objects.filter(pk=pool_id).first()
    if pool is None or not user.is_active or not is_entitled(user, pool_id):
        raise Missing("There is no such pool.")
    if not pool.is_enabled:
        raise Clash(closed(pool.closed_words, pool.name))
    return pool


def serve_queue(*, pool_id: UUID) -> int:
    """Give ready desktops to those who wait, first come first served. Returns how many were served."""
    served = 0
    while (head := _head_of_queue(pool_id)) and (claimed := _serve(head, pool_id)) is not None:
        served += claimed
    return served


def _head_of_queue(pool_id: UUID) -> UUID | None:
    """Who is next. One who lost the entitlement keeps the place and blocks nobody."""
    queue = Request.objects.filter(pool_id=pool_id, state__in=Request.IN_QUEUE)
    entitled = Q(user__entitlements__pool_id=pool_id) | Q(user__groups__entitlements__pool_id=pool_id)
    return queue.filter(entitled).order_by("created_at", "pk").values_list("pk", flat=True).first()


def _serve(request_id: UUID, pool_id: UUID) -> bool | None:
    """Give the head of the queue a desktop. False: somebody else did just now. None: there is none to give.

    One row is locked and waited for. To skip a locked head would serve people out of turn; to lock several would
    deadlock with whoever writes them in another order.
    """
    now = timezone.now()
    with transaction.atomic():
        waiting = Request.objects.select_for_update(of=("self",)).select_related("user", "pool")
        request = waiting.filter(pk=request_id, state__in=Request.IN_QUEUE).first()
        if request is None:
            return False
        if request.pool.is_shared:
            claimed = _claim_seat(request.pool, request.user, now)
        else:
            claimed = _claim(pool_id=pool_id, user_id=request.user_id, now=now, from_queue=True)
        if claimed is None:
            return None
        _hand_over(claimed, user=request.user, request=request, is_new=False, now=now)
    return True


def cancel_request(*, actor: User, request_id: UUID) -> Request:
    """Take back a request that waits. A request that is ready is ended by releasing its desktop."""
    request = Request.objects.select_related("pool").filter(pk=request_id).first()
    if request is None or not (has(actor, Right.SERVE) or request.user_id == actor.pk):
        raise Missing("There is no such request.")
    with transaction.atomic():
        changed = Request.objects.filter(pk=request.pk, state__in=[Request.State.WAITING, *Request.IN_QUEUE]).update(
            state=Request.State.CANCELLED, ended_at=timezone.now(), reason=f"Cancelled by {actor.get_username()}."
        )
        if not changed:
            raise Clash("This request is not waiting any more. Release the desktop instead.")
        audit.record(actor=actor, action="request.cancel", subject=request)
        nudges.nudge(nudges.RECONCILE, request.pool_id)
        nudges.announce("requests", user=str(request.user_id))
    request.refresh_from_db()
    return request


def held(actor: User, desktop_id: UUID, user_id: int | None = None) -> Assignment:
    """The open assignment of a desktop that this person may end or lengthen, with `desktop`, `pool` and `user`.

    `user_id`: whose, where several have a seat there; None: one's own, or that of the only user. Raises `Missing` if it
    is not theirs, `Clash` if it is not said whose.
    """
    rows = Assignment.objects.select_related("desktop__pool", "desktop__copy", "pool", "user")
    found = list(rows.filter(desktop_id=desktop_id, until=None))
    whose = [one for one in found if one.user_id == (actor.pk if user_id is None else user_id)]
    if user_id is None and not whose and has(actor, Right.SERVE):
        whose = found
    if not whose or not (has(actor, Right.SERVE) or whose[0].user_id == actor.pk):
        raise Missing("There is no such desktop.")
    if len(whose) > 1:
        raise Clash(f"{len(whose)} people have a seat on {whose[0].desktop}. Say whose.")
    return whose[0]


def release_desktop(*, actor: User, desktop_id: UUID, user_id: int | None = None) -> Operation | None:
    """End an assignment: by its user (release) or an administrator (reclaim). The desktop gets a fresh disk; a session
    host does so when its last user has left, if its pool says so.

    `user_id`: whose, as with `held`. Returns the recycle operation, or None if an operation in flight must end first
    (the broker goes on by itself) or others are still there. The user's open screens are closed, and orders of the old
    owner that were not sent die. Raises `Missing` if it is not theirs.
    """
    assignment = held(actor, desktop_id, user_id)
    if assignment.desktop.is_moving:
        raise Clash(f"{assignment.desktop} is being moved to another host. Wait until it is there.")
    is_own = assignment.user_id == actor.pk
    return _take_back(
        assignment,
        actor=actor,
        reason="Released." if is_own else "Reclaimed by an administrator.",
        action="desktop.release" if is_own else "desktop.reclaim",
        unchanged=Assignment.objects.filter(pk=assignment.pk, until=None),
    )


def reclaim_leased(assignment: Assignment, now: datetime) -> None:
    """End an assignment whose lease is over, as the broker's own deed, by the values that were read.

    Needs `desktop`, `pool` and `user` selected. Raises `Clash` if the lease was renewed or ended meanwhile, or if the
    desktop cannot be given back just now; nothing was changed then.
    """
    if assignment.desktop.is_moving:
        raise Clash(f"{assignment.desktop} is being moved to another host.")
    with transaction.atomic():
        _take_back(
            assignment,
            actor=None,
            reason="The lease was over.",
            action="desktop.reclaim",
            unchanged=Assignment.objects.filter(
                pk=assignment.pk,
                until=None,
                lease_until=assignment.lease_until,
                renewals=assignment.renewals,
                next_lease_at=assignment.next_lease_at,
            ),
        )
        facts = {"pool": assignment.pool.name, "desktop": assignment.desktop.name}
        notices.tell(
            [assignment.user_id], Kind.DESKTOP_RECLAIMED, now=now, pool_id=assignment.pool_id,
            desktop_id=assignment.desktop_id, facts=facts,
        )  # fmt: skip


def reclaim_left(assignment: Assignment, reason: str) -> Operation | None:
    """End an assignment whose session is over, as the broker's own deed. In the transaction that found that so, with
    the desktop locked. Needs `desktop`, `pool` and `user` selected. Raises `Clash`, with nothing changed."""
    if assignment.desktop.is_moving:
        raise Clash(f"{assignment.desktop} is being moved to another host.")
    return _take_back(
        assignment,
        actor=None,
        reason=reason,
        action="desktop.reclaim",
        unchanged=Assignment.objects.filter(pk=assignment.pk, until=None),
    )


def reclaim_seats(*, actor: User, user: User, reason: str, pool_id: UUID | None = None) -> None:
    """End this person's seats on session hosts, of one pool or of all: others wait for them. Desktops of their own stay
    theirs with what lies on them. In the transaction that took away what the seats rested on."""
    require(actor, Right.SERVE)
    rows = Assignment.objects.select_related("desktop__pool", "pool", "user").filter(user=user, until=None, seat__gt=0)
    rows = rows.filter(pool=pool_id) if pool_id else rows
    # Desktops are locked in the order of their ids, as everybody locks them.
    for assignment in rows.order_by("desktop_id"):
        unchanged = Assignment.objects.filter(pk=assignment.pk, until=None)
        with suppress(Clash):  # Somebody gave it back this moment.
            _take_back(assignment, actor=actor, reason=reason, action="desktop.reclaim", unchanged=unchanged)


def _take_back(
    assignment: Assignment, *, actor: User | None, reason: str, action: str, unchanged: QuerySet[Assignment]
) -> Operation | None:
    """End the assignment if it is still as `unchanged` has it, and recycle its desktop, unless others are on it or it
    needs no fresh disk."""
    now, desktop_id = timezone.now(), assignment.desktop_id
    with transaction.atomic():
        if assignment.seat and not (seats.is_last(assignment) and assignment.desktop.pool.freshens_when_empty):
            _leave_seat(assignment, actor=actor, reason=reason, action=action, unchanged=unchanged)
            return None
        moved = Desktop.objects.filter(pk=desktop_id, is_moving=False, state__in=sources(Move.RELEASED)).update(
            **_given_back(now)
        )
        if not moved or not unchanged.update(until=now, next_lease_at=None, **guest_passwords.FORGOTTEN):
            raise Clash("The desktop was released a moment ago.")
        sessions.over(desktop_id, now, reason)
        desktop = Desktop.objects.select_related("pool", "copy", "member__copy", "hypervisor").get(pk=desktop_id)
        Request.objects.filter(desktop_id=desktop_id, state=Request.State.READY).update(
            state=Request.State.ENDED, ended_at=now, reason=reason
        )
        Operation.objects.filter(desktop_id=desktop_id, state=Operation.State.QUEUED).update(
            state=Operation.State.CANCELLED, finished_at=now, error="The desktop was released before it was sent."
        )
        changes = {"user": [assignment.user.get_username(), None]}
        audit.record(actor=actor, action=action, subject=desktop, changes=changes)
        operations.event("desktop.released", reason, desktop=desktop).save(force_insert=True)
        operation = None
        is_free = not Operation.objects.filter(desktop_id=desktop_id, changes=True, state__in=UNFINISHED).exists()
        # Where the guest gets another password first, the recycle follows that, whatever came of it.
        if is_free and not guest_passwords.replace(desktop, assignment, requested_by=actor):
            operation = order_recycle(desktop, requested_by=actor)
        nudges.nudge(nudges.RECONCILE, desktop.pool_id)
        nudges.announce("desktops", user=str(assignment.user_id), desktop=str(desktop_id))
        nudges.announce("screens", desktop=str(desktop_id), close="released")
    return operation


def _leave_seat(
    assignment: Assignment, *, actor: User | None, reason: str, action: str, unchanged: QuerySet[Assignment]
) -> None:
    """End the assignment; its session host goes on as it is, for the others and for whoever comes next."""
    now, desktop = timezone.now(), assignment.desktop
    if not unchanged.update(until=now, next_lease_at=None, **guest_passwords.FORGOTTEN):
        raise Clash("The seat was given back a moment ago.")
    seats.leave(assignment, now, reason)
    Request.objects.filter(desktop=desktop, user=assignment.user_id, state=Request.State.READY).update(
        state=Request.State.ENDED, ended_at=now, reason=reason
    )
    changes = {"user": [assignment.user.get_username(), None], "seat": [assignment.seat, None]}
    audit.record(actor=actor, action=action, subject=desktop, changes=changes)
    words = f"Seat {assignment.seat} of {assignment.user}: {reason}"
    operations.event("desktop.released", words, desktop=desktop).save(force_insert=True)
    nudges.nudge(nudges.RECONCILE, desktop.pool_id)
    nudges.announce("desktops", user=str(assignment.user_id), desktop=str(desktop.pk))


def _given_back(now: datetime) -> dict[str, Any]:
    """The columns of a desktop that nobody has any more and that gets a fresh disk."""
    return {
        "state": State.RECYCLING, "state_since": now, "epoch": F("epoch") + 1, "is_answering": False, "ready_at": None,
        "attempts": 0, "is_emptying": False,
    }  # fmt: skip


def freshen(desktop: Desktop, reason: str) -> bool:
    """Give a session host that nobody is on any more a fresh disk, as the broker's own deed. False if somebody came
    meanwhile, or it is not one that others were on."""
    now = timezone.now()
    with transaction.atomic():
        Desktop.objects.select_for_update(no_key=True).get(pk=desktop.pk)
        somebody = Assignment.objects.filter(desktop=desktop.pk, until=None)
        used = Desktop.objects.filter(~Exists(somebody), pk=desktop.pk, state=State.ASSIGNED)
        moved = used.filter(pool__kind=Pool.Kind.SHARED).update(**_given_back(now))
        if moved:
            operations.event("desktop.retried", reason, desktop=desktop).save(force_insert=True)
            nudges.announce("desktops", desktop=str(desktop.pk))
    return bool(moved)


def order_recycle(desktop: Desktop, *, requested_by: User | None = None) -> Operation:
    """Order a fresh disk. Recycling is when a desktop moves to the copy that its member names by now.

    Needs `pool`, `copy` and `member__copy` selected.
    """
    if desktop.member and desktop.member.copy_id != desktop.copy_id:
        desktop.copy = desktop.member.copy
        desktop.save(update_fields=["copy"])
    parameters = operations.machine_parameters(desktop) | {
        "name": desktop.name,
        "template": desktop.copy.platform_id,
        "linked": desktop.pool.is_linked,
        "storage": storage_for(desktop),
        "seed": {"hostname": desktop.name} if desktop.pool.gives_seed else None,
    }
    return operations.order(
        kind=Operation.Kind.RECYCLE,
        hypervisor_id=desktop.hypervisor_id,
        desktop=desktop,
        parameters=parameters,
        requested_by=requested_by,
        rank=desktop.pool.priority,
    )


def storage_for(desktop: Desktop) -> str | None:
    """Where its disk shall lie: as its member says, else beside its template. Needs `copy` and `member` selected."""
    chosen = desktop.member.storage if desktop.member else ""
    return chosen or desktop.copy.storage or None


def end_requests_of(*, actor: User | None, user: User, pool_id: UUID, reason: str) -> int:
    """End a person's waiting requests for a pool, as when the entitlement goes. What is assigned stays."""
    if actor is not None:
        require(actor, Right.SERVE)
    return Request.objects.filter(
        user=user, pool_id=pool_id, state__in=[Request.State.WAITING, *Request.IN_QUEUE]
    ).update(state=Request.State.REFUSED, ended_at=timezone.now(), reason=reason)
