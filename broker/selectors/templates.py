"""Golden images with their versions and copies. For administrators: doors check that first."""

from __future__ import annotations

from django.db.models import Prefetch, QuerySet

from broker.models import Template, TemplateCopy, TemplateVersion


def templates() -> QuerySet[Template]:
    """With versions (newest first) and their copies with hypervisors: three statements, whatever the number."""
    copies = TemplateCopy.objects.select_related("hypervisor")
    versions = TemplateVersion.objects.prefetch_related(Prefetch("copies", copies))
    return Template.objects.prefetch_related(Prefetch("versions", versions))
