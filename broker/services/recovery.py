"""Recovery points: read back, brought up as machines, deleted, and thinned out by their policy's retention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from broker.hypervisors.abilities import can_land
from broker.models import (
    Hypervisor,
    Network,
    Publication,
    RecoveryPoint,
    ReplicationRun,
    ReplicationSource,
    Storage,
)
from broker.services import audit, nudges
from broker.services.errors import Clash
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.replication import RANK_ASKED, RANK_SELF, UNFINISHED
from broker.services.replication_runs import order_collection
from broker.services.rows import locked
from disks.retention import Dated, Rule, kept

MACHINE_NAME = 63
READERS = (ReplicationRun.Kind.MATERIALISE, ReplicationRun.Kind.VERIFY, ReplicationRun.Kind.STANDBY)


def verify_point(*, actor: User, point_id: UUID) -> ReplicationRun:
    """Have all of it read back. Raises `Missing`, `Clash` if it is being deleted or verified."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        point = _usable(point_id)
        run = queue_verification(point, actor)
        audit.record(actor=actor, action="point.verify", subject=point)
    return run


def queue_verification(point: RecoveryPoint, actor: User | None) -> ReplicationRun:
    """Inside a transaction. Raises `Clash` if one is under way."""
    run = ReplicationRun(
        kind=ReplicationRun.Kind.VERIFY, point=point, source_id=point.source_id, vault_id=point.vault_id,
        subject=point.machine_name, requested_by=actor, rank=RANK_ASKED if actor else RANK_SELF,
    )  # fmt: skip
    try:
        with transaction.atomic():
            run.save(force_insert=True)
    except IntegrityError as error:
        raise Clash("This recovery point is being verified already.") from error
    nudges.nudge(nudges.MOVE, run.pk)
    nudges.announce("replication")
    return run


def materialise(
    *,
    actor: User,
    point_id: UUID,
    hypervisor_id: UUID,
    name: str,
    storage_id: UUID,
    network_ids: Sequence[UUID | None] = (),
) -> ReplicationRun:
    """Have a machine made of a recovery point, powered off: on any hypervisor that can. Its NICs hang on the networks
    in order; those without one are not connected.

    Raises `Missing`, `Forbidden`, `Invalid`, and `Clash` if the point cannot be read.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        point = _usable(point_id)
        if point.state == RecoveryPoint.State.BROKEN:
            raise Clash(f"This recovery point is damaged: {point.fault} Choose another one.")
        intake = Intake()
        wish: dict[str, Any] = {"name": intake.name("name", name, length=MACHINE_NAME)}
        hypervisor = Hypervisor.objects.filter(pk=hypervisor_id).first()
        check_lands(intake, hypervisor)
        wish["storage"] = storage_of(intake, hypervisor_id, storage_id)
        wish["networks"] = networks_of(intake, hypervisor_id, network_ids)
        intake.refuse_faults("The machine was not ordered.")
        run = order_landing(point, hypervisor, actor, **wish)
        shown = {"machine": [None, wish["name"]], "on": [None, str(hypervisor)]}
        audit.record(actor=actor, action="point.materialise", subject=point, changes=shown)
    return run


def order_landing(
    point: RecoveryPoint,
    hypervisor: Hypervisor | None,
    actor: User | None,
    *,
    name: str,
    storage: str,
    networks: Sequence[str],
    is_template: bool = False,
) -> ReplicationRun:
    """A run that makes a machine, or a template, of a point: storage and networks by the platform's ids. Inside a
    transaction."""
    wish: dict[str, Any] = {"name": name, "storage": storage, "networks": list(networks)}
    if is_template:
        wish["is_template"] = True
    run = ReplicationRun.objects.create(
        kind=ReplicationRun.Kind.MATERIALISE, point=point, vault_id=point.vault_id, hypervisor=hypervisor,
        subject=name, wish=wish, requested_by=actor, rank=RANK_ASKED,
    )  # fmt: skip
    nudges.nudge(nudges.MOVE, run.pk)
    nudges.announce("replication")
    return run


def check_lands(intake: Intake, hypervisor: Hypervisor | None) -> None:
    """Whether machines can be made from recovery points there; faults go to the intake."""
    if hypervisor is None:
        intake.faults["hypervisor_id"] = "There is no such hypervisor."
    elif not can_land(hypervisor.kind):
        words = f"Nothing can be brought up on {hypervisor}: its connector makes no machines from recovery points."
        intake.faults["hypervisor_id"] = words


def storage_of(intake: Intake, hypervisor_id: UUID, storage_id: UUID) -> str:
    """Its id on the platform; a fault goes to the intake."""
    found = Storage.objects.filter(pk=storage_id, hypervisor=hypervisor_id).values_list("platform_id", flat=True)
    platform_id = found.first()
    if platform_id is None:
        intake.faults["storage_id"] = "This hypervisor has no such storage."
    return platform_id or ""


def networks_of(intake: Intake, hypervisor_id: UUID, wanted: Sequence[UUID | None]) -> list[str]:
    """Their ids on the platform, in order, empty for None; a fault goes to the intake."""
    ids = dict(Network.objects.filter(hypervisor=hypervisor_id).values_list("pk", "platform_id"))
    if missing := [one for one in wanted if one is not None and one not in ids]:
        intake.faults["network_ids"] = f"This hypervisor has no network {missing[0]}."
    return [ids.get(one, "") if one is not None else "" for one in wanted]


def same_named(hypervisor_id: UUID, nics: Sequence[Any]) -> list[str]:
    """For the network cards of a point's configuration: the networks there that are called as theirs were, by the
    platform's ids, empty where there is none."""
    there = dict(Network.objects.filter(hypervisor=hypervisor_id).values_list("name", "platform_id"))
    return [there.get(nic.get("network", ""), "") for nic in nics]


