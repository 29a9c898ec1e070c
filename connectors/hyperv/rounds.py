"""One PowerShell start a host and round, whatever the number of orders: who is asked what, and what came back.

Pure bookkeeping: `Going` knows how far one order is and whom to ask next, `Desk` runs one script at a time on its host
in a thread of its own. With one host every order is one question. A cluster's orders may first have to be found a node:
Get-VM lists only the machines of the node that is asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.base import (
    CloneMachine,
    DeleteMachine,
    OpenScreen,
    Order,
    Outcome,
    PowerAction,
    PowerSet,
    Receipt,
    RecycleMachine,
    Result,
    ScreenOpened,
    SetPower,
    SnapshotTaken,
    Stage,
    TakeSnapshot,
)
from connectors.errors import Conflict, ConnectorError, CredentialsRejected, HostDown, NotFound
from connectors.hyperv import faults, mapping
from connectors.hyperv.client import Line
from connectors.hyperv.settings import HypervSettings

Request = dict[str, object]
Answer = Mapping[str, Any]

STEPS = {
    "copying": ("Copying the disks", 3.0),
    "shutdown": ("Waiting for the guest to shut down", 1.0),
    "merging": ("Merging the checkpoint's disks", 3.0),
    "snapshot": ("Waiting for an earlier checkpoint", 2.0),
    "revert": ("Waiting for an earlier checkpoint", 2.0),
    "files": ("Removing the disks", 2.0),
    "another": ("Waiting for an earlier attempt", 1.0),
}
"""What a script calls a step -> words for people, and when it is worth asking again."""
SOON_S = 0.5
LARGEST_MASTER = 2_500
"""Characters that a template's facts may take of a receipt."""


@dataclass(eq=False)
class Desk:
    """One host: its line, and the one script that is under way there."""

    line: Line
    name: str = ""
    """The host's own name, which is its id in inventories; known once it has answered."""
    run: Run | None = None

    @property
    def address(self) -> str:
        return self.line.address

    def is_called(self, host: str) -> bool:
        """Whether an order that names this host means it."""
        known = (self.name, self.address, self.address.partition(".")[0])
        return host.lower() in {name.lower() for name in known if name}


class Run:
    """One start of the orders script on one host. `ended` is set once `answers` or `error` stands."""

    def __init__(self, desk: Desk, requests: Mapping[str, Request], parameters: Mapping[str, object]) -> None:
        self.desk = desk
        self.requests = requests
        self.host = ""
        self.answers: dict[str, Answer] = {}
        self.error: ConnectorError | None = None
        self.has_ended = False
        self._parameters = {**parameters, "orders": list(requests.values())}

    def start(self, deadline: float, changed: threading.Condition) -> None:
        def work() -> None:
            try:
                told = self.desk.line.run("orders", self._parameters, deadline)
                self.host = str(told["host"])
                self.answers = {str(one["key"]): one for one in told["answers"]}
            except ConnectorError as error:
                self.error = error
            finally:
                with changed:
                    self.has_ended = True
                    changed.notify_all()

        threading.Thread(target=work, name=f"winrm {self.desk.address}", daemon=True).start()


class Masters:
    """What nodes told of their templates, kept for a while: other nodes cannot see them, and asking costs a start.

    Not for long, since a template that is switched on meanwhile must not be cloned.
    """

    FRESH_S = 30.0

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, object]] = {}

    def keep(self, template: str, facts: object) -> None:
        self._told[template] = (time.monotonic(), facts)

    def fresh(self, template: str) -> object:
        """None if nobody has told it lately."""
        at, facts = self._told.get(template, (0.0, None))
        return facts if time.monotonic() < at + self.FRESH_S else None


