"""Desktops that are brought up elsewhere: tried, moved, or saved."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.domain.failover import Kind, Step
from broker.models.desktops import Desktop
from broker.models.hypervisors import Hypervisor
from broker.models.operations import Operation
from broker.models.replication import RecoveryPoint, ReplicationRun, Vault


class Failover(models.Model):
    """One desktop or machine, brought up on a hypervisor from a recovery point. Rules: `domain/failover.py`."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=[(kind.value, kind.value) for kind in Kind])
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    step = models.CharField(
        max_length=12, choices=[(step.value, step.value) for step in Step], default=Step.WAITING.value
    )
    step_since = models.DateTimeField()
    subject = models.CharField(max_length=200)
    """The machine's name, for people."""
    desktop = models.ForeignKey(Desktop, models.SET_NULL, null=True, related_name="failovers")
    epoch = models.PositiveIntegerField(default=0)
    """The desktop's when it began: if somebody else has it meanwhile, nothing is moved."""
    vault = models.ForeignKey(Vault, models.SET_NULL, null=True, related_name="+")
    """Through which a move goes; where the point lies. None: it was removed since, or none is used."""
    vault_name = models.CharField(max_length=100, blank=True, default="", db_default="")
    """What a vault was called that was removed since."""
    point = models.ForeignKey(RecoveryPoint, models.SET_NULL, null=True, related_name="failovers")
    """What is brought up; of a move, once it is there."""
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="failovers")
    """Where to."""
    storage = models.CharField(max_length=200)
    """Platform id; empty where the platform keeps a replica already."""
    networks = models.JSONField(default=list)
    """Platform ids, one a NIC; an empty one: not connected."""
    name = models.CharField(max_length=63)
    """Of the machine there."""
    run = models.ForeignKey(ReplicationRun, models.SET_NULL, null=True, related_name="+")
    """What the step waits for, if it is bytes."""
    operation = models.ForeignKey(Operation, models.SET_NULL, null=True, related_name="+")
    """What the step waits for, if it is the platform."""
    machine_id = models.CharField(max_length=200, blank=True)
    """Platform id of what was brought up; empty until it stands, and once it was taken away again."""
    machine_key = models.CharField(max_length=64, blank=True)
    """The key of its stamp."""
    was_on = models.BooleanField(default=False)
    """Whether the desktop ran when it was stopped."""
    was_in_maintenance = models.BooleanField(default=False)
    old_hypervisor = models.ForeignKey(Hypervisor, models.SET_NULL, null=True, related_name="+")
    old_machine_id = models.CharField(max_length=200, blank=True)
    """What the desktop was before. It stays where it is, off, until an administrator deletes it; after a planned one it
    is the replica."""
    old_machine_key = models.CharField(max_length=64, blank=True)
    report = models.JSONField(default=list)
    """`[{"at", "step", "words", "is_good"}]`: what was done and seen, in order."""
    digest = models.CharField(max_length=64, blank=True)
    """SHA-256 of the report once it is over."""
    error = models.TextField(blank=True)
    group = models.UUIDField(null=True)
    """Those of one pool that go together, in the order of `place`, a few at once."""
    place = models.PositiveIntegerField(default=0)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    is_to_end = models.BooleanField(default=False)
    """Somebody wants it cancelled."""
    created_at = models.DateTimeField(auto_now_add=True)
    stopped_at = models.DateTimeField(null=True)
    """From when on its user could not work."""
    answered_at = models.DateTimeField(null=True)
    """When the new machine gave its first sign of life."""
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-place", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["desktop"], condition=Q(state="running") & ~Q(kind="test"), name="failover_one_a_desktop"
            ),
        ]
        indexes = [
            models.Index(fields=["step_since"], condition=Q(state="running"), name="failover_running"),
            models.Index(fields=["-created_at", "-id"], name="failover_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} to {self.hypervisor}"
