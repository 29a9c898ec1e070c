"""Logical networks and what they are on each hypervisor."""

from __future__ import annotations

import uuid

from django.db import models

from broker.models.hypervisors import Hypervisor, Network


class LogicalNetwork(models.Model):
    """A network as administrators speak of it, over all hypervisors."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    wants_isolation = models.BooleanField(default=False)
    """Nothing on it shall reach anything beyond it."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class NetworkMapping(models.Model):
    """The counterpart of a logical network on one hypervisor."""

    id = models.BigAutoField(primary_key=True)
    logical = models.ForeignKey(LogicalNetwork, models.CASCADE, related_name="mappings")
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="network_mappings")
    network = models.ForeignKey(Network, models.CASCADE, related_name="mappings")
    """One of that hypervisor's."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["logical", "hypervisor"], name="mapping_once")]

    def __str__(self) -> str:
        return f"{self.logical} on {self.hypervisor}"
