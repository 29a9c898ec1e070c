"""Nutanix AHV through Prism Central: the contract of `connectors.base`, kept.

Every order is a function that looks at the platform and takes the steps not yet taken. None waits for a task of
Prism's: it starts one, notes it in the receipt and answers RUNNING; `poll` goes on from the receipt, in any process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

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
    Receipt,
    Reconfigure,
    RecycleMachine,
    RevertSnapshot,
    SetPower,
    Settings,
    Stage,
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import Busy, ConnectorError, NotFound, Unreachable, Unsupported
from connectors.nutanix import disks, landing, machines, mirrors, power, screens, snapshots
from connectors.nutanix.client import Client, NoTurn, OutOfTime
from connectors.nutanix.errands import Errand, Trail, Working
from connectors.nutanix.inventory import Reading, Shown
from connectors.nutanix.objects import ObjectStore
from connectors.nutanix.settings import NutanixSettings
from connectors.nutanix.tasks import Tasks
from connectors.nutanix.work import VMS, StillGoing, Work
from connectors.replication import Bookmark, Landing, LandingWish, MirrorListing, Point, PointWish

PROCEDURES: Mapping[type[Order], Callable[[Any], Outcome]] = {
    CloneMachine: machines.clone,
    RecycleMachine: machines.recycle,
    DeleteMachine: machines.delete,
    Reconfigure: machines.reconfigure,
    SetPower: power.set_power,
    TakeSnapshot: snapshots.take,
    RevertSnapshot: snapshots.revert,
    DeleteSnapshot: snapshots.delete,
    OpenScreen: screens.open_screen,
}

WITH_POINTS: tuple[type[Order], ...] = (TakeSnapshot, RevertSnapshot, DeleteSnapshot)

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a part of a disk may wait for its turn under the rate limits."""

NAMESPACES = ("vmm", "prism", "clustermgmt", "networking")

RIGHTS = (
    ("vmm", VMS, "machines", "View Virtual Machine"),
    ("prism", "config/tasks", "tasks", "View Task"),
    ("clustermgmt", "config/hosts", "hosts", "View Host"),
    ("clustermgmt", "config/storage-containers", "storage containers", "View Storage Container"),
    ("networking", "config/subnets", "networks", "View Subnet"),
)
"""What the account has to be able to list, and what the right is called in Prism's roles."""


