"""What a mover does with a run: replicate, bring up, verify, collect, release. ADR 6 says why an attempt begins anew.

replicate    1. a point that an earlier attempt committed is entered, and that is all
             2. else what earlier attempts left is ended in the vault, and a point is taken on the platform
             3. what changed is copied, and committed in the vault
             4. the point and its bookmark are entered in one transaction: from then on the next run builds on it
             5. the platform forgets the point; points that the policy does not keep are deleted
materialise  the disks of a recovery point are written where a machine is to be, then the machine is made
verify       a recovery point is read back
standby      the machine that waits for a source becomes its newest point (`standing_by.py`)
mirror       one step of a planned failover is told to the platform, which carries the bytes itself
collect      points marked for it are deleted, then what no point needs leaves the vault
release      what a run that failed could not take away from a platform
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Protocol, cast
from uuid import UUID

import structlog
from django.utils import timezone

from broker.domain.replication import Limit, speed_limit
from broker.hypervisors import gate, sealing
from broker.models import (
    Hypervisor,
    Machine,
    RecoveryPoint,
    ReplicationPolicy,
    ReplicationRun,
    ReplicationSource,
    Standby,
    Vault,
)
from broker.services import (
    failovers,
    movers,
    nudges,
    operations,
    recovery,
    replication_promises,
    standbys,
    standing_by,
    vaults,
)
from broker.services.movers import STATES, Hold, LeaseLost, Stopped
from connectors.base import Connector, MachineRef, Stamp
from connectors.errors import ConnectorError, Unsupported
from connectors.replication import (
    Bookmark,
    DrivesMirrors,
    Landing,
    LandingWish,
    Lands,
    Point,
    PointWish,
    Refreshes,
    Replicates,
)
from disks.base import Sink, Slow, Source
from disks.copying import Progress, copy
from disks.errors import Cancelled, Damaged, DiskError, NotFound, Refused, StoreLost, VaultRefused
from disks.extents import Widened
from disks.throttle import Throttle
from disks.vault.points import Configuration, Origin
from disks.vault.points import RecoveryPoint as Stored
from disks.vault.vault import Vault as Opened
from disks.vault.writing import Run as Copy

log = structlog.get_logger()

CALL_S = 90.0
"""For what a platform does at once: a point, its release."""
FINISH_S = 600.0
"""For what may take it minutes: an import, a merge of a large snapshot."""
SLICE_S = 10.0
"""How long an end that is slow goes on before it says how far it is."""
REGISTERED = (ReplicationRun.Kind.REPLICATE, ReplicationRun.Kind.COLLECT)
"""Kinds of runs that stand in the vault while they are at work there."""
DEAD_COLLECTION = timedelta(days=1)
"""No collection takes so long: one that is still registered has died. A live one must never be ended by others."""


def work() -> bool:
    """Take one run and carry it out. False if there is none. Never raises for what is wrong with a run."""
    hold = movers.take()
    if hold is None:
        return False
    try:
        _carry_out(hold)
    except LeaseLost:
        log.warning("run.lease_lost", run=str(hold.run.pk))
    except Stopped:
        with suppress(LeaseLost):
            movers.give_back(hold)
    finally:
        movers.let_go(hold)
    return True


def work_on() -> None:
    """Carry out one run after another until none waits, or until this process is to end.

    So one hint is enough for all that waits: where more is due than movers can do, hints for each run would only add to
    what they have to do.
    """
    while not movers.is_ending() and work():
        pass


def _carry_out(hold: Hold) -> None:
    """Raises `LeaseLost`, `Stopped`."""
    try:
        ACTS[hold.run.kind](hold)
    except Cancelled:
        hold.go_on()
        with hold.writing():
            hold.finish(STATES.CANCELLED)
            _look_soon(hold.run)
    except (ConnectorError, DiskError) as error:
        hold.go_on()
        _note_ends(hold, error)
        # A release is owed: it is tried for as long as it takes.
        movers.failed(hold, error.message, retry=error.retry, for_ever=hold.run.kind == ReplicationRun.Kind.RELEASE)
    except sealing.SecretsLocked as error:
        movers.failed(hold, str(error), retry=False)
    except (LeaseLost, Stopped):
        raise
    except Exception:
        # A fault of ours must not leave the run held by nobody, nor end the mover of all others.
        log.exception("run.fault", run=str(hold.run.pk))
        movers.failed(hold, "Deskyard made a mistake here; the mover's log tells which. Report it.", retry=False)


def _note_ends(hold: Hold, error: ConnectorError | DiskError) -> None:
    """What a failure says about the vault."""
    if hold.run.vault_id is not None and isinstance(error, StoreLost | VaultRefused):
        vaults.told(hold.run.vault_id, error)


@contextmanager
def _vault(hold: Hold) -> Iterator[Opened]:
    row = _registered(hold.run)
    hold.says(f"Opens the vault {row}")
    try:
        opened = vaults.open_vault(row)
    except VaultRefused:
        raise
    except Refused as error:
        # No folder: a share that is not mounted comes back without anybody changing anything here.
        raise StoreLost(error.message) from error
    try:
        vaults.told(row.pk, None)
        yield opened
    finally:
        opened.close()


def _registered(run: ReplicationRun) -> Vault:
    if run.vault is None:
        raise NotFound("The vault of this run is not registered any more.")
    return run.vault


@contextmanager
def _connector(run: ReplicationRun) -> Iterator[Connector]:
    if run.hypervisor is None:
        raise Unsupported("The hypervisor of this run is not registered any more.")
    with gate.opened(run.hypervisor) as connector:
        yield connector


def _by(seconds: float = CALL_S) -> float:
    return time.monotonic() + seconds


# --- replicate --------------------------------------------------------------------------------------------------------


def _replicate(hold: Hold) -> None:
    run = hold.run
    source = ReplicationSource.objects.select_related("policy", "common").get(runs=run)
    with _vault(hold) as vault, _connector(run) as connector:
        if not isinstance(connector, Replicates):
            raise Unsupported(
                f"Machines of {run.hypervisor} cannot be replicated: its connector {connector.kind} does not."
            )
        done = _earlier(hold, vault)
        if done is not None:
            debt = _enter(hold, source, done, bookmark=None, consistency="crash")
        elif hold.is_to_end:
            connector.release(_machine(run), movers.bookmarks(run), _by())
            raise Cancelled("It was cancelled.")
        else:
            debt = _copy_out(hold, source, vault, connector)
        _clean_up(hold, vault, connector, debt)


def _earlier(hold: Hold, vault: Opened) -> Stored | None:
    """A point that an earlier attempt committed. What others left in the vault is ended: a mover that still lives
    finds out when it commits."""
    for attempt in range(1, hold.attempt):
        key = hold.key(attempt)
        # First ended, then looked for: from then on it can commit no more. One that has committed and died before it
        # was unregistered is unregistered by this.
        vault.end_run(key)
        with suppress(NotFound):
            return vault.point(key)
    return None


def _copy_out(hold: Hold, source: ReplicationSource, vault: Opened, connector: Replicates) -> ReplicationRun:
    run, ref = hold.run, _machine(hold.run)
    base = _common(source, vault)
    since = Bookmark(source.bookmark) if base is not None and source.bookmark is not None else None
    hold.says(f"Takes a point of {run.subject}", silent_s=2 * CALL_S)
    wish = PointWish(
        machine=ref, key=hold.key(hold.attempt), disks=tuple(source.disks), since=since, keep=movers.bookmarks(run)
    )
    try:
        point = connector.take_point(wish, _by())
        try:
            return _fill(hold, source, vault, point, None if point.whole else base)
        finally:
            point.close()
    except BaseException:
        # Whatever becomes of the run, the platform is rid of the point; what the next run builds on stays.
        _release(hold, connector, ref)
        raise


def _fill(hold: Hold, source: ReplicationSource, vault: Opened, point: Point, base: Stored | None) -> ReplicationRun:
    hold.total = sum(disk.size for disk in point.configuration.disks)
    copying = vault.begin(gate.installation_id(), str(source.pk), base, id=hold.key(hold.attempt))
    try:
        before = 0
        for disk in point.configuration.disks:
            hold.says(f"Copies {disk.name} of {point.name}")
            _copy_disk(hold, source.policy, copying, point, disk.name, before)
            before += disk.size
        hold.says("Commits the recovery point", silent_s=FINISH_S)
        stored = copying.commit(origin=_origin(hold.run), configuration=point.configuration, read_at=point.taken_at)
    except BaseException:
        with suppress(DiskError):
            copying.abandon()
        raise
    hold.new = copying.tally.new_bytes
    return _enter(hold, source, stored, bookmark=point.bookmark, consistency=point.consistency.value, whole=point.whole)


def _copy_disk(hold: Hold, policy: ReplicationPolicy, copying: Copy, point: Point, name: str, before: int) -> None:
    """Raises what the two ends raise, and `Cancelled`."""
    # Where a disk has to be made into a file before it can be read, that takes the platform minutes.
    hold.says(hold.step, silent_s=2 * FINISH_S)
    opened = point.open(name)
    try:
        sink = copying.disk(name, opened.size)
        damaged = copying.must_read(name)
        source: Source = Widened(opened, damaged) if damaged else opened
        read = hold.read
        throttle = Throttle(_limit(policy))
        _advance(hold, opened)

        def moved(progress: Progress) -> None:
            throttle.bytes_per_s = _limit(policy)
            hold.moved(done=before + progress.done, read=read + progress.moved, new=copying.tally.new_bytes)

        copy(source, sink, progress=moved, throttle=throttle, is_cancelled=lambda: hold.must_end)
        sink.commit()
    finally:
        opened.close()


def _limit(policy: ReplicationPolicy) -> int | None:
    if not policy.bytes_a_second:
        return None
    limit = Limit(
        bytes_a_second=policy.bytes_a_second, begins=policy.window_from, ends=policy.window_to, zone=policy.zone
    )
    return speed_limit(limit, timezone.now())


def _common(source: ReplicationSource, vault: Opened) -> Stored | None:
    """The point to which the bookmark belongs, if the vault still has it. One of which chunks are damaged serves: what
    is broken of it is read anew."""
    if source.bookmark is None or source.common is None or source.common.vault_id != source.policy.vault_id:
        return None
    with suppress(NotFound, Damaged):
        return vault.point(str(source.common.pk))
    return None


def _enter(
    hold: Hold,
    source: ReplicationSource,
    stored: Stored,
    *,
    bookmark: Bookmark | None,
    consistency: str,
    whole: str = "",
) -> ReplicationRun:
    """The point's row, and what it changes about its source, in one transaction. Returns the release that is owed."""
    now = timezone.now()
    with hold.writing():
        row = RecoveryPoint.objects.create(
            pk=UUID(stored.id),
            vault=_registered(hold.run),
            source=source,
            machine_name=stored.origin.machine_name,
            hypervisor_name=stored.origin.hypervisor_name,
            taken_at=stored.read_at,
            committed_at=now,
            consistency=consistency,
            size_bytes=sum(disk.size for disk in stored.disks),
            new_bytes=hold.new,
            configuration=asdict(stored.configuration),
        )
        source = (
            ReplicationSource.objects.select_related("policy__target").select_for_update(of=("self",)).get(pk=source.pk)
        )
        values: dict[str, Any] = {
            "bookmark": dict(bookmark.data) if bookmark is not None else None,
            "common": row if bookmark is not None else None,
            "name": stored.origin.machine_name,
            "fault": "",
            "whole": whole,
            # Of the attempt that went well: pauses after those that failed say nothing of how often it could run.
            "took_s": time.monotonic() - hold.began,
            **replication_promises.point_came(source, stored.read_at, now),
        }
        for field, value in values.items():
            setattr(source, field, value)
        source.save(update_fields=list(values))
        recovery.condemn_by_retention(source, now)
        recovery.look_again(source)
        if source.policy.verification == ReplicationPolicy.Verification.READ_BACK:
            recovery.queue_verification(row, None)
        failovers.begin_trial(row, now)
        standbys.follow(source, now)
        hold.finish(STATES.DONE, point=row, whole=whole, error="")
        # Written with the point: if this process dies before it has released it, another one does.
        return movers.owe(hold.run, not_before=now + timedelta(seconds=2 * CALL_S))


