"""Desktops. Users reach those assigned to them, administrators all of them (but open nobody's screen)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router, Status

from broker.api.access import Right, caller, person, staff
from broker.api.operations import OperationOut, show_operation
from broker.api.pages import Page, Window, one, page, page_as_ordered
from broker.api.shapes import In, Out, Switch
from broker.domain.lifecycle import State
from broker.domain.native import CONTENT_TYPES
from broker.domain.power import DesktopFacts
from broker.models import Assignment, Desktop
from broker.selectors import desktops as selectors
from broker.selectors import people, seats
from broker.selectors import power as power_selectors
from broker.services import brokering, guests, leases, native, power, screens
from broker.services import desktops as services
from broker.services.errors import Invalid

router = Router(tags=["desktops"])
MANY = 500
"""Ids in one order; more are named by a filter."""
_BYTES = {"schema": {"type": "string", "format": "binary"}}
FILE = {"responses": {200: {"description": "The file", "content": dict.fromkeys(CONTENT_TYPES, _BYTES)}}}


class DesktopOut(Out):
    id: UUID
    name: str
    pool: UUID
    state: str
    """planned, building, preparing, ready, assigned, recycling, retiring, gone, failed, missing"""
    power: str
    """on, off, suspended, unknown"""
    is_answering: bool
    """The guest itself answered at the last look."""
    addresses: list[str]
    vcpus: int
    memory_mib: int
    user: str | None
    """Name of the user it is assigned to; of a session host null, or one's own where one has a seat."""
    seats_taken: int | None
    """How many users are on a session host; null: it is no such one."""
    assigned_at: datetime | None
    lease_until: datetime | None
    """When it is to be given back; null: when its user releases it."""
    renewals_left: int
    """How often its user may still renew the lease."""
    created_at: datetime


class DesktopDetailOut(DesktopOut):
    """A desktop as administrators see it."""

    hypervisor: UUID
    copy_id: UUID
    epoch: int
    """Raised at every claim and release."""
    machine_id: str
    """The platform's id of its machine; empty while there is none."""
    state_since: datetime
    is_in_maintenance: bool
    is_moving: bool
    """It is being moved to another host: nobody opens it, switches its power or gives it back meanwhile."""
    failure: str
    """Why it failed, in words."""
    attempts: int
    why: list[Any]
    """Placement, candidate by candidate."""
    ready_at: datetime | None
    observed_at: datetime | None


class DesktopFilter(Window):
    state: State | None = None
    """Without it, desktops that are gone are left out."""
    pool: UUID | None = None
    hypervisor: UUID | None = None
    mine: bool = False
    """Only those assigned to the caller."""
    owned: bool = False
    """Only those of pools that the caller owns, also through a group."""


class ConnectIn(In):
    protocol: str = ""
    """vnc or rdp, as the desktop's pool has it; empty: that one."""
    application: UUID | None = None
    """Of the desktop's pool: it alone is shown."""


class ClientFileIn(In):
    application: UUID | None = None
    """Of the desktop's pool: it alone is shown."""


class ConnectOut(Out):
    """How to open the screen: connect a WebSocket to `url` offering `subprotocols`, once, before `expires_at`.

    With rdp it offers none and begins with an RDCleanPath request whose `proxy_auth` is the ticket.
    """

    url: str
    subprotocols: list[str]
    """With vnc they carry the one-time ticket, which stands in no address and no log."""
    ticket: str
    protocol: str
    expires_at: datetime
    operation: OperationOut | None
    """What makes the screen; with rdp, where the guest shows itself, what gives it its user's password, or null."""


class RenewIn(In):
    seen_until: datetime | None = None
    """The end that the caller knows. If it is another by now, nothing is changed: a wish sent twice renews once."""


class SeatOut(Out):
    """Somebody on a session host."""

    user: str
    number: int
    """Of the seat, from 1."""
    since: datetime
    lease_until: datetime | None
    """When it is to be given back; null: when its user leaves."""


class Whose(In):
    user: str | None = None
    """Name of a user, on a session host; empty: one's own."""


PowerWord = Literal["on", "off", "shutdown", "reboot", "reset", "suspend", "resume"]


class PowerIn(In):
    action: PowerWord


class PowerFilter(In):
    """Which desktops: those that fit everything named, as `GET /desktops` lists them. Name at least one."""

    state: State | None = None
    pool: UUID | None = None
    hypervisor: UUID | None = None


class PowerOfManyIn(In):
    action: PowerWord
    ids: Annotated[list[UUID], Field(max_length=MANY)] | None = None
    """Either these desktops, at most 500 …"""
    filter: PowerFilter | None = None
    """… or all that fit."""
    dry_run: bool = False
    """Only say what it would touch; 200 then, with no operations."""


class SkippedOut(Out):
    desktop: UUID
    name: str
    reason: str
    """In words, as in "it is off already"."""


class PowerOfManyOut(Out):
    ordered: int
    """Desktops for which it is ordered."""
    in_use: int
    """Of those, at whose screen somebody looks right now."""
    skipped: list[SkippedOut]
    """Those left out, and why."""
    unknown: list[UUID]
    """Ids of which there is no desktop."""
    operations: list[UUID]