class NutanixConnector:
    """One Prism Central."""

    kind: ClassVar[str] = "nutanix"
    version: ClassVar[str] = "1"
    label: ClassVar[str] = "Nutanix AHV (Prism Central)"
    takes: ClassVar[frozenset[type[Order]]] = frozenset(PROCEDURES)
    settings: ClassVar[type[Settings]] = NutanixSettings

    def __init__(self, settings: NutanixSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._client = Client(settings, surroundings.workdir)
        self._tasks = Tasks(self._client)
        self._name = uuid4().hex
        self._readings = 0
        self._shown: Shown | None = None
        self._trails: dict[str, Trail] = {}
        """Of points by their machine, of landings by their key."""

    def __repr__(self) -> str:
        return f"<NutanixConnector {self._settings.endpoint}>"

    # --- looking ------------------------------------------------------------------------------------------------------

    def check(self, deadline: float) -> Platform:
        self._settings.require_complete()
        client = self._client
        client.patience_s = 5.0
        try:
            versions = {name: client.version(name, deadline) for name in NAMESPACES}
            reading = Reading(client, self._settings, deadline)
            clusters = reading.clusters()
            warnings = [*reading.faults, *self._missing_rights(deadline)]
        except OutOfTime as late:
            raise self._late("signing in", late) from None
        central = [cluster.version for cluster in clusters if cluster.is_prism_central]
        real = [cluster for cluster in clusters if not cluster.is_prism_central]
        if self._settings.cluster and not any(self._settings.cluster in (one.id, one.name) for one in real):
            raise NotFound(f"There is no cluster {self._settings.cluster!r} behind {self._settings.endpoint}.")
        if not real and not warnings:
            warnings.append("No cluster is registered with this Prism Central: machines cannot be made here.")
        takes = set(self.takes)
        if versions["vmm"] < snapshots.SINCE:
            takes -= set(WITH_POINTS)
            warnings.append("This Prism Central speaks v4.0: single machines have no snapshots there.")
        if not self._settings.screen_port:
            takes.discard(OpenScreen)
        spoken = ", ".join(f"{name} v{major}.{minor}" for name, (major, minor) in versions.items())
        version = next((found for found in central if found), "")
        return Platform(
            product="Nutanix Prism Central",
            version=f"{version} ({spoken})".strip(),
            takes=frozenset(takes),
            warnings=tuple(warnings),
        )

    def _missing_rights(self, deadline: float) -> list[str]:
        found = []
        for namespace, path, what, right in RIGHTS:
            query = {"$page": "0", "$limit": "1"}
            try:
                self._client.get(namespace, path, deadline, query=query, doing=f"listing {what}")
            except Unsupported:
                found.append(f"The account may not list {what}: its role needs {right!r}.")
        return found

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        self._client.patience_s = max(0.0, deadline - time.monotonic())
        # It stops a little before whoever waits for it does: a partial listing is better than none.
        stop_at = deadline - min(1.0, max(0.0, deadline - time.monotonic()) / 5)
        reading = Reading(self._client, self._settings, stop_at)
        try:
            found = None
            if since is not None and self._shown is not None and since == self._cursor():
                found = reading.changed(self._shown)
            if found is None:
                found = reading.complete()
        except OutOfTime as late:
            raise self._late("reading the inventory", late) from None
        inventory, shown = found
        if inventory.partial:  # what it did not read would never be read by increments
            self._shown = None
            return inventory
        self._shown = shown
        self._readings += 1
        return replace(inventory, cursor=self._cursor())

    def mirrors(self, deadline: float) -> MirrorListing:
        """Pages of recovery points are as many as there are hundreds of them."""
        self._settings.require_complete()
        self._client.patience_s = max(0.0, deadline - time.monotonic())
        # It stops a little before whoever waits for it does, as a reading does.
        stop_at = deadline - min(1.0, max(0.0, deadline - time.monotonic()) / 5)
        try:
            return mirrors.read(Reading(self._client, self._settings, stop_at), datetime.now(UTC))
        except OutOfTime as late:
            raise self._late("reading what is replicated", late) from None

    def _cursor(self) -> Cursor:
        return Cursor(f"{self._name}/{self._readings}")

    def _late(self, doing: str, late: OutOfTime) -> ConnectorError:
        """Whoever finds no turn has not lost the endpoint."""
        where = f"Prism Central {self._settings.endpoint}"
        if isinstance(late, NoTurn):
            words = f"{where} takes no more calls for now, while {doing}. It will be tried again."
            return Busy(words, retry_after_s=late.wait_s)
        return Unreachable(f"{where} did not answer in time while {doing}. Check the network.")

    # --- replication --------------------------------------------------------------------------------------------------

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        trail = self._trails.setdefault(wish.machine.id, Trail())
        point: Point = self._errand(
            wish.key,
            deadline,
            "taking a point",
            lambda errand: disks.take(errand, wish, trail, self._working(wish.key)),
        )
        return point

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        """There are no bookmarks: Prism gives whole disks only."""
        trail = self._trails.get(machine.id)
        self._errand(
            str(uuid4()), deadline, "releasing a point", lambda errand: disks.release(errand, machine.id, trail)
        )
        self._trails.pop(machine.id, None)

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        trail = self._trails.setdefault(wish.key, Trail())
        found: Landing = self._errand(
            wish.key,
            deadline,
            "making room for a machine",
            lambda errand: landing.land(errand, wish, trail, self._working(wish.key), self._store),
        )
        return found

    def clear(self, key: str, deadline: float) -> None:
        trail = self._trails.get(key)
        self._errand(
            key, deadline, "clearing what was landed", lambda errand: landing.clear(errand, trail, self._store)
        )
        self._trails.pop(key, None)

    def _errand(self, key: str, deadline: float, doing: str, call: Callable[[Errand], T]) -> T:
        self._client.patience_s = max(0.0, deadline - time.monotonic())
        errand: Errand = Work(Order(key=key), self._settings, self._surroundings, self._client, self._tasks, deadline)
        try:
            return call(errand)
        except OutOfTime as late:
            raise self._late(doing, late) from None

    def _working(self, key: str) -> Working:
        """Errands with connections of their own, for what is done while bytes flow."""

        def begin(deadline: float, step: str) -> Errand:
            client = Client(self._settings, self._surroundings.workdir)
            client.patience_s = max(0.0, deadline - time.monotonic())
            errand: Errand = Work(Order(key=key), self._settings, self._surroundings, client, Tasks(client), deadline)
            errand.begin(step)
            return errand

        return begin

    def _store(self) -> ObjectStore:
        client = Client(self._settings, self._surroundings.workdir)
        client.patience_s = PATIENCE_S
        return ObjectStore(client, self._settings)

    # --- orders -------------------------------------------------------------------------------------------------------

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        return self._go([Receipt(order) for order in orders], deadline)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        return self._go(receipts, deadline)

    def close(self) -> None:
        self._client.close()

    def _go(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """One order after the other, each as far as it goes without waiting."""
        until = min(deadline, time.monotonic() + 2.0)
        self._tasks.watch(receipt.data.get("task") for receipt in receipts)
        for receipt in receipts:
            # A batch shares its patience with the rate limits: what finds no turn comes again at the next poll.
            self._client.patience_s = max(0.0, until - time.monotonic())
            yield self._advance(receipt, deadline)

    def _advance(self, receipt: Receipt, deadline: float) -> Outcome:
        """Raises if the endpoint was lost; everything else is told as an outcome."""
        order = receipt.order
        work: Work[Any] = Work(
            order, self._settings, self._surroundings, self._client, self._tasks, deadline, dict(receipt.data)
        )
        try:
            procedure = PROCEDURES.get(type(order))
            if procedure is None:
                raise Unsupported(f"Prism Central knows no order {type(order).__name__}.")
            work.begin("Starting")
            return procedure(work)
        except StillGoing as going:
            return work.running(going.after_s, going.percent)
        except OutOfTime as late:
            return work.running(max(0.2, late.wait_s))
        except Busy as busy:
            if not work.has_begun:
                return Outcome(key=order.key, stage=Stage.FAILED, step=work.step, error=busy)
            return work.running(busy.retry_after_s or 2.0)  # it goes on from where it is
        except ConnectorError as error:
            if error.loses_endpoint:
                raise
            return Outcome(key=order.key, stage=Stage.FAILED, step=work.step, error=error)