def _clean_up(hold: Hold, vault: Opened, connector: Replicates, debt: ReplicationRun) -> None:
    """After the run has ended well: what fails here is made up for by the run that is owed."""
    _release(hold, connector, _machine(hold.run))
    if not hold.is_owing:
        movers.paid(debt)
    with suppress(DiskError):
        _delete_condemned(hold.run.vault_id, vault)


def _delete_condemned(vault_id: UUID | None, vault: Opened) -> None:
    if vault_id is None:
        return
    done = []
    try:
        for id in recovery.condemned(vault_id):
            vault.delete_point(str(id))
            done.append(id)
    finally:
        if done:
            recovery.deleted(done)


def _release(hold: Hold, connector: Replicates, ref: MachineRef) -> None:
    """Never raises: what cannot be released now is owed."""
    try:
        connector.release(ref, movers.bookmarks(hold.run), _by())
    except ConnectorError as error:
        log.warning("run.release_owed", run=str(hold.run.pk), reason=error.message)
        hold.is_owing = True


def _machine(run: ReplicationRun) -> MachineRef:
    """With our stamp, if the machine bears one: then it is compared before anything is done to it."""
    stamps = Machine.objects.filter(hypervisor=run.hypervisor_id, platform_id=run.platform_id)
    installation, key = stamps.values_list("stamp_installation", "stamp_key").first() or ("", "")
    is_ours = installation == gate.installation_id() and key
    return MachineRef(id=run.platform_id, stamp=Stamp(installation, key) if is_ours else None)


