"""One order on its way: what its steps have at hand, what the receipt holds, and how a step that is a task goes on.

A step is a task of Prism's. Its request id comes from the order's key, the step's name and a count, so asking again
gives the same task. The receipt holds the task under way and the steps that are done; a step without a task looks first
whether it is done already. So an order goes on in any process, from any receipt, or from none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from connectors.base import MachineRef, Order, Outcome, Result, Stage, Stamp, Surroundings
from connectors.errors import Busy, Conflict, NotFound, PlatformFault
from connectors.nutanix import faults, mapping
from connectors.nutanix.client import Answer, Client, Json, OutOfTime, Precondition, literal, segment
from connectors.nutanix.faults import Refusal
from connectors.nutanix.mapping import Task, Vm
from connectors.nutanix.settings import NutanixSettings
from connectors.nutanix.tasks import Tasks

O = TypeVar("O", bound=Order)  # noqa: E741

VMS = "ahv/config/vms"

ETAG_TRIES = 3
"""How often a step reads again at once when its ETag was refused; then it waits for the next poll."""
FIRST_LOOK_S = 0.25
"""When to look after a task for the first time."""
TASK_TRIES = 10
"""How often a step begins anew after a task that failed of a stale ETag: as the vendor's own provider does."""


class StillGoing(Exception):
    """A task runs, or something has to be waited for: the order goes on at the next poll."""

    def __init__(self, percent: int | None = None, after_s: float | None = None) -> None:
        super().__init__("still going")
        self.percent = percent
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine read just now: with what it takes to change it."""

    vm: Vm
    raw: Json = field(repr=False)
    etag: str


Start = Callable[[Seen, str], Answer]
"""Begins a step: the machine as it is, and the request id."""


def never(seen: Seen) -> bool:
    """Of a step of which a machine does not show whether it was done."""
    return False


@dataclass
class Work(Generic[O]):
    order: O
    settings: NutanixSettings
    surroundings: Surroundings
    client: Client = field(repr=False)
    tasks: Tasks = field(repr=False)
    deadline: float
    receipt: dict[str, object] = field(default_factory=dict)
    step: str = "Waiting for its turn"
    _read: dict[str, Seen] = field(default_factory=dict, repr=False)
    """Machines read since the last change: calls are scarce, and an ETag tells if one has changed meanwhile."""

    # --- saying how far it is -----------------------------------------------------------------------------------------

    def begin(self, step: str) -> None:
        """Name the step that comes. Raises `OutOfTime` if none may be taken any more."""
        self.step = step
        if time.monotonic() >= self.deadline:
            raise OutOfTime

    @property
    def doing(self) -> str:
        """The step as a phrase within a sentence."""
        return self.step[:1].lower() + self.step[1:]

    def running(self, poll_after_s: float | None = None, percent: int | None = None) -> Outcome:
        """Looks grow rarer the longer it takes: calls are scarce."""
        looks = self.number("looks")
        self.receipt["looks"] = looks + 1
        after = poll_after_s if poll_after_s is not None else min(5.0, 0.25 * 1.4**looks)
        return Outcome(
            key=self.order.key, stage=Stage.RUNNING, step=self.step, percent=percent, receipt=dict(self.receipt),
            poll_after_s=after,
        )  # fmt: skip

    def done(self, result: Result | None = None) -> Outcome:
        return Outcome(key=self.order.key, stage=Stage.DONE, step=self.step, percent=100, result=result)

    def text(self, name: str) -> str:
        """From the receipt; empty if it is not there."""
        value = self.receipt.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float:
        """From the receipt; 0 if it is not there."""
        value = self.receipt.get(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    @property
    def has_begun(self) -> bool:
        """Whether anything has been asked of Prism that the receipt tells of."""
        return any(name in self.receipt for name in ("task", "done", "machine", "undo"))

    @property
    def stamp(self) -> Stamp:
        """What a machine made by this order bears."""
        return Stamp(self.surroundings.installation, self.order.key)

    # --- machines -----------------------------------------------------------------------------------------------------

    def read(self, id: str) -> Seen | None:
        """The machine and its ETag, which only reading by id gives (lists have none); None if there is none."""
        if id in self._read:
            return self._read[id]
        try:
            answer = self.client.get("vmm", f"{VMS}/{segment(id)}", self.deadline, doing=self.doing)
        except NotFound:
            return None
        raw = answer.data
        if not isinstance(raw, dict) or not raw.get("extId"):
            return None
        self._read[id] = Seen(mapping.read_vm(raw), raw, answer.etag)
        return self._read[id]

    def ours(self, ref: MachineRef) -> Seen:
        """The machine once its stamp has been compared. Raises `NotFound`, `Conflict`."""
        seen = self.read(ref.id)
        if seen is None:
            raise NotFound(f"Machine {ref.id} is not on {self.settings.endpoint} any more.")
        self.require_same(seen.vm, ref)
        return seen

    def require_same(self, vm: Vm, ref: MachineRef) -> None:
        """Raises `Conflict` if the machine is another one than is meant."""
        if vm.stamp != ref.stamp and not self._is_half_made(vm, ref):
            raise Conflict(
                f"Machine {vm.name!r} bears {_words(vm.stamp)}, not {_words(ref.stamp)}. Nothing was done to it: "
                "somebody else may own it. See the drift page."
            )
        if vm.is_agent_vm:
            raise Conflict(f"Machine {vm.name!r} is a helper of the platform itself. Nothing was done to it.")

    def _is_half_made(self, vm: Vm, ref: MachineRef) -> bool:
        """A fresh clone's name holds a long installation's id shortened."""
        return ref.stamp is not None and vm.name == mapping.fresh_name(ref.stamp)

    def named(self, *names: str) -> list[Vm]:
        """All machines of these names: they are not unique."""
        query = {"$filter": " or ".join(f"name eq {literal(name)}" for name in names)}
        listing = self.client.list("vmm", VMS, self.deadline, query=query, doing=self.doing)
        return [mapping.read_vm(item) for item in listing.items]

    # --- steps --------------------------------------------------------------------------------------------------------

    def has_done(self, step: str) -> bool:
        done = self.receipt.get("done")
        return isinstance(done, list) and step in done

    def note_done(self, step: str) -> None:
        done = self.receipt.get("done")
        self.receipt["done"] = [*(done if isinstance(done, list) else []), step]
        for name in ("task", "step", "looks", "stale"):
            self.receipt.pop(name, None)

    def forget_done(self, step: str) -> None:
        """It has to be done again. (The count of its tries stands in the receipt still.)"""
        done = self.receipt.get("done")
        self.receipt["done"] = [name for name in done if name != step] if isinstance(done, list) else []

    def is_under_way(self, step: str) -> bool:
        return self.text("step") == step and bool(self.text("task"))

    def ensure(
        self,
        step: str,
        words: str,
        look: Callable[[], Seen],
        start: Start,
        *,
        is_done: Callable[[Seen], bool] = never,
        is_shown: bool = True,
    ) -> Task | None:
        """Have a step done. Returns its task, or None if nothing was to do; raises `StillGoing` until it has ended.

        `look` reads the machine and compares its identity: it is called before every start, and again after a refused
        ETag. With `is_done` and `is_shown` the machine has to show in the end that it is done: an old request id may
        have been answered with an old task.
        """
        if self.has_done(step):
            return None
        self.begin(words)
        if self.is_under_way(step):
            task = self.settle(step)
            if not is_shown or is_done is never or is_done(look()):
                self.note_done(step)
                return task
            self.begin_anew(step)
        if self.text("step") != step:
            self.receipt.pop("task", None)  # another step's, which does not matter any more
            self.receipt |= {"step": step, "tries": 0}
        for _ in range(ETAG_TRIES):
            seen = look()
            if is_done(seen):
                self.note_done(step)
                return None
            try:
                answer = start(seen, self.request_id(f"{step}/{seen.vm.id}"))
            except Precondition:
                self._read.clear()
                continue
            self.note_started(answer)
            raise StillGoing(after_s=FIRST_LOOK_S)
        raise self.refused_again(seen.vm.name)

    def note_started(self, answer: Answer) -> None:
        """The step has a task now."""
        self.receipt["task"] = id = mapping.task_id(answer.data)
        self.tasks.watch([id])

    def begin_anew(self, step: str) -> None:
        """The step's task did nothing, or did it to a machine that is gone: another request id. Raises `PlatformFault`
        in the end."""
        tries = int(self.number("tries")) + 1
        if tries > TASK_TRIES:
            raise PlatformFault(
                f"{self.settings.endpoint} says that it has done it, and shows that it has not: {self.doing}."
            )
        self.receipt.pop("task", None)
        self.receipt |= {"step": step, "tries": tries}

    def refused_again(self, what: str) -> Exception:
        """What to raise after an ETag was refused although it had just been read: wait, and give up in the end."""
        refusals = self.number("refusals") + 1
        self.receipt["refusals"] = refusals
        if refusals >= TASK_TRIES:
            return Conflict(f"{what} changes faster than it can be read: {self.doing} was refused again and again.")
        return StillGoing(after_s=1.0)

    def request_id(self, step: str) -> str:
        return mapping.request_id(self.order.key, step, int(self.number("tries")))

    def settle(self, step: str) -> Task:
        """The step's task, once it has succeeded. Raises `StillGoing`, or what it failed of."""
        try:
            task = self.tasks.read(self.text("task"), self.deadline, self.doing)
        except NotFound:  # Prism forgets old tasks: what the machine shows decides
            self.receipt.pop("task", None)
            raise StillGoing(after_s=0.5) from None
        if not task.is_over:
            raise StillGoing(task.percent)
        if task.is_done:
            return task
        self.receipt.pop("task", None)
        tries = int(self.number("tries")) + 1
        fault = self.client.told(Refusal(0, task.words), self.doing)
        is_stale = faults.ETAG_MISMATCH in task.words
        passes = is_stale or isinstance(fault, Busy)
        # The request id of an earlier attempt brings back that attempt's task: it may have failed of what is over now.
        if tries <= TASK_TRIES if passes else tries < self.order.attempt:
            self.begin_anew(step)
            self.receipt |= {"stale": True} if is_stale else {}
            raise StillGoing(after_s=0.5 if is_stale else 2.0)
        raise fault

    def post(self, path: str, seen: Seen, request_id: str, body: Mapping[str, object] | None = None) -> Answer:
        """An action on a machine."""
        where = f"{VMS}/{segment(seen.vm.id)}/$actions/{path}"
        return self.client.act(
            "POST", "vmm", where, self.deadline, request_id=request_id, etag=seen.etag, body=body, doing=self.doing
        )

    def put(self, seen: Seen, request_id: str, changes: Mapping[str, object]) -> Answer:
        """Change the machine itself."""
        where = f"{VMS}/{segment(seen.vm.id)}"
        body = mapping.updated_vm(seen.raw, changes)
        return self.client.act(
            "PUT", "vmm", where, self.deadline, request_id=request_id, etag=seen.etag, body=body, doing=self.doing
        )


def _words(stamp: Stamp | None) -> str:
    return f"the stamp of installation {stamp.installation}, order {stamp.key}" if stamp else "no stamp"
