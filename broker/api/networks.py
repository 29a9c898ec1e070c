"""Logical networks: what an administrator calls a network, and what it is on each hypervisor. Not for the help desk."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page
from broker.api.shapes import In, Out
from broker.models import LogicalNetwork
from broker.selectors import networks as selectors
from broker.services import networks as services

router = Router(tags=["networks"])


class CounterpartOut(Out):
    hypervisor: UUID
    network: UUID
    """As `/hypervisors/{id}/networks` lists it."""
    platform_id: str
    name: str
    is_isolated: bool
    """The platform itself keeps it apart."""


class LogicalNetworkOut(Out):
    id: UUID
    name: str
    description: str
    wants_isolation: bool
    counterparts: list[CounterpartOut]
    created_at: datetime


class CounterpartIn(In):
    hypervisor: UUID
    network: UUID | None
    """Null: none there."""


class LogicalNetworkIn(In):
    name: str
    description: str = ""
    wants_isolation: bool = False
    counterparts: list[CounterpartIn] = []


class LogicalNetworkChange(In):
    """What is not named stays, counterparts on other hypervisors too."""

    name: str | None = None
    description: str | None = None
    wants_isolation: bool | None = None
    counterparts: list[CounterpartIn] = []


def show(row: LogicalNetwork) -> LogicalNetworkOut:
    return LogicalNetworkOut(
        id=row.pk,
        name=row.name,
        description=row.description,
        wants_isolation=row.wants_isolation,
        counterparts=[
            CounterpartOut(
                hypervisor=mapping.hypervisor_id,
                network=mapping.network_id,
                platform_id=mapping.network.platform_id,
                name=mapping.network.name,
                is_isolated=mapping.network.is_isolated,
            )
            for mapping in row.mappings.all()
        ],
        created_at=row.created_at,
    )


def _named(counterparts: list[CounterpartIn]) -> dict[UUID, UUID | None]:
    return {one.hypervisor: one.network for one in counterparts}


@router.get("", response=Page[LogicalNetworkOut])
def list_networks(request: HttpRequest, window: Query[Window]) -> Page[LogicalNetworkOut]:
    staff(request, Right.REVIEW)
    return page(selectors.networks(), window, show)


@router.get("/{id}", response=LogicalNetworkOut)
def get_network(request: HttpRequest, id: UUID) -> LogicalNetworkOut:
    staff(request, Right.REVIEW)
    return show(one(selectors.networks(), id, "network"))


@router.post("", response={201: LogicalNetworkOut})
def create_network(request: HttpRequest, wish: LogicalNetworkIn) -> LogicalNetworkOut:
    row = services.create_network(
        actor=staff(request, Right.OPERATE),
        name=wish.name,
        description=wish.description,
        wants_isolation=wish.wants_isolation,
        counterparts=_named(wish.counterparts),
    )
    return show(one(selectors.networks(), row.pk, "network"))


@router.patch("/{id}", response=LogicalNetworkOut)
def change_network(request: HttpRequest, id: UUID, wish: LogicalNetworkChange) -> LogicalNetworkOut:
    """Machines that stand keep their networks."""
    actor = staff(request, Right.OPERATE)
    row = one(selectors.networks(), id, "network")
    services.change_network(
        actor=actor,
        network_id=id,
        name=row.name if wish.name is None else wish.name,
        description=row.description if wish.description is None else wish.description,
        wants_isolation=row.wants_isolation if wish.wants_isolation is None else wish.wants_isolation,
        counterparts=_named(wish.counterparts),
    )
    return show(one(selectors.networks(), id, "network"))


@router.delete("/{id}", response={204: None})
def delete_network(request: HttpRequest, id: UUID) -> None:
    """409 while a pool is on it. The platforms' networks are not touched."""
    services.delete_network(actor=staff(request, Right.OPERATE), network_id=id)
