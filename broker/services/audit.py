"""Writes down who changed what. Called inside the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone

from broker.models import AuditEntry

BROKER = "deskyard"
"""The actor's name where nobody asked."""
SECRET = "(secret)"  # noqa: S105 - what stands in the audit instead of one


def entry(
    *, actor: User | None, action: str, subject: models.Model, changes: Mapping[str, Any] | None = None
) -> AuditEntry:
    """An unsaved entry, for callers that write several at once."""
    return AuditEntry(
        at=timezone.now(),
        actor=actor,
        actor_name=actor.get_username() if actor else BROKER,
        action=action,
        noun=subject._meta.model_name or "",
        object_id=str(subject.pk),
        object_name=str(subject)[:300],
        changes=dict(changes or {}),
    )


def record(*, actor: User | None, action: str, subject: models.Model, changes: Mapping[str, Any] | None = None) -> None:
    entry(actor=actor, action=action, subject=subject, changes=changes).save(force_insert=True)