def _origin(run: ReplicationRun) -> Origin:
    return Origin(
        machine_id=run.platform_id,
        machine_name=run.subject,
        hypervisor_id=str(run.hypervisor_id),
        hypervisor_name=str(run.hypervisor or ""),
    )


# --- materialise ------------------------------------------------------------------------------------------------------


def _materialise(hold: Hold) -> None:
    run = hold.run
    with _landable(hold) as (connector, vault):
        if run.point is None:
            raise NotFound("The recovery point was deleted meanwhile.")
        ref, warnings = _land(hold, vault, connector, vault.point(str(run.point.pk)))
        with hold.writing():
            if _was_cancelled_for_good(run):
                hold.finish(STATES.CANCELLED)
            else:
                hold.finish(STATES.DONE, platform_id=ref.id, findings=warnings, error="")
            _look_soon(run)


def _was_cancelled_for_good(run: ReplicationRun) -> bool:
    """Whoever cancelled it has gone on without the machine: from the next listing it is removed. A template that stands
    is entered all the same. Inside `Hold.writing`, so that nobody can say so a moment later."""
    return not run.wish.get("is_template") and ReplicationRun.objects.filter(pk=run.pk, is_to_end=True).exists()


class _Landable(Connector, Lands, Protocol): ...


@contextmanager
def _landable(hold: Hold) -> Iterator[tuple[_Landable, Opened]]:
    """The connector and the vault; what an unfinished landing of the run's leaves is taken away if it fails."""
    with _connector(hold.run) as connector:
        if not isinstance(connector, Lands):
            raise Unsupported(
                f"Nothing can be brought up on {hold.run.hypervisor}: its connector {connector.kind} does not."
            )
        try:
            # No order of ours deletes a template: one that an earlier attempt may have made is looked for first.
            if hold.is_to_end and not (hold.run.wish.get("is_template") and hold.attempt > 1):
                raise Cancelled("It was cancelled.")
            with _vault(hold) as vault:
                yield cast(_Landable, connector), vault
        except BaseException:
            _clear(hold, connector)
            raise


