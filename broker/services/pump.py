"""The pump: carries the operations of one hypervisor to its connector and the answers back into rows.

1. Take the hypervisor's lease (an epoch and an expiry on its row); somebody else has it: go away.
2. Round: renew the lease; adopt what a predecessor left; poll what is due; send what is queued, up to the budgets.
3. Sleep until the earliest next poll or a hint; after a slice let go and look once more.

A *sent* operation is committed before the call. Every call's deadline is shorter than what is left of the lease, and
every write happens under a row lock that holds only while the epoch is still ours, so a pump that was frozen beyond
its lease and thawed changes nothing. Orders are idempotent under their key, so it makes nothing twice either.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import redis
import structlog
from django.db import transaction
from django.db.models import Count, F, Min, Q
from django.utils import timezone

from broker.domain.budgets import effective
from broker.hypervisors import gate
from broker.hypervisors.orders import to_order, to_receipt
from broker.models import Hypervisor, Operation
from broker.models.operations import UNFINISHED
from broker.services import guest_passwords, hypervisor_status, nudges, operations, outcomes
from connectors.base import Connector, Outcome
from connectors.errors import ConnectorError

log = structlog.get_logger()

SLICE_S = 30.0
LEASE_S = 20.0
CALL_S = 8.0
"""Shorter than the lease by more than a round's own writes take."""
BATCH = 2000
"""Operations in one poll or one set of writes: bounds memory whatever is in flight."""
KEPT_FOR_PEOPLE = 5
"""One of so many places of the power budget stays free for those who wait for one desktop."""
IDLE_S = 5.0
"""Between looks at a queue from which nothing may be sent now; a hint comes sooner."""

FLIGHT = (Operation.State.SENT, Operation.State.RUNNING)
BUILDS, SCREENS = Q(kind__in=Operation.BUILDS), Q(kind=Operation.Kind.SCREEN)
STATUS_FIELDS = ["status", "status_reason", "status_since", "failures", "retry_at"]
"""What others write of a hypervisor while its pump is at work."""
BUDGET_FIELDS = ["build_budget", "power_budget", "halvings", "halved_at"]


class LeaseLost(RuntimeError):
    """Another pump has taken over: stop at once and write nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    hypervisor_id: UUID
    epoch: int


def take_lease(hypervisor_id: UUID) -> Lease | None:
    """The lease, if nobody holds it. Raises the epoch, which shuts out whoever held it before."""
    now = timezone.now()
    free = Q(pump_expires_at=None) | Q(pump_expires_at__lt=now)
    taken = Hypervisor.objects.filter(free, pk=hypervisor_id).update(
        pump_epoch=F("pump_epoch") + 1, pump_expires_at=now + timedelta(seconds=LEASE_S)
    )
    if not taken:
        return None
    epoch = Hypervisor.objects.values_list("pump_epoch", flat=True).get(pk=hypervisor_id)
    return Lease(hypervisor_id, epoch)


def renew(lease: Lease) -> None:
    """Raises `LeaseLost` if it has expired or is another's: an expired lease is not revived."""
    now = timezone.now()
    kept = Hypervisor.objects.filter(pk=lease.hypervisor_id, pump_epoch=lease.epoch, pump_expires_at__gt=now).update(
        pump_expires_at=now + timedelta(seconds=LEASE_S)
    )
    if not kept:
        raise LeaseLost


def let_go(lease: Lease) -> None:
    Hypervisor.objects.filter(pk=lease.hypervisor_id, pump_epoch=lease.epoch).update(pump_expires_at=None)


@contextmanager
def under(lease: Lease) -> Iterator[None]:
    """A transaction that exists only while the lease is ours. Raises `LeaseLost` before anything is written."""
    with transaction.atomic():
        held = Hypervisor.objects.select_for_update(no_key=True).filter(pk=lease.hypervisor_id, pump_epoch=lease.epoch)
        if not held.values_list("pk", flat=True).first():
            raise LeaseLost
        yield


