"""Accounts, groups and tokens: who there is and what they have."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Count, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from broker.domain.permissions import RIGHTS, Right, Role
from broker.models import ApiToken, Assignment, Entitlement
from broker.selectors.pools import entitling


def user_named(name: str) -> User | None:
    return User.objects.filter(username=name).first() if _can_be_kept(name) else None


def group_named(name: str) -> Group | None:
    return Group.objects.filter(name=name).first() if _can_be_kept(name) else None


def tokens_of(user: User) -> QuerySet[ApiToken]:
    """Newest first, revoked and expired ones too."""
    return ApiToken.objects.filter(user=user)


def users(text: str = "") -> QuerySet[User]:
    """With groups, and in `desktops` how many are assigned to each now; `text`: part of their or a group's name."""
    found = User.objects.select_related("staff_role").prefetch_related("groups").order_by("username")
    if text:
        found = found.filter(Q(username__icontains=text) | Q(groups__name__icontains=text)).distinct()
    return found.annotate(desktops=_number(Assignment.objects.filter(user=OuterRef("pk"), until=None), "user"))


def with_right(right: Right) -> QuerySet[User]:
    """Open accounts whose role has this right, the oldest first."""
    others = [role.value for role in Role if right not in RIGHTS[role]]
    return User.objects.filter(is_active=True, is_staff=True).exclude(staff_role__role__in=others).order_by("pk")


def groups() -> QuerySet[Group]:
    """With `members` and `pools` (entitlements) counted."""
    members = User.groups.through._default_manager.filter(group=OuterRef("pk"))
    entitlements = Entitlement.objects.filter(group=OuterRef("pk"))
    return Group.objects.annotate(members=_number(members, "group"), pools=_number(entitlements, "group")).order_by(
        "name"
    )


def _number(theirs: QuerySet[Any], of: str) -> Coalesce:
    """How many there are of the outer row. A subquery: a join would be counted for every row before a page is cut."""
    counted = theirs.order_by().values(of).annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def assignments_of(user: User) -> QuerySet[Assignment]:
    return Assignment.objects.filter(user=user, until=None).select_related("desktop", "pool")


def entitlements_of(user: User) -> QuerySet[Entitlement]:
    """Directly and through groups."""
    rows = entitling(user).select_related("pool", "application", "group")
    return rows.order_by("pool__name", "application__name")


def _can_be_kept(name: str) -> bool:
    # Databases refuse NUL and half a character even in a comparison.
    return name.isprintable()
