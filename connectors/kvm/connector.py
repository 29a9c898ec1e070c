"""KVM through libvirt: the contract of `connectors.base`, kept.

Orders run as jobs of a small thread pool, since libvirt's calls block; `submit` and `poll` start the jobs, wait a
moment and answer with what is known. Every order is a function that looks at the platform and takes the steps not yet
taken, so it does not matter which process calls it, how often, or after what crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import libvirt

from connectors.base import (
    CloneMachine,
    Cursor,
    DeleteMachine,
    DeleteSnapshot,
    Inventory,
    MachineRef,
    OpenScreen,
    Order,
    Outcome,
    Platform,
    ProbeAcceleration,
    Receipt,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    SetGuestPassword,
    SetPower,
    Settings,
    ShareResources,
    Stage,
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import ConnectorError, Unreachable, Unsupported
from connectors.kvm import (
    copies,
    disks,
    faults,
    landing,
    machines,
    mapping,
    passwords,
    power,
    presence,
    probe,
    refreshing,
    screens,
    shares,
    snapshots,
)
from connectors.kvm.client import Endpoint, Line
from connectors.kvm.inventory import Agents, Changes, Reading, listen, refresh_pools
from connectors.kvm.jobs import Crew, Job
from connectors.kvm.settings import KvmSettings
from connectors.kvm.work import OutOfTime, Usage, Work
from connectors.presence import GuestUsers
from connectors.replication import Bookmark, Landing, LandingWish, Point, PointWish, Refreshing, RefreshWish

T = TypeVar("T")

PROCEDURES: Mapping[type[Order], Callable[[Any], Outcome]] = {
    CloneMachine: machines.clone,
    RecycleMachine: machines.recycle,
    DeleteMachine: machines.delete,
    Reconfigure: machines.reconfigure,
    ShareResources: shares.share,
    SetPower: power.set_power,
    SetGuestPassword: passwords.set_password,
    TakeSnapshot: snapshots.take,
    RevertSnapshot: snapshots.revert,
    DeleteSnapshot: snapshots.delete,
    OpenScreen: screens.open_screen,
    ProbeAcceleration: probe.probe,
}

PATIENCE_S = 0.25
"""How long `submit` and `poll` wait for jobs in all: quick orders are answered at once, long ones hold up nobody."""

REFRESH_EVERY_S = 120.0
"""How old the numbers of free storage may get."""
REFRESH_WAIT_S = 3.0


class KvmConnector:
    """One libvirt, reached over a socket, TLS, SSH or (laboratories) plain TCP."""

    kind: ClassVar[str] = "kvm"
    version: ClassVar[str] = "1"
    label: ClassVar[str] = "KVM (libvirt)"
    takes: ClassVar[frozenset[type[Order]]] = frozenset(PROCEDURES)
    settings: ClassVar[type[Settings]] = KvmSettings

    def __init__(self, settings: KvmSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self.surroundings = surroundings
        self._endpoint = Endpoint(settings, surroundings.workdir)
        self._crew = Crew()
        self._jobs: dict[str, _Going] = {}
        self._usage = Usage()
        self._host_id = ""
        self._lock = threading.Lock()
        self._name = uuid4().hex
        self._changes = Changes()
        self._listening_on = 0
        self._agents = Agents()
        self._refreshed_at = -REFRESH_EVERY_S
        self._refreshing: Job[None] | None = None

    def __repr__(self) -> str:
        return f"<KvmConnector {self._endpoint.name}>"

    # --- looking ---

    def check(self, deadline: float) -> Platform:
        return self._by(deadline, "looking at the host", lambda line, connection: self._platform(connection))

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        def read(line: Line, connection: Any) -> Inventory:
            return self._read(line, connection, since, deadline)

        return self._by(deadline, "reading the inventory", read)

    def guest_users(self, machines: Sequence[str], deadline: float) -> Iterator[GuestUsers]:
        def read(line: Line, connection: Any) -> list[GuestUsers]:
            return list(presence.ask(connection, machines, deadline, self._agents))

        yield from self._by(deadline, "asking guests who is logged on", read)

    def _platform(self, connection: Any) -> Platform:
        warnings = platform_warnings(connection, self._settings)
        takes = set(self.takes)
        if not self.surroundings.probe_image:
            takes.discard(ProbeAcceleration)
        if connection.getType() != "QEMU":  # libvirt's other drivers have none of what these need
            takes -= {OpenScreen, ProbeAcceleration, ShareResources, SetGuestPassword}
        if connection.getURI().endswith("/session"):  # an ordinary user's daemon has no cgroups
            takes.discard(ShareResources)
        version = f"{_version(connection.getVersion())} (libvirt {_version(connection.getLibVersion())})"
        return Platform(product=connection.getType(), version=version, takes=frozenset(takes), warnings=tuple(warnings))

    def _read(self, line: Line, connection: Any, since: Cursor | None, deadline: float) -> Inventory:
        if self._listening_on != line.generation:
            self._changes = Changes()
            line.keep(connection, listen(connection, self._changes))
            self._listening_on = line.generation
            self._agents = Agents()
        # Taken before anything is read: what changes while we read is read again the next time.
        here = self._changes.counter
        cursor = Cursor(f"{self._name}/{line.generation}/{here}")
        # The reading stops a little before whoever waits for it does: a partial listing is better than none.
        stop_at = deadline - min(1.0, (deadline - time.monotonic()) / 5)
        ask_until = (time.monotonic() + stop_at) / 2
        reading = Reading(connection, self._host(connection), stop_at, self._agents, self._changes, ask_until)
        counted = self._counter_of(since, line.generation)
        if counted is None:
            self._refresh_pools(line, deadline)
        inventory = reading.complete() if counted is None else reading.changed(self._changes.since(counted))
        return _with_cursor(inventory, cursor)

    def _refresh_pools(self, line: Line, deadline: float) -> None:
        """Have libvirt look at its storages again: it does not notice that disks grow.

        A storage that hangs (NFS) may keep libvirt busy for long: so this waits a moment only, and one such look is
        under way at a time.
        """
        now = time.monotonic()
        is_under_way = self._refreshing is not None and not self._refreshing.ended.is_set()
        if is_under_way or now < self._refreshed_at + REFRESH_EVERY_S:
            return
        self._refreshed_at = now
        self._refreshing = Job(lambda: refresh_pools(line))
        threading.Thread(target=self._refreshing.run, name="libvirt-refresh", daemon=True).start()
        self._refreshing.ended.wait(min(REFRESH_WAIT_S, (deadline - now) / 4))

    def _counter_of(self, cursor: Cursor | None, generation: int) -> int | None:
        """Where that cursor's reading ended, None if it is not of this object and this connection."""
        if cursor is None:
            return None
        name, _, rest = cursor.value.partition("/")
        of_generation, _, counter = rest.partition("/")
        is_ours = name == self._name and of_generation == str(generation) and counter.isdigit()
        return int(counter) if is_ours else None

    # --- orders ---

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        return self._go([Receipt(order) for order in orders], deadline)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        return self._go(receipts, deadline)

    def close(self) -> None:
        for going in self._jobs.values():
            going.work.deadline = 0.0  # what is under way takes no further step
        self._crew.close()
        self._endpoint.close()

    def _go(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Go on with each order and say how far it is. Raises, after all that is known, if the endpoint was lost."""
        line = self._endpoint.line(deadline)
        going = [self._started(line, receipt, deadline) for receipt in receipts]
        patience = min(deadline, time.monotonic() + PATIENCE_S)
        lost: ConnectorError | None = None
        for job in going:
            job.job.ended.wait(max(0.0, patience - time.monotonic()))
            try:
                yield self._told(job)
            except ConnectorError as error:
                self._endpoint.lose(line)
                lost = error
        if lost is not None:
            raise lost

    def _started(self, line: Line, receipt: Receipt, deadline: float) -> _Going:
        """The order's job: the one under way, a finished one that nobody has asked after, or a new one."""
        key = receipt.order.key
        there = self._jobs.get(key)
        if there is not None and (not there.job.ended.is_set() or there.is_final):
            return there
        work = Work(
            order=receipt.order,
            settings=self._settings,
            surroundings=self.surroundings,
            usage=self._usage,
            deadline=deadline,
            receipt=dict(there.work.receipt if there is not None else receipt.data),
        )
        going = self._jobs[key] = _Going(work, self._crew.start(lambda: self._advance(line, work)))
        return going

    def _advance(self, line: Line, work: Work[Any]) -> Outcome:
        """One go at an order, in a thread of the pool. Endpoint losses are raised, all else is told as an outcome.

        Errors leave without their tracebacks: those would keep libvirt's objects, and with them a dead connection,
        alive for as long as anybody keeps the outcome.
        """
        try:
            with line.using() as work.connection:
                try:
                    return self._proceed(work)
                finally:
                    work.connection = None
        except ConnectorError as error:
            error = _bare(error)
            if error.loses_endpoint:
                raise error from None
            return Outcome(key=work.order.key, stage=Stage.FAILED, step=work.step, error=error)

    def _proceed(self, work: Work[Any]) -> Outcome:
        procedure = PROCEDURES.get(type(work.order))
        if procedure is None:
            raise Unsupported(f"KVM knows no order {type(work.order).__name__}.")
        try:
            work.begin("Starting")
            work.host_id = self._host(work.connection)
            return procedure(work)
        except OutOfTime:
            return work.running(poll_after_s=0.5)
        except copies.StillCopying:
            return work.running(poll_after_s=2.0)
        except libvirt.libvirtError as error:
            raise work.problem(error) from error

    def _told(self, going: _Going) -> Outcome:
        if not going.job.ended.is_set():
            return going.work.running(poll_after_s=0.5)
        if going.job.fault is not None:
            del self._jobs[going.work.order.key]
            raise going.job.fault
        outcome = going.job.result
        if outcome is None or outcome.stage is Stage.RUNNING:
            return outcome or going.work.running()
        del self._jobs[going.work.order.key]
        return outcome

    # --- replication ---

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        disks.require_way(self._settings)

        def call(work: Work[Order]) -> Point:
            return disks.take(work, self._endpoint, wish)

        return self._working(wish.key, deadline, "taking a point", call)

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        self._by(deadline, "releasing a point", lambda line, connection: disks.release(connection, machine, keep))

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        def call(work: Work[Order]) -> Landing:
            return landing.land(work, wish, self._working, self._endpoint)

        return self._working(wish.key, deadline, "preparing the machine", call)

    def clear(self, key: str, deadline: float) -> None:
        self._working(key, deadline, "clearing a landing", landing.clear)

    def mark(self, machine: MachineRef, deadline: float) -> Bookmark:
        def call(work: Work[Order]) -> Bookmark:
            return refreshing.mark(work, machine)

        return self._working(str(uuid4()), deadline, "looking at the disks", call)

    def refresh(self, wish: RefreshWish, deadline: float) -> Refreshing:
        def call(work: Work[Order]) -> Refreshing:
            return refreshing.refresh(work, wish, self._working, self._endpoint)

        return self._working(wish.key, deadline, "looking at the disks", call)

    def _working(self, key: str, deadline: float, doing: str, call: Callable[[Work[Order]], T]) -> T:
        """Like an order's steps, but at once: the call's result by the deadline."""

        def look(line: Line, connection: Any) -> T:
            work = Work(Order(key=key), self._settings, self.surroundings, self._usage, deadline)
            work.connection, work.host_id = connection, self._host(connection)
            return call(work)

        return self._by(deadline, doing, look)

    # --- the connection ---

    def _host(self, connection: Any) -> str:
        with self._lock:
            if not self._host_id:
                self._host_id = mapping.host_uuid(connection.getCapabilities()) or connection.getHostname()
            return self._host_id

    def _by(self, deadline: float, doing: str, call: Callable[[Line, Any], T]) -> T:
        """The call's result by the deadline, in a thread of its own that is left behind if the line is dead."""
        line = self._endpoint.line(deadline)
        job: Job[T] = Job(lambda: self._look(line, doing, call))
        threading.Thread(target=job.run, name="libvirt-read", daemon=True).start()
        if not job.ended.wait(max(0.0, deadline - time.monotonic())):
            self._endpoint.lose(line)
            words = f"{self._endpoint.name} did not answer in time while {doing}."
            raise Unreachable(f"{words} {faults.ADVICE[Unreachable]}")
        if isinstance(job.fault, ConnectorError) and job.fault.loses_endpoint:
            self._endpoint.lose(line)
        if job.fault is not None:
            raise job.fault
        result: T = job.result  # type: ignore[assignment]
        return result

    def _look(self, line: Line, doing: str, call: Callable[[Line, Any], T]) -> T:
        try:
            with line.using() as connection:
                return call(line, connection)
        except libvirt.libvirtError as error:
            raise _bare(faults.ours(error, doing, self._endpoint.name)) from None
        except OutOfTime:
            raise Unreachable(f"{self._endpoint.name} did not answer in time while {doing}.") from None


def _bare(error: ConnectorError) -> ConnectorError:
    """The same error without what it came through."""
    return type(error)(error.message, platform_words=error.platform_words, retry_after_s=error.retry_after_s)


class _Going:
    """An order under way: its work and the job that does it."""

    def __init__(self, work: Work[Any], job: Job[Outcome]) -> None:
        self.work = work
        self.job = job

    @property
    def is_final(self) -> bool:
        """Whether it ended with something to tell that has not been told."""
        return self.job.fault is not None or (
            self.job.result is not None and self.job.result.stage is not Stage.RUNNING
        )


def _with_cursor(inventory: Inventory, cursor: Cursor) -> Inventory:
    # A partial complete-listing has no cursor: what it did not read would never be read by increments.
    is_whole = inventory.complete or not inventory.partial
    return replace(inventory, cursor=cursor if is_whole else None)


def platform_warnings(connection: Any, settings: KvmSettings) -> list[str]:
    """What an administrator should know before machines are made there, in words."""
    warnings = []
    pools = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    networks = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    if not pools:
        warnings.append("No storage pool is active: machines cannot be made here.")
    for named, found, what in (
        (settings.storage_pool, pools, "storage pool"),
        (settings.network, networks, "network"),
    ):
        if named and not any(named in (one.name(), one.UUIDString()) for one in found):
            warnings.append(f"There is no active {what} {named!r} on this host.")
    if not networks:
        warnings.append("No libvirt network is active: machines need one, or a bridge in their template.")
    if settings.transport == "tcp" or settings.uri.startswith("qemu+tcp"):
        warnings.append("Unencrypted TCP: anybody on the way can read and change everything. For laboratories only.")
    return warnings


def _version(number: int) -> str:
    """libvirt packs 9.0.0 into 9000000."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