@dataclass(eq=False)
class Going:
    """One order on its way."""

    order: Order
    settings: HypervSettings
    masters: Masters
    data: dict[str, object]
    """The receipt."""
    plain: Request | None = None
    """What the script is told in any case; made once, for a seed takes a moment."""
    hint: str = ""
    """The host that showed its machine last."""
    asking: set[str] = field(default_factory=set)
    """Addresses whose answer is awaited."""
    absent: set[str] = field(default_factory=set)
    """Addresses that have said: not here."""
    silent: dict[str, ConnectorError] = field(default_factory=dict)
    """Addresses that did not answer."""
    master: object = None
    """What was told of the template when the order was last sent."""
    is_looking: str = ""
    """What all nodes are asked first: "find" (has an earlier attempt made it?), "describe" (the template)."""
    outcome: Outcome | None = None
    """What there is to tell."""
    is_told: bool = False
    lost: ConnectorError | None = None
    step: str = "Waiting for its turn"

    @property
    def key(self) -> str:
        return self.order.key

    def begin(self, desks: Sequence[Desk]) -> None:
        """A call begins. Raises `Unsupported` for what cannot even be asked.

        What came back meanwhile and was not told yet stays: asking again would restart a guest twice.
        """
        if self.asking or ((self.outcome is not None or self.lost is not None) and not self.is_told):
            return
        self.outcome = self.lost = None
        self.is_told = False
        self.silent.clear()
        self.absent.clear()
        self.request()
        is_open = "host" not in self.data and len(desks) > 1 and isinstance(self.order, CloneMachine)
        if is_open and (self.order.attempt > 1 or not all(desk.name for desk in desks)):
            self.is_looking = "find"

    # --- whom to ask what ---

    def request(self) -> Request:
        if self.plain is None:
            self.plain = mapping.request_of(self.order, self.settings)
        request = dict(self.plain)
        if isinstance(self.order, CloneMachine | RecycleMachine):
            self.master = request["master"] = self.data.get("master") or self.masters.fresh(self.order.template)
        if isinstance(self.order, SetPower) and self.order.action is PowerAction.SHUTDOWN:
            now = time.time()
            cut_at = self.data.setdefault("cut_at", now + self.order.grace_s)
            request["cut"] = isinstance(cut_at, int | float) and now >= cut_at
            request["ask"] = "asked_at" not in self.data
        return request

    def wanted(self, desks: Sequence[Desk]) -> dict[str, Request]:
        """Address -> request, for all that should be asked now and have not been."""
        if self.outcome is not None or self.lost is not None or self.asking:
            return {}
        targets = self._targets(desks)
        if self.is_looking:
            template = getattr(self.order, "template", "")
            return {one: {"key": self.key, "op": self.is_looking, "template": template.lower()} for one in targets}
        return {one: self.request() for one in targets}

    def _targets(self, desks: Sequence[Desk]) -> list[str]:
        rest = [desk.address for desk in desks if desk.address not in self.absent and desk.address not in self.silent]
        if len(desks) == 1 or self.is_looking:
            return rest
        pinned = str(self.data.get("host") or self._named(desks) or self.hint)
        if not pinned and isinstance(self.order, CloneMachine):
            self.is_looking = "describe"
            return rest
        return [pinned] if pinned in rest else rest

    def _named(self, desks: Sequence[Desk]) -> str:
        host = self.order.host if isinstance(self.order, CloneMachine) else None
        return next((desk.address for desk in desks if host and desk.is_called(host)), "")

    # --- what came back ---

    def take(self, desk: Desk, desks: Sequence[Desk], answer: Answer | None, error: ConnectorError | None) -> None:
        """One host's answer, or that it gave none."""
        self.asking.discard(desk.address)
        if self.outcome is not None or self.lost is not None:
            if not self.is_told:
                return
            self.outcome = self.lost = None
        self.is_told = False
        if error is not None:
            self._missed(desk, desks, error)
        elif answer is None or answer["state"] == "waiting":
            self._running("Waiting for its turn", SOON_S)
        elif answer["state"] == "failed":
            self._failed(faults.of_answer(answer["fault"], mapping.doing(self.order), desk.name or desk.address))
        elif answer["state"] == "absent":
            self._is_absent(desk, answer)
        elif self.is_looking and answer["state"] == "running":
            # An earlier attempt has its turn there, so this look was none: it is repeated.
            self._goes_on_looking()
        elif self.is_looking:
            self._found(desk, answer)
        elif answer["state"] == "running":
            self._goes_on(desk, answer)
        else:
            self._done(desk, answer)
        if not self.asking and self.outcome is None and self.lost is None:
            self._conclude(desks)

    def _missed(self, desk: Desk, desks: Sequence[Desk], error: ConnectorError) -> None:
        self.silent[desk.address] = error
        if isinstance(error, CredentialsRejected) or (error.loses_endpoint and len(desks) == 1):
            self.lost = error
        elif not error.loses_endpoint:
            self._failed(error)

    def _is_absent(self, desk: Desk, answer: Answer) -> None:
        is_template = answer.get("what") == "template" or isinstance(self.order, CloneMachine)
        if self.is_looking or not is_template or self.master is not None:
            self.absent.add(desk.address)
            return
        # The machine belongs here, its template lies on another node.
        self.data["host"] = desk.address
        self.absent = {desk.address}
        self.is_looking = "describe"

    def _found(self, desk: Desk, answer: Answer) -> None:
        if self.is_looking == "describe":
            self.masters.keep(getattr(self.order, "template", ""), answer["master"])
        if self.is_looking == "find" or "host" not in self.data:
            self.data["host"] = desk.address
        self.is_looking = ""
        self.absent.clear()
        self.asking.clear()  # what the others say matters no more

    def _conclude(self, desks: Sequence[Desk]) -> None:
        """Nobody is being asked any more: is anybody left to ask?"""
        rest = [desk for desk in desks if desk.address not in self.absent and desk.address not in self.silent]
        if rest and self.wanted(desks):
            return
        if self.silent:
            address, error = next(iter(self.silent.items()))
            if len(self.silent) == len(desks):
                self.lost = error
                return
            words = f"Host {address}: {mapping.doing(self.order)} failed, for it does not answer and no other node can."
            self._failed(HostDown(f"{words} It will be tried again.", platform_words=error.message))
        elif self.is_looking == "find":
            self.is_looking = ""
            self.absent.clear()
            if isinstance(self.order, CloneMachine) and self.order.host and not self._named(desks):
                self._failed(NotFound(f"There is no host {self.order.host!a} here. Choose another one."))
        elif isinstance(self.order, DeleteMachine):
            self.outcome = Outcome(key=self.key, stage=Stage.DONE, step=self.step, percent=100)
        else:
            is_template = self.is_looking == "describe" or isinstance(self.order, CloneMachine)
            gone = "Deskyard.NoTemplate" if is_template else "Deskyard.NoMachine"
            where = ", ".join(desk.name or desk.address for desk in desks)
            self._failed(faults.of_answer({"id": gone}, mapping.doing(self.order), where))

    def _goes_on(self, desk: Desk, answer: Answer) -> None:
        step, poll_after_s = STEPS.get(str(answer.get("step")), ("Working", 1.0))
        self.data["host"] = desk.address
        if self.master is not None and len(json.dumps(self.master)) < LARGEST_MASTER:
            self.data["master"] = self.master  # what has begun on this node goes on there without asking the others
        if answer.get("asked"):
            self.data["asked_at"] = time.time()
        cut_at = self.data.get("cut_at")
        if isinstance(cut_at, int | float):
            poll_after_s = max(0.2, min(poll_after_s, cut_at - time.time()))
        percent = answer.get("percent")
        self._running(step, poll_after_s, int(percent) if percent is not None else None)

    def _goes_on_looking(self) -> None:
        self.asking.clear()
        self._running(*STEPS["another"])

    def _done(self, desk: Desk, answer: Answer) -> None:
        if isinstance(self.order, OpenScreen) and not mapping.guest_addresses(answer["addresses"]):
            self._wait_for_address(self.order, desk)
            return
        result = self._result(desk, answer)
        self.outcome = Outcome(key=self.key, stage=Stage.DONE, step=self.step, percent=100, result=result)

    def _result(self, desk: Desk, answer: Answer) -> Result | None:
        if isinstance(self.order, CloneMachine | RecycleMachine):
            return mapping.made(answer, desk.name)
        if isinstance(self.order, SetPower):
            return PowerSet(mapping.power_of(str(answer["power"])))
        if isinstance(self.order, TakeSnapshot):
            return SnapshotTaken(str(answer["snapshot"]))
        if isinstance(self.order, OpenScreen):
            return ScreenOpened(
                protocol="vnc",
                host=mapping.guest_addresses(answer["addresses"])[0],
                port=self.settings.screen_port,
            )
        return None

    def _wait_for_address(self, order: OpenScreen, desk: Desk) -> None:
        """A guest that has just been started gets one soon: it is waited for as long as the screen would be open."""
        now = time.time()
        since = self.data.setdefault("since", now)
        self.data["host"] = desk.address
        if isinstance(since, int | float) and now < since + order.valid_s:
            self._running("Waiting for the guest to tell its address", 1.0)
            return
        self._failed(
            Conflict(
                f"Machine {order.machine.id} has told no address yet, so its screen cannot be reached. Wait until its "
                "guest is up; if it stays so, see whether its integration services run."
            )
        )

    def _running(self, step: str, poll_after_s: float, percent: int | None = None) -> None:
        self.step = step
        self.outcome = self.running(poll_after_s, percent)

    def running(self, poll_after_s: float = SOON_S, percent: int | None = None) -> Outcome:
        return Outcome(
            key=self.key, stage=Stage.RUNNING, step=self.step, percent=percent, receipt=dict(self.data),
            poll_after_s=poll_after_s,
        )  # fmt: skip

    def _failed(self, error: ConnectorError) -> None:
        self.outcome = Outcome(key=self.key, stage=Stage.FAILED, step=self.step, error=error)


