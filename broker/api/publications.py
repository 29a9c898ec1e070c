"""Publications: template versions brought to the storages that pools' members need. Operators and auditors only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Publication, TemplateVersion
from broker.selectors import publications as selectors
from broker.selectors import templates
from broker.services import publications as services
from broker.services.errors import Missing

router = Router(tags=["templates"])
of_templates = Router(tags=["templates"])

TARGETS_AT_MOST = 100


class PublicationEntryOut(Out):
    """A line of the report."""

    at: datetime
    step: str
    """In words."""
    words: str
    """What was done or seen."""
    is_good: bool


class PublicationOut(Out):
    id: UUID
    template: UUID
    version: UUID
    group: UUID
    """Those that were asked for together."""
    state: str
    """running, done, failed, cancelled"""
    is_to_end: bool
    """Somebody has cancelled it."""
    step: str
    """copying, landing, listing, over"""
    step_in_words: str
    step_since: datetime
    percent: int | None
    """Of the bytes that the step carries; null: it carries none right now, or nothing is known yet."""
    source: UUID | None
    """The copy that is read; null: it was unlinked since."""
    vault: UUID | None
    """Through which it goes. Null: it was removed since."""
    vault_name: str
    """What a vault was called that was removed since; else empty."""
    hypervisor: UUID
    """Where to."""
    storage: str
    """Platform id."""
    name: str
    """Of the template there."""
    machine_id: str
    """Its id there; empty until it stands."""
    copy_id: UUID | None
    """The copy that came of it."""
    pool: UUID | None
    """That builds there too once the copy is entered."""
    run: UUID | None
    """That the step waits for, or that was the last one."""
    report: list[PublicationEntryOut]
    """What was done and seen, in order."""
    error: str
    """What failed, on what, what to do."""
    requested_by: str | None
    created_at: datetime
    finished_at: datetime | None


class PublishedOut(Out):
    publications: list[PublicationOut]
    """Empty: it lay wherever it was needed, and members took it."""


class LackOut(Out):
    hypervisor: UUID
    storage: str
    """Platform id; empty: nobody knows where the members' clones go."""
    pools: list[UUID]
    """Whose members build there from an older version, or from a copy on another storage."""


class LacksOut(Out):
    version: UUID
    items: list[LackOut]


class PublishTargetIn(In):
    hypervisor_id: UUID
    """One whose `can_land` is true."""
    storage_id: UUID
    """Of `GET /hypervisors/{id}/storages`."""
    pool_id: UUID | None = None
    """A pool that shall build there from now on, if it has no member there yet."""


class PublishIn(In):
    vault_id: UUID
    """Its bytes go through it."""
    version_id: UUID | None = None
    """Null: the newest."""
    targets: Annotated[list[PublishTargetIn], Field(min_length=1, max_length=TARGETS_AT_MOST)] | None = None
    """Null: every place at which members of pools lack it. Members of the template's pools there take the copy."""
    source_id: UUID | None = None
    """The copy that is read; null: the oldest that can be."""
    name: str = ""
    """Of the template there; empty: after the template and its version."""
    gives_present: bool = False
    """Members that build from an older version where this one lies already take it too; so too without targets."""


class PublicationFilter(Window):
    template: UUID | None = None
    version: UUID | None = None
    group: UUID | None = None
    state: Literal["running", "done", "failed", "cancelled"] | None = None


def show_publication(row: Publication, now: datetime) -> PublicationOut:
    """A row of `selectors.publications`."""
    progress = selectors.progress_of(row, now)
    return PublicationOut(
        id=row.pk,
        template=row.version.template_id,
        version=row.version_id,
        group=row.group,
        state=row.state,
        is_to_end=row.is_to_end,
        step=row.step,
        step_in_words=progress.step,
        step_since=row.step_since,
        percent=progress.pace.percent if progress.pace else None,
        source=row.source_id,
        vault=row.vault_id,
        vault_name=row.vault_name,
        hypervisor=row.hypervisor_id,
        storage=row.storage,
        name=row.name,
        machine_id=row.machine_id,
        copy_id=row.copy_id,
        pool=row.pool_id,
        run=row.landing_id or row.copying_id,
        report=[
            PublicationEntryOut(at=line.at, step=line.step, words=line.words, is_good=line.is_good)
            for line in progress.entries
        ],
        error=row.error,
        requested_by=row.requested_by.get_username() if row.requested_by else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _version(template_id: UUID, version_id: UUID | None) -> TemplateVersion:
    template = one(templates.templates(), template_id, "template")
    for version in template.versions.all():
        if version_id is None or version.pk == version_id:
            found: TemplateVersion = version
            return found
    raise Missing("This template has no such version." if version_id else "This template has no version yet.")


@of_templates.get("/{id}/lacks", response=LacksOut)
def list_lacks(request: HttpRequest, id: UUID, version: UUID | None = None) -> LacksOut:
    """Where members of pools build from this template, and the version (the newest) does not lie."""
    staff(request, Right.REVIEW)
    wanted = _version(id, version)
    items = [
        LackOut(
            hypervisor=lack.hypervisor.pk,
            storage=lack.storage,
            pools=sorted({member.pool_id for member in lack.members}),
        )
        for lack in selectors.lacks(wanted)
    ]
    return LacksOut(version=wanted.pk, items=items)


@of_templates.post("/{id}/publish", response={202: PublishedOut})
def publish(request: HttpRequest, id: UUID, wish: PublishIn) -> PublishedOut:
    """Bring a version to hypervisors of any maker, as a template there, through a vault. 409 if nothing is missing, if
    no copy of it can be read, and where it is on its way already."""
    actor = staff(request, Right.OPERATE)
    version = _version(id, wish.version_id)
    targets = None
    if wish.targets is not None:
        targets = [
            services.Target(hypervisor_id=to.hypervisor_id, storage_id=to.storage_id, pool_id=to.pool_id)
            for to in wish.targets
        ]
    made = services.publish(
        actor=actor,
        version_id=version.pk,
        vault_id=wish.vault_id,
        targets=targets,
        source_id=wish.source_id,
        name=wish.name,
        gives_present=wish.gives_present,
    )
    now = timezone.now()
    rows = selectors.publications().filter(pk__in=[row.pk for row in made]).order_by("hypervisor__name", "pk")
    return PublishedOut(publications=[show_publication(row, now) for row in rows])


@router.get("", response=Page[PublicationOut])
def list_publications(request: HttpRequest, wanted: Query[PublicationFilter]) -> Page[PublicationOut]:
    """Newest first."""
    staff(request, Right.REVIEW)
    found = selectors.PublicationFilter(
        template=wanted.template, version=wanted.version, group=wanted.group, state=wanted.state or ""
    )
    now = timezone.now()
    return page(found.apply(selectors.publications()), wanted, lambda row: show_publication(row, now))


@router.get("/{id}", response=PublicationOut)
def get_publication(request: HttpRequest, id: UUID) -> PublicationOut:
    staff(request, Right.REVIEW)
    return show_publication(one(selectors.publications(), id, "publication"), timezone.now())


@router.post("/{id}/cancel", response={202: PublicationOut})
def cancel_publication(request: HttpRequest, id: UUID) -> PublicationOut:
    """Nothing of it stays there. 409 if it is over, or the template stands already."""
    services.cancel(actor=staff(request, Right.OPERATE), publication_id=id)
    return show_publication(one(selectors.publications(), id, "publication"), timezone.now())