def _land(hold: Hold, vault: Opened, connector: Lands, point: Stored) -> tuple[MachineRef, list[str]]:
    """The machine, and what could not be kept of its configuration."""
    run = hold.run
    hold.total = sum(disk.size for disk in point.disks)
    hold.says(f"Makes room on {run.hypervisor}", silent_s=2 * CALL_S)
    landing = connector.land(_landing_wish(run, point.configuration), _by())
    try:
        if not landing.is_done:
            if hold.is_to_end:
                raise Cancelled("It was cancelled.")
            _write_disks(hold, vault, point, landing)
        hold.says(f"Makes the machine {run.subject}", silent_s=2 * FINISH_S)
        ref = _finish(hold, connector, landing, point.configuration)
        warnings = list(landing.warnings)
    finally:
        landing.close()
    # The machine stands: what was needed on the way may go later, and fails nothing any more.
    _clear(hold, connector)
    return ref, warnings


def _look_soon(run: ReplicationRun) -> None:
    """What was made is listed, and so is what stands though its run ended without it."""
    if run.hypervisor_id is not None:
        Hypervisor.objects.filter(pk=run.hypervisor_id).update(next_inventory_at=timezone.now())
        nudges.nudge(nudges.INVENTORY, run.hypervisor_id)


def _finish(hold: Hold, connector: Lands, landing: Landing, configuration: Configuration) -> MachineRef:
    """The machine, also if it was made and only that could not be told. Raises `ConnectorError`: then there is none,
    or it is found by the next attempt."""
    try:
        return landing.finish(_by(FINISH_S))
    except ConnectorError as error:
        if error.retry:
            raise
        # This attempt is the last one. A machine that stands all the same would be nobody's.
        again = connector.land(_landing_wish(hold.run, configuration), _by())
        try:
            if again.is_done:
                return again.finish(_by(FINISH_S))
        finally:
            again.close()
        raise