@dataclass(eq=False)
class Rounds:
    """All desks and all orders under way. Used from one thread; runs report through `changed`."""

    desks: Sequence[Desk]
    settings: HypervSettings
    parameters: Callable[[float], Mapping[str, object]]
    """Deadline -> what every run is told beside its orders."""
    going: dict[str, Going] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    masters: Masters = field(default_factory=Masters)
    last_host: dict[str, str] = field(default_factory=dict)
    """Machine -> address of the host that has answered for it."""

    def begin(self, receipts: Sequence[Receipt]) -> list[Going]:
        found = []
        for receipt in receipts:
            machine = getattr(getattr(receipt.order, "machine", None), "id", "")
            going = self.going.get(receipt.order.key)
            if going is None:
                hint = self.last_host.get(machine, "")
                going = Going(receipt.order, self.settings, self.masters, dict(receipt.data), hint=hint)
                self.going[going.key] = going
            going.order = receipt.order
            try:
                going.begin(self.desks)
            except ConnectorError as error:
                going.outcome = Outcome(key=going.key, stage=Stage.FAILED, step=going.step, error=error)
            found.append(going)
        return found

    def advance(self, mine: Sequence[Going], deadline: float, patience_s: float) -> None:
        """Ask, and take answers, until every order has something to tell or patience is over.

        Patience lasts until the deadline for hosts that have never answered: whether they are there is worth knowing.
        """
        patience = min(deadline, time.monotonic() + patience_s)
        while True:
            self._absorb()
            if all(going.outcome is not None or going.lost is not None for going in mine):
                return
            self._ask(mine, deadline)
            awaited = [run for run in self._runs() if any(going.key in run.requests for going in mine)]
            awaited += [run for run in self._runs() if run not in awaited]
            if not awaited:
                return
            is_new = not any(desk.line.has_signed_in.is_set() for desk in self.desks)
            with self.changed:
                left = (deadline if is_new else patience) - time.monotonic()
                if left <= 0:
                    return
                if not any(run.has_ended for run in awaited):
                    # In slices: a host that signs in meanwhile ends the long patience.
                    self.changed.wait(min(left, 0.2))

    def _runs(self) -> list[Run]:
        return [desk.run for desk in self.desks if desk.run is not None]

    def _absorb(self) -> None:
        for run in self._runs():
            if not run.has_ended:
                continue
            run.desk.run = None
            run.desk.name = run.host or run.desk.name
            for key in run.requests:
                going = self.going.get(key)
                if going is not None and run.desk.address in going.asking:
                    going.take(run.desk, self.desks, run.answers.get(key), run.error)
                    self._remember(run.desk, going, run.answers.get(key))

    def _remember(self, desk: Desk, going: Going, answer: Answer | None) -> None:
        machine = getattr(getattr(going.order, "machine", None), "id", "")
        if answer is not None and answer["state"] in ("done", "running") and not going.is_looking:
            for one in {machine, str(answer.get("id") or "")} - {""}:
                self.last_host[one] = desk.address

    def _ask(self, mine: Sequence[Going], deadline: float) -> None:
        batches: dict[str, dict[str, Request]] = {}
        for going in mine:
            for address, request in going.wanted(self.desks).items():
                batches.setdefault(address, {})[going.key] = request
        for desk in self.desks:
            requests = batches.get(desk.address)
            if not requests or desk.run is not None or time.monotonic() >= deadline:
                continue
            for key in requests:
                self.going[key].asking.add(desk.address)
            desk.run = Run(desk, requests, self.parameters(deadline))
            desk.run.start(deadline, self.changed)

    def settle(self, mine: Sequence[Going]) -> None:
        """All this is told: forget the orders that have ended."""
        for going in mine:
            going.is_told = True
            if going.lost is not None or (going.outcome is not None and going.outcome.stage is not Stage.RUNNING):
                self.going.pop(going.key, None)
