"""Vaults, policies, their machines, runs and recovery points. For administrators: doors check that first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import (
    Case,
    Count,
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Greatest

from broker.domain import promises
from broker.domain import replication as rules
from broker.domain.labels import Label, mirror_label, policy_label, promise_label, watched_label
from broker.domain.lifecycle import LIVE
from broker.models import (
    Assignment,
    Desktop,
    Event,
    Hypervisor,
    Machine,
    MachineTag,
    Pool,
    PoolMember,
    RecoveryPoint,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    RpoBreach,
    Standby,
    Storage,
    Template,
    TemplateCopy,
    Vault,
)
from broker.selectors.hypervisors import not_a_desktop

UNFINISHED = (ReplicationRun.State.QUEUED, ReplicationRun.State.RUNNING)
LOST = (Vault.Status.DOWN, Vault.Status.REFUSED)
VIOLATIONS_OVER = timedelta(days=30)
EVENTS_OVER = timedelta(days=7)
EVENTS_SHOWN = 20
EVENT_KINDS = (
    "rpo.broken", "rpo.kept", "vault.lost", "vault.back", "point.damaged", "failover.done", "failover.failed",
    "failover.cancelled", "publication.done", "publication.failed", "publication.cancelled", "standby.used",
)  # fmt: skip
ALARMS_NAMED = 5
TAGS_AT_MOST = 1000


# --- vaults -----------------------------------------------------------------------------------------------------------


def vaults() -> QuerySet[Vault]:
    """Every one, by name, with `point_count`, `newest_at` and `policy_count`; secrets are not even read."""
    points = RecoveryPoint.objects.filter(vault=OuterRef("pk")).order_by().values("vault")
    policies = ReplicationPolicy.objects.filter(vault=OuterRef("pk"), is_own=False).order_by().values("vault")
    return Vault.objects.defer("secrets").annotate(
        point_count=Coalesce(Subquery(points.annotate(n=Count("pk")).values("n")), 0),
        newest_at=Subquery(points.annotate(newest=Max("taken_at")).values("newest")),
        policy_count=Coalesce(Subquery(policies.annotate(n=Count("pk")).values("n")), 0),
    )


# --- policies ---------------------------------------------------------------------------------------------------------


def policies(now: datetime) -> QuerySet[ReplicationPolicy]:
    """People's, by name, with its vault and what `standing_of` needs: one statement for any number of machines."""
    chosen = Q(sources__is_chosen=True)
    runs = ReplicationRun.objects.filter(source__policy=OuterRef("pk"), state__in=UNFINISHED).order_by()
    return (
        ReplicationPolicy.objects.filter(is_own=False)
        .select_related("vault")
        .defer("vault__secrets")
        .annotate(
            machines=Count("sources", filter=chosen),
            broken=Count("sources", filter=chosen & Q(sources__breaks_at__lte=now)),
            without_point=Count("sources", filter=chosen & Q(sources__newest_at=None)),
            newest_at=Max("sources__newest_at", filter=chosen),
            oldest_at=Min("sources__newest_at", filter=chosen),
            slowest_s=Max("sources__took_s", filter=chosen),
            next_run_at=Min("sources__next_run_at", filter=chosen),
            at_work=Coalesce(Subquery(runs.values("source__policy").annotate(n=Count("pk")).values("n")), 0),
        )
        # Rows that are counted for have no order of their own.
        .order_by("name")
    )


def is_watched(policy: ReplicationPolicy) -> bool:
    return policy.engine == ReplicationPolicy.Engine.PLATFORM


