"""One order on its way: what a step of any order has at hand, and how it says how far it got.

HyperCore wants one change at a time: the next call that comes before a task has ended may be answered with a 500
(vendor's field notes, rule 1). So a step that changes something ends the order's turn (`Started`), the task's tag goes
into the receipt, and whoever wants to change something meanwhile waits (`Waiting`), here or in another process: the
queue is nothing but the receipts that are still RUNNING. What a task is at work on the platform itself tells
(`latestTaskTag`), so that an attempt whose receipt was lost waits for what its forerunner began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from connectors.base import MachineRef, Order, Outcome, Result, Stage, Stamp, Surroundings
from connectors.errors import BY_KIND, Busy, Conflict, ConnectorError, NotFound, PlatformFault, Unreachable, Unsupported
from connectors.hypercore import faults, mapping
from connectors.hypercore.client import OutOfTime, Record, Wire, segment
from connectors.hypercore.faults import Refusal
from connectors.hypercore.mapping import Image, Snapshot, Task, VirtualDisk, Vm
from connectors.hypercore.settings import HyperCoreSettings

O = TypeVar("O", bound=Order)  # noqa: E741
T = TypeVar("T")

TASK_S = 0.3
"""When to ask after a task again."""
WAIT_S = 0.6
"""When one who waits for their turn is to come again, a little later the more are before them."""
LONGEST_WAIT_S = 5.0
SETTLE_S = 90.0
"""How long a machine may take to show what a task has brought about: tasks end before states change."""
PATIENCE = 10
"""How often an order that has begun comes back to a cluster that says it is busy."""
REFUSALS = 8
"""How many sporadic 500 in a row an order takes for HyperCore being busy."""


class Started(Exception):
    """A change was begun: the order goes on once its task has ended."""


class Waiting(Exception):
    """Nothing can be done now."""

    def __init__(self, step: str, poll_after_s: float | None = None) -> None:
        super().__init__(step)
        self.step = step
        self.poll_after_s = TASK_S if poll_after_s is None else poll_after_s


class Turn:
    """Whose change is under way at this cluster, as far as this process knows. A help, not the truth: see above."""

    tag = ""

    def end(self, tag: str) -> None:
        if self.tag == tag:
            self.tag = ""


@dataclass
class View:
    """What the cluster showed during one call of `submit` or `poll`, read when first asked for and again after a
    change."""

    wire: Wire
    deadline: float
    turn: Turn
    waiting: int = 0
    """How many orders of this call wait for their turn."""
    _vms: tuple[Vm, ...] | None = None
    _snapshots: tuple[Snapshot, ...] | None = None
    _images: tuple[Image, ...] | None = None
    _tasks: dict[str, Task | None] = field(default_factory=dict)

    def forget(self) -> None:
        """Something is being changed."""
        self._vms = self._snapshots = self._images = None

    def vms(self) -> tuple[Vm, ...]:
        if self._vms is None:
            self._vms = self._listing("/VirDomain", "reading the machines", mapping.read_vm)
        return self._vms

    def snapshots(self) -> tuple[Snapshot, ...]:
        if self._snapshots is None:
            self._snapshots = self._listing("/VirDomainSnapshot", "reading the snapshots", mapping.read_snapshot)
        return self._snapshots

    def _listing(self, path: str, doing: str, read: Callable[[Record], T]) -> tuple[T, ...]:
        """All of a kind. Nothing is left out in silence: what does not show is taken for gone, and orders act on that.

        A node that knows no such listing at all, or a record that cannot be understood, says nothing of any machine.
        """
        try:
            return tuple(read(record) for record in self.wire.get(path, self.deadline, doing))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise PlatformFault(
                f"{self.wire.name}: {doing} failed, one of the records could not be understood. Nothing was done.",
                platform_words=f"{path}: {type(error).__name__} {error}"[:300],
            ) from None
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            words = f"{self.wire.name}: {doing} failed, there is no such thing. {faults.ADVICE[Unreachable]}"
            raise Unreachable(words, platform_words=refusal.words) from None

    def images(self) -> tuple[Image, ...]:
        if self._images is None:
            self._images = self._listing("/ISO", "reading the ISO images", mapping.read_image)
        return self._images

    def virtual_disks(self) -> tuple[VirtualDisk, ...]:
        return self._listing("/VirtualDisk", "reading the virtual disks", mapping.read_virtual_disk)

    def hosts(self) -> set[str]:
        return {str(record.get("uuid")) for record in self.wire.get("/Node", self.deadline, "reading the nodes")}

    def task(self, tag: str) -> Task | None:
        """None if the cluster does not know it (any more)."""
        if tag not in self._tasks:
            records = self.wire.get(f"/TaskTag/{segment(tag)}", self.deadline, "asking after a task")
            self._tasks[tag] = mapping.read_task(records[0]) if records else None
        return self._tasks[tag]

    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the cluster, in words; nothing if it does not say. Never raises: it only explains."""
        try:
            return mapping.active_conditions(self.wire.get("/Condition", self.deadline, "reading the conditions"))
        except (ConnectorError, Refusal, OutOfTime):
            return ()

    def notice(self, tag: str) -> None:
        """A task that a receipt names: whoever comes now waits for it, if it is under way."""
        task = self.task(tag)
        if task is not None and task.is_under_way:
            self.turn.tag = tag

    def require_turn(self) -> None:
        """Raises `Waiting` while a task is under way."""
        if not self.turn.tag:
            return
        task = self.task(self.turn.tag)
        if task is not None and task.is_under_way:
            self.waiting += 1
            raise Waiting("Waiting for the one before", min(LONGEST_WAIT_S, WAIT_S * self.waiting))
        self.turn.tag = ""


