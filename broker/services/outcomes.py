"""What follows from an operation's outcome: rows move through their tables, in sets, with one event each.

Called by the pump inside its transaction, under its lease. A batch costs a fixed number of statements whatever its
size: lock the operations, lock their desktops, write both, write events and follow-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone

from broker.domain.backoff import delay_s
from broker.domain.lifecycle import TRANSITIONS, State
from broker.domain.lifecycle import Event as Move
from broker.domain.resources import UNKNOWN, Share
from broker.models import Desktop, Event, Hypervisor, Machine, Operation, Pool, PoolMember
from broker.services import guest_passwords, hypervisor_status, nudges, operations, reservations
from broker.services.setwise import update_each
from connectors.base import MachineMade, Outcome, PowerSet, Probed, ScreenOpened, Stage
from connectors.errors import Busy, CapacityExhausted, ConnectorError, Unsupported

Kind = Operation.Kind

PROGRESS_FIELDS = ["state", "receipt", "percent", "step", "next_poll_at"]
OPERATION_FIELDS = [
    *PROGRESS_FIELDS,
    "not_before",
    "finished_at",
    "error_kind",
    "error",
    "platform_words",
    "is_unsettled",
]
DESKTOP_FIELDS = [
    "state", "state_since", "clean_epoch", "machine_id", "stamp_key", "disks", "power", "is_answering", "addresses",
    "learned_at", "failure", "attempts", "ready_at", "applied_share", "is_resting", "rdp_epoch",
]  # fmt: skip

POLL_CAP_S = 15.0
HOLD_BASE_S, HOLD_CAP_S = 15.0, 900.0
CAPACITY_HOLD_S = 300.0


@dataclass
class Batch:
    """What a set of outcomes will write."""

    hypervisor: Hypervisor
    now: datetime
    operations: list[Operation] = field(default_factory=list)
    desktops: dict[UUID, Desktop] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)
    removed_machines: list[str] = field(default_factory=list)
    screens: list[tuple[Operation, ScreenOpened]] = field(default_factory=list)
    passwords: list[Operation] = field(default_factory=list)
    """Carried out: guests have them."""
    reverted: list[UUID] = field(default_factory=list)
    """Desktops whose disks are as they once were."""
    held: dict[UUID, tuple[float | None, str]] = field(default_factory=dict)
    """Pool member -> (seconds, or None for back-off; why)."""
    is_busy: bool = False
    """The hypervisor turned something away for now."""
    proven: set[UUID] = field(default_factory=set)
    """Pool members on which a build succeeded."""

    def note(self, kind: str, message: str, operation: Operation, level: str = "info") -> None:
        desktop = self.desktops.get(operation.desktop_id) if operation.desktop_id else None
        self.events.append(operations.event(kind, message, level=level, operation=operation, desktop=desktop))


def lock_desktops(ids: Sequence[UUID]) -> dict[UUID, Desktop]:
    """The desktops with their pools, locked in the order of their ids."""
    if not ids:
        return {}
    rows = Desktop.objects.select_related("pool").select_for_update(no_key=True, of=("self",))
    locked = rows.filter(pk__in=ids).order_by("pk")
    return {desktop.pk: desktop for desktop in locked}


def lock_epochs(ids: Sequence[UUID]) -> dict[UUID, int]:
    """The epochs of these desktops, which stay until the caller's transaction ends; locked in the order of ids."""
    if not ids:
        return {}
    rows = Desktop.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    return dict(rows.values_list("pk", "epoch"))


def sent(chosen: Sequence[Operation], now: datetime) -> None:
    """Desktops whose build goes out are building from here on."""
    building = [o.desktop_id for o in chosen if o.kind == Kind.CLONE and o.desktop_id]
    if building:
        Desktop.objects.filter(pk__in=building, state=State.PLANNED).update(state=State.BUILDING, state_since=now)


