"""Who gets which desktop: request, claim, queue, release.

A claim is one statement over a partial index; the quota and "already has one" are constraints, so that no number of
processes can hand one desktop to two people or two desktops to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Model, Q
from django.utils import timezone

from broker.domain.lifecycle import Event as Move
from broker.domain.lifecycle import State, sources
from broker.domain.tiles import closed
from broker.models import Assignment, AuditEntry, Desktop, Event, Operation, Pool, Request
from broker.models.operations import UNFINISHED
from broker.services import audit, nudges, operations
from broker.services.errors import Clash, Forbidden, Missing
from broker.services.setwise import insert_together

log = structlog.get_logger()

NOBODY_LEFT = "All desktops are in use or being built. You are in the queue and get the next one."

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
   AND (SELECT p.is_enabled FROM broker_pool p WHERE p.id = %(pool)s)
   AND EXISTS (
       SELECT 1 FROM broker_entitlement e
        WHERE e.pool_id = %(pool)s
          AND (e.user_id = %(user)s
               OR e.group_id IN (SELECT group_id FROM auth_user_groups WHERE user_id = %(user)s)))
   {queue}
RETURNING id, name, epoch, hypervisor_id, machine_id, stamp_key, power, is_answering,
          EXISTS (SELECT 1 FROM broker_operation o
                   WHERE o.desktop_id = broker_desktop.id AND o.changes AND o.state IN ('queued', 'sent', 'running'))
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
       SELECT 1 FROM broker_assignment a WHERE a.pool_id = %(pool)s AND a.user_id = %(user)s AND a.until IS NULL)"""
"""A newcomer takes nothing while others wait: the queue is served in order."""


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
    """A schedule wanted to switch it."""