@dataclass(frozen=True, slots=True)
class PolicyStanding:
    """A policy with how its machines stand."""

    policy: ReplicationPolicy
    machines: int
    broken: int
    without_point: int
    newest_at: datetime | None
    oldest_at: datetime | None
    """Of its machines' newest points the oldest: the worst that its promise is measured by."""
    oldest_age_s: float | None
    next_run_at: datetime | None
    is_due: bool
    at_work: int
    """Runs that are not finished."""
    warning: str
    """Why the promise breaks even while all goes well; empty if it does not."""

    @property
    def kept(self) -> int:
        return self.machines - self.broken

    @property
    def label(self) -> Label:
        return policy_label(
            is_enabled=self.policy.is_enabled, machines=self.machines, broken=self.broken,
            without_point=self.without_point, is_watched=self.is_watched,
        )  # fmt: skip

    @property
    def is_watched(self) -> bool:
        """The platform replicates, and we do not."""
        return is_watched(self.policy)

    @property
    def rhythm(self) -> str:
        """Empty if the platform replicates when it likes."""
        if self.is_watched:
            return ""
        return promises.rhythm_in_words(self.policy.interval_s, self.policy.cron, self.policy.zone)

    @property
    def retention(self) -> str:
        return promises.retention_in_words({name: getattr(self.policy, name) for name in promises.KEPT})

    @property
    def limit(self) -> str:
        policy = self.policy
        return promises.limit_in_words(policy.bytes_a_second, policy.window_from, policy.window_to, policy.zone)


def standing_of(policy: Any, now: datetime) -> PolicyStanding:
    """Of a row of `policies`. No statement."""
    return PolicyStanding(
        policy=policy,
        machines=policy.machines,
        broken=policy.broken,
        without_point=policy.without_point,
        newest_at=policy.newest_at,
        oldest_at=policy.oldest_at,
        oldest_age_s=(now - policy.oldest_at).total_seconds() if policy.oldest_at else None,
        next_run_at=policy.next_run_at,
        is_due=policy.next_run_at is not None and policy.next_run_at <= now,
        at_work=policy.at_work,
        warning=promises.why_not_kept(
            rpo_s=policy.rpo_s, interval_s=policy.interval_s, took_s=policy.slowest_s
        ),
    )  # fmt: skip


def choices_of(policy_id: UUID) -> QuerySet[ReplicationChoice]:
    """With what each names, and of machines in `machine_name` what they are called (None: listed no more)."""
    machine = Machine.objects.filter(hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("platform_id"))
    return (
        ReplicationChoice.objects.filter(policy=policy_id)
        .select_related("hypervisor", "desktop", "template", "pool")
        .defer("hypervisor__secrets")
        .annotate(machine_name=Subquery(machine.values("name")[:1]))
    )


def name_of(choice: Any) -> str:
    """What a row of `choices_of` is called."""
    named = choice.desktop or choice.template or choice.pool or choice.tag
    return str(named) if named else choice.machine_name or choice.platform_id


# --- machines under a policy ------------------------------------------------------------------------------------------


def sources(now: datetime) -> QuerySet[ReplicationSource]:
    """Every one with its policy and hypervisor: those whose promise is broken first, those that are not chosen any more
    last, by name. With its last run (`last_run`, `last_run_state`, `last_run_at`) and how long its promise was broken
    in the last 30 days (`broken_for`); `waiting`: its standby, if there is one."""
    month_ago = Value(now - VIOLATIONS_OVER, output_field=DateTimeField())
    breaches = RpoBreach.objects.filter(source=OuterRef("pk")).exclude(until__lte=now - VIOLATIONS_OVER).order_by()
    ended = Coalesce("until", Value(now, output_field=DateTimeField()))
    lasted = ExpressionWrapper(ended - Greatest("since", month_ago), output_field=DurationField())
    runs = ReplicationRun.objects.filter(source=OuterRef("pk"), kind=ReplicationRun.Kind.REPLICATE)
    newest = runs.order_by("-created_at")
    return (
        ReplicationSource.objects.select_related("policy", "hypervisor")
        .defer("bookmark", "hypervisor__secrets")
        .prefetch_related(
            Prefetch(
                "standbys",
                Standby.objects.filter(is_leaving=False)
                .select_related("hypervisor", "point")
                .defer("hypervisor__secrets", "point__configuration"),
                to_attr="waiting",
            )
        )
        .annotate(
            broken_for=Subquery(breaches.values("source").annotate(total=Sum(lasted)).values("total")),
            last_run=Subquery(newest.values("pk")[:1]),
            last_run_state=Subquery(newest.values("state")[:1]),
            last_run_at=Subquery(newest.values("created_at")[:1]),
            rank=Case(When(is_chosen=False, then=2), When(breaks_at__lte=now, then=0), default=1),
        )
        .order_by("rank", "name", "pk")
    )


