"""Failovers as people begin them: tests that prove recovery points, moves between hypervisors, emergencies, and those
that a platform carries out to the replica that it keeps.

`services/failover_steps.py` carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from broker.domain import failover as rules
from broker.domain.failover import Kind, Step
from broker.domain.lifecycle import LIVE, State
from broker.domain.room import Need, Room, shortages
from broker.hypervisors.abilities import can_replicate
from broker.models import (
    Assignment,
    Desktop,
    Failover,
    Host,
    Hypervisor,
    Machine,
    Network,
    Pool,
    PoolMember,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationSource,
    Standby,
    Storage,
    Vault,
)
from broker.selectors.networks import counterparts
from broker.services import audit, nudges, recovery, replicas
from broker.services.errors import Clash, Invalid, Missing
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import locked

TEST_SUFFIX = "-test"
TRY_EVERY = timedelta(hours=24)
"""How often at most a policy has the newest point of each machine started."""
STATES = Failover.State
SESSION_HOST = replicas.SESSION_HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to."""

    hypervisor_id: UUID
    storage_id: UUID
    network_ids: Sequence[UUID | None] = ()
    """One a NIC; None: not connected. Empty: a test's NICs hang on an isolated network if there is one and else on
    none; a moved desktop's on those that its pool builds on there, and if the pool has no opinion, on those of the same
    names as before."""


# --- begun by people --------------------------------------------------------------------------------------------------


def begin_test(*, actor: User, point_id: UUID, target: Target) -> Failover:
    """Bring a recovery point up in isolation, see whether it lives, take it away, and write down what was seen.

    Raises `Missing`, `Forbidden`, `Invalid`, `Clash` if the point cannot be read.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        point = locked(RecoveryPoint.objects.select_related("source"), point_id, "recovery point")
        _refuse_unreadable(point)
        row = _row(Kind.TEST, point.machine_name, target, vault_id=point.vault_id, actor=actor)
        row.point = point
        row.name = _test_name(row)
        row.networks = row.networks or _isolated(row.hypervisor, point)
        return _begin(row, actor)


def begin_trial(point: RecoveryPoint, now: datetime) -> Failover | None:
    """A test that the point's policy asks for: its newest point is started now and then to see whether it lives.

    Inside a transaction. None if the source was tried lately, is being tried, or the target is not up: a later point
    is tried then.
    """
    source = point.source
    policy = source.policy if source is not None else None
    if source is None or policy is None or policy.target is None:
        return None
    if policy.verification != ReplicationPolicy.Verification.BOOT or policy.target.status != Hypervisor.Status.UP:
        return None
    if source.tried_at is not None and source.tried_at + TRY_EVERY > now:
        return None
    if Failover.objects.filter(kind=Kind.TEST, state=STATES.RUNNING, point__source=source).exists():
        return None
    ReplicationSource.objects.filter(pk=source.pk).update(tried_at=now)
    row = Failover(
        kind=Kind.TEST, subject=point.machine_name, vault_id=point.vault_id, hypervisor=policy.target, point=point,
        storage=policy.target_storage, networks=_isolated(policy.target, point), step_since=now,
    )  # fmt: skip
    row.name = _test_name(row)
    row.save(force_insert=True)
    nudges.nudge(nudges.FAILOVER, row.pk)
    nudges.announce("replication")
    return row


def _test_name(row: Failover) -> str:
    """Of its own: two tests at once, or one beside the machine itself, must not clash."""
    return f"{row.subject[:50]}{TEST_SUFFIX}-{row.pk.hex[:6]}"


def begin_move(*, actor: User, desktop_id: UUID, vault_id: UUID, target: Target) -> Failover:
    """Move a desktop with its user and all that lies on it to another hypervisor of its pool.

    Raises `Missing`, `Forbidden`, `Invalid`, `Clash`.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        desktop = _movable(desktop_id, target)
        if not Vault.objects.filter(pk=vault_id).exists():
            raise Invalid("The desktop was not moved.", {"vault_id": "There is no such vault."})
        if desktop.hypervisor.status != Hypervisor.Status.UP:
            words = f"{desktop.hypervisor} does not answer. Bring up its newest recovery point instead."
            raise Clash(words)
        if not can_replicate(desktop.hypervisor.kind):
            raise Clash(_unreadable(desktop.hypervisor))
        row = _row(Kind.MOVE, desktop.name, target, vault_id=vault_id, actor=actor)
        return _begin_with(row, desktop, target, actor)


