"""Template versions on their way to other hypervisors, and which members of pools lack one.

For administrators: doors check that first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import OuterRef, Q, QuerySet, Subquery

from broker.domain import publication as rules
from broker.domain import replication
from broker.domain.publication import Step
from broker.models import (
    Hypervisor,
    PoolMember,
    Publication,
    ReplicationRun,
    ReplicationSource,
    Storage,
    TemplateCopy,
    TemplateVersion,
    Vault,
)
from broker.selectors.replication import pace_of
from broker.selectors.reports import Entry, entries_of

STATES = Publication.State
LATELY = timedelta(days=7)
"""For so long a template's page tells what became of a publication."""
MANY = 100


# --- what is missing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lack:
    """A place that members of pools need, and at which the version does not lie."""

    hypervisor: Hypervisor
    storage: str
    """Platform id; empty: nobody knows where their clones go."""
    members: tuple[PoolMember, ...]

    @property
    def pools(self) -> list[str]:
        return sorted(member.pool.name for member in self.members)


def lacks(version: TemplateVersion) -> list[Lack]:
    """Where members of pools build from this template, and this version does not lie: by hypervisor. Two statements."""
    members = PoolMember.objects.filter(copy__version__template=version.template_id).select_related(
        "pool", "hypervisor", "copy__version"
    )
    there = set(TemplateCopy.objects.filter(version=version).values_list("hypervisor", "storage"))
    at = {hypervisor for hypervisor, _ in there}
    found: dict[tuple[UUID, str], list[PoolMember]] = {}
    for member in members.order_by("hypervisor__name", "pool__name"):
        storage = member.storage or member.copy.storage
        if not rules.may_follow(has=member.copy.version.number, new=version.number):
            continue
        if (member.hypervisor_id, storage) in there or (not storage and member.hypervisor_id in at):
            continue
        found.setdefault((member.hypervisor_id, storage), []).append(member)
    return [Lack(some[0].hypervisor, storage, tuple(some)) for (_, storage), some in found.items()]


@dataclass(frozen=True, slots=True)
class Behind:
    """A member that builds from an older version although this one lies on its hypervisor."""

    member: PoolMember
    copy: TemplateCopy


def behind(version: TemplateVersion) -> list[Behind]:
    """By pool and hypervisor. Two statements."""
    copies: dict[UUID, list[TemplateCopy]] = {}
    for copy in TemplateCopy.objects.filter(version=version).order_by("created_at", "pk"):
        copies.setdefault(copy.hypervisor_id, []).append(copy)
    members = PoolMember.objects.filter(
        copy__version__template=version.template_id, copy__version__number__lt=version.number, hypervisor__in=copies
    ).select_related("pool", "hypervisor", "copy__version")
    found = []
    for member in members.order_by("pool__name", "hypervisor__name"):
        there = copies[member.hypervisor_id]
        wanted = member.storage or member.copy.storage
        fitting = [copy for copy in there if copy.storage == wanted or not wanted]
        if fitting:
            found.append(Behind(member, fitting[0]))
    return found


def sources(version: TemplateVersion, kinds: Iterable[str]) -> list[TemplateCopy]:
    """Copies of it that can be read, of hypervisors of these kinds: those that are up first, then the oldest."""
    rows = TemplateCopy.objects.filter(version=version, hypervisor__kind__in=list(kinds))
    found = rows.select_related("hypervisor").defer("hypervisor__secrets").order_by("created_at", "pk")
    return sorted(found, key=lambda copy: copy.hypervisor.status != Hypervisor.Status.UP)


def vaults_for(version: TemplateVersion) -> list[Vault]:
    """All, the likeliest first: where a copy of it is read into already, then those that are up, by name."""
    ids = TemplateCopy.objects.filter(version=version).values_list("platform_id", flat=True)
    read = set(ReplicationSource.objects.filter(platform_id__in=list(ids)).values_list("policy__vault", flat=True))
    rows = Vault.objects.defer("secrets").order_by("name")
    return sorted(rows, key=lambda one: (one.pk not in read, one.status != Vault.Status.UP))


# --- how far they are -------------------------------------------------------------------------------------------------


def publications() -> QuerySet[Publication]:
    """Every one, newest first, with what pages show of it; `storage_name` is None if it is not listed any more."""
    named = Storage.objects.filter(hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("storage"))
    rows = Publication.objects.annotate(storage_name=Subquery(named.values("name")[:1]))
    return rows.select_related(
        "version__template", "hypervisor", "vault", "source__hypervisor", "pool", "copying", "landing", "requested_by"
    ).defer(
        "hypervisor__secrets", "vault__secrets", "source__hypervisor__secrets"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublicationFilter:
    """What an administrator looks for; empty fields do not narrow."""

    template: UUID | None = None
    version: UUID | None = None
    group: UUID | None = None
    state: str = ""

    def apply(self, found: QuerySet[Publication]) -> QuerySet[Publication]:
        if self.template:
            found = found.filter(version__template=self.template)
        if self.version:
            found = found.filter(version=self.version)
        if self.group:
            found = found.filter(group=self.group)
        return found.filter(state=self.state) if self.state else found


@dataclass(frozen=True, slots=True)
class Progress:
    """A publication with what can be told of it now."""

    publication: Publication
    run: ReplicationRun | None
    """That carries bytes for it right now."""
    pace: replication.Pace | None

    @property
    def step(self) -> str:
        return rules.WORDS[Step(self.publication.step)]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """The way with where it stands: done, now, later; of one that did not go well, how it ended."""
        row = self.publication
        way: list[Step] = [step for step in rules.WAY if step != Step.OVER]
        if row.state == STATES.DONE:
            return [(rules.SHORT[step], "done") for step in way]
        if row.state == STATES.RUNNING:
            here = way.index(Step(row.step))
            return [
                (rules.SHORT[one], "done" if i < here else "now" if i == here else "later") for i, one in enumerate(way)
            ]
        reached = [step for step in way if any(line["step"] == step and line["is_good"] for line in row.report)]
        return [*((rules.SHORT[step], "done") for step in reached), (row.get_state_display(), "failed")]

    @property
    def entries(self) -> list[Entry]:
        """The report, in order."""
        return entries_of(self.publication.report, rules.WORDS)

    @property
    def can_cancel(self) -> bool:
        row = self.publication
        return row.state == STATES.RUNNING and not row.is_to_end and Step(row.step) in rules.MAY_BE_CANCELLED


def progress_of(row: Publication, now: datetime) -> Progress:
    """Of a row of `publications`. No statement."""
    run = {Step.COPYING: row.copying, Step.LANDING: row.landing}.get(Step(row.step))
    is_at_work = row.state == STATES.RUNNING and run is not None and run.state == ReplicationRun.State.RUNNING
    shown = run if is_at_work else None
    return Progress(row, shown, pace_of(shown, now) if shown is not None else None)


def of_template(template_id: UUID, now: datetime) -> dict[UUID, list[Progress]]:
    """Version -> what is being published of it, and what was lately, newest first; one statement. Of each place only
    the last attempt."""
    lately = Q(state=STATES.RUNNING) | Q(finished_at__gt=now - LATELY)
    found: dict[UUID, list[Progress]] = {}
    told: set[tuple[UUID, UUID, str]] = set()
    for row in publications().filter(lately, version__template=template_id)[:MANY]:
        place = (row.version_id, row.hypervisor_id, row.storage)
        if place not in told:
            told.add(place)
            found.setdefault(row.version_id, []).append(progress_of(row, now))
    return found