def sources_with_desktops(now: datetime) -> QuerySet[ReplicationSource]:
    """As `sources`, each with the live desktop that the machine is (`desktop_id`), or None."""
    live = Desktop.objects.filter(state__in=LIVE, hypervisor=OuterRef("hypervisor"), machine_id=OuterRef("platform_id"))
    return sources(now).annotate(desktop_id=Subquery(live.values("pk")[:1]))


@dataclass(frozen=True, slots=True)
class MirrorShown:
    """A replica that the platform keeps of a machine, as it told last."""

    to: str
    state: str
    newest_at: datetime | None
    interval_s: int | None
    fault: str
    can_fail_over: bool

    @property
    def label(self) -> Label:
        return mirror_label(self.state)


def _mirror(told: Mapping[str, Any]) -> MirrorShown:
    newest_at = told["newest_at"]
    return MirrorShown(
        to=told["to"], state=told["state"], interval_s=told["interval_s"], fault=told["fault"],
        newest_at=datetime.fromisoformat(newest_at) if newest_at else None, can_fail_over=told["can_fail_over"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """A machine under a policy, against what is promised of it."""

    source: ReplicationSource
    lag: rules.Lag
    broken_minutes: int
    """Of the last 30 days."""

    @property
    def is_kept(self) -> bool:
        return self.lag.is_kept

    @property
    def age_s(self) -> float | None:
        return self.lag.age.total_seconds() if self.lag.age is not None else None

    @property
    def standby(self) -> Standby | None:
        waiting: list[Standby] = getattr(self.source, "waiting", [])
        return waiting[0] if waiting else None

    @property
    def smallest_rpo_s(self) -> float | None:
        return promises.smallest_rpo_s(self.source.took_s)

    @property
    def mirrors(self) -> list[MirrorShown]:
        """What the platform keeps of it elsewhere; empty too while it has not been asked."""
        return [_mirror(told) for told in self.source.mirrors or ()]

    @property
    def label(self) -> Label:
        source = self.source
        if is_watched(source.policy):
            return watched_label(
                is_chosen=source.is_chosen, is_enabled=source.policy.is_enabled, is_kept=self.is_kept,
                is_replicated=source.mirrors != [], has_replica=source.newest_at is not None,
            )  # fmt: skip
        return promise_label(
            is_chosen=source.is_chosen, is_enabled=source.policy.is_enabled, has_point=source.newest_at is not None,
            is_kept=self.is_kept,
        )  # fmt: skip


def source_standing(source: ReplicationSource, now: datetime) -> SourceStanding:
    """Of a row of `sources`. No statement. What is not promised anything is not broken."""
    promised = source.breaks_at is not None
    lag = rules.lag(
        newest_at=source.newest_at, began_at=source.created_at, rpo=timedelta(seconds=source.policy.rpo_s), now=now
    )
    since = source.breaks_at if promised and source.breaks_at is not None and source.breaks_at <= now else None
    broken_for: timedelta | None = getattr(source, "broken_for", None)
    minutes = int(broken_for.total_seconds() // 60) if broken_for else 0
    return SourceStanding(source, rules.Lag(lag.age, since), minutes)


def replicated(hypervisor_id: UUID, platform_id: str) -> list[ReplicationSource]:
    """By which policies one machine is replicated."""
    rows = ReplicationSource.objects.filter(hypervisor=hypervisor_id, platform_id=platform_id, is_chosen=True)
    return list(rows.select_related("policy").defer("bookmark").order_by("policy__name"))


def breaches_of(policy_id: UUID) -> QuerySet[RpoBreach]:
    """The ledger of a policy's promise, newest first."""
    rows = RpoBreach.objects.filter(source__policy=policy_id).select_related("source")
    return rows.defer("source__bookmark").order_by("-since", "-pk")


# --- runs -------------------------------------------------------------------------------------------------------------


def runs() -> QuerySet[ReplicationRun]:
    """Every one, newest first, with what lists show."""
    return ReplicationRun.objects.select_related(
        "source__policy", "vault", "hypervisor", "point", "requested_by"
    ).defer("source__bookmark", "vault__secrets", "hypervisor__secrets", "point__configuration")  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What an administrator looks for; empty fields do not narrow."""

    state: str = ""
    """A state, or "unfinished"."""
    kind: str = ""
    policy: UUID | None = None
    source: UUID | None = None
    text: str = ""
    """Part of the machine's name."""

    def apply(self, found: QuerySet[ReplicationRun]) -> QuerySet[ReplicationRun]:
        if self.state == "unfinished":
            found = found.filter(state__in=UNFINISHED)
        elif self.state:
            found = found.filter(state=self.state)
        if self.kind:
            found = found.filter(kind=self.kind)
        if self.policy:
            found = found.filter(source__policy=self.policy)
        if self.source:
            found = found.filter(source=self.source)
        return found.filter(subject__icontains=self.text) if self.text else found


def running() -> QuerySet[ReplicationRun]:
    """What movers carry now, the oldest first."""
    return runs().filter(state=ReplicationRun.State.RUNNING).order_by("started_at", "pk")


def unfinished_count() -> int:
    return ReplicationRun.objects.filter(state__in=UNFINISHED).count()


def pace_of(run: ReplicationRun, now: datetime) -> rules.Pace:
    """How fast it goes. An attempt after a pause counts from the end of that pause."""
    began = [moment for moment in (run.started_at, run.not_before) if moment is not None and moment <= now]
    return rules.pace(
        total=run.total_bytes, done=run.done_bytes, read=run.read_bytes, since=max(began, default=None),
        now=run.finished_at or now,
    )  # fmt: skip


# --- recovery points --------------------------------------------------------------------------------------------------


def points() -> QuerySet[RecoveryPoint]:
    """Every one, newest first, with its vault and what it is a point of."""
    return RecoveryPoint.objects.select_related("vault", "source__policy").defer(
        "vault__secrets", "source__bookmark"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PointFilter:
    """What an administrator looks for; empty fields do not narrow."""

    source: UUID | None = None
    vault: UUID | None = None
    state: str = ""
    text: str = ""
    """Part of the machine's name."""

    def apply(self, found: QuerySet[RecoveryPoint]) -> QuerySet[RecoveryPoint]:
        if self.source:
            found = found.filter(source=self.source)
        if self.vault:
            found = found.filter(vault=self.vault)
        if self.state:
            found = found.filter(state=self.state)
        return found.filter(machine_name__icontains=self.text) if self.text else found


def still_runs(point: RecoveryPoint) -> bool:
    """Whether the machine that it was taken of is listed and switched on: another one must not meet it."""
    source = point.source
    if source is None:
        return False
    seen = Machine.objects.filter(hypervisor=source.hypervisor_id, platform_id=source.platform_id, absences=0)
    return seen.filter(power="on").exists()


# --- what is wrong, and what happened ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alarms:
    """What a person must look at."""

    vaults: Sequence[Vault]
    """That cannot be used, with why."""
    broken: Sequence[ReplicationSource]
    """Whose promise is broken, the longest first; at most a handful."""
    broken_count: int
    damaged_count: int
    """Recovery points that cannot be read back."""
    lifeless: Sequence[ReplicationSource]
    """Whose point was started and gave no sign of life; at most a handful."""
    lifeless_count: int

    def __bool__(self) -> bool:
        return bool(self.vaults or self.broken_count or self.damaged_count or self.lifeless_count)


def alarms(now: datetime) -> Alarms:
    """One statement while all is well (two without a vault), one more for broken promises and one for points without
    life, whatever the number of machines. Those that platforms replicate are counted beside the vaults'."""
    broken = ReplicationSource.objects.filter(is_chosen=True, breaks_at__lte=now)
    damaged = RecoveryPoint.objects.filter(vault=OuterRef("pk"), state=RecoveryPoint.State.BROKEN)
    late, watched = broken.filter(policy__vault=OuterRef("pk")), broken.filter(policy__vault=None)
    lifeless = ReplicationSource.objects.filter(is_chosen=True).exclude(trial_fault="")
    vaults = list(
        Vault.objects.defer("secrets").annotate(
            damaged=_number(damaged.values("vault")),
            broken=_number(late.values("policy__vault")),
            watched=_number(watched.values("policy__vault")),
            lifeless=_number(lifeless.filter(policy__vault=OuterRef("pk")).values("policy__vault")),
        )
    )
    count = sum(vault.broken for vault in vaults) + (vaults[0].watched if vaults else watched.count())
    lifeless_count = sum(vault.lifeless for vault in vaults)
    named = broken.select_related("policy", "hypervisor").defer("bookmark", "hypervisor__secrets")
    without_life = lifeless.select_related("policy").defer("bookmark").order_by("tried_at", "pk")
    return Alarms(
        vaults=[vault for vault in vaults if vault.status in LOST],
        broken=list(named.order_by("breaks_at", "pk")[:ALARMS_NAMED]) if count else [],
        broken_count=count,
        damaged_count=sum(vault.damaged for vault in vaults),
        lifeless=list(without_life[:ALARMS_NAMED]) if lifeless_count else [],
        lifeless_count=lifeless_count,
    )


def _number(grouped: QuerySet[Any, Any]) -> Coalesce:
    """How many rows there are of an outer row, to which they are grouped."""
    return Coalesce(Subquery(grouped.order_by().annotate(number=Count("pk")).values("number")), 0)


def events(now: datetime) -> list[Event]:
    """What happened to promises, vaults and points in the last week, newest first."""
    lately = Event.objects.filter(at__gte=now - EVENTS_OVER, kind__in=EVENT_KINDS)
    return list(lately.order_by("-id")[:EVENTS_SHOWN])


# --- what may be chosen -----------------------------------------------------------------------------------------------


def hypervisors_of(kinds: Collection[str]) -> QuerySet[Hypervisor]:
    """Registered ones of these kinds, by name; secrets are not even read."""
    return Hypervisor.objects.defer("secrets").filter(kind__in=kinds).order_by("name")


def targets(kinds: Collection[str]) -> QuerySet[Storage]:
    """Storages of hypervisors of these kinds that are up, by hypervisor and name."""
    rows = Storage.objects.filter(hypervisor__kind__in=kinds, is_up=True).select_related("hypervisor")
    return rows.defer("hypervisor__secrets").order_by("hypervisor__name", "name", "pk")


def target_of(policy: ReplicationPolicy) -> Storage | None:
    """Where its machines are brought up."""
    rows = Storage.objects.filter(hypervisor=policy.target_id, platform_id=policy.target_storage)
    return rows.select_related("hypervisor").defer("hypervisor__secrets").first() if policy.target_id else None


def kinds_registered() -> list[str]:
    return sorted(Hypervisor.objects.order_by().values_list("kind", flat=True).distinct())


def machines_to_choose(policy_id: UUID, kinds: Collection[str], text: str = "") -> QuerySet[Machine]:
    """Machines on hypervisors of these kinds that are neither a desktop nor a template; `is_taken`: chosen already."""
    taken = ReplicationChoice.objects.filter(
        policy=policy_id, hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("platform_id")
    )
    rows = Machine.objects.filter(*not_a_desktop(), hypervisor__kind__in=kinds, is_template=False, absences=0)
    rows = rows.select_related("hypervisor").defer("hypervisor__secrets").annotate(is_taken=Exists(taken))
    return (rows.filter(name__icontains=text) if text else rows).order_by("name", "pk")


def not_taken(policy_id: UUID, machines: Collection[UUID]) -> list[UUID]:
    """Those of the machines that the policy has not yet."""
    taken = ReplicationChoice.objects.filter(
        policy=policy_id, hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("platform_id")
    )
    return list(Machine.objects.filter(~Exists(taken), pk__in=machines).values_list("pk", flat=True))


@dataclass(frozen=True, slots=True)
class TagToChoose:
    """A tag with how many machines bear it."""

    name: str
    machines: int
    is_taken: bool

    @property
    def pk(self) -> str:
        return self.name


def tags_to_choose(policy_id: UUID, text: str = "") -> list[TagToChoose]:
    """By name; at most a thousand."""
    rows = MachineTag.objects.filter(tag__icontains=text) if text else MachineTag.objects.all()
    counted = rows.order_by("tag").values("tag").annotate(n=Count("pk"))[:TAGS_AT_MOST]
    taken = set(ReplicationChoice.objects.filter(policy=policy_id, kind="tag").values_list("tag", flat=True))
    return [TagToChoose(row["tag"], row["n"], row["tag"] in taken) for row in counted]


def desktops_to_choose(policy_id: UUID, kinds: Collection[str], text: str = "") -> QuerySet[Desktop]:
    """Desktops of dedicated pools that have a machine there, with `owner`; found by name or owner."""
    held = Assignment.objects.filter(desktop=OuterRef("pk"), until=None)
    rows = (
        Desktop.objects.filter(pool__kind=Pool.Kind.DEDICATED, hypervisor__kind__in=kinds, state__in=LIVE)
        .exclude(machine_id="")
        .select_related("pool", "hypervisor")
        .defer("hypervisor__secrets")
        .annotate(
            owner=Subquery(held.values("user__username")[:1]),
            is_taken=Exists(ReplicationChoice.objects.filter(policy=policy_id, desktop=OuterRef("pk"))),
        )
    )
    if text:
        rows = rows.filter(Q(name__icontains=text) | Exists(held.filter(user__username__icontains=text)))
    return rows.order_by("name", "pk")


def templates_to_choose(policy_id: UUID, kinds: Collection[str], text: str = "") -> QuerySet[Template]:
    """Templates with a copy there."""
    copies = TemplateCopy.objects.filter(version__template=OuterRef("pk"), hypervisor__kind__in=kinds)
    taken = ReplicationChoice.objects.filter(policy=policy_id, template=OuterRef("pk"))
    rows = Template.objects.filter(Exists(copies)).annotate(is_taken=Exists(taken))
    return (rows.filter(name__icontains=text) if text else rows).order_by("name", "pk")


def pools_to_choose(policy_id: UUID, kinds: Collection[str], text: str = "") -> QuerySet[Pool]:
    """Pools of dedicated desktops that build there; `assigned`: how many have a user now."""
    held = Assignment.objects.filter(pool=OuterRef("pk"), until=None).order_by().values("pool")
    rows = (
        Pool.objects.filter(kind=Pool.Kind.DEDICATED)
        .filter(Exists(PoolMember.objects.filter(pool=OuterRef("pk"), hypervisor__kind__in=kinds)))
        .annotate(
            assigned=Coalesce(Subquery(held.annotate(n=Count("pk")).values("n")), 0),
            is_taken=Exists(ReplicationChoice.objects.filter(policy=policy_id, pool=OuterRef("pk"))),
        )
    )
    return (rows.filter(name__icontains=text) if text else rows).order_by("name", "pk")
