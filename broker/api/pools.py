"""Pools. Users see those they are entitled to, administrators all, with what is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from broker.api.access import administrator, caller
from broker.api.pages import Page, Window, one, page, page_of
from broker.api.shapes import In, Out
from broker.domain.resources import ResourceClass
from broker.models import Pool, PoolMember, PowerSchedule
from broker.selectors import pools as selectors
from broker.selectors import schedules
from broker.services import pools as services

router = Router(tags=["pools"])


class PoolOut(Out):
    id: UUID
    name: str
    description: str
    kind: str
    """floating, dedicated"""
    is_enabled: bool
    """False: closed for new requests."""
    closed_words: str
    """Why and until when, in an administrator's words; empty if nobody said."""
    created_at: datetime


class MemberOut(Out):
    id: UUID
    hypervisor: UUID
    copy_id: UUID
    weight: int
    minimum: int
    """Desktops that shall always stand there."""
    maximum: int | None
    storage: str
    """Platform id of where clones go; empty: where the copy lies."""
    hosts: list[str]
    """Platform ids of those that may be built on; empty: all."""
    networks: list[str]
    """Platform ids, one a NIC; empty: the pool's network, or as the template has them."""
    is_enabled: bool
    takes_shares: bool
    """Whether the platform knows shares of a host; if not, the pool's class orders the queues only."""
    hold_reason: str
    """Why nothing is built here for now; empty if it is."""


class PoolDetailOut(PoolOut):
    """A pool as administrators see it."""

    naming: str
    network_id: UUID | None
    """A logical network; null: as the templates have it."""
    minimum: int
    spare: int
    maximum: int
    maximum_per_host: int | None
    """Null: as many of its desktops on one host as fit."""
    vcpus: int | None
    """Null, as for `memory_mib`: as the template has it."""
    memory_mib: int | None
    is_linked: bool
    preparation: str
    prepare_timeout_s: int
    gives_seed: bool
    starts_powered_off: bool
    resource_class: str
    """critical, high, normal, low, or own: the five numbers that follow are the pool's own."""
    priority: int
    weight: int
    cpu_reservation_percent: int
    cpu_limit_percent: int
    memory_reservation_percent: int
    delete_budget_per_hour: int
    hold_reason: str
    """Why the broker stopped and asks; empty if it did not."""
    members: list[MemberOut]
    desktops: dict[str, int]
    """State -> how many live desktops are in it."""


class ScheduleOut(Out):
    """When the pool is switched on, or shut down where nobody uses it."""

    id: UUID
    name: str
    action: str
    """on, off"""
    reach: str
    """all, number, share (per cent): how many shall be on; with off always all that nobody uses."""
    amount: int | None
    at: str
    """HH:MM on the clock of `zone`."""
    zone: str
    """IANA name."""
    weekdays: list[int]
    """ISO: 1 is Monday."""
    calendar: str | None
    """Name of the calendar on whose days it does not run."""
    is_enabled: bool
    next_run_at: datetime | None
    """Null while it is paused."""
    last_run_at: datetime | None
    created_at: datetime


class MemberIn(In):
    copy_id: UUID
    """A copy of a template version; it says on which hypervisor the pool builds."""
    weight: int = 100
    minimum: int = 0
    maximum: int | None = None
    storage: str = ""
    hosts: list[str] = []
    networks: list[str] = []


class MemberChange(In):
    copy_id: UUID | None = None
    weight: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    """Null: no limit of its own."""
    storage: str | None = None
    hosts: list[str] | None = None
    networks: list[str] | None = None
    is_enabled: bool | None = None


class PoolChange(In):
    """What is not named stays as it is; null in `vcpus` and `memory_mib` means as the template has it."""

    name: str = ""
    description: str = ""
    naming: str = ""
    """Letters, digits and hyphens with one run of # for the number, such as office-###."""
    kind: str = Pool.Kind.FLOATING.value
    network_id: UUID | None = None
    minimum: int = 0
    spare: int = 1
    maximum: int = 10
    maximum_per_host: int | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    is_linked: bool = True
    preparation: str = Pool.Preparation.AGENT.value
    """agent: ready once the guest's agent answers; none: as soon as the machine stands."""
    prepare_timeout_s: int = 900
    gives_seed: bool = True
    starts_powered_off: bool = True
    resource_class: str = ResourceClass.NORMAL.value
    """critical, high, normal, low; own: by the five numbers that follow, which are refused beside another class."""
    priority: int = 50
    """1 to 100, smaller goes first in every queue."""
    weight: int = 100
    """1 to 10000, against other machines on a host that is short; 100 is normal."""
    cpu_reservation_percent: int = 0
    cpu_limit_percent: int = 100
    memory_reservation_percent: int = 0
    is_enabled: bool = True
    closed_words: str = ""
    """What users are told while it is not enabled."""
    delete_budget_per_hour: int = 30


class PoolIn(PoolChange):
    """What is left out has the default shown."""

    name: str
    naming: str
    members: list[MemberIn] = []


def show(row: Pool) -> PoolOut:
    return PoolOut(
        id=row.pk,
        name=row.name,
        description=row.description,
        kind=row.kind,
        is_enabled=row.is_enabled,
        closed_words=row.closed_words,
        created_at=row.created_at,
    )


