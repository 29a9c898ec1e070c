"""Recovery points: read back, brought up as machines, deleted. Operators and auditors only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Field, Query, Router

from broker.api.access import Right, staff
from broker.api.pages import Page, Window, one, page_as_ordered
from broker.api.runs import RunOut, get_shown
from broker.api.shapes import In, Out
from broker.models import RecoveryPoint
from broker.selectors import replication as selectors
from broker.services import recovery as services

router = Router(tags=["replication"])

NICS_AT_MOST = 64


class NicOut(Out):
    model: str
    mac: str
    network: str
    """Its name where the machine stood."""


class DiskOut(Out):
    name: str
    bus: str
    size_bytes: int


class PointOut(Out):
    id: UUID
    """Also its name in the vault."""
    vault: UUID
    source: UUID | None
    policy: UUID | None
    machine_name: str
    hypervisor_name: str
    """Where it stood."""
    taken_at: datetime
    """When the state was current that it holds."""
    committed_at: datetime
    consistency: str
    """guest (its file systems were frozen), crash (as after a power cut), off (the machine was off)"""
    size_bytes: int
    new_bytes: int
    """What the vault had to take up for it."""
    state: str
    """usable, broken, deleting"""
    fault: str
    """What of it cannot be read back; empty if nothing is known."""
    verified_at: datetime | None
    """When all of it was read back last."""
    vcpus: int | None
    memory_mib: int | None
    firmware: str
    """bios, uefi"""
    nics: list[NicOut]
    disks: list[DiskOut]


class PointFilter(Window):
    source: UUID | None = None
    vault: UUID | None = None
    state: Literal["usable", "broken", "deleting"] | None = None
    machine_name: Annotated[str, Field(max_length=200)] = ""
    """A part of it."""


class MaterialiseIn(In):
    hypervisor_id: UUID
    """One whose `can_land` is true."""
    storage_id: UUID
    """Of `GET /hypervisors/{id}/storages`."""
    name: str
    network_ids: Annotated[list[UUID | None], Field(max_length=NICS_AT_MOST)] = []
    """Of `GET /hypervisors/{id}/networks`, one a NIC in order; null, and what is left out: not connected."""


def show_point(row: RecoveryPoint) -> PointOut:
    told: Mapping[str, Any] = row.configuration
    return PointOut(
        id=row.pk,
        vault=row.vault_id,
        source=row.source_id,
        policy=row.source.policy_id if row.source else None,
        machine_name=row.machine_name,
        hypervisor_name=row.hypervisor_name,
        taken_at=row.taken_at,
        committed_at=row.committed_at,
        consistency=row.consistency,
        size_bytes=row.size_bytes,
        new_bytes=row.new_bytes,
        state=row.state,
        fault=row.fault,
        verified_at=row.verified_at,
        vcpus=told.get("vcpus"),
        memory_mib=told.get("memory_mib"),
        firmware=told.get("firmware", ""),
        nics=[NicOut(**nic) for nic in told.get("nics", ())],
        disks=[DiskOut(name=d["name"], bus=d["bus"], size_bytes=d["size"]) for d in told.get("disks", ())],
    )


def _point(point_id: UUID) -> PointOut:
    return show_point(one(selectors.points(), point_id, "recovery point"))


@router.get("", response=Page[PointOut])
def list_recovery_points(request: HttpRequest, wanted: Query[PointFilter]) -> Page[PointOut]:
    """Newest first by `taken_at`."""
    staff(request, Right.REVIEW)
    found = selectors.PointFilter(
        source=wanted.source,
        vault=wanted.vault,
        state=wanted.state or "",
        text=wanted.machine_name.replace("\0", ""),
    )
    return page_as_ordered(found.apply(selectors.points()), wanted, show_point)


@router.get("/{id}", response=PointOut)
def get_recovery_point(request: HttpRequest, id: UUID) -> PointOut:
    staff(request, Right.REVIEW)
    return _point(id)


@router.post("/{id}/materialise", response={202: RunOut})
def materialise(request: HttpRequest, id: UUID, wish: MaterialiseIn) -> RunOut:
    """Have a machine made of it, powered off, on any hypervisor that can. 409 if the point is damaged."""
    run = services.materialise(actor=staff(request, Right.OPERATE), point_id=id, **wish.model_dump())
    return get_shown(run.pk)


@router.post("/{id}/verify", response={202: RunOut})
def verify(request: HttpRequest, id: UUID) -> RunOut:
    """Have all of it read back. 409 while that is under way."""
    return get_shown(services.verify_point(actor=staff(request, Right.OPERATE), point_id=id).pk)


@router.delete("/{id}", response={202: PointOut})
def delete_recovery_point(request: HttpRequest, id: UUID) -> PointOut:
    """A mover deletes it from its vault; its room is free after the next collection. 409 while it is read."""
    services.delete_point(actor=staff(request, Right.OPERATE), point_id=id)
    return _point(id)
