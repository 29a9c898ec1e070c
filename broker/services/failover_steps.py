"""Failovers, carried out. Nothing waits: a failover is a row with a step. `advance` looks at what the step waits for,
a run or an operation, and takes the next step in one transaction, so that a process may die anywhere. The clock comes
by for all that are running.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from broker.domain import failover as rules
from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import State
from broker.domain.sizes import size_in_words
from broker.models import (
    Desktop,
    Failover,
    Hypervisor,
    Machine,
    Operation,
    Pool,
    PoolMember,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
)
from broker.models.operations import UNFINISHED as UNFINISHED_OPERATIONS
from broker.services import (
    nudges,
    operations,
    recovery,
    replication,
    replication_policies,
    replication_runs,
    replication_sources,
    reservations,
    standbys,
)
from broker.services.errors import Clash
from broker.services.rows import held
from broker.services.steps import StepFailed, is_run_done, note

STATES = Failover.State


def running() -> list[UUID]:
    """For the clock to nudge."""
    return list(Failover.objects.filter(state=STATES.RUNNING).order_by("step_since").values_list("pk", flat=True))


def advance(failover_id: UUID) -> None:
    """Take all steps that can be taken now. Whoever else is at it meanwhile goes away."""
    nudges.taken(nudges.FAILOVER, failover_id)
    while _one_step(failover_id):
        pass


def _one_step(failover_id: UUID) -> bool:
    """Whether it moved on."""
    with transaction.atomic():
        rows = Failover.objects.select_related("hypervisor", "run", "operation", "desktop", "point").filter(
            state=STATES.RUNNING
        )
        row = held(rows, failover_id)
        if row is None:
            return False
        before = row.step
        try:
            if (why := _why_to_end(row)) is None:
                ACTS[Step(row.step)](row)
            elif not _is_awaited(row):
                _cancel_what_runs(row)
                raise why
        except StepFailed as end:
            _fail(row, end)
        row.save()
        nudges.announce("replication")
        return row.step != before and row.state == STATES.RUNNING


def _go_on(row: Failover, words: str) -> None:
    """The step ended well."""
    now = timezone.now()
    note(row, words, now)
    row.step, row.step_since = rules.after(Kind(row.kind), Step(row.step)), now
    row.run = row.operation = None
    if row.step == Step.OVER:
        _over(row, now)


def _fail(row: Failover, end: StepFailed) -> None:
    now = timezone.now()
    note(row, end.words, now, is_good=False)
    row.error = row.error or end.words
    was_stopped = row.stopped_at is not None and row.kind in rules.STOPS_FIRST
    row.step = rules.after_failure(
        Kind(row.kind), Step(row.step), has_machine=bool(row.machine_id), was_stopped=was_stopped
    )
    row.step_since, row.run, row.operation = now, None, None
    row.is_to_end = end.is_cancelled or row.is_to_end
    if row.step == Step.OVER:
        _over(row, now)


def _over(row: Failover, now: datetime) -> None:
    row.finished_at = now
    row.state = STATES.DONE if not row.error else STATES.CANCELLED if row.is_to_end else STATES.FAILED
    row.digest = hashlib.sha256(json.dumps(row.report, sort_keys=True).encode()).hexdigest()
    _let_user_in(row)
    level = {STATES.DONE: "info", STATES.CANCELLED: "warning"}.get(STATES(row.state), "error")
    outcome = {STATES.DONE: "went well", STATES.CANCELLED: "was cancelled"}.get(STATES(row.state), "failed")
    what = {Kind.TEST: "The test of", Kind.MOVE: "The move of"}.get(Kind(row.kind), "The failover of")
    where = f"{row.subject} on {row.hypervisor}" if row.kind == Kind.TEST else str(row)
    words = f"{what} {where} {outcome}. {row.error if row.state == STATES.FAILED else ''}".strip()
    operations.event(
        f"failover.{row.state}", words, level=level, desktop=row.desktop, hypervisor_id=row.hypervisor_id
    ).save()
    if row.kind == Kind.MOVE:
        _stop_replicating_for(row)
    if row.kind == Kind.TEST and row.point is not None and row.state != STATES.CANCELLED:
        recovery.tried(row.point, row.error)


def _why_to_end(row: Failover) -> StepFailed | None:
    """It was cancelled; or its user gave it back, or it was deleted: then there is nothing to move any more."""
    if Step(row.step) not in rules.MAY_BE_CANCELLED:
        return None
    if row.is_to_end:
        return StepFailed("It was cancelled.", is_cancelled=True)
    desktop = row.desktop
    if row.kind != Kind.TEST and (desktop is None or desktop.epoch != row.epoch or desktop.state != State.ASSIGNED):
        return StepFailed(f"{row.subject} changed hands meanwhile.")
    return None


def _is_awaited(row: Failover) -> bool:
    """What a platform was told cannot be called back while it is at it: taken back too early, it would come after."""
    run = row.run
    if run is None or run.kind != ReplicationRun.Kind.MIRROR or run.state not in replication.UNFINISHED:
        return False
    ReplicationRun.objects.filter(pk=run.pk, is_to_end=False).update(is_to_end=True, not_before=None)
    nudges.nudge(nudges.MOVE, run.pk)
    return True


def _cancel_what_runs(row: Failover) -> None:
    if row.run is not None:
        _end_run(row, row.run)
    if row.operation is not None:
        Operation.objects.filter(pk=row.operation.pk, state=Operation.State.QUEUED).update(
            state=Operation.State.CANCELLED, finished_at=timezone.now(), error="The failover was cancelled."
        )


def _end_run(row: Failover, run: ReplicationRun) -> None:
    """A mover that hears of it in time leaves no machine; one that has ended has left its machine to us."""
    goes_on = ReplicationRun.objects.filter(pk=run.pk, state__in=replication.UNFINISHED)
    if goes_on.update(is_to_end=True, not_before=None):
        nudges.nudge(nudges.MOVE, run.pk)
        return
    run.refresh_from_db()
    if row.step == Step.LANDING and run.state == ReplicationRun.State.DONE:
        row.machine_id, row.machine_key = run.platform_id, str(run.pk)


# Steps: each looks at what it waits for, or orders it.


def _wait(row: Failover) -> None:
    """A group goes a few at once, in order."""
    if row.group is not None:
        earlier = Failover.objects.filter(group=row.group, state=STATES.RUNNING, place__lt=row.place)
        if earlier.count() >= rules.AT_ONCE:
            return
    if row.kind == Kind.EMERGENCY:
        _hold_user_off(row)
    _go_on(row, f"{row.subject} goes to {row.hypervisor}.")


def _copy(row: Failover) -> None:
    run = row.run
    if run is None:
        row.run = _order_copy(row)
        return
    if is_run_done(run):
        row.point = run.point
        _go_on(row, _copied(run))


def _copied(run: ReplicationRun) -> str:
    whole = f" {run.whole}" if run.whole else ""
    return f"Copied {size_in_words(run.read_bytes)} of {size_in_words(run.total_bytes or 0)}.{whole}"


def _stop(row: Failover) -> None:
    desktop = row.desktop
    if desktop is None:
        raise StepFailed("The desktop is gone.")
    if row.operation is None:
        _hold_user_off(row)
        row.was_on = desktop.power != "off"
        if not row.was_on:
            _go_on(row, "It was off already.")
            return
        row.operation = _order_power(desktop, "shutdown", {"grace_s": rules.SHUTDOWN_GRACE_S}, row)
        return
    if _is_carried_out(row.operation):
        _go_on(row, "Shut down.")


def _hold_user_off(row: Failover) -> None:
    row.stopped_at = row.stopped_at or timezone.now()
    Desktop.objects.filter(failovers=row).update(is_moving=True, is_in_maintenance=True)
    nudges.announce("desktops", desktop=str(row.desktop_id))


def _let_user_in(row: Failover) -> None:
    if row.desktop_id is not None:
        Desktop.objects.filter(pk=row.desktop_id).update(is_moving=False, is_in_maintenance=row.was_in_maintenance)
        nudges.announce("desktops", desktop=str(row.desktop_id))


def _hand_over(row: Failover) -> None:
    if _is_driven(row, "hand_over", row.old_hypervisor_id):
        _go_on(row, "The last changes have arrived at the replica.")


def _take_over(row: Failover) -> None:
    # From the moment it is asked for, so that taking back looks there first.
    row.machine_id, row.machine_key = row.old_machine_id, row.old_machine_key
    if _is_driven(row, "take_over", row.hypervisor_id):
        _go_on(row, f"The replica on {row.hypervisor} has taken its place.")


def _reverse(row: Failover) -> None:
    """Its user has gone on already: what fails here is told, and fails nothing."""
    try:
        if not _is_driven(row, "reverse", row.hypervisor_id):
            return
    except StepFailed as end:
        note(
            row,
            f"It is not replicated back: {end.words} Turn the replication round there.",
            timezone.now(),
            is_good=False,
        )
        _go_on(row, "Its user goes on there all the same.")
        return
    _go_on(row, f"{row.old_hypervisor} keeps the replica from now on.")


def _is_driven(row: Failover, act: str, hypervisor_id: UUID | None) -> bool:
    """Whether the platform has carried it out; it is ordered if it was not. Raises `StepFailed`."""
    if row.run is None:
        row.run = ReplicationRun.objects.create(
            kind=ReplicationRun.Kind.MIRROR, hypervisor_id=hypervisor_id, platform_id=row.old_machine_id,
            subject=row.subject, wish={"act": act, "stamp_key": row.old_machine_key}, requested_by=row.requested_by,
            rank=replication.RANK_ASKED,
        )  # fmt: skip
        nudges.nudge(nudges.MOVE, row.run.pk)
        return False
    return is_run_done(row.run)


def _land(row: Failover) -> None:
    run = row.run
    if run is None:
        if row.point is None:
            raise StepFailed("The recovery point was deleted meanwhile.")
        networks = row.networks or recovery.same_named(row.hypervisor_id, _nics(row))
        if row.kind == Kind.EMERGENCY and _stands_by(row, networks):
            return
        row.run = recovery.order_landing(
            row.point, row.hypervisor, row.requested_by, name=row.name, storage=row.storage, networks=networks
        )
        return
    if is_run_done(run):
        row.machine_id, row.machine_key = run.platform_id, str(run.pk)
        said = [f"Brought up as {row.name}.", *run.findings, *_unconnected(row, run.wish.get("networks", []))]
        _go_on(row, " ".join(said))


def _stands_by(row: Failover, networks: list[str]) -> bool:
    """A machine waits there that holds the point already: nothing need be written."""
    if row.point is None or row.hypervisor_id is None:
        return False
    standby = standbys.take(point=row.point, hypervisor_id=row.hypervisor_id, networks=networks)
    if standby is None:
        return False
    row.machine_id, row.machine_key, row.name = standby.machine_id, standby.machine_key, standby.name
    said = [f"The standby {standby} holds this recovery point and is used.", *standby.warnings]
    _go_on(row, " ".join([*said, *_unconnected(row, networks)]))
    return True


def _nics(row: Failover) -> list[Any]:
    return list(row.point.configuration.get("nics", ())) if row.point is not None else []


def _unconnected(row: Failover, chosen: list[str]) -> list[str]:
    """A user's machine without a network is worth a word; a test's is meant so."""
    if row.kind == Kind.TEST:
        return []
    return recovery.unconnected(_nics(row), chosen)


def _start(row: Failover) -> None:
    if row.operation is None:
        row.operation = operations.order(
            kind=Operation.Kind.POWER,
            hypervisor_id=row.hypervisor_id,
            parameters={"machine": row.machine_id, "stamp_key": row.machine_key, "action": "on"},
            requested_by=row.requested_by,
            rank=operations.RANK_PERSON,
        )
        return
    if _is_carried_out(row.operation):
        _go_on(row, "Started.")


def _probe(row: Failover) -> None:
    """The guest's own agent answers, or at least the machine runs where no agent is waited for."""
    now = timezone.now()
    seen = Machine.objects.filter(hypervisor=row.hypervisor_id, platform_id=row.machine_id, seen_at__gt=row.step_since)
    machine = seen.first()
    waits_for_agent = row.desktop is None or row.desktop.pool.preparation != Pool.Preparation.NONE
    if machine is not None and machine.power == "on" and (machine.agent == "answering" or not waits_for_agent):
        row.answered_at = now
        where = f" at {', '.join(machine.addresses)}" if machine.addresses else ""
        words = f"The guest answers{where}." if machine.agent == "answering" else "The machine runs."
        if row.kind != Kind.TEST:
            _switch(row, machine, now)
            _let_user_in(row)
            words += " Its user goes on there."
        _go_on(row, words)
        return
    limit_s = row.desktop.pool.prepare_timeout_s if row.desktop is not None else rules.PROBE_S
    if now - row.step_since > timedelta(seconds=limit_s):
        power = f"it is {machine.power}" if machine is not None else "no listing shows it"
        raise StepFailed(f"No sign of life within {limit_s:.0f} s; {power}.")
    Hypervisor.objects.filter(pk=row.hypervisor_id).update(next_inventory_at=now)
    nudges.nudge(nudges.INVENTORY, row.hypervisor_id)


