"""What people are told: rows in their list and, where mail is set up, in the outbox. Never sends anything itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from broker.domain.notices import Kind
from broker.models import Favourite, Mail, Notice, PoolOwner, Preferences
from broker.selectors.people import with_right
from broker.selectors.pools import pools_entitled
from broker.services import audit, nudges
from broker.services.errors import Invalid, Missing
from broker.services.permissions import Right

MOMENT = "%a %d %b %Y, %H:%M UTC"


def draft(
    user_id: int,
    kind: Kind,
    *,
    now: datetime,
    pool_id: UUID,
    request_id: UUID | None = None,
    desktop_id: UUID | None = None,
    facts: Mapping[str, object] | None = None,
) -> list[models.Model]:
    """An unsaved notice and, where mail is set up, its place in the outbox; the caller inserts them in this order, and
    calls `announce`. Whether its reader wants mail is asked when it is sent."""
    notice = Notice(
        user_id=user_id,
        kind=kind,
        facts=dict(facts or {}),
        pool_id=pool_id,
        request_id=request_id,
        desktop_id=desktop_id,
        created_at=now,
    )
    return [notice, Mail(notice=notice, next_at=now)] if settings.MAIL_IS_ON else [notice]


def announce(user_ids: Iterable[int]) -> None:
    """Tell open pages, and the worker that sends mail, once committed."""
    for user_id in user_ids:
        nudges.announce("notices", user=str(user_id))
    if settings.MAIL_IS_ON:
        nudges.nudge(nudges.MAIL, "outbox")


def tell(
    user_ids: Sequence[int],
    kind: Kind,
    *,
    now: datetime,
    pool_id: UUID,
    request_id: UUID | None = None,
    desktop_id: UUID | None = None,
    facts: Mapping[str, object] | None = None,
    has_mail: bool = True,
) -> None:
    """Write the same notice to several people, in the caller's transaction. `has_mail` False: in the portal alone."""
    about = {"now": now, "pool_id": pool_id, "request_id": request_id, "desktop_id": desktop_id, "facts": facts}
    rows = [row for user_id in user_ids for row in draft(user_id, kind, **about)]  # type: ignore[arg-type]
    Notice.objects.bulk_create(row for row in rows if isinstance(row, Notice))
    Mail.objects.bulk_create(row for row in rows if isinstance(row, Mail) and has_mail)
    announce(user_ids)


def responsible_for(pool_id: UUID) -> list[int]:
    """The people who answer for a pool: its owners, directly and through groups; without any, all that may decide."""
    owned = PoolOwner.objects.filter(pool=pool_id)
    mine = Q(pk__in=owned.values("user")) | Q(groups__in=owned.exclude(group=None).values("group"))
    active = User.objects.filter(is_active=True)
    found = list(active.filter(mine).order_by("pk").values_list("pk", flat=True).distinct())
    return found or list(with_right(Right.SERVE).values_list("pk", flat=True))


def moment(at: datetime) -> str:
    """A moment as notices and mails name it."""
    return at.strftime(MOMENT)


def mark_read(*, user: User, notice_id: UUID | None = None) -> int:
    """Mark one of one's own notices as read, or all of them. Idempotent; returns how many were unread.

    Raises `Missing` for a notice that is not theirs.
    """
    mine = Notice.objects.filter(user=user)
    if notice_id is not None:
        mine = mine.filter(pk=notice_id)
        if not mine.exists():
            raise Missing("There is no such notice.")
    with transaction.atomic():
        changed = mine.filter(read_at=None).update(read_at=timezone.now())
        if changed:
            nudges.announce("notices", user=str(user.pk))
    return changed


def set_preferences(
    *,
    user: User,
    wants_mail: bool | None = None,
    opens_single: bool | None = None,
    opens_natively: bool | None = None,
    address: str | None = None,
) -> Preferences:
    """Change what is named of one's own choices; the rest stays. `address`: where mail goes; empty, nowhere.

    Raises `Invalid` for what is no address of mail.
    """
    named = {"wants_mail": wants_mail, "opens_single": opens_single, "opens_natively": opens_natively}
    values = {name: value for name, value in named.items() if value is not None}
    if address:
        try:
            validate_email(address)
        except ValidationError:
            raise Invalid("Nothing was changed.", {"address": "This is no address of mail."}) from None
    with transaction.atomic():
        if address is not None and address != user.email:
            changes = {"address": [user.email, address]}
            User.objects.filter(pk=user.pk).update(email=address)
            audit.record(actor=user, action="user.change_address", subject=user, changes=changes)
        row, _ = Preferences.objects.update_or_create(user=user, defaults=values)
    return row


def set_favourite(*, user: User, pool_id: UUID, on: bool) -> None:
    """Mark a pool, or take the mark away. Idempotent. Raises `Missing` for one that is not open to this person."""
    if not on:
        Favourite.objects.filter(user=user, pool=pool_id).delete()
        return
    if not pools_entitled(user).filter(pk=pool_id).exists():
        raise Missing("There is no such pool.")
    Favourite.objects.get_or_create(user=user, pool_id=pool_id)
