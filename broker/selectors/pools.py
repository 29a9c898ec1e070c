"""Pools: all of them for administrators, those one is entitled to for everybody else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, prefetch_related_objects

from broker.domain import resources
from broker.domain.labels import Label, Tone
from broker.domain.lifecycle import COMING, LIVE, State
from broker.domain.scaling import Holding, spare_of
from broker.models import Desktop, Entitlement, Pool, PoolMember, PoolOwner, Request, Storage
from broker.selectors import room
from broker.selectors.seats import Occupancy, occupancies


def entitling(user: User) -> QuerySet[Entitlement]:
    """What entitles this person, directly or through a group."""
    return Entitlement.objects.filter(Q(user=user) | Q(group__in=user.groups.values("pk")))


def pools_entitled(user: User) -> QuerySet[Pool]:
    """Those that this person may have whole desktops of, directly or through a group."""
    return Pool.objects.filter(Exists(entitling(user).filter(pool=OuterRef("pk"), application=None)))


def pools_usable(user: User) -> QuerySet[Pool]:
    """Those that this person may have desktops of, be it for an application only."""
    return Pool.objects.filter(Exists(entitling(user).filter(pool=OuterRef("pk"))))


def pools_with_members(pools: QuerySet[Pool] | None = None) -> QuerySet[Pool]:
    """Pools (all, unless some are named) with their members: two statements."""
    wanted = Pool.objects.all() if pools is None else pools
    return wanted.select_related("network", "trusted_group").prefetch_related(_members())


def _members() -> Prefetch[str]:
    return Prefetch("members", PoolMember.objects.select_related("hypervisor", "copy__version__template"))


def desktop_counts(pool_ids: Iterable[UUID]) -> dict[UUID, dict[str, int]]:
    """Pool -> state -> number of its live desktops; pools and states without any are left out."""
    counts: dict[UUID, dict[str, int]] = {}
    live = Desktop.objects.filter(pool__in=list(pool_ids), state__in=LIVE)
    for pool_id, state, number in live.order_by().values_list("pool", "state").annotate(number=Count("pk")):
        counts.setdefault(pool_id, {})[state] = number
    return counts


def entitlements() -> QuerySet[Entitlement]:
    return Entitlement.objects.select_related("user", "group")


def ownerships_of(user: User) -> QuerySet[PoolOwner]:
    """By which this person answers for pools: their own and their groups'."""
    return PoolOwner.objects.filter(Q(user=user) | Q(group__user=user))


def pools_owned(user: User) -> QuerySet[Pool]:
    """Those that this person answers for."""
    return Pool.objects.filter(pk__in=ownerships_of(user).values("pool"))


def pools_seen_by(user: User) -> QuerySet[Pool]:
    """Those that they may have desktops of, and those that they answer for."""
    return Pool.objects.filter(Q(pk__in=pools_entitled(user).values("pk")) | Q(pk__in=pools_owned(user).values("pk")))


def owners_of(pool_id: UUID) -> QuerySet[PoolOwner]:
    return (
        PoolOwner.objects.filter(pool=pool_id).select_related("user", "group").order_by("group__name", "user__username")
    )


def members_of(pool_id: UUID) -> QuerySet[PoolMember]:
    return PoolMember.objects.filter(pool=pool_id)


@dataclass(frozen=True, slots=True)
class Standing:
    """A pool and how far it is from what it promises."""

    pool: Pool
    counts: dict[str, int]
    """state -> live desktops"""
    waiting: int
    """Requests in its queue."""
    holding: Holding
    """Minimum and spare that hold now."""
    why_nothing: str = ""
    """Why no further desktop can be built now; empty if one can, if none is missing, and until `explained`."""
    seats: Occupancy | None = None
    """Of a shared pool."""

    @property
    def ready(self) -> int:
        return self.counts.get(State.READY, 0)

    @property
    def assigned(self) -> int:
        return self.counts.get(State.ASSIGNED, 0)

    @property
    def coming(self) -> int:
        return sum(self.counts.get(state, 0) for state in COMING)

    @property
    def failed(self) -> int:
        return self.counts.get(State.FAILED, 0) + self.counts.get(State.MISSING, 0)

    @property
    def live(self) -> int:
        return sum(self.counts.values())

    @property
    def free(self) -> int:
        """Ready desktops; of a shared pool free seats on its session hosts."""
        return max(0, self.seats.offered - self.seats.taken) if self.seats else self.ready

    @property
    def used(self) -> int:
        """Desktops, or seats, that people have."""
        return self.seats.taken if self.seats else self.assigned

    @property
    def spare(self) -> int:
        """How many shall be free now."""
        target = self.holding.target
        return spare_of(target.spare, target.spare_percent, self.used + self.waiting)

    @property
    def is_short(self) -> bool:
        """Fewer free than its spare, while it is open and may grow."""
        may_grow = self.assigned < self.pool.maximum if self.seats is None else self.live < self.pool.maximum
        return self.pool.is_enabled and self.free < self.spare and may_grow

    @property
    def is_lacking(self) -> bool:
        """Short, or held: it says why."""
        return self.is_short or bool(self.pool.hold_reason)

    @property
    def is_at_a_loss(self) -> bool:
        """Short, with nothing under way and no order to wait: only hosts and storages can tell why."""
        return self.is_short and not self.coming and not self.pool.hold_reason

    @property
    def reason(self) -> str:
        """Why it is short, in words; the most telling reason first."""
        if self.pool.hold_reason:
            return self.pool.hold_reason
        if self.coming:
            return f"{self.coming} on their way." if self.coming > 1 else "1 on its way."
        if self.why_nothing:
            return self.why_nothing
        if self.live >= self.pool.maximum:
            return f"All {self.live} desktops of its maximum exist; {self.failed} of them failed or missing."
        return "The next ones are ordered within moments."

    @property
    def label(self) -> Label:
        if not self.pool.is_enabled:
            return Label("Disabled", Tone.OFF, "pause")
        if self.pool.hold_reason:
            return Label("Held", Tone.ATTENTION, "lock")
        if not self.is_short:
            return Label("Spare is full", Tone.GOOD, "check")
        if self.coming:
            return Label("Filling", Tone.BUSY, "spinner")
        return Label("Below spare", Tone.ATTENTION, "warning")