def apply(hypervisor: Hypervisor, pump_epoch: int, answers: Sequence[Outcome]) -> None:
    """Write what the connector said. Outcomes of operations no longer in flight under this epoch are dropped."""
    now = timezone.now()
    told = {answer.key: answer for answer in answers}
    _advance({key: answer for key, answer in told.items() if answer.stage == Stage.RUNNING}, pump_epoch, now)
    ended = {key: answer for key, answer in told.items() if answer.stage != Stage.RUNNING}
    if not ended:
        return
    batch = Batch(hypervisor, now)
    mine = _in_flight(ended, pump_epoch)
    # Desktops before their operations, in the order of ids: everybody who holds both locks them so.
    batch.desktops = lock_desktops([pk for pk in mine.values_list("desktop", flat=True) if pk])
    for operation in mine.select_for_update(no_key=True):
        _take(batch, operation, ended[str(operation.pk)])
    _save(batch)


def _in_flight(keys: Iterable[str], pump_epoch: int) -> QuerySet[Operation]:
    in_flight = [Operation.State.SENT, Operation.State.RUNNING]
    return Operation.objects.filter(pk__in=list(keys), pump_epoch=pump_epoch, state__in=in_flight)


def _advance(running: Mapping[str, Outcome], pump_epoch: int, now: datetime) -> None:
    """Operations that go on: receipts and progress, and when to ask again. Nothing else follows."""
    if not running:
        return
    rows = list(_in_flight(running, pump_epoch).select_for_update(no_key=True))
    is_news = False
    for operation in rows:
        answer, before = running[str(operation.pk)], (operation.step, operation.percent)
        _note_progress(operation, answer)
        is_news = is_news or before != (operation.step, operation.percent)
        operation.state = Operation.State.RUNNING
        operation.next_poll_at = now + timedelta(seconds=min(answer.poll_after_s, POLL_CAP_S))
    update_each(rows, PROGRESS_FIELDS)
    if is_news:
        nudges.announce("operations")


def _note_progress(operation: Operation, answer: Outcome) -> None:
    operation.step = answer.step[:200] or operation.step
    operation.percent = answer.percent if answer.percent is not None else operation.percent
    if answer.receipt is not None:
        operation.receipt = dict(answer.receipt)


def _take(batch: Batch, operation: Operation, answer: Outcome) -> None:
    batch.operations.append(operation)
    _note_progress(operation, answer)
    if answer.stage == Stage.DONE:
        _finish(batch, operation, Operation.State.DONE)
        operation.percent = 100
        DONE[Kind(operation.kind)](batch, operation, answer)
    else:
        _failed(batch, operation, answer.error or ConnectorError("The connector gave no reason."))


def _finish(batch: Batch, operation: Operation, state: str) -> None:
    operation.state, operation.finished_at, operation.next_poll_at = state, batch.now, None


def _subject(batch: Batch, operation: Operation, move: Move) -> Desktop | None:
    """The operation's desktop if it is still the same owner's and the move is legal for it; moved already."""
    desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
    if desktop is None or desktop.epoch != operation.epoch:
        return None
    after = TRANSITIONS.get((State(desktop.state), move))
    if after is None:
        return None
    if after != desktop.state:
        desktop.state, desktop.state_since = after, batch.now
    return desktop


# --- done ------------------------------------------------------------------------------------------------------------


def _cloned(batch: Batch, operation: Operation, answer: Outcome) -> None:
    desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
    made = answer.result
    if desktop is None or not isinstance(made, MachineMade):
        return
    _remember_machine(batch, desktop, operation, made)
    if desktop.member_id:
        batch.proven.add(desktop.member_id)
    if _subject(batch, operation, Move.BUILT):
        desktop.clean_epoch, desktop.rdp_epoch = desktop.epoch, 0
        batch.note("desktop.built", f"Built on {batch.hypervisor}.", operation)
        _prepared_at_once(batch, desktop, operation)


def _remember_machine(batch: Batch, desktop: Desktop, operation: Operation, made: MachineMade) -> None:
    desktop.machine_id, desktop.stamp_key, desktop.disks = made.machine_id, str(operation.pk), list(made.disks)
    desktop.power, desktop.is_answering, desktop.learned_at = made.power, False, batch.now
    desktop.failure, desktop.applied_share = "", ""
    batch.machines.append(
        Machine(
            hypervisor=batch.hypervisor,
            platform_id=made.machine_id,
            name=made.name,
            power=made.power,
            vcpus=desktop.vcpus,
            memory_mib=desktop.memory_mib,
            stamp_installation=_installation(),
            stamp_key=desktop.stamp_key,
            seen_at=batch.now,
        )
    )


