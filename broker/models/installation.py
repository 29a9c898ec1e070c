"""Who we are to the hypervisors: half of every machine's stamp."""

from __future__ import annotations

import uuid

from django.db import models


class Installation(models.Model):
    """The one row that names this installation. Two of them on one hypervisor never touch each other's machines."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    only = models.BooleanField(default=True, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(only=True), name="installation_is_one")]
