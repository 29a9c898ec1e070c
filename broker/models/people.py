"""People beside Django's own user: their API tokens."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from broker.domain.permissions import NAMES, Role


class ApiToken(models.Model):
    """A token of a user. Only its SHA-256 is kept; it is shown once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    hash = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=12)
    """Its first characters, to tell tokens apart."""
    scopes = models.JSONField(default=list)
    """"portal", "admin"."""
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name


class StaffRole(models.Model):
    """What somebody of Django's staff may do in the console. Without a row they are administrators."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="staff_role"
    )  # fmt: skip
    role = models.CharField(max_length=20, choices=[(role.value, NAMES[role]) for role in Role])

    def __str__(self) -> str:
        return NAMES[Role(self.role)]