def _switch(row: Failover, machine: Machine, now: datetime) -> None:
    """From now on the desktop is the new machine: user, entitlement and history stay its own.

    The epoch rises: screens of the old machine close, and what was ordered for it and not sent dies.
    """
    desktop = row.desktop
    if desktop is None:
        raise StepFailed("The desktop is gone.")
    member = PoolMember.objects.filter(pool=desktop.pool_id, hypervisor=row.hypervisor_id).first()
    if member is None:
        raise StepFailed("The pool does not build there any more.")
    moved = Desktop.objects.filter(pk=desktop.pk, epoch=row.epoch, state=State.ASSIGNED).update(
        hypervisor=row.hypervisor_id,
        member=member,
        copy=member.copy_id,
        machine_id=row.machine_id,
        stamp_key=row.machine_key,
        disks=[],
        applied_share="",
        target_host=machine.host_id,
        power=machine.power,
        is_answering=machine.agent == "answering",
        addresses=machine.addresses,
        observed_at=machine.seen_at,
        learned_at=now,
        epoch=F("epoch") + 1,
        is_resting=False,
    )
    if not moved:
        raise StepFailed(f"{row.subject} changed hands meanwhile.")
    desktop.refresh_from_db()
    reservations.end([desktop])
    words = f"It is on {row.hypervisor} now, and was on {row.old_hypervisor}."
    operations.event("desktop.moved", words, desktop=desktop).save()
    nudges.nudge(nudges.RECONCILE, desktop.pool_id)


