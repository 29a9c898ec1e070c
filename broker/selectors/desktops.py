"""Desktops: all of them for administrators, their own open assignments for everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery

from broker.domain.lifecycle import COMING, LIVE, State
from broker.models import Assignment, Desktop, Operation, ScreenSession
from broker.models.operations import UNFINISHED
from broker.selectors.pools import ownerships_of
from broker.selectors.seats import with_seats


def desktops_with_owner() -> QuerySet[Desktop]:
    """Every desktop with pool, hypervisor, and in `owner` and `owned_since` who has it alone now (None: nobody); of the
    lease `lease_until` and `renewed`. On a session host nobody is alone: `seats_taken` says how many are there."""
    rows = with_seats(Desktop.objects.select_related("pool", "hypervisor"))
    return _held_by(rows, Assignment.objects.filter(desktop=OuterRef("pk"), until=None, seat=0))


def _held_by(rows: QuerySet[Desktop], held: QuerySet[Assignment]) -> QuerySet[Desktop]:
    return rows.annotate(
        owner=Subquery(held.values("user__username")[:1]),
        owned_since=Subquery(held.values("since")[:1]),
        lease_until=Subquery(held.values("lease_until")[:1]),
        renewed=Subquery(held.values("renewals")[:1]),
    )


def _mine(user: User) -> QuerySet[Assignment]:
    return Assignment.objects.filter(desktop=OuterRef("pk"), user=user, until=None)


def desktops_assigned(user: User) -> QuerySet[Desktop]:
    """Those that are this person's now, with the same columns; of session hosts those of their own seat."""
    return _held_by(desktops_with_owner(), _mine(user)).filter(Exists(_mine(user)))


def desktops_of_my_pools(user: User) -> QuerySet[Desktop]:
    """Those of the pools that this person answers for, with the same columns."""
    return desktops_with_owner().filter(pool__in=ownerships_of(user).values("pool"))


def desktops_seen_by(user: User) -> QuerySet[Desktop]:
    """Those that are theirs, and those of the pools that they answer for, with the same columns; of session hosts those
    of their own seat."""
    held = Assignment.objects.filter(Q(seat=0) | Q(user=user), desktop=OuterRef("pk"), until=None)
    owned = Q(pool__in=ownerships_of(user).values("pool"))
    return _held_by(desktops_with_owner(), held).filter(Exists(_mine(user)) | owned)


def latest_change(desktop_id: UUID) -> Operation:
    """The newest changing operation of a desktop that had one."""
    return Operation.objects.filter(desktop=desktop_id, changes=True).latest("created_at")


GROUPS: dict[str, frozenset[State]] = {
    "ready": frozenset({State.READY}),
    "assigned": frozenset({State.ASSIGNED}),
    "coming": COMING,
    "failed": frozenset({State.FAILED}),
    "missing": frozenset({State.MISSING}),
    "deleting": frozenset({State.RETIRING}),
    "gone": frozenset({State.GONE}),
}
"""The states as people filter for them."""


def labelled(desktops: QuerySet[Desktop]) -> QuerySet[Desktop]:
    """Adds what a desktop's one label needs: `has_session` and `operation_kind` (empty: nothing is being changed)."""
    screens = ScreenSession.objects.filter(desktop=OuterRef("pk"), ended_at=None)
    changing = Operation.objects.filter(desktop=OuterRef("pk"), changes=True, state__in=UNFINISHED)
    return desktops.annotate(has_session=Exists(screens), operation_kind=Subquery(changing.values("kind")[:1]))


@dataclass(frozen=True, slots=True)
class DesktopFilter:
    """What an administrator looks for; empty fields do not narrow. Without a state, what is gone stays out."""

    state: str = ""
    """A key of `GROUPS`, "used", "off", "silent" or "maintenance"."""
    pool: UUID | None = None
    hypervisor: UUID | None = None
    text: str = ""
    """Part of the desktop's name, its user's name or an address of it."""

    def apply(self, desktops: QuerySet[Desktop]) -> QuerySet[Desktop]:
        if self.pool:
            desktops = desktops.filter(pool=self.pool)
        if self.hypervisor:
            desktops = desktops.filter(hypervisor=self.hypervisor)
        if self.text:
            holders = Assignment.objects.filter(desktop=OuterRef("pk"), until=None, user__username__icontains=self.text)
            desktops = desktops.filter(
                Q(name__icontains=self.text) | Exists(holders) | Q(addresses__icontains=self.text)
            )
        return self._in_state(desktops)

    def _in_state(self, desktops: QuerySet[Desktop]) -> QuerySet[Desktop]:
        if self.state in GROUPS:
            return desktops.filter(state__in=GROUPS[self.state])
        desktops = desktops.filter(state__in=LIVE)
        if self.state == "used":
            return desktops.filter(Exists(ScreenSession.objects.filter(desktop=OuterRef("pk"), ended_at=None)))
        standing = (State.READY, State.ASSIGNED)
        if self.state == "maintenance":
            return desktops.filter(is_in_maintenance=True)
        if self.state == "off":
            return desktops.filter(state__in=standing, power="off")
        if self.state == "silent":
            return desktops.filter(state__in=standing, power="on", is_answering=False)
        return desktops


def counts_by_group(by_state: Mapping[str, int]) -> dict[str, int]:
    """How many desktops are in each group of `GROUPS` but "gone", of how many are in each state."""
    return {
        group: sum(by_state.get(state, 0) for state in states) for group, states in GROUPS.items() if group != "gone"
    }


def used_by_pool() -> dict[UUID, int]:
    """Pool -> how many of its desktops somebody looks at right now; pools without any are left out."""
    used = ScreenSession.objects.filter(ended_at=None).order_by().values_list("desktop__pool")
    return dict(used.annotate(number=Count("desktop", distinct=True)))


def in_use(desktop_ids: list[UUID]) -> int:
    """How many of these somebody looks at right now."""
    return ScreenSession.objects.filter(desktop__in=desktop_ids, ended_at=None).values("desktop").distinct().count()