def begin_emergency(
    *, actor: User, desktop_id: UUID, target: Target, point_id: UUID | None = None, even_if_up: bool = False
) -> Failover:
    """Bring the desktop's newest recovery point up (or a given one) and let its user go on there.

    What its user did since that point is lost. The old machine is left alone; while its hypervisor is up this is
    refused unless wanted all the same. Raises `Missing`, `Forbidden`, `Invalid`, `Clash`.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        desktop = _movable(desktop_id, target)
        if desktop.hypervisor.status == Hypervisor.Status.UP and not even_if_up:
            raise Clash(f"{desktop.hypervisor} answers. Move the desktop instead: then nothing is lost.")
        point = _newest(desktop, point_id)
        row = _row(Kind.EMERGENCY, desktop.name, target, vault_id=point.vault_id, actor=actor)
        row.point = point
        return _begin_with(row, desktop, target, actor)


def begin_planned(*, actor: User, desktop_id: UUID) -> Failover:
    """Let the replica that its platform keeps elsewhere take the desktop's place: nothing is lost.

    Raises `Missing`, `Forbidden`; `Clash` with what stands in the way.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        desktop = locked(Desktop.objects.select_related("pool", "hypervisor"), desktop_id, "desktop")
        replica = replicas.replica_of(desktop)
        if replica.why_not or replica.hypervisor is None:
            raise Clash(replica.why_not)
        row = Failover(
            kind=Kind.PLANNED, subject=desktop.name, hypervisor=replica.hypervisor, name=desktop.name,
            step_since=timezone.now(), requested_by=actor,
        )  # fmt: skip
        _note_where_it_was(row, desktop)
        return _begin(row, actor)