def _clean(row: Failover) -> None:
    if _is_deleted(row):
        _go_on(row, "The test's machine is gone.")


def _is_deleted(row: Failover) -> bool:
    """Whether what was brought up is gone; it is ordered if it was not."""
    if not row.machine_id:
        return True
    if row.operation is None:
        row.operation = _order_deletion(row)
        return False
    if not _is_carried_out(row.operation):
        return False
    row.machine_id, row.operation = "", None
    return True


def _is_handed_back(row: Failover) -> bool:
    """Whether the replica is one again, if it was told to be the machine, and the machine may be started. Raises
    `StepFailed`: what may run there keeps the old one off."""
    if row.machine_id:
        if not _is_driven(row, "take_back", row.hypervisor_id):
            return False
        row.machine_id, row.run = "", None
    return row.operation is not None or _is_driven(row, "take_back", row.old_hypervisor_id)


def _take_back(row: Failover) -> None:
    """First the new machine goes, then the old one starts: never do both run."""
    if not (_is_handed_back(row) if row.kind == Kind.PLANNED else _is_deleted(row)):
        return
    desktop = row.desktop
    if (
        row.kind in rules.STOPS_FIRST
        and row.was_on
        and desktop is not None
        and desktop.machine_id == row.old_machine_id
    ):
        if row.operation is None:
            row.operation = _order_power(desktop, "on", {}, row)
            return
        if not _is_carried_out(row.operation):
            return
        _go_on(row, "It runs again where it was.")
        return
    _go_on(row, "Nothing of the failover is left.")


