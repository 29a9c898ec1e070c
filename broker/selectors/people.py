"""Accounts, groups and tokens: who there is and what they have."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.db.models import Count, Q, QuerySet

from broker.models import ApiToken, Assignment, Entitlement


def user_named(name: str) -> User | None:
    return User.objects.filter(username=name).first() if _can_be_kept(name) else None


def group_named(name: str) -> Group | None:
    return Group.objects.filter(name=name).first() if _can_be_kept(name) else None


def tokens_of(user: User) -> QuerySet[ApiToken]:
    """Newest first, revoked and expired ones too."""
    return ApiToken.objects.filter(user=user)


def users(text: str = "") -> QuerySet[User]:
    """With groups, and in `desktops` how many are assigned to each now; `text`: part of their or a group's name."""
    found = User.objects.prefetch_related("groups").order_by("username")
    if text:
        found = found.filter(Q(username__icontains=text) | Q(groups__name__icontains=text)).distinct()
    return found.annotate(desktops=Count("assignments", filter=Q(assignments__until=None), distinct=True))


def groups() -> QuerySet[Group]:
    """With `members` and `pools` (entitlements) counted."""
    return Group.objects.annotate(
        members=Count("user", distinct=True), pools=Count("entitlements", distinct=True)
    ).order_by("name")


def assignments_of(user: User) -> QuerySet[Assignment]:
    return Assignment.objects.filter(user=user, until=None).select_related("desktop", "pool")


def entitlements_of(user: User) -> QuerySet[Entitlement]:
    """Directly and through groups."""
    mine = Q(user=user) | Q(group__in=user.groups.all())
    return Entitlement.objects.filter(mine).select_related("pool", "group").order_by("pool__name")


def _can_be_kept(name: str) -> bool:
    # Databases refuse NUL and half a character even in a comparison.
    return name.isprintable()
