"""Whose desktop is whose. The quota and "already has one" are constraints, not code."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.desktops import Desktop
from broker.models.pools import Pool


class Assignment(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="assignments", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="assignments")
    slot = models.PositiveSmallIntegerField(default=0)
    desktop = models.ForeignKey(Desktop, models.PROTECT, related_name="assignments")
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)
    """None while open."""

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(fields=["desktop"], condition=Q(until=None), name="assignment_one_a_desktop"),
            models.UniqueConstraint(
                fields=["pool", "user", "slot"], condition=Q(until=None), name="assignment_one_a_slot"
            ),
        ]
        indexes = [models.Index(fields=["user"], condition=Q(until=None), name="assignment_open_by_user")]

    def __str__(self) -> str:
        return f"{self.desktop} to {self.user}"