ACTS: dict[Step, Callable[[Failover], None]] = {
    Step.WAITING: _wait,
    Step.COPYING: _copy,
    Step.STOPPING: _stop,
    Step.LAST_COPY: _copy,
    Step.LANDING: _land,
    Step.HANDING_OVER: _hand_over,
    Step.TAKING_OVER: _take_over,
    Step.REVERSING: _reverse,
    Step.STARTING: _start,
    Step.PROBING: _probe,
    Step.CLEANING: _clean,
    Step.TAKING_BACK: _take_back,
}


# --- what steps order -------------------------------------------------------------------------------------------------


def _is_carried_out(operation: Operation) -> bool:
    """Raises `StepFailed` if it failed."""
    if operation.state in UNFINISHED_OPERATIONS:
        return False
    if operation.state != Operation.State.DONE:
        raise StepFailed(operation.error or "The operation was cancelled.")
    return True


def _order_power(desktop: Desktop, action: str, more: dict[str, Any], row: Failover) -> Operation:
    """Raises `StepFailed` if the desktop is busy with something else."""
    try:
        return operations.order(
            kind=Operation.Kind.POWER,
            hypervisor_id=desktop.hypervisor_id,
            desktop=desktop,
            parameters=operations.machine_parameters(desktop) | {"action": action} | more,
            requested_by=row.requested_by,
            rank=operations.RANK_PERSON,
        )
    except Clash as clash:
        raise StepFailed(clash.message) from clash


