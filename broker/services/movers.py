"""Movers: they carry bytes of disks, which pumps never do. A run's row is the job.

1. Take the next run: what a person waits for first, then the oldest; of each hypervisor so many at once and no more,
   so that a slow one keeps no other waiting. The taking raises the run's epoch and gives it a lease; a run whose lease
   has expired is taken like a queued one, as another attempt.
2. Carry it out (`services/moving.py`). A keeper, one thread a process, renews the leases of all runs at work here and
   writes down how far they are. A run that shows no sign of life for longer than it said it would be silent is not
   renewed any more, so that one that hangs does not hold its machine for ever.
3. Write how it ended, under the epoch: a mover that was frozen beyond its lease and thawed changes nothing.

What fails for the moment is tried again with growing pauses, what is refused is not.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import structlog
from django.db import DatabaseError, close_old_connections, transaction
from django.db.models import F, Q
from django.utils import timezone

from broker.domain.backoff import delay_s
from broker.hypervisors.abilities import runs_at_once
from broker.models import Hypervisor, ReplicationRun, ReplicationSource, Vault
from broker.services import nudges
from connectors.replication import Bookmark

log = structlog.get_logger()

LEASE_S = 30.0
KEEP_S = 2.0
"""How often leases are renewed and progress is written."""
SILENT_S = 120.0
"""A run that reads and writes nothing for so long hangs, unless it said that it would take longer."""
HINTS = 32
"""Runs that the clock hints at in one turn: enough to wake the threads of two movers."""
ATTEMPTS = 6
RETRY_BASE_S, RETRY_CAP_S = 5.0, 300.0
RANK_RELEASE = 5
LONGEST_WAIT = timedelta(minutes=15)
"""Nothing that is written here lies further ahead: what does was written by a clock that was wrong, and is over."""
STATES = ReplicationRun.State


class LeaseLost(RuntimeError):
    """Another mover has taken over, or must be able to: stop at once and write nothing."""


class Stopped(RuntimeError):
    """This process ends: the run goes back to the queue."""


def key_of(run: ReplicationRun, attempt: int) -> str:
    """Under which that attempt is known to the platform and in the vault. UUID string."""
    return str(uuid5(run.pk, str(attempt)))


@dataclass
class Hold:
    """A run at work in this process. Its thread writes the fields, the keeper reads them."""

    run: ReplicationRun
    epoch: int
    step: str = ""
    total: int | None = None
    done: int = 0
    read: int = 0
    new: int = 0
    began: float = field(default_factory=time.monotonic)
    """This attempt, in `time.monotonic()`: what it took does not depend on a clock that is put right meanwhile."""
    alive_until: float = field(default_factory=lambda: time.monotonic() + SILENT_S)
    """`time.monotonic()` until which nothing need be heard of it."""
    is_to_end: bool = False
    """Somebody wants it cancelled."""
    is_lost: bool = False
    is_owing: bool = False
    """What it began may still stand on the platform."""

    def says(self, step: str, *, silent_s: float = SILENT_S) -> None:
        """What it does next, in words, and how long that may take without a sign of life. Raises as `go_on`."""
        self.step = step
        self.alive_until = time.monotonic() + silent_s
        self.go_on()

    def moved(self, *, done: int, read: int, new: int) -> None:
        """Bytes so far: a sign of life."""
        self.done, self.read, self.new = done, read, new
        self.alive_until = time.monotonic() + SILENT_S

    def go_on(self) -> None:
        """Raises `LeaseLost` or `Stopped` if it may not."""
        if self.is_lost:
            raise LeaseLost
        if _stopping.is_set():
            raise Stopped

    @property
    def must_end(self) -> bool:
        """For loops that carry bytes: whoever calls them finds out why by `go_on` and `is_to_end`."""
        return self.is_lost or self.is_to_end or _stopping.is_set()

    def key(self, attempt: int) -> str:
        return key_of(self.run, attempt)

    @property
    def attempt(self) -> int:
        return self.run.attempt

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that exists only while the run is ours. Raises `LeaseLost` before anything is written."""
        with transaction.atomic():
            mine = ReplicationRun.objects.select_for_update().filter(
                pk=self.run.pk, mover_epoch=self.epoch, state=STATES.RUNNING
            )
            if not mine.values_list("pk", flat=True).first():
                self.is_lost = True
                raise LeaseLost
            yield

    def finish(self, state: str, **values: Any) -> None:
        """The run's end. Inside `writing`."""
        told = {"done_bytes": self.done, "read_bytes": self.read, "new_bytes": self.new, "step": "", **values}
        ReplicationRun.objects.filter(pk=self.run.pk).update(
            state=state, finished_at=timezone.now(), mover_expires_at=None, total_bytes=self.total, **told
        )
        if self.is_owing:
            # Now that the run is over: before, its own next attempt would have begun with that.
            owe(self.run)
        nudges.announce("replication")