def standings(pools: Sequence[Pool], now: datetime) -> list[Standing]:
    """How each pool stands, without what only hosts and storages can tell: two statements, whatever their number, and
    one more if any is shared."""
    seats = occupancies(pools)
    counts = desktop_counts(pool.pk for pool in pools)
    queue = Request.objects.filter(pool__in=[p.pk for p in pools], state__in=Request.IN_QUEUE).order_by()
    waiting = dict(queue.values_list("pool").annotate(number=Count("pk")))
    return [
        Standing(pool, counts.get(pool.pk, {}), waiting.get(pool.pk, 0), pool.holding(now), seats=seats.get(pool.pk))
        for pool in pools
    ]


def explained(found: Sequence[Standing], now: datetime) -> list[Standing]:
    """The same with `why_nothing`: at most eight statements, none if nothing is missing. What `pools_with_members` has
    read is not read again.
    """
    reasons = _why_nothing([standing.pool for standing in found if standing.is_at_a_loss], now)
    return [replace(standing, why_nothing=reasons.get(standing.pool.pk, "")) for standing in found]


def _why_nothing(pools: Sequence[Pool], now: datetime) -> dict[UUID, str]:
    """Pool -> why no desktop of it can be built now; empty if one can."""
    if not pools:
        return {}
    prefetch_related_objects(pools, "network", _members())
    members = {pool.pk: list(pool.members.all()) for pool in pools}
    known = room.estate([member for some in members.values() for member in some], {p.network_id for p in pools})
    return {pool.pk: room.why_nothing(pool, members[pool.pk], known, now) for pool in pools}


@dataclass(frozen=True, slots=True)
class MemberStanding:
    member: PoolMember
    desktops: int
    unshared: int = 0
    """Machines in use or ready that do not have the pool's share of their host yet."""
    storage: str = ""
    """Where clones go, by name, if not where the copy lies."""
    network_warning: str = ""
    """That the pool's network is nothing there, or is not kept apart as it shall be."""

    @property
    def knows_no_shares(self) -> bool:
        """Whether the pool wants a share that this platform has no word for."""
        takes = self.member.hypervisor.takes
        return bool(takes) and "ShareResources" not in takes and self.member.pool.share != resources.AS_BUILT

    @property
    def notes(self) -> list[str]:
        """What an administrator should know of it, in words."""
        said = [self.network_warning] if self.network_warning else []
        if self.knows_no_shares:
            said.append(f"{self.member.hypervisor} knows no shares of a host: there the class orders the queue only.")
        elif self.unshared:
            wait = "machine waits for its share" if self.unshared == 1 else "machines wait for their share"
            said.append(f"{self.unshared} {wait} of the host on {self.member.hypervisor}.")
        return said


def member_standings(pool: Pool) -> list[MemberStanding]:
    """The members of a pool (prefetched) with how many live desktops each holds; at most three statements."""
    live = Desktop.objects.filter(pool=pool, state__in=LIVE).order_by()
    has_share = Q(applied_share=pool.share.stored())
    if pool.share == resources.AS_BUILT:
        has_share |= Q(applied_share="")
    lacks = Q(state__in=[State.READY, State.ASSIGNED]) & ~has_share
    counted = live.values_list("member").annotate(number=Count("pk"), unshared=Count("pk", filter=lacks))
    numbers = {member: (number, unshared) for member, number, unshared in counted}
    members = list(pool.members.all())
    chosen = {member.storage for member in members if member.storage}
    rows = Storage.objects.filter(platform_id__in=chosen).values_list("hypervisor", "platform_id", "name")
    names = {(hypervisor, storage): name for hypervisor, storage, name in rows} if chosen else {}
    warnings = _network_warnings(pool, members)
    return [
        MemberStanding(
            member,
            *numbers.get(member.pk, (0, 0)),
            storage=names.get((member.hypervisor_id, member.storage), member.storage),
            network_warning=warnings.get(member.hypervisor_id, "") if not member.networks else "",
        )
        for member in members
    ]


def _network_warnings(pool: Pool, members: Sequence[PoolMember]) -> dict[UUID, str]:
    """Hypervisor -> what is wrong with the pool's logical network there; one statement if it has one."""
    logical = pool.network
    if logical is None:
        return {}
    is_isolated = dict(logical.mappings.values_list("hypervisor", "network__is_isolated"))
    said: dict[UUID, str] = {}
    for member in members:
        if member.hypervisor_id not in is_isolated:
            said[member.hypervisor_id] = f"Network {logical} has no counterpart on {member.hypervisor}."
        elif logical.wants_isolation and not is_isolated[member.hypervisor_id]:
            said[member.hypervisor_id] = f"{member.hypervisor} does not keep network {logical} apart."
    return said
