"""Seats on session hosts: which hosts take somebody now, and how many seats are taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from broker.domain import seating
from broker.domain.lifecycle import State
from broker.models import Assignment, Desktop, Hypervisor, Machine, Operation, Pool
from broker.models.operations import GIVES_WAY, UNFINISHED


def hosts_that_take() -> QuerySet[Desktop]:
    """Session hosts whose free seats are given out now: those that a claim would take, and those that others are on.

    Not in maintenance, not where all is to be emptied, and nothing but a start is under way.
    """
    is_off = Q(power="off") & (Q(pool__starts_powered_off=True) | Q(is_resting=True))
    is_fit = Q(is_answering=True) | Q(pool__preparation=Pool.Preparation.NONE) | is_off
    on_draining = Machine.objects.filter(
        hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("machine_id"), host__is_draining=True
    )
    changing = Operation.objects.filter(desktop=OuterRef("pk"), changes=True, state__in=UNFINISHED).exclude(
        GIVES_WAY | Q(kind=Operation.Kind.POWER, parameters__action="on")
    )
    return Desktop.objects.filter(
        is_fit,
        ~Exists(on_draining),
        ~Exists(changing),
        ~Q(state=State.ASSIGNED, is_emptying=True),
        pool__kind=Pool.Kind.SHARED,
        pool__is_enabled=True,
        state__in=(State.READY, State.ASSIGNED),
        is_in_maintenance=False,
        is_moving=False,
        hypervisor__status=Hypervisor.Status.UP,
        hypervisor__is_draining=False,
    )


def with_seats(desktops: QuerySet[Desktop]) -> QuerySet[Desktop]:
    """Adds `seats_taken`: how many people have a seat there."""
    return desktops.annotate(seats_taken=_taken())


def _taken() -> Coalesce:
    here = Assignment.objects.filter(desktop=OuterRef("pk"), until=None, seat__gt=0).order_by().values("desktop")
    return Coalesce(Subquery(here.annotate(number=Count("pk")).values("number"), output_field=IntegerField()), 0)


def with_a_free_seat() -> QuerySet[Desktop]:
    """Of `hosts_that_take` those that are not full."""
    return hosts_that_take().annotate(taken=_taken()).filter(taken__lt=F("pool__seats"))


def taken_on(desktop_ids: Collection[UUID]) -> dict[UUID, frozenset[int]]:
    """Desktop -> the numbers of its seats that are taken; a desktop that is one person's alone has number 0 taken."""
    found: dict[UUID, set[int]] = defaultdict(set)
    rows = Assignment.objects.filter(desktop__in=desktop_ids, until=None)
    for desktop_id, number in rows.values_list("desktop", "seat"):
        found[desktop_id].add(number)
    return {desktop_id: frozenset(numbers) for desktop_id, numbers in found.items()}


def on(desktop: Desktop) -> QuerySet[Assignment]:
    """Who has a seat there, by its number."""
    return Assignment.objects.filter(desktop=desktop, until=None, seat__gt=0).select_related("user").order_by("seat")


@dataclass(frozen=True, slots=True)
class Occupancy:
    """A pool's session hosts that stand, and what is taken of their seats."""

    hosts: int
    taken: int
    seats: int
    """Of one host."""

    @property
    def offered(self) -> int:
        return self.hosts * self.seats

    @property
    def words(self) -> str:
        """Why nobody gets a seat."""
        return seating.full_words(self.hosts, self.taken, self.seats)


def occupancies(pools: Iterable[Pool], hosts: QuerySet[Desktop] | None = None) -> dict[UUID, Occupancy]:
    """Of the shared ones among these pools, on these hosts, or on all that stand; one statement if there are any."""
    shared = {pool.pk: pool.seats for pool in pools if pool.is_shared}
    if not shared:
        return {}
    standing = Desktop.objects.filter(state__in=(State.READY, State.ASSIGNED)) if hosts is None else hosts
    is_taken = Q(assignments__until=None, assignments__seat__gt=0)
    rows = (
        standing.filter(pool__in=shared)
        .order_by()
        .values_list("pool")
        .annotate(hosts=Count("pk", distinct=True), taken=Count("assignments", filter=is_taken))
    )
    found = {pool_id: (hosts, taken) for pool_id, hosts, taken in rows}
    return {pool_id: Occupancy(*found.get(pool_id, (0, 0)), seats) for pool_id, seats in shared.items()}


def loads(desktops: Collection[Desktop]) -> Mapping[UUID, int]:
    """Desktop -> how much of the host below it is used, in percent of what may be given out there, of CPU or memory,
    whichever is more. Those whose host is not known are left out. One statement."""
    by_machine = {(desktop.hypervisor_id, desktop.machine_id): desktop.pk for desktop in desktops}
    rows = Machine.objects.filter(
        hypervisor__in={desktop.hypervisor_id for desktop in desktops},
        platform_id__in={desktop.machine_id for desktop in desktops},
        host__isnull=False,
    ).select_related("host", "hypervisor")
    found = {}
    for row in rows:
        desktop_id, host = by_machine.get((row.hypervisor_id, row.platform_id)), row.host
        if desktop_id is not None and host is not None:
            cpu = host.used_vcpus / max(1.0, host.vcpus * row.hypervisor.vcpu_ratio)
            memory = host.used_memory_mib / max(1.0, host.memory_mib * row.hypervisor.memory_ratio)
            found[desktop_id] = round(100 * max(cpu, memory))
    return found
