"""Replication policies: kept by administrators, run by whoever the clock wakes, and watched for what they promise.

A policy's choices come to sources: machines as they are now. A source is due when its `next_run_at` has come; whoever
moves that from its old value writes the run, in one transaction. Movers carry runs out (`services/movers.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from broker.domain import replication as rules
from broker.domain import schedules
from broker.domain.lifecycle import LIVE
from broker.domain.replication import BadCron, Timing
from broker.hypervisors.abilities import can_replicate
from broker.models import (
    Assignment,
    Desktop,
    Hypervisor,
    Machine,
    Pool,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Template,
    Vault,
)
from broker.services import alive, audit, nudges, operations
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import require_administrator
from broker.services.rows import alter, locked, refusing_duplicates
from broker.services.vaults import COLLECT_EVERY

NAME_TAKEN = "There is already a policy of that name."
SHORTEST_S = 60
LONGEST_S = 366 * 86_400
KEPT_AT_MOST = 1000
DISKS_AT_MOST = 64
DUE_AT_ONCE = 500
"""Sources that one turn of the clock takes up: bounds its transaction."""
TIMING = {"interval_s", "cron", "zone", "is_enabled"}
UNFINISHED = (ReplicationRun.State.QUEUED, ReplicationRun.State.RUNNING)
RANK_ASKED, RANK_SCHEDULED, RANK_SELF = 0, 10, 20
"""What a person waits for, what a schedule wants, what the broker does for itself."""


class PolicyFields(TypedDict, total=False):
    """What a policy's form lets people set, all optional."""

    name: str
    vault_id: UUID
    interval_s: int | None
    cron: str
    zone: str
    rpo_s: int
    keep_last: int
    keep_hourly: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    verification: str
    bytes_a_second: int | None
    window_from: time | None
    window_to: time | None
    is_enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceWish:
    """What to put into a policy."""

    kind: str
    machine_id: UUID | None = None
    """Of our row of the machine, not the platform's."""
    desktop_id: UUID | None = None
    template_id: UUID | None = None
    pool_id: UUID | None = None
    disks: Sequence[str] = ()
    """Names; empty: all."""


# --- kept by administrators ------------------------------------------------------------------------------------------


def create_policy(
    *, actor: User, choices: Sequence[ChoiceWish] = (), **fields: Unpack[PolicyFields]
) -> ReplicationPolicy:
    """Needs `name`, `vault_id`, `rpo_s`, and either `interval_s` or `cron`. It runs from now on unless paused.

    Raises `Missing`, `Forbidden`, `Invalid`.
    """
    require_administrator(actor)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        policy = ReplicationPolicy()
        intake = Intake()
        needed: PolicyFields = {"name": "", "rpo_s": 0}
        if "vault_id" not in fields:
            intake.faults["vault_id"] = "Choose a vault."
        values = _cleaned(intake, policy, {**needed, **fields})
        intake.refuse_faults("The policy was not created.")
        for field, value in values.items():
            setattr(policy, field, value)
        policy.save(force_insert=True)
        changes = {field: [None, _plain(value)] for field, value in values.items()}
        audit.record(actor=actor, action="policy.create", subject=policy, changes=changes)
        for wish in choices:
            _choose(actor, policy, wish)
        settle(policy, timezone.now())
        nudges.announce("replication")
    return policy


def change_policy(*, actor: User, policy_id: UUID, **fields: Unpack[PolicyFields]) -> ReplicationPolicy:
    """Change what is named; the rest stays. Raises `Missing`, `Forbidden`, `Invalid`."""
    require_administrator(actor)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        policy = locked(ReplicationPolicy.objects.all(), policy_id, "policy")
        intake = Intake()
        values = _cleaned(intake, policy, fields)
        intake.refuse_faults("The policy was not changed.")
        before = policy.vault_id
        if changes := alter(policy, values):
            shown = {field: [_plain(old), _plain(new)] for field, (old, new) in changes.items()}
            audit.record(actor=actor, action="policy.change", subject=policy, changes=shown)
            if policy.vault_id != before:
                # What the new vault does not hold cannot be built upon.
                for source in policy.sources.filter(bookmark__isnull=False):
                    _forget(source)
                policy.sources.update(bookmark=None, common=None)
            if changes.keys() & TIMING:
                _move_runs(policy, timezone.now())
            if changes.keys() & {"rpo_s", "is_enabled"}:
                _move_promises(policy)
            nudges.announce("replication")
    return policy


