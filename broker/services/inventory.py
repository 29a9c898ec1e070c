"""Inventory: what the platforms show, into rows. Has its own lease and session beside the pump.

An observation carries when its reading began and never overwrites what an operation learned later. Absence is believed
only from two complete listings that began after the machine was last known, and never for many machines at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Least
from django.utils import timezone

from broker.domain import absence
from broker.domain.lifecycle import HOLDS_MACHINE, TRANSITIONS, State
from broker.domain.lifecycle import Event as Move
from broker.hypervisors import gate, sessions
from broker.models import (
    Assignment,
    Desktop,
    Event,
    Host,
    Hypervisor,
    Machine,
    Network,
    Operation,
    ReplicationRun,
    Storage,
)
from broker.models.operations import UNFINISHED
from broker.services import hypervisor_status, mirrors, nudges, operations, readiness, reservations, strays
from broker.services import sessions as presences
from broker.services.outcomes import lock_desktops
from broker.services.setwise import update_each
from connectors.base import Agent, Inventory, Power, ProbeAcceleration
from connectors.base import Machine as Seen
from connectors.errors import ConnectorError
from connectors.presence import TellsUsers
from connectors.replication import Mirrors

log = structlog.get_logger()

LEASE_S = 30.0
CALL_S = 20.0
COMPLETE_EVERY_S = 60.0
QUICK_S, CALM_S = 1.0, 5.0
"""Between readings: while desktops are on their way, and otherwise."""

LANDERS = (ReplicationRun.Kind.MATERIALISE, ReplicationRun.Kind.STANDBY)
"""Runs that make machines, under their own ids as keys."""
COUNTED_ABSENCES = 1000
"""A machine in doubt may be absent for months; the count says no more from here on."""

MACHINE_FIELDS = [
    "name", "power", "vcpus", "memory_mib", "host", "stamp_installation", "stamp_key", "agent", "addresses", "cannot",
    "is_template", "template_disk_mib", "template_storage", "template_cannot", "seen_at", "absences",
]  # fmt: skip


NOT_SEEN_SINCE_LEARNED = Q(learned_at__isnull=False) & (Q(observed_at=None) | Q(observed_at__lt=F("learned_at")))
"""Desktops of which an operation learned something that no reading has told since."""


class LeaseLost(RuntimeError):
    """Somebody else reads this hypervisor now."""


def due() -> list[UUID]:
    """Hypervisors whose inventory is due and that nobody reads."""
    now = timezone.now()
    is_time = Q(next_inventory_at=None) | Q(next_inventory_at__lte=now)
    return list(Hypervisor.objects.filter(_may_be_read(now), is_time).values_list("pk", flat=True))


def _may_be_read(now: datetime) -> Q:
    """Nobody is at it, it is not to be left alone for now, and it did not refuse us."""
    is_free = Q(inventory_expires_at=None) | Q(inventory_expires_at__lt=now)
    is_rested = Q(retry_at=None) | Q(retry_at__lte=now)
    return is_free & is_rested & ~Q(status=Hypervisor.Status.REFUSED)


def take(hypervisor_id: UUID) -> None:
    """Read one hypervisor once and write what it shows.

    Returns at once if somebody else is at it, it is to be left alone for now, or it refused us: a late hint must not
    sign in once more with what was refused, since that may lock the account.
    """
    nudges.taken(nudges.INVENTORY, hypervisor_id)
    epoch = _lease(hypervisor_id)
    if epoch is None:
        return
    hypervisor = Hypervisor.objects.get(pk=hypervisor_id)
    try:
        with suppress(LeaseLost):
            try:
                _look(hypervisor, epoch)
            except ConnectorError as error:
                now = timezone.now()
                with _under(hypervisor_id, epoch):
                    hypervisor_status.lost(hypervisor, error)
                    if mirrors.due(hypervisor, now):
                        mirrors.missed(hypervisor, error, now)
    finally:
        _let_go(hypervisor_id, epoch)


def _look(hypervisor: Hypervisor, epoch: int) -> None:
    session = sessions.borrow(hypervisor)
    try:
        reading = _read(hypervisor, session)
        with _under(hypervisor.pk, epoch):
            Writer(hypervisor, reading).write()
        _watch(hypervisor, session, epoch)
        _who_is_there(hypervisor, session, epoch)
    except BaseException:
        # Its cursor may be beyond what was written: the next one begins with a complete listing.
        sessions.discard(session)
        raise
    sessions.give_back(hypervisor.pk, session)


def _watch(hypervisor: Hypervisor, session: sessions.Session, epoch: int) -> None:
    """What the platform replicates by itself, if a policy wants to know. That it cannot tell loses no hypervisor."""
    connector = session.connector
    if not isinstance(connector, Mirrors) or not mirrors.due(hypervisor, timezone.now()):
        return
    expires_at = timezone.now() + timedelta(seconds=LEASE_S)
    Hypervisor.objects.filter(pk=hypervisor.pk, inventory_epoch=epoch).update(inventory_expires_at=expires_at)
    try:
        listing = connector.mirrors(time.monotonic() + CALL_S)
    except ConnectorError as error:
        with _under(hypervisor.pk, epoch):
            mirrors.missed(hypervisor, error, timezone.now())
    else:
        with _under(hypervisor.pk, epoch):
            mirrors.write(hypervisor, listing, timezone.now())


def _who_is_there(hypervisor: Hypervisor, session: sessions.Session, epoch: int) -> None:
    """Who is logged on to the guests that somebody has a session on. That none could be asked says nothing of them."""
    connector = session.connector
    if not isinstance(connector, TellsUsers):
        return
    asked = presences.to_ask(hypervisor.pk, timezone.now())
    if not asked:
        return
    expires_at = timezone.now() + timedelta(seconds=LEASE_S)
    Hypervisor.objects.filter(pk=hypervisor.pk, inventory_epoch=epoch).update(inventory_expires_at=expires_at)
    try:
        answers = list(connector.guest_users(list(asked), time.monotonic() + CALL_S / 2))
    except ConnectorError as error:
        log.info("session.guests_not_asked", hypervisor=str(hypervisor), reason=error.message)
        answers = []
    presences.told(asked, answers, timezone.now())


def _lease(hypervisor_id: UUID) -> int | None:
    now = timezone.now()
    taken = Hypervisor.objects.filter(_may_be_read(now), pk=hypervisor_id).update(
        inventory_epoch=F("inventory_epoch") + 1, inventory_expires_at=now + timedelta(seconds=LEASE_S)
    )
    return Hypervisor.objects.values_list("inventory_epoch", flat=True).get(pk=hypervisor_id) if taken else None


def _let_go(hypervisor_id: UUID, epoch: int) -> None:
    coming = Desktop.objects.filter(
        hypervisor_id=hypervisor_id, state__in=[State.BUILDING, State.PREPARING, State.RECYCLING]
    ).exists()
    pause = QUICK_S if coming else CALM_S
    Hypervisor.objects.filter(pk=hypervisor_id, inventory_epoch=epoch).update(
        inventory_expires_at=None, next_inventory_at=timezone.now() + timedelta(seconds=pause)
    )


class _under(transaction.Atomic):
    """A transaction that exists only while the inventory lease is ours."""

    def __init__(self, hypervisor_id: UUID, epoch: int) -> None:
        super().__init__(using=None, savepoint=True, durable=False)
        self.hypervisor_id, self.epoch = hypervisor_id, epoch

    def __enter__(self) -> None:
        super().__enter__()
        held = Hypervisor.objects.select_for_update(no_key=True).filter(
            pk=self.hypervisor_id, inventory_epoch=self.epoch
        )
        if not held.values_list("pk", flat=True).first():
            super().__exit__(LeaseLost, LeaseLost(), None)
            raise LeaseLost


def _read(hypervisor: Hypervisor, session: sessions.Session) -> Inventory:
    """One reading. The first of a session signs in and checks; a complete one follows at least every minute."""
    if not session.is_checked:
        _check(hypervisor, session)
    wants_all = session.cursor is None or time.monotonic() - session.complete_at > COMPLETE_EVERY_S
    began = time.monotonic()
    reading = session.connector.inventory(None if wants_all else session.cursor, time.monotonic() + CALL_S)
    session.cursor = None if reading.gone else reading.cursor
    if reading.complete:
        session.complete_at = began
    return reading


def _check(hypervisor: Hypervisor, session: sessions.Session) -> None:
    platform = session.connector.check(time.monotonic() + CALL_S)
    session.is_checked = True
    with transaction.atomic():
        Hypervisor.objects.filter(pk=hypervisor.pk).update(
            product=f"{platform.product} {platform.version}"[:200],
            takes=sorted(order.__name__ for order in platform.takes),
            warnings=list(platform.warnings),
        )
        probes = hypervisor.operations.filter(kind=Operation.Kind.PROBE)
        known = probes.filter(state__in=[*UNFINISHED, Operation.State.DONE]).exists()
        if ProbeAcceleration in platform.takes and not known:
            operations.order(
                kind=Operation.Kind.PROBE, hypervisor_id=hypervisor.pk, parameters={}, rank=operations.RANK_SCREEN
            )


@dataclass
class Writer:
    """Writes one reading. Costs statements by kind of change, and rows by what changed."""

    hypervisor: Hypervisor
    reading: Inventory
    now: datetime = field(default_factory=timezone.now)
    events: list[Event] = field(default_factory=list)
    pools: set[UUID] = field(default_factory=set)

    def write(self) -> None:
        self.hypervisor.refresh_from_db()
        hypervisor_status.back(self.hypervisor)
        hosts = self._hosts()
        self._storages()
        self._networks()
        known = self._machines(hosts)
        desktops = self._desktops()
        self._observe(desktops)
        if self.reading.complete:
            self._absences(known, desktops)
            self._leftovers(desktops)
            Hypervisor.objects.filter(pk=self.hypervisor.pk).update(complete_at=self.reading.began_at)
        self._usage()
        Event.objects.bulk_create(self.events, batch_size=500)
        for pool_id in self.pools:
            nudges.nudge(nudges.RECONCILE, pool_id)
        if self.pools or self.events:
            nudges.announce("desktops")
        if self.reading.complete:
            nudges.announce("hypervisors")

    # -- hosts, storages, networks --

    def _hosts(self) -> dict[str, Host]:
        # Locked in the order of their ids before any is written: reconcilers reserve on several at a time.
        mine = Host.objects.filter(hypervisor=self.hypervisor)
        list(mine.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
        rows = [
            Host(
                hypervisor=self.hypervisor,
                platform_id=h.id,
                name=h.name,
                vcpus=h.vcpus,
                memory_mib=h.memory_mib,
                is_up=h.is_up,
                seen_at=self.reading.began_at,
            )
            for h in self.reading.hosts
        ]
        if rows:
            Host.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["hypervisor", "platform_id"],
                update_fields=["name", "vcpus", "memory_mib", "is_up", "seen_at"],
            )
        if self.reading.complete:
            self._warn_of_twins()
        if self.reading.complete and rows:
            # A host that a complete listing does not show takes nothing new; it is not forgotten.
            Host.objects.filter(hypervisor=self.hypervisor, is_up=True).exclude(
                platform_id__in=[h.id for h in self.reading.hosts]
            ).update(is_up=False)
        return {host.platform_id: host for host in Host.objects.filter(hypervisor=self.hypervisor)}

    def _warn_of_twins(self) -> None:
        """An endpoint that was registered twice promises its capacity twice. What is said goes with the
        first sign-in after one of them is removed."""
        twins = Host.objects.filter(
            platform_id__in=[h.id for h in self.reading.hosts], hypervisor__kind=self.hypervisor.kind
        ).exclude(hypervisor=self.hypervisor)
        words = [
            f"Host {name} is registered a second time, as {other}. Its capacity counts twice; remove one of the two."
            for name, other in twins.order_by("name").values_list("name", "hypervisor__name")
        ]
        if new := [sentence for sentence in words if sentence not in self.hypervisor.warnings]:
            self.hypervisor.warnings = [*self.hypervisor.warnings, *new]
            self.hypervisor.save(update_fields=["warnings"])

    def _storages(self) -> None:
        rows = [
            Storage(
                hypervisor=self.hypervisor,
                platform_id=s.id,
                name=s.name,
                capacity_mib=s.capacity_mib,
                free_mib=s.free_mib,
                is_up=s.is_up,
                seen_at=self.reading.began_at,
            )
            for s in self.reading.storages
        ]
        if rows:
            Storage.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["hypervisor", "platform_id"],
                update_fields=["name", "capacity_mib", "free_mib", "is_up", "seen_at"],
            )

    def _networks(self) -> None:
        rows = [
            Network(
                hypervisor=self.hypervisor,
                platform_id=n.id,
                name=n.name,
                kind=n.kind,
                is_isolated=n.is_isolated,
                seen_at=self.reading.began_at,
            )
            for n in self.reading.networks
        ]
        if rows:
            Network.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["hypervisor", "platform_id"],
                update_fields=["name", "kind", "is_isolated", "seen_at"],
            )

    # -- machines --

    def _machines(self, hosts: dict[str, Host]) -> dict[str, Machine]:
        """Write what changed; returns the rows known before this reading."""
        rows = Machine.objects.filter(hypervisor=self.hypervisor)
        if not self.reading.complete:
            rows = rows.filter(platform_id__in=[m.id for m in self.reading.machines])
        known = {row.platform_id: row for row in rows}
        fresh = {m.id: self._row(m, hosts) for m in self.reading.machines}
        for template in self.reading.templates:
            row = fresh.get(template.id)
            if row is None:
                row = fresh[template.id] = Machine(
                    hypervisor=self.hypervisor,
                    platform_id=template.id,
                    name=template.name[:300],
                    power=Power.OFF,
                    vcpus=template.vcpus,
                    memory_mib=template.memory_mib,
                    stamp_installation=template.stamp.installation if template.stamp else "",
                    stamp_key=template.stamp.key if template.stamp else "",
                    seen_at=self.reading.began_at,
                )
            row.is_template, row.template_disk_mib = True, template.disk_mib
            row.template_storage, row.template_cannot = template.storage, template.cannot
        unknown = fresh.keys() - known.keys()
        for ghost in unknown & self._removed_since() if unknown else ():
            # The listing showed it a moment before it was deleted: its row does not come back.
            del fresh[ghost]
        changed = [row for key, row in fresh.items() if key not in known or _differs(row, known[key])]
        if changed:
            Machine.objects.bulk_create(
                changed,
                update_conflicts=True,
                unique_fields=["hypervisor", "platform_id"],
                update_fields=MACHINE_FIELDS,
                batch_size=500,
            )
        if self.reading.complete:
            unseen = [row.pk for key, row in known.items() if key not in fresh]
            Machine.objects.filter(hypervisor=self.hypervisor).exclude(pk__in=unseen).update(
                seen_at=self.reading.began_at, absences=0
            )
        return known

    def _removed_since(self) -> set[str]:
        """Machines whose deletion or replacement was answered after this reading began."""
        done = self._removals().filter(state=Operation.State.DONE, finished_at__gte=self.reading.began_at)
        return set(done.values_list("parameters__machine", flat=True))

    def _row(self, seen: Seen, hosts: dict[str, Host]) -> Machine:
        return Machine(
            hypervisor=self.hypervisor,
            platform_id=seen.id,
            name=seen.name[:300],
            power=seen.power,
            vcpus=seen.vcpus,
            memory_mib=seen.memory_mib,
            host=hosts.get(seen.host or ""),
            stamp_installation=seen.stamp.installation if seen.stamp else "",
            stamp_key=seen.stamp.key if seen.stamp else "",
            agent=seen.agent,
            addresses=list(seen.addresses),
            cannot=dict(seen.cannot),
            seen_at=self.reading.began_at,
        )

    def _desktops(self) -> dict[str, Desktop]:
        """Live desktops by machine id: all of this hypervisor, or those of which a reading of changes says something.

        Not locked: a claim passes over locked desktops, and would find none while a large estate is written.
        """
        rows = Desktop.objects.filter(hypervisor=self.hypervisor).exclude(state=State.GONE).exclude(machine_id="")
        if not self.reading.complete:
            rows = rows.filter(Q(machine_id__in=[m.id for m in self.reading.machines]) | NOT_SEEN_SINCE_LEARNED)
        return {d.machine_id: d for d in rows}

    # -- desktops --

    def _observe(self, desktops: dict[str, Desktop]) -> None:
        """Take over what the reading says of desktops: those that it may change are locked, and judged anew."""
        shown = {m.id: m for m in self.reading.machines} | self._unchanged(desktops)
        news = [d.pk for key, d in desktops.items() if key in shown and self._is_news(d, shown[key])]
        locked = {d.machine_id: d for d in lock_desktops(news).values() if d.machine_id in shown}
        desktops |= locked
        owned = self._owned(locked.values())
        changed = [
            desktop
            for key, desktop in locked.items()
            if not self._is_overtaken(desktop) and self._see(desktop, shown[key], desktop.pk in owned)
        ]
        fields = ["power", "is_answering", "addresses", "observed_at", "state", "state_since", "ready_at", "attempts"]
        update_each(changed, fields)
        # The listing shows the machines: they are counted as used from here on, no longer as promised.
        reservations.end(locked.values())

    def _unchanged(self, desktops: dict[str, Desktop]) -> dict[str, Seen]:
        """Machines that a reading of changes does not name, and of which an operation learned something since.

        Not to be named says that a machine still is as it was last shown. Without this, what was shown a moment before
        the operation's answer was written would be believed only with the next complete listing.
        """
        if self.reading.complete or self.reading.partial:
            return {}
        unnamed = desktops.keys() - {m.id for m in self.reading.machines} - set(self.reading.gone)
        rows = Machine.objects.filter(hypervisor=self.hypervisor, platform_id__in=unnamed, absences=0).exclude(agent="")
        return {row.platform_id: _as_shown(row) for row in rows} if unnamed else {}

    def _owned(self, desktops: Iterable[Desktop]) -> set[UUID]:
        """Which of the missing ones somebody has."""
        missing = [d.pk for d in desktops if d.state == State.MISSING]
        if not missing:
            return set()
        return set(Assignment.objects.filter(until=None, desktop__in=missing).values_list("desktop_id", flat=True))

    def _is_overtaken(self, desktop: Desktop) -> bool:
        """Whether an operation learned something later than this reading."""
        return bool(desktop.learned_at and self.reading.began_at <= desktop.learned_at)

    def _is_news(self, desktop: Desktop, machine: Seen) -> bool:
        """Whether the desktop may have to be written."""
        if desktop.reserved_memory_mib or desktop.reserved_vcpus:
            return True
        if self._is_overtaken(desktop):
            return False
        if desktop.state in (State.MISSING, State.PREPARING) or _is_first_look(desktop):
            return True
        return _facts(machine) != (desktop.power, desktop.is_answering, desktop.addresses)

    def _see(self, desktop: Desktop, machine: Seen, is_owned: bool) -> bool:
        """Take one machine's facts over. True if anything of the desktop changed."""
        was = (desktop.power, desktop.is_answering, desktop.addresses, desktop.state)
        is_first_look = _is_first_look(desktop)
        desktop.power, desktop.is_answering, desktop.addresses = _facts(machine)
        if desktop.state == State.MISSING:
            self._move(desktop, Move.FOUND_OWNED if is_owned else Move.FOUND_FREE, "Its machine is back.")
        elif readiness.is_prepared(desktop):
            self._move(desktop, Move.PREPARED, "The guest answers: ready.")
            desktop.ready_at, desktop.attempts = self.now, 0
        if was == (desktop.power, desktop.is_answering, desktop.addresses, desktop.state) and not is_first_look:
            return False
        desktop.observed_at = self.reading.began_at
        self.pools.add(desktop.pool_id)
        return True

    def _move(self, desktop: Desktop, move: Move, words: str, level: str = "info") -> None:
        after = TRANSITIONS.get((State(desktop.state), move))
        if after is None:
            return
        desktop.state, desktop.state_since = after, self.now
        self.pools.add(desktop.pool_id)
        self.events.append(
            operations.event(
                f"desktop.{move.value}", words, level=level, desktop=desktop, hypervisor_id=self.hypervisor.pk
            )
        )

    # -- absence --

    def _absences(self, known: dict[str, Machine], desktops: dict[str, Desktop]) -> None:
        """What is not shown any more: one doubt for all that is ours, and for machines of nobody's that vanish with it.

        Two desktops that vanish with a hundred machines beside them are as little gone as a hundred desktops: a folder
        or a storage is out of sight. What bears a stamp and is no desktop's tells nothing: another installation's come
        and go as ours do, and what a failed build had made is removed by its connector, many at a time when many fail.
        Where no desktop vanishes nothing hangs on it.
        """
        shown = {m.id for m in self.reading.machines} | {t.id for t in self.reading.templates}
        silences = []
        unseen = known.keys() - shown
        # What we are deleting, or replacing as most platforms recycle, vanishes as it should, many at a time, and its
        # rows go with the orders' answers.
        for key in unseen - self._being_removed() if unseen else ():
            row = known[key]
            desktop = desktops.get(key)
            known_at = max(filter(None, [row.seen_at, desktop.learned_at if desktop else None]))
            if absence.is_evidence(complete=True, began_at=self.reading.began_at, known_at=known_at):
                silences.append(absence.Silence(key, known_at, row.absences + 1))
        if not silences:
            self._end_doubt()
            return
        Machine.objects.filter(pk__in=[known[s.machine].pk for s in silences]).update(
            absences=Least(F("absences") + 1, COUNTED_ABSENCES)
        )
        ours = {s.machine for s in silences if s.machine in desktops}
        judged = [s for s in silences if s.machine in ours or (ours and not known[s.machine].stamp_installation)]
        verdict = absence.judge(judged, total=len(known), confirmed_at=self.hypervisor.absence_confirmed_at)
        if verdict.doubted:
            words = (
                f"{len(verdict.doubted)} machines vanished from the listing at once, "
                f"{len(ours.intersection(verdict.doubted))} of them ours. Nothing is built, deleted or counted as gone "
                "here until an administrator confirms. Check storage and rights."
            )
            hypervisor_status.doubt(self.hypervisor, list(verdict.doubted), words)
        else:
            self._end_doubt()
        told = {s.machine for s in judged}
        others = [s.machine for s in silences if s.machine not in told and s.listings >= absence.LISTINGS]
        self._believe_gone([*verdict.gone, *others], desktops)

    def _being_removed(self) -> set[str]:
        orders = self._removals().filter(state__in=UNFINISHED, attempt__gt=0)
        return set(orders.values_list("parameters__machine", flat=True))

    def _removals(self) -> QuerySet[Operation]:
        return Operation.objects.filter(
            hypervisor=self.hypervisor, kind__in=[Operation.Kind.DELETE, Operation.Kind.RECYCLE]
        )

    def _end_doubt(self) -> None:
        if self.hypervisor.status == Hypervisor.Status.DOUBT:
            Hypervisor.objects.filter(pk=self.hypervisor.pk).update(
                status=Hypervisor.Status.UP, status_reason="", status_since=self.now, doubt=[]
            )
            self.events.append(
                operations.event("hypervisor.trusted", "No longer in doubt.", hypervisor_id=self.hypervisor.pk)
            )
            self.pools |= set(self.hypervisor.members.values_list("pool_id", flat=True))

    def _believe_gone(self, gone: Iterable[str], desktops: dict[str, Desktop]) -> None:
        gone = list(gone)
        Machine.objects.filter(hypervisor=self.hypervisor, platform_id__in=gone).delete()
        lost = []
        for desktop in lock_desktops([desktops[key].pk for key in gone if key in desktops]).values():
            if desktop.state in HOLDS_MACHINE and not self._is_overtaken(desktop):
                words = "Its machine is gone from the hypervisor: two complete listings did not show it."
                self._move(desktop, Move.LOST, words, level="error")
                desktop.is_answering, desktop.ready_at, desktop.power = False, None, Power.UNKNOWN
                lost.append(desktop)
        update_each(lost, ["state", "state_since", "is_answering", "ready_at", "power"])

    def _leftovers(self, desktops: dict[str, Desktop]) -> None:
        """Delete machines that we made, whose operation or landing has ended without them, and that nobody ever had or
        waits for."""
        if self.hypervisor.status == Hypervisor.Status.DOUBT:
            return
        ours = gate.installation_id()
        left = {
            m.stamp.key: m
            for m in self.reading.machines
            if m.stamp and m.stamp.installation == ours and m.id not in desktops and strays.is_uuid(m.stamp.key)
        }
        if left:
            forgotten = Machine.objects.filter(hypervisor=self.hypervisor, is_forgotten=True)
            left_alone = set(forgotten.values_list("platform_id", flat=True))
            left = {key: machine for key, machine in left.items() if machine.id not in left_alone}
        if not left:
            return
        asked = set(strays.deletes_under_way(self.hypervisor.pk).values_list("parameters__machine", flat=True))
        for key, what in (self._ended_builds(left) | self._ended_landings(left)).items():
            machine = left[key].id
            if machine in asked:
                continue
            delete = operations.order(
                kind=Operation.Kind.DELETE,
                hypervisor_id=self.hypervisor.pk,
                parameters={"machine": machine, "stamp_key": key},
            )
            words = f"A machine left over by {what} that had ended is removed."
            self.events.append(operations.event("machine.leftover", words, operation=delete))

    def _ended_builds(self, left: Mapping[str, Seen]) -> dict[str, str]:
        """Stamp key -> what made it."""
        ended = Operation.objects.filter(
            pk__in=left,
            kind__in=[Operation.Kind.CLONE, Operation.Kind.RECYCLE],
            finished_at__lt=self.reading.began_at,
            hypervisor=self.hypervisor,
        ).exclude(desktop__assignments__isnull=False)
        return {str(pk): "an operation" for pk in ended.values_list("pk", flat=True)}

    def _ended_landings(self, left: Mapping[str, Seen]) -> dict[str, str]:
        """As `_ended_builds`. A mover may die, or be told to stop, between the platform's last word and its own: then
        the run ends without the machine that stands, and its row names none.

        One that runs was started by somebody, and one that ever was a desktop was adopted: those are not ours to take.
        """
        runs = ReplicationRun.objects.filter(
            pk__in=[key for key, machine in left.items() if machine.power == Power.OFF],
            kind__in=LANDERS,
            state__in=[ReplicationRun.State.CANCELLED, ReplicationRun.State.FAILED],
            finished_at__lt=self.reading.began_at,
            hypervisor=self.hypervisor,
        )
        ended = {str(pk): "a run" for pk in runs.values_list("pk", flat=True)}
        adopted = Desktop.objects.filter(stamp_key__in=ended) if ended else Desktop.objects.none()
        for key in adopted.values_list("stamp_key", flat=True):
            ended.pop(key, None)
        return ended

    # -- usage --

    def _usage(self) -> None:
        """What listed machines hold on each host: running ones, and all of ours."""
        ours = Q(power=Power.ON) | Q(stamp_installation=gate.installation_id())
        sums = {
            row["host"]: (row["memory"], row["cpus"])
            for row in Machine.objects.filter(ours, hypervisor=self.hypervisor, absences=0, host__isnull=False)
            .values("host")
            .annotate(memory=Sum("memory_mib"), cpus=Sum("vcpus"))
            .order_by()
        }
        for host in Host.objects.filter(hypervisor=self.hypervisor):
            memory, cpus = sums.get(host.pk, (0, 0))
            if (host.used_memory_mib, host.used_vcpus) != (memory, cpus):
                Host.objects.filter(pk=host.pk).update(used_memory_mib=memory, used_vcpus=cpus)


def _facts(machine: Seen) -> tuple[str, bool, list[str]]:
    """Power, whether the guest answers, its addresses."""
    is_answering = machine.power == Power.ON and machine.agent == Agent.ANSWERING
    return machine.power, is_answering, list(machine.addresses)


def _is_first_look(desktop: Desktop) -> bool:
    """Whether no reading has told anything of it since an operation did."""
    return bool(desktop.learned_at and (desktop.observed_at is None or desktop.observed_at < desktop.learned_at))


def _as_shown(row: Machine) -> Seen:
    """What the last reading that named it said of its power and its guest."""
    return Seen(
        id=row.platform_id,
        name=row.name,
        power=Power(row.power),
        vcpus=row.vcpus,
        memory_mib=row.memory_mib,
        agent=Agent(row.agent),
        addresses=tuple(row.addresses),
    )


def _differs(row: Machine, known: Machine) -> bool:
    return any(
        getattr(row, f"{name}_id" if name == "host" else name)
        != getattr(known, f"{name}_id" if name == "host" else name)
        for name in MACHINE_FIELDS
        if name not in ("seen_at", "absences")
    )
