"""Scale Computing HyperCore: the contract of `connectors.base`, kept.

Every order is a function that looks at the cluster and begins the one change that comes next (see `work`). All calls
are short HTTPS requests in the caller's own thread; nothing is kept between calls that a receipt does not hold too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

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
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import Busy, ConnectorError, PlatformFault, Unreachable, Unsupported
from connectors.hypercore import (
    disks,
    exchange,
    exported,
    faults,
    inventory,
    landing,
    machines,
    mapping,
    mirrors,
    power,
    screens,
    snapshots,
)
from connectors.hypercore.carrying import Carrier
from connectors.hypercore.client import OutOfTime, Wire
from connectors.hypercore.faults import Refusal
from connectors.hypercore.settings import HyperCoreSettings
from connectors.hypercore.share import Share
from connectors.hypercore.work import Started, Turn, View, Waiting, Work
from connectors.replication import Bookmark, Landing, LandingWish, MirrorListing, Point, PointWish

T = TypeVar("T")

PROCEDURES: Mapping[type[Order], Callable[[Any], Outcome]] = {
    CloneMachine: machines.clone,
    RecycleMachine: exchange.recycle,
    DeleteMachine: machines.delete,
    Reconfigure: machines.reconfigure,
    SetPower: power.set_power,
    TakeSnapshot: snapshots.take,
    RevertSnapshot: exchange.revert,
    DeleteSnapshot: snapshots.delete,
    OpenScreen: screens.open_screen,
}
"""What HyperCore takes. It knows no weights, so no `ShareResources`; its nodes always have hardware acceleration."""

UNDO: Mapping[type[Order], Callable[[Any], None]] = {
    CloneMachine: machines.undo_clone,
    RecycleMachine: exchange.undo,
    RevertSnapshot: exchange.undo,
}
"""How orders that failed half-way leave nothing behind."""

RIGHTS: Mapping[str, frozenset[type[Order]]] = {
    "VM Create/Edit": frozenset(
        {CloneMachine, RecycleMachine, Reconfigure, TakeSnapshot, RevertSnapshot, DeleteSnapshot}
    ),
    "VM Power Controls": frozenset({SetPower}),
    "VM Delete": frozenset({DeleteMachine}),
}
"""Role -> the orders that need it."""


BUSY_S = 3.0
"""When to come back to a cluster that said it was busy."""


class HyperCoreConnector:
    """One cluster, reached through any of its nodes."""

    kind: ClassVar[str] = "hypercore"
    version: ClassVar[str] = "1"
    label: ClassVar[str] = "Scale Computing HyperCore (HC3)"
    takes: ClassVar[frozenset[type[Order]]] = frozenset(PROCEDURES)
    settings: ClassVar[type[Settings]] = HyperCoreSettings
    runs_at_once: ClassVar[int] = 4
    """One change at a time is taken: some runs read or write meanwhile, but of a dozen most are only refused."""

    def __init__(self, settings: HyperCoreSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self.surroundings = surroundings
        self._wire = Wire(settings, surroundings.workdir)
        self._turn = Turn()
        self._carrier = Carrier(settings, surroundings, self._wire)
        self._share: Share | None = None

    def __repr__(self) -> str:
        return f"<HyperCoreConnector {self._settings.addresses}>"

    # --- looking ---

    def check(self, deadline: float) -> Platform:
        self._settings.require_complete()
        return self._look(lambda: self._platform(deadline), "looking at the cluster")

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        """Always a complete listing: HyperCore tells no changes."""
        self._settings.require_complete()
        return self._look(lambda: inventory.read(self._wire, self._settings, deadline), "reading the inventory")

    def mirrors(self, deadline: float) -> MirrorListing:
        self._settings.require_complete()
        return self._look(lambda: mirrors.read(self._wire, self._settings, deadline), "reading what is replicated")

    def _platform(self, deadline: float) -> Platform:
        cluster = mapping.read_cluster(self._wire.get("/Cluster", deadline, "reading the cluster"))
        warnings = [*self._node_warnings(deadline), *self._update_warnings(deadline)]
        roles = inventory.roles_of(self._wire, self._settings, deadline)
        takes = set(self.takes)
        if roles is None:
            warnings.append("The account's roles could not be read, so nobody knows what it may not do.")
        elif inventory.ALL_RIGHTS not in roles:
            if "Read" not in roles:
                warnings.append("The account has not the role Read: it may see no machines.")
            for role, loss in inventory.NEEDED.items():
                if role not in roles:
                    warnings.append(f"The account has not the role {role}: {loss}.")
                    takes -= RIGHTS[role]
        with suppress(Refusal):
            conditions = self._wire.get("/Condition", deadline, "reading the conditions")
            warnings += [
                f"The cluster says: {condition}."
                for condition in mapping.active_conditions(conditions)
                if faults.ROOM.search(condition)
            ]
        if self._settings.place is not None:
            try:
                self._exports().folders(disks.PREFIX)
            except ConnectorError as error:
                warnings.append(error.message)
        return Platform(
            product="HyperCore", version=cluster.version or "unknown", takes=frozenset(takes), warnings=tuple(warnings)
        )

    def _node_warnings(self, deadline: float) -> list[str]:
        """Each node has its own version while the cluster is being updated, and only a call tells whether it
        answers."""
        nodes = self._wire.get("/Node", deadline, "reading the nodes")
        known = [str(node.get("lanIP") or "") for node in nodes if node.get("lanIP")]
        self._wire.learn_nodes(known)
        warnings, versions = [], set()
        for place, node in enumerate(self._settings.nodes):
            until = time.monotonic() + (deadline - time.monotonic()) / (len(self._settings.nodes) - place + 1)
            try:
                found = mapping.read_cluster(self._wire.ask_node(node, "/Cluster", until, "reading the cluster"))
                versions.add(found.version)
            except (Unreachable, OutOfTime) as error:
                why = f": {error.message}" if isinstance(error, ConnectorError) else " in time."
                warnings.append(f"Node {node} does not answer{why}")
        if len(versions) > 1:
            warnings.append(f"The nodes run different versions ({', '.join(sorted(versions))}): an update is on.")
        if missing := [node for node in known if node not in self._settings.nodes]:
            warnings.append(
                f"The cluster has more nodes than the settings name: add {', '.join(missing)}, so that Deskyard can go "
                "on without the others."
            )
        return warnings

    def _update_warnings(self, deadline: float) -> list[str]:
        try:
            is_updating = mapping.is_updating(self._wire.update_status(deadline))
        except (Refusal, Unreachable):
            return []
        return ["The cluster is being updated: nodes stop answering for minutes meanwhile."] if is_updating else []

    def _look(self, call: Callable[[], T], doing: str) -> T:
        try:
            return call()
        except OutOfTime:
            raise Unreachable(f"{self._settings.endpoint} did not answer in time while {doing}.") from None
        except Refusal as refusal:
            raise faults.ours(refusal, doing, self._settings.endpoint) from None

    # --- orders ---

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        return self._go([Receipt(order) for order in orders], deadline)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        return self._go(receipts, deadline)

    # --- replication ---

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        self._settings.require_complete()
        exported.load_images()
        return disks.take(self._carrier, self._exports(), wish, deadline)

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        """There are no bookmarks to keep."""
        self._settings.require_complete()
        share = self._exports() if self._settings.place is not None else None
        disks.release(self._carrier, share, machine, deadline)

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        self._settings.require_complete()
        exported.load_images()
        return landing.land(self._carrier, wish, deadline)

    def clear(self, key: str, deadline: float) -> None:
        self._settings.require_complete()
        landing.clear(self._carrier, key, deadline)

    def _exports(self) -> Share:
        """Raises `Unsupported` if none is set."""
        self._share = self._share or Share(self._settings)
        return self._share

    def close(self) -> None:
        self._wire.close()
        if self._share is not None:
            self._share.close()

    def _go(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Go on with each order and say how far it is. Raises once the endpoint is lost."""
        self._settings.require_complete()
        view = View(self._wire, deadline, self._turn)
        with suppress(OutOfTime, Refusal):
            for receipt in receipts:
                if tag := str(receipt.data.get("task") or ""):
                    view.notice(tag)
        for receipt in receipts:
            yield self._advance(
                Work(
                    order=receipt.order,
                    settings=self._settings,
                    surroundings=self.surroundings,
                    view=view,
                    receipt=dict(receipt.data),
                )
            )

    def _advance(self, work: Work[Any]) -> Outcome:
        """One go at an order. Endpoint losses are raised, all else is told as an outcome."""
        try:
            if work.kept_error is not None:
                return self._undo(work)
            return self._proceed(work)
        except OutOfTime:
            return work.running(poll_after_s=0.5)

    def _proceed(self, work: Work[Any]) -> Outcome:
        procedure = PROCEDURES.get(type(work.order))
        if procedure is None:
            return work.failed(Unsupported(f"HyperCore knows no order {type(work.order).__name__}."))
        try:
            work.settle_task()
            return procedure(work)
        except Started:
            return work.running()
        except Waiting as waiting:
            return work.running(waiting.step, waiting.poll_after_s)
        except (Refusal, ConnectorError) as error:
            problem = work.problem(error)
            if problem.loses_endpoint:
                raise problem from None
            if type(work.order) not in UNDO or isinstance(error, machines.Ambiguous):
                return work.failed(problem)
            if isinstance(problem, Busy) and work.is_patient():
                return work.running(f"Waiting: {problem.message}", problem.retry_after_s or BUSY_S)
            work.keep_error(problem)
            return self._undo(work)

    def _undo(self, work: Work[Any]) -> Outcome:
        """Remove what a failed order made, as far as it goes, then tell why it failed."""
        error = work.kept_error or PlatformFault("The order failed.")
        try:
            with suppress(Refusal):  # a task that failed is over
                work.settle_task()
            UNDO[type(work.order)](work)
        except Started:
            return work.running()
        except Waiting as waiting:
            return work.running(waiting.step, waiting.poll_after_s)
        except (Refusal, ConnectorError) as second:
            problem = work.problem(second)
            if problem.loses_endpoint:
                raise problem from None
            error = type(error)(
                error.message, platform_words=f"{error.platform_words}; then, removing what was made: {problem.message}"
            )
        return work.failed(error)