def delete_policy(*, actor: User, policy_id: UUID) -> None:
    """Its recovery points stay in their vault. Raises `Clash` while one of its runs is at work."""
    require_administrator(actor)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.all(), policy_id, "policy")
        running = ReplicationRun.objects.filter(source__policy=policy, state=ReplicationRun.State.RUNNING)
        if run := running.first():
            raise Clash(f"{run.subject} is being replicated. Pause the policy, cancel the run and try again.")
        audit.record(actor=actor, action="policy.delete", subject=policy)
        for source in policy.sources.filter(bookmark__isnull=False):
            _forget(source)
        policy.delete()
        nudges.announce("replication")


def add_choice(*, actor: User, policy_id: UUID, wish: ChoiceWish) -> ReplicationChoice:
    """Raises `Missing`, `Forbidden`, `Invalid`; `Clash` if it is chosen already."""
    return add_choices(actor=actor, policy_id=policy_id, wishes=[wish])[0]


def add_choices(*, actor: User, policy_id: UUID, wishes: Sequence[ChoiceWish]) -> list[ReplicationChoice]:
    """All of them or none. Raises as `add_choice`."""
    require_administrator(actor)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.all(), policy_id, "policy")
        choices = [_choose(actor, policy, wish) for wish in wishes]
        settle(policy, timezone.now())
        nudges.announce("replication")
    return choices


def remove_choice(*, actor: User, choice_id: UUID) -> None:
    """What only it came to is not replicated any more; its recovery points stay."""
    require_administrator(actor)
    with transaction.atomic():
        choice = locked(ReplicationChoice.objects.select_related("policy"), choice_id, "choice")
        policy = choice.policy
        audit.record(actor=actor, action="policy.remove", subject=policy, changes={"choice": [str(choice), None]})
        choice.delete()
        settle(policy, timezone.now())
        nudges.announce("replication")


def _choose(actor: User, policy: ReplicationPolicy, wish: ChoiceWish) -> ReplicationChoice:
    intake = Intake()
    choice = ReplicationChoice(policy=policy, kind=intake.choice("kind", wish.kind, ReplicationChoice.Kind))
    choice.disks = _disk_names(intake, wish.disks)
    intake.refuse_faults("It was not chosen.")
    if wish.kind == ReplicationChoice.Kind.MACHINE:
        machine: Machine = _found(Machine.objects.select_related("hypervisor"), wish.machine_id, "machine")
        choice.hypervisor_id, choice.platform_id = machine.hypervisor_id, machine.platform_id
        _refuse_unreadable([machine.hypervisor], "machine_id")
    elif wish.kind == ReplicationChoice.Kind.DESKTOP:
        live = Desktop.objects.filter(state__in=LIVE).select_related("pool", "hypervisor")
        desktop: Desktop = _found(live, wish.desktop_id, "desktop")
        choice.desktop = desktop
        _refuse_floating(desktop.pool, "desktop_id")
        _refuse_unreadable([desktop.hypervisor], "desktop_id")
    elif wish.kind == ReplicationChoice.Kind.TEMPLATE:
        template: Template = _found(Template.objects.all(), wish.template_id, "template")
        choice.template = template
        copied_to = Hypervisor.objects.filter(copies__version__template=template).distinct()
        _refuse_unreadable(copied_to, "template_id")
    else:
        pool: Pool = _found(Pool.objects.all(), wish.pool_id, "pool")
        choice.pool = pool
        _refuse_floating(pool, "pool_id")
        _refuse_unreadable(Hypervisor.objects.filter(members__pool=pool).distinct(), "pool_id")
    try:
        with transaction.atomic():
            choice.save(force_insert=True)
    except IntegrityError as error:
        raise Clash(f"{policy} has it already.") from error
    audit.record(actor=actor, action="policy.add", subject=policy, changes={"choice": [None, str(choice)]})
    return choice


def _found(rows: Any, pk: UUID | None, what: str) -> Any:
    row = rows.filter(pk=pk).first()
    if row is None:
        raise Invalid("It was not chosen.", {f"{what}_id": f"There is no such {what}."})
    return row


def _refuse_floating(pool: Pool, field: str) -> None:
    if pool.kind != Pool.Kind.DEDICATED:
        words = f"Desktops of {pool} float: nothing of a user stays on them. Choose its template instead."
        raise Invalid("It was not chosen.", {field: words})