def _installation() -> str:
    from broker.hypervisors.gate import installation_id

    return installation_id()


def _prepared_at_once(batch: Batch, desktop: Desktop, operation: Operation) -> None:
    """Pools that don't wait for a guest call a machine ready as soon as it stands."""
    if desktop.pool.preparation != Pool.Preparation.NONE:
        return
    if _subject(batch, operation, Move.PREPARED):
        desktop.ready_at, desktop.attempts = batch.now, 0
        batch.note("desktop.ready", "Ready.", operation)


def _recycled(batch: Batch, operation: Operation, answer: Outcome) -> None:
    desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
    made = answer.result
    if desktop is None or desktop.epoch != operation.epoch or not isinstance(made, MachineMade):
        return
    fresh = bool(made.disks) and (made.machine_id != desktop.machine_id or not set(made.disks) & set(desktop.disks))
    if not fresh:
        _fault(batch, operation, "Recycling gave no evidence of a fresh disk; the desktop is kept from everybody.")
        return
    # Even where it may not move any more, as one that is to be deleted: this is the machine that it is now.
    if made.machine_id != desktop.machine_id:
        batch.removed_machines.append(desktop.machine_id)
        desktop.machine_id, desktop.stamp_key = made.machine_id, str(operation.pk)
    desktop.disks = list(made.disks)
    if desktop.applied_share:
        # The fresh machine, or an order of its share that crossed this one, may have lost it: it is given anew.
        desktop.applied_share = UNKNOWN
    if _subject(batch, operation, Move.RECYCLED):
        desktop.clean_epoch, desktop.rdp_epoch = desktop.epoch, 0
        desktop.power, desktop.is_answering, desktop.learned_at = made.power, False, batch.now
        desktop.failure, desktop.addresses, desktop.is_resting = "", [], False
        batch.note("desktop.recycled", "Fresh disk in place.", operation)
        _prepared_at_once(batch, desktop, operation)


def _deleted(batch: Batch, operation: Operation, answer: Outcome) -> None:
    batch.removed_machines.append(operation.parameters["machine"])
    desktop = _subject(batch, operation, Move.DELETED)
    if desktop:
        desktop.is_answering, desktop.power, desktop.learned_at = False, "unknown", batch.now
        batch.note("desktop.gone", "Deleted with its disks.", operation)


def _powered(batch: Batch, operation: Operation, answer: Outcome) -> None:
    desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
    if desktop is None or not isinstance(answer.result, PowerSet):
        return
    action = operation.parameters.get("action", "")
    desktop.power, desktop.learned_at = answer.result.power, batch.now
    # Whoever switches it off by hand may mean it to be left alone; a schedule does not.
    desktop.is_resting = desktop.power == "off" and operation.requested_by_id is None and bool(operation.cause)
    if action in ("off", "shutdown", "reboot", "reset", "suspend"):
        desktop.is_answering = False
    batch.note("desktop.powered", f"Power: {answer.result.power}.", operation)


def _shared(batch: Batch, operation: Operation, answer: Outcome) -> None:
    """A share belongs to the machine, whoever has the desktop by now; a recycle in between may have taken it away."""
    desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
    if desktop is None or desktop.machine_id != operation.parameters["machine"]:
        return
    given = Share(**operation.parameters["share"]).stored()
    desktop.applied_share = given if desktop.epoch == operation.epoch else UNKNOWN
    batch.note("desktop.shared", "Its machine has the pool's share of its host.", operation)


def _screen_opened(batch: Batch, operation: Operation, answer: Outcome) -> None:
    if isinstance(answer.result, ScreenOpened):
        batch.screens.append((operation, answer.result))


def _password_set(batch: Batch, operation: Operation, answer: Outcome) -> None:
    batch.passwords.append(operation)
    account = operation.parameters["user"]
    batch.note("desktop.password", f"Its guest has a new password for the account {account}.", operation)


def _reverted(batch: Batch, operation: Operation, answer: Outcome) -> None:
    if operation.desktop_id:
        batch.reverted.append(operation.desktop_id)
    _noted(batch, operation, answer)


