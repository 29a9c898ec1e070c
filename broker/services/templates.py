"""Golden images: templates, their versions, and the copies of a version that inventory found on hypervisors."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, QuerySet

from broker.domain.lifecycle import LIVE
from broker.domain.pushes import OPEN
from broker.models import Desktop, Machine, PoolMember, Publication, Push, Template, TemplateCopy, TemplateVersion
from broker.selectors.hypervisors import desktop_of
from broker.services import audit, history, nudges
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "There is already a template of that name."


def create_template(*, actor: User, name: str, description: str = "", os: str = "") -> Template:
    """A template without versions. Raises `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    intake = Intake()
    values = _cleaned(intake, Template(), name, description, os)
    intake.refuse_faults("The template was not created.")
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        template = Template.objects.create(**values)
        changes = {field: [None, value] for field, value in values.items()}
        audit.record(actor=actor, action="template.create", subject=template, changes=changes)
        nudges.announce("templates")
    return template


def change_template(*, actor: User, template_id: UUID, name: str, description: str = "", os: str = "") -> Template:
    """Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        template = locked(Template.objects.all(), template_id, "template")
        intake = Intake()
        values = _cleaned(intake, template, name, description, os)
        intake.refuse_faults("The template was not changed.")
        if changes := alter(template, values):
            audit.record(actor=actor, action="template.change", subject=template, changes=changes)
            nudges.announce("templates")
    return template


def add_version(*, actor: User, template_id: UUID, note: str = "") -> TemplateVersion:
    """The next version: numbers go up by one and are not used again while a higher one stands."""
    require(actor, Right.OPERATE)
    intake = Intake()
    note = intake.text("note", note)
    intake.refuse_faults("The version was not added.")
    with transaction.atomic():
        template = locked(Template.objects.all(), template_id, "template")
        highest = template.versions.aggregate(highest=Max("number"))["highest"] or 0
        version = TemplateVersion.objects.create(template=template, number=highest + 1, note=note)
        audit.record(actor=actor, action="template.add_version", subject=version, changes={"note": [None, note]})
        nudges.announce("templates")
    return version


def link_copy(*, actor: User, version_id: UUID, machine_id: UUID) -> TemplateCopy:
    """Say that what inventory listed as a template (a row of `Machine`) is a copy of this version.

    Raises `Invalid` if the machine cannot serve as one or is already linked, `Missing` for an unknown version.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        version = locked(TemplateVersion.objects.select_related("template"), version_id, "version")
        machine = Machine.objects.select_related("hypervisor").filter(pk=machine_id).first()
        if machine is None:
            raise Invalid("The copy was not linked.", {"machine": "There is no such machine in the inventory."})
        _refuse_unfit(machine)
        copy = TemplateCopy.objects.create(
            version=version, hypervisor=machine.hypervisor, platform_id=machine.platform_id, name=machine.name,
            storage=machine.template_storage, vcpus=machine.vcpus, memory_mib=machine.memory_mib,
            disk_mib=machine.template_disk_mib,
        )  # fmt: skip
        audit.record(actor=actor, action="template.link_copy", subject=copy, changes={"machine": [None, machine.name]})
        nudges.announce("templates")
    return copy


def remove_copy(*, actor: User, copy_id: UUID) -> None:
    """Unlink a copy; the image stays on the hypervisor. Raises `Clash` while a pool or a desktop hangs from it."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        copy = locked(TemplateCopy.objects.select_related("version__template", "hypervisor"), copy_id, "copy")
        _remove_copy(actor, copy)
        nudges.announce("templates")


def remove_version(*, actor: User, version_id: UUID) -> None:
    """Remove a version with its copies. Raises `Clash` while one of them is in use."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        version = locked(TemplateVersion.objects.select_related("template"), version_id, "version")
        _refuse_while_published(Publication.objects.filter(version=version))
        _refuse_while_pushed(Push.objects.filter(version=version))
        for copy in version.copies.select_related("version__template", "hypervisor"):
            _remove_copy(actor, copy)
        audit.record(actor=actor, action="template.remove_version", subject=version)
        version.delete()
        nudges.announce("templates")


def remove_template(*, actor: User, template_id: UUID) -> None:
    """Remove a template with its versions and copies. Raises `Clash` while one of the copies is in use."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        template = locked(Template.objects.all(), template_id, "template")
        _refuse_while_published(Publication.objects.filter(version__template=template))
        _refuse_while_pushed(Push.objects.filter(version__template=template))
        for copy in TemplateCopy.objects.filter(version__template=template).select_related(
            "version__template", "hypervisor"
        ):
            _remove_copy(actor, copy)
        audit.record(actor=actor, action="template.remove", subject=template)
        template.delete()
        nudges.announce("templates")


def _cleaned(intake: Intake, template: Template, name: str, description: str, os: str) -> dict[str, str]:
    others = Template.objects.exclude(pk=template.pk)
    return {
        "name": intake.free_name("name", intake.name("name", name), others, "template"),
        "description": intake.text("description", description),
        "os": intake.line("os", os, length=60),
    }


def _refuse_unfit(machine: Machine) -> None:
    reason = ""
    if not machine.is_template:
        reason = f"{machine.name} is not something that can be cloned from."
    elif machine.template_cannot:
        reason = machine.template_cannot
    elif machine.vcpus < 1 or machine.memory_mib < 1:
        reason = f"The inventory does not say how many CPUs and how much memory {machine.name} has. Check again later."
    elif desktop := desktop_of(machine):
        reason = f"{machine.name} is the desktop {desktop}: everybody would get what its user left on it."
    else:
        linked = TemplateCopy.objects.filter(hypervisor=machine.hypervisor, platform_id=machine.platform_id)
        if standing := linked.select_related("version__template").first():
            reason = f"{machine.name} is already the copy of {standing.version} on {machine.hypervisor}."
    if reason:
        raise Invalid("The copy was not linked.", {"machine": reason})


def _refuse_while_published(publications: QuerySet[Publication]) -> None:
    running = publications.filter(state=Publication.State.RUNNING).select_related("version__template", "hypervisor")
    if publication := running.first():
        raise Clash(
            f"{publication.version} is being published to {publication.hypervisor}. Wait for its end or cancel it."
        )


def _remove_copy(actor: User, copy: TemplateCopy) -> None:
    if member := PoolMember.objects.filter(copy=copy).select_related("pool").first():
        raise Clash(f"{copy.name} serves the pool {member.pool}. Remove that member first.")
    if live := Desktop.objects.filter(copy=copy, state__in=LIVE).count():
        raise Clash(f"{copy.name} still has desktops that hang from it ({live}). Retire them first.")
    history.forget_gone_desktops(Desktop.objects.filter(copy=copy))
    if Desktop.objects.filter(copy=copy).exists():
        raise Clash(f"The last desktop of {copy.name} is just being cleared away. Try again in a moment.")
    audit.record(actor=actor, action="template.remove_copy", subject=copy)
    copy.delete()


def _refuse_while_pushed(pushes: QuerySet[Push]) -> None:
    row = pushes.filter(state__in=OPEN).select_related("pool", "version__template").first()
    if row is not None:
        raise Clash(f"{row.version} is being pushed to {row.pool}. Cancel that first.")