def _refuse_unreadable(hypervisors: Iterable[Hypervisor], field: str) -> None:
    """Unless one of them can be replicated from; that there is none yet is no reason."""
    found = list(hypervisors)
    if found and not any(can_replicate(one.kind) for one in found):
        words = f"Machines on {', '.join(one.name for one in found[:5])} cannot be replicated: no connector reads them."
        raise Invalid("It was not chosen.", {field: words})


def _disk_names(intake: Intake, names: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(intake.name("disks", name, length=100) for name in names))
    if len(found) > DISKS_AT_MOST:
        intake.faults["disks"] = f"At most {DISKS_AT_MOST} disks."
    return found


def _cleaned(intake: Intake, policy: ReplicationPolicy, fields: PolicyFields) -> dict[str, Any]:
    """What is named, checked against what stays; what is wrong is in `intake`."""
    values: dict[str, Any] = dict(fields)
    if "name" in values:
        values["name"] = intake.name("name", values["name"])
    if "vault_id" in values and not Vault.objects.filter(pk=values["vault_id"]).exists():
        intake.faults["vault_id"] = "There is no such vault."
    if "zone" in values and values["zone"] not in schedules.zones():
        intake.faults["zone"] = "Choose a time zone such as Europe/Berlin."
    if "rpo_s" in values:
        intake.whole("rpo_s", values["rpo_s"], lowest=SHORTEST_S, highest=LONGEST_S)
    for field in ("keep_hourly", "keep_daily", "keep_weekly", "keep_monthly"):
        if field in values:
            intake.whole(field, values[field], highest=KEPT_AT_MOST)
    if "keep_last" in values:
        intake.whole("keep_last", values["keep_last"], lowest=1, highest=KEPT_AT_MOST)
    if "verification" in values:
        intake.choice("verification", values["verification"], ReplicationPolicy.Verification)
    if values.get("bytes_a_second") is not None:
        # Slower than a block in ten seconds, and the mover would be taken for dead.
        intake.whole("bytes_a_second", values["bytes_a_second"], lowest=100_000, highest=1 << 40)
    _check_timing(intake, policy, values)
    window = [values.get(field, getattr(policy, field)) for field in ("window_from", "window_to")]
    if (window[0] is None) != (window[1] is None):
        intake.faults["window_to" if window[1] is None else "window_from"] = "Give both ends of the window, or none."
    return values


def _check_timing(intake: Intake, policy: ReplicationPolicy, values: dict[str, Any]) -> None:
    if not {"interval_s", "cron"} & values.keys() and not policy._state.adding:
        return
    if values.get("interval_s") and "cron" not in values:
        values["cron"] = ""
    if (values.get("cron") or "").strip() and "interval_s" not in values:
        values["interval_s"] = None
    interval = values.get("interval_s", policy.interval_s)
    cron = values["cron"] = (values.get("cron", policy.cron) or "").strip()
    if (interval is None) == (not cron):
        intake.faults["interval_s"] = "Give an interval or a cron expression, one of them."
    elif interval is not None:
        intake.whole("interval_s", interval, lowest=SHORTEST_S, highest=LONGEST_S)
    elif "zone" not in intake.faults:
        try:
            rules.next_run(Timing(cron=cron, zone=values.get("zone", policy.zone)), timezone.now())
        except BadCron as error:
            intake.faults["cron"] = str(error)


def _plain(value: Any) -> Any:
    """As the audit keeps it."""
    if isinstance(value, time):
        return f"{value:%H:%M}"
    return str(value) if isinstance(value, UUID | datetime) else value


# --- choices come to sources ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A machine that a choice comes to."""

    hypervisor_id: UUID
    platform_id: str
    name: str
    disks: tuple[str, ...]


