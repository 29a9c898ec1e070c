"""Published applications, for administrators."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from broker.models import Application


def applications() -> QuerySet[Application]:
    """Each with its pool and `people`: how many users and groups are entitled to it."""
    return Application.objects.select_related("pool").annotate(people=Count("entitlements")).order_by("name")
