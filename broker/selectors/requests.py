"""Requests: all of them for administrators, their own for everybody else."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import QuerySet

from broker.models import Request


def requests() -> QuerySet[Request]:
    return Request.objects.select_related("pool", "user", "desktop")


def requests_of(user: User) -> QuerySet[Request]:
    return requests().filter(user=user)