def _write_disks(hold: Hold, vault: Opened, point: Stored, landing: Landing) -> None:
    before = 0
    for disk in point.disks:
        hold.says(f"Writes {disk.name} of {hold.run.subject}")
        source = vault.open_disk(point, disk.name)
        sink = landing.open(disk.name)
        try:
            _pour(hold, source, sink, before)
        except BaseException:
            sink.abandon()
            raise
        finally:
            source.close()
        before += disk.size


def _pour(hold: Hold, source: Source, sink: Sink, before: int) -> None:
    read = hold.read

    def moved(progress: Progress) -> None:
        hold.moved(done=before + progress.done, read=read + progress.moved, new=0)

    copy(source, sink, progress=moved, is_cancelled=lambda: hold.must_end)
    _advance(hold, sink)
    hold.says(hold.step, silent_s=2 * FINISH_S)
    sink.commit()


def _advance(hold: Hold, end: Source | Sink) -> None:
    """Wait for an end before whose first byte, or after whose last one, a platform has long to do. Raises what the end
    raises, and `Cancelled`."""
    step = hold.step
    while isinstance(end, Slow) and (at := end.advance(_by(SLICE_S))):
        hold.says(at)
        if hold.must_end:
            raise Cancelled("It was cancelled.")
    hold.says(step)


def _landing_wish(run: ReplicationRun, configuration: Configuration) -> LandingWish:
    wish = run.wish
    return LandingWish(
        key=str(run.pk),
        name=wish["name"],
        configuration=configuration,
        storage=wish["storage"],
        host=wish.get("host"),
        networks=tuple(wish.get("networks", ())),
        booted_on=tuple(wish.get("booted_on", ())),
        is_template=bool(wish.get("is_template")),
    )