def settle(policy: ReplicationPolicy, now: datetime) -> None:
    """Sources as the choices come to now. What is not chosen any more keeps its points. Inside a transaction."""
    wanted = {(one.hypervisor_id, one.platform_id): one for one in _machines(policy)}
    there = {(row.hypervisor_id, row.platform_id): row for row in policy.sources.select_for_update().order_by("pk")}
    for key, row in there.items():
        chosen = wanted.get(key)
        values: dict[str, Any] = {"is_chosen": chosen is not None}
        if chosen is None:
            values |= {"next_run_at": None, "breaks_at": None, "bookmark": None, "common": None}
            if row.bookmark is not None:
                _forget(row)
        else:
            values |= {"name": chosen.name, "disks": list(chosen.disks)}
            if not row.is_chosen and policy.is_enabled:
                values |= {"next_run_at": _first_run(policy, row, now), "breaks_at": _breaks_at(policy, row, now)}
        alter(row, values)
    fresh = []
    for key, chosen in wanted.items():
        if key in there:
            continue
        row = ReplicationSource(
            policy=policy, hypervisor_id=chosen.hypervisor_id, platform_id=chosen.platform_id, name=chosen.name,
            disks=list(chosen.disks),
        )  # fmt: skip
        if policy.interval_s:
            row.offset_s = zlib.crc32(row.pk.bytes) % policy.interval_s
        if policy.is_enabled:
            row.next_run_at, row.breaks_at = _first_run(policy, row, now), _breaks_at(policy, row, now)
        fresh.append(row)
    ReplicationSource.objects.bulk_create(fresh)


def _forget(source: ReplicationSource) -> None:
    """Nothing builds on its bookmark any more: the platform need not keep it."""
    debt = ReplicationRun(
        kind=ReplicationRun.Kind.RELEASE, hypervisor_id=source.hypervisor_id, platform_id=source.platform_id,
        subject=source.name, rank=RANK_SELF,
    )  # fmt: skip
    # One that waits does the same, and a run that is at work ends with it.
    ReplicationRun.objects.bulk_create([debt], ignore_conflicts=True)
    nudges.nudge(nudges.MOVE, debt.pk)


def _machines(policy: ReplicationPolicy) -> list[_Chosen]:
    """A machine that several choices come to counts once, with all of their disks: all, if one wants all."""
    found: dict[tuple[UUID, str], _Chosen] = {}
    for choice in policy.choices.select_related("desktop", "hypervisor"):
        for hypervisor_id, platform_id, name in _of(choice):
            key = hypervisor_id, platform_id
            before = found.get(key)
            disks: tuple[str, ...] = tuple(choice.disks)
            if before is not None:
                disks = tuple(dict.fromkeys((*before.disks, *disks))) if before.disks and disks else ()
            found[key] = _Chosen(hypervisor_id, platform_id, name, disks)
    return list(found.values())


def _of(choice: ReplicationChoice) -> Iterable[tuple[UUID, str, str]]:
    kinds = ReplicationChoice.Kind
    if choice.kind == kinds.MACHINE and choice.hypervisor_id is not None:
        seen = Machine.objects.filter(hypervisor=choice.hypervisor_id, platform_id=choice.platform_id)
        name = seen.values_list("name", flat=True).first()
        return [(choice.hypervisor_id, choice.platform_id, name or choice.platform_id)]
    if choice.kind == kinds.TEMPLATE and choice.template is not None:
        newest = choice.template.versions.order_by("-number").first()
        copies = newest.copies.select_related("hypervisor").order_by("created_at") if newest else []
        # Every copy of a version holds the same: one is enough, the oldest, from which the others were made.
        readable = [copy for copy in copies if can_replicate(copy.hypervisor.kind)]
        return [(copy.hypervisor_id, copy.platform_id, copy.name) for copy in readable[:1]]
    held = Desktop.objects.filter(state__in=LIVE).exclude(machine_id="")
    if choice.kind == kinds.DESKTOP:
        rows = held.filter(pk__in=[choice.desktop_id])
    else:
        assigned = Assignment.objects.filter(pool=choice.pool_id, until=None).values("desktop_id")
        rows = held.filter(pk__in=assigned)
    return rows.values_list("hypervisor_id", "machine_id", "name")


def _timing(policy: ReplicationPolicy) -> Timing:
    interval = timedelta(seconds=policy.interval_s) if policy.interval_s else None
    return Timing(interval=interval, cron=policy.cron, zone=policy.zone)


def _next(policy: ReplicationPolicy, source: ReplicationSource, after: datetime) -> datetime:
    timing = _timing(policy)
    if timing.interval is not None:
        timing = Timing(interval=timing.interval, offset=rules.offset_for(timing.interval, source.offset_s))
    return rules.next_run(timing, after)


def _first_run(policy: ReplicationPolicy, source: ReplicationSource, now: datetime) -> datetime:
    """By interval a new machine is replicated at once, by cron at its time."""
    return now if policy.interval_s and source.newest_at is None else _next(policy, source, now)


