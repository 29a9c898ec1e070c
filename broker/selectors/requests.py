"""Requests: all of them for administrators, their own for everybody else."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from broker.models import Assignment, Request
from broker.selectors.pools import ownerships_of


def requests() -> QuerySet[Request]:
    return Request.objects.select_related("pool", "user", "desktop")


def requests_of(user: User) -> QuerySet[Request]:
    return requests().filter(user=user)


def requests_of_my_pools(user: User) -> QuerySet[Request]:
    """Those for pools that this person owns, directly or through a group, with `lease_until` of what was given."""
    mine = ownerships_of(user).filter(pool=OuterRef("pool"))
    held = Assignment.objects.filter(desktop=OuterRef("desktop"), user=OuterRef("user"), until=None)
    return requests().filter(Exists(mine)).annotate(lease_until=Subquery(held.values("lease_until")[:1]))


def requests_seen_by(user: User) -> QuerySet[Request]:
    """Their own, and those for pools that they own."""
    mine = ownerships_of(user).filter(pool=OuterRef("pool"))
    return requests().filter(Q(user=user) | Exists(mine))