def unconnected(nics: Sequence[Any], networks: Sequence[str]) -> list[str]:
    """Which cards hang on none of the networks that were chosen for them, in sentences."""
    return [
        f"Its network card {number} was on {nic.get('network') or 'no network'} and is not connected there."
        for number, nic in enumerate(nics, 1)
        if number > len(networks) or not networks[number - 1]
    ]


def delete_point(*, actor: User, point_id: UUID) -> None:
    """A mover deletes it from its vault; its room is free after the next collection.

    Raises `Missing`, `Clash` while it is being read.
    """
    require(actor, Right.OPERATE)
    with transaction.atomic():
        point = _usable(point_id)
        if run := point.runs.filter(kind__in=READERS, state__in=UNFINISHED).first():
            raise Clash(f"It is being read ({run.get_kind_display().lower()}). Wait for its end or cancel it.")
        if publication := _publishing(point.pk).select_related("version__template", "hypervisor").first():
            raise Clash(
                f"{publication.version} is being published to {publication.hypervisor} from it. Wait or cancel it."
            )
        audit.record(actor=actor, action="point.delete", subject=point)
        condemn([point.pk])
        order_collection(point.vault, RANK_ASKED)
        nudges.announce("replication")


def _usable(point_id: UUID) -> RecoveryPoint:
    point = locked(RecoveryPoint.objects.all(), point_id, "recovery point")
    if point.state == RecoveryPoint.State.DELETING:
        raise Clash("This recovery point is being deleted.")
    return point


def condemn_by_retention(source: ReplicationSource, now: datetime) -> list[UUID]:
    """Points that the policy does not keep are marked to be deleted, but those that somebody reads and the one on
    which the next run builds. Inside a transaction."""
    policy = source.policy
    rule = Rule(
        last=policy.keep_last, hourly=policy.keep_hourly, daily=policy.keep_daily, weekly=policy.keep_weekly,
        monthly=policy.keep_monthly,
    )  # fmt: skip
    there = list(source.points.exclude(state=RecoveryPoint.State.DELETING).values_list("pk", "taken_at", "state"))
    dated = [Dated(str(pk), at, state == RecoveryPoint.State.USABLE) for pk, at, state in there]
    zone = ZoneInfo(policy.zone)
    # A damaged point stands for nothing, and yet it goes no earlier than a good one: a run may heal it.
    keep = kept(dated, rule, now, zone) | kept([replace(one, is_good=True) for one in dated], rule, now, zone)
    keep.add(str(source.common_id))
    # What a standby holds: what differs from it is written there the next time.
    keep |= {str(pk) for pk in source.standbys.filter(is_leaving=False).values_list("point", flat=True)}
    return condemn([pk for pk, _, _ in there if str(pk) not in keep])


