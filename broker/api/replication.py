"""Replication policies, the machines under them, and the ledger of what they promise. Operators and auditors only."""

from __future__ import annotations

import dataclasses
from datetime import datetime, time
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page, page_as_ordered
from broker.api.runs import RunOut, show_run
from broker.api.shapes import In, Out
from broker.models import ReplicationPolicy, RpoBreach, Standby
from broker.selectors import replication as selectors
from broker.services import replication_policies, replication_runs, standbys

router = Router(tags=["replication"])

ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""HH:MM."""


class ChoiceOut(Out):
    id: UUID
    kind: str
    """machine, desktop, template, pool, tag"""
    hypervisor: UUID | None
    """Of a machine, with its `platform_id`."""
    platform_id: str
    desktop: UUID | None
    template: UUID | None
    pool: UUID | None
    tag: str
    """Of that kind alone."""
    name: str
    disks: list[str]
    """Names; empty: all that a machine has when it is read."""
    created_at: datetime


class PolicyOut(Out):
    id: UUID
    name: str
    engine: str
    """vault (copied by Deskyard), platform (replicated by the platform itself, and watched)"""
    vault: UUID | None
    """Null: the platform replicates. So are the schedule and what is kept of no meaning then."""
    interval_s: int | None
    """Null: by `cron`, or by the platform."""
    cron: str
    """Five fields on the clock of `zone`; empty: by `interval_s`, or by the platform."""
    zone: str
    """IANA name: of the cron expression, of retention's days and of the window."""
    rpo_s: int
    """The newest recovery point, or replica, of each machine is promised to be no older."""
    keep_last: int
    keep_hourly: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    verification: str
    """digest (as it is written), read_back (after each run), boot (the newest is started once a day)"""
    target: UUID | None
    """The hypervisor where machines are brought up: standbys, and points that are started."""
    target_storage: str
    """Platform id."""
    keeps_standby: bool
    standby_every_s: int
    """How often at most a standby is made anew where it cannot be brought up to date by what changed."""
    bytes_a_second: int | None
    """At most so fast within the window; null: as fast as it goes."""
    window_from: str | None
    """HH:MM, as `window_to`; null: the limit holds always."""
    window_to: str | None
    is_enabled: bool
    machines: int
    """That its choices come to."""
    machines_broken: int
    """Whose newest recovery point is older than promised."""
    machines_without_point: int
    newest_at: datetime | None
    """Of its machines' newest recovery points the newest."""
    oldest_at: datetime | None
    """Of its machines' newest recovery points the oldest."""
    next_run_at: datetime | None
    runs_at_work: int
    """Queued and running."""
    warning: str
    """Why the promise breaks even while all goes well; empty if it does not."""
    created_at: datetime


class PolicyDetailOut(PolicyOut):
    choices: list[ChoiceOut]


class ChoiceIn(In):
    """The id that goes with the kind, and no other."""

    kind: str
    """machine, desktop, template (the machines of its newest version), pool (its assigned desktops), tag (all machines
    that bear it)"""
    machine_id: UUID | None = None
    """Of `GET /hypervisors/{id}/machines`."""
    desktop_id: UUID | None = None
    template_id: UUID | None = None
    pool_id: UUID | None = None
    tag: str = ""
    disks: list[str] = []


class PolicyChange(In):
    """What is not named stays as it is. An interval that is named ends the cron expression, and the other way round."""

    name: str = ""
    engine: str = ReplicationPolicy.Engine.VAULT.value
    """vault, platform; never changed"""
    vault_id: UUID | None = None
    interval_s: int | None = None
    """From 60."""
    cron: str = ""
    zone: str = "UTC"
    rpo_s: int = 0
    """From 60."""
    keep_last: int = 3
    keep_hourly: int = 0
    keep_daily: int = 7
    keep_weekly: int = 0
    keep_monthly: int = 0
    verification: str = ReplicationPolicy.Verification.DIGEST.value
    """digest, read_back, boot (needs `target_storage_id`)"""
    target_storage_id: UUID | None = None
    """Of `GET /hypervisors/{id}/storages`: where machines are brought up."""
    keeps_standby: bool = False
    standby_every_s: int = 86_400
    bytes_a_second: int | None = None
    window_from: ClockTime | None = None
    window_to: ClockTime | None = None
    is_enabled: bool = True


