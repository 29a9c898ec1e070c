"""How the estate stood over time: what charts are drawn from."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from broker.models.hypervisors import Hypervisor


class Sample(models.Model):
    """The whole estate at a moment, or one hypervisor of it."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    """The beginning of the span that it stands for."""
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, null=True, related_name="samples", db_index=False)
    """None: all of them together."""
    in_use = models.PositiveIntegerField(default=0)
    """Desktops that somebody looked at."""
    ready = models.PositiveIntegerField(default=0)
    assigned = models.PositiveIntegerField(default=0)
    coming = models.PositiveIntegerField(default=0)
    broken = models.PositiveIntegerField(default=0)
    """Failed or missing."""
    vcpus = models.PositiveIntegerField(default=0)
    taken_vcpus = models.PositiveIntegerField(default=0)
    """What machines hold and what is promised, as for memory."""
    memory_mib = models.BigIntegerField(default=0)
    taken_memory_mib = models.BigIntegerField(default=0)
    storage_mib = models.BigIntegerField(default=0)
    taken_storage_mib = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(fields=["hypervisor", "at"], name="sample_once"),
            models.UniqueConstraint(fields=["at"], condition=Q(hypervisor=None), name="sample_of_all_once"),
        ]
        indexes = [models.Index(fields=["at"], name="sample_by_age")]
