"""Golden images: template, its versions, and the copies of a version that lie on hypervisors."""

from __future__ import annotations

import uuid

from django.db import models

from broker.models.hypervisors import Hypervisor


class Template(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    os = models.CharField(max_length=60, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TemplateVersion(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    template = models.ForeignKey(Template, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["template", "number"], name="version_number_once")]

    def __str__(self) -> str:
        return f"{self.template} v{self.number}"


class TemplateCopy(models.Model):
    """One version on one storage of one hypervisor. Immutable; not deletable while a desktop hangs from it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(TemplateVersion, models.PROTECT, related_name="copies")
    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="copies")
    platform_id = models.CharField(max_length=200)
    name = models.CharField(max_length=300)
    storage = models.CharField(max_length=200, blank=True)
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    disk_mib = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["hypervisor", "platform_id"], name="copy_once")]

    def __str__(self) -> str:
        return f"{self.version} on {self.hypervisor}"