@dataclass
class Work(Generic[O]):
    """An order, the cluster, and the receipt as it grows."""

    order: O
    settings: HyperCoreSettings
    surroundings: Surroundings
    view: View
    receipt: dict[str, Any] = field(default_factory=dict)
    step: str = "Waiting for its turn"

    # --- asking and changing ---

    @property
    def wire(self) -> Wire:
        return self.view.wire

    def begin(self, step: str) -> None:
        """Name the step that comes."""
        self.step = step

    def change(self, step: str, method: str, path: str, body: object = None, *, on: Vm | None = None) -> None:
        """Begin a change, if it is our turn. `on`: the machine that must not be at work on something else.

        Always raises: `Started`, `Waiting`, or what went wrong.
        """
        self.step = step
        self.view.require_turn()
        if on is not None and on.has_task:
            raise Waiting(f"Waiting for another task on {on.name!r}")
        if time.monotonic() >= self.view.deadline:
            raise OutOfTime
        self.view.forget()
        try:
            answer = self.wire.change(method, path, body, self.view.deadline, step.lower())
        except Refusal as refusal:
            if refusal.status == 500 and self._is_sporadic(refusal):
                raise Waiting("Waiting for HyperCore, which is busy", WAIT_S * self.receipt["refused"]) from None
            raise
        self.receipt.pop("refused", None)
        if answer.task:
            self.receipt["task"] = answer.task
            self.view.turn.tag = answer.task
        raise Started

    def _is_sporadic(self, refusal: Refusal) -> bool:
        """Whether this 500 may be the one for calls that come too early: it is taken for one some times in a row."""
        if faults.kind_of(refusal, self.view.conditions()) is not PlatformFault:
            return False
        self.receipt["refused"] = refused = int(self.receipt.get("refused", 0)) + 1
        if refused < REFUSALS:
            return True
        if any(vm.has_task for vm in self.view.vms()):
            raise Busy(
                f"{self.settings.endpoint}: {self.step.lower()} was refused {refused} times while another task is "
                "under way there. It will be tried again.",
                platform_words=refusal.words,
            ) from None
        return False

    def is_patient(self) -> bool:
        """Whether an order that has begun waits once more for a cluster that is busy, rather than being undone."""
        self.receipt["busy"] = int(self.receipt.get("busy", 0)) + 1
        return int(self.receipt["busy"]) <= PATIENCE

    def settle_task(self) -> None:
        """Raises `Waiting` while this order's own task is under way, or what made it fail."""
        tag = str(self.receipt.get("task") or "")
        if not tag:
            return
        task = self.view.task(tag)
        if task is not None and task.is_under_way:
            self.view.turn.tag = tag
            self.receipt["percent"] = task.percent
            raise Waiting(self.step if self.step != "Waiting for its turn" else task.words or "Waiting for the task")
        self.view.turn.end(tag)
        self.receipt.pop("task")
        self.receipt.pop("percent", None)
        if task is not None and task.has_failed:
            raise Refusal(0, task.words)

    def act(self, vm: Vm, action: str, step: str, is_there: Callable[[Vm], bool]) -> None:
        """Bring a state about by a power action; done already is fine. Raises as `change` does while it is not there.

        An action is sent once, then waited for: tasks end before the state changes.
        """
        if is_there(vm):
            self.receipt.pop("sent", None)
            return
        self.step = step
        sent = self.receipt.get("sent")
        if isinstance(sent, list) and sent[:1] == [action]:
            if time.time() < float(sent[1]) + SETTLE_S:
                raise Waiting(f"Waiting for machine {vm.name!r} ({step.lower()})")
            self.receipt.pop("sent")
            raise PlatformFault(
                f"Machine {vm.name!r} still is {vm.state or 'in no state'}, {SETTLE_S:.0f} s after {step.lower()}. "
                "Look at it in HyperCore's own page."
            )
        self.send(vm, action, step)

    def send(self, vm: Vm, action: str, step: str) -> None:
        """Begin a power action. Always raises, as `change` does."""
        body = [{"virDomainUUID": vm.id, "actionType": action, "cause": "INTERNAL"}]
        try:
            self.change(step, "POST", "/VirDomain/action", body, on=vm)
        except Started:
            self.receipt["sent"] = [action, time.time()]
            raise

    # --- machines ---

    @property
    def stamp(self) -> Stamp:
        """What a machine made by this order bears."""
        return Stamp(self.surroundings.installation, self.order.key)

    def find(self, id: str) -> Vm | None:
        return next((vm for vm in self.view.vms() if vm.id == id), None)

    def stamped(self, stamp: Stamp) -> list[Vm]:
        return [vm for vm in self.view.vms() if vm.marks.stamp == stamp]

    def find_ours(self, ref: MachineRef) -> Vm | None:
        """The machine once its stamp has been compared; None if it is gone. Raises `Conflict`."""
        vm = self.find(ref.id)
        if vm is None:
            return None
        if vm.marks.stamp != ref.stamp:
            raise Conflict(
                f"Machine {vm.name!r} bears {_words(vm.marks.stamp)}, not {_words(ref.stamp)}. Nothing was done to it: "
                "somebody else may own it. See the drift page."
            )
        if vm.is_template:
            raise Conflict(f"Machine {vm.name!r} is marked as a template. Nothing was done to it.")
        return vm

    def ours(self, ref: MachineRef) -> Vm:
        """As `find_ours`. Raises `NotFound` if it is gone, `Unsupported` if it is another cluster's replica."""
        vm = self.find_ours(ref)
        if vm is None:
            raise NotFound(f"Machine {ref.id} is not on {self.settings.endpoint} any more.")
        if vm.replica_of:
            raise Unsupported(f"Machine {vm.name!r} was left as it is. {mapping.REPLICA}")
        return vm

    # --- saying how far it is ---

    def running(self, step: str = "", poll_after_s: float | None = None) -> Outcome:
        percent = self.receipt.get("percent")
        return Outcome(
            key=self.order.key,
            stage=Stage.RUNNING,
            step=step or self.step,
            receipt=dict(self.receipt),
            percent=percent if isinstance(percent, int) else None,
            poll_after_s=TASK_S if poll_after_s is None else poll_after_s,
        )

    def done(self, result: Result | None = None) -> Outcome:
        return Outcome(key=self.order.key, stage=Stage.DONE, step=self.step, percent=100, result=result)

    def failed(self, error: ConnectorError) -> Outcome:
        return Outcome(key=self.order.key, stage=Stage.FAILED, step=self.step, error=error)

    def problem(self, error: Refusal | ConnectorError) -> ConnectorError:
        """What went wrong at the step that was taken, in our words."""
        if isinstance(error, ConnectorError):
            return error
        doing = self.step.lower() if self.step != "Waiting for its turn" else "the task"
        conditions = self.view.conditions() if error.status in faults.VAGUE else ()
        return faults.ours(error, doing, self.settings.endpoint, conditions)

    def keep_error(self, error: ConnectorError) -> None:
        """Note why the order failed, since what it made has to be removed first."""
        self.receipt = {
            "error": [error.kind, error.message[:900], error.platform_words[:900]],
            **({"task": self.receipt["task"]} if "task" in self.receipt else {}),
        }

    @property
    def kept_error(self) -> ConnectorError | None:
        kept = self.receipt.get("error")
        if not isinstance(kept, list):
            return None
        return BY_KIND[str(kept[0])](str(kept[1]), platform_words=str(kept[2]))


def number(receipt: Mapping[str, object], name: str) -> float | None:
    """A number from a receipt, None if it holds none."""
    value = receipt.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _words(stamp: Stamp | None) -> str:
    return f"the stamp of installation {stamp.installation}, order {stamp.key}" if stamp else "no stamp"
