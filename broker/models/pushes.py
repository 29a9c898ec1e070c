"""Pushes: a template version that the desktops of a pool go over to."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.domain import pushes as rules
from broker.models.assignments import Assignment
from broker.models.pools import Pool, PoolMember
from broker.models.templates import TemplateCopy, TemplateVersion


class Push(models.Model):
    """Rules: `domain/pushes.py`. Whoever changes it holds its pool's row."""

    class State(models.TextChoices):
        SCHEDULED = rules.State.SCHEDULED.value, "Scheduled"
        RUNNING = rules.State.RUNNING.value, "Going over"
        DONE = rules.State.DONE.value, "Done"
        STOPPED = rules.State.STOPPED.value, "Stopped"
        CANCELLED = rules.State.CANCELLED.value, "Cancelled"

    class Users(models.TextChoices):
        LEAVE = rules.Users.LEAVE.value, "When their user has left"
        DEADLINE = rules.Users.DEADLINE.value, "At a deadline"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="pushes", db_index=False)
    version = models.ForeignKey(TemplateVersion, models.CASCADE, related_name="pushes")
    before = models.ForeignKey(TemplateVersion, models.SET_NULL, null=True, related_name="+")
    """What its members built from when it began. None: it has not begun, or they built from several."""
    state = models.CharField(max_length=10, choices=State)
    starts_at = models.DateTimeField()
    users = models.CharField(max_length=10, choices=Users, default=Users.LEAVE)
    deadline_at = models.DateTimeField(null=True)
    notice_min = models.PositiveIntegerField(default=15)
    """Minutes that users have between the notice and the deadline."""
    stops_after = models.PositiveSmallIntegerField(default=rules.STOPS_AFTER)
    """Desktops that fail in a row until it stops."""
    failures = models.JSONField(default=list)
    """`[{"desktop", "name", "at", "words"}]`: desktops that failed on the version, each time one did."""
    good_at = models.DateTimeField(null=True)
    """When a desktop last became ready on the version."""
    reason = models.TextField(blank=True, default="")
    """Why it stopped or was cancelled."""
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "pushes"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["pool", "state"],
                condition=Q(state__in=[state.value for state in rules.OPEN]),
                name="push_one_a_pool",
            ),
            models.CheckConstraint(
                condition=Q(users="leave", deadline_at=None) | Q(users="deadline", deadline_at__isnull=False),
                name="push_deadline_fits_users",
            ),
        ]
        indexes = [models.Index(fields=["pool", "-created_at"], name="push_by_pool")]

    def __str__(self) -> str:
        return f"{self.version} to {self.pool}"


class PushPlace(models.Model):
    """A member that builds from the version since the push began."""

    push = models.ForeignKey(Push, models.CASCADE, related_name="places", db_index=False)
    member = models.ForeignKey(PoolMember, models.CASCADE, related_name="+")
    before = models.ForeignKey(TemplateCopy, models.SET_NULL, null=True, related_name="+")
    """What it built from; given back when the push stops. None: that copy was removed since."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["push", "member"], name="push_place_once")]


class PushTold(models.Model):
    """Somebody was told of a push's deadline, once for each time that a desktop was theirs."""

    push = models.ForeignKey(Push, models.CASCADE, related_name="told", db_index=False)
    assignment = models.ForeignKey(Assignment, models.CASCADE, related_name="+")
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["push", "assignment"], name="push_told_once")]
