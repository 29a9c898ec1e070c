"""Pools: what shall exist and where it may be built. A change writes rows; the reconciler carries it out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import time
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from broker.domain import naming, resources, schedules
from broker.domain.leases import LONGEST_H
from broker.domain.lifecycle import LIVE, State
from broker.domain.resources import ResourceClass, Share
from broker.domain.scaling import PERCENT_LIMIT
from broker.domain.seating import SEATS_LIMIT
from broker.hypervisors import sealing
from broker.models import (
    Assignment,
    Desktop,
    Host,
    Hypervisor,
    LogicalNetwork,
    Network,
    Pool,
    PoolMember,
    Request,
    Storage,
    TemplateCopy,
)
from broker.services import approvals, audit, guest_passwords, guests, history, leases, nudges, sessions
from broker.services.errors import Clash
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "There is already a pool of that name."
NAMING_LENGTH = 60
CLOSED_LENGTH = 300
GUEST_NAME_LENGTH = 200
GUEST_PASSWORD_LENGTH = 500
POOL_LIMIT = 100_000
"""Desktops of one pool."""
TIMER_LIMIT_MIN = 60 * 24 * 90
"""Sessions that may last longer need no timer."""


@dataclass(frozen=True, slots=True)
class MemberWish:
    """Where a pool shall be able to build. Storage, hosts and networks are named by their platform ids.

    `storage`: empty, where the copy lies. `hosts`: empty, all. `networks`: one a NIC; empty, as the template has them.
    """

    copy_id: UUID
    weight: int = 100
    maximum: int | None = None
    networks: tuple[str, ...] = ()
    minimum: int = 0
    storage: str = ""
    hosts: tuple[str, ...] = ()


class PoolFields(TypedDict, total=False):
    """What a pool's page lets people set, all optional. `vcpus` and `memory_mib` None: as the template has them.

    Priority, weight and the percentages follow the resource class. To name one of them without a class makes them the
    pool's own.
    """

    name: str
    description: str
    naming: str
    kind: str
    seats: int
    freshens_when_empty: bool
    network_id: UUID | None
    minimum: int
    spare: int
    spare_percent: int | None
    peak_weekdays: str
    """Empty: no peak hours."""
    peak_begins: time | None
    peak_ends: time | None
    peak_zone: str
    peak_minimum: int
    peak_spare: int
    peak_spare_percent: int | None
    maximum: int
    maximum_per_host: int | None
    vcpus: int | None
    memory_mib: int | None
    is_linked: bool
    preparation: str
    prepare_timeout_s: int
    gives_seed: bool
    starts_powered_off: bool
    resource_class: str
    priority: int
    weight: int
    cpu_reservation_percent: int
    cpu_limit_percent: int
    memory_reservation_percent: int
    is_enabled: bool
    closed_words: str
    protocol: str
    rdp_port: int
    asks_32_bpp: bool
    has_clipboard: bool
    native_clients: bool
    guest_account: str
    guest_user: str
    guest_password: str | None
    """None: the one there is stays; empty: none."""
    delete_budget_per_hour: int
    approval: str
    trusted_group_id: int | None
    asks_why: str
    asks_how_long: bool
    lease_h: int | None
    renewals: int
    renewal_h: int | None
    notice_h: int
    grace_h: int
    reclaims: bool
    idle_min: int | None
    disconnected_min: int | None
    longest_min: int | None


class MemberFields(TypedDict, total=False):
    """What can be changed of a member, all optional. `copy_id` must lie on the member's own hypervisor."""

    copy_id: UUID
    weight: int
    minimum: int
    maximum: int | None
    storage: str
    hosts: Sequence[str]
    networks: Sequence[str]
    is_enabled: bool