def cancel(*, actor: User, failover_id: UUID) -> Failover:
    """What it made is taken away, what it stopped is started again. Raises `Missing`, `Clash` when it is too late."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        row = locked(Failover.objects.all(), failover_id, "failover")
        if row.state != STATES.RUNNING or Step(row.step) not in rules.MAY_BE_CANCELLED:
            raise Clash("It is over or being put back already.")
        row.is_to_end = True
        row.save(update_fields=["is_to_end"])
        audit.record(actor=actor, action="failover.cancel", subject=row)
        nudges.nudge(nudges.FAILOVER, row.pk)
    return row


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """What became of the wish to cancel a group."""

    cancelled: int
    left: int
    """Those that were under way and could not be cancelled any more, or are being cancelled already."""


def cancel_group(*, actor: User, group: UUID) -> GroupEnd:
    """All of a group that are not over, each under its own rules. In one transaction, so that none that waits begins
    because another one has made room. Raises `Missing`; `Clash` if none can be cancelled."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        rows = Failover.objects.select_for_update(of=("self",)).filter(group=group).order_by("place")
        found = list(rows)
        if not found:
            raise Missing("There is no such group.")
        going = [row for row in found if row.state == STATES.RUNNING]
        able = [row for row in going if not row.is_to_end and Step(row.step) in rules.MAY_BE_CANCELLED]
        if not able:
            raise Clash("None of them can be cancelled: they are over, or being put back already.")
        for row in able:
            row.is_to_end = True
            row.save(update_fields=["is_to_end"])
            audit.record(actor=actor, action="failover.cancel", subject=row)
            nudges.nudge(nudges.FAILOVER, row.pk)
        nudges.announce("replication")
    return GroupEnd(len(able), len(going) - len(able))


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would become of one desktop of a pool."""

    desktop: Desktop
    point: RecoveryPoint | None
    loses_s: float | None
    """How old the state is that its user would find: None with a move, which loses nothing."""
    why_not: str
    """Empty: it can go."""
    lacks: str = ""
    """What there may not be room for; empty: it fits, or it does not go. It goes all the same: disks are counted as
    large as they may grow."""


def look_ahead(*, actor: User, pool_id: UUID, target: Target, kind: Kind, even_if_up: bool = False) -> list[Prospect]:
    """A dry run: what would become of each assigned desktop of a pool, in the order in which they would go.

    Changes nothing. Desktops whose hypervisor answers are left out of an emergency unless wanted all the same: they
    would lose work, and run twice. Raises `Missing`, `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    if kind not in (Kind.MOVE, Kind.EMERGENCY):
        raise Invalid("Nothing was looked at.", {"kind": "A pool is moved or brought up, not tested."})
    pool = Pool.objects.filter(pk=pool_id).first()
    if pool is None:
        raise Missing("There is no such pool.")
    now = timezone.now()
    held = Assignment.objects.filter(pool=pool, until=None).values("desktop_id")
    desktops = Desktop.objects.filter(pk__in=held, state__in=LIVE).exclude(hypervisor=target.hypervisor_id)
    member = PoolMember.objects.filter(pool=pool, hypervisor=target.hypervisor_id).first()
    moving = set(
        Failover.objects.filter(state=STATES.RUNNING).exclude(kind=Kind.TEST).values_list("desktop", flat=True)
    )
    points = _newest_points(desktops)
    found = []
    for desktop in desktops.select_related("hypervisor", "copy").order_by("name"):
        point = points.get((desktop.hypervisor_id, desktop.machine_id))
        is_up = desktop.hypervisor.status == Hypervisor.Status.UP
        why_not = ""
        if member is None:
            why_not = f"{pool} does not build on the target: add it to the pool first."
        elif desktop.pk in moving:
            why_not = "It is being moved already."
        elif pool.is_shared:
            why_not = SESSION_HOST
        elif desktop.state != State.ASSIGNED or not desktop.machine_id:
            why_not = f"It is {desktop.state}."
        elif kind == Kind.EMERGENCY and is_up and not even_if_up:
            why_not = f"{desktop.hypervisor} answers: move it, then nothing is lost."
        elif kind == Kind.EMERGENCY and point is None:
            why_not = "It has no recovery point."
        elif kind == Kind.MOVE and not is_up:
            why_not = f"{desktop.hypervisor} does not answer."
        elif kind == Kind.MOVE and not can_replicate(desktop.hypervisor.kind):
            why_not = _unreadable(desktop.hypervisor)
        loses = (now - point.taken_at).total_seconds() if kind == Kind.EMERGENCY and point else None
        found.append(Prospect(desktop, point, loses, why_not))
    return _with_room(found, target, kind)


def _with_room(prospects: list[Prospect], target: Target, kind: Kind) -> list[Prospect]:
    """Each that can go with what it would lack there, by what inventory and reservations know."""
    storage = Storage.objects.filter(pk=target.storage_id, hypervisor=target.hypervisor_id).first()
    going = [one for one in prospects if not one.why_not]
    if storage is None or not going:
        return prospects
    hosts = Host.objects.filter(hypervisor=target.hypervisor_id, is_up=True, is_draining=False)
    free = [
        int(host.memory_mib * host.hypervisor.memory_ratio) - host.used_memory_mib - host.reserved_memory_mib
        for host in hosts.select_related("hypervisor").defer("hypervisor__secrets")
    ]
    waiting = set(
        Standby.objects.filter(hypervisor=target.hypervisor_id, is_used=False, is_leaving=False).values_list(
            "point", flat=True
        )
    )
    needs = [
        Need(
            disk_mib=0 if kind == Kind.EMERGENCY and one.point and one.point.pk in waiting else _disk_mib(one),
            memory_mib=one.desktop.memory_mib,
        )
        for one in going
    ]
    lacks = dict(
        zip(
            (one.desktop.pk for one in going), shortages(needs, Room(storage.name, storage.free_mib, free)), strict=True
        )
    )
    return [replace(one, lacks=lacks.get(one.desktop.pk, "")) for one in prospects]


def _disk_mib(prospect: Prospect) -> int:
    """As its newest point has it, else as its template has."""
    if prospect.point is not None:
        return prospect.point.size_bytes >> 20
    copy = prospect.desktop.copy
    return copy.disk_mib if copy is not None else 0


def begin_pool(
    *,
    actor: User,
    pool_id: UUID,
    target: Target,
    kind: Kind,
    vault_id: UUID | None = None,
    even_if_up: bool = False,
) -> UUID:
    """All that `look_ahead` finds able, a few at a time, in its order. The id of the group. A move needs a vault.

    Raises as the single ones do, and `Clash` if none can go.
    """
    require(actor, Right.OPERATE)
    if kind == Kind.MOVE and vault_id is None:
        raise Invalid("Nothing was begun.", {"vault_id": "Choose the vault through which they move."})
    group = uuid4()
    place = 0
    with transaction.atomic():
        for prospect in look_ahead(actor=actor, pool_id=pool_id, target=target, kind=kind, even_if_up=even_if_up):
            if prospect.why_not:
                continue
            if kind == Kind.MOVE and vault_id is not None:
                row = begin_move(actor=actor, desktop_id=prospect.desktop.pk, vault_id=vault_id, target=target)
            else:
                row = begin_emergency(actor=actor, desktop_id=prospect.desktop.pk, target=target, even_if_up=even_if_up)
            place += 1
            Failover.objects.filter(pk=row.pk).update(group=group, place=place)
        if not place:
            raise Clash("No desktop of the pool can go there. The dry run says why of each.")
    return group


# --- what is wanted, checked ------------------------------------------------------------------------------------------


def _row(kind: Kind, subject: str, target: Target, *, vault_id: UUID, actor: User) -> Failover:
    intake = Intake()
    hypervisor = Hypervisor.objects.filter(pk=target.hypervisor_id).first()
    if hypervisor is not None and hypervisor.status != Hypervisor.Status.UP:
        intake.faults["hypervisor_id"] = (
            f"{hypervisor} is {hypervisor.get_status_display().lower()}. Choose another one."
        )
    else:
        recovery.check_lands(intake, hypervisor)
    storage = recovery.storage_of(intake, target.hypervisor_id, target.storage_id)
    networks = recovery.networks_of(intake, target.hypervisor_id, target.network_ids)
    intake.refuse_faults("The failover was not begun.")
    return Failover(
        kind=kind, subject=subject, vault_id=vault_id, hypervisor=hypervisor, name=subject, storage=storage,
        networks=networks, step_since=timezone.now(), requested_by=actor,
    )  # fmt: skip


def _begin(row: Failover, actor: User) -> Failover:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Clash(f"{row.subject} is being moved already.") from error
    shown = {"kind": [None, row.kind], "to": [None, str(row.hypervisor)]}
    audit.record(actor=actor, action="failover.begin", subject=row, changes=shown)
    nudges.nudge(nudges.FAILOVER, row.pk)
    nudges.announce("replication")
    if row.desktop_id is not None:
        nudges.announce("desktops", desktop=str(row.desktop_id))
    return row


def _unreadable(hypervisor: Hypervisor) -> str:
    return f"Machines on {hypervisor} cannot be moved: its connector does not read their disks."


def _begin_with(row: Failover, desktop: Desktop, target: Target, actor: User) -> Failover:
    _note_where_it_was(row, desktop)
    row.networks = row.networks or _as_built(desktop, _member(desktop, target))
    row.name = _free_name(row)
    return _begin(row, actor)


def _note_where_it_was(row: Failover, desktop: Desktop) -> None:
    row.desktop, row.epoch = desktop, desktop.epoch
    row.was_in_maintenance, row.was_on = desktop.is_in_maintenance, desktop.power == "on"
    row.old_hypervisor, row.old_machine_id, row.old_machine_key = (
        desktop.hypervisor, desktop.machine_id, desktop.stamp_key,
    )  # fmt: skip


def _free_name(row: Failover) -> str:
    """The desktop's, unless a machine of that name stands there: what it was before an earlier move, most of all."""
    taken = Machine.objects.filter(hypervisor=row.hypervisor_id, name__iexact=row.subject).exists()
    return f"{row.subject[:56]}-{row.pk.hex[:6]}" if taken else row.subject


def _movable(desktop_id: UUID, target: Target) -> Desktop:
    desktop = locked(Desktop.objects.select_related("pool__network", "hypervisor"), desktop_id, "desktop")
    if desktop.state != State.ASSIGNED or not desktop.machine_id:
        raise Clash(f"{desktop} is {desktop.state}. Only desktops that somebody has are moved; others are built anew.")
    if desktop.pool.is_shared:
        raise Clash(f"{desktop}: {SESSION_HOST}")
    if desktop.hypervisor_id == target.hypervisor_id:
        raise Invalid("The desktop was not moved.", {"hypervisor_id": f"{desktop} is there already."})
    _member(desktop, target)
    return desktop


def _member(desktop: Desktop, target: Target) -> PoolMember:
    members = PoolMember.objects.select_related("hypervisor")
    member = members.filter(pool=desktop.pool_id, hypervisor=target.hypervisor_id).first()
    if member is None:
        words = f"{desktop.pool} does not build there. Add that hypervisor to the pool first."
        raise Invalid("The desktop was not moved.", {"hypervisor_id": words})
    return member


def _as_built(desktop: Desktop, member: PoolMember) -> list[str]:
    """The networks on which the pool builds there. Empty: as the template has them, so by the names of before.

    Raises `Clash` if the pool's own network is nothing there: another one may be one that it must not be on.
    """
    pool = desktop.pool
    if member.networks or pool.network_id is None:
        return list(member.networks)
    counterpart = counterparts([pool.network_id]).get((pool.network_id, member.hypervisor_id))
    if counterpart is None:
        raise Clash(f"Network {pool.network} has no counterpart on {member.hypervisor}. Say what it is there first.")
    return [counterpart]


def _isolated(hypervisor: Hypervisor, point: RecoveryPoint) -> list[str]:
    found = Network.objects.filter(hypervisor=hypervisor, is_isolated=True).order_by("name").first()
    return [found.platform_id if found else ""] * len(point.configuration.get("nics", []))


def _newest(desktop: Desktop, point_id: UUID | None) -> RecoveryPoint:
    of_it = RecoveryPoint.objects.filter(
        source__hypervisor=desktop.hypervisor_id, source__platform_id=desktop.machine_id
    ).exclude(state=RecoveryPoint.State.DELETING)
    if point_id is not None:
        point = of_it.filter(pk=point_id).first()
        if point is None:
            raise Invalid("Nothing was begun.", {"point_id": f"This is no recovery point of {desktop}."})
    else:
        point = of_it.filter(state=RecoveryPoint.State.USABLE).order_by("-taken_at").first()
        if point is None:
            raise Clash(f"{desktop} has no recovery point that could be brought up.")
    _refuse_unreadable(point)
    return point


def _newest_points(desktops: Any) -> dict[tuple[UUID, str], RecoveryPoint]:
    """(hypervisor, machine) -> point; one statement."""
    usable = (
        RecoveryPoint.objects.filter(
            state=RecoveryPoint.State.USABLE,
            source__hypervisor__in=desktops.values("hypervisor"),
            source__platform_id__in=desktops.values("machine_id"),
        )
        .select_related("source")
        .order_by("taken_at")
    )
    return {(p.source.hypervisor_id, p.source.platform_id): p for p in usable if p.source is not None}


def _refuse_unreadable(point: RecoveryPoint) -> None:
    if point.state == RecoveryPoint.State.BROKEN:
        raise Clash(f"This recovery point is damaged: {point.fault} Choose another one.")
    if point.state != RecoveryPoint.State.USABLE:
        raise Clash("This recovery point is being deleted. Choose another one.")
