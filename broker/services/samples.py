"""Samples of the estate: one each five minutes for two days, one each hour for a hundred."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, F, Sum
from django.db.models.functions import ExtractMinute

from broker.domain.lifecycle import COMING, LIVE, State
from broker.models import Desktop, Host, Hypervisor, Sample, ScreenSession, Storage

FINE = timedelta(days=2)
KEEP = timedelta(days=100)
BROKEN = (State.FAILED, State.MISSING)
BATCH = 5000


def take(now: datetime) -> int:
    """Write the samples of this span, unless they stand. Returns how many. Any number of clocks may call it.

    The statements are as many for a thousand hypervisors as for one.
    """
    at = now.replace(minute=now.minute - now.minute % 5, second=0, microsecond=0)
    if Sample.objects.filter(at=at, hypervisor=None).exists():
        return 0
    counts = _counts()
    ids: list[UUID] = list(Hypervisor.objects.order_by().values_list("pk", flat=True))
    rows = [Sample(at=at, hypervisor_id=pk, **counts[pk]) for pk in ids]
    total: Counter[str] = Counter()
    for pk in ids:
        total.update(counts[pk])
    # The estate's own row last: where it stands, all stand.
    Sample.objects.bulk_create([*rows, Sample(at=at, **total)], ignore_conflicts=True)
    return len(rows) + 1


def tidy(now: datetime) -> int:
    """Delete at most one batch of what is older than is kept. Returns how many rows went."""
    old = Sample.objects.filter(at__lt=now - KEEP)
    fine = Sample.objects.filter(at__lt=now - FINE).annotate(minute=ExtractMinute("at")).exclude(minute=0)
    return sum(Sample.objects.filter(pk__in=list(rows.order_by().values_list("pk", flat=True)[:BATCH])).delete()[0]
               for rows in (old, fine))  # fmt: skip


def _counts() -> dict[UUID, Counter[str]]:
    """By hypervisor: the fields of its sample."""
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    live = Desktop.objects.filter(state__in=LIVE).order_by()
    for pk, state, number in live.values_list("hypervisor", "state").annotate(number=Count("pk")):
        name = _NAMES.get(State(state))
        if name:
            found[pk][name] += number
    open_ones = ScreenSession.objects.filter(ended_at=None).order_by()
    used = open_ones.values_list("desktop__hypervisor").annotate(number=Count("desktop", distinct=True))
    for pk, number in used:
        found[pk]["in_use"] += number
    taken = {
        "all_vcpus": Sum("vcpus"),
        "gone_vcpus": Sum(F("used_vcpus") + F("reserved_vcpus")),
        "all_memory": Sum("memory_mib"),
        "gone_memory": Sum(F("used_memory_mib") + F("reserved_memory_mib")),
    }
    hosts = Host.objects.order_by().values_list("hypervisor").annotate(**taken)
    for pk, vcpus, taken_vcpus, memory, taken_memory in hosts:
        found[pk].update(vcpus=vcpus, taken_vcpus=taken_vcpus, memory_mib=memory, taken_memory_mib=taken_memory)
    storages = Storage.objects.order_by().values_list("hypervisor")
    rooms = storages.annotate(all=Sum("capacity_mib"), gone=Sum(F("capacity_mib") - F("free_mib")))
    for pk, capacity, gone in rooms:
        found[pk].update(storage_mib=capacity, taken_storage_mib=gone)
    return found


_NAMES = {
    State.READY: "ready",
    State.ASSIGNED: "assigned",
    **dict.fromkeys(COMING, "coming"),
    **dict.fromkeys(BROKEN, "broken"),
}
