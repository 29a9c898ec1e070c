"""Golden images with their versions and copies. For administrators: doors check that first."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Prefetch, QuerySet

from broker.domain.lifecycle import LIVE
from broker.models import Desktop, PoolMember, Template, TemplateCopy, TemplateVersion


def templates() -> QuerySet[Template]:
    """With versions (newest first) and their copies with hypervisors: three statements, whatever the number."""
    copies = TemplateCopy.objects.select_related("hypervisor")
    versions = TemplateVersion.objects.prefetch_related(Prefetch("copies", copies))
    return Template.objects.prefetch_related(Prefetch("versions", versions))


@dataclass(frozen=True, slots=True)
class Usage:
    """How much hangs from one copy."""

    pools: tuple[str, ...]
    desktops: int


def usage_of(template: Template) -> dict[UUID, Usage]:
    """Copy -> which pools build from it and how many live desktops hang from it; two statements."""
    pools: dict[UUID, list[str]] = {}
    members = PoolMember.objects.filter(copy__version__template=template).order_by("pool__name")
    for copy_id, name in members.values_list("copy", "pool__name"):
        pools.setdefault(copy_id, []).append(name)
    live = Desktop.objects.filter(copy__version__template=template, state__in=LIVE).order_by()
    desktops = dict(live.values_list("copy").annotate(number=Count("pk")))
    return {
        copy_id: Usage(tuple(pools.get(copy_id, ())), desktops.get(copy_id, 0))
        for copy_id in pools.keys() | desktops.keys()
    }


def copies() -> QuerySet[TemplateCopy]:
    """Every linked copy with what a choice of it shows."""
    return TemplateCopy.objects.select_related("version__template", "hypervisor").order_by(
        "version__template__name", "-version__number", "hypervisor__name"
    )