def create_pool(*, actor: User, members: Sequence[MemberWish] = (), **fields: Unpack[PoolFields]) -> Pool:
    """A pool with its members; the reconciler begins to fill it within moments.

    Needs `name` and `naming`; what is left out has the model's default. Raises `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    intake = Intake()
    pool = Pool()
    values = _cleaned(intake, pool, {"name": "", "naming": "", **fields})
    copies = _copies(intake, members)
    _local_account(intake, pool, values, [copy.hypervisor for copy in copies.values()])
    _minimums(intake, sum(wish.minimum for wish in members), values.get("maximum", pool.maximum), "member_minimum")
    intake.refuse_faults("The pool was not created.")
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        for field, value in values.items():
            setattr(pool, field, value)
        pool.next_reconcile_at = timezone.now()
        pool.save(force_insert=True)
        changes = {field: [None, _plain(value)] for field, value in values.items() if value != b""}
        audit.record(actor=actor, action="pool.create", subject=pool, changes=changes)
        for wish in members:
            _add(actor, pool, copies[wish.copy_id], wish)
        _reconcile(pool)
    return pool


def change_pool(*, actor: User, pool_id: UUID, **fields: Unpack[PoolFields]) -> Pool:
    """Change what is named; the rest stays. Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        pool = locked(Pool.objects.all(), pool_id, "pool")
        intake = Intake()
        values = _cleaned(intake, pool, fields)
        _local_account(intake, pool, values, list(Hypervisor.objects.filter(members__pool=pool)))
        _minimums(intake, _promised(pool), values.get("maximum", pool.maximum), "maximum")
        intake.refuse_faults("The pool was not changed.")
        if changes := alter(pool, values):
            shown = {field: [_plain(before), _plain(after)] for field, (before, after) in changes.items()}
            audit.record(actor=actor, action="pool.change", subject=pool, changes=shown)
            if "approval" in changes and pool.approval == Pool.Approval.NONE:
                approvals.let_through(actor=actor, pool=pool)
            if changes.keys() & leases.DECIDES_THE_END:
                leases.terms_changed(pool)
            if changes.keys() & TIMERS:
                sessions.timers_changed(pool.pk)
            _reconcile(pool)
    return pool


def enable_pool(*, actor: User, pool_id: UUID, on: bool, words: str = "") -> Pool:
    """Off: nothing new is built and nothing is given out; what is in use stays. `words`: what users are told of it."""
    return change_pool(actor=actor, pool_id=pool_id, is_enabled=on, closed_words="" if on else words)


def resume_pool(*, actor: User, pool_id: UUID) -> Pool:
    """Let the reconciler go on after it stopped and asked, and forget the members' failed builds."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        changes = alter(pool, {"hold_reason": ""})
        if changes:
            alter(pool, {"resumed_at": timezone.now()})
        for member in pool.members.select_for_update():
            held = alter(member, {"hold_until": None, "hold_reason": "", "failures": 0})
            if "hold_reason" in held:
                changes[f"hold on {member.hypervisor}"] = held["hold_reason"]
        if changes:
            audit.record(actor=actor, action="pool.resume", subject=pool, changes=changes)
        _reconcile(pool)
    return pool


def delete_pool(*, actor: User, pool_id: UUID) -> None:
    """Delete a pool with its members, entitlements and history; the audit is kept.

    Raises `Clash` while it has live desktops or people wait for one.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        if live := Desktop.objects.filter(pool=pool, state__in=LIVE).count():
            raise Clash(f"{pool} still has live desktops ({live}). Set its sizes to 0, or retire them, first.")
        if waiting := Request.objects.filter(pool=pool, state__in=Request.OPEN).count():
            raise Clash(f"{pool} still has open requests ({waiting}). Cancel them or withdraw the entitlements first.")
        audit.record(actor=actor, action="pool.delete", subject=pool)
        history.forget_gone_desktops(Desktop.objects.filter(pool=pool))
        if Desktop.objects.filter(pool=pool).exists() or Assignment.objects.filter(pool=pool, until=None).exists():
            raise Clash(f"The last desktop of {pool} is just being cleared away. Try again in a moment.")
        Assignment.objects.filter(pool=pool).delete()
        Request.objects.filter(pool=pool).delete()
        pool.delete()
        nudges.announce("pools")


