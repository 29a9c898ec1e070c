"""Accounts, groups and tokens."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.db.models import QuerySet

from broker.models import ApiToken


def user_named(name: str) -> User | None:
    return User.objects.filter(username=name).first() if _can_be_kept(name) else None


def group_named(name: str) -> Group | None:
    return Group.objects.filter(name=name).first() if _can_be_kept(name) else None


def tokens_of(user: User) -> QuerySet[ApiToken]:
    """Newest first, revoked and expired ones too."""
    return ApiToken.objects.filter(user=user)


def _can_be_kept(name: str) -> bool:
    # PostgreSQL refuses NUL even in a comparison.
    return "\0" not in name