_stopping = threading.Event()
_guard = threading.Lock()
_holds: dict[UUID, Hold] = {}
_keeper: threading.Thread | None = None


def stop() -> None:
    """This process is about to end: runs at work here go back to the queue."""
    _stopping.set()


def is_ending() -> bool:
    """Whether `stop` was called: nothing more is to be taken up here."""
    return _stopping.is_set()


# --- the queue --------------------------------------------------------------------------------------------------------


def waiting(now: datetime, full: Sequence[UUID] = ()) -> Q:
    """Runs that a mover may take now, but those of hypervisors that have as much to do as they may."""
    may_be_asked = Q(hypervisor=None) | (
        ~Q(hypervisor__status__in=[Hypervisor.Status.REFUSED, Hypervisor.Status.DOUBT])
        & (Q(hypervisor__retry_at=None) | Q(hypervisor__retry_at__lte=now))
    )
    may_be_used = Q(vault=None) | ~Q(vault__status=Vault.Status.REFUSED)
    has_room = ~Q(hypervisor__in=full)
    wrong = now + LONGEST_WAIT
    is_due = Q(state=STATES.QUEUED) & (Q(not_before=None) | Q(not_before__lte=now) | Q(not_before__gt=wrong))
    # A mover that lives has written its lease anew since the clock was put right.
    is_left = Q(state=STATES.RUNNING) & (Q(mover_expires_at__lt=now) | Q(mover_expires_at__gt=wrong))
    # One that is to be cancelled is taken whatever state its ends are in: the mover says what could not be undone.
    return (is_due & (may_be_asked & may_be_used & has_room | Q(is_to_end=True))) | is_left


def _full(now: datetime) -> list[UUID]:
    """Hypervisors on which as many runs are at work as may be at once. Those whose mover has died do not count.

    Movers that look in the same moment may begin one more each: it is to keep the others going, not to protect anybody.
    """
    held = (now, now + LONGEST_WAIT)
    working = ReplicationRun.objects.filter(
        state=STATES.RUNNING, mover_expires_at__range=held, hypervisor__isnull=False
    )
    counted = Counter(working.values_list("hypervisor_id", "hypervisor__kind"))
    return [id for (id, kind), count in counted.items() if id and kind and count >= runs_at_once(kind)]


def backlog(limit: int = HINTS) -> list[UUID]:
    """Runs that wait for a mover, for the clock to nudge: the first ones, since whoever takes up one goes on with the
    others."""
    now = timezone.now()
    if not ReplicationRun.objects.filter(waiting(now)).exists():
        return []  # asked each second: while nothing waits it costs one statement
    rows = ReplicationRun.objects.filter(waiting(now, _full(now))).order_by("rank", "created_at")
    return list(rows.values_list("pk", flat=True)[:limit])


def take() -> Hold | None:
    """The next run, if there is one. Nobody else has it from now on."""
    now = timezone.now()
    with transaction.atomic():
        run = (
            ReplicationRun.objects.filter(waiting(now, _full(now)))
            .select_for_update(skip_locked=True, of=("self",))
            .order_by("rank", "created_at")
            .first()
        )
        if run is None:
            return None
        ReplicationRun.objects.filter(pk=run.pk).update(
            state=STATES.RUNNING,
            mover_epoch=F("mover_epoch") + 1,
            attempt=F("attempt") + 1,
            mover_expires_at=now + timedelta(seconds=LEASE_S),
            started_at=run.started_at or now,
            step="Begins",
            done_bytes=0,
            read_bytes=0,
            new_bytes=0,
        )
        run.refresh_from_db()
        nudges.announce("replication")
    hold = Hold(run, run.mover_epoch, is_to_end=run.is_to_end)
    with _guard:
        _holds[run.pk] = hold
        _have_a_keeper()
    return hold