def _clear(hold: Hold, connector: Lands) -> None:
    """Never raises, as `_release`."""
    if hold.is_lost:
        return  # whoever took over begins with it
    try:
        connector.clear(str(hold.run.pk), _by())
    except ConnectorError as error:
        log.warning("run.clear_owed", run=str(hold.run.pk), reason=error.message)
        hold.is_owing = True


# --- standby ----------------------------------------------------------------------------------------------------------


def _stand_by(hold: Hold) -> None:
    run = hold.run
    with _landable(hold) as (connector, vault):
        point = vault.point(str(standing_by.chosen_point(hold).pk))
        hold.total = sum(disk.size for disk in point.disks)
        there = standing_by.warm(hold, vault, connector, point)
        if there is not None and isinstance(connector, Refreshes) and _refresh(hold, vault, connector, point, *there):
            return
        ref, warnings = _land(hold, vault, connector, point)
        standing_by.made_anew(hold, ref, standing_by.mark_of(connector, ref, _by()), warnings)
        _look_soon(run)


def _refresh(hold: Hold, vault: Opened, connector: Refreshes, point: Stored, standby: Standby, since: Stored) -> bool:
    """Whether the standby is at the point now; False if a new one has to be made."""
    hold.says(f"Looks at the standby {standby}", silent_s=2 * CALL_S)
    refreshing = standing_by.refreshing(hold, standby, point, connector, _by())
    if refreshing is None:
        return False
    try:
        before = 0
        for disk in point.disks:
            hold.says(f"Writes what has changed of {disk.name}")
            sink = refreshing.open(disk.name)
            try:
                _pour(hold, vault.open_changes(point, disk.name, since), sink, before)
            except BaseException:
                sink.abandon()
                raise
            before += disk.size
        standing_by.begin_change(hold, standby)
        hold.says(f"Brings {standby} up to date", silent_s=2 * FINISH_S)
        refreshing.finish(_by(FINISH_S))
    finally:
        refreshing.close()
    ref = standing_by.ref_of(standby)
    standing_by.changed(hold, standby, dict(connector.mark(ref, _by()).data))
    return True


# --- mirror -----------------------------------------------------------------------------------------------------------


def _drive(hold: Hold) -> None:
    """Idempotent on the platform, so that an attempt begins anew. What was asked for is undone by the failover alone,
    which waits for the run's end before."""
    run = hold.run
    key = str(run.wish.get("stamp_key", ""))
    ref = MachineRef(run.platform_id, Stamp(gate.installation_id(), key) if key else None)
    if hold.is_to_end:
        raise Cancelled("It was cancelled.")
    with _connector(run) as connector:
        if not isinstance(connector, DrivesMirrors):
            raise Unsupported(f"Deskyard does not fail over what {run.hypervisor} replicates. Do it there.")
        step = ACTS_OF_MIRRORS[run.wish["act"]]
        hold.says(f"{MIRROR_STEPS[run.wish['act']]} on {run.hypervisor}", silent_s=2 * FINISH_S)
        step(connector, ref, _by(FINISH_S))
    with hold.writing():
        hold.finish(STATES.DONE, error="")
        _look_soon(run)


ACTS_OF_MIRRORS: dict[str, Callable[[DrivesMirrors, MachineRef, float], None]] = {
    "hand_over": lambda connector, machine, deadline: connector.hand_over(machine, deadline),
    "take_over": lambda connector, machine, deadline: connector.take_over(machine, deadline),
    "reverse": lambda connector, machine, deadline: connector.reverse(machine, deadline),
    "take_back": lambda connector, machine, deadline: connector.take_back(machine, deadline),
}
MIRROR_STEPS = {
    "hand_over": "Sends the last changes",
    "take_over": "Puts the replica in its place",
    "reverse": "Turns the replication round",
    "take_back": "Takes the failover back",
}


