"""Pushes of template versions: what may be pushed to a pool, and how far one is. For administrators: doors check that
first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, QuerySet
from django.utils.dateparse import parse_datetime

from broker.domain import pushes as rules
from broker.domain.labels import Label
from broker.domain.lifecycle import COMING, State
from broker.domain.pushes import Tally
from broker.models import Assignment, Desktop, Hypervisor, Pool, PoolMember, Push, TemplateCopy, TemplateVersion

OFFERED = 50
"""Versions of one pool's templates that may be chosen, the newest first."""


# --- what may be pushed -----------------------------------------------------------------------------------------------


def concerned(pool: Pool, version: TemplateVersion) -> list[PoolMember]:
    """Members that build from the version's template, by hypervisor: those that a push changes. A pool may hold
    others, which build another system."""
    members = PoolMember.objects.filter(pool=pool, copy__version__template=version.template_id)
    return list(members.select_related("pool", "hypervisor", "copy__version__template").order_by("hypervisor__name"))


def copy_for(member: PoolMember, copies: Iterable[TemplateCopy]) -> TemplateCopy | None:
    """Which of a version's copies the member would build from: that on the storage it uses. Another one on its
    hypervisor serves where nobody has chosen a storage for its clones."""
    there = [copy for copy in copies if copy.hypervisor_id == member.hypervisor_id]
    wanted = member.storage or member.copy.storage
    fitting = [copy for copy in there if copy.storage == wanted or not wanted]
    return next(iter(fitting or (there if not member.storage else [])), None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A version, and where it would have to be published first."""

    version: TemplateVersion
    lacking: tuple[Hypervisor, ...]
    """Hypervisors of enabled members at which no copy of it serves."""
    is_present: bool
    """Members build from it already."""


def choices(pool: Pool) -> list[Choice]:
    """Versions of the templates that the pool's members build from, newest first. Three statements."""
    members = list(PoolMember.objects.filter(pool=pool).select_related("hypervisor", "copy__version"))
    templates = {member.copy.version.template_id for member in members}
    versions = TemplateVersion.objects.filter(template__in=templates).select_related("template")
    found = list(versions.prefetch_related("copies").order_by("template__name", "-number")[:OFFERED])
    return [_choice(version, members) for version in found]


def _choice(version: TemplateVersion, members: Sequence[PoolMember]) -> Choice:
    copies = list(version.copies.all())
    mine = [m for m in members if m.is_enabled and m.copy.version.template_id == version.template_id]
    lacking = tuple(member.hypervisor for member in mine if copy_for(member, copies) is None)
    return Choice(version, lacking, all(member.copy.version_id == version.pk for member in mine))


# --- how far one is ---------------------------------------------------------------------------------------------------


def behind(pool_id: UUID, version: TemplateVersion) -> QuerySet[Desktop]:
    """Live desktops of the pool that hang from another version of the same template, or of what members of that
    template have there."""
    mine = Desktop.objects.filter(pool=pool_id, member__copy__version__template=version.template_id)
    return mine.exclude(state__in=[State.GONE, State.RETIRING]).exclude(copy__version=version)


def tallies(pool_id: UUID, versions: Iterable[TemplateVersion]) -> dict[UUID, Tally]:
    """Version -> where the pool's desktops stand; one statement."""
    has_user = Exists(Assignment.objects.filter(desktop=OuterRef("pk"), until=None))
    rows = Desktop.objects.filter(pool=pool_id, member__isnull=False).annotate(has_user=has_user).order_by()
    rows = rows.exclude(state__in=[State.GONE, State.RETIRING])
    grouped = rows.values_list(
        "member__copy__version__template", "copy__version", "state", "is_in_maintenance", "has_user"
    )
    counted = list(grouped.annotate(number=Count("pk")))
    return {version.pk: _tally(version, counted) for version in versions}


def tally(pool_id: UUID, version: TemplateVersion) -> Tally:
    """The same for one."""
    return tallies(pool_id, [version])[version.pk]


def _tally(version: TemplateVersion, counted: Sequence[tuple[UUID, UUID, str, bool, bool, int]]) -> Tally:
    sums = dict.fromkeys(("there", "free", "in_use", "on_way", "failed", "aside"), 0)
    for template, of, state, is_in_maintenance, is_somebodys, number in counted:
        if template == version.template_id:
            sums[_place(State(state), of == version.pk, is_in_maintenance, is_somebodys)] += number
    return Tally(**sums)


def _place(state: State, is_there: bool, is_in_maintenance: bool, is_somebodys: bool) -> str:
    if state in COMING:
        return "on_way"
    if state == State.FAILED:
        return "failed"
    if state == State.MISSING or (is_in_maintenance and not is_there):
        return "aside"
    if is_there:
        return "there"
    return "in_use" if is_somebodys else "free"


@dataclass(frozen=True, slots=True)
class Failure:
    desktop: UUID
    name: str
    at: datetime
    words: str


def failures_of(push: Push) -> list[Failure]:
    """Newest first."""
    found = []
    for one in push.failures:
        at = parse_datetime(one["at"])
        if at is not None:
            found.append(Failure(UUID(one["desktop"]), one["name"], at, one["words"]))
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Standing:
    """A push with what can be told of it now."""

    push: Push
    tally: Tally

    @property
    def label(self) -> Label:
        return rules.LABELS[rules.State(self.push.state)]

    @property
    def failures(self) -> list[Failure]:
        return failures_of(self.push)

    @property
    def can_cancel(self) -> bool:
        return self.push.state in rules.OPEN

    @property
    def can_roll_back(self) -> bool:
        return self.push.started_at is not None and self.push.before_id is not None

    @property
    def waits(self) -> int:
        """Desktops that nothing will be done to before their users have left."""
        return self.tally.in_use if self.push.state == Push.State.RUNNING else 0


def pushes() -> QuerySet[Push]:
    """Every one, newest first."""
    return Push.objects.select_related("pool", "version__template", "before__template", "requested_by")


def standings_of(rows: Sequence[Push]) -> list[Standing]:
    """Of rows of `pushes`, all of one pool; one statement."""
    if not rows:
        return []
    found = tallies(rows[0].pool_id, [row.version for row in rows])
    return [Standing(row, found[row.version_id]) for row in rows]


def standing_of(push: Push) -> Standing:
    """Of one; one statement."""
    return standings_of([push])[0]


SHOWN = 2


def of_pool(pool: Pool) -> list[Standing]:
    """What a pool's page shows: what is open, or else the last one. At most two statements."""
    rows = list(pushes().filter(pool=pool)[:SHOWN])
    is_open = [row for row in rows if row.state in rules.OPEN]
    return standings_of(is_open or rows[:1])
