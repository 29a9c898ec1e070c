"""Template versions that are published: brought to the storages that members of pools need, through a vault.

`services/publication_steps.py` carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from broker.domain import publication as rules
from broker.domain.publication import Step
from broker.hypervisors.abilities import can_replicate
from broker.models import (
    Hypervisor,
    Machine,
    Pool,
    PoolMember,
    Publication,
    RecoveryPoint,
    ReplicationRun,
    Storage,
    TemplateCopy,
    TemplateVersion,
    Vault,
)
from broker.selectors import publications as selectors
from broker.services import audit, nudges, pools, recovery, replication
from broker.services.errors import Clash, Invalid
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import locked

STATES = Publication.State
REFUSED = "Nothing was published."


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to. Members of pools there that build from an older version of the template take the new copy."""

    hypervisor_id: UUID
    storage_id: UUID
    pool_id: UUID | None = None
    """A pool that shall build there from now on, and has no member there yet."""


def targets_of_members(version: TemplateVersion) -> list[Target]:
    """Every place at which members of pools lack the version, on the storage that they use. Those whose storage is
    not listed any more, or not known, get the emptiest that is up; a hypervisor without any is left out."""
    found = []
    for lack in selectors.lacks(version):
        there = Storage.objects.filter(hypervisor=lack.hypervisor.pk)
        storage = there.filter(platform_id=lack.storage).first()
        storage = storage or there.filter(is_up=True).order_by("-free_mib", "name").first()
        if storage is not None:
            found.append(Target(hypervisor_id=lack.hypervisor.pk, storage_id=storage.pk))
    return list(dict.fromkeys(found))


def publish(
    *,
    actor: User,
    version_id: UUID,
    vault_id: UUID,
    targets: Sequence[Target] | None = None,
    source_id: UUID | None = None,
    name: str = "",
    gives_present: bool = False,
) -> list[Publication]:
    """Bring the version to each target as a template, and enter a copy of it there.

    Without targets: to all members of pools that lack it. `gives_present`, so too without targets: members that build
    from an older version where this one lies already take it at once. `source_id`: the copy to read, else the oldest
    that can be. `name`: what the template is called there. Raises `Missing`, `Forbidden`, `Invalid` (it lies there
    already); `Clash` if nothing is missing, it is on its way there, or no copy can be read.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        version = locked(TemplateVersion.objects.select_related("template"), version_id, "version")
        if not Vault.objects.filter(pk=vault_id).exists():
            raise Invalid(REFUSED, {"vault_id": "There is no such vault."})
        wanted = targets_of_members(version) if targets is None else list(dict.fromkeys(targets))
        given = _give_present(version) if gives_present or targets is None else 0
        if not wanted:
            if given:
                return []
            raise Clash(f"No member of a pool lacks {version}." if targets is None else "Choose where to.")
        source = _source(version, source_id)
        intake = Intake()
        called = intake.name("name", name or rules.image_name(version.template.name, version.number), length=63)
        storages = [_storage(intake, version, target) for target in wanted]
        intake.refuse_faults(REFUSED)
        rows = [
            _row(version, source, target, storage, called) for target, storage in zip(wanted, storages, strict=True)
        ]
        group = uuid4()
        for row in rows:
            row.group, row.vault_id, row.requested_by = group, vault_id, actor
            _begin(row, actor)
        nudges.announce("templates")
        nudges.announce("replication")
    return rows


def cancel(*, actor: User, publication_id: UUID) -> Publication:
    """Nothing of it stays there. Raises `Missing`, `Clash` when it is over, or stands already."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        row = locked(Publication.objects.all(), publication_id, "publication")
        if row.state != STATES.RUNNING or Step(row.step) not in rules.MAY_BE_CANCELLED:
            raise Clash("It is over, or the template stands already.")
        row.is_to_end = True
        row.save(update_fields=["is_to_end"])
        audit.record(actor=actor, action="publication.cancel", subject=row)
        nudges.nudge(nudges.PUBLICATION, row.pk)
        nudges.announce("templates")
    return row


def forget(before: datetime, limit: int) -> int:
    """Those that ended before then, and the recovery points that were made for them alone: what nobody has chosen to be
    replicated, and no other publication tells of. How many rows went; at most so many."""
    rows = Publication.objects.filter(finished_at__lt=before).order_by()
    ids = list(rows.values_list("pk", flat=True)[:limit])
    if not ids:
        return 0
    with transaction.atomic():
        points = RecoveryPoint.objects.filter(
            runs__publications_copied__in=ids, source__policy__is_own=True, source__is_chosen=False
        )
        made = set(points.values_list("pk", flat=True))
        went, _ = Publication.objects.filter(pk__in=ids).delete()
        others = Publication.objects.filter(copying__point__in=made)
        recovery.condemn(made - set(others.values_list("copying__point", flat=True)))
    return went


def _give_present(version: TemplateVersion) -> int:
    """How many members took it."""
    found = selectors.behind(version)
    for one in found:
        pools.take_copy(one.member, one.copy)
    return len(found)


# --- what is wanted, checked ------------------------------------------------------------------------------------------