def _breaks_at(policy: ReplicationPolicy, source: ReplicationSource, since: datetime) -> datetime:
    """Before there is a point, the promise counts from `since`."""
    return (source.newest_at or since) + timedelta(seconds=policy.rpo_s)


def _move_runs(policy: ReplicationPolicy, now: datetime) -> None:
    for source in policy.sources.select_for_update().filter(is_chosen=True).order_by("pk"):
        if policy.interval_s:
            source.offset_s = zlib.crc32(source.pk.bytes) % policy.interval_s
        source.next_run_at = _next(policy, source, now) if policy.is_enabled else None
        source.save(update_fields=["offset_s", "next_run_at"])


def _move_promises(policy: ReplicationPolicy) -> None:
    now = timezone.now()
    for source in policy.sources.select_for_update().filter(is_chosen=True).order_by("pk"):
        breaks_at = _breaks_at(policy, source, source.created_at) if policy.is_enabled else None
        alter(source, {"breaks_at": breaks_at})
        if breaks_at is None or breaks_at > now:
            RpoBreach.objects.filter(source=source, until=None).update(until=now)


# --- runs -------------------------------------------------------------------------------------------------------------


def run_now(*, actor: User, policy_id: UUID) -> list[ReplicationRun]:
    """A run of each of its sources that has none under way; paused policies too. Raises `Missing`, `Clash`."""
    require_administrator(actor)
    with transaction.atomic():
        policy = locked(ReplicationPolicy.objects.all(), policy_id, "policy")
        sources = list(policy.sources.filter(is_chosen=True))
        if not sources:
            raise Clash(f"{policy} has no machine to replicate. Choose one first.")
        made = queue(sources, actor, RANK_ASKED)
        if not made:
            raise Clash("Each of its machines is being replicated already.")
        audit.record(actor=actor, action="policy.run", subject=policy, changes={"runs": [None, len(made)]})
    return made


def cancel_run(*, actor: User, run_id: UUID) -> ReplicationRun:
    """A queued one ends now, a running one when its mover hears of it. Raises `Missing`, `Clash` if it has ended."""
    require_administrator(actor)
    with transaction.atomic():
        run = locked(ReplicationRun.objects.all(), run_id, "run")
        if run.state not in UNFINISHED:
            raise Clash(f"This run has ended: {run.get_state_display().lower()}.")
        if run.state == ReplicationRun.State.QUEUED and not run.attempt:
            alter(run, {"state": ReplicationRun.State.CANCELLED, "finished_at": timezone.now(), "is_to_end": True})
        else:
            # What an attempt began must be taken away again: a mover does that.
            alter(run, {"is_to_end": True, "not_before": None})
            nudges.nudge(nudges.MOVE, run.pk)
        audit.record(actor=actor, action="run.cancel", subject=run)
        nudges.announce("replication")
    return run


def due() -> int:
    """Write the runs of sources whose time has come; how many. Any number of clocks may call it.

    What was missed while nothing ran is caught up with once. A source whose machine is still being replicated is
    left out this time, and says so.
    """
    now = timezone.now()
    rows = ReplicationSource.objects.filter(next_run_at__lte=now, is_chosen=True, policy__is_enabled=True)
    if not rows.exists():
        return 0
    with transaction.atomic():
        found = list(
            rows.select_related("policy")
            .order_by("next_run_at")
            .select_for_update(skip_locked=True, of=("self",))[:DUE_AT_ONCE]
        )
        for source in found:
            source.next_run_at = _next(source.policy, source, now)
        ReplicationSource.objects.bulk_update(found, ["next_run_at"])
        return len(queue(found, None, RANK_SCHEDULED))


def queue(sources: Sequence[ReplicationSource], actor: User | None, rank: int) -> list[ReplicationRun]:
    """Runs of those whose machine is not being replicated. Inside a transaction; sources with their policies."""
    busy = set(
        ReplicationRun.objects.filter(
            kind=ReplicationRun.Kind.REPLICATE,
            state__in=UNFINISHED,
            hypervisor__in={source.hypervisor_id for source in sources},
        ).values_list("hypervisor_id", "platform_id")
    )
    wanted = [source for source in sources if (source.hypervisor_id, source.platform_id) not in busy]
    _take_over_releases(wanted)
    fresh = [
        ReplicationRun(
            kind=ReplicationRun.Kind.REPLICATE, source=source, vault_id=source.policy.vault_id,
            hypervisor_id=source.hypervisor_id, platform_id=source.platform_id, subject=source.name, rank=rank,
            requested_by=actor,
        )
        for source in wanted
    ]  # fmt: skip
    # Somebody may write one in this moment: the constraint decides, and theirs serves as well as ours.
    ReplicationRun.objects.bulk_create(fresh, ignore_conflicts=True)
    made = list(ReplicationRun.objects.filter(pk__in=[run.pk for run in fresh]))
    for run in made:
        nudges.nudge(nudges.MOVE, run.pk)
    if made:
        nudges.announce("replication")
    return made


