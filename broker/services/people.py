"""Accounts, groups and API tokens. Sign-in itself is Django's."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from broker.models import ApiToken, Pool, Request, StaffRole
from broker.selectors.people import with_right
from broker.services import audit, brokering, entitlements, screens
from broker.services.errors import Clash, Forbidden, Invalid, Missing
from broker.services.intake import Intake
from broker.services.permissions import Right, Role, has, require, role_kept
from broker.services.rows import alter, locked, refusing_duplicates

PORTAL = "portal"
ADMIN = "admin"
SCOPES = (PORTAL, ADMIN)
TOKEN_MARK = "dy_"  # noqa: S105 - tells people and secret scanners what a leaked string is
TOKEN_DAYS = 30
TOKEN_DAYS_LIMIT = 366
USE_NOTED_EVERY = timedelta(minutes=1)
NAME_LENGTH = 150
USER_TAKEN = "There is already a user of that name."
GROUP_TAKEN = "There is already a group of that name."


def create_user(
    *, actor: User, name: str, password: str, role: Role | None = None, group_ids: Sequence[int] = ()
) -> User:
    """An account that can sign in. Raises `Forbidden`, `Invalid` (also for a weak password)."""
    require(actor, Right.ADMINISTER)
    intake = Intake()
    name = intake.name("name", name, length=NAME_LENGTH)
    if "name" not in intake.faults and User.objects.filter(username__iexact=name).exists():
        intake.faults["name"] = USER_TAKEN
    user = User(username=name, is_staff=role is not None)
    _password(intake, user, password)
    groups = Group.objects.in_bulk(group_ids)
    if len(groups) != len(set(group_ids)):
        intake.faults["groups"] = "There is no such group."
    intake.refuse_faults("The user was not created.")
    with transaction.atomic(), refusing_duplicates("name", USER_TAKEN):
        user.set_password(password)
        user.save(force_insert=True)
        user.groups.set(groups.values())
        _narrow(user, role)
        names = sorted(group.name for group in groups.values())
        shown = {"role": [None, role], "groups": [[], names]}
        audit.record(actor=actor, action="user.create", subject=user, changes=shown)
    return user


def _narrow(user: User, role: Role | None) -> None:
    """Administrators need no row, and users of the portal have none."""
    if role is None or role is Role.ADMINISTRATOR:
        StaffRole.objects.filter(user=user).delete()
    else:
        StaffRole.objects.update_or_create(user=user, defaults={"role": role})


def set_role(*, actor: User, user_id: int, role: Role | None) -> User:
    """What they may do in the console from now on; None: nothing, they use the portal alone.

    Raises `Forbidden`, `Missing`, `Clash` for one's own role and for the last administrator's: an installation that
    nobody administers is locked for good.
    """
    require(actor, Right.ADMINISTER)
    if actor.pk == user_id:
        raise Clash("You cannot change your own role. Ask another administrator.")
    with transaction.atomic():
        if role is not Role.ADMINISTRATOR:
            _leave_an_administrator(user_id)
        user = locked(User.objects.all(), user_id, "user")
        before = role_kept(user)
        alter(user, {"is_staff": role is not None})
        _narrow(user, role)
        if before != role:
            audit.record(actor=actor, action="user.role", subject=user, changes={"role": [before, role]})
            screens.recheck(user=user.pk)
    return User.objects.select_related("staff_role").get(pk=user_id)


def _leave_an_administrator(user_id: int) -> None:
    """Raises `Clash` if there is none but this user. Inside the change's transaction.

    Two who take each other's role in the same moment wait for each other here, and the second sees what the first did.
    """
    administrators = with_right(Right.ADMINISTER)
    list(administrators.select_for_update(of=("self",)).values_list("pk", flat=True))
    if not administrators.exclude(pk=user_id).exists():
        raise Clash("This is the last administrator. Make somebody else an administrator first.")


def set_password(*, actor: User, user_id: int, password: str) -> None:
    """Give an account a new password; its sessions end with the old one. Own password, or any for administrators."""
    if actor.pk != user_id:
        require(actor, Right.ADMINISTER)
    with transaction.atomic():
        user = locked(User.objects.all(), user_id, "user")
        intake = Intake()
        _password(intake, user, password)
        intake.refuse_faults("The password was not changed.")
        user.set_password(password)
        user.save(update_fields=["password"])
        changes = {"password": [audit.SECRET, audit.SECRET]}
        audit.record(actor=actor, action="user.set_password", subject=user, changes=changes)


def set_user_active(*, actor: User, user_id: int, on: bool) -> User:
    """Close or open an account. A closed one cannot sign in, its tokens do not work, its screens close, and its seats
    on session hosts are given back.

    Raises `Forbidden`, `Missing`, `Clash` for one's own account and for the last administrator's.
    """
    require(actor, Right.ADMINISTER)
    if actor.pk == user_id and not on:
        raise Clash("You cannot close your own account.")
    with transaction.atomic():
        if not on:
            _leave_an_administrator(user_id)
        user = locked(User.objects.all(), user_id, "user")
        if changes := alter(user, {"is_active": on}):
            audit.record(actor=actor, action="user.active", subject=user, changes=changes)
            if not on:
                for pool_id in Request.objects.filter(user=user, state__in=Request.OPEN).values_list("pool", flat=True):
                    brokering.end_requests_of(actor=actor, user=user, pool_id=pool_id, reason="The account was closed.")
                brokering.reclaim_seats(actor=actor, user=user, reason="The account was closed.")
                screens.recheck(user=user.pk)
    return user


def create_group(*, actor: User, name: str) -> Group:
    """Raises `Forbidden`, `Invalid`."""
    require(actor, Right.ADMINISTER)
    intake = Intake()
    name = intake.free_name("name", intake.name("name", name, length=NAME_LENGTH), Group.objects.all(), "group")
    intake.refuse_faults("The group was not created.")
    with transaction.atomic(), refusing_duplicates("name", GROUP_TAKEN):
        group = Group.objects.create(name=name)
        audit.record(actor=actor, action="group.create", subject=group)
    return group


def set_groups(*, actor: User, user_id: int, group_ids: Sequence[int]) -> User:
    """Make these the user's groups. What rested on an entitlement of a group left ends, as with `withdraw`."""
    require(actor, Right.ADMINISTER)
    groups = Group.objects.in_bulk(group_ids)
    if len(groups) != len(set(group_ids)):
        raise Invalid("The groups were not changed.", {"groups": "There is no such group."})
    with transaction.atomic():
        user = locked(User.objects.all(), user_id, "user")
        before = {group.pk: group.name for group in user.groups.all()}
        after = {pk: group.name for pk, group in groups.items()}
        if before == after:
            return user
        user.groups.set(groups.values())
        changes = {"groups": [sorted(before.values()), sorted(after.values())]}
        audit.record(actor=actor, action="user.groups", subject=user, changes=changes)
        left = Pool.objects.filter(entitlements__group__in=before.keys() - after.keys()).distinct()
        entitlements.end_what_rested(actor=actor, people=[user], pool_ids=left.values_list("pk", flat=True))
    return user


