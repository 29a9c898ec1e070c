"""A user's wish for a desktop, from asking to the end of use."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.desktops import Desktop
from broker.models.pools import Pool


class Request(models.Model):
    class State(models.TextChoices):
        WAITING = "waiting", "Waiting for approval"
        APPROVED = "approved", "Approved, waiting for a desktop"
        BUILDING = "building", "A desktop is being built"
        READY = "ready", "Ready"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        ENDED = "ended", "Ended"

    OPEN = (State.WAITING, State.APPROVED, State.BUILDING, State.READY)
    """At most one of these per user and pool."""
    IN_QUEUE = (State.APPROVED, State.BUILDING)
    """Served in order as desktops become ready."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="requests", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="desktop_requests")
    state = models.CharField(max_length=10, choices=State, default=State.APPROVED)
    reason = models.TextField(blank=True)
    """In words, for the user: why it waits, was refused, failed or ended."""
    why = models.TextField(blank=True, default="", db_default="")
    """The user's own reason."""
    asked_h = models.PositiveIntegerField(null=True)
    """For how long the user asked; None: as long as the pool gives."""
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    """Who approved or declined it; None if the pool's rule did."""
    decided_at = models.DateTimeField(null=True)
    decision = models.TextField(blank=True, default="", db_default="")
    """What was said to it."""
    desktop = models.ForeignKey(Desktop, models.SET_NULL, null=True, related_name="requests")
    created_at = models.DateTimeField()
    served_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["pool", "user"],
                condition=Q(state__in=["waiting", "approved", "building", "ready"]),
                name="request_one_open",
            ),
        ]
        indexes = [
            models.Index(
                fields=["pool", "created_at"],
                condition=Q(state__in=["approved", "building"]),
                name="request_queue",
            ),
            models.Index(fields=["pool"], condition=Q(state="waiting"), name="request_to_decide"),
            models.Index(fields=["-created_at", "-id"], name="request_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.pool}"