def _take_over_releases(sources: Sequence[ReplicationSource]) -> None:
    """A run begins with what a release does, so that one that waits need not stand in its way."""
    waiting = ReplicationRun.objects.filter(
        kind=ReplicationRun.Kind.RELEASE,
        state=ReplicationRun.State.QUEUED,
        hypervisor__in={source.hypervisor_id for source in sources},
        platform_id__in=[source.platform_id for source in sources],
    )
    waiting.delete()


# --- what was promised ------------------------------------------------------------------------------------------------


def watch() -> None:
    """Called by the clock now and then: choices are settled anew, promises that are broken are told, once each, and
    vaults are cleaned up."""
    now = timezone.now()
    moving = ReplicationChoice.objects.exclude(kind=ReplicationChoice.Kind.MACHINE)
    for pk in ReplicationPolicy.objects.filter(pk__in=moving.values("policy")).values_list("pk", flat=True):
        with transaction.atomic():
            policy = ReplicationPolicy.objects.select_for_update().filter(pk=pk).first()
            if policy is not None:
                settle(policy, now)
    _begin_breaches(now)
    _collect(now)
    alive.need_mover(on=Vault.objects.exists())


def _begin_breaches(now: datetime) -> None:
    told = RpoBreach.objects.filter(source=OuterRef("pk"), until=None)
    broken = ReplicationSource.objects.filter(breaks_at__lte=now).exclude(Exists(told)).select_related("policy")
    for source in broken:
        _begin_breach(source, now)


def _begin_breach(source: ReplicationSource, now: datetime) -> None:
    reason = source.fault or "The last run is not finished yet."
    with transaction.atomic():
        try:
            with transaction.atomic():
                RpoBreach.objects.create(source=source, since=source.breaks_at or now, reason=reason)
        except IntegrityError:
            return  # another clock told it in this moment
        is_first = source.newest_at is None
        what = "there is no recovery point yet" if is_first else "its newest recovery point is too old"
        words = f"{source.name} breaks the RPO of {source.policy}: {what}. {reason}"
        operations.event("rpo.broken", words, level="error", hypervisor_id=source.hypervisor_id).save()
        nudges.announce("replication")


def point_came(source: ReplicationSource, taken_at: datetime, now: datetime) -> dict[str, Any]:
    """What a new point changes about its source's promise; a breach that it ends is ended. Inside a transaction."""
    newest = max(taken_at, source.newest_at) if source.newest_at else taken_at
    breaks_at = newest + timedelta(seconds=source.policy.rpo_s)
    values: dict[str, Any] = {"newest_at": newest}
    if source.is_chosen and source.policy.is_enabled:
        values["breaks_at"] = breaks_at
    if breaks_at > now and RpoBreach.objects.filter(source=source, until=None).update(until=now):
        words = f"{source.name} keeps the RPO of {source.policy} again."
        operations.event("rpo.kept", words, hypervisor_id=source.hypervisor_id).save()
    return values


def _collect(now: datetime) -> None:
    for vault in Vault.objects.filter(next_collection_at__lte=now):
        with transaction.atomic():
            later = Vault.objects.filter(pk=vault.pk, next_collection_at=vault.next_collection_at)
            if not later.update(next_collection_at=now + COLLECT_EVERY):
                continue
            order_collection(vault, RANK_SELF)


def order_collection(vault: Vault, rank: int) -> None:
    """One that waits or is at work serves as well. Inside a transaction."""
    run = ReplicationRun(kind=ReplicationRun.Kind.COLLECT, vault=vault, subject=vault.name, rank=rank)
    ReplicationRun.objects.bulk_create([run], ignore_conflicts=True)
    # A mover takes whatever waits, whichever run it was told of.
    nudges.nudge(nudges.MOVE, run.pk)