class PolicyIn(PolicyChange):
    """What is left out has the default shown."""

    name: str
    rpo_s: int
    choices: list[ChoiceIn] = []


class MirrorOut(Out):
    """A replica that the platform keeps of a machine by itself. What it does not tell is null."""

    to: str
    """Name of a host, a cluster or a site."""
    state: str
    """healthy, warning, failing, initial (the first copy is not complete), paused, unknown"""
    newest_at: datetime | None
    """When the state was current that it holds."""
    interval_s: int | None
    fault: str
    can_fail_over: bool


class StandbyOut(Out):
    """A machine that waits, powered off, to take over."""

    id: UUID
    name: str
    hypervisor: UUID
    machine_id: str
    """Platform id."""
    point: UUID | None
    """The recovery point that it holds; null: one that was deleted."""
    taken_at: datetime | None
    """When the state was current that it holds."""
    is_changing: bool
    """It is being brought to a newer point."""
    is_used: bool
    """Somebody has started it or written on it: it is left alone."""
    refreshed_at: datetime


class SourceOut(Out):
    """A machine that a policy's choices come to, against what is promised of it."""

    id: UUID
    name: str
    hypervisor: UUID
    platform_id: str
    disks: list[str]
    is_chosen: bool
    """False: it is not replicated any more, and its recovery points stay."""
    newest_at: datetime | None
    """When the reading of its newest usable recovery point began, or the state was current that the platform's newest
    replica holds; null: there is none."""
    age_s: float | None
    """How old that is now."""
    rpo_s: int
    is_kept: bool
    """False: the promise is broken now."""
    broken_since: datetime | None
    broken_minutes: int
    """Of the last 30 days."""
    next_run_at: datetime | None
    took_s: float | None
    """How long its last good run took."""
    smallest_rpo_s: float | None
    """What could be promised at most if runs followed each other without a pause: twice that."""
    fault: str
    """Why the last run brought no recovery point, or what is wrong with the platform's replication; else empty."""
    mirrors: list[MirrorOut]
    """Of policies that watch the platform."""
    mirrors_at: datetime | None
    """When the platform was asked last."""
    whole: str
    """Why the last run had to read everything; empty if it read what had changed."""
    last_run: UUID | None
    standby: StandbyOut | None
    tried_at: datetime | None
    """When one of its points was started last, to see whether it lives."""
    trial_fault: str
    """Why that one did not; empty if it did."""
    created_at: datetime


class BreachOut(Out):
    source: UUID
    name: str
    """The machine's."""
    since: datetime
    until: datetime | None
    """Null while it lasts."""
    minutes: int
    reason: str


def show_policy(row: Any, now: datetime) -> PolicyOut:
    """A row of `selectors.policies`."""
    standing = selectors.standing_of(row, now)
    return PolicyOut(
        id=row.pk,
        name=row.name,
        engine=row.engine,
        vault=row.vault_id,
        interval_s=row.interval_s,
        cron=row.cron,
        zone=row.zone,
        rpo_s=row.rpo_s,
        keep_last=row.keep_last,
        keep_hourly=row.keep_hourly,
        keep_daily=row.keep_daily,
        keep_weekly=row.keep_weekly,
        keep_monthly=row.keep_monthly,
        verification=row.verification,
        target=row.target_id,
        target_storage=row.target_storage,
        keeps_standby=row.keeps_standby,
        standby_every_s=row.standby_every_s,
        bytes_a_second=row.bytes_a_second,
        window_from=_clock(row.window_from),
        window_to=_clock(row.window_to),
        is_enabled=row.is_enabled,
        machines=standing.machines,
        machines_broken=standing.broken,
        machines_without_point=standing.without_point,
        newest_at=standing.newest_at,
        oldest_at=standing.oldest_at,
        next_run_at=standing.next_run_at,
        runs_at_work=standing.at_work,
        warning=standing.warning,
        created_at=row.created_at,
    )


