"""What happened (events, pruned by age) and who changed what (audit, kept)."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Event(models.Model):
    """One thing that happened to a desktop, an operation, a pool or a hypervisor, in words."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    """noun.verb: `desktop.claimed`."""
    message = models.TextField()
    level = models.CharField(max_length=8, default="info")
    """info, warning, error"""
    hypervisor = models.ForeignKey("Hypervisor", models.CASCADE, null=True, related_name="events", db_index=False)
    pool = models.ForeignKey("Pool", models.CASCADE, null=True, related_name="events", db_index=False)
    desktop = models.ForeignKey("Desktop", models.CASCADE, null=True, related_name="events", db_index=False)
    operation = models.ForeignKey("Operation", models.CASCADE, null=True, related_name="events", db_index=False)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["desktop", "-id"], name="event_of_desktop"),
            models.Index(fields=["operation", "-id"], name="event_of_operation"),
            models.Index(fields=["hypervisor", "-id"], name="event_of_hypervisor"),
            models.Index(fields=["at"], name="event_by_age"),
        ]

    def __str__(self) -> str:
        return self.message


class AuditEntry(models.Model):
    """Who changed what, when, from what to what. Never updated, never pruned with events."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False)
    actor_name = models.CharField(max_length=150)
    """Kept when the account goes; "deskyard" for the broker itself."""
    action = models.CharField(max_length=60)
    """noun.verb: `pool.create`."""
    noun = models.CharField(max_length=30)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=300)
    changes = models.JSONField(default=dict)
    """field -> [before, after]; secrets appear as "(secret)"."""
    address = models.GenericIPAddressField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["noun", "object_id", "-id"], name="audit_of_object")]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.object_name}"
