"""What policies promise: watched by the clock, told once when it is broken and once when it is kept again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from broker.domain import replication as rules
from broker.models import (
    RecoveryPoint,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationSource,
    RpoBreach,
    Vault,
)
from broker.services import alive, nudges, operations
from broker.services.replication import CLOCKS_DIFFER, ENGINES, RANK_SELF, deadline_of, next_run, timing_of
from broker.services.replication_runs import order_collection
from broker.services.replication_sources import settle
from broker.services.rows import alter
from broker.services.vaults import COLLECT_EVERY


def move_promises(policy: ReplicationPolicy) -> None:
    """Its RPO is another one, or it was paused or resumed: what is no breach any more ends. Inside a transaction."""
    now = timezone.now()
    for source in policy.sources.select_for_update().filter(is_chosen=True).order_by("pk"):
        breaks_at = deadline_of(policy, source, source.created_at) if policy.is_enabled else None
        alter(source, {"breaks_at": breaks_at})
        if breaks_at is None or breaks_at > now:
            end_breach(source, now)


def watch() -> None:
    """Called by the clock now and then: choices are settled anew, promises that are broken are told, once each, and
    vaults are cleaned up."""
    now = timezone.now()
    moving = ReplicationChoice.objects.exclude(kind=ReplicationChoice.Kind.MACHINE)
    for pk in ReplicationPolicy.objects.filter(pk__in=moving.values("policy")).values_list("pk", flat=True):
        with transaction.atomic():
            policy = ReplicationPolicy.objects.select_for_update().filter(pk=pk).first()
            if policy is not None:
                settle(policy, now)
    _set_right(now)
    _begin_breaches(now)
    _collect(now)
    alive.need_mover(on=Vault.objects.exists())


def _set_right(now: datetime) -> None:
    """What a clock that was wrong has put too far ahead, now that it is right: else nothing would run, and no promise
    would be broken, until then."""
    for policy in ReplicationPolicy.objects.filter(is_enabled=True, engine=ENGINES.VAULT):
        timing = timing_of(policy)
        latest = now + timing.interval if timing.interval else rules.next_run(timing, now)
        for source in policy.sources.filter(next_run_at__gt=latest + CLOCKS_DIFFER):
            still = ReplicationSource.objects.filter(pk=source.pk, next_run_at=source.next_run_at)
            still.update(next_run_at=next_run(policy, source, now))
    # What a platform replicates by itself is dated by its own clock, and seen anew with every look.
    ahead = ReplicationSource.objects.filter(newest_at__gt=now + CLOCKS_DIFFER, policy__engine=ENGINES.VAULT)
    for pk in list(ahead.values_list("pk", flat=True)):
        with transaction.atomic():
            _count_anew(pk, now)


def _count_anew(source_id: UUID, now: datetime) -> None:
    """The promise counts from the newest point that is not of the future, or from now. Inside a transaction."""
    rows = ReplicationSource.objects.select_for_update(of=("self",)).select_related("policy")
    source = rows.get(pk=source_id)
    past = source.points.filter(state=RecoveryPoint.State.USABLE, taken_at__lte=now).order_by("-taken_at")
    newest = past.values_list("taken_at", flat=True).first()
    values: dict[str, Any] = {"newest_at": newest}
    if source.breaks_at is not None:
        values["breaks_at"] = (newest or now) + timedelta(seconds=source.policy.rpo_s)
    alter(source, values)


def _begin_breaches(now: datetime) -> None:
    told = RpoBreach.objects.filter(source=OuterRef("pk"), until=None)
    broken = ReplicationSource.objects.filter(breaks_at__lte=now).exclude(Exists(told)).select_related("policy")
    for source in broken:
        _begin_breach(source, now)


def _begin_breach(source: ReplicationSource, now: datetime) -> None:
    is_watched = source.policy.engine == ENGINES.PLATFORM
    unknown = "Nothing newer has arrived there." if is_watched else "The last run is not finished yet."
    reason = source.fault or unknown
    with transaction.atomic():
        try:
            with transaction.atomic():
                RpoBreach.objects.create(source=source, since=source.breaks_at or now, reason=reason)
        except IntegrityError:
            return  # another clock told it in this moment
        is_first = source.newest_at is None
        copy = "replica" if is_watched else "recovery point"
        what = f"there is no {copy} yet" if is_first else f"its newest {copy} is too old"
        words = f"{source.name} breaks the RPO of {source.policy}: {what}. {reason}"
        operations.event("rpo.broken", words, level="error", hypervisor_id=source.hypervisor_id).save()
        nudges.announce("replication")


def point_came(source: ReplicationSource, taken_at: datetime, now: datetime) -> dict[str, Any]:
    """What a new point changes about its source's promise; a breach that it ends is ended. Inside a transaction."""
    # A newest point from the future was dated by a clock that was wrong: it promises nothing.
    is_later = source.newest_at is not None and taken_at < source.newest_at <= now + CLOCKS_DIFFER
    newest = source.newest_at if is_later and source.newest_at else taken_at
    breaks_at = newest + timedelta(seconds=source.policy.rpo_s)
    values: dict[str, Any] = {"newest_at": newest}
    if source.is_chosen and source.policy.is_enabled:
        values["breaks_at"] = breaks_at
    if breaks_at > now and end_breach(source, now):
        words = f"{source.name} keeps the RPO of {source.policy} again."
        operations.event("rpo.kept", words, hypervisor_id=source.hypervisor_id).save()
    return values


def end_breach(source: ReplicationSource, now: datetime) -> bool:
    """Whether there was one. It never ends before it began, also if the clock was put back meanwhile."""
    ended = RpoBreach.objects.filter(source=source, until=None).update(until=Greatest(F("since"), now))
    return bool(ended)


def _collect(now: datetime) -> None:
    is_due = Q(next_collection_at__lte=now) | Q(next_collection_at__gt=now + COLLECT_EVERY)
    for vault in Vault.objects.filter(is_due):
        with transaction.atomic():
            later = Vault.objects.filter(pk=vault.pk, next_collection_at=vault.next_collection_at)
            if not later.update(next_collection_at=now + COLLECT_EVERY):
                continue
            order_collection(vault, RANK_SELF)
