"""Standbys: machines that wait, powered off, on another hypervisor, each as its source was at a recovery point.

A policy that keeps them names where. After each new point a run brings the standby there to it (`standing_by.py`): by
what changed alone where the platform's connector can, else by making it anew, and that only so often. A failover to the
point that a standby holds takes it instead of writing all of it again.

What a user may have worked on is never written over and never deleted: a standby that somebody started is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from broker.domain.lifecycle import LIVE
from broker.hypervisors.abilities import can_refresh
from broker.models import (
    Desktop,
    Machine,
    Operation,
    PoolMember,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Standby,
)
from broker.models.operations import UNFINISHED
from broker.selectors.networks import counterparts
from broker.services import audit, nudges, operations, recovery
from broker.services.errors import Clash
from broker.services.permissions import Right, require
from broker.services.replication import RANK_SELF
from broker.services.rows import held, locked

AGAIN = timedelta(minutes=10)
"""After which what failed is ordered once more."""
AT_ONCE = 100
"""Standbys of a policy that one turn of the clock orders."""


def follow(source: ReplicationSource, now: datetime) -> ReplicationRun | None:
    """A run that brings the source's standby to its newest point, if it is to have one and that is not there yet.

    Inside a transaction. One that waits or is at work serves as well: None.
    """
    policy = source.policy
    if not (source.is_chosen and policy.is_enabled and policy.keeps_standby and policy.target_id):
        return None
    if source.hypervisor_id == policy.target_id:
        return None  # it would be lost with its machine
    newest = newest_point(source.pk)
    there = current(source.pk)
    if newest is None or (there is not None and not _is_due(there, newest, source, now)):
        return None
    run = ReplicationRun(
        kind=ReplicationRun.Kind.STANDBY, source=source, vault_id=policy.vault_id, hypervisor_id=policy.target_id,
        subject=source.name, rank=RANK_SELF,
    )  # fmt: skip
    ReplicationRun.objects.bulk_create([run], ignore_conflicts=True)
    nudges.nudge(nudges.MOVE, run.pk)
    return run


def _is_due(there: Standby, newest: RecoveryPoint, source: ReplicationSource, now: datetime) -> bool:
    policy, target = source.policy, source.policy.target
    if there.is_used or (there.point_id == newest.pk and not there.is_changing):
        return False
    if target is None or there.hypervisor_id != target.pk or there.is_changing or can_refresh(target.kind):
        return True
    return there.refreshed_at + timedelta(seconds=policy.standby_every_s) <= now


def newest_point(source_id: UUID) -> RecoveryPoint | None:
    usable = RecoveryPoint.objects.filter(source=source_id, state=RecoveryPoint.State.USABLE)
    return usable.order_by("-taken_at").first()


def current(source_id: UUID) -> Standby | None:
    return Standby.objects.filter(source=source_id, is_leaving=False).first()


def networks_for(point: RecoveryPoint, target_id: UUID) -> list[str]:
    """Of a standby's NICs, by the platform's ids: those that the desktop's pool builds on there, else those that are
    called as before."""
    source = point.source
    nics = list(point.configuration.get("nics", ()))
    if source is not None and (chosen := _as_built(source, target_id)):
        return chosen[: len(nics)]
    return recovery.same_named(target_id, nics)


def _as_built(source: ReplicationSource, target_id: UUID) -> list[str]:
    desktops = Desktop.objects.filter(state__in=LIVE, hypervisor=source.hypervisor_id, machine_id=source.platform_id)
    desktop = desktops.select_related("pool").first()
    if desktop is None:
        return []
    member = PoolMember.objects.filter(pool=desktop.pool_id, hypervisor=target_id).first()
    if member is not None and member.networks:
        return list(member.networks)
    network = desktop.pool.network_id
    found = counterparts([network]).get((network, target_id)) if network else None
    return [found] if found else []


# --- a failover takes it ----------------------------------------------------------------------------------------------


def take(*, point: RecoveryPoint, hypervisor_id: UUID, networks: Iterable[str]) -> Standby | None:
    """The standby that holds the point there on these networks: it is the caller's from now on, its row is gone.

    Inside a transaction. None if there is none, or if somebody works on it.
    """
    rows = Standby.objects.select_for_update(skip_locked=True, of=("self",))
    standby = rows.filter(
        point=point, hypervisor=hypervisor_id, is_changing=False, is_used=False, is_leaving=False
    ).first()
    if standby is None or standby.networks != list(networks):
        return None
    standby.delete()
    return standby


# --- watched ----------------------------------------------------------------------------------------------------------


def watch(now: datetime) -> None:
    """Called by the clock now and then: standbys that are missing are ordered, what nobody wants any more goes, and
    what somebody started is left alone from then on."""
    _notice_used()
    _dismiss_unwanted()
    for pk in Standby.objects.filter(is_leaving=True).values_list("pk", flat=True):
        _delete(pk, now)
    _follow_all(now)


def _follow_all(now: datetime) -> None:
    """Those that are behind for another reason than a point that has just come: the policy is new, or a run failed."""
    keeping = ReplicationPolicy.objects.filter(keeps_standby=True, is_enabled=True, target__isnull=False)
    for policy in keeping.select_related("target"):
        there = Standby.objects.filter(source=OuterRef("pk"), is_leaving=False)
        is_level = Q(point__taken_at__gte=OuterRef("newest_at")) | Q(is_used=True)
        if policy.target is not None and not can_refresh(policy.target.kind):
            lately = now - timedelta(seconds=policy.standby_every_s)
            is_level |= Q(refreshed_at__gt=lately, hypervisor=policy.target)
        failed = ReplicationRun.objects.filter(
            source=OuterRef("pk"), kind=ReplicationRun.Kind.STANDBY, state=ReplicationRun.State.FAILED,
            finished_at__gt=now - AGAIN,
        )  # fmt: skip
        behind = policy.sources.filter(is_chosen=True, newest_at__isnull=False).exclude(hypervisor=policy.target)
        behind = behind.exclude(Exists(there.filter(is_level, is_changing=False))).exclude(Exists(failed))
        for source in behind.select_related("policy__target")[:AT_ONCE]:
            with transaction.atomic():
                follow(source, now)


def _notice_used() -> None:
    running = Machine.objects.filter(hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("machine_id"), power="on")
    waiting = Standby.objects.filter(Exists(running), is_used=False, is_leaving=False)
    for standby in waiting.select_related("hypervisor"):
        with transaction.atomic():
            leave_alone(standby, "was started")


def leave_alone(standby: Standby, why: str) -> None:
    """Somebody uses it: nothing is written on it and it is not deleted. Inside a transaction."""
    if Standby.objects.filter(pk=standby.pk, is_used=False).update(is_used=True):
        words = (
            f"The standby {standby} on {standby.hypervisor} {why}. It is left alone from now on, and not brought up to "
            "date any more."
        )
        operations.event("standby.used", words, level="warning", hypervisor_id=standby.hypervisor_id).save()
        nudges.announce("replication")


def _dismiss_unwanted() -> None:
    rows = Standby.objects.filter(is_leaving=False, is_used=False, is_changing=False)
    wanted = rows.filter(
        source__is_chosen=True, source__policy__keeps_standby=True, source__policy__target=F("hypervisor")
    ).exclude(source__hypervisor=F("hypervisor"))
    rows.exclude(pk__in=wanted.values("pk")).update(is_leaving=True)


def _delete(pk: UUID, now: datetime) -> None:
    with transaction.atomic():
        standby = held(Standby.objects.select_related("operation"), pk)
        if standby is None:
            return
        operation = standby.operation
        if operation is not None and operation.state == Operation.State.DONE:
            standby.delete()
            return
        if operation is not None and (operation.state in UNFINISHED or (operation.finished_at or now) + AGAIN > now):
            return
        on = Machine.objects.filter(hypervisor=standby.hypervisor_id, platform_id=standby.machine_id, power="on")
        if on.exists():
            leave_alone(standby, "was started")
            standby.delete()
            return
        standby.operation = operations.order(
            kind=Operation.Kind.DELETE,
            hypervisor_id=standby.hypervisor_id,
            parameters={"machine": standby.machine_id, "stamp_key": standby.machine_key},
        )
        standby.save(update_fields=["operation"])


def make_anew(*, actor: User, standby_id: UUID) -> None:
    """One that somebody started is the administrator's from now on, like any other machine; a new one is made.

    Raises `Missing`, `Clash` if nobody has started it.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        standby = locked(Standby.objects.select_related("source__policy__target"), standby_id, "standby")
        if not standby.is_used:
            raise Clash(f"{standby} waits as it should. Nothing was done.")
        audit.record(actor=actor, action="standby.anew", subject=standby)
        source = standby.source
        standby.delete()
        if source is not None:
            follow(source, timezone.now())
        nudges.announce("replication")
