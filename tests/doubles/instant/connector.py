"""The instant connector: the whole contract of `connectors.base` on a `World`, at once or after `latency_s`.

It keeps every promise of the contract, so that what fails in a test is the broker. Names of machines are unique, as on
libvirt; ids are not derived from keys, so that an order carried out twice leaves two machines for the test to see.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

from connectors import base
from connectors.base import (
    CloneMachine,
    Cursor,
    DeleteMachine,
    DeleteSnapshot,
    Inventory,
    MachineMade,
    MachineRef,
    OpenScreen,
    Order,
    Outcome,
    Platform,
    Power,
    PowerAction,
    PowerSet,
    ProbeAcceleration,
    Probed,
    Receipt,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    ScreenOpened,
    SetGuestPassword,
    SetPower,
    Settings,
    ShareResources,
    SnapshotTaken,
    Stage,
    Stamp,
    Surroundings,
    TakeSnapshot,
    setting,
)
from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)
from connectors.presence import GuestUsers
from connectors.replication import (
    Bookmark,
    Landing,
    LandingWish,
    MirrorListing,
    PointWish,
    Refreshing,
    RefreshWish,
)
from tests.doubles.instant import disks, mirrors, presence
from tests.doubles.instant.world import MachineRow, World

LINKED_SHARE = 10
"""A linked clone takes one of so many parts of its template's disk."""


@dataclass(frozen=True, slots=True)
class InstantSettings(Settings):
    world: str = setting("World", help="Folder of the world.")
    account: str = setting("Account", default="deskyard")
    password: str = setting("Password", secret=True)
    latency_s: str = setting("Seconds that a clone takes", default="0")
    boot_s: str = setting("Seconds until a guest answers", default="0")


