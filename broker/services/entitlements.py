"""Who may have a desktop of a pool, or one application of it. What is taken away ends what rests on it: a place in the
queue, a seat, open screens."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.contrib.auth.models import Group, User
from django.db import transaction

from broker.models import Entitlement, Pool
from broker.services import audit, brokering, nudges, screens
from broker.services.errors import Invalid, Missing
from broker.services.permissions import Right, require
from broker.services.rows import locked, refusing_duplicates

WITHDRAWN = "You are no longer entitled to this pool. Ask your administrator."


def entitle(
    *,
    actor: User,
    pool_id: UUID,
    user_id: int | None = None,
    group_id: int | None = None,
    application_id: UUID | None = None,
) -> tuple[Entitlement, bool]:
    """Entitle a user or a group (exactly one of them) to whole desktops of the pool, or to one application of it.
    Idempotent: the standing one and False if there is one.

    Raises `Missing` for an unknown pool or application, `Forbidden`, `Invalid` for an unknown user or group.
    """
    require(actor, Right.OPERATE)
    if (user_id is None) == (group_id is None):
        message = "Name either a user or a group."
        raise Invalid("Nobody was entitled.", {"user": message, "group": message})
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        application = pool.applications.filter(pk=application_id).first() if application_id is not None else None
        if application_id is not None and application is None:
            raise Missing("There is no such application.")
        present = pool.entitlements.filter(application=application, user=user_id, group=group_id)
        if standing := present.select_related("user", "group", "application").first():
            return standing, False
        user = User.objects.filter(pk=user_id).first() if user_id is not None else None
        group = Group.objects.filter(pk=group_id).first() if group_id is not None else None
        if user_id is not None and user is None:
            raise Invalid("Nobody was entitled.", {"user": "There is no such user."})
        if group_id is not None and group is None:
            raise Invalid("Nobody was entitled.", {"group": "There is no such group."})
        with refusing_duplicates("user", "Already entitled."):
            entitlement = Entitlement.objects.create(pool=pool, application=application, user=user, group=group)
        changes = {"user": [None, user and user.get_username()], "group": [None, group and group.name]}
        audit.record(actor=actor, action="entitlement.grant", subject=entitlement, changes=changes)
        nudges.announce("pools")
    return entitlement, True


def withdraw(*, actor: User, entitlement_id: UUID) -> None:
    """Take an entitlement away.

    Whoever has no other one for the pool loses the place in the queue, and open screens close. A seat on a session host
    is given back. An assigned desktop stays assigned with its data until it is released or reclaimed, but can't be
    opened meanwhile.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        rows = Entitlement.objects.select_related("pool", "application", "user", "group")
        entitlement = locked(rows, entitlement_id, "entitlement")
        people = _people(entitlement)
        who = str(entitlement.user or entitlement.group)
        audit.record(actor=actor, action="entitlement.withdraw", subject=entitlement, changes={"who": [who, None]})
        entitlement.delete()
        end_what_rested(actor=actor, people=people, pool_ids=[entitlement.pool_id])
        nudges.announce("pools")


def end_what_rested(*, actor: User, people: Iterable[User], pool_ids: Iterable[UUID]) -> None:
    """End the queue places, the seats on session hosts and the screens of those who are no longer entitled. Call inside
    the change's transaction."""
    people = list(people)
    for pool_id in pool_ids:
        for user in people:
            # Who keeps another entitlement may still have open what this one alone was for.
            screens.recheck(user=user.pk)
            if brokering.is_entitled(user, pool_id):
                continue
            brokering.end_requests_of(actor=actor, user=user, pool_id=pool_id, reason=WITHDRAWN)
            brokering.reclaim_seats(actor=actor, user=user, pool_id=pool_id, reason=WITHDRAWN)
            nudges.announce("requests", user=str(user.pk))


def _people(entitlement: Entitlement) -> list[User]:
    """Those whom the entitlement serves and who have something in the pool that could end."""
    if entitlement.user:
        return [entitlement.user]
    members = User.objects.filter(groups=entitlement.group_id)
    waiting = members.filter(desktop_requests__pool=entitlement.pool_id)
    served = members.filter(assignments__pool=entitlement.pool_id, assignments__until=None)
    return list((waiting | served).distinct())
