"""What has been promised on hosts: taken with the planned desktop, handed over when a listing shows its machine.

Capacity is what was promised, not what is seen, so a hundred plans at once cannot fill one host twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

import structlog
from django.db.models import Case, Expression, F, IntegerField, Q, Sum, Value, When

from broker.domain.lifecycle import State
from broker.domain.placement import Needs, Target
from broker.models import Desktop, Host

log = structlog.get_logger()

HOLDS_NOTHING = Q(state=State.GONE) | Q(state=State.FAILED, machine_id="")
"""Desktops that stand nowhere and will not."""


def take(target: Target, needs: Needs) -> bool:
    """Reserve what one desktop needs; False if somebody was quicker and it does not fit any more."""
    return bool(
        Host.objects.alias(
            memory=F("reserved_memory_mib") + F("used_memory_mib"), cpus=F("reserved_vcpus") + F("used_vcpus")
        )
        .filter(
            pk=target.host_id,
            memory__lte=target.memory_limit_mib - needs.memory_mib,
            cpus__lte=target.vcpu_limit - needs.vcpus,
        )
        .update(
            reserved_memory_mib=F("reserved_memory_mib") + needs.memory_mib,
            reserved_vcpus=F("reserved_vcpus") + needs.vcpus,
        )
    )


def end(desktops: Iterable[Desktop]) -> None:
    """End the reservations of these desktops: their machines are counted as used now, or will never stand.

    The caller holds their rows; desktops that hold none cost nothing.
    """
    held: dict[UUID, list[Desktop]] = defaultdict(list)
    for desktop in desktops:
        if desktop.target_host_id and (desktop.reserved_memory_mib or desktop.reserved_vcpus):
            held[desktop.target_host_id].append(desktop)
    # In the order of their ids, as whoever reserves on several.
    for host_id, rows in sorted(held.items()):
        Host.objects.filter(pk=host_id).update(
            reserved_memory_mib=_less("reserved_memory_mib", sum(d.reserved_memory_mib for d in rows)),
            reserved_vcpus=_less("reserved_vcpus", sum(d.reserved_vcpus for d in rows)),
        )
        Desktop.objects.filter(pk__in=[d.pk for d in rows]).update(reserved_memory_mib=0, reserved_vcpus=0)
        for desktop in rows:
            desktop.reserved_memory_mib = desktop.reserved_vcpus = 0


def _less(field: str, amount: int) -> Expression:
    """The field less the amount, but never below zero: a recount may have been quicker."""
    return Case(
        When(**{f"{field}__gte": amount}, then=F(field) - amount), default=Value(0), output_field=IntegerField()
    )


def recount() -> None:
    """Set every host's reservation to what its desktops hold, should anything have been lost or counted twice."""
    held = {
        row["target_host"]: (row["memory"], row["cpus"])
        for row in Desktop.objects.exclude(HOLDS_NOTHING)
        .filter(reserved_memory_mib__gt=0)
        .values("target_host")
        .annotate(memory=Sum("reserved_memory_mib"), cpus=Sum("reserved_vcpus"))
        .order_by()
    }
    for host in Host.objects.all():
        before = (host.reserved_memory_mib, host.reserved_vcpus)
        after = held.get(host.pk, (0, 0))
        if before == after:
            continue
        # Only if nobody reserved meanwhile; else the next count is in time.
        unchanged = Host.objects.filter(pk=host.pk, reserved_memory_mib=before[0], reserved_vcpus=before[1])
        if unchanged.update(reserved_memory_mib=after[0], reserved_vcpus=after[1]):
            log.warning("host.reservations_recounted", host=host.name, before=before, after=after)
