"""Pools. Users see those they are entitled to, administrators all, with what is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Query, Router, Status

from broker.api.access import Right, caller, staff
from broker.api.pages import Page, Window, one, page, page_of
from broker.api.shapes import In, Out
from broker.domain.resources import ResourceClass
from broker.models import Pool, PoolMember, PoolOwner, PowerSchedule
from broker.selectors import people, schedules
from broker.selectors import pools as selectors
from broker.services import owners
from broker.services import pools as services
from broker.services.errors import Invalid

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
    approval: str
    """none: a request is served at once; owners: it waits for their word."""
    asks_why: str
    """no, optional, required: whether a request gives a reason."""
    asks_how_long: bool
    """Whether a request may ask for less than the longest lease."""
    lease_h: int | None
    """For how long a desktop is handed out, at most; null: until it is released."""
    renewals: int
    """How often its user may renew a lease."""
    renewal_h: int | None
    """By how much; null: by a whole lease."""
    created_at: datetime


class PoolFilter(Window):
    owned: bool = False
    """Only those that the caller owns, also through a group."""


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
    spare_percent: int | None
    """So many free for a hundred in use, at least `spare`; null: `spare` alone."""
    peak_weekdays: str
    """Days of the peak hours, 1 for Monday, such as 12345; empty: none, and what follows means nothing."""
    peak_begins: time | None
    peak_ends: time | None
    """Not after `peak_begins`: on the next day."""
    peak_zone: str
    """On whose clock, such as Europe/Berlin."""
    peak_minimum: int
    """In peak hours instead of `minimum`; likewise the following."""
    peak_spare: int
    peak_spare_percent: int | None
    is_peak: bool
    """Whether the numbers of the peak hours hold now."""
    holds_until: datetime | None
    """When the others begin to hold; null: never."""
    maximum: int
    seats: int
    """Of each session host of a shared pool: so many users at once. Spare counts seats there."""
    freshens_when_empty: bool
    """Shared: whether a session host gets a fresh disk when its last user has left."""
    maximum_per_host: int | None
    """Null: as many of its desktops on one host as fit."""
    vcpus: int | None
    """Null, as for `memory_mib`: as the template has it."""
    memory_mib: int | None
    is_linked: bool
    preparation: str
    """When a desktop is ready: agent, its guest's agent answers; rdp, its RDP server too; none, its machine stands."""
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
    protocol: str
    """vnc: the machine's screen; rdp: the guest's own remote desktop."""
    rdp_port: int
    asks_32_bpp: bool
    """The relay asks the guest for 32 bits a pixel, whatever the browser asked for."""
    has_clipboard: bool
    native_clients: bool
    """Whether its desktops may be opened in programs of their users' own."""
    guest_account: str
    """With rdp: ask, its user types it; pool, the pool's own, of which the password is never shown."""
    guest_user: str
    delete_budget_per_hour: int
    trusted_group: str | None
    """Requests of its members are approved at once."""
    notice_h: int
    """How long before the end of a lease its user is told."""
    grace_h: int
    """How long after the end a desktop still waits for its user."""
    reclaims: bool
    """Whether dedicated desktops are taken back too; floating ones always are."""
    idle_min: int | None
    """Minutes without a key or the mouse until a session is disconnected; null: never."""
    disconnected_min: int | None
    """Minutes that nobody is connected until it is logged off; null: never."""
    longest_min: int | None
    """Minutes after which a session is logged off whatever is done in it; null: never."""
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
    """floating, dedicated, or shared: several users at once on each desktop"""
    network_id: UUID | None = None
    minimum: int = 0
    spare: int = 1
    spare_percent: int | None = None
    """So many free for a hundred in use, at least `spare`; null: `spare` alone."""
    peak_weekdays: str = ""
    """1 for Monday, such as 12345; empty: there are no peak hours."""
    peak_begins: time | None = None
    peak_ends: time | None = None
    peak_zone: str = ""
    """Such as Europe/Berlin."""
    peak_minimum: int = 0
    peak_spare: int = 1
    peak_spare_percent: int | None = None
    maximum: int = 10
    seats: int = 8
    """Shared: how many users each session host takes at once, 1 to 200. Spare counts seats there."""
    freshens_when_empty: bool = True
    """Shared: a session host gets a fresh disk when its last user has left."""
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
    protocol: str = Pool.Protocol.VNC.value
    """vnc: the machine's screen; rdp: the guest's own remote desktop."""
    rdp_port: int = 3389
    asks_32_bpp: bool = True
    has_clipboard: bool = True
    native_clients: bool = False
    guest_account: str = Pool.GuestAccount.ASK.value
    """With rdp: ask, its user types it; pool, by `guest_user` and `guest_password`, which no browser gets to see;
    local, by `guest_user` with a password for each assignment, which the platform sets in the guest."""
    guest_user: str = ""
    guest_password: str | None = None
    """Null: the one there is stays; empty: none."""
    delete_budget_per_hour: int = 30
    approval: str = Pool.Approval.NONE.value
    """none: a request is served at once; owners: one of them, or an administrator, approves it."""
    trusted_group: str | None = None
    """Name of the group whose members' requests are approved at once."""
    asks_why: str = Pool.Asks.NO.value
    """no, optional, required"""
    asks_how_long: bool = False
    """Whether people may choose less than `lease_h`."""
    lease_h: int | None = None
    """Null: until it is released."""
    renewals: int = 0
    renewal_h: int | None = None
    """Null: by a whole lease."""
    notice_h: int = 24
    grace_h: int = 0
    reclaims: bool = False
    idle_min: int | None = None
    """Null: never; likewise below."""
    disconnected_min: int | None = None
    longest_min: int | None = None


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
        approval=row.approval,
        asks_why=row.asks_why,
        asks_how_long=row.asks_how_long,
        lease_h=row.lease_h,
        renewals=row.renewals,
        renewal_h=row.renewal_h,
        created_at=row.created_at,
    )


