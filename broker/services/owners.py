"""Who answers for a pool: people and groups that decide on its requests."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import Group, User
from django.db import transaction

from broker.models import Pool, PoolOwner
from broker.selectors.pools import ownerships_of
from broker.services import audit, nudges
from broker.services.errors import Invalid
from broker.services.permissions import Right, require
from broker.services.rows import locked, refusing_duplicates


def owns(user: User, pool_id: UUID) -> bool:
    """Whether this person answers for the pool, directly or through a group."""
    return user.is_active and ownerships_of(user).filter(pool=pool_id).exists()


def appoint(
    *, actor: User, pool_id: UUID, user_id: int | None = None, group_id: int | None = None
) -> tuple[PoolOwner, bool]:
    """Make a user or a group (exactly one of them) an owner of the pool. Idempotent: the standing one and False.

    Raises `Missing` for an unknown pool, `Forbidden`, `Invalid` for an unknown user or group.
    """
    require(actor, Right.OPERATE)
    if (user_id is None) == (group_id is None):
        message = "Name either a user or a group."
        raise Invalid("Nobody was made an owner.", {"user": message, "group": message})
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        if standing := pool.owners.filter(user=user_id, group=group_id).select_related("user", "group").first():
            return standing, False
        user = User.objects.filter(pk=user_id).first() if user_id is not None else None
        group = Group.objects.filter(pk=group_id).first() if group_id is not None else None
        if user is None and group is None:
            field = "user" if user_id is not None else "group"
            raise Invalid("Nobody was made an owner.", {field: f"There is no such {field}."})
        with refusing_duplicates("user", "Already an owner."):
            owner = PoolOwner.objects.create(pool=pool, user=user, group=group)
        audit.record(actor=actor, action="owner.appoint", subject=owner, changes={"who": [None, str(user or group)]})
        nudges.announce("pools")
    return owner, True


def dismiss(*, actor: User, owner_id: UUID) -> None:
    """Take ownership away. What was decided stays decided."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        owner = locked(PoolOwner.objects.select_related("pool", "user", "group"), owner_id, "owner")
        who = str(owner.user or owner.group)
        audit.record(actor=actor, action="owner.dismiss", subject=owner, changes={"who": [who, None]})
        owner.delete()
        nudges.announce("pools")