def _clock(at: time | None) -> str | None:
    return None if at is None else f"{at:%H:%M}"


def show_choice(row: Any) -> ChoiceOut:
    """A row of `selectors.choices_of`."""
    return ChoiceOut(
        id=row.pk,
        kind=row.kind,
        hypervisor=row.hypervisor_id,
        platform_id=row.platform_id,
        desktop=row.desktop_id,
        template=row.template_id,
        pool=row.pool_id,
        tag=row.tag,
        name=selectors.name_of(row),
        disks=row.disks,
        created_at=row.created_at,
    )


def show_source(row: Any, now: datetime) -> SourceOut:
    """A row of `selectors.sources`."""
    standing = selectors.source_standing(row, now)
    return SourceOut(
        id=row.pk,
        name=row.name,
        hypervisor=row.hypervisor_id,
        platform_id=row.platform_id,
        disks=row.disks,
        is_chosen=row.is_chosen,
        newest_at=row.newest_at,
        age_s=standing.age_s,
        rpo_s=row.policy.rpo_s,
        is_kept=standing.is_kept,
        broken_since=standing.lag.broken_since,
        broken_minutes=standing.broken_minutes,
        next_run_at=row.next_run_at,
        took_s=row.took_s,
        smallest_rpo_s=standing.smallest_rpo_s,
        fault=row.fault,
        mirrors=[MirrorOut(**dataclasses.asdict(mirror)) for mirror in standing.mirrors],
        mirrors_at=row.mirrors_at,
        whole=row.whole,
        last_run=row.last_run,
        standby=show_standby(standing.standby),
        tried_at=row.tried_at,
        trial_fault=row.trial_fault,
        created_at=row.created_at,
    )


def show_standby(row: Standby | None) -> StandbyOut | None:
    if row is None:
        return None
    return StandbyOut(
        id=row.pk,
        name=row.name,
        hypervisor=row.hypervisor_id,
        machine_id=row.machine_id,
        point=row.point_id,
        taken_at=row.point.taken_at if row.point else None,
        is_changing=row.is_changing,
        is_used=row.is_used,
        refreshed_at=row.refreshed_at,
    )