def show(row: Any) -> DesktopOut:
    """A row of `selectors.desktops_with_owner` as its user may see it."""
    return DesktopOut(
        id=row.pk,
        name=row.name,
        pool=row.pool_id,
        state=row.state,
        power=row.power,
        is_answering=row.is_answering,
        addresses=row.addresses,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        user=row.owner,
        seats_taken=row.seats_taken if row.pool.is_shared else None,
        assigned_at=row.owned_since,
        lease_until=row.lease_until,
        renewals_left=max(row.pool.renewals - row.renewed, 0) if row.lease_until else 0,
        created_at=row.created_at,
    )


def show_seat(row: Assignment) -> SeatOut:
    return SeatOut(user=row.user.get_username(), number=row.seat, since=row.since, lease_until=row.lease_until)


def show_detail(row: Any) -> DesktopDetailOut:
    return DesktopDetailOut(
        **show(row).model_dump(),
        hypervisor=row.hypervisor_id,
        copy_id=row.copy_id,
        epoch=row.epoch,
        machine_id=row.machine_id,
        state_since=row.state_since,
        is_in_maintenance=row.is_in_maintenance,
        is_moving=row.is_moving,
        failure=row.failure,
        attempts=row.attempts,
        why=row.why,
        ready_at=row.ready_at,
        observed_at=row.observed_at,
    )


def _detail(desktop: Desktop) -> DesktopDetailOut:
    return show_detail(one(selectors.desktops_with_owner(), desktop.pk, "desktop"))


@router.get("", response=Page[DesktopDetailOut] | Page[DesktopOut])
def list_desktops(request: HttpRequest, wanted: Query[DesktopFilter]) -> Page[DesktopDetailOut] | Page[DesktopOut]:
    """One's own; whoever has a role sees all, owners those of their pools with `owned`."""
    found = caller(request)
    is_told_all = found.sees_all
    rows = selectors.desktops_with_owner()
    if wanted.owned:
        rows = selectors.desktops_of_my_pools(found.user)
    elif wanted.mine or not is_told_all:
        rows = selectors.desktops_assigned(found.user)
    rows = rows.filter(state=wanted.state) if wanted.state else rows.exclude(state=State.GONE)
    if wanted.pool:
        rows = rows.filter(pool=wanted.pool)
    if wanted.hypervisor and is_told_all:
        rows = rows.filter(hypervisor=wanted.hypervisor)
    return page(rows, wanted, show_detail) if is_told_all else page(rows, wanted, show)


@router.post("/power", response={200: PowerOfManyOut, 202: PowerOfManyOut})
def set_power_of_many(request: HttpRequest, wish: PowerOfManyIn) -> Status[PowerOfManyOut]:
    """Switch many desktops at once; those that cannot be switched are left out, and said. Help desk and up."""
    actor = staff(request, Right.SERVE)
    wanted = _wanted(wish)
    if wish.dry_run:
        found = power_selectors.review(wanted, wish.action)
        return Status(200, _touched(wish, found.skipped, [d.id for d in found.chosen], found.in_use))
    done = power.set_power_of_many(actor=actor, wanted=wanted, action=wish.action)
    desktops = [operation.desktop_id for operation in done.operations if operation.desktop_id]
    return Status(202, _touched(wish, done.skipped, desktops, done.in_use, [o.pk for o in done.operations]))


def _wanted(wish: PowerOfManyIn) -> QuerySet[Desktop]:
    if (wish.ids is None) == (wish.filter is None):
        words = "Name either ids or a filter."
        raise Invalid("Nothing was ordered.", {"ids": words, "filter": words})
    if wish.ids is not None:
        return Desktop.objects.filter(pk__in=wish.ids)
    named = wish.filter.model_dump(exclude_none=True) if wish.filter else {}
    if not named:
        raise Invalid("Nothing was ordered.", {"filter": "Name at least one of: state, pool, hypervisor."})
    return Desktop.objects.exclude(state=State.GONE).filter(**named)


def _touched(
    wish: PowerOfManyIn,
    skipped: Sequence[tuple[DesktopFacts, str]],
    desktops: Sequence[UUID],
    in_use: int,
    operations: Sequence[UUID] = (),
) -> PowerOfManyOut:
    known = {*desktops, *(facts.id for facts, _ in skipped)}
    return PowerOfManyOut(
        ordered=len(desktops),
        in_use=in_use,
        skipped=[SkippedOut(desktop=facts.id, name=facts.name, reason=why) for facts, why in skipped],
        unknown=[pk for pk in dict.fromkeys(wish.ids or ()) if pk not in known],
        operations=list(operations),
    )


@router.get("/{id}", response=DesktopDetailOut | DesktopOut)
def get_desktop(request: HttpRequest, id: UUID) -> DesktopDetailOut | DesktopOut:
    found = caller(request)
    if found.sees_all:
        return show_detail(one(selectors.desktops_with_owner(), id, "desktop"))
    return show(one(selectors.desktops_seen_by(found.user), id, "desktop"))