class InstantConnector:
    """A hypervisor in a folder."""

    kind: ClassVar[str] = "instant"
    version: ClassVar[str] = "1.0"
    label: ClassVar[str] = "Instant (tests)"
    settings: ClassVar[type[Settings]] = InstantSettings
    takes: ClassVar[frozenset[type[Order]]] = frozenset(
        {
            CloneMachine,
            RecycleMachine,
            DeleteMachine,
            SetPower,
            TakeSnapshot,
            RevertSnapshot,
            DeleteSnapshot,
            Reconfigure,
            ShareResources,
            OpenScreen,
            SetGuestPassword,
            ProbeAcceleration,
        }
    )

    def __init__(self, settings: InstantSettings, surroundings: Surroundings) -> None:
        self.given = settings
        self.surroundings = surroundings
        self.latency_s = float(settings.latency_s or 0)
        self.boot_s = float(settings.boot_s or 0)
        self._world: World | None = None
        self._shown_last: dict[str, tuple[base.Machine, float]] = {}
        """Machine and when it was switched on: one that was recycled meanwhile has changed, though it looks alike."""
        self._cursor: Cursor | None = None
        self._acts: dict[type[Order], Callable[[Any], Outcome]] = {
            CloneMachine: self._clone,
            RecycleMachine: self._recycle,
            DeleteMachine: self._delete,
            SetPower: self._set_power,
            TakeSnapshot: self._take_snapshot,
            RevertSnapshot: self._revert,
            DeleteSnapshot: self._delete_snapshot,
            Reconfigure: self._reconfigure,
            ShareResources: self._share,
            OpenScreen: self._open_screen,
            SetGuestPassword: self._set_password,
            ProbeAcceleration: self._probe,
        }

    # --- the contract ---

    def check(self, deadline: float) -> Platform:
        self._reach_endpoint(deadline)
        return Platform(product="Instant", version="1.0", takes=self.takes)

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        world = self._reach_endpoint(deadline)
        began_at = datetime.now(UTC)
        world.faults.reach("inventory.begin")
        machines = world.machines()
        if share := world.faults.value("omit"):
            machines = machines[int(len(machines) * float(share)) :]
        shown = {machine.id: (self._shown(machine, world), machine.answers_at) for machine in machines}
        partial = "The storage could not be read." if world.faults.value("partial") is not None else ""
        is_incremental = since is not None and since == self._cursor and not partial
        last, self._shown_last, self._cursor = self._shown_last, shown, Cursor(str(uuid4()))
        listing = Inventory(
            began_at=began_at,
            complete=not partial and not is_incremental,
            partial=partial,
            cursor=self._cursor,
            hosts=tuple(
                base.Host(id=str(i), name=str(n), vcpus=_int(c), memory_mib=_int(m), is_up=bool(u))
                for i, n, c, m, u in world.rows("SELECT * FROM host")
            ),
            storages=tuple(
                base.Storage(
                    id=str(i), name=str(n), capacity_mib=_int(c), free_mib=world.free_disk_mib(str(i)), is_up=bool(u)
                )
                for i, n, c, u in world.rows("SELECT * FROM storage")
            ),
            networks=tuple(
                base.Network(id=str(i), name=str(n), kind="instant", is_isolated=bool(apart))
                for i, n, apart in world.rows("SELECT * FROM network")
            ),
            templates=tuple(
                base.Template(
                    id=str(i), name=str(n), storage=str(s), vcpus=_int(c), memory_mib=_int(m), disk_mib=_int(d)
                )
                for i, n, s, c, m, d in world.rows(
                    "SELECT id, name, storage, vcpus, memory_mib, disk_mib FROM template"
                )
            ),
            machines=tuple(m for m, on in shown.values() if not is_incremental or last.get(m.id) != (m, on)),
            gone=tuple(last.keys() - shown.keys()) if is_incremental else (),
        )
        world.faults.reach("inventory.end")
        return listing

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        world = self._reach_endpoint(deadline)
        world.faults.reach("submit.begin")
        for order in orders:
            if time.monotonic() >= deadline:
                return
            world.faults.reach("act.before")
            outcome = self._act(order)
            world.faults.reach("act.after")
            if world.faults.strikes("drop"):
                raise Unreachable("The connection to the instant hypervisor was lost. Check that it is up.")
            yield outcome
            world.faults.reach("act.told")

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        world = self._reach_endpoint(deadline)
        world.faults.reach("poll.begin")
        for receipt in receipts:
            if time.monotonic() >= deadline:
                return
            world.faults.reach("poll.before")
            outcome = self._judge(receipt)
            world.faults.reach("poll.after")
            yield outcome

    # --- replication ---

    def mirrors(self, deadline: float) -> MirrorListing:
        return mirrors.listing(self._reach_endpoint(deadline))

    def guest_users(self, machines: Sequence[str], deadline: float) -> Iterator[GuestUsers]:
        yield from presence.answers(self._reach_endpoint(deadline), machines)

    def hand_over(self, machine: MachineRef, deadline: float) -> None:
        mirrors.hand_over(self._reach_endpoint(deadline), self._same(machine).id)

    def take_over(self, machine: MachineRef, deadline: float) -> None:
        mirrors.take_over(self._reach_endpoint(deadline), machine.id, machine.stamp)

    def reverse(self, machine: MachineRef, deadline: float) -> None:
        mirrors.reverse(self._reach_endpoint(deadline), self._same(machine).id)

    def take_back(self, machine: MachineRef, deadline: float) -> None:
        mirrors.take_back(self._reach_endpoint(deadline), machine.id)

    def take_point(self, wish: PointWish, deadline: float) -> disks.InstantPoint:
        world = self._reach_endpoint(deadline)
        template = world.template(wish.machine.id)
        if template is not None:
            return disks.take(world, disks.as_machine(template), wish)
        return disks.take(world, self._same(wish.machine), wish)

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        disks.release(self._reach_endpoint(deadline), machine.id, keep)

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        world = self._reach_endpoint(deadline)
        if (wish.storage,) not in world.rows("SELECT id FROM storage"):
            raise NotFound(f"There is no storage {wish.storage!r} on the instant hypervisor.")
        return _Landing(disks.InstantLanding(world, self.surroundings.installation, wish))

    def clear(self, key: str, deadline: float) -> None:
        disks.clear(self._reach_endpoint(deadline), key)

    def mark(self, machine: MachineRef, deadline: float) -> Bookmark:
        return disks.mark(self._reach_endpoint(deadline), self._same(machine).id)

    def refresh(self, wish: RefreshWish, deadline: float) -> Refreshing:
        return disks.InstantRefreshing(self._reach_endpoint(deadline), self._same(wish.machine), wish)

    def close(self) -> None:
        if self._world is not None:
            self._world.close()
            self._world = None

    # --- the endpoint ---

    @property
    def world(self) -> World:
        if self._world is None:
            self._world = World(self.given.world)
        return self._world

    def _reach_endpoint(self, deadline: float) -> World:
        try:
            world = self.world
        except (FileNotFoundError, sqlite3.OperationalError) as error:
            raise Unreachable(f"There is no instant hypervisor at {self.given.world}. Check the folder.") from error
        if world.faults.value("refuse") is not None:
            raise Unreachable("The instant hypervisor refused the connection. Check that it is up.")
        if world.faults.value("hang") is not None:
            time.sleep(max(0.0, deadline - time.monotonic()))
            raise Unreachable("The instant hypervisor gave no answer in time. Check the network.")
        if world.faults.value("certificate") is not None:
            raise CertificateRejected("The instant hypervisor showed a certificate that is not the trusted one.")
        wanted = world.faults.value("password")
        if world.faults.value("credentials") is not None or (wanted is not None and wanted != self.given.password):
            raise CredentialsRejected(f"The instant hypervisor refused account {self.given.account!r}.")
        if time.monotonic() >= deadline:
            raise Unreachable("The instant hypervisor gave no answer in time. Check the network.")
        return world

    def _shown(self, machine: MachineRow, world: World) -> base.Machine:
        is_on = machine.power == "on"
        answers = is_on and machine.answers_at <= time.time() and world.faults.value("silent") is None
        number = int(machine.id.replace("-", "")[:4], 16)
        return base.Machine(
            id=machine.id,
            name=machine.name,
            power=Power(machine.power),
            vcpus=machine.vcpus,
            memory_mib=machine.memory_mib,
            host=machine.host,
            stamp=Stamp(machine.installation, machine.key) if machine.key else None,
            agent=base.Agent.ANSWERING if answers else base.Agent.SILENT,
            addresses=(f"10.9.{number >> 8}.{number & 255}",) if answers else (),
        )

    # --- orders ---

    def _act(self, order: Order) -> Outcome:
        if self.world.faults.strikes("busy"):
            return _failed(order, Busy("The instant hypervisor is busy.", retry_after_s=0.2))
        try:
            return self._acts[type(order)](order)
        except KeyError:
            return _failed(order, Unsupported(f"The instant hypervisor does not take {type(order).__name__}."))
        except ConnectorError as error:
            return _failed(order, error)

    def _judge(self, receipt: Receipt) -> Outcome:
        """Goes on with a clone or recycle that takes its time: everything else was done at once."""
        order = receipt.order
        try:
            if isinstance(order, CloneMachine | RecycleMachine):
                return self._making(order)
            return self._acts[type(order)](order)
        except ConnectorError as error:
            return _failed(order, error)

    def _note(self, order: Order, what: str, db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO act (key, kind, attempt, what) VALUES (?, ?, ?, ?)",
            [order.key, type(order).__name__, order.attempt, what],
        )

    def _clone(self, order: CloneMachine) -> Outcome:
        """Look for an earlier attempt's machine, else: the machine (stamped), its disk, and `_making` does the rest."""
        if order.attempt > 1 and self.world.machines_of(self.surroundings.installation, order.key):
            return self._making(order)
        template = self.world.template(order.template)
        if template is None:
            raise NotFound(f"There is no template {order.template!r} on the instant hypervisor.")
        vcpus, memory_mib = order.vcpus or template.vcpus, order.memory_mib or template.memory_mib
        machine_id = str(uuid4())
        with self.world.change() as db:
            if taken := self.world.machine_named(order.name):
                if (taken.installation, taken.key) != (self.surroundings.installation, order.key):
                    raise Conflict(f"There is already a machine named {order.name!r}, and it is not this order's.")
            else:
                host = self._host(order, memory_mib)
                values = [
                    machine_id,
                    order.name,
                    "off",
                    vcpus,
                    memory_mib,
                    host,
                    self.surroundings.installation,
                    order.key,
                    time.time() + self.latency_s,
                    0.0,
                    order.seed.hostname if order.seed else "",
                ]
                db.execute(f"INSERT INTO machine VALUES ({', '.join('?' * len(values))})", values)
                self._note(order, "machine", db)
        return self._making(order)

    def _host(self, order: CloneMachine, memory_mib: int) -> str:
        hosts = [str(row[0]) for row in self.world.rows("SELECT id FROM host WHERE is_up ORDER BY id")]
        if order.host is not None and order.host not in hosts:
            raise NotFound(f"There is no running host {order.host!r}.")
        host = order.host or (hosts[0] if hosts else "")
        if not host:
            raise PlatformFault("No host of the instant hypervisor is up.")
        self._require_memory(host, memory_mib)
        return host

    def _require_memory(self, host: str, memory_mib: int) -> None:
        limit = _int(self.world.rows("SELECT memory_mib FROM host WHERE id = ?", host)[0][0])
        used = self.world.memory_in_use_mib(host)
        if used + memory_mib > limit:
            raise CapacityExhausted(f"Host {host}: {memory_mib} MiB wanted, {limit - used} MiB free.")

    def _making(self, order: CloneMachine | RecycleMachine) -> Outcome:
        """The steps that are left of a clone or recycle, each checked first: disk, waiting, power."""
        machine = self._made_by(order)
        self.world.faults.reach("act.between")
        if self.world.faults.strikes("fail_clone"):
            if isinstance(order, CloneMachine):
                self.world.remove_machine(machine.id)
            raise PlatformFault(
                f"Making {order.name} failed when it was half done. Look at the instant hypervisor's log.",
                platform_words="internal error 0xC10E",
            )
        disk = self._fresh_disk(order, machine)
        if not machine.stands:
            share = 1 - (machine.stands_at - time.time()) / self.latency_s if self.latency_s else 1
            return Outcome(
                key=order.key,
                stage=Stage.RUNNING,
                step="Copying the disk",
                percent=max(0, min(99, int(100 * share))),
                receipt={"machine": machine.id},
                poll_after_s=min(1.0, max(0.05, machine.stands_at - time.time())),
            )
        power = self._switch(machine, "on") if order.power_on else machine.power
        made = MachineMade(
            machine_id=machine.id, name=machine.name, disks=(disk,), power=Power(power), host=machine.host
        )
        return Outcome(key=order.key, stage=Stage.DONE, result=made)

    def _made_by(self, order: CloneMachine | RecycleMachine) -> MachineRow:
        if isinstance(order, RecycleMachine):
            return self._same(order.machine)
        found = self.world.machines_of(self.surroundings.installation, order.key)
        if not found:
            raise PlatformFault(f"{order.name} vanished while it was being made.")
        return found[0]

    def _fresh_disk(self, order: CloneMachine | RecycleMachine, machine: MachineRow) -> str:
        """The disk that this order made; made now if it was not yet. On failure a clone leaves nothing behind."""
        template = self.world.template(order.template)
        if template is None:
            raise NotFound(f"There is no template {order.template!r} on the instant hypervisor.")
        size_mib = template.disk_mib // LINKED_SHARE if order.linked else template.disk_mib
        storage = order.storage or template.storage
        with self.world.change() as db:
            disk = self._disk_of(order, machine)
            full = not disk and (
                self.world.faults.strikes("storage_full") or self.world.free_disk_mib(storage) < size_mib
            )
            if not disk and not full:
                disk = str(uuid4())
                db.execute("DELETE FROM disk WHERE machine = ?", [machine.id])
                db.execute("DELETE FROM snapshot WHERE machine = ?", [machine.id])
                values = [disk, machine.id, storage, size_mib, template.content, order.key]
                db.execute("INSERT INTO disk VALUES (?, ?, ?, ?, ?, ?)", values)
                disks.take_over(self.world, template.id, machine.id)
                self._note(order, "disk", db)
        if full:
            if isinstance(order, CloneMachine):
                self.world.remove_machine(machine.id)
            raise CapacityExhausted(f"Storage {storage} has no room for a disk of {size_mib} MiB.")
        return disk

    def _disk_of(self, order: Order, machine: MachineRow) -> str:
        """Empty if this order has made none yet."""
        found = self.world.rows("SELECT id FROM disk WHERE machine = ? AND of_order = ?", machine.id, order.key)
        return str(found[0][0]) if found else ""

    def _recycle(self, order: RecycleMachine) -> Outcome:
        machine = self._same(order.machine)
        with self.world.change() as db:
            if not self._disk_of(order, machine):
                stands_at = time.time() + self.latency_s
                db.execute("UPDATE machine SET power = 'off', stands_at = ? WHERE id = ?", [stands_at, machine.id])
        return self._making(order)

    def _same(self, ref: MachineRef) -> MachineRow:
        """The machine that is meant. Raises NotFound, or Conflict if it is another one by now."""
        machine = self.world.machine(ref.id)
        if machine is None:
            raise NotFound(f"There is no machine {ref.id} on the instant hypervisor.")
        stamp = Stamp(machine.installation, machine.key) if machine.key else None
        if stamp != ref.stamp:
            raise Conflict(f"Machine {machine.name} does not bear the stamp that was expected. Look at it first.")
        return machine

    def _delete(self, order: DeleteMachine) -> Outcome:
        ref, stamp = order.machine, order.machine.stamp
        if not ref.id and stamp is not None:
            begun = self.world.machines_of(stamp.installation, stamp.key)
            ref = MachineRef(begun[0].id if begun else "", stamp)
        try:
            machine = self._same(ref)
        except NotFound:
            return Outcome(key=order.key, stage=Stage.DONE)
        self.world.faults.reach("act.between")
        self.world.remove_machine(machine.id)
        with self.world.change() as db:
            self._note(order, "deleted", db)
        return Outcome(key=order.key, stage=Stage.DONE)

    def _switch(self, machine: MachineRow, power: str) -> str:
        if machine.power == power:
            return power
        with self.world.change() as db:
            if power == "on":
                mirrors.require_startable(self.world, machine.id)
                self._require_memory(machine.host, machine.memory_mib)
            db.execute(
                "UPDATE machine SET power = ?, answers_at = ? WHERE id = ?",
                [power, time.time() + self.boot_s, machine.id],
            )
        return power

    def _set_power(self, order: SetPower) -> Outcome:
        machine = self._same(order.machine)
        action = order.action
        if action in {PowerAction.REBOOT, PowerAction.RESET}:
            if machine.power != "on":
                raise Conflict(f"{machine.name} is {machine.power}: only a running machine can be restarted.")
            self._switch(self._with_power(machine, "off"), "on")
        elif action == PowerAction.SUSPEND:
            if machine.power == "off":
                raise Conflict(f"{machine.name} is off and cannot be suspended.")
            self._switch(machine, "suspended")
        elif action == PowerAction.RESUME:
            if machine.power == "off":
                raise Conflict(f"{machine.name} is off and cannot be resumed.")
            self._switch(machine, "on")
        else:
            self._switch(machine, "on" if action == PowerAction.ON else "off")
        with self.world.change() as db:
            self._note(order, f"power {action}", db)
        after = self.world.machine(machine.id)
        return Outcome(key=order.key, stage=Stage.DONE, result=PowerSet(Power(after.power if after else "unknown")))

    def _with_power(self, machine: MachineRow, power: str) -> MachineRow:
        self._switch(machine, power)
        return self._same(MachineRef(machine.id, Stamp(machine.installation, machine.key) if machine.key else None))

    def _take_snapshot(self, order: TakeSnapshot) -> Outcome:
        machine = self._same(order.machine)
        snapshot_id = f"snapshot-{order.key}"
        with self.world.change() as db:
            taken = self.world.rows("SELECT id FROM snapshot WHERE machine = ? AND name = ?", machine.id, order.name)
            if taken and str(taken[0][0]) != snapshot_id:
                raise Conflict(f"{machine.name} already has a snapshot named {order.name!r}.")
            if not taken:
                content = self.world.read(machine.id)
                db.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", [snapshot_id, machine.id, order.name, content])
        return Outcome(key=order.key, stage=Stage.DONE, result=SnapshotTaken(snapshot_id))

    def _revert(self, order: RevertSnapshot) -> Outcome:
        machine = self._same(order.machine)
        query = "SELECT content FROM snapshot WHERE id = ? AND machine = ?"
        found = self.world.rows(query, order.snapshot, machine.id)
        if not found:
            raise NotFound(f"{machine.name} has no snapshot {order.snapshot!r}.")
        with self.world.change() as db:
            db.execute("UPDATE disk SET content = ? WHERE machine = ?", [found[0][0], machine.id])
        return Outcome(key=order.key, stage=Stage.DONE)

    def _delete_snapshot(self, order: DeleteSnapshot) -> Outcome:
        machine = self._same(order.machine)
        with self.world.change() as db:
            db.execute("DELETE FROM snapshot WHERE id = ? AND machine = ?", [order.snapshot, machine.id])
        return Outcome(key=order.key, stage=Stage.DONE)

    def _reconfigure(self, order: Reconfigure) -> Outcome:
        machine = self._same(order.machine)
        vcpus, memory_mib = order.vcpus or machine.vcpus, order.memory_mib or machine.memory_mib
        if (vcpus, memory_mib) != (machine.vcpus, machine.memory_mib):
            if machine.power != "off":
                raise Unsupported(f"{machine.name} must be off to change its vCPUs or memory.")
            with self.world.change() as db:
                db.execute("UPDATE machine SET vcpus = ?, memory_mib = ? WHERE id = ?", [vcpus, memory_mib, machine.id])
        return Outcome(key=order.key, stage=Stage.DONE)

    def _share(self, order: ShareResources) -> Outcome:
        machine = self._same(order.machine)
        with self.world.change() as db:
            values = [machine.id, *dataclasses.astuple(order.share)]
            db.execute("INSERT OR REPLACE INTO share VALUES (?, ?, ?, ?, ?)", values)
            self._note(order, f"share {order.share.weight}", db)
        return Outcome(key=order.key, stage=Stage.DONE)

    def _open_screen(self, order: OpenScreen) -> Outcome:
        """Where a test has put a screen (knob "screen": "HOST PORT PASSWORD"), or where nobody listens."""
        machine = self._same(order.machine)
        if machine.power != "on":
            raise Conflict(f"{machine.name} is {machine.power}: it has no screen.")
        host, port, password = (self.world.faults.value("screen") or f"127.0.0.1 5900 {uuid4().hex[:8]}").split()
        opened = ScreenOpened(protocol="vnc", host=host, port=int(port), password=password)
        return Outcome(key=order.key, stage=Stage.DONE, result=opened)

    def _set_password(self, order: SetGuestPassword) -> Outcome:
        """Every guest knows every account but "nobody"."""
        machine = self._same(order.machine)
        if machine.power != "on":
            raise Conflict(f"{machine.name} is {machine.power}: nobody there sets a password.")
        if self.world.faults.strikes("silent"):
            return Outcome(key=order.key, stage=Stage.RUNNING, step="Waiting for the guest's agent", receipt={})
        if order.user == "nobody":
            raise PlatformFault(f"The guest of {machine.name} does not take a password for {order.user!r}.")
        with self.world.change() as db:
            query = "INSERT OR REPLACE INTO password SELECT id, ?, ? FROM disk WHERE machine = ?"
            db.execute(query, [order.user, order.password, machine.id])
            self._note(order, f"password of {order.user}", db)
        return Outcome(key=order.key, stage=Stage.DONE)

    def _probe(self, order: ProbeAcceleration) -> Outcome:
        probed = Probed(acceleration="instant", reason="Nothing runs here.")
        return Outcome(key=order.key, stage=Stage.DONE, result=probed)


@dataclass(frozen=True, slots=True)
class _Landing:
    made: disks.InstantLanding

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.made.warnings

    @property
    def is_done(self) -> bool:
        return self.made.is_done

    def open(self, disk: str) -> disks.DiskInTheMaking:
        return self.made.open(disk)

    def finish(self, deadline: float) -> MachineRef:
        if self.made.wish.is_template:
            return MachineRef(self.made.template())
        return MachineRef(self.made.machine(), Stamp(self.made.installation, self.made.wish.key))

    def close(self) -> None:
        """Nothing is held."""


def _failed(order: Order, error: ConnectorError) -> Outcome:
    return Outcome(key=order.key, stage=Stage.FAILED, error=error)


def _int(value: object) -> int:
    return int(str(value))
