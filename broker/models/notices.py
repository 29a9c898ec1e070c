"""What people are told: in the portal's list, and by mail."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.desktops import Desktop
from broker.models.pools import Pool
from broker.models.requests import Request


class Notice(models.Model):
    """One thing told to one person. Its words are made of kind and facts when somebody reads it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices", db_index=False)
    kind = models.CharField(max_length=30)
    """A word of `domain.notices.Kind`."""
    facts = models.JSONField(default=dict)
    """Plain words and ISO moments that its sentence names."""
    pool = models.ForeignKey(Pool, models.SET_NULL, null=True, related_name="+")
    request = models.ForeignKey(Request, models.SET_NULL, null=True, related_name="+")
    desktop = models.ForeignKey(Desktop, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["user", "-created_at"], name="notice_of_user"),
            models.Index(fields=["user"], condition=Q(read_at=None), name="notice_unread"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.user}"


class Mail(models.Model):
    """The outbox: a notice that shall go out by mail too."""

    class State(models.TextChoices):
        QUEUED = "queued", "Waits"
        SENDING = "sending", "Being sent"
        """Committed before the server is spoken to; one left so by a worker that died is tried again."""
        SENT = "sent", "Sent"
        FAILED = "failed", "Given up"
        UNWANTED = "unwanted", "Not wanted"
        """Its reader has no address, has switched mail off, or is gone."""

    notice = models.OneToOneField(Notice, models.CASCADE, primary_key=True, related_name="mail")
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True)
    """When it is tried, or, while it is being sent, when whoever does so is given up; None: ended."""
    ended_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")
    """Of the last attempt, for administrators."""

    class Meta:
        indexes = [models.Index(fields=["next_at"], condition=Q(next_at__isnull=False), name="mail_due")]

    def __str__(self) -> str:
        return f"{self.notice_id}: {self.state}"


class Preferences(models.Model):
    """A person's own choices; those who have chosen nothing have no row."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="preferences")
    wants_mail = models.BooleanField(default=True)
    opens_single = models.BooleanField(default=False)
    """Whether the portal opens a single desktop by itself."""
    opens_natively = models.BooleanField(default=False, db_default=False)
    """Whether the main button opens a desktop in a program of one's own, where its pool lets that."""


class Favourite(models.Model):
    """A pool that somebody marked: its tile comes first."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="favourites", db_index=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "pool"], name="favourite_once")]