@router.post("/{id}/connect", response=ConnectOut)
def connect(request: HttpRequest, id: UUID, wish: ConnectIn) -> ConnectOut:
    """Leave to open the screen of one's own desktop once.

    409 if it is not ready; one that is switched off is started, and the problem's `operation` is what brings it up.
    """
    found = person(request)
    opening = screens.connect(
        user=found.user,
        desktop_id=id,
        protocol=wish.protocol,
        session_key=found.session_key,
        token=found.token,
        application_id=wish.application,
    )
    return ConnectOut(
        url=screens.address(host=request.get_host(), is_secure=request.is_secure(), protocol=opening.protocol),
        subprotocols=opening.subprotocols,
        ticket=opening.ticket,
        protocol=opening.protocol,
        expires_at=opening.expires_at,
        operation=show_operation(request, opening.operation) if opening.operation else None,
    )


@router.post("/{id}/client-file", openapi_extra=FILE)
def client_file(request: HttpRequest, id: UUID, wish: ClientFileIn | None = None) -> HttpResponse:
    """A file by which a program opens one's own desktop (`.rdp` or `.vv`), good to start for five minutes.

    From its first use on it serves only the address that used it. 409 if the desktop is not ready, as for connect, or
    if its pool's desktops are not opened so.
    """
    found = person(request)
    file = native.client_file(
        user=found.user,
        desktop_id=id,
        session_key=found.session_key,
        token=found.token,
        application_id=wish.application if wish else None,
    )
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
    return HttpResponse(file.content, content_type=file.content_type, headers=headers)


@router.post("/{id}/power", response={202: OperationOut})
def set_power(request: HttpRequest, id: UUID, wish: PowerIn) -> OperationOut:
    """409 with the operation that is under way if the desktop is busy."""
    return show_operation(request, power.set_power(actor=caller(request).user, desktop_id=id, action=wish.action))


@router.get("/{id}/seats", response=Page[SeatOut])
def list_seats(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[SeatOut]:
    """Who is on a session host, by seat. None of another desktop. Whoever has a role."""
    staff(request)
    return page_as_ordered(seats.on(one(Desktop.objects.all(), id, "desktop")), window, show_seat)


@router.post("/{id}/release", response={202: OperationOut, 204: None})
def release(request: HttpRequest, id: UUID, whose: Query[Whose]) -> Status[OperationOut | None]:
    """Give the desktop back: it gets a fresh disk. The operation is that, or the one that must end before it.

    Of a session host it is one's own seat that is given back, or with `user` somebody else's; 204 if it goes on as it
    is, for others or for the next.
    """
    user = _named(whose.user)
    operation = brokering.release_desktop(actor=caller(request).user, desktop_id=id, user_id=user.pk if user else None)
    if operation is None and one(selectors.desktops_with_owner(), id, "desktop").pool.is_shared:
        return Status(204, None)
    return Status(202, show_operation(request, operation or selectors.latest_change(id)))


def _named(name: str | None) -> User | None:
    if name is None:
        return None
    found = people.user_named(name)
    if found is None:
        raise Invalid("Nothing was given back.", {"user": "There is no such user."})
    return found


@router.post("/{id}/renew", response=DesktopDetailOut | DesktopOut)
def renew(request: HttpRequest, id: UUID, wish: RenewIn) -> DesktopDetailOut | DesktopOut:
    """Renew the lease by what the pool gives; 409 if it is not leased or no renewal is left. Administrators may for
    others."""
    leases.renew(actor=caller(request).user, desktop_id=id, seen_until=wish.seen_until)
    return get_desktop(request, id)


@router.post("/{id}/forget", response={200: DesktopDetailOut})
def forget(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Give up a desktop that is missing or cannot be deleted. Its machine is not touched. Operators and up."""
    return _detail(services.forget_desktop(actor=staff(request, Right.OPERATE), desktop_id=id))


@router.post("/{id}/retire", response={202: DesktopDetailOut})
def retire(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Delete a desktop with its machine; 409 while it is assigned. Operators and up."""
    return _detail(services.retire_desktop(actor=staff(request, Right.OPERATE), desktop_id=id))


@router.post("/{id}/recycle", response={202: DesktopDetailOut})
def recycle(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Give a failed desktop that is nobody's a fresh disk. Help desk and up."""
    return _detail(services.recycle_desktop(actor=staff(request, Right.SERVE), desktop_id=id))


@router.post("/{id}/forget-certificate", response={204: None})
def forget_certificate(request: HttpRequest, id: UUID) -> Status[None]:
    """Let the desktop's guest be met anew over RDP, by whatever certificate it shows next. Help desk and up."""
    guests.forget_certificate(actor=staff(request, Right.SERVE), desktop_id=id)
    return Status(204, None)


@router.post("/{id}/maintenance", response=DesktopDetailOut)
def set_maintenance(request: HttpRequest, id: UUID, wish: Switch) -> DesktopDetailOut:
    """In maintenance a desktop is neither given out nor retired. Help desk and up."""
    return _detail(services.set_maintenance(actor=staff(request, Right.SERVE), desktop_id=id, on=wish.on))