def run(hypervisor_id: UUID) -> None:
    """Pump for at most one slice. Returns at once if another pump is at work or there is nothing to do."""
    nudges.taken(nudges.PUMP, hypervisor_id)
    if not has_work(hypervisor_id):
        return
    lease = take_lease(hypervisor_id)
    if lease is None:
        return
    try:
        _slice(lease)
    except LeaseLost:
        log.warning("pump.lease_lost", hypervisor=str(hypervisor_id))
        return
    let_go(lease)
    if has_work(hypervisor_id):
        nudges.nudge(nudges.PUMP, hypervisor_id)


def has_work(hypervisor_id: UUID) -> bool:
    """Whether anything of this hypervisor is in flight or may be sent now."""
    now = timezone.now()
    queued = Q(state=Operation.State.QUEUED) & (Q(not_before=None) | Q(not_before__lte=now))
    return (
        Operation.objects.filter(hypervisor_id=hypervisor_id)
        .filter(queued | Q(state__in=FLIGHT))
        .filter(Q(hypervisor__retry_at=None) | Q(hypervisor__retry_at__lte=now))
        .exclude(hypervisor__status=Hypervisor.Status.REFUSED)
        .exists()
    )


def _slice(lease: Lease) -> None:
    hypervisor = Hypervisor.objects.get(pk=lease.hypervisor_id)
    access = gate.access(hypervisor)
    end = time.monotonic() + SLICE_S
    adopt(lease)
    try:
        with gate.opened(hypervisor) as connector:
            # Other settings, such as what a probe has found out, hold from the next slice on, with a new connector.
            while gate.access(hypervisor) == access and _round(lease, hypervisor, connector):
                if time.monotonic() >= end or not _sleep(lease, end):
                    return
                hypervisor.refresh_from_db()
    except ConnectorError as error:
        _lost(lease, hypervisor, error)


def _sleep(lease: Lease, end: float) -> bool:
    """Sleep until the next poll or a hint. False if nothing is in flight and nothing queued."""
    due = next_due(lease.hypervisor_id)
    if due is None:
        return False
    left = min((due - timezone.now()).total_seconds(), end - time.monotonic(), LEASE_S / 3)
    if left <= 0:
        return True
    try:
        nudges.wait(nudges.PUMP, lease.hypervisor_id, left)
    except redis.RedisError:
        time.sleep(min(left, 0.5))
    return True


def next_due(hypervisor_id: UUID) -> datetime | None:
    """When to look again: at the next poll or retry, else after a while if something is queued; None if nothing is.

    What is queued and may not be sent now (the budget is spent, the hypervisor is in doubt) is looked at when something
    in flight moves or with the next hint, not in a busy loop.
    """
    now = timezone.now()
    rows = Operation.objects.filter(hypervisor_id=hypervisor_id)
    queued = rows.filter(state=Operation.State.QUEUED)
    found: list[datetime | None] = [
        rows.filter(state__in=FLIGHT).aggregate(at=Min("next_poll_at"))["at"],
        queued.filter(not_before__gt=now).aggregate(at=Min("not_before"))["at"],
    ]
    if moments := [moment for moment in found if moment]:
        return max(min(moments), now + timedelta(seconds=0.05))
    return now + timedelta(seconds=IDLE_S) if queued.exists() else None


def adopt(lease: Lease) -> None:
    """Take over what a predecessor left in flight: running operations at once, sent ones once their call is over."""
    with under(lease):
        now = timezone.now()
        mine = Operation.objects.filter(hypervisor_id=lease.hypervisor_id)
        mine.filter(state=Operation.State.RUNNING).exclude(pump_epoch=lease.epoch).update(
            pump_epoch=lease.epoch, next_poll_at=now
        )
        _requeue_unknown(lease, now)


def _requeue_unknown(lease: Lease, now: datetime) -> int:
    """Sent orders whose call is over without an answer go back to the queue: a higher attempt looks before it acts."""
    return Operation.objects.filter(
        hypervisor_id=lease.hypervisor_id, state=Operation.State.SENT, call_deadline__lt=now
    ).update(state=Operation.State.QUEUED, not_before=None, pump_epoch=lease.epoch)


def _round(lease: Lease, hypervisor: Hypervisor, connector: Connector) -> bool:
    """Poll, then send. False when the endpoint is lost or refuses us: the slice is over."""
    renew(lease)
    try:
        _expire(lease, hypervisor)
        _poll(lease, hypervisor, connector)
        _submit(lease, hypervisor, connector)
    except ConnectorError as error:
        _lost(lease, hypervisor, error)
        return False
    return True


