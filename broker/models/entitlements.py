"""Who may have a desktop of a pool, or one application of it: a user or a group."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.applications import Application
from broker.models.pools import Pool


class Entitlement(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="entitlements")
    application = models.ForeignKey(Application, models.CASCADE, null=True, related_name="entitlements")
    """None: whole desktops. Else that application alone; the desktop on which it runs is then shown to nobody."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="entitlements")
    group = models.ForeignKey("auth.Group", models.CASCADE, null=True, related_name="entitlements")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user=None, group__isnull=False) | Q(user__isnull=False, group=None),
                name="entitlement_user_or_group",
            ),
            models.UniqueConstraint(
                fields=["pool", "user"], condition=Q(group=None, application=None), name="entitlement_user_once"
            ),
            models.UniqueConstraint(
                fields=["pool", "group"], condition=Q(user=None, application=None), name="entitlement_group_once"
            ),
            models.UniqueConstraint(
                fields=["application", "user"],
                condition=Q(group=None, application__isnull=False),
                name="entitlement_application_user_once",
            ),
            models.UniqueConstraint(
                fields=["application", "group"],
                condition=Q(user=None, application__isnull=False),
                name="entitlement_application_group_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} on {self.application or self.pool}"
