"""Template versions on their way to the hypervisors of pools' members."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.domain.publication import Step
from broker.models.hypervisors import Hypervisor
from broker.models.pools import Pool, PoolMember
from broker.models.replication import ReplicationRun, Vault
from broker.models.templates import TemplateCopy, TemplateVersion


class Publication(models.Model):
    """One version, brought to one storage of one hypervisor as a template. Rules: `domain/publication.py`."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(TemplateVersion, models.CASCADE, related_name="publications", db_index=False)
    group = models.UUIDField()
    """Those that were asked for together read the image once."""
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    step = models.CharField(
        max_length=10, choices=[(step.value, step.value) for step in Step], default=Step.COPYING.value
    )
    step_since = models.DateTimeField()
    source = models.ForeignKey(TemplateCopy, models.SET_NULL, null=True, related_name="+")
    """The copy that is read."""
    vault = models.ForeignKey(Vault, models.SET_NULL, null=True, related_name="+")
    """Through which it goes. None: it was removed since."""
    vault_name = models.CharField(max_length=100, blank=True, default="", db_default="")
    """What a vault was called that was removed since."""
    hypervisor = models.ForeignKey(Hypervisor, models.CASCADE, related_name="publications")
    """Where to."""
    storage = models.CharField(max_length=200)
    """Platform id."""
    name = models.CharField(max_length=63)
    """Of the template there."""
    members = models.ManyToManyField(PoolMember, related_name="+")
    """They build from the copy once it is entered."""
    pool = models.ForeignKey(Pool, models.SET_NULL, null=True, related_name="+")
    """It gets a member there, if it has none by then."""
    copying = models.ForeignKey(ReplicationRun, models.SET_NULL, null=True, related_name="publications_copied")
    """The run that reads the image: that of the whole group."""
    landing = models.ForeignKey(ReplicationRun, models.SET_NULL, null=True, related_name="+")
    """The run that makes the template."""
    machine_id = models.CharField(max_length=200, blank=True)
    """Platform id of the template there; empty until it stands."""
    copy = models.ForeignKey(TemplateCopy, models.SET_NULL, null=True, related_name="+")
    """What came of it."""
    report = models.JSONField(default=list)
    """`[{"at", "step", "words", "is_good"}]`: what was done and seen, in order."""
    error = models.TextField(blank=True)
    is_to_end = models.BooleanField(default=False)
    """Somebody wants it cancelled."""
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["version", "hypervisor", "storage"],
                condition=Q(state="running"),
                name="publication_one_a_place",
            ),
        ]
        indexes = [
            models.Index(fields=["step_since"], condition=Q(state="running"), name="publication_running"),
            models.Index(fields=["version", "-created_at"], name="publication_by_version"),
        ]

    def __str__(self) -> str:
        return f"{self.version} to {self.hypervisor}"