def make_token(
    *, actor: User, user: User, name: str, scopes: Sequence[str] = (), days: int = TOKEN_DAYS
) -> tuple[ApiToken, str]:
    """A token of a user and its plain text, which is kept nowhere. No scopes named: all of the user's own rights.

    People make tokens for themselves; only administrators for others. Raises `Forbidden`, `Invalid`.
    """
    if actor.pk != user.pk:
        require(actor, Right.ADMINISTER)
    intake = Intake()
    name = intake.name("name", name)
    intake.whole("days", days, lowest=1, highest=TOKEN_DAYS_LIMIT)
    scopes = list(scopes) or own_scopes(user)
    if set(scopes) - set(SCOPES):
        intake.faults["scopes"] = f"Only {' and '.join(SCOPES)}."
    elif set(scopes) - set(own_scopes(user)):
        intake.faults["scopes"] = f"{user.get_username()} has no role in the console."
    intake.refuse_faults("The token was not made.")
    if not user.is_active:
        raise Forbidden(f"The account {user.get_username()} is closed.")
    plain = TOKEN_MARK + secrets.token_urlsafe(32)
    with transaction.atomic():
        token = ApiToken.objects.create(
            user=user, name=name, hash=_hash(plain), prefix=plain[:8], scopes=sorted(set(scopes)),
            expires_at=timezone.now() + timedelta(days=days),
        )  # fmt: skip
        changes = {"user": [None, user.get_username()], "scopes": [None, token.scopes], "days": [None, days]}
        audit.record(actor=actor, action="token.make", subject=token, changes=changes)
    return token, plain


def own_scopes(user: User) -> list[str]:
    """The most that a token of this user may have."""
    return [PORTAL, ADMIN] if has(user, Right.SEE) else [PORTAL]


def revoke_token(*, actor: User, token_id: UUID) -> None:
    """From now on the token opens nothing, and screens opened with it close. Own tokens, or any for administrators."""
    with transaction.atomic():
        token = ApiToken.objects.select_for_update().filter(pk=token_id).first()
        if token is None or not (token.user_id == actor.pk or has(actor, Right.ADMINISTER)):
            raise Missing("There is no such token.")
        if changes := alter(token, {"revoked_at": token.revoked_at or timezone.now()}):
            shown = {field: [before, str(after)] for field, (before, after) in changes.items()}
            audit.record(actor=actor, action="token.revoke", subject=token, changes=shown)
            screens.recheck(user=token.user_id)


def token_user(plain: str) -> ApiToken | None:
    """The valid token with its user (active, `select_related`), or None: unknown, expired, revoked, account closed.

    Notes the use at most once a minute.
    """
    now = timezone.now()
    token = (
        ApiToken.objects.select_related("user__staff_role")
        .filter(hash=_hash(plain), revoked_at=None, expires_at__gt=now, user__is_active=True)
        .first()
    )
    if token and (token.last_used_at is None or now - token.last_used_at > USE_NOTED_EVERY):
        unnoted = Q(last_used_at=None) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
        ApiToken.objects.filter(unnoted, pk=token.pk).update(last_used_at=now)
    return token


def _hash(plain: str) -> str:
    # 256 random bits need no slow hash.
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _password(intake: Intake, user: User, password: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        intake.faults["password"] = " ".join(error.messages)