def _lost(lease: Lease, hypervisor: Hypervisor, error: ConnectorError) -> None:
    with under(lease):
        hypervisor_status.lost(hypervisor, error)


def _expire(lease: Lease, hypervisor: Hypervisor) -> None:
    """Fail what is past its deadline and cancel what belongs to a desktop's past."""
    now = timezone.now()
    with under(lease):
        rows = Operation.objects.filter(hypervisor=hypervisor)
        outcomes.time_out(hypervisor, rows, now, limit=BATCH)
        stale = rows.filter(state=Operation.State.QUEUED, desktop__isnull=False).exclude(epoch=F("desktop__epoch"))
        ids = list(stale.values_list("pk", flat=True)[:BATCH])
        if ids:
            Operation.objects.filter(pk__in=ids, state=Operation.State.QUEUED).update(
                state=Operation.State.CANCELLED, finished_at=now, error="The desktop changed hands before it was sent."
            )
        _requeue_unknown(lease, now)


def _poll(lease: Lease, hypervisor: Hypervisor, connector: Connector) -> None:
    """Ask after everything due, in batches, for one call's time: what is left is due first in the next round."""
    before = timezone.now()
    deadline = time.monotonic() + CALL_S
    while time.monotonic() < deadline:
        due = list(
            Operation.objects.filter(
                hypervisor=hypervisor, state=Operation.State.RUNNING, next_poll_at__lte=before
            ).order_by("next_poll_at")[:BATCH]
        )
        if not due:
            return
        installation = gate.installation_id()
        passwords = guest_passwords.of_orders(due)
        receipts = [to_receipt(operation, installation, passwords.get(operation.pk, "")) for operation in due]
        _carry(lease, hypervisor, connector.poll(receipts, deadline))
        if len(due) < BATCH:
            return
        renew(lease)


def _submit(lease: Lease, hypervisor: Hypervisor, connector: Connector) -> None:
    """Send queued operations within the budgets, batch by batch, until none may go."""
    while True:
        # Taken before the orders are marked: a pump frozen in between finds its call already over when it thaws.
        deadline = time.monotonic() + CALL_S
        chosen = _choose(lease, hypervisor)
        if not chosen:
            return
        installation = gate.installation_id()
        passwords = guest_passwords.of_orders(chosen)
        orders = [to_order(operation, installation, passwords.get(operation.pk, "")) for operation in chosen]
        unsupported = [o for o, order in zip(chosen, orders, strict=True) if type(order) not in connector.takes]
        if unsupported:
            _carry(lease, hypervisor, (outcomes.unsupported(hypervisor, o) for o in unsupported))
        sendable = [order for order in orders if type(order) in connector.takes]
        if sendable:
            _carry(lease, hypervisor, connector.submit(sendable, deadline))
        renew(lease)


def _choose(lease: Lease, hypervisor: Hypervisor) -> list[Operation]:
    """Mark the next operations as sent and return them: what a person waits for first, then by rank, then oldest."""
    now = timezone.now()
    with under(lease):
        hypervisor.refresh_from_db(fields=[*STATUS_FIELDS, *BUDGET_FIELDS])
        room = _room(hypervisor, now)
        queue = (
            Operation.objects.filter(hypervisor=hypervisor, state=Operation.State.QUEUED)
            .filter(Q(not_before=None) | Q(not_before__lte=now))
            .filter(Q(desktop=None) | Q(epoch=F("desktop__epoch")))
            .order_by("rank", "created_at")
        )
        # Screens change nothing and somebody looks at an empty page until they come: no budget holds them up.
        chosen = list(queue.filter(SCREENS)[:BATCH])
        if room["build"] > 0 and _may_build(hypervisor):
            chosen += queue.filter(BUILDS)[: min(room["build"], BATCH)]
        if room["other"] > 0:
            others = queue.exclude(BUILDS | SCREENS)[: min(room["other"], BATCH)]
            chosen += _leaving_room(others, room["background"])
        if not chosen:
            return []
        # Held until they are marked: nobody who gets or gives back a desktop meanwhile meets an order of before.
        epochs = outcomes.lock_epochs([o.desktop_id for o in chosen if o.desktop_id])
        chosen = [o for o in chosen if o.desktop_id is None or o.epoch == epochs.get(o.desktop_id)]
        deadline = now + timedelta(seconds=CALL_S)
        Operation.objects.filter(pk__in=[o.pk for o in chosen], state=Operation.State.QUEUED).update(
            state=Operation.State.SENT,
            attempt=F("attempt") + 1,
            deadline_at=operations.deadline_from_first_send(now),
            pump_epoch=lease.epoch,
            call_deadline=deadline,
            next_poll_at=deadline,
            sent_at=now,
        )
        # Read again: what was cancelled between the choice and its lock is not sent.
        marked = Operation.objects.filter(
            pk__in=[o.pk for o in chosen], state=Operation.State.SENT, pump_epoch=lease.epoch, sent_at=now
        )
        chosen = list(marked.order_by("rank", "created_at"))
        outcomes.sent(chosen, now)
    nudges.announce("operations")
    return chosen