def add_member(
    *,
    actor: User,
    pool_id: UUID,
    copy_id: UUID,
    weight: int = 100,
    minimum: int = 0,
    maximum: int | None = None,
    storage: str = "",
    hosts: Sequence[str] = (),
    networks: Sequence[str] = (),
) -> PoolMember:
    """Let the pool build on the copy's hypervisor too; one member a hypervisor.

    Raises `Missing`, `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    wish = MemberWish(copy_id, weight, maximum, tuple(networks), minimum, storage, tuple(hosts))
    with transaction.atomic():
        pool = locked(Pool.objects.all(), pool_id, "pool")
        intake = Intake()
        copies = _copies(intake, [wish], pool=pool)
        _minimums(intake, _promised(pool) + minimum, pool.maximum, "member_minimum")
        intake.refuse_faults("The member was not added.")
        member = _add(actor, pool, copies[copy_id], wish)
        _reconcile(pool)
    return member


def change_member(*, actor: User, member_id: UUID, **fields: Unpack[MemberFields]) -> PoolMember:
    """Change what is named; the rest stays. A new copy holds for desktops built or recycled from now on."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        member = locked(PoolMember.objects.select_related("pool", "hypervisor", "copy"), member_id, "member")
        wish = MemberWish(
            fields.get("copy_id", member.copy_id),
            fields.get("weight", member.weight),
            fields.get("maximum", member.maximum),
            tuple(fields.get("networks", member.networks)),
            fields.get("minimum", member.minimum),
            fields.get("storage", member.storage),
            tuple(fields.get("hosts", member.hosts)),
        )
        intake = Intake()
        copy = _copies(intake, [wish]).get(wish.copy_id)
        if copy and copy.hypervisor_id != member.hypervisor_id:
            intake.faults["copy"] = f"This copy does not lie on {member.hypervisor}."
        promised = _promised(member.pool) - member.minimum + wish.minimum
        _minimums(intake, promised, member.pool.maximum, "member_minimum")
        intake.refuse_faults("The member was not changed.")
        wanted = {
            "copy_id": wish.copy_id, "weight": wish.weight, "minimum": wish.minimum, "maximum": wish.maximum,
            "storage": wish.storage, "hosts": list(wish.hosts), "networks": list(wish.networks),
            "is_enabled": fields.get("is_enabled", member.is_enabled),
        }  # fmt: skip
        if changes := alter(member, wanted):
            shown = {field: [_plain(before), _plain(after)] for field, (before, after) in changes.items()}
            audit.record(actor=actor, action="pool.change_member", subject=member, changes=shown)
            _reconcile(member.pool)
    return member


def take_copy(member: PoolMember, copy: TemplateCopy) -> None:
    """The member builds from this copy of its own hypervisor from now on. Inside a transaction; `member` with its
    `pool` and `copy`."""
    before = str(member.copy)
    if alter(member, {"copy": copy}):
        changes = {"copy": [before, str(copy)]}
        audit.record(actor=None, action="pool.change_member", subject=member, changes=changes)
        _reconcile(member.pool)


def join(pool: Pool, copy: TemplateCopy) -> PoolMember:
    """The pool builds on the copy's hypervisor too. Inside a transaction. Raises `Invalid` if it does already."""
    member = _add(None, pool, copy, MemberWish(copy.pk))
    _reconcile(pool)
    return member


def remove_member(*, actor: User, member_id: UUID) -> None:
    """The pool builds nothing more there; its desktops there stay until they are released or retired."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        member = locked(PoolMember.objects.select_related("pool", "hypervisor"), member_id, "member")
        pool = member.pool
        audit.record(actor=actor, action="pool.remove_member", subject=member)
        member.delete()
        _reconcile(pool)


def _cleaned(intake: Intake, pool: Pool, fields: PoolFields) -> dict[str, Any]:
    """The named fields as they shall be stored; what contradicts the pool's other values is a fault."""
    values: dict[str, Any] = dict(fields)
    others = Pool.objects.exclude(pk=pool.pk)
    if "name" in fields:
        values["name"] = intake.free_name("name", intake.name("name", fields["name"]), others, "pool")
    if "naming" in fields or "maximum" in fields:
        values["naming"] = _naming(intake, pool, values, others)
    if "description" in fields:
        values["description"] = intake.text("description", fields["description"])
    if fields.get("is_enabled"):
        values.setdefault("closed_words", "")  # said of a time that is over
    if "closed_words" in fields:
        values["closed_words"] = intake.line("closed_words", fields["closed_words"], length=CLOSED_LENGTH)
    if "kind" in fields:
        intake.choice("kind", fields["kind"], Pool.Kind)
        _kind(intake, pool, fields["kind"])
    network_id = fields.get("network_id")
    if network_id and not LogicalNetwork.objects.filter(pk=network_id).exists():
        intake.faults["network_id"] = "There is no such network."
    if "preparation" in fields:
        intake.choice("preparation", fields["preparation"], Pool.Preparation)
    waits_for_rdp = values.get("preparation", pool.preparation) == Pool.Preparation.RDP
    if waits_for_rdp and values.get("protocol", pool.protocol) != Pool.Protocol.RDP:
        field = "preparation" if "preparation" in fields else "protocol"
        intake.faults.setdefault(field, "Only where the guest's remote desktop (RDP) is shown can it be waited for.")
    _guests(intake, pool, values)
    _session_hosts(intake, pool, values)
    _whole_numbers(intake, values)
    _leases(intake, pool, values)
    _resources(intake, pool, values)
    _sizes(intake, pool, values)
    return values


