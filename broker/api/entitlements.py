"""Who may have desktops of which pool, or one application of it. Those with a role only."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Entitlement
from broker.selectors import people
from broker.selectors import pools as selectors
from broker.services import entitlements as services
from broker.services.errors import Invalid

router = Router(tags=["entitlements"])


class EntitlementOut(Out):
    id: UUID
    pool: UUID
    application: UUID | None
    """Null: whole desktops; else this application of the pool alone."""
    user: str | None
    """Name of the user; null if a group is entitled."""
    group: str | None
    created_at: datetime


class EntitlementIn(In):
    pool: UUID
    application: UUID | None = None
    """Of the pool; null for whole desktops."""
    user: str | None = None
    """Name of a user. Give this or a group."""
    group: str | None = None


class EntitlementFilter(Window):
    pool: UUID | None = None


def show(row: Entitlement) -> EntitlementOut:
    return EntitlementOut(
        id=row.pk,
        pool=row.pool_id,
        application=row.application_id,
        user=row.user.get_username() if row.user else None,
        group=row.group.name if row.group else None,
        created_at=row.created_at,
    )


@router.get("", response=Page[EntitlementOut])
def list_entitlements(request: HttpRequest, wanted: Query[EntitlementFilter]) -> Page[EntitlementOut]:
    staff(request)
    rows = selectors.entitlements()
    return page(rows.filter(pool=wanted.pool) if wanted.pool else rows, wanted, show)


@router.get("/{id}", response=EntitlementOut)
def get_entitlement(request: HttpRequest, id: UUID) -> EntitlementOut:
    staff(request)
    return show(one(selectors.entitlements(), id, "entitlement"))


@router.post("", response={200: EntitlementOut, 201: EntitlementOut})
def entitle(request: HttpRequest, wish: EntitlementIn) -> Status[EntitlementOut]:
    """200 with the standing one if there is one."""
    actor = staff(request, Right.OPERATE)
    user = people.user_named(wish.user) if wish.user is not None else None
    group = people.group_named(wish.group) if wish.group is not None else None
    if wish.user is not None and user is None:
        raise Invalid("Nobody was entitled.", {"user": "There is no such user."})
    if wish.group is not None and group is None:
        raise Invalid("Nobody was entitled.", {"group": "There is no such group."})
    row, is_new = services.entitle(
        actor=actor,
        pool_id=wish.pool,
        user_id=user.pk if user else None,
        group_id=group.pk if group else None,
        application_id=wish.application,
    )
    return Status(201 if is_new else 200, show(row))


@router.delete("/{id}", response={204: None})
def withdraw(request: HttpRequest, id: UUID) -> None:
    """Places in the queue and open screens end; assigned desktops stay until released, but can't be opened."""
    services.withdraw(actor=staff(request, Right.OPERATE), entitlement_id=id)