def look_again(source: ReplicationSource) -> None:
    """A run has just read anew what was damaged: see which points that healed. Inside a transaction."""
    for point in source.points.filter(state=RecoveryPoint.State.BROKEN):
        with suppress(Clash):
            queue_verification(point, None)


def condemn(ids: Iterable[UUID]) -> list[UUID]:
    """Whoever works in their vaults next deletes them, and nobody may begin to read them from now on. Those that are
    read are left out. Inside a transaction; which ones."""
    reading = ReplicationRun.objects.filter(point=OuterRef("pk"), kind__in=READERS, state__in=UNFINISHED)
    rows = RecoveryPoint.objects.select_for_update().filter(pk__in=list(ids)).order_by("pk")
    found = [row.pk for row in rows.exclude(Exists(reading)).exclude(Exists(_publishing(OuterRef("pk"))))]
    RecoveryPoint.objects.filter(pk__in=found).update(state=RecoveryPoint.State.DELETING)
    return found


def _publishing(point: Any) -> QuerySet[Publication]:
    """Publications that make templates of a point, also of those whose runs are still to be ordered."""
    return Publication.objects.filter(copying__point=point, state=Publication.State.RUNNING)


def condemned(vault_id: UUID, limit: int = 500) -> list[UUID]:
    """Marked to be deleted: whoever works in the vault next does it."""
    rows = RecoveryPoint.objects.filter(vault=vault_id, state=RecoveryPoint.State.DELETING)
    return list(rows.values_list("pk", flat=True)[:limit])


def deleted(ids: Sequence[UUID]) -> None:
    """They are gone from their vault."""
    with transaction.atomic():
        ReplicationSource.objects.filter(common__in=ids).update(common=None, bookmark=None)
        RecoveryPoint.objects.filter(pk__in=ids, state=RecoveryPoint.State.DELETING).delete()
        nudges.announce("replication")


def tried(point: RecoveryPoint, fault: str) -> None:
    """It was started: whether it lives, or why it does not. Inside a transaction."""
    now = timezone.now()
    if point.source_id is not None:
        ReplicationSource.objects.filter(pk=point.source_id).update(tried_at=now, trial_fault=fault)
    if not fault:
        RecoveryPoint.objects.filter(pk=point.pk).update(verified_at=now)


def read_back(point: RecoveryPoint, faults: Sequence[str]) -> None:
    """What a verification found. A damaged point stands for nothing: its source's promise counts from the newest good
    one. Inside a transaction."""
    now = timezone.now()
    state = RecoveryPoint.State.BROKEN if faults else RecoveryPoint.State.USABLE
    RecoveryPoint.objects.filter(pk=point.pk).exclude(state=RecoveryPoint.State.DELETING).update(
        state=state, fault=faults[0] if faults else "", verified_at=now
    )
    if faults and point.source_id is not None:
        good = RecoveryPoint.objects.filter(source=point.source_id, state=RecoveryPoint.State.USABLE)
        newest = good.order_by("-taken_at").values_list("taken_at", flat=True).first()
        rows = ReplicationSource.objects.select_for_update(of=("self",)).select_related("policy")
        source = rows.get(pk=point.source_id)
        source.newest_at = newest
        if source.breaks_at is not None:
            source.breaks_at = (newest or source.created_at) + timedelta(seconds=source.policy.rpo_s)
        source.save(update_fields=["newest_at", "breaks_at"])
