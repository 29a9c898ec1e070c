"""Published applications: one's own for everybody, all of them and how they are started for those with a role."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import Right, caller, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import Application
from broker.selectors import applications as selectors
from broker.selectors import portal
from broker.services import applications as services

router = Router(tags=["applications"])


class ApplicationOut(Out):
    """Opened by `POST /desktops/{id}/connect` on one's desktop of the pool, which `POST /requests` asks for."""

    id: UUID
    pool: UUID
    name: str
    description: str
    icon: str
    guest: str
    """linux or windows. Windows shows it to Remote Desktop programs only (`/desktops/{id}/client-file`)."""


class ApplicationDetailOut(ApplicationOut):
    command: str
    arguments: str
    folder: str
    is_enabled: bool
    entitled: int
    """How many users and groups may have it."""
    created_at: datetime


class ApplicationIn(In):
    pool: UUID
    """Its desktops must be shown by RDP."""
    name: str
    command: str
    """What is started; on Windows a path or `||alias`. With arguments 255 characters at most."""
    arguments: str = ""
    folder: str = ""
    description: str = ""
    icon: str = Application.Icon.APPLICATION
    guest: str = Application.Guest.LINUX
    is_enabled: bool = True


class ApplicationChange(In):
    """What is not named stays; the pool always does."""

    name: str | None = None
    command: str | None = None
    arguments: str | None = None
    folder: str | None = None
    description: str | None = None
    icon: str | None = None
    guest: str | None = None
    is_enabled: bool | None = None


def show(row: Application) -> ApplicationOut:
    return ApplicationOut(
        id=row.pk, pool=row.pool_id, name=row.name, description=row.description, icon=row.icon, guest=row.guest
    )


def show_detail(row: Application) -> ApplicationDetailOut:
    return ApplicationDetailOut(
        **show(row).model_dump(),
        command=row.command,
        arguments=row.arguments,
        folder=row.folder,
        is_enabled=row.is_enabled,
        entitled=row.people,  # type: ignore[attr-defined] # a column of the selector
        created_at=row.created_at,
    )


def _detail(application_id: UUID) -> ApplicationDetailOut:
    return show_detail(one(selectors.applications(), application_id, "application"))


@router.get("", response=Page[ApplicationDetailOut] | Page[ApplicationOut])
def list_applications(request: HttpRequest, window: Query[Window]) -> Page[ApplicationDetailOut] | Page[ApplicationOut]:
    """Those that the caller may open; whoever has a role sees all."""
    found = caller(request)
    if found.sees_all:
        return page(selectors.applications(), window, show_detail)
    return page(portal.applications_of(found.user).order_by("name"), window, show)


@router.get("/{id}", response=ApplicationDetailOut | ApplicationOut)
def get_application(request: HttpRequest, id: UUID) -> ApplicationDetailOut | ApplicationOut:
    found = caller(request)
    return _detail(id) if found.sees_all else show(one(portal.applications_of(found.user), id, "application"))


@router.post("", response={201: ApplicationDetailOut})
def publish(request: HttpRequest, wish: ApplicationIn) -> ApplicationDetailOut:
    """Nobody may have it yet: `POST /entitlements` lets people in."""
    actor = staff(request, Right.OPERATE)
    made = services.publish(actor=actor, pool_id=wish.pool, **wish.model_dump(exclude={"pool"}))
    return _detail(made.pk)


@router.patch("/{id}", response=ApplicationDetailOut)
def change(request: HttpRequest, id: UUID, wish: ApplicationChange) -> ApplicationDetailOut:
    """What is open goes on as it began; once it is not offered any more (`is_enabled`) it closes."""
    actor = staff(request, Right.OPERATE)
    row = one(selectors.applications(), id, "application")
    named = wish.model_dump().items()
    services.change(
        actor=actor,
        application_id=id,
        **{name: getattr(row, name) if value is None else value for name, value in named},
    )
    return _detail(id)


@router.delete("/{id}", response={204: None})
def withdraw(request: HttpRequest, id: UUID) -> None:
    """Its entitlements go too, and what shows it closes. Desktops stay with those who have them."""
    services.withdraw(actor=staff(request, Right.OPERATE), application_id=id)
