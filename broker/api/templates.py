"""Golden images, their versions, and the copies of a version on hypervisors. Operators and auditors only."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Template, TemplateCopy, TemplateVersion
from broker.selectors import templates as selectors
from broker.services import templates as services

router = Router(tags=["templates"])
versions = Router(tags=["templates"])
copies = Router(tags=["templates"])


class CopyOut(Out):
    id: UUID
    version: UUID
    hypervisor: UUID
    platform_id: str
    name: str
    storage: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    created_at: datetime


class VersionOut(Out):
    id: UUID
    template: UUID
    number: int
    note: str
    copies: list[CopyOut]
    created_at: datetime


class TemplateOut(Out):
    id: UUID
    name: str
    description: str
    os: str
    versions: list[VersionOut]
    """Newest first."""
    created_at: datetime


class TemplateIn(In):
    name: str
    description: str = ""
    os: str = ""


class TemplateChange(In):
    name: str | None = None
    description: str | None = None
    os: str | None = None


class VersionIn(In):
    template: UUID
    note: str = ""


class CopyIn(In):
    version: UUID
    machine: UUID
    """Id of a machine with `is_template`, from `/hypervisors/{id}/machines`."""


def show(row: Template) -> TemplateOut:
    return TemplateOut(
        id=row.pk,
        name=row.name,
        description=row.description,
        os=row.os,
        versions=[show_version(version) for version in row.versions.all()],
        created_at=row.created_at,
    )


def show_version(row: TemplateVersion) -> VersionOut:
    return VersionOut(
        id=row.pk,
        template=row.template_id,
        number=row.number,
        note=row.note,
        copies=[show_copy(copy) for copy in row.copies.all()],
        created_at=row.created_at,
    )


def show_copy(row: TemplateCopy) -> CopyOut:
    return CopyOut(
        id=row.pk,
        version=row.version_id,
        hypervisor=row.hypervisor_id,
        platform_id=row.platform_id,
        name=row.name,
        storage=row.storage,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        disk_mib=row.disk_mib,
        created_at=row.created_at,
    )


@router.get("", response=Page[TemplateOut])
def list_templates(request: HttpRequest, window: Query[Window]) -> Page[TemplateOut]:
    staff(request, Right.REVIEW)
    return page(selectors.templates(), window, show)


@router.get("/{id}", response=TemplateOut)
def get_template(request: HttpRequest, id: UUID) -> TemplateOut:
    staff(request, Right.REVIEW)
    return show(one(selectors.templates(), id, "template"))


@router.post("", response={201: TemplateOut})
def create_template(request: HttpRequest, wish: TemplateIn) -> TemplateOut:
    actor = staff(request, Right.OPERATE)
    return show(services.create_template(actor=actor, name=wish.name, description=wish.description, os=wish.os))


@router.patch("/{id}", response=TemplateOut)
def change_template(request: HttpRequest, id: UUID, wish: TemplateChange) -> TemplateOut:
    actor = staff(request, Right.OPERATE)
    row = one(selectors.templates(), id, "template")
    services.change_template(
        actor=actor,
        template_id=id,
        name=row.name if wish.name is None else wish.name,
        description=row.description if wish.description is None else wish.description,
        os=row.os if wish.os is None else wish.os,
    )
    return show(one(selectors.templates(), id, "template"))


@router.delete("/{id}", response={204: None})
def remove_template(request: HttpRequest, id: UUID) -> None:
    """With its versions and copies; 409 while one of them is in use. The images stay on their hypervisors."""
    services.remove_template(actor=staff(request, Right.OPERATE), template_id=id)


@versions.post("", response={201: VersionOut})
def add_version(request: HttpRequest, wish: VersionIn) -> VersionOut:
    actor = staff(request, Right.OPERATE)
    return show_version(services.add_version(actor=actor, template_id=wish.template, note=wish.note))


@versions.delete("/{id}", response={204: None})
def remove_version(request: HttpRequest, id: UUID) -> None:
    """With its copies; 409 while one of them is in use."""
    services.remove_version(actor=staff(request, Right.OPERATE), version_id=id)


@copies.post("", response={201: CopyOut})
def link_copy(request: HttpRequest, wish: CopyIn) -> CopyOut:
    """Say that what inventory listed as a template is a copy of this version."""
    actor = staff(request, Right.OPERATE)
    return show_copy(services.link_copy(actor=actor, version_id=wish.version, machine_id=wish.machine))


@copies.delete("/{id}", response={204: None})
def remove_copy(request: HttpRequest, id: UUID) -> None:
    """Unlink; the image stays on its hypervisor. 409 while a pool or a desktop hangs from it."""
    services.remove_copy(actor=staff(request, Right.OPERATE), copy_id=id)