def _probed(batch: Batch, operation: Operation, answer: Outcome) -> None:
    if not isinstance(answer.result, Probed):
        return
    found = answer.result
    hypervisor = Hypervisor.objects.select_for_update(no_key=True).get(pk=batch.hypervisor.pk)
    hypervisor.settings = {**hypervisor.settings, "acceleration": found.acceleration}
    hypervisor.save(update_fields=["settings"])
    batch.hypervisor.settings = hypervisor.settings
    batch.note("hypervisor.probed", f"Virtualisation type set to {found.acceleration}: {found.reason}", operation)


def _noted(batch: Batch, operation: Operation, answer: Outcome) -> None:
    batch.note("operation.done", f"{operation.get_kind_display()} done.", operation)


DONE: dict[Operation.Kind, Callable[[Batch, Operation, Outcome], None]] = {
    Kind.CLONE: _cloned,
    Kind.RECYCLE: _recycled,
    Kind.DELETE: _deleted,
    Kind.POWER: _powered,
    Kind.SCREEN: _screen_opened,
    Kind.PASSWORD: _password_set,
    Kind.PROBE: _probed,
    Kind.SNAPSHOT: _noted,
    Kind.REVERT: _reverted,
    Kind.UNSNAPSHOT: _noted,
    Kind.RECONFIGURE: _noted,
    Kind.SHARE: _shared,
}


# --- failed ----------------------------------------------------------------------------------------------------------


def _failed(batch: Batch, operation: Operation, error: ConnectorError) -> None:
    """Again later if that may help and there is time; otherwise for good, in words."""
    operation.error_kind, operation.error = error.kind, error.message
    operation.platform_words = error.platform_words
    batch.is_busy = batch.is_busy or isinstance(error, Busy)
    pause = delay_s(operation.attempt, str(operation.pk), cap_s=60)
    again_at = batch.now + timedelta(seconds=max(pause, error.retry_after_s or 0))
    if error.retry and again_at < operation.deadline_at:
        operation.state, operation.not_before, operation.next_poll_at = Operation.State.QUEUED, again_at, None
        batch.note("operation.delayed", f"{error.message} Tried again in {pause:.0f} s.", operation, "warning")
        return
    _finish(batch, operation, Operation.State.FAILED)
    batch.note("operation.failed", error.message, operation, "error")
    _follow_failure(batch, operation, error)


def _follow_failure(batch: Batch, operation: Operation, error: ConnectorError) -> None:
    if operation.kind == Kind.RECYCLE and isinstance(error, Unsupported):
        if _subject(batch, operation, Move.RETIRED):
            batch.note("desktop.retired", "It cannot be recycled. Another one takes its place.", operation)
    elif operation.kind in (Kind.CLONE, Kind.RECYCLE):
        desktop = batch.desktops.get(operation.desktop_id) if operation.desktop_id else None
        _fault(batch, operation, error.message)
        if operation.kind == Kind.CLONE and desktop and desktop.member_id:
            pause = CAPACITY_HOLD_S if isinstance(error, CapacityExhausted) else None
            batch.held[desktop.member_id] = (pause, error.message)
    elif operation.kind == Kind.DELETE and operation.desktop_id:
        desktop = batch.desktops.get(operation.desktop_id)
        if desktop and desktop.state == State.RETIRING:
            desktop.attempts, desktop.failure = desktop.attempts + 1, error.message
    elif operation.kind == Kind.PROBE:
        set_to = batch.hypervisor.settings.get("acceleration", "unknown")
        words = f"Whether acceleration works could not be found out; it stays at {set_to}. Recheck to try again."
        batch.note("hypervisor.unprobed", f"{words} {error.message}", operation, "warning")


def _fault(batch: Batch, operation: Operation, reason: str) -> None:
    desktop = _subject(batch, operation, Move.FAULTED)
    if desktop:
        desktop.failure, desktop.ready_at, desktop.is_answering = reason, None, False
        desktop.attempts += 1


def unsupported(hypervisor: Hypervisor, operation: Operation) -> Outcome:
    """The answer to an order that this kind of hypervisor does not take."""
    words = f"{hypervisor} cannot do this: {operation.get_kind_display().lower()}."
    return Outcome(key=str(operation.pk), stage=Stage.FAILED, error=Unsupported(words))