def show_detail(row: Pool, desktops: Mapping[str, int]) -> PoolDetailOut:
    holding = row.holding(timezone.now())
    return PoolDetailOut(
        **show(row).model_dump(),
        naming=row.naming,
        network_id=row.network_id,
        minimum=row.minimum,
        spare=row.spare,
        spare_percent=row.spare_percent,
        peak_weekdays=row.peak_weekdays,
        peak_begins=row.peak_begins,
        peak_ends=row.peak_ends,
        peak_zone=row.peak_zone,
        peak_minimum=row.peak_minimum,
        peak_spare=row.peak_spare,
        peak_spare_percent=row.peak_spare_percent,
        is_peak=holding.is_peak,
        holds_until=holding.until,
        maximum=row.maximum,
        seats=row.seats,
        freshens_when_empty=row.freshens_when_empty,
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
        protocol=row.protocol,
        rdp_port=row.rdp_port,
        asks_32_bpp=row.asks_32_bpp,
        has_clipboard=row.has_clipboard,
        native_clients=row.native_clients,
        guest_account=row.guest_account,
        guest_user=row.guest_user,
        delete_budget_per_hour=row.delete_budget_per_hour,
        trusted_group=row.trusted_group.name if row.trusted_group else None,
        notice_h=row.notice_h,
        grace_h=row.grace_h,
        reclaims=row.reclaims,
        idle_min=row.idle_min,
        disconnected_min=row.disconnected_min,
        longest_min=row.longest_min,
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
def list_pools(request: HttpRequest, wanted: Query[PoolFilter]) -> Page[PoolDetailOut] | Page[PoolOut]:
    """Those that the caller may have desktops of; whoever has a role sees all."""
    found = caller(request)
    if wanted.owned:
        return page(selectors.pools_owned(found.user), wanted, show)
    if found.sees_all:
        return page_of(selectors.pools_with_members(), wanted, show_details)
    return page(selectors.pools_entitled(found.user), wanted, show)


@router.get("/{id}", response=PoolDetailOut | PoolOut)
def get_pool(request: HttpRequest, id: UUID) -> PoolDetailOut | PoolOut:
    found = caller(request)
    if found.sees_all:
        return _detail(id)
    return show(one(selectors.pools_seen_by(found.user), id, "pool"))


@router.post("", response={201: PoolDetailOut})
def create_pool(request: HttpRequest, wish: PoolIn) -> PoolDetailOut:
    """The broker begins to fill it within moments."""
    actor = staff(request, Right.OPERATE)
    members = [
        services.MemberWish(m.copy_id, m.weight, m.maximum, tuple(m.networks), m.minimum, m.storage, tuple(m.hosts))
        for m in wish.members
    ]
    fields = _fields(wish.model_dump(exclude={"members"}, exclude_unset=True))
    return _detail(services.create_pool(actor=actor, members=members, **fields).pk)


@router.patch("/{id}", response=PoolDetailOut)
def change_pool(request: HttpRequest, id: UUID, wish: PoolChange) -> PoolDetailOut:
    actor = staff(request, Right.OPERATE)
    services.change_pool(actor=actor, pool_id=id, **_fields(wish.model_dump(exclude_unset=True)))
    return _detail(id)


def _fields(named: dict[str, Any]) -> services.PoolFields:
    """As the service takes them: a group by its id. Raises `Invalid` for an unknown one."""
    if "trusted_group" in named:
        name = named.pop("trusted_group")
        group = people.group_named(name) if name is not None else None
        if name is not None and group is None:
            raise Invalid("Nothing was changed.", {"trusted_group": "There is no such group."})
        named["trusted_group_id"] = group.pk if group else None
    return named  # type: ignore[return-value]


@router.delete("/{id}", response={204: None})
def delete_pool(request: HttpRequest, id: UUID) -> None:
    """409 while it has live desktops or somebody waits for one."""
    services.delete_pool(actor=staff(request, Right.OPERATE), pool_id=id)


@router.post("/{id}/resume", response=PoolDetailOut)
def resume_pool(request: HttpRequest, id: UUID) -> PoolDetailOut:
    """Let the broker go on after it stopped and asked."""
    services.resume_pool(actor=staff(request, Right.OPERATE), pool_id=id)
    return _detail(id)


class OwnerOut(Out):
    """Who decides on the pool's requests."""

    id: UUID
    user: str | None
    """Name of the user; null if a group owns it."""
    group: str | None
    created_at: datetime


class OwnerIn(In):
    user: str | None = None
    """Name of a user. Give this or a group."""
    group: str | None = None


def show_owner(row: PoolOwner) -> OwnerOut:
    return OwnerOut(
        id=row.pk,
        user=row.user.get_username() if row.user else None,
        group=row.group.name if row.group else None,
        created_at=row.created_at,
    )


@router.get("/{id}/owners", response=Page[OwnerOut])
def list_owners(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[OwnerOut]:
    """For every role."""
    staff(request)
    pool = one(Pool.objects.all(), id, "pool")
    return page(selectors.owners_of(pool.pk), window, show_owner)


@router.post("/{id}/owners", response={200: OwnerOut, 201: OwnerOut})
def add_owner(request: HttpRequest, id: UUID, wish: OwnerIn) -> Status[OwnerOut]:
    """200 with the standing one if there is one. Administrators only."""
    actor = staff(request, Right.OPERATE)
    user = people.user_named(wish.user) if wish.user is not None else None
    group = people.group_named(wish.group) if wish.group is not None else None
    if wish.user is not None and user is None:
        raise Invalid("Nobody was made an owner.", {"user": "There is no such user."})
    if wish.group is not None and group is None:
        raise Invalid("Nobody was made an owner.", {"group": "There is no such group."})
    row, is_new = owners.appoint(
        actor=actor, pool_id=id, user_id=user.pk if user else None, group_id=group.pk if group else None
    )
    return Status(201 if is_new else 200, show_owner(row))


@router.delete("/{id}/owners/{owner}", response={204: None})
def remove_owner(request: HttpRequest, id: UUID, owner: UUID) -> None:
    """What they decided stays. Administrators only."""
    actor = staff(request, Right.OPERATE)
    one(selectors.owners_of(id), owner, "owner")
    owners.dismiss(actor=actor, owner_id=owner)


@router.get("/{id}/schedules", response=Page[ScheduleOut])
def list_schedules(request: HttpRequest, id: UUID, window: Query[Window]) -> Page[ScheduleOut]:
    """For every role."""
    staff(request)
    pool = one(Pool.objects.all(), id, "pool")
    return page(schedules.schedules_of(pool.pk), window, show_schedule)


@router.post("/{id}/members", response={201: MemberOut})
def add_member(request: HttpRequest, id: UUID, wish: MemberIn) -> MemberOut:
    actor = staff(request, Right.OPERATE)
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
    actor = staff(request, Right.OPERATE)
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
    actor = staff(request, Right.OPERATE)
    one(selectors.members_of(id), member, "member")
    services.remove_member(actor=actor, member_id=member)