def let_go(hold: Hold) -> None:
    with _guard:
        if _holds.get(hold.run.pk) is hold:
            del _holds[hold.run.pk]


def give_back(hold: Hold) -> None:
    """To the queue, as if the attempt had failed for a moment. Another process goes on at once."""
    with hold.writing():
        ReplicationRun.objects.filter(pk=hold.run.pk).update(state=STATES.QUEUED, mover_expires_at=None, step="")
        nudges.nudge(nudges.MOVE, hold.run.pk)


def bookmarks(run: ReplicationRun) -> list[Bookmark]:
    """On which later runs of the run's machine will build, by whatever policy."""
    rows = ReplicationSource.objects.filter(
        hypervisor=run.hypervisor_id, platform_id=run.platform_id, is_chosen=True, bookmark__isnull=False
    )
    return [Bookmark(data) for data in rows.values_list("bookmark", flat=True) if data is not None]


def owe(run: ReplicationRun, not_before: datetime | None = None) -> ReplicationRun:
    """Another run takes away what it began, as soon as the platform answers. The run itself must have ended."""
    kinds = ReplicationRun.Kind
    wish = {} if run.kind == kinds.REPLICATE else {"clear": str(run.pk)}
    debt = ReplicationRun(
        kind=kinds.RELEASE, hypervisor=run.hypervisor, platform_id=run.platform_id, subject=run.subject, wish=wish,
        rank=RANK_RELEASE, not_before=not_before,
    )  # fmt: skip
    # One that waits already does the same, and a new run of the machine begins with it.
    ReplicationRun.objects.bulk_create([debt], ignore_conflicts=True)
    return debt


def paid(debt: ReplicationRun) -> None:
    """Whoever owed it has done it himself."""
    ReplicationRun.objects.filter(pk=debt.pk, state=STATES.QUEUED).delete()


def failed(hold: Hold, words: str, *, retry: bool, for_ever: bool = False) -> None:
    """It did not work: again later, or never. Why no point came stands with its source, too."""
    with hold.writing():
        source_id = hold.run.source_id
        if source_id is not None and hold.run.kind == ReplicationRun.Kind.REPLICATE:
            ReplicationSource.objects.filter(pk=source_id).update(fault=words)
        if not retry or (hold.attempt >= ATTEMPTS and not for_ever):
            hold.finish(STATES.FAILED, error=words)
            return
        pause = delay_s(hold.attempt, str(hold.run.pk), base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        ReplicationRun.objects.filter(pk=hold.run.pk).update(
            state=STATES.QUEUED,
            mover_expires_at=None,
            step="",
            error=words,
            not_before=timezone.now() + timedelta(seconds=pause),
        )
        nudges.announce("replication")


# --- the keeper -------------------------------------------------------------------------------------------------------


def _have_a_keeper() -> None:
    global _keeper
    if _keeper is None or not _keeper.is_alive():
        _keeper = threading.Thread(target=_keep, name="mover-keeper", daemon=True)
        _keeper.start()


def _keep() -> None:
    pause = threading.Event()
    while not pause.wait(KEEP_S):
        try:
            keep_once()
        except DatabaseError as error:
            # Leases expire on their own if it stays away; what is at work here finds out when it writes.
            log.warning("mover.database_away", reason=str(error).strip())
        finally:
            close_old_connections()


def keep_once() -> None:
    """Renew the leases of what is alive here, and write down how far it is."""
    with _guard:
        holds = list(_holds.values())
    now = timezone.now()
    for hold in holds:
        if hold.is_lost or time.monotonic() > hold.alive_until:
            continue
        mine = ReplicationRun.objects.filter(pk=hold.run.pk, mover_epoch=hold.epoch, state=STATES.RUNNING)
        # A lease that has expired is not revived: somebody may be about to take it.
        kept = mine.filter(mover_expires_at__gt=now).update(
            mover_expires_at=now + timedelta(seconds=LEASE_S),
            step=hold.step[:200],
            total_bytes=hold.total,
            done_bytes=hold.done,
            read_bytes=hold.read,
            new_bytes=hold.new,
        )
        if not kept:
            hold.is_lost = True
        elif mine.values_list("is_to_end", flat=True).first():
            hold.is_to_end = True
    if holds:
        nudges.announce("replication")