def time_out(hypervisor: Hypervisor, rows: QuerySet[Operation], now: datetime, *, limit: int) -> None:
    """Those past their deadline fail in words, but none while a call about it lasts; what they were for follows as from
    any failure. The caller holds the hypervisor's row, so that no answer is written meanwhile."""
    is_over = Q(state__in=[Operation.State.QUEUED, Operation.State.RUNNING])
    is_over &= ~Q(state=Operation.State.QUEUED, attempt=0, kind__in=Operation.BUILDS)
    is_over |= Q(state=Operation.State.SENT, call_deadline__lt=now)
    late = rows.filter(is_over, deadline_at__lt=now)
    found = dict(late.values_list("pk", "desktop")[:limit])
    if not found:
        return
    batch = Batch(hypervisor, now)
    batch.desktops = lock_desktops([pk for pk in found.values() if pk])
    # Once more, now that they are locked: a person may have cancelled one.
    for operation in late.filter(pk__in=found).select_for_update(no_key=True):
        batch.operations.append(operation)
        last = f" Last: {operation.error}" if operation.error else ""
        began_at = operation.created_at
        if operation.kind in Operation.BUILDS:
            began_at = operation.deadline_at - timedelta(seconds=operations.DEADLINE_S[Kind(operation.kind)])
        waited = (now - began_at).total_seconds()
        step = f" It stood at: {operation.step}." if operation.step else ""
        words = f"{operation.get_kind_display()} was not done within {waited:.0f} s on {batch.hypervisor}.{step}{last}"
        operation.error_kind = operation.error_kind or "timeout"
        operation.error, operation.is_unsettled = words, True
        _finish(batch, operation, Operation.State.FAILED)
        batch.note("operation.failed", words, operation, "error")
        _follow_failure(batch, operation, ConnectorError(words))
    _save(batch)


# --- writing ---------------------------------------------------------------------------------------------------------


def _save(batch: Batch) -> None:
    update_each(batch.operations, OPERATION_FIELDS)
    update_each(list(batch.desktops.values()), DESKTOP_FIELDS)
    ended = [
        d for d in batch.desktops.values() if d.state == State.GONE or (d.state == State.FAILED and not d.machine_id)
    ]
    reservations.end(ended)
    if batch.machines:
        Machine.objects.bulk_create(
            batch.machines,
            update_conflicts=True,
            unique_fields=["hypervisor", "platform_id"],
            update_fields=["name", "power", "stamp_installation", "stamp_key"],
        )
    if batch.removed_machines:
        Machine.objects.filter(hypervisor=batch.hypervisor, platform_id__in=batch.removed_machines).delete()
    Event.objects.bulk_create(batch.events, batch_size=500)
    if batch.screens:
        from broker.services import screens

        for operation, opened in batch.screens:
            screens.store_target(operation=operation, opened=opened)
    guest_passwords.taken(batch.passwords)
    if batch.reverted:
        guest_passwords.lost(batch.reverted)
    _hold_members(batch)
    if batch.is_busy:
        hypervisor_status.slow_down(batch.hypervisor, batch.now)
    pools = {desktop.pool_id for desktop in batch.desktops.values()}
    for pool_id in pools:
        nudges.nudge(nudges.RECONCILE, pool_id)
    if any(d.state == State.PREPARING for d in batch.desktops.values()):
        nudges.nudge(nudges.INVENTORY, batch.hypervisor.pk)
    for noun in ("operations", "desktops") if batch.desktops else ("operations",):
        nudges.announce(noun)


def _hold_members(batch: Batch) -> None:
    """After a failed build a member rests, longer each time; a success forgives it."""
    if batch.proven - batch.held.keys():
        PoolMember.objects.filter(pk__in=batch.proven - batch.held.keys()).exclude(failures=0).update(
            failures=0, hold_until=None, hold_reason=""
        )
    for member in PoolMember.objects.select_for_update(no_key=True).filter(pk__in=batch.held).order_by("pk"):
        pause, reason = batch.held[member.pk]
        member.failures += 1
        seconds = pause or delay_s(member.failures, str(member.pk), base_s=HOLD_BASE_S, cap_s=HOLD_CAP_S)
        member.hold_until, member.hold_reason = batch.now + timedelta(seconds=seconds), reason
        member.save(update_fields=["failures", "hold_until", "hold_reason"])