def _order_deletion(row: Failover) -> Operation:
    return operations.order(
        kind=Operation.Kind.DELETE,
        hypervisor_id=row.hypervisor_id,
        parameters={"machine": row.machine_id, "stamp_key": row.machine_key},
        requested_by=row.requested_by,
        rank=operations.RANK_PERSON,
    )


def _order_copy(row: Failover) -> ReplicationRun:
    """A run of the desktop's machine into the vault of the move: by the source it has there, or by one made for it."""
    source = _source(row)
    run = ReplicationRun.objects.filter(
        kind=ReplicationRun.Kind.REPLICATE, source=source, state__in=replication.UNFINISHED
    ).first()
    if run is not None and row.step == Step.COPYING:
        return run
    if run is not None:
        raise StepFailed(f"{row.subject} is being replicated by {source.policy} right now. Try again.")
    made = replication_runs.queue([source], row.requested_by, replication.RANK_ASKED)
    if not made:
        raise StepFailed(f"{row.subject} is being replicated elsewhere right now. Try again.")
    return made[0]


def _source(row: Failover) -> ReplicationSource:
    there = ReplicationSource.objects.select_related("policy").filter(
        policy__vault=row.vault_id, hypervisor=row.old_hypervisor, platform_id=row.old_machine_id, is_chosen=True
    )
    if found := there.filter(disks=[]).first():
        return found
    if row.vault is None:
        raise StepFailed("The vault was removed meanwhile.")
    policy = replication_policies.own_policy(row.vault)
    ReplicationChoice.objects.get_or_create(policy=policy, kind=ReplicationChoice.Kind.DESKTOP, desktop=row.desktop)
    replication_sources.settle(policy, timezone.now())
    return there.get(policy=policy)


def _stop_replicating_for(row: Failover) -> None:
    """What was chosen for the move alone is not chosen any more."""
    policy = ReplicationPolicy.objects.filter(vault=row.vault_id, is_own=True).first()
    if policy is not None and policy.choices.filter(desktop=row.desktop).delete()[0]:
        replication_sources.settle(policy, timezone.now())
