"""Publications, carried out. Nothing waits: a publication is a row with a step, as a failover is (ADR 8). `advance`
looks at what the step waits for and takes the next one in one transaction, so that a process may die anywhere. The
clock comes by for all that are running.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from broker.domain import publication as rules
from broker.domain.publication import Step
from broker.domain.sizes import size_in_words
from broker.models import (
    Hypervisor,
    Machine,
    PoolMember,
    Publication,
    RecoveryPoint,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    TemplateCopy,
)
from broker.services import (
    nudges,
    operations,
    pools,
    publications,
    recovery,
    replication,
    replication_policies,
    replication_runs,
    replication_sources,
)
from broker.services.rows import held
from broker.services.steps import StepFailed, is_run_done, note

STATES = Publication.State


def running() -> list[UUID]:
    """For the clock to nudge."""
    rows = Publication.objects.filter(state=STATES.RUNNING).order_by("step_since")
    return list(rows.values_list("pk", flat=True))


def advance(publication_id: UUID) -> None:
    """Take all steps that can be taken now. Whoever else is at it meanwhile goes away."""
    nudges.taken(nudges.PUBLICATION, publication_id)
    while _one_step(publication_id):
        pass


def _one_step(publication_id: UUID) -> bool:
    """Whether it moved on."""
    with transaction.atomic():
        rows = Publication.objects.select_related(
            "version__template", "hypervisor", "source", "vault", "copying__point", "landing", "pool"
        ).filter(state=STATES.RUNNING)
        row = held(rows, publication_id)
        if row is None:
            return False
        before = row.step
        try:
            if row.is_to_end and Step(row.step) in rules.MAY_BE_CANCELLED:
                _end_early(row)
            else:
                ACTS[Step(row.step)](row)
        except StepFailed as end:
            _over(row, end)
        row.save()
        nudges.announce("templates")
        return row.step != before and row.state == STATES.RUNNING


def _go_on(row: Publication, words: str) -> None:
    """The step ended well."""
    now = timezone.now()
    note(row, words, now)
    row.step, row.step_since = rules.after(Step(row.step)), now
    if row.step == Step.OVER:
        _over(row, None)


def _over(row: Publication, end: StepFailed | None) -> None:
    now = timezone.now()
    row.state, row.finished_at = STATES.DONE, now
    if end is not None:
        note(row, end.words, now, is_good=False)
        row.state = STATES.CANCELLED if end.is_cancelled else STATES.FAILED
        row.error = end.words
    level = {STATES.DONE: "info", STATES.CANCELLED: "warning"}.get(STATES(row.state), "error")
    outcome = {STATES.DONE: "went well", STATES.CANCELLED: "was cancelled"}.get(STATES(row.state), "failed")
    words = f"Publishing {row} {outcome}. {row.error if row.state == STATES.FAILED else ''}".strip()
    operations.event(f"publication.{row.state}", words, level=level, hypervisor_id=row.hypervisor_id).save()
    _stop_reading_for(row)


def _end_early(row: Publication) -> None:
    """Nothing stays of it; what stands by the time that a mover hears of it is entered all the same."""
    publications.end_runs(row)
    run = row.landing
    if run is not None and run.state in replication.UNFINISHED:
        return
    if run is not None and run.state == ReplicationRun.State.DONE:
        _land(row)
        return
    raise StepFailed("It was cancelled.", is_cancelled=True)


# Steps: each looks at what it waits for, or orders it.


def _copy(row: Publication) -> None:
    run = row.copying
    if run is None:
        row.copying = _reading_of_mates(row) or _order_reading(row)
        return
    if is_run_done(run):
        whole = f" {run.whole}" if run.whole else ""
        _go_on(row, f"Copied {size_in_words(run.read_bytes)} of {size_in_words(run.total_bytes or 0)}.{whole}")


def _land(row: Publication) -> None:
    run = row.landing
    if run is None:
        point = row.copying.point if row.copying is not None else None
        if point is None or point.state != RecoveryPoint.State.USABLE:
            raise StepFailed("The recovery point that was made for it is not there any more. Publish it again.")
        networks = recovery.same_named(row.hypervisor_id, _nics(point))
        row.landing = recovery.order_landing(
            point, row.hypervisor, row.requested_by, name=row.name, storage=row.storage, networks=networks,
            is_template=True,
        )  # fmt: skip
        return
    if is_run_done(run):
        row.machine_id = run.platform_id
        point = row.copying.point if row.copying is not None else None
        told = recovery.unconnected(_nics(point), run.wish.get("networks", [])) if point is not None else []
        _go_on(row, " ".join([f"It stands there as {row.name}.", *run.findings, *told]))


def _nics(point: RecoveryPoint) -> list[Any]:
    return list(point.configuration.get("nics", ()))


def _list(row: Publication) -> None:
    """Only what the inventory shows as something that can be cloned is entered."""
    now = timezone.now()
    seen = Machine.objects.filter(
        hypervisor=row.hypervisor_id, platform_id=row.machine_id, is_template=True, absences=0, vcpus__gt=0
    )
    if row.landing is None:
        # It was made long ago, and may have been removed since: only a new listing counts.
        seen = seen.filter(seen_at__gt=row.step_since)
    machine = seen.first()
    if machine is not None and machine.template_cannot:
        raise StepFailed(f"{row.name} stands there and cannot be cloned: {machine.template_cannot}")
    if machine is not None:
        _go_on(row, " ".join(["It is listed, and entered as a copy.", *_enter(row, machine)]))
        return
    if now - row.step_since > timedelta(seconds=rules.LISTING_S):
        raise StepFailed(
            f"No listing of {row.hypervisor} shows {row.name} as a template. Look at it there; once it is listed, "
            "publish again: what stands is taken up."
        )
    Hypervisor.objects.filter(pk=row.hypervisor_id).update(next_inventory_at=now)
    nudges.nudge(nudges.INVENTORY, row.hypervisor_id)


ACTS: dict[Step, Callable[[Publication], None]] = {Step.COPYING: _copy, Step.LANDING: _land, Step.LISTING: _list}


# --- what comes of it -------------------------------------------------------------------------------------------------


def _enter(row: Publication, machine: Machine) -> list[str]:
    """The copy, and who builds from it from now on, in sentences."""
    copy, _made = TemplateCopy.objects.get_or_create(
        hypervisor_id=row.hypervisor_id,
        platform_id=row.machine_id,
        defaults={
            "version": row.version, "name": machine.name, "storage": machine.template_storage or row.storage,
            "vcpus": machine.vcpus, "memory_mib": machine.memory_mib, "disk_mib": machine.template_disk_mib,
        },
    )  # fmt: skip
    if copy.version_id != row.version_id:
        raise StepFailed(f"{row.name} was linked as a copy of {copy.version} meanwhile.")
    row.copy = copy
    # First locked, then read with their copies: see `rows.held`.
    ids = list(row.members.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    members = PoolMember.objects.select_related("pool", "hypervisor", "copy__version").filter(pk__in=ids)
    return [_follow(row, member, copy) for member in members.order_by("pk")] + _join(row, copy)


def _follow(row: Publication, member: PoolMember, copy: TemplateCopy) -> str:
    has = member.copy.version
    if has.template_id != row.version.template_id or not rules.may_follow(has=has.number, new=row.version.number):
        return f"{member.pool} builds from {member.copy.version} there by now, and goes on so."
    pools.take_copy(member, copy)
    return f"{member.pool} builds from it."


def _join(row: Publication, copy: TemplateCopy) -> list[str]:
    if row.pool is None or row.pool.members.filter(hypervisor=row.hypervisor_id).exists():
        return []
    pools.join(row.pool, copy)
    return [f"{row.pool} builds there too from now on."]


# --- how it is read ---------------------------------------------------------------------------------------------------


def _reading_of_mates(row: Publication) -> ReplicationRun | None:
    """Those that were asked for together share one run: it began after they were asked for, so it holds what they are
    to hold."""
    mates = Publication.objects.filter(group=row.group, copying__isnull=False).exclude(pk=row.pk)
    mate = mates.select_related("copying__point").first()
    return mate.copying if mate is not None else None


def _order_reading(row: Publication) -> ReplicationRun | None:
    """A run of the image into the vault: by the source it has there, or by one made for it. None while the image is
    being read for somebody else: that run began before, and the image may be another one since."""
    if row.source is None:
        raise StepFailed("The copy that was to be read was unlinked meanwhile. Publish it again from another one.")
    made = replication_runs.queue([_source(row, row.source)], row.requested_by, replication.RANK_ASKED)
    return made[0] if made else None


def _source(row: Publication, copy: TemplateCopy) -> ReplicationSource:
    there = ReplicationSource.objects.select_related("policy").filter(
        policy__vault=row.vault_id, hypervisor=copy.hypervisor_id, platform_id=copy.platform_id, is_chosen=True
    )
    if found := there.filter(disks=[]).first():
        return found
    if row.vault is None:
        raise StepFailed("The vault was removed meanwhile. Publish it again through another one.")
    policy = replication_policies.own_policy(row.vault)
    ReplicationChoice.objects.get_or_create(
        policy=policy, kind=ReplicationChoice.Kind.MACHINE, hypervisor_id=copy.hypervisor_id,
        platform_id=copy.platform_id,
    )  # fmt: skip
    replication_sources.settle(policy, timezone.now())
    return there.get(policy=policy)


def _stop_reading_for(row: Publication) -> None:
    """What was chosen for publications alone is not chosen any more once none is left."""
    copy = row.source
    if copy is None:
        return
    if Publication.objects.filter(source=copy, vault=row.vault_id, state=STATES.RUNNING).exclude(pk=row.pk).exists():
        return
    policy = ReplicationPolicy.objects.select_for_update().filter(vault=row.vault_id, is_own=True).first()
    if policy is None:
        return
    chosen = policy.choices.filter(hypervisor=copy.hypervisor_id, platform_id=copy.platform_id)
    if chosen.delete()[0]:
        replication_sources.settle(policy, timezone.now())
