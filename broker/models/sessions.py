"""Screens in the browser: one-time tickets and the sessions they opened."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.desktops import Desktop
from broker.models.operations import Operation
from broker.models.people import ApiToken


class Ticket(models.Model):
    """Leave to open one screen once. Only its SHA-256 is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    desktop = models.ForeignKey(Desktop, models.CASCADE, related_name="tickets")
    epoch = models.PositiveIntegerField()
    protocol = models.CharField(max_length=10)
    session_key = models.CharField(max_length=64, blank=True)
    """SHA-256 of the browser session's key that asked; empty if a token asked."""
    token = models.ForeignKey(ApiToken, models.CASCADE, null=True, related_name="+")
    operation = models.ForeignKey(Operation, models.SET_NULL, null=True, related_name="tickets")
    target = models.BinaryField(default=bytes)
    """Where the screen is, encrypted; empty until the operation is done."""
    target_expires_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["operation"], name="ticket_of_operation"),
            models.Index(fields=["expires_at"], name="ticket_by_age"),
        ]


class ScreenSession(models.Model):
    """A stream between a browser and a screen."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    desktop = models.ForeignKey(Desktop, models.CASCADE, related_name="sessions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    epoch = models.PositiveIntegerField()
    protocol = models.CharField(max_length=10)
    address = models.GenericIPAddressField(null=True)
    session_key = models.CharField(max_length=64, blank=True)
    """SHA-256 of the browser session's key: log-out closes the streams that carry it."""
    token = models.ForeignKey(ApiToken, models.CASCADE, null=True, related_name="+")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    """Heartbeat of the relay that carries it."""
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=100, blank=True)
    bytes_to_user = models.BigIntegerField(default=0)
    bytes_from_user = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["desktop"], condition=Q(ended_at=None), name="screen_session_open")]
