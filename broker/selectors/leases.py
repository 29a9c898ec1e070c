"""Leases: which end soon, and which are over."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import BooleanField, Case, QuerySet, Value, When

from broker.models import Assignment

SOON = timedelta(days=7)


def leased() -> QuerySet[Assignment]:
    """Open assignments that end by themselves."""
    rows = Assignment.objects.filter(until=None, lease_until__isnull=False)
    return rows.select_related("desktop", "pool", "user")


def ending(pool_id: UUID, now: datetime) -> QuerySet[Assignment]:
    """Those of a pool that end within a week or are over, the next one first, with `is_over`."""
    is_over = Case(When(lease_until__lte=now, then=Value(True)), default=Value(False), output_field=BooleanField())
    rows = leased().filter(pool=pool_id, lease_until__lte=now + SOON)
    return rows.annotate(is_over=is_over).order_by("lease_until")