def _room(hypervisor: Hypervisor, now: datetime) -> dict[str, int]:
    """How many more builds and other operations may be in flight; fewer while it says that it is busy."""
    slowdown = hypervisor.slowdown
    power_budget = effective(hypervisor.power_budget, slowdown, now)
    flying = Operation.objects.filter(hypervisor=hypervisor, state__in=FLIGHT).aggregate(
        builds=Count("pk", filter=BUILDS), others=Count("pk", filter=~BUILDS & ~SCREENS)
    )
    return {
        "build": effective(hypervisor.build_budget, slowdown, now) - flying["builds"],
        "other": power_budget - flying["others"],
        "background": power_budget - power_budget // KEPT_FOR_PEOPLE - flying["others"],
    }


def _leaving_room(queue: Iterable[Operation], count: int) -> list[Operation]:
    """Of operations by rank, what people wait for, and of the rest as many as make `count` with them.

    A thousand guests that shut down slowly would otherwise keep a person waiting whose own order is next.
    """
    found = list(queue)
    ahead = sum(operation.rank <= operations.RANK_PERSON for operation in found)
    return found[: max(count, ahead)]


def _may_build(hypervisor: Hypervisor) -> bool:
    """Not while in doubt, and not before a probe has found out how machines run there at all."""
    if hypervisor.status == Hypervisor.Status.DOUBT:
        return False
    return not hypervisor.operations.filter(kind=Operation.Kind.PROBE, state__in=UNFINISHED).exists()


def _carry(lease: Lease, hypervisor: Hypervisor, answers: Iterable[Outcome]) -> None:
    """Write outcomes as they come, in sets. An endpoint lost in mid-batch leaves what was answered written."""
    waiting: list[Outcome] = []
    lost: ConnectorError | None = None
    try:
        for outcome in answers:
            waiting.append(outcome)
            if len(waiting) >= BATCH:
                _write(lease, hypervisor, waiting)
                waiting = []
    except ConnectorError as error:
        lost = error
    if waiting:
        _write(lease, hypervisor, waiting)
    if lost is not None:
        raise lost
    if hypervisor.status in (Hypervisor.Status.DOWN, Hypervisor.Status.NEW):
        with under(lease):
            hypervisor.refresh_from_db(fields=STATUS_FIELDS)
            hypervisor_status.back(hypervisor)


def _write(lease: Lease, hypervisor: Hypervisor, answers: Sequence[Outcome]) -> None:
    with under(lease):
        outcomes.apply(hypervisor, lease.epoch, answers)


def backlog() -> list[UUID]:
    """Hypervisors whose pump is due and that nobody pumps: what the clock nudges."""
    now = timezone.now()
    due = Q(state=Operation.State.QUEUED) & (Q(not_before=None) | Q(not_before__lte=now))
    due |= Q(state__in=FLIGHT, next_poll_at__lte=now)
    return list(
        Hypervisor.objects.filter(
            Q(pump_expires_at=None) | Q(pump_expires_at__lt=now),
            Q(retry_at=None) | Q(retry_at__lte=now),
            pk__in=Operation.objects.filter(due).values("hypervisor"),
        )
        .exclude(status=Hypervisor.Status.REFUSED)
        .values_list("pk", flat=True)
    )
