"""vCenter and stand-alone ESXi: the contract of `connectors.base`, kept.

Every order is a procedure that looks at the platform and takes the step not yet taken; what takes time is a task of
vSphere, whose id stands in the receipt. So nothing here waits, and any process can go on with any order. Procedures run
side by side in a few threads: vSphere answers a call in tens of milliseconds, and a batch has many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    ShareResources,
    Stage,
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import Busy, ConnectorError, Unreachable, Unsupported
from connectors.esxi import disks, faults, landing, machines, mapping, power, rights, screens, snapshots, soap
from connectors.esxi.client import Client
from connectors.esxi.errands import Errand
from connectors.esxi.faults import VimFault
from connectors.esxi.inventory import Watch
from connectors.esxi.settings import EsxiSettings
from connectors.esxi.work import OutOfTime, Shared, Waiting, Work
from connectors.replication import Bookmark, Landing, LandingWish, Point, PointWish

T = TypeVar("T")

PROCEDURES: Mapping[type[Order], Callable[[Any], Outcome]] = {
    CloneMachine: machines.clone,
    RecycleMachine: machines.recycle,
    DeleteMachine: machines.delete,
    Reconfigure: machines.reconfigure,
    ShareResources: machines.share_resources,
    SetPower: power.set_power,
    TakeSnapshot: snapshots.take,
    RevertSnapshot: snapshots.revert,
    DeleteSnapshot: snapshots.delete,
    OpenScreen: screens.open_screen,
}

AT_ONCE = 6
"""Procedures under way at the same time; vCenter holds some 100 sessions' calls, and others want some too."""
BUSY_S = 3.0


class EsxiConnector:
    """One vCenter with all its hosts, or one ESXi host."""

    kind: ClassVar[str] = "esxi"
    version: ClassVar[str] = "1"
    label: ClassVar[str] = "VMware vSphere (vCenter, ESXi)"
    takes: ClassVar[frozenset[type[Order]]] = frozenset(PROCEDURES)
    settings: ClassVar[type[Settings]] = EsxiSettings

    def __init__(self, settings: EsxiSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._client = Client(settings)
        self._shared = Shared(self._client, surroundings)
        self._watch = Watch(self._shared)
        self._crew: ThreadPoolExecutor | None = None
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"<EsxiConnector {self._settings.endpoint}>"

    # --- looking ---

    def check(self, deadline: float) -> Platform:
        def look() -> Platform:
            service = self._client.service(deadline)
            return Platform(
                product=service.product, version=service.version, takes=self.takes,
                warnings=tuple(rights.warnings(self._client, deadline)),
            )  # fmt: skip

        return self._told("looking at the endpoint", look)

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        with self._reading:
            return self._told("reading the inventory", lambda: self._watch.read(since, deadline))

    def _told(self, doing: str, call: Callable[[], T]) -> T:
        self._settings.require_complete()
        try:
            return call()
        except VimFault as fault:
            raise faults.ours(fault, doing, self._settings.endpoint) from None

    # --- replication ---

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        workdir = self._shared.surroundings.workdir
        return self._errand("taking a point", wish.key, deadline, lambda errand: disks.take(errand, wish, workdir))

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        """Bookmarks leave nothing on the platform: there is nothing of them to keep."""
        self._errand("releasing a point", "", deadline, lambda errand: disks.release(errand, machine))

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        workdir = self._shared.surroundings.workdir
        return self._errand(
            "preparing the machine",
            wish.key,
            deadline,
            lambda errand: landing.land(errand, wish, self._errand, workdir),
        )

    def clear(self, key: str, deadline: float) -> None:
        self._errand("clearing a landing", key, deadline, landing.clear)

    def _errand(self, doing: str, key: str, deadline: float, call: Callable[[Errand], T]) -> T:
        """Raises what connectors raise, `Busy` among it where the time did not suffice."""
        errand = Errand(Order(key=key), self._shared, deadline)
        try:
            return self._told(doing, lambda: call(errand))
        except OutOfTime:
            raise Busy(f"There was no time left for {doing} at {self._settings.endpoint}. It is tried again.") from None

    # --- orders ---

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        return self._go([Receipt(order) for order in orders], deadline)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        return self._go(receipts, deadline)

    def close(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _go(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Go on with each order and say how far it is. Raises, after all that is known, if the endpoint was lost."""
        self._settings.require_complete()
        tasks = self._tasks(receipts, deadline)
        if self._crew is None:
            self._crew = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vsphere-order")
        going: list[Future[Outcome]] = []
        for receipt in receipts:
            task = tasks.get(str(receipt.data.get("task")))
            work: Work[Any] = Work(receipt.order, self._shared, deadline, dict(receipt.data), task)
            going.append(self._crew.submit(self._advance, work))
        lost: ConnectorError | None = None
        for future in going:
            try:
                yield future.result(timeout=max(0.0, deadline - time.monotonic()) + 1.0)
            except TimeoutError:
                lost = Unreachable(
                    f"Endpoint {self._settings.endpoint} did not answer in time. Check that the host is up."
                )
            except ConnectorError as error:
                lost = error
        if lost is not None:
            raise lost

    def _tasks(self, receipts: Sequence[Receipt], deadline: float) -> dict[str, soap.Seen]:
        """How far the tasks of these orders are, in one call for all."""
        ids = [str(receipt.data["task"]) for receipt in receipts if receipt.data.get("task")]
        if not ids:
            self._client.service(deadline)
            return {}
        return dict(
            self._told("asking after tasks", lambda: self._client.objects("Task", ids, mapping.TASK_PATHS, deadline))
        )

    def _advance(self, work: Work[Any]) -> Outcome:
        """One go at an order, in a thread of the crew. Endpoint losses are raised, all else is told as an outcome."""
        procedure = PROCEDURES.get(type(work.order))
        try:
            if procedure is None:
                raise Unsupported(f"vSphere knows no order {type(work.order).__name__}.")
            return procedure(work)
        except OutOfTime:
            return work.running()
        except Waiting as waiting:
            if waiting.poll_after_s is None:
                return work.running(percent=waiting.percent)
            return work.running(poll_after_s=waiting.poll_after_s, percent=waiting.percent)
        except (VimFault, ConnectorError) as error:
            problem = work.problem(error)
        if problem.loses_endpoint:
            raise problem
        if isinstance(problem, Busy) and work.receipt.get("began"):
            return work.running(poll_after_s=problem.retry_after_s or BUSY_S)
        return Outcome(key=work.order.key, stage=Stage.FAILED, step=work.step, error=problem)