def show_detail(row: Pool, desktops: Mapping[str, int]) -> PoolDetailOut:
    return PoolDetailOut(
        **show(row).model_dump(),
        naming=row.naming,
        network_id=row.network_id,
        minimum=row.minimum,
        spare=row.spare,
        maximum=row.maximum,
        maximum_per_host=row.maximum_per_host,
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        is_linked=row.is_linked,
        preparation=row.preparation,
        prepare_timeout_s=row.prepare_timeout_s,
        gives_seed=row.gives_seed,
        starts_powered_off=row.starts_powered_off,
        resource_class=row.resource_class,
        priority=row.priority,
        weight=row.weight,
        cpu_reservation_percent=row.cpu_reservation_percent,
        cpu_limit_percent=row.cpu_limit_percent,
        memory_reservation_percent=row.memory_reservation_percent,
        delete_budget_per_hour=row.delete_budget_per_hour,
        hold_reason=row.hold_reason,
        members=[show_member(member) for member in row.members.all()],
        desktops=dict(desktops),
    )


def show_member(row: PoolMember) -> MemberOut:
    return MemberOut(
        id=row.pk,
        hypervisor=row.hypervisor_id,
        copy_id=row.copy_id,
        weight=row.weight,
        minimum=row.minimum,
        maximum=row.maximum,
        storage=row.storage,
        hosts=row.hosts,
        networks=row.networks,
        is_enabled=row.is_enabled,
        takes_shares="ShareResources" in row.hypervisor.takes,
        hold_reason=row.hold_reason,
    )


def show_schedule(row: PowerSchedule) -> ScheduleOut:
    return ScheduleOut(
        id=row.pk,
        name=row.name,
        action=row.action,
        reach=row.reach,
        amount=row.amount,
        at=f"{row.at:%H:%M}",
        zone=row.zone,
        weekdays=[int(day) for day in row.weekdays],
        calendar=row.calendar.name if row.calendar else None,
        is_enabled=row.is_enabled,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        created_at=row.created_at,
    )


def show_details(rows: list[Pool]) -> list[PoolDetailOut]:
    counts = selectors.desktop_counts(row.pk for row in rows)
    return [show_detail(row, counts.get(row.pk, {})) for row in rows]


def _detail(pool_id: UUID) -> PoolDetailOut:
    return show_details([one(selectors.pools_with_members(), pool_id, "pool")])[0]


@router.get("", response=Page[PoolDetailOut] | Page[PoolOut])
def list_pools(request: HttpRequest, window: Query[Window]) -> Page[PoolDetailOut] | Page[PoolOut]:
    found = caller(request)
    if found.is_administrator:
        return page_of(selectors.pools_with_members(), window, show_details)
    return page(selectors.pools_entitled(found.user), window, show)


@router.get("/{id}", response=PoolDetailOut | PoolOut)
def get_pool(request: HttpRequest, id: UUID) -> PoolDetailOut | PoolOut:
    found = caller(request)
    if found.is_administrator:
        return _detail(id)
    return show(one(selectors.pools_entitled(found.user), id, "pool"))


@router.post("", response={201: PoolDetailOut})
def create_pool(request: HttpRequest, wish: PoolIn) -> PoolDetailOut:
    """The broker begins to fill it within moments."""
    actor = administrator(request)
    members = [
        services.MemberWish(m.copy_id, m.weight, m.maximum, tuple(m.networks), m.minimum, m.storage, tuple(m.hosts))
        for m in wish.members
    ]
    fields: services.PoolFields = wish.model_dump(exclude={"members"}, exclude_unset=True)  # type: ignore[assignment]
    return _detail(services.create_pool(actor=actor, members=members, **fields).pk)


@router.patch("/{id}", response=PoolDetailOut)
def change_pool(request: HttpRequest, id: UUID, wish: PoolChange) -> PoolDetailOut:
    actor = administrator(request)
    fields: services.PoolFields = wish.model_dump(exclude_unset=True)  # type: ignore[assignment]
    services.change_pool(actor=actor, pool_id=id, **fields)
    return _detail(id)


@router.delete("/{id}", response={204: None})
def delete_pool(request: HttpRequest, id: UUID) -> None:
    """409 while it has live desktops or somebody waits for one."""
    services.delete_pool(actor=administrator(request), pool_id=id)


@router.post("/{id}/resume", response=PoolDetailOut)
def resume_pool(request: HttpRequest, id: UUID) -> PoolDetailOut:
    """Let the broker go on after it stopped and asked."""
    services.resume_pool(actor=administrator(request), pool_id=id)
    return _detail(id)


@router.get("/{id}/schedules", response=Page[ScheduleOut])
def list_schedules(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[ScheduleOut]:
    """Administrators only."""
    administrator(request)
    pool = one(Pool.objects.all(), id, "pool")
    return page(schedules.schedules_of(pool.pk), window, show_schedule)


@router.post("/{id}/members", response={201: MemberOut})
def add_member(request: HttpRequest, id: UUID, wish: MemberIn) -> MemberOut:
    actor = administrator(request)
    return show_member(
        services.add_member(
            actor=actor,
            pool_id=id,
            copy_id=wish.copy_id,
            weight=wish.weight,
            minimum=wish.minimum,
            maximum=wish.maximum,
            storage=wish.storage,
            hosts=wish.hosts,
            networks=wish.networks,
        )
    )


@router.patch("/{id}/members/{member}", response=MemberOut)
def change_member(request: HttpRequest, id: UUID, member: UUID, wish: MemberChange) -> MemberOut:
    actor = administrator(request)
    one(selectors.members_of(id), member, "member")
    named = wish.model_dump(exclude_unset=True)
    # Null is a value for the limit only; elsewhere it says nothing.
    fields: services.MemberFields = {  # type: ignore[assignment]
        name: value for name, value in named.items() if value is not None or name == "maximum"
    }
    return show_member(services.change_member(actor=actor, member_id=member, **fields))


@router.delete("/{id}/members/{member}", response={204: None})
def remove_member(request: HttpRequest, id: UUID, member: UUID) -> None:
    """Nothing more is built there; its desktops stay until they are released or retired."""
    actor = administrator(request)
    one(selectors.members_of(id), member, "member")
    services.remove_member(actor=actor, member_id=member)