def _kind(intake: Intake, pool: Pool, kind: str) -> None:
    """Whoever has a whole desktop cannot be put beside others, nor can those beside each other get one each."""
    if Pool.Kind.SHARED not in (kind, pool.kind) or kind == pool.kind:
        return
    is_used = Desktop.objects.filter(pool=pool.pk, state=State.ASSIGNED).exists()
    if is_used or Assignment.objects.filter(pool=pool.pk, until=None).exists():
        words = "Desktops of it are in use. Take them back before they become session hosts, or stop being some."
        intake.faults.setdefault("kind", words)


def _session_hosts(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    """What users who share a machine cannot have."""
    if values.get("kind", pool.kind) != Pool.Kind.SHARED:
        return
    if values.get("protocol", pool.protocol) != Pool.Protocol.RDP:
        words = "Users of a session host each see their own remote desktop (RDP); the machine has one screen for all."
        intake.faults.setdefault("protocol" if "protocol" in values else "kind", words)
    if values.get("guest_account", pool.guest_account) != Pool.GuestAccount.ASK:
        words = "On a session host everybody signs in as themselves: with one account for all they would share files."
        intake.faults.setdefault("guest_account" if "guest_account" in values else "kind", words)


def _guests(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    """How its desktops are shown, and as whom their guests let people in."""
    if "protocol" in values:
        intake.choice("protocol", values["protocol"], Pool.Protocol)
    if "guest_account" in values:
        intake.choice("guest_account", values["guest_account"], Pool.GuestAccount)
    if "guest_user" in values:
        values["guest_user"] = intake.line("guest_user", values["guest_user"], length=GUEST_NAME_LENGTH)
    password = values.pop("guest_password", None)
    if password is not None:
        if len(password) > GUEST_PASSWORD_LENGTH or not password.isprintable():
            intake.faults["guest_password"] = f"At most {GUEST_PASSWORD_LENGTH} printable characters on one line."
        values["guest_secret"] = sealing.seal({guests.PASSWORD: password}) if password else b""
    signs_in = values.get("guest_account", pool.guest_account) != Pool.GuestAccount.ASK
    if signs_in and not values.get("guest_user", pool.guest_user):
        intake.faults.setdefault("guest_user", "Give the name of the account that the guests know.")
    if signs_in and values.get("native_clients", pool.native_clients):
        field = "native_clients" if "native_clients" in values else "guest_account"
        intake.faults.setdefault(field, "Programs of users' own need users who sign in themselves.")


def _local_account(intake: Intake, pool: Pool, values: dict[str, Any], where: Collection[Hypervisor]) -> None:
    """Passwords of guests' accounts are set by their platforms. Where a pool builds nowhere yet, nothing is refused."""
    named = values.keys() & {"guest_account", "protocol"}
    is_local = values.get("guest_account", pool.guest_account) == Pool.GuestAccount.LOCAL
    if not named or not is_local or values.get("protocol", pool.protocol) != Pool.Protocol.RDP:
        return
    if where and not any(guest_passwords.can_set(hypervisor) for hypervisor in where):
        names = ", ".join(sorted(hypervisor.name for hypervisor in where))
        words = f"Nowhere that it builds can passwords be set in guests: not on {names}."
        intake.faults.setdefault("guest_account", words)


def _naming(intake: Intake, pool: Pool, values: dict[str, Any], others: QuerySet[Pool]) -> str:
    pattern: str = values.get("naming", pool.naming).strip()
    if fault := naming.validate(pattern, values.get("maximum", pool.maximum)):
        intake.faults["naming"] = fault
    elif len(pattern) > NAMING_LENGTH:
        intake.faults["naming"] = f"At most {NAMING_LENGTH} characters; these are {len(pattern)}."
    elif other := others.filter(naming__iexact=pattern).first():
        # Two pools that count in one pattern would forever take each other's names.
        intake.faults["naming"] = f"The pool {other} already names its desktops so."
    return pattern


TIMERS = frozenset({"idle_min", "disconnected_min", "longest_min", "kind"})
"""What of a pool decides when sessions end."""
LIMITS = {
    "seats": (1, SEATS_LIMIT),
    "minimum": (0, POOL_LIMIT),
    "spare": (0, POOL_LIMIT),
    "spare_percent": (1, PERCENT_LIMIT),
    "peak_minimum": (0, POOL_LIMIT),
    "peak_spare": (0, POOL_LIMIT),
    "peak_spare_percent": (1, PERCENT_LIMIT),
    "maximum": (0, POOL_LIMIT),
    "maximum_per_host": (1, POOL_LIMIT),
    "vcpus": (1, 1024),
    "memory_mib": (16, 64 * 1024 * 1024),
    "prepare_timeout_s": (10, 24 * 3600),
    "priority": (1, 100),
    "weight": (1, 10_000),
    "cpu_reservation_percent": (0, 100),
    "cpu_limit_percent": (1, 100),
    "memory_reservation_percent": (0, 100),
    "rdp_port": (1, 65_535),
    "delete_budget_per_hour": (0, POOL_LIMIT),
    "lease_h": (1, LONGEST_H),
    "renewals": (0, 1000),
    "renewal_h": (1, LONGEST_H),
    "notice_h": (1, LONGEST_H),
    "grace_h": (0, LONGEST_H),
    "idle_min": (1, TIMER_LIMIT_MIN),
    "disconnected_min": (1, TIMER_LIMIT_MIN),
    "longest_min": (1, TIMER_LIMIT_MIN),
}


def _whole_numbers(intake: Intake, values: dict[str, Any]) -> None:
    for field, (lowest, highest) in LIMITS.items():
        if values.get(field) is not None:
            intake.whole(field, values[field], lowest=lowest, highest=highest)


def _leases(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    """What a pool says of requests and leases."""
    if "approval" in values:
        intake.choice("approval", values["approval"], Pool.Approval)
    if "asks_why" in values:
        intake.choice("asks_why", values["asks_why"], Pool.Asks)
    group_id = values.get("trusted_group_id")
    if group_id is not None and not Group.objects.filter(pk=group_id).exists():
        intake.faults["trusted_group_id"] = "There is no such group."
    if values.get("asks_how_long", pool.asks_how_long) and values.get("lease_h", pool.lease_h) is None:
        field = "lease_h" if "lease_h" in values else "asks_how_long"
        intake.faults[field] = "Say how long a lease may be at most: people are asked for how long they need one."


def _resources(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    """The numbers that follow from the class, or the pool's own ones."""
    named = [field for field in resources.NUMBERS if field in values]
    if "resource_class" not in values and not named:
        return
    chosen = values.setdefault("resource_class", ResourceClass.OWN.value)
    if chosen not in list(ResourceClass):
        intake.faults["resource_class"] = f"One of: {', '.join(ResourceClass)}."
    elif chosen == ResourceClass.OWN:
        share = Share(**{field.name: values.get(field.name, getattr(pool, field.name)) for field in fields_of(Share)})
        if fault := resources.fault_of(share):
            intake.faults.setdefault("cpu_reservation_percent", fault)
    else:
        numbers = resources.numbers_of(ResourceClass(chosen))
        for field in named:
            if values[field] != numbers[field]:
                words = f"The class {chosen} has {numbers[field]}. Choose own numbers to differ."
                intake.faults.setdefault(field, words)
        values |= numbers


def _sizes(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    _peak(intake, pool, values)
    sizes = ("minimum", "spare", "peak_minimum", "peak_spare")
    if not values.keys() & {*sizes, "maximum", "kind", "seats"}:
        return
    maximum = values.get("maximum", pool.maximum)
    is_shared = values.get("kind", pool.kind) == Pool.Kind.SHARED
    seats = maximum * (values.get("seats", pool.seats) if is_shared else 1)
    has_peak = bool(values.get("peak_weekdays", pool.peak_weekdays))
    for field in sizes if has_peak else sizes[:2]:
        limit = seats if "spare" in field else maximum
        if values.get(field, getattr(pool, field)) > limit:
            what = f"seats of the maximum ({limit})" if is_shared and "spare" in field else f"maximum ({limit})"
            intake.faults.setdefault(field, f"Not more than the {what}.")


def _peak(intake: Intake, pool: Pool, values: dict[str, Any]) -> None:
    """Peak hours are whole or not there."""
    days = values.get("peak_weekdays", pool.peak_weekdays)
    if not days or not values.keys() & {"peak_weekdays", "peak_begins", "peak_ends", "peak_zone"}:
        return
    if days != schedules.weekdays_of(int(day) for day in days if day in schedules.WEEKDAYS):
        intake.faults["peak_weekdays"] = "Weekdays from 1 (Monday) to 7, in order."
    if values.get("peak_zone", pool.peak_zone) not in schedules.zones():
        intake.faults["peak_zone"] = "Choose a time zone such as Europe/Berlin."
    for field in ("peak_begins", "peak_ends"):
        if values.get(field, getattr(pool, field)) is None:
            intake.faults[field] = "Give a time of day."


def _copies(intake: Intake, wishes: Sequence[MemberWish], *, pool: Pool | None = None) -> dict[UUID, TemplateCopy]:
    """The copies that are wished for; unknown ones, two on one hypervisor and wrong numbers are faults."""
    ids = [wish.copy_id for wish in wishes]
    copies = TemplateCopy.objects.select_related("hypervisor", "version__template").in_bulk(ids)
    taken = set(pool.members.values_list("hypervisor_id", flat=True)) if pool else set()
    for wish in wishes:
        copy = copies.get(wish.copy_id)
        if copy is None:
            intake.faults["copy"] = "There is no such template copy."
            continue
        if copy.hypervisor_id in taken:
            intake.faults["copy"] = f"{copy.hypervisor} is already a member. Change that member instead."
        taken.add(copy.hypervisor_id)
        intake.whole("weight", wish.weight, lowest=1, highest=10_000)
        intake.whole("member_minimum", wish.minimum, highest=POOL_LIMIT)
        if wish.maximum is not None:
            intake.whole("member_maximum", wish.maximum, highest=POOL_LIMIT)
            if wish.minimum > wish.maximum:
                intake.faults.setdefault("member_minimum", f"Not more than its maximum ({wish.maximum}).")
        _known(intake, "networks", copy.hypervisor, Network, wish.networks)
        _known(intake, "hosts", copy.hypervisor, Host, wish.hosts)
        _known(intake, "storage", copy.hypervisor, Storage, [wish.storage] if wish.storage else [])
    return copies


def _known(
    intake: Intake,
    field: str,
    hypervisor: Hypervisor,
    listed: type[Network | Host | Storage],
    named: Sequence[str],
) -> None:
    # Compared here, not in the database: what was typed may not even be text to it.
    rows = listed._default_manager.filter(hypervisor=hypervisor)
    known = set(rows.values_list("platform_id", flat=True)) if named else set()
    if unknown := [one for one in named if one not in known]:
        intake.faults[field] = f"{hypervisor} has no {listed._meta.verbose_name} {unknown[0][:100]!r}."


def _promised(pool: Pool) -> int:
    """What the members' minimums make together."""
    return sum(pool.members.values_list("minimum", flat=True))


def _minimums(intake: Intake, promised: int, maximum: int, field: str) -> None:
    if promised > maximum:
        words = f"The members' minimums make {promised} together, and the pool's maximum is {maximum}."
        intake.faults.setdefault(field, words)


def _add(actor: User | None, pool: Pool, copy: TemplateCopy, wish: MemberWish) -> PoolMember:
    with refusing_duplicates("copy", f"{copy.hypervisor} is already a member. Change that member instead."):
        member = PoolMember.objects.create(
            pool=pool, hypervisor=copy.hypervisor, copy=copy, weight=wish.weight, minimum=wish.minimum,
            maximum=wish.maximum, storage=wish.storage, hosts=list(wish.hosts), networks=list(wish.networks),
        )  # fmt: skip
    changes = {
        "copy": [None, str(copy)], "weight": [None, wish.weight], "minimum": [None, wish.minimum],
        "maximum": [None, wish.maximum],
    }  # fmt: skip
    audit.record(actor=actor, action="pool.add_member", subject=member, changes=changes)
    return member


def _plain(value: Any) -> Any:
    """As the audit keeps it: no secret."""
    if isinstance(value, bytes | memoryview):
        return audit.SECRET if value else ""
    if isinstance(value, time):
        return f"{value:%H:%M}"
    return str(value) if isinstance(value, UUID) else value


def _reconcile(pool: Pool) -> None:
    nudges.nudge(nudges.RECONCILE, pool.pk)
    nudges.announce("pools")
