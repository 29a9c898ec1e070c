"""The reconciler: looks at a pool, asks `domain/planning` what to do, and carries it out.

Level-triggered and idempotent: it repairs whatever a crash left, because it only looks at what is there. One pool at a
time, under the pool's row lock; it never calls a hypervisor.

0. Take the steps of a template version that is pushed (`services/pushes`).
1. Plan anew what was planned for a hypervisor that went away.
2. Move desktops as planned.  3. Build.  4. Write the orders that are missing, and tell those who wait.
5. Turn out whoever is on a desktop that is behind when a push's deadline is over.

Each is a transaction of its own that looks anew. Inventories lock hosts before desktops and pumps the other way round,
so whoever moves desktops that have machines must not hold a host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.utils import timezone

from broker.domain import naming, placement, planning, resources, seating
from broker.domain.backoff import delay_s
from broker.domain.lifecycle import NEEDS_ORDER, State, sources
from broker.domain.lifecycle import Event as Move
from broker.domain.tiles import closed
from broker.models import (
    AuditEntry,
    Desktop,
    Event,
    Host,
    Hypervisor,
    Machine,
    Operation,
    Pool,
    PoolMember,
    Push,
    Request,
    TemplateCopy,
)
from broker.models.operations import UNFINISHED
from broker.selectors import networks, room, seats
from broker.services import audit, brokering, desktops, nudges, operations, pushes, reservations

log = structlog.get_logger()

SOON_S, CALM_S = 2.0, 10.0
STRANDED_S = 5.0
"""A planned desktop whose order could not be sent for so long because its hypervisor is down is planned anew."""
SHARES_AT_ONCE = 50
"""Orders of a pool's share that may be under way: a pool that is changed floods no platform."""
SHARE_AGAIN = timedelta(hours=1)
"""A machine that would not take its share is asked again after this."""
MISSING_KEPT = timedelta(minutes=10)
"""A missing desktop of nobody's is let go after this, if its hypervisor is up."""


def run(pool_id: UUID) -> None:
    """Reconcile one pool once. Returns at once if somebody else is at it."""
    nudges.taken(nudges.RECONCILE, pool_id)
    work = Work(pool_id, timezone.now())
    if all(work.is_carried_out(step) for step in (work.push, work.strand, work.move, work.build, work.settle)):
        if work.is_pushing:
            pushes.turn_out(pool_id, work.now)
        brokering.serve_queue(pool_id=pool_id)