# --- verify, collect, release -----------------------------------------------------------------------------------------


def _verify(hold: Hold) -> None:
    run = hold.run
    with _vault(hold) as vault:
        if run.point is None:
            raise NotFound("The recovery point was deleted meanwhile.")
        hold.says(f"Reads {run.point} back")
        faults = _read_back(hold, vault, run.point)
    with hold.writing():
        recovery.read_back(run.point, faults)
        if faults:
            words = f"The recovery point {run.point} is damaged. {faults[0]}"
            operations.event("point.damaged", words, level="error").save()
        hold.finish(STATES.FAILED if faults else STATES.DONE, findings=faults, error=faults[0] if faults else "")


def _read_back(hold: Hold, vault: Opened, row: RecoveryPoint) -> list[str]:
    """What is wrong, in sentences."""
    try:
        point = vault.point(str(row.pk))
    except (NotFound, Damaged) as error:
        return [error.message]

    def moved(done: int, total: int) -> None:
        hold.total = total
        hold.moved(done=done, read=done, new=0)

    verdict = vault.verify(point, progress=moved, is_cancelled=lambda: hold.must_end)
    return [
        f"{found.extent.length} bytes at {found.extent.offset} of disk {found.disk} are {found.fault}. "
        + ("The next run reads them anew." if verdict.is_noted else "The vault is read-only: nothing heals it.")
        for found in verdict.findings[:20]
    ]


def _collect(hold: Hold) -> None:
    run = hold.run
    with _vault(hold) as vault:
        hold.says("Deletes recovery points", silent_s=FINISH_S)
        _end_dead(vault)
        _delete_condemned(run.vault_id, vault)
        hold.says("Looks for what no recovery point needs", silent_s=24 * 3600)
        found = vault.collect(gate.installation_id(), id=hold.key(hold.attempt))
    words = f"{found.deleted} objects deleted, {found.moved} put into the trash"
    waits = f"; {len(found.waits_for)} runs must end before the rest may go" if found.waits_for else ""
    with hold.writing():
        hold.finish(STATES.DONE, findings=[f"{words}{waits}."], error="")


def _end_dead(vault: Opened) -> None:
    """Copies of ours that no run stands for any more, and collections of ours that are too old to live as well.

    Never those of another installation: it alone knows whether they live."""
    ours = [run for run in vault.runs() if run.installation == gate.installation_id()]
    # Read after the list: whoever registered before it was at work before it.
    working = ReplicationRun.objects.filter(kind__in=REGISTERED, state=STATES.RUNNING)
    live = {movers.key_of(run, run.attempt) for run in working}
    for run in ours:
        is_old = run.began_at is not None and timezone.now() - run.began_at > DEAD_COLLECTION
        # A clock that jumps makes everything old: what a run stands for lives all the same.
        if run.id not in live and (is_old or not run.is_collection):
            vault.end_run(run.id)


def _settle_debt(hold: Hold) -> None:
    run = hold.run
    with _connector(run) as connector:
        hold.says(f"Takes away what is left on {run.hypervisor}", silent_s=2 * CALL_S)
        if key := run.wish.get("clear"):
            if isinstance(connector, Lands):
                connector.clear(key, _by())
        elif isinstance(connector, Replicates):
            connector.release(_machine(run), movers.bookmarks(run), _by())
    with hold.writing():
        hold.finish(STATES.DONE, error="")


ACTS: dict[str, Callable[[Hold], None]] = {
    ReplicationRun.Kind.REPLICATE: _replicate,
    ReplicationRun.Kind.MATERIALISE: _materialise,
    ReplicationRun.Kind.VERIFY: _verify,
    ReplicationRun.Kind.COLLECT: _collect,
    ReplicationRun.Kind.RELEASE: _settle_debt,
    ReplicationRun.Kind.STANDBY: _stand_by,
    ReplicationRun.Kind.MIRROR: _drive,
}
