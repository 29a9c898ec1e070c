"""Who answers for a pool: decides on its requests and is told when a lease needs somebody."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from broker.models.pools import Pool


class PoolOwner(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    pool = models.ForeignKey(Pool, models.CASCADE, related_name="owners")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="owned_pools")
    group = models.ForeignKey("auth.Group", models.CASCADE, null=True, related_name="owned_pools")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user=None, group__isnull=False) | Q(user__isnull=False, group=None),
                name="owner_user_or_group",
            ),
            models.UniqueConstraint(fields=["pool", "user"], condition=Q(group=None), name="owner_user_once"),
            models.UniqueConstraint(fields=["pool", "group"], condition=Q(user=None), name="owner_group_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} for {self.pool}"
