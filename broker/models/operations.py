"""Operations: the outbox, the job, and what the console shows under Tasks, in one row."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.desktops import Desktop
from broker.models.hypervisors import Hypervisor

UNFINISHED = ("queued", "sent", "running")
GIVES_WAY = Q(kind="power", state="queued", attempt=0, requested_by=None) & ~Q(cause="")
"""A schedule's order that was never sent: whoever wants the desktop otherwise cancels it and goes first."""


class Operation(models.Model):
    class Kind(models.TextChoices):
        CLONE = "clone", "Build"
        RECYCLE = "recycle", "Recycle"
        DELETE = "delete", "Delete"
        POWER = "power", "Power"
        SNAPSHOT = "snapshot", "Take snapshot"
        REVERT = "revert", "Revert to snapshot"
        UNSNAPSHOT = "unsnapshot", "Delete snapshot"
        RECONFIGURE = "reconfigure", "Reconfigure"
        SHARE = "share", "Share resources"
        SCREEN = "screen", "Open screen"
        PASSWORD = "password", "Set guest password"
        """Of an account in the guest. The password stands nowhere in the row."""
        PROBE = "probe", "Probe acceleration"

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        SENT = "sent", "Sent"
        """Committed before the call: whether the platform got it is unknown until it answers or is looked up."""
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    BUILDS = (Kind.CLONE, Kind.RECYCLE, Kind.DELETE)
    """Counted against the hypervisor's build budget."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    """Also the key under which the platform knows the order."""
    kind = models.CharField(max_length=12, choices=Kind)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    hypervisor = models.ForeignKey(Hypervisor, models.PROTECT, related_name="operations")
    desktop = models.ForeignKey(Desktop, models.PROTECT, null=True, related_name="operations")
    epoch = models.PositiveIntegerField(default=0)
    """The desktop's epoch when it was asked; an operation of another epoch is never sent."""
    changes = models.BooleanField(default=True)
    """At most one unfinished changing operation a desktop; opening a screen changes nothing."""
    parameters = models.JSONField(default=dict)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="operations")
    """None: the broker itself."""
    cause = models.CharField(max_length=200, blank=True, default="", db_default="")
    """What it was ordered with or by, in words: "by the schedule Evenings". Not empty: one of many, whose time begins
    when it is first sent."""
    rank = models.SmallIntegerField(default=50)
    """Smaller goes first: what a person waits for, then the rest, each by the pool's priority."""
    attempt = models.PositiveSmallIntegerField(default=0)
    pump_epoch = models.BigIntegerField(default=0)
    """Which pump sent or adopted it."""
    call_deadline = models.DateTimeField(null=True)
    """No call about it lasts beyond this; only then may a successor look it up."""
    not_before = models.DateTimeField(null=True)
    next_poll_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField()
    """Not done by then: failed, in words."""
    receipt = models.JSONField(default=dict)
    percent = models.PositiveSmallIntegerField(null=True)
    step = models.CharField(max_length=200, blank=True)
    error_kind = models.CharField(max_length=30, blank=True)
    error = models.TextField(blank=True)
    """What failed, on what, what to do."""
    is_unsettled = models.BooleanField(default=False, db_default=False)
    """It ended without the platform's answer: what it began may lie there."""
    platform_words = models.TextField(blank=True)
    """The platform's own words, for administrators."""
    is_cancel_requested = models.BooleanField(default=False)
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="retries")
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["desktop"],
                condition=Q(changes=True, state__in=UNFINISHED),
                name="operation_one_change_a_desktop",
            ),
        ]
        indexes = [
            models.Index(
                fields=["hypervisor", "rank", "created_at"], condition=Q(state="queued"), name="operation_queue"
            ),
            models.Index(
                fields=["hypervisor", "next_poll_at"],
                condition=Q(state__in=["sent", "running"]),
                name="operation_in_flight",
            ),
            models.Index(fields=["-created_at", "-id"], name="operation_newest"),
            models.Index(fields=["desktop", "-created_at"], name="operation_of_desktop"),
            models.Index(fields=["finished_at"], name="operation_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.desktop or self.hypervisor}"

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED
