"""One order on its way: what a step of any order has at hand, and how it says how far it got.

Orders are procedures that look at the platform and take the next step. A step that takes time is a task of vSphere:
its id goes into the receipt, `Waiting` leaves the procedure, and the next poll enters it again from the top.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from connectors.base import MachineRef, Order, Outcome, Power, Result, Stage, Stamp, Surroundings
from connectors.errors import Conflict, ConnectorError, NotFound
from connectors.esxi import faults, mapping, names, soap
from connectors.esxi.api import vim
from connectors.esxi.client import Client, Service
from connectors.esxi.faults import VimFault

O = TypeVar("O", bound=Order)  # noqa: E741
K = TypeVar("K")

VM = "VirtualMachine"
IDENTITY_PATHS = (
    "name", "config.instanceUuid", "config.template", "runtime.powerState", "runtime.host", "parent",
    "config.files.vmPathName",
)  # fmt: skip
POLL_S = 0.2
PACES = ((2.0, POLL_S), (10.0, 0.5), (60.0, 1.0))
"""A task that is younger than so many seconds is asked after again so soon. One call asks after all."""
SLOW_POLL_S = 2.0


ROOM_S = 2.0
"""What a step is left of a call's time at least: one begun in the last moment would be taken for a lost endpoint."""


class OutOfTime(Exception):
    """The deadline has come between two steps: the order goes on at the next poll."""


class Waiting(Exception):
    """A task of vSphere is on its way."""

    def __init__(self, percent: int | None = None, poll_after_s: float | None = None) -> None:
        super().__init__()
        self.percent = percent
        self.poll_after_s = poll_after_s


class Together(Generic[K]):
    """Something about all machines, read once for all orders that need to know it at the same time.

    Of twenty orders whose answers were lost each would read all machines of the endpoint to find its own; an endpoint
    of thousands would be busy with nothing else, and lost again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = float("-inf")
        self._found: dict[K, str] = {}

    def find(self, what: K, since: float, work: Work[Any], read: Callable[[], dict[K, str]]) -> str | None:
        """By a reading that began after `since`: another order's, or `read`. Raises `OutOfTime`."""
        if not self._lock.acquire(timeout=max(0.0, work.deadline - time.monotonic())):
            raise OutOfTime
        try:
            if self._began <= since:
                work.begin(work.step)
                began = time.monotonic()
                self._found = read()
                self._began = began
            return self._found.get(what)
        finally:
            self._lock.release()


@dataclass(slots=True)
class Shared:
    """What the orders of one connector object know of each other."""

    client: Client
    surroundings: Surroundings
    knows_keyed_paths: bool = True
    """Whether this server finds elements of extraConfig by their key. Found out, not believed."""
    restarts: dict[str, str] = field(default_factory=dict)
    """Key of a restart -> how far *this* object got: "noted" or "acted"."""
    basing: dict[str, float] = field(default_factory=dict)
    """Template -> when one of our orders began to take its snapshot: the others wait for that one."""
    stamped: Together[Stamp] = field(default_factory=Together)
    """Stamp -> the machine that bears it."""
    users: Together[str] = field(default_factory=Together)
    """Folder -> name of a machine that has files there."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stamp_paths(self) -> tuple[str, ...]:
        return mapping.STAMP_PATHS if self.knows_keyed_paths else (mapping.WHOLE_CONFIG,)

    def learns_from(self, told: VimFault | soap.Seen) -> bool:
        """Whether this answer has just shown that the server does not: the whole extraConfig is read from now on."""
        if not self.knows_keyed_paths:
            return False
        if isinstance(told, VimFault):
            self.knows_keyed_paths = not told.is_a("InvalidProperty")
        else:
            self.knows_keyed_paths = told.missing.get(mapping.STAMP_PATHS[0]) != "InvalidProperty"
        return not self.knows_keyed_paths


@dataclass
class Work(Generic[O]):
    """An order and its receipt as it grows. Steps call `begin` before each thing they ask of vSphere."""

    order: O
    shared: Shared
    deadline: float
    receipt: dict[str, object] = field(default_factory=dict)
    task_seen: soap.Seen | None = None
    """The order's task as the poll has read it, together with all others."""
    step: str = "Waiting for its turn"
    has_forgotten_task: bool = False
    """Whether the task that was asked after is not known any more: vSphere forgets them after some minutes."""
    asked_at: float = field(default_factory=time.monotonic)

    # --- steps ---

    def begin(self, step: str) -> None:
        """Name the step that comes. Raises `OutOfTime` if none may be taken any more."""
        self.step = step
        if time.monotonic() >= self.deadline - min(ROOM_S, (self.deadline - self.asked_at) / 4):
            raise OutOfTime

    def start(self, step: str, call: Callable[[], Any], **notes: object) -> Waiting:
        """Have vSphere begin a task: to be raised, as there is nothing to do until it has ended.

        The notes go into the receipt with the task's id, so they are there only if it was begun.
        Raises `VimFault` if it is refused, `OutOfTime`.
        """
        self.begin(step)
        task = call()
        self.receipt |= {"task": task._moId, "step": step, "since": time.time(), "began": True, **notes}
        self.task_seen = None
        return Waiting()

    def settle(self) -> VimFault | None:
        """What became of the task in the receipt: None if it did what it should, or if there is none (any more).

        Raises `Waiting` while it goes on. A task that vSphere has forgotten is no fault: the platform shows what it
        did.
        """
        task = self.receipt.get("task")
        if not task:
            return None
        self.begin(str(self.receipt.get("step") or "Going on"))
        seen = self.task_seen
        if seen is None:
            seen = self.client.object_seen("Task", str(task), mapping.TASK_PATHS, self.deadline)
        state = seen.text("info.state") if seen else ""
        if seen is not None and state in ("running", "queued"):
            progress = seen.text("info.progress")
            age = time.time() - (number(self.receipt, "since") or 0.0)
            raise Waiting(
                percent=min(99, int(progress)) if progress.isdigit() else None,
                poll_after_s=next((pace for younger_s, pace in PACES if age < younger_s), SLOW_POLL_S),
            )
        del self.receipt["task"]
        self.task_seen = None
        self.has_forgotten_task = seen is None
        if seen is not None and state == "error":
            error = seen.values.get("info.error")
            return faults.of_task(error) if error is not None else VimFault("MethodFault")
        return None

    def running(self, poll_after_s: float = POLL_S, percent: int | None = None) -> Outcome:
        return Outcome(
            key=self.order.key, stage=Stage.RUNNING, step=self.step, percent=percent,
            receipt=dict(self.receipt), poll_after_s=poll_after_s,
        )  # fmt: skip

    def done(self, result: Result | None = None) -> Outcome:
        return Outcome(key=self.order.key, stage=Stage.DONE, step=self.step, percent=100, result=result)

    def problem(self, error: VimFault | ConnectorError) -> ConnectorError:
        """What went wrong at the step that was taken, in our words."""
        if isinstance(error, ConnectorError):
            return error
        return faults.ours(error, self.step[:1].lower() + self.step[1:], self.client.settings.endpoint)

    # --- the platform ---

    @property
    def client(self) -> Client:
        return self.shared.client

    @property
    def service(self) -> Service:
        return self.client.service(self.deadline)

    @property
    def endpoint(self) -> str:
        return self.client.settings.endpoint

    @property
    def stamp(self) -> Stamp:
        """What a machine made by this order bears."""
        return Stamp(self.shared.surroundings.installation, self.order.key)

    def object(self, kind: Any, id: str) -> Any:
        return self.client.object(kind, id, self.deadline)

    def manager(self, kind: Any, name: str) -> Any:
        """One of the endpoint's managers, by its name in ServiceContent."""
        return self.object(kind, self.service.id(name))

    # --- machines ---

    def look(self, moid: str, more: Iterable[str] = ()) -> Vm | None:
        """A machine by vSphere's own id; None if it is gone."""
        paths = (*IDENTITY_PATHS, *more, *self._config_paths())
        try:
            seen = self.client.object_seen(VM, moid, paths, self.deadline)
        except VimFault as fault:
            if self.shared.learns_from(fault):
                return self.look(moid, more)
            raise
        if seen is not None and self.shared.learns_from(seen):
            return self.look(moid, more)
        return Vm(seen) if seen is not None else None

    def _config_paths(self) -> tuple[str, ...]:
        if not self.shared.knows_keyed_paths:
            return (mapping.WHOLE_CONFIG,)
        return tuple(mapping.OUR_PATHS)

    def find(self, uuid: str, more: Iterable[str] = ()) -> Vm | None:
        """The machine of that instance uuid, or None."""
        if not names.is_uuid(uuid):
            return None
        index = self.manager(vim.SearchIndex, "searchIndex")
        found = index.FindByUuid(uuid=uuid, vmSearch=True, instanceUuid=True)
        return self.look(found._moId, more) if found is not None else None

    def find_stamped(self, stamp: Stamp) -> Vm | None:
        """The machine that bears this stamp, whatever its uuid is: vCenter changes uuids that it thinks are double."""
        moid = self.shared.stamped.find(stamp, self.asked_at, self, self._read_stamped)
        return self.look(moid) if moid is not None else None

    def _read_stamped(self) -> dict[Stamp, str]:
        for is_last in (False, True):
            self.client.service(self.deadline)
            generation = self.client.generation
            try:
                return self._read_stamps()
            except VimFault as fault:
                # A view ends with its session; and a server may not know the properties by which stamps are read.
                has_ended = generation != self.client.generation
                if not (self.shared.learns_from(fault) or (has_ended and not is_last)):
                    raise
        return self._read_stamps()

    def _read_stamps(self) -> dict[Stamp, str]:
        found: dict[Stamp, str] = {}
        view = self.manager(vim.view.ViewManager, "viewManager").CreateContainerView(
            container=vim.Folder(self.service.id("rootFolder")), type=[vim.VirtualMachine], recursive=True
        )
        try:
            for page in self.client.read([(VM, self.shared.stamp_paths)], self.deadline, view=view._moId):
                for seen in page:
                    if self.shared.learns_from(seen):
                        return self._read_stamps()
                    if stamp := mapping.stamp(seen):
                        found[stamp] = seen.id
            return found
        finally:
            with suppress(VimFault):
                self.object(vim.view.ContainerView, view._moId).DestroyView()

    def find_ours(self, ref: MachineRef, more: Iterable[str] = ()) -> Vm | None:
        """The machine once its stamp has been compared; None if it is gone. Raises `Conflict`."""
        vm = self.find_meant(ref, more)
        if vm is not None and vm.is_template:
            raise Conflict(f"Machine {vm.name!r} is a template. Nothing was done to it.")
        return vm

    def find_meant(self, ref: MachineRef, more: Iterable[str] = ()) -> Vm | None:
        """As `find_ours`, but it may be a template."""
        vm = self.find(ref.id, more)
        if vm is not None and vm.stamp != ref.stamp:
            raise Conflict(
                f"Machine {vm.name!r} bears {_words(vm.stamp)}, not {_words(ref.stamp)}. Nothing was done to it: "
                "somebody else may own it. See the drift page."
            )
        return vm

    def ours(self, ref: MachineRef, more: Iterable[str] = ()) -> Vm:
        """As `find_ours`. Raises `NotFound` if it is gone."""
        found = self.find_ours(ref, more)
        if found is None:
            raise NotFound(f"Machine {ref.id} is not on {self.endpoint} any more.")
        return found

    def vm(self, vm: Vm) -> Any:
        """The machine to be told something."""
        return self.object(vim.VirtualMachine, vm.moid)


@dataclass(frozen=True, slots=True)
class Vm:
    """A machine as it was just read."""

    seen: soap.Seen

    @property
    def moid(self) -> str:
        return self.seen.id

    @property
    def uuid(self) -> str:
        return self.seen.text("config.instanceUuid")

    @property
    def name(self) -> str:
        return names.from_wire(self.seen.text("name"))

    @property
    def power(self) -> Power:
        return mapping.power(self.seen)

    @property
    def stamp(self) -> Stamp | None:
        return mapping.stamp(self.seen)

    @property
    def is_template(self) -> bool:
        return mapping.is_template(self.seen)

    @property
    def host(self) -> str:
        return self.seen.text("runtime.host")

    @property
    def devices(self) -> mapping.Devices:
        return mapping.devices(self.seen.values.get("config.hardware.device"))

    @property
    def snapshot(self) -> soap.Element | None:
        return self.seen.values.get("snapshot")

    def mark(self, key: str) -> str:
        return mapping.our_config(self.seen).get(key, "")


def _words(stamp: Stamp | None) -> str:
    return f"the stamp of installation {stamp.installation}, order {stamp.key}" if stamp else "no stamp"


def number(receipt: Mapping[str, object], name: str) -> float | None:
    """A number from a receipt, None if it holds none."""
    value = receipt.get(name)
    return float(value) if isinstance(value, (int, float)) else None
