"""Machines that wait, powered off, to take over from others."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from broker.models.hypervisors import Hypervisor
from broker.models.operations import Operation
from broker.models.replication import RecoveryPoint, ReplicationSource


class Standby(models.Model):
    """A source's machine on another hypervisor, as it was at a recovery point. `services/standbys.py` keeps it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.ForeignKey(ReplicationSource, models.SET_NULL, null=True, related_name="standbys", db_index=False)
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="standbys")
    name = models.CharField(max_length=63)
    machine_id = models.CharField(max_length=200)
    """Platform id."""
    machine_key = models.CharField(max_length=64)
    """The key of its stamp."""
    networks = models.JSONField(default=list)
    """Platform ids, one a NIC; an empty one: not connected."""
    point = models.ForeignKey(RecoveryPoint, models.SET_NULL, null=True, related_name="standbys")
    """What it holds; None if that point was deleted."""
    mark = models.JSONField(default=dict)
    """By which the connector knows whether somebody has written on it; the connector's own."""
    refreshed_at = models.DateTimeField()
    warnings = models.JSONField(default=list)
    """Sentences: what could not be kept of the machine's configuration."""
    is_changing = models.BooleanField(default=False)
    """A mover writes on it, or died while it did: what it holds is not known."""
    is_used = models.BooleanField(default=False)
    """Somebody has started it or written on it: it is neither written over nor deleted any more."""
    is_leaving = models.BooleanField(default=False)
    """Another one has taken its place, or nobody wants it any more: it is deleted."""
    operation = models.ForeignKey(Operation, models.SET_NULL, null=True, related_name="+")
    """Its deletion."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(fields=["source"], condition=Q(is_leaving=False), name="standby_one_a_source"),
            models.UniqueConstraint(fields=["hypervisor", "machine_id"], name="standby_one_a_machine"),
        ]

    def __str__(self) -> str:
        return self.name