def _source(version: TemplateVersion, source_id: UUID | None) -> TemplateCopy:
    copies = TemplateCopy.objects.select_related("hypervisor").filter(version=version).order_by("created_at", "pk")
    if source_id is not None:
        copy = copies.filter(pk=source_id).first()
        if copy is None:
            raise Invalid(REFUSED, {"source_id": f"This is no copy of {version}."})
        if why := _why_unreadable(copy):
            raise Invalid(REFUSED, {"source_id": why})
        return copy
    found = list(copies)
    if not found:
        raise Clash(f"{version} lies nowhere yet. Link the copy that was built first.")
    readable = [copy for copy in found if not _why_unreadable(copy)]
    if not readable:
        raise Clash(" ".join(_why_unreadable(copy) for copy in found))
    return readable[0]


def _why_unreadable(copy: TemplateCopy) -> str:
    hypervisor = copy.hypervisor
    if not can_replicate(hypervisor.kind):
        return f"The copy on {hypervisor} cannot be read: its connector does not read disks."
    if hypervisor.status != Hypervisor.Status.UP:
        return f"The copy on {hypervisor} cannot be read: {hypervisor} is {hypervisor.get_status_display().lower()}."
    return ""


def _storage(intake: Intake, version: TemplateVersion, target: Target) -> str:
    """Its id on the platform. Faults go to the intake, with the name of the place: there may be many."""
    hypervisor = Hypervisor.objects.filter(pk=target.hypervisor_id).first()
    one = Intake()
    recovery.check_lands(one, hypervisor)
    if hypervisor is not None and hypervisor.status != Hypervisor.Status.UP:
        one.faults["hypervisor_id"] = f"{hypervisor} is {hypervisor.get_status_display().lower()}. Leave it out."
    storage = recovery.storage_of(one, target.hypervisor_id, target.storage_id) if hypervisor is not None else ""
    if storage and (standing := version.copies.filter(hypervisor=hypervisor, storage=storage).first()):
        one.faults["storage_id"] = f"{version} lies there already, as {standing.name}."
    if target.pool_id is not None and not Pool.objects.filter(pk=target.pool_id).exists():
        one.faults["pool_id"] = "There is no such pool."
    if one.faults:
        words = " ".join(one.faults.values())
        intake.faults[f"targets.{target.hypervisor_id}"] = f"{hypervisor}: {words}" if hypervisor else words
    return storage


def _row(version: TemplateVersion, source: TemplateCopy, target: Target, storage: str, name: str) -> Publication:
    row = Publication(
        version=version, source=source, hypervisor=Hypervisor.objects.get(pk=target.hypervisor_id), storage=storage,
        name=name, pool_id=target.pool_id, step_since=timezone.now(),
    )  # fmt: skip
    _take_up(row)
    row.name = row.name if row.machine_id else _free_name(row)
    return row


def _take_up(row: Publication) -> None:
    """A template that an earlier attempt made there and nobody has entered need not be made again."""
    earlier = Publication.objects.filter(
        version=row.version, hypervisor=row.hypervisor, storage=row.storage, copy=None
    ).exclude(machine_id="")
    linked = TemplateCopy.objects.filter(hypervisor=row.hypervisor).values("platform_id")
    left = earlier.exclude(state=STATES.RUNNING).exclude(machine_id__in=linked).order_by("-created_at").first()
    listed = Machine.objects.filter(hypervisor=row.hypervisor, platform_id=left.machine_id) if left else None
    if left is not None and listed is not None and listed.exists():
        row.step, row.machine_id, row.name = Step.LISTING, left.machine_id, left.name


def _free_name(row: Publication) -> str:
    taken = Machine.objects.filter(hypervisor=row.hypervisor_id, name__iexact=row.name).exists()
    return f"{row.name[:56]}-{row.pk.hex[:6]}" if taken else row.name


def _begin(row: Publication, actor: User) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Clash(f"{row.version} is on its way to {row.hypervisor} already.") from error
    row.members.set(_followers(row))
    shown: dict[str, Any] = {"to": [None, str(row.hypervisor)], "as": [None, row.name]}
    audit.record(actor=actor, action="template.publish", subject=row.version, changes=shown)
    nudges.nudge(nudges.PUBLICATION, row.pk)


def _followers(row: Publication) -> list[PoolMember]:
    """Members there that build from this template and shall build from the new copy."""
    members = PoolMember.objects.filter(hypervisor=row.hypervisor_id, copy__version__template=row.version.template_id)
    found = members.select_related("copy__version").order_by("pk")
    others = {"", row.storage}
    return [
        member
        for member in found
        if rules.may_follow(has=member.copy.version.number, new=row.version.number)
        # One that already builds from this version goes on unless its clones lie on the new storage.
        and (member.copy.version_id != row.version_id or (member.storage or member.copy.storage) in others)
    ]


def end_runs(row: Publication) -> None:
    """Its runs, unless others of its group still need them, end as soon as a mover hears of it. Inside a
    transaction."""
    mates = Publication.objects.filter(group=row.group, state=STATES.RUNNING, is_to_end=False).exclude(pk=row.pk)
    if row.copying is not None and not mates.filter(copying=row.copying).exists():
        _end(row.copying)
    if row.landing is not None:
        _end(row.landing)


def _end(run: ReplicationRun) -> None:
    if run.state in replication.UNFINISHED and not run.is_to_end:
        ReplicationRun.objects.filter(pk=run.pk).update(is_to_end=True, not_before=None)
        nudges.nudge(nudges.MOVE, run.pk)