def _uuid(value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


def _claim(*, pool_id: UUID, user_id: int, now: datetime, from_queue: bool) -> Claimed | None:
    """Take one ready desktop for this user in one statement; None if there is none or the user may not."""
    lock = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    statement = CLAIM.format(lock=lock, queue="" if from_queue else AHEAD, gives_way=GIVES_WAY)
    pool = pool_id if connection.features.has_native_uuid_field else pool_id.hex
    with connection.cursor() as cursor:
        moment = connection.ops.adapt_datetimefield_value(now)
        cursor.execute(statement, {"now": moment, "pool": pool, "user": user_id})
        row = cursor.fetchone()
    if row is None:
        return None
    return Claimed(_uuid(row[0]), row[1], row[2], _uuid(row[3]), row[4], row[5], row[6], bool(row[7]), bool(row[8]))


def _hand_over(claimed: Claimed, *, user: User, request: Request, is_new: bool, now: datetime) -> None:
    """Write what follows from a claim: assignment, request, event, audit and, if it is off, the start order."""
    request.state, request.desktop_id, request.served_at, request.reason = Request.State.READY, claimed.id, now, ""
    if not is_new:
        request.save(update_fields=["state", "desktop", "served_at", "reason"])
    new: list[Model] = [request] if is_new else []
    new.append(Assignment(pool_id=request.pool_id, user=user, slot=0, desktop_id=claimed.id, since=now))
    event = Event(
        at=now,
        kind="desktop.claimed",
        message=f"Assigned to {user.get_username()}.",
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


def request_desktop(*, user: User, pool_id: UUID) -> tuple[Request, bool]:
    """Ask for a desktop of a pool. Returns the request and whether it is new; asking again gives the open one.

    Ready at once if there is one; otherwise the request waits in the queue with a reason in words. Raises `Missing`
    if the pool does not exist or this person is not entitled to it, `Clash` if it is closed.
    """
    now = timezone.now()
    try:
        with transaction.atomic():
            claimed = _claim(pool_id=pool_id, user_id=user.pk, now=now, from_queue=False)
            if claimed:
                request = Request(id=uuid4(), pool_id=pool_id, user=user, created_at=now)
                _hand_over(claimed, user=user, request=request, is_new=True, now=now)
                return request, True
            open_request = _open_request(user, pool_id)
            if open_request:
                return open_request, False
            _check_may_ask(user, pool_id)
            request = Request(pool_id=pool_id, user=user, created_at=now, reason=NOBODY_LEFT)
            request.save(force_insert=True)
            audit.record(actor=user, action="request.create", subject=request)
            nudges.nudge(nudges.RECONCILE, pool_id)
            nudges.announce("requests", user=str(user.pk))
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


def _open_request(user: User, pool_id: UUID) -> Request | None:
    return Request.objects.filter(user=user, pool_id=pool_id, state__in=Request.OPEN).first()


def is_entitled(user: User, pool_id: UUID) -> bool:
    """Whether this person may have desktops of the pool, directly or through a group."""
    entitled = Pool.objects.filter(pk=pool_id)
    return (entitled.filter(entitlements__user=user) | entitled.filter(entitlements__group__user=user)).exists()


def _check_may_ask(user: User, pool_id: UUID) -> None:
    pool = Pool.objects.filter(pk=pool_id).first()
    if pool is None or not user.is_active or not is_entitled(user, pool_id):
        raise Missing("There is no such pool.")
    if not pool.is_enabled:
        raise Clash(closed(pool.closed_words, pool.name))


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
        waiting = Request.objects.select_for_update(of=("self",)).select_related("user")
        request = waiting.filter(pk=request_id, state__in=Request.IN_QUEUE).first()
        if request is None:
            return False
        claimed = _claim(pool_id=pool_id, user_id=request.user_id, now=now, from_queue=True)
        if claimed is None:
            return None
        _hand_over(claimed, user=request.user, request=request, is_new=False, now=now)
    return True


def cancel_request(*, actor: User, request_id: UUID) -> Request:
    """Take back a request that waits. A request that is ready is ended by releasing its desktop."""
    request = Request.objects.select_related("pool").filter(pk=request_id).first()
    if request is None or not (actor.is_staff or request.user_id == actor.pk):
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


def release_desktop(*, actor: User, desktop_id: UUID) -> Operation | None:
    """End an assignment: by its user (release) or an administrator (reclaim). The desktop gets a fresh disk.

    Returns the recycle operation, or None if an operation in flight must end first (the broker goes on by itself).
    Open screens are closed, and orders of the old owner that were not sent die. Raises `Missing` if it is not theirs.
    """
    assignment = (
        Assignment.objects.select_related("desktop", "desktop__pool", "desktop__copy", "user")
        .filter(desktop_id=desktop_id, until=None)
        .first()
    )
    if assignment is None or not (actor.is_staff or assignment.user_id == actor.pk):
        raise Missing("There is no such desktop.")
    if assignment.desktop.is_moving:
        raise Clash(f"{assignment.desktop} is being moved to another host. Wait until it is there.")
    now = timezone.now()
    with transaction.atomic():
        moved = Desktop.objects.filter(pk=desktop_id, is_moving=False, state__in=sources(Move.RELEASED)).update(
            state=State.RECYCLING, state_since=now, epoch=F("epoch") + 1, is_answering=False, ready_at=None, attempts=0
        )
        if not moved or not Assignment.objects.filter(pk=assignment.pk, until=None).update(until=now):
            raise Clash("The desktop was released a moment ago.")
        desktop = Desktop.objects.select_related("pool", "copy", "member__copy").get(pk=desktop_id)
        reason = "Released." if assignment.user_id == actor.pk else "Reclaimed by an administrator."
        Request.objects.filter(desktop_id=desktop_id, state=Request.State.READY).update(
            state=Request.State.ENDED, ended_at=now, reason=reason
        )
        Operation.objects.filter(desktop_id=desktop_id, state=Operation.State.QUEUED).update(
            state=Operation.State.CANCELLED, finished_at=now, error="The desktop was released before it was sent."
        )
        audit.record(
            actor=actor,
            action="desktop.release" if assignment.user_id == actor.pk else "desktop.reclaim",
            subject=desktop,
            changes={"user": [assignment.user.get_username(), None]},
        )
        operations.event("desktop.released", reason, desktop=desktop).save(force_insert=True)
        operation = None
        if not Operation.objects.filter(desktop_id=desktop_id, changes=True, state__in=UNFINISHED).exists():
            operation = order_recycle(desktop, requested_by=actor)
        nudges.nudge(nudges.RECONCILE, desktop.pool_id)
        nudges.announce("desktops", user=str(assignment.user_id), desktop=str(desktop_id))
        nudges.announce("screens", desktop=str(desktop_id), close="released")
    return operation


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
    if actor is not None and not actor.is_staff:
        raise Forbidden("Only administrators end other people's requests.")
    return Request.objects.filter(
        user=user, pool_id=pool_id, state__in=[Request.State.WAITING, *Request.IN_QUEUE]
    ).update(state=Request.State.REFUSED, ended_at=timezone.now(), reason=reason)