def show_breach(row: RpoBreach, now: datetime) -> BreachOut:
    return BreachOut(
        source=row.source_id,
        name=row.source.name,
        since=row.since,
        until=row.until,
        minutes=int(((row.until or now) - row.since).total_seconds() // 60),
        reason=row.reason,
    )


def _policy(policy_id: UUID) -> PolicyDetailOut:
    now = timezone.now()
    row = one(selectors.policies(now), policy_id, "policy")
    choices = [show_choice(choice) for choice in selectors.choices_of(policy_id)]
    return PolicyDetailOut(**show_policy(row, now).model_dump(), choices=choices)


def _wish(choice: ChoiceIn) -> replication_policies.ChoiceWish:
    return replication_policies.ChoiceWish(
        kind=choice.kind,
        machine_id=choice.machine_id,
        desktop_id=choice.desktop_id,
        template_id=choice.template_id,
        pool_id=choice.pool_id,
        tag=choice.tag,
        disks=choice.disks,
    )


def _fields(wish: PolicyChange) -> replication_policies.PolicyFields:
    """What was named, as the service takes it."""
    named: dict[str, Any] = wish.model_dump(exclude={"choices"}, exclude_unset=True)
    for field in ("window_from", "window_to"):
        if named.get(field) is not None:
            named[field] = time.fromisoformat(named[field])
    return named  # type: ignore[return-value]


@router.get("", response=Page[PolicyOut])
def list_policies(request: HttpRequest, window: Query[Window]) -> Page[PolicyOut]:
    staff(request, Right.REVIEW)
    now = timezone.now()
    return page(selectors.policies(now), window, lambda row: show_policy(row, now))


@router.get("/{id}", response=PolicyDetailOut)
def get_policy(request: HttpRequest, id: UUID) -> PolicyDetailOut:
    staff(request, Right.REVIEW)
    return _policy(id)


@router.post("", response={201: PolicyDetailOut})
def create_policy(request: HttpRequest, wish: PolicyIn) -> PolicyDetailOut:
    """With `vault_id` and either `interval_s` or `cron`: by interval its machines are replicated at once, by cron at
    its time. With `engine` "platform" none of the three: what the platform replicates by itself is watched."""
    actor = staff(request, Right.OPERATE)
    choices = [_wish(choice) for choice in wish.choices]
    return _policy(replication_policies.create_policy(actor=actor, choices=choices, **_fields(wish)).pk)


@router.patch("/{id}", response=PolicyDetailOut)
def change_policy(request: HttpRequest, id: UUID, wish: PolicyChange) -> PolicyDetailOut:
    """Another vault begins with whole copies. `is_enabled` pauses it and lets it go on."""
    replication_policies.change_policy(actor=staff(request, Right.OPERATE), policy_id=id, **_fields(wish))
    return _policy(id)


@router.delete("/{id}", response={204: None})
def delete_policy(request: HttpRequest, id: UUID) -> None:
    """Its recovery points stay in their vault. 409 while one of its runs is at work."""
    replication_policies.delete_policy(actor=staff(request, Right.OPERATE), policy_id=id)


@router.post("/{id}/run", response={202: Page[RunOut]})
def run_policy(request: HttpRequest, id: UUID) -> Page[RunOut]:
    """The runs that were queued: one for each machine that is not being replicated already. 409 if there is none, and
    if the platform replicates."""
    made = replication_runs.run_now(actor=staff(request, Right.OPERATE), policy_id=id)
    rows = list(selectors.runs().filter(pk__in=[run.pk for run in made]))
    now = timezone.now()
    return Page(items=[show_run(run, now) for run in rows], total=len(rows))


@router.post("/{id}/choices", response={201: ChoiceOut})
def add_choice(request: HttpRequest, id: UUID, wish: ChoiceIn) -> ChoiceOut:
    """409 if it is chosen already."""
    made = replication_policies.add_choice(actor=staff(request, Right.OPERATE), policy_id=id, wish=_wish(wish))
    return show_choice(one(selectors.choices_of(id), made.pk, "choice"))


@router.delete("/{id}/choices/{choice}", response={204: None})
def remove_choice(request: HttpRequest, id: UUID, choice: UUID) -> None:
    """What only it came to is not replicated any more; its recovery points stay."""
    actor = staff(request, Right.OPERATE)
    one(selectors.choices_of(id), choice, "choice")
    replication_policies.remove_choice(actor=actor, choice_id=choice)


@router.get("/{id}/sources", response=Page[SourceOut])
def list_sources(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[SourceOut]:
    """The machines under the policy: those whose promise is broken first, those not chosen any more last, by name."""
    staff(request, Right.REVIEW)
    now = timezone.now()
    one(ReplicationPolicy.objects.filter(is_own=False), id, "policy")
    return page_as_ordered(selectors.sources(now).filter(policy=id), window, lambda row: show_source(row, now))


@router.post("/{id}/standbys/{standby}/anew", response={204: None})
def make_standby_anew(request: HttpRequest, id: UUID, standby: UUID) -> None:
    """Of one that is used: it is yours from now on, and a new one is made. 409 if it waits as it should."""
    actor = staff(request, Right.OPERATE)
    one(Standby.objects.filter(source__policy=id), standby, "standby")
    standbys.make_anew(actor=actor, standby_id=standby)


@router.get("/{id}/breaches", response=Page[BreachOut])
def list_breaches(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[BreachOut]:
    """When the promise was broken, for which machine and why; newest first."""
    staff(request, Right.REVIEW)
    now = timezone.now()
    one(ReplicationPolicy.objects.filter(is_own=False), id, "policy")
    return page_as_ordered(selectors.breaches_of(id), window, lambda row: show_breach(row, now))
