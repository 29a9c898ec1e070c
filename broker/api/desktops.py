"""Desktops. Users reach those assigned to them, administrators all of them (but open nobody's screen)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import administrator, caller, person
from broker.api.operations import OperationOut, show_operation
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out, Switch
from broker.domain.lifecycle import State
from broker.models import Desktop
from broker.selectors import desktops as selectors
from broker.services import brokering, power, screens
from broker.services import desktops as services

router = Router(tags=["desktops"])


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
    """Name of the user it is assigned to."""
    assigned_at: datetime | None
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


class ConnectIn(In):
    protocol: str = "vnc"


class ConnectOut(Out):
    """How to open the screen: connect a WebSocket to `url` offering `subprotocols`, once, before `expires_at`."""

    url: str
    subprotocols: list[str]
    """They carry the one-time ticket, which stands in no address and no log."""
    protocol: str
    expires_at: datetime
    operation: OperationOut


class PowerIn(In):
    action: Literal["on", "off", "shutdown", "reboot", "reset", "suspend", "resume"]


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
        assigned_at=row.owned_since,
        created_at=row.created_at,
    )


def show_detail(row: Any) -> DesktopDetailOut:
    return DesktopDetailOut(
        **show(row).model_dump(),
        hypervisor=row.hypervisor_id,
        copy_id=row.copy_id,
        epoch=row.epoch,
        machine_id=row.machine_id,
        state_since=row.state_since,
        is_in_maintenance=row.is_in_maintenance,
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
    found = caller(request)
    is_told_all = found.is_administrator
    rows = selectors.desktops_with_owner()
    if wanted.mine or not is_told_all:
        rows = selectors.desktops_assigned(found.user)
    rows = rows.filter(state=wanted.state) if wanted.state else rows.exclude(state=State.GONE)
    if wanted.pool:
        rows = rows.filter(pool=wanted.pool)
    if wanted.hypervisor and is_told_all:
        rows = rows.filter(hypervisor=wanted.hypervisor)
    return page(rows, wanted, show_detail) if is_told_all else page(rows, wanted, show)


@router.get("/{id}", response=DesktopDetailOut | DesktopOut)
def get_desktop(request: HttpRequest, id: UUID) -> DesktopDetailOut | DesktopOut:
    found = caller(request)
    if found.is_administrator:
        return show_detail(one(selectors.desktops_with_owner(), id, "desktop"))
    return show(one(selectors.desktops_assigned(found.user), id, "desktop"))


@router.post("/{id}/connect", response=ConnectOut)
def connect(request: HttpRequest, id: UUID, wish: ConnectIn) -> ConnectOut:
    """Leave to open the screen of one's own desktop once.

    409 if it is not ready; one that is switched off is started, and the problem's `operation` is what brings it up.
    """
    found = person(request)
    opening = screens.connect(
        user=found.user, desktop_id=id, protocol=wish.protocol, session_key=found.session_key, token=found.token
    )
    return ConnectOut(
        url=screens.address(host=request.get_host(), is_secure=request.is_secure()),
        subprotocols=opening.subprotocols,
        protocol=wish.protocol,
        expires_at=opening.expires_at,
        operation=show_operation(request, opening.operation),
    )


@router.post("/{id}/power", response={202: OperationOut})
def set_power(request: HttpRequest, id: UUID, wish: PowerIn) -> OperationOut:
    """409 with the operation that is under way if the desktop is busy."""
    return show_operation(request, power.set_power(actor=caller(request).user, desktop_id=id, action=wish.action))


@router.post("/{id}/release", response={202: OperationOut})
def release(request: HttpRequest, id: UUID) -> OperationOut:
    """Give the desktop back: it gets a fresh disk. The operation is that, or the one that must end before it."""
    operation = brokering.release_desktop(actor=caller(request).user, desktop_id=id)
    return show_operation(request, operation or selectors.latest_change(id))


@router.post("/{id}/forget", response={200: DesktopDetailOut})
def forget(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Give up a desktop that is missing or cannot be deleted. Its machine is not touched. Administrators only."""
    return _detail(services.forget_desktop(actor=administrator(request), desktop_id=id))


@router.post("/{id}/retire", response={202: DesktopDetailOut})
def retire(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Delete a desktop with its machine; 409 while it is assigned. Administrators only."""
    return _detail(services.retire_desktop(actor=administrator(request), desktop_id=id))


@router.post("/{id}/recycle", response={202: DesktopDetailOut})
def recycle(request: HttpRequest, id: UUID) -> DesktopDetailOut:
    """Give a failed desktop that is nobody's a fresh disk. Administrators only."""
    return _detail(services.recycle_desktop(actor=administrator(request), desktop_id=id))


@router.post("/{id}/maintenance", response=DesktopDetailOut)
def set_maintenance(request: HttpRequest, id: UUID, wish: Switch) -> DesktopDetailOut:
    """In maintenance a desktop is neither given out nor retired. Administrators only."""
    return _detail(services.set_maintenance(actor=administrator(request), desktop_id=id, on=wish.on))