@dataclass
class Work:
    """One reconciliation."""

    pool_id: UUID
    now: datetime
    reason: str = ""
    """Why nothing could be built, for those who wait."""
    is_built: bool = False
    """The plan's builds are written."""
    counts: set[str] = field(default_factory=set)
    """States in which the pool has desktops."""
    is_pushing: bool = False
    """A push is open and due."""
    pushed: Push | None = None
    suspects: frozenset[UUID] = frozenset()
    """Desktops that failed on the pushed version."""
    kept: set[tuple[UUID, UUID]] = field(default_factory=set)
    """(member, copy) that desktops may stay on although the member builds from another one."""

    def is_carried_out(self, step: Callable[[], None]) -> bool:
        """Take a step, if it is needed, under the pool's lock; False if somebody else is at it or the pool is gone."""
        if (step == self.strand and not self._away()) or (step == self.build and self.is_built):
            return True
        if step == self.push and not pushes.has_open(self.pool_id, self.now):
            return True
        with transaction.atomic():
            found = Pool.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=self.pool_id).first()
            if found is None:
                return False
            self.pool = found
            step()
        return True

    @cached_property
    def members(self) -> list[PoolMember]:
        rows = PoolMember.objects.filter(pool=self.pool_id)
        return list(rows.select_related("hypervisor", "copy", "copy__version"))

    def push(self) -> None:
        self.is_pushing = True
        pushes.advance(self.pool, self.now)

    # -- plan --

    def _plan(self) -> tuple[list[Desktop], list[planning.Action]]:
        rows = self._desktops()
        self.counts = {d.state for d in rows}
        self._ask_for_pushes()
        on_draining, lost = self._on_draining_hosts(rows), self._lost_hypervisors(rows)
        facts = [self._facts(d, d.pk in on_draining, d.hypervisor_id not in lost) for d in rows]
        targets = self._targets()
        members = [self._member_facts(m, targets) for m in self.members]
        return rows, planning.plan(self._pool_facts(targets), members, facts, self.now)

    def _ask_for_pushes(self) -> None:
        """What the plan has to know of template versions: which is being pushed, and what was pushed and given up."""
        self.pushed = pushes.running(self.pool_id) if self.is_pushing else None
        self.suspects = frozenset(pushes.suspects(self.pushed))
        kept = {} if self.pushed else pushes.kept_versions(self.pool_id)
        copies = TemplateCopy.objects.filter(version__in=set(kept.values())) if kept else ()
        self.kept = {(m, copy.pk) for m, version in kept.items() for copy in copies if copy.version_id == version}

    def move(self) -> None:
        """What is planned for desktops that there are; builds too if nothing was to be moved."""
        rows, actions = self._plan()
        by_id = {str(d.pk): d for d in rows}
        moves = [*(a for a in actions if not isinstance(a, planning.Build | planning.Hold)), *self._missing_for_long()]
        # Desktops are locked in the order of their ids, as pumps do.
        for action in sorted(moves, key=lambda a: a.desktop):
            match action:
                case planning.Retire(desktop, reason):
                    desktops.retire(by_id[desktop], reason=reason)
                    self.counts.add(State.RETIRING)
                case planning.Recycle(desktop, reason):
                    self._recycle(by_id[desktop], reason)
                case planning.Fail(desktop, reason):
                    self._fail(by_id[desktop], reason)
                case planning.Empty(desktop, reason):
                    self._turn(by_id[desktop], reason, is_emptying=True)
                case planning.Fill(desktop, reason):
                    self._turn(by_id[desktop], reason, is_emptying=False)
        for hold in (a for a in actions if isinstance(a, planning.Hold)):
            self._hold(hold.reason)
        if not moves:
            self._carry_out_builds(actions)

    def build(self) -> None:
        """What is planned to be built, after desktops were moved."""
        _, actions = self._plan()
        self._carry_out_builds(actions)

    def _carry_out_builds(self, actions: Sequence[planning.Action]) -> None:
        self.is_built = True
        for action in actions:
            if isinstance(action, planning.Build):
                self._build(action.count, action.member)

    def settle(self) -> None:
        """Orders for what needs one, words for those who wait, and when to look again."""
        self.fill_orders()
        self.share_resources()
        self.tell_waiting()
        busy = bool(self.counts & {State.PLANNED, State.BUILDING, State.PREPARING, State.RECYCLING, State.RETIRING})
        self.pool.next_reconcile_at = timezone.now() + timedelta(seconds=SOON_S if busy else CALM_S)
        self.pool.save(update_fields=["next_reconcile_at"])

    def _desktops(self) -> list[Desktop]:
        return list(
            Desktop.objects.filter(pool=self.pool)
            .exclude(state=State.GONE)
            .only(
                "id", "name", "state", "state_since", "epoch", "clean_epoch", "is_answering", "power", "member_id",
                "copy_id", "is_in_maintenance", "attempts", "machine_id", "hypervisor_id", "target_host_id", "pool_id",
                "reserved_memory_mib", "reserved_vcpus", "observed_at", "is_resting", "is_emptying",
            )
            .annotate(open_assignments=Count("assignments", filter=Q(assignments__until=None)))
        )  # fmt: skip

    def _pool_facts(self, targets: Sequence[placement.Target]) -> planning.PoolFacts:
        pool = self.pool
        hour_ago = max(filter(None, [self.now - timedelta(hours=1), pool.resumed_at]))
        target = pool.holding(self.now).target
        return planning.PoolFacts(
            minimum=min(target.minimum, pool.maximum),
            spare=target.spare,
            spare_percent=target.spare_percent,
            maximum=pool.maximum,
            waiting=Request.objects.filter(pool=pool, state__in=Request.IN_QUEUE).count(),
            is_enabled=pool.is_enabled,
            is_cramped=self._is_cramped(targets),
            is_pushing=self.pushed is not None,
            push_failures=pushes.failures_in_a_row(self.pushed) if self.pushed else 0,
            prepare_timeout_s=pool.prepare_timeout_s,
            delete_budget_per_hour=pool.delete_budget_per_hour,
            deletes_last_hour=AuditEntry.objects.filter(
                action="desktop.retire", at__gte=hour_ago, object_id__in=self._pool_desktop_ids(hour_ago)
            ).count(),
            hold_reason=pool.hold_reason,
            seats=pool.seats if pool.is_shared else None,
            freshens_when_empty=pool.freshens_when_empty,
        )

    def _pool_desktop_ids(self, since: datetime) -> list[str]:
        """Desktops of this pool that were retired lately; few, and found by their state."""
        retired = Desktop.objects.filter(pool=self.pool, state__in=[State.RETIRING, State.GONE], state_since__gte=since)
        retired = retired.exclude(machine_id="")  # nothing of theirs is deleted anywhere
        return [str(pk) for pk in retired.values_list("pk", flat=True)]

    def _is_cramped(self, targets: Sequence[placement.Target]) -> bool:
        return bool(targets) and placement.place(self._wish(), targets, self.now).target is None

    def _member_facts(self, member: PoolMember, targets: Sequence[placement.Target]) -> planning.MemberFacts:
        hypervisor = member.hypervisor
        there = [t for t in targets if t.member_id == str(member.pk)] if member.minimum else []
        return planning.MemberFacts(
            id=str(member.pk),
            status=hypervisor.status,
            status_since=hypervisor.status_since,
            is_draining=hypervisor.is_draining,
            is_enabled=member.is_enabled,
            hold_until=member.hold_until,
            failures=member.failures,
            minimum=member.minimum,
            is_cramped=self._is_cramped(there),
            maximum=member.maximum,
        )

    def _on_draining_hosts(self, rows: Sequence[Desktop]) -> set[UUID]:
        """Desktops whose machine stands on a host that is to be emptied, or that are planned there."""
        known = {d.hypervisor_id for d in rows}
        hosts = set(Host.objects.filter(hypervisor__in=known, is_draining=True).values_list("pk", flat=True))
        if not hosts:
            return set()
        seen = Machine.objects.filter(hypervisor__in=known, host__isnull=False).exclude(stamp_key="")
        standing = {(h, m): host for h, m, host in seen.values_list("hypervisor", "platform_id", "host")}
        return {d.pk for d in rows if standing.get((d.hypervisor_id, d.machine_id), d.target_host_id) in hosts}

    def _lost_hypervisors(self, rows: Sequence[Desktop]) -> set[UUID]:
        """Those that are not up, of desktops whose member was removed; what members build on is known from them."""
        left = {d.hypervisor_id for d in rows if d.member_id is None}
        if not left:
            return set()
        lost = Hypervisor.objects.filter(pk__in=left).exclude(status=Hypervisor.Status.UP)
        return set(lost.values_list("pk", flat=True))

    def _facts(self, desktop: Desktop, is_draining: bool, is_reachable: bool) -> planning.DesktopFacts:
        member = next((m for m in self.members if m.pk == desktop.member_id), None)
        return planning.DesktopFacts(
            id=str(desktop.pk),
            state=State(desktop.state),
            state_since=desktop.state_since,
            epoch=desktop.epoch,
            is_answering=desktop.is_answering,
            power=desktop.power,
            member_id=str(member.pk) if member else None,
            copy_current=member is None
            or member.copy_id == desktop.copy_id
            or (member.pk, desktop.copy_id) in self.kept,
            is_suspect=desktop.pk in self.suspects,
            in_maintenance=desktop.is_in_maintenance,
            attempts=desktop.attempts,
            has_machine=bool(desktop.machine_id),
            has_user_data=bool(desktop.machine_id) and desktop.clean_epoch != desktop.epoch > 1,
            is_assigned=bool(desktop.open_assignments),  # type: ignore[attr-defined]
            seats_taken=desktop.open_assignments if self.pool.is_shared else 0,  # type: ignore[attr-defined]
            is_emptying=desktop.is_emptying,
            is_draining=is_draining,
            is_reachable=is_reachable or member is not None,
            silent_since=self._silent_since(desktop),
        )

    def _silent_since(self, desktop: Desktop) -> datetime | None:
        """Since when a ready desktop could not be claimed, or a session host taken; see `brokering.CLAIM`. None if it
        can be."""
        is_given_out_off = (self.pool.starts_powered_off or desktop.is_resting) and desktop.power == "off"
        if desktop.is_answering or is_given_out_off or self.pool.preparation == Pool.Preparation.NONE:
            return None
        return max(filter(None, [desktop.observed_at, desktop.state_since]))

    # -- build --

    def _wish(self) -> placement.Wish:
        return room.wish_of(self.pool)

    def _targets(self, member_id: str = "") -> list[placement.Target]:
        """Those of one member, or of all."""
        members = [m for m in self.members if member_id in ("", str(m.pk))]
        return room.estate(members, [self.pool.network_id]).targets(members, self.pool.network_id)

    def _build(self, count: int, member_id: str = "") -> None:
        """Name, place, reserve and plan up to `count` desktops, with their clone orders; only on the member if one is
        named."""
        numbered = self._names(count)
        if len(numbered) < count:
            self.reason = f"No name of the pattern {self.pool.naming} is free. Machines of others may have them."
        if not numbered:
            return
        placements = placement.place_many(self._wish(), len(numbered), self._targets(member_id), self.now)
        chosen = [p for p in placements if p.target is not None and p.needs is not None]
        if len(chosen) < len(placements):
            self.reason = placement.explain_none(placements[-1])
        kept = self._reserve(chosen)
        if not kept:
            return
        numbered = numbered[: len(kept)]
        members = {str(m.pk): m for m in self.members}
        built = [
            self._planned(name, choice, members[choice.target.member_id])
            for (_, name), choice in zip(numbered, kept, strict=True)
            if choice.target is not None
        ]
        # The last one given, which is not the greatest where the numbers have begun anew.
        self.pool.last_number = numbered[-1][0]
        self.pool.save(update_fields=["last_number"])
        Desktop.objects.bulk_create(built, batch_size=200)
        self._order_clones(built)
        Event.objects.bulk_create(
            [
                operations.event(
                    "desktop.planned", f"Planned on {d.hypervisor}.", desktop=d, hypervisor_id=d.hypervisor_id
                )
                for d in built
            ],
            batch_size=200,
        )
        self.counts.add(State.PLANNED)
        nudges.announce("desktops")

    def _names(self, count: int) -> list[tuple[int, str]]:
        """Free names by the pool's pattern; another pool, or another owner of a machine there, may have taken some."""
        prefix = self.pool.naming.split("#")[0]
        live = Desktop.objects.filter(name__startswith=prefix).exclude(state=State.GONE)
        machines = Machine.objects.filter(
            name__startswith=prefix, hypervisor__in=[m.hypervisor_id for m in self.members]
        )
        taken = set(live.values_list("name", flat=True)) | set(machines.values_list("name", flat=True))
        return naming.names(self.pool.naming, taken, self.pool.last_number, count)

    def _reserve(self, chosen: Sequence[placement.Placement]) -> list[placement.Placement]:
        """Take what the placements need by guarded updates; who is too late is left out."""
        wanted = [(c.target, c.needs, c) for c in chosen if c.target is not None and c.needs is not None]
        # In the order of their ids: other pools' reconcilers lock the same hosts.
        wanted.sort(key=lambda wish: wish[0].host_id)
        return [choice for target, needs, choice in wanted if reservations.take(target, needs)]

    def _planned(self, name: str, choice: placement.Placement, member: PoolMember) -> Desktop:
        if choice.target is None or choice.needs is None:
            raise ValueError("Only placed desktops can be planned.")
        return Desktop(
            name=name,
            pool=self.pool,
            member=member,
            hypervisor=member.hypervisor,
            copy=member.copy,
            state_since=self.now,
            vcpus=choice.needs.vcpus,
            memory_mib=choice.needs.memory_mib,
            target_host_id=UUID(choice.target.host_id),
            reserved_memory_mib=choice.needs.memory_mib,
            reserved_vcpus=choice.needs.vcpus,
            why=choice.stored(),
        )

    # -- orders --

    def fill_orders(self) -> None:
        """Write the order that a state needs where none is unfinished: after a crash, a failure, a release."""
        waiting = (
            Desktop.objects.filter(pool=self.pool, state__in=list(NEEDS_ORDER))
            .exclude(operations__in=Operation.objects.filter(changes=True, state__in=UNFINISHED))
            .select_related("pool", "copy", "hypervisor", "member", "member__copy")
            .annotate(
                tried_at=Subquery(
                    Operation.objects.filter(desktop=OuterRef("pk"), state=Operation.State.FAILED)
                    .order_by("-created_at")
                    .values("finished_at")[:1]
                )
            )
            .order_by("pk")
        )
        clones, deletes = [], []
        for desktop in waiting:
            pause = timedelta(seconds=delay_s(desktop.attempts, str(desktop.pk), base_s=10, cap_s=600))
            if (
                desktop.attempts
                and self.now < max(desktop.state_since, desktop.tried_at or desktop.state_since) + pause
            ):
                continue
            if desktop.state == State.RECYCLING:
                self._order_recycle(desktop)
            elif desktop.state == State.RETIRING:
                deletes.append(desktop)
            elif desktop.machine_id == "":
                clones.append(desktop)
        self._order_clones(clones)
        self._order_deletes(deletes)

    def _order_recycle(self, desktop: Desktop) -> None:
        if desktop.machine_id:
            brokering.order_recycle(desktop)
        else:
            self._fail(desktop, "It has no machine to recycle.")

    def _order_clones(self, planned: Sequence[Desktop]) -> None:
        orders = []
        counterparts = networks.counterparts([self.pool.network_id]) if self.pool.network_id else {}
        for desktop in planned:
            member = desktop.member
            on = list(member.networks) if member else []
            if self.pool.network_id and not on:
                counterpart = counterparts.get((self.pool.network_id, desktop.hypervisor_id))
                if counterpart is None:
                    # The template's own network may be one that it must not be on.
                    self._fail(desktop, f"Network {self.pool.network} has no counterpart on {desktop.hypervisor}.")
                    reservations.end([desktop])
                    continue
                on = [counterpart]
            orders.append(
                operations.draft(
                    kind=Operation.Kind.CLONE,
                    hypervisor_id=desktop.hypervisor_id,
                    desktop=desktop,
                    parameters={
                        "name": desktop.name,
                        "template": desktop.copy.platform_id,
                        "linked": self.pool.is_linked,
                        "storage": brokering.storage_for(desktop),
                        "host": self._host_platform_id(desktop),
                        "vcpus": desktop.vcpus,
                        "memory_mib": desktop.memory_mib,
                        "networks": on,
                        "seed": {"hostname": desktop.name} if self.pool.gives_seed else None,
                    },
                    rank=self.pool.priority,
                )
            )
        self._write(orders)

    def _host_platform_id(self, desktop: Desktop) -> str | None:
        hosts: dict[UUID, str] = self.__dict__.setdefault("_hosts", {})
        if not hosts:
            hosts |= dict(
                Host.objects.filter(hypervisor__in=[m.hypervisor_id for m in self.members]).values_list(
                    "pk", "platform_id"
                )
            )
        return hosts.get(desktop.target_host_id) if desktop.target_host_id else None

    def _order_deletes(self, retiring: Sequence[Desktop]) -> None:
        begun = self._begun([d.pk for d in retiring if not d.machine_id])
        gone = [d for d in retiring if not d.machine_id and d.pk not in begun]
        if gone:
            # No clone of theirs is in flight, and a failed clone leaves nothing behind: there is nothing to delete.
            Desktop.objects.filter(pk__in=[d.pk for d in gone]).update(state=State.GONE, state_since=self.now)
            reservations.end(gone)
        self._write(
            [
                operations.draft(
                    kind=Operation.Kind.DELETE,
                    hypervisor_id=d.hypervisor_id,
                    desktop=d,
                    parameters=begun.get(d.pk) or operations.machine_parameters(d),
                    rank=self.pool.priority,
                )
                for d in retiring
                if d.machine_id or d.pk in begun
            ]
        )

    def _begun(self, ids: Sequence[UUID]) -> dict[UUID, dict[str, str]]:
        """Desktop -> what to delete of a clone that was sent and whose outcome nobody knows, by its key."""
        clones = Operation.objects.filter(desktop__in=ids, kind=Operation.Kind.CLONE, attempt__gt=0)
        unknown = clones.filter(Q(state=Operation.State.CANCELLED) | Q(state=Operation.State.FAILED, is_unsettled=True))
        return {
            desktop: {"machine": "", "stamp_key": str(pk)}
            for desktop, pk in unknown.order_by("created_at").values_list("desktop", "pk")
        }

    def _write(self, orders: Sequence[Operation]) -> None:
        if not orders:
            return
        Operation.objects.bulk_create(orders, batch_size=200)
        for hypervisor_id in {o.hypervisor_id for o in orders}:
            nudges.nudge(nudges.PUMP, hypervisor_id)
        nudges.announce("operations")

    def share_resources(self) -> None:
        """Order the pool's share of their hosts for machines that have another one, where the hypervisor knows shares.

        Such an order is no change of the desktop: it keeps nobody from getting it, and dies when it changes hands.
        """
        takers = [
            m.hypervisor_id
            for m in self.members
            if m.hypervisor.status == Hypervisor.Status.UP and "ShareResources" in m.hypervisor.takes
        ]
        if not takers:
            return
        wanted = self.pool.share
        mine = Operation.objects.filter(desktop__pool=self.pool, kind=Operation.Kind.SHARE)
        under_way = mine.filter(state__in=UNFINISHED)
        refused = mine.filter(state=Operation.State.FAILED, finished_at__gt=self.now - SHARE_AGAIN)
        changing = Operation.objects.filter(desktop__pool=self.pool, changes=True, state__in=UNFINISHED)
        others = (
            Desktop.objects.filter(pool=self.pool, hypervisor__in=takers, state__in=[State.READY, State.ASSIGNED])
            .exclude(machine_id="")
            .exclude(applied_share__in=[wanted.stored(), *([""] if wanted == resources.AS_BUILT else [])])
            .exclude(pk__in=(under_way | refused | changing).values("desktop"))
            .order_by("pk")
        )
        left = SHARES_AT_ONCE - under_way.count()
        self._write(
            [
                operations.draft(
                    kind=Operation.Kind.SHARE,
                    hypervisor_id=d.hypervisor_id,
                    desktop=d,
                    parameters=operations.machine_parameters(d) | {"share": asdict(wanted)},
                    rank=operations.RANK_SHARE,
                    changes=False,
                )
                for d in others[: max(0, left)]
            ]
        )

    # -- single moves --

    def _turn(self, desktop: Desktop, reason: str, *, is_emptying: bool) -> None:
        """Whoever takes a seat meanwhile has it: a host that is to be emptied keeps all who are on it."""
        turned = Desktop.objects.filter(pk=desktop.pk, state=State.ASSIGNED, is_emptying=not is_emptying)
        if turned.update(is_emptying=is_emptying):
            kind = "desktop.emptying" if is_emptying else "desktop.filling"
            operations.event(kind, reason, desktop=desktop).save(force_insert=True)
            nudges.announce("desktops", desktop=str(desktop.pk))

    def _recycle(self, desktop: Desktop, reason: str) -> None:
        if desktop.state == State.ASSIGNED:
            if brokering.freshen(desktop, reason):
                self.counts.add(State.RECYCLING)
            return
        moved = Desktop.objects.filter(pk=desktop.pk, state__in=sources(Move.RETRIED)).update(
            state=State.RECYCLING, state_since=self.now
        )
        if moved:
            operations.event("desktop.retried", reason, desktop=desktop).save(force_insert=True)
            self.counts.add(State.RECYCLING)

    def _fail(self, desktop: Desktop, reason: str) -> None:
        moved = Desktop.objects.filter(pk=desktop.pk, state__in=sources(Move.FAULTED)).update(
            state=State.FAILED, state_since=self.now, failure=reason, attempts=F("attempts") + 1, is_answering=False
        )
        if moved:
            operations.event("desktop.failed", reason, level="error", desktop=desktop).save(force_insert=True)
            nudges.announce("desktops")

    def _away(self) -> list[UUID]:
        """Members' hypervisors that have been down for a while."""
        since = self.now - timedelta(seconds=STRANDED_S)
        return [
            m.hypervisor_id
            for m in self.members
            if m.hypervisor.status in (Hypervisor.Status.DOWN, Hypervisor.Status.REFUSED)
            and (m.hypervisor.status_since or self.now) <= since
        ]

    def strand(self) -> None:
        """Desktops that were planned for a hypervisor that went away before their order was sent are planned anew."""
        stranded = Desktop.objects.filter(pool=self.pool, state=State.PLANNED, hypervisor__in=self._away())
        for desktop in stranded.order_by("pk"):
            cancelled = Operation.objects.filter(
                desktop=desktop, state=Operation.State.QUEUED, attempt=0, kind=Operation.Kind.CLONE
            ).update(
                state=Operation.State.CANCELLED,
                finished_at=self.now,
                error="Its hypervisor went away before it was sent; it is placed elsewhere.",
            )
            if cancelled:
                Desktop.objects.filter(pk=desktop.pk, state=State.PLANNED).update(
                    state=State.GONE, state_since=self.now
                )
                reservations.end([desktop])

    def _missing_for_long(self) -> list[planning.Retire]:
        """Missing desktops of nobody's are retired after a while, so that orphan rows don't eat the pool's maximum."""
        old = (
            Desktop.objects.filter(
                pool=self.pool,
                state=State.MISSING,
                state_since__lt=self.now - MISSING_KEPT,
                hypervisor__status=Hypervisor.Status.UP,
                is_in_maintenance=False,
            )
            .exclude(assignments__until=None, assignments__isnull=False)
            .exclude(pool__kind=Pool.Kind.DEDICATED)
        )
        words = "Its machine has been missing for long; nobody had it."
        return [planning.Retire(str(pk), words) for pk in old.values_list("pk", flat=True)[:20]]

    # -- those who wait --

    def tell_waiting(self) -> None:
        """Keep the reasons of waiting requests true: being built, or why nothing can be built."""
        queue = Request.objects.filter(pool=self.pool, state__in=Request.IN_QUEUE)
        if not queue.exists():
            return
        coming = Desktop.objects.filter(
            pool=self.pool, state__in=[State.PLANNED, State.BUILDING, State.PREPARING, State.RECYCLING]
        ).count()
        if coming and self.pool.is_enabled:
            state, reason = Request.State.BUILDING, self._why_building()
        else:
            state, reason = Request.State.APPROVED, self._why_none()
        if queue.exclude(state=state, reason=reason).update(state=state, reason=reason):
            nudges.announce("requests")
        self._hurry(queue.count())

    def _hurry(self, people: int) -> None:
        """As many builds as those who wait need go before what fills a spare anywhere; the oldest, as they are done
        first."""
        builds = Operation.objects.filter(
            desktop__pool=self.pool, kind__in=[Operation.Kind.CLONE, Operation.Kind.RECYCLE], state__in=UNFINISHED
        )
        is_ahead = ~Q(state=Operation.State.QUEUED) | Q(rank__lte=operations.RANK_PERSON)
        wanted = seating.hosts_for(people, self.pool.seats) if self.pool.is_shared else people
        missing = wanted - builds.filter(is_ahead).count()
        if missing > 0:
            behind = builds.exclude(is_ahead).order_by("rank", "created_at").values_list("pk", flat=True)[:missing]
            Operation.objects.filter(pk__in=list(behind), state=Operation.State.QUEUED).update(
                rank=operations.rank_for_person(self.pool.priority)
            )

    def _why_building(self) -> str:
        if not self.pool.is_shared:
            return "Your desktop is being built."
        return f"{self._why_no_seat()} Another one is being built."

    def _why_no_seat(self) -> str:
        return seats.occupancies([self.pool], seats.hosts_that_take())[self.pool.pk].words

    def _why_none(self) -> str:
        if not self.pool.is_enabled:
            return closed(self.pool.closed_words, self.pool.name)
        if self.pool.is_shared:
            return self._why_no_host()
        if self.reason:
            return self.reason
        live = Desktop.objects.filter(pool=self.pool).exclude(state=State.GONE).count()
        if live >= self.pool.maximum:
            return f"All {live} desktops of {self.pool} are in use; that is its maximum. You get the next one released."
        return placement.explain_none(placement.place(self._wish(), self._targets(), self.now)) or (
            "You are in the queue and get the next one."
        )

    def _why_no_host(self) -> str:
        live = Desktop.objects.filter(pool=self.pool).exclude(state=State.GONE).count()
        full = self._why_no_seat()
        if live >= self.pool.maximum:
            return f"{full} You get the next seat that is given back."
        why = self.reason or placement.explain_none(placement.place(self._wish(), self._targets(), self.now))
        return f"{full} {why or 'You are in the queue and get the next one.'}"

    def _hold(self, reason: str) -> None:
        """Delete nothing more until an administrator has looked. A pool on hold plans none, so it is said once."""
        self.pool.hold_reason = reason
        self.pool.save(update_fields=["hold_reason"])
        operations.event("pool.held", reason, level="warning", pool_id=self.pool.pk).save(force_insert=True)
        audit.record(actor=None, action="pool.held", subject=self.pool, changes={"reason": [None, reason]})
