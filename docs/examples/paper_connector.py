"""A worked example: a whole connector, for a platform called Paper Cloud. `docs/write-a-connector.md` walks through it.

It keeps the contract of `connectors/base.py` and passes the suite that every connector is put to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from connectors.base import (
    CloneMachine,
    Cursor,
    DeleteMachine,
    Host,
    Inventory,
    Machine,
    MachineMade,
    MachineRef,
    Order,
    Outcome,
    Platform,
    Power,
    PowerAction,
    PowerSet,
    Receipt,
    RecycleMachine,
    SetPower,
    Settings,
    Stage,
    Stamp,
    Surroundings,
    Template,
    setting,
)
from connectors.errors import Conflict, ConnectorError, CredentialsRejected, NotFound, Unreachable, Unsupported
from docs.examples.paper_cloud import PaperCloud, PaperError, Sheet

# --- what an administrator enters ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PaperSettings(Settings):
    address: str = setting("Address", help="Where Paper Cloud answers, such as cloud.example.net.")
    token: str = setting("Token", help="Made in Paper Cloud under Account.", secret=True)

    def require_complete(self) -> None:
        if not self.address:
            raise Unsupported("The address is missing. Enter where Paper Cloud answers.")


# --- theirs <-> ours: pure, and the only place where their words stand -----------------------------------------------

POWER = {"running": Power.ON, "stopped": Power.OFF, "asleep": Power.SUSPENDED}
WANTED = {
    PowerAction.ON: "running",
    PowerAction.RESUME: "running",
    PowerAction.OFF: "stopped",
    PowerAction.SHUTDOWN: "stopped",
    PowerAction.SUSPEND: "asleep",
}
ERRORS: Mapping[str, tuple[type[ConnectorError], str]] = {
    "no answer": (Unreachable, "Paper Cloud gives no answer. Check the address, and that it is up."),
    "bad token": (CredentialsRejected, "Paper Cloud refused the token. Make a new one there and enter it here."),
    "no such sheet": (NotFound, "Paper Cloud has no such machine or template."),
}
"""The one table of errors: what it says -> what the broker does next, and what people read."""


def stamp_of(sheet: Sheet) -> Stamp | None:
    installation, _, key = sheet.note.partition(" ")
    return Stamp(installation, key) if key else None


def machine_of(sheet: Sheet) -> Machine:
    return Machine(
        id=sheet.id, name=sheet.name, power=POWER.get(sheet.state, Power.UNKNOWN), vcpus=1, memory_mib=512,
        host="desk", stamp=stamp_of(sheet),
    )  # fmt: skip


# --- the contract ----------------------------------------------------------------------------------------------------


class PaperConnector:
    """One Paper Cloud."""

    kind: ClassVar[str] = "paper"
    version: ClassVar[str] = "1.0"
    label: ClassVar[str] = "Paper Cloud"
    settings: ClassVar[type[Settings]] = PaperSettings
    takes: ClassVar[frozenset[type[Order]]] = frozenset({CloneMachine, RecycleMachine, DeleteMachine, SetPower})

    def __init__(self, settings: PaperSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._installation = surroundings.installation
        self._steps: dict[type[Order], Callable[[Any], Outcome]] = {
            CloneMachine: self._clone,
            RecycleMachine: self._recycle,
            DeleteMachine: self._delete,
            SetPower: self._set_power,
        }

    def check(self, deadline: float) -> Platform:
        cloud = self._cloud(deadline)
        return Platform(product="Paper Cloud", version=cloud.version, takes=self.takes)

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        """Always complete: Paper Cloud has no list of changes, and its listing is one cheap call."""
        cloud, began_at = self._cloud(deadline), datetime.now(UTC)
        sheets = cloud.sheets()
        return Inventory(
            began_at=began_at,
            complete=True,
            hosts=(Host(id="desk", name="desk", vcpus=64, memory_mib=262_144),),
            templates=tuple(
                Template(id=s.id, name=s.name, storage="", vcpus=1, memory_mib=512, disk_mib=1024)
                for s in sheets
                if s.is_template
            ),
            machines=tuple(machine_of(sheet) for sheet in sheets if not sheet.is_template),
        )

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        self._cloud(deadline)
        for order in orders:
            if time.monotonic() >= deadline:
                return
            yield self._step(order)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Every step looks first at what is already done, so going on is the same as beginning."""
        yield from self.submit([receipt.order for receipt in receipts], deadline)

    def close(self) -> None:
        """Nothing is kept open."""

    # --- steps ---

    def _cloud(self, deadline: float) -> PaperCloud:
        try:
            return PaperCloud.sign_in(self._settings.address, self._settings.token, deadline)
        except PaperError as error:
            raise _ours(error) from error

    def _step(self, order: Order) -> Outcome:
        """A failure is a value: it is this order's, not the batch's."""
        try:
            return self._steps[type(order)](order)
        except PaperError as error:
            failure = _ours(error)
        except ConnectorError as error:
            failure = error
        if failure.loses_endpoint:
            raise failure
        return Outcome(key=order.key, stage=Stage.FAILED, error=failure)

    def _clone(self, order: CloneMachine) -> Outcome:
        """Its id is the order's key, so a second attempt, in any process, finds what the first one made."""
        cloud = self._cloud(time.monotonic() + 10)
        if not order.name.isprintable() or not 0 < len(order.name) <= 80:
            raise Unsupported("Paper Cloud takes names of 1 to 80 printable characters.")
        sheet = cloud.find(order.key) or cloud.copy(
            order.template, id=order.key, name=order.name, note=f"{self._installation} {order.key}"
        )
        return self._settled(cloud, order, sheet, power_on=order.power_on)

    def _recycle(self, order: RecycleMachine) -> Outcome:
        """A new sheet of paper under the same machine; its number is the evidence."""
        cloud = self._cloud(time.monotonic() + 10)
        sheet = self._meant(cloud, order.machine)
        if sheet.paper != order.key:
            cloud.set_state(sheet.id, "stopped")
            sheet = cloud.renew(sheet.id, order.template, paper=order.key)
        return self._settled(cloud, order, sheet, power_on=order.power_on)

    def _settled(
        self, cloud: PaperCloud, order: CloneMachine | RecycleMachine, sheet: Sheet, *, power_on: bool
    ) -> Outcome:
        if not sheet.is_dry():
            return Outcome(
                key=order.key, stage=Stage.RUNNING, step="The ink dries", receipt={"sheet": sheet.id}, poll_after_s=0.1
            )
        if power_on and sheet.state != "running":
            sheet = cloud.set_state(sheet.id, "running")
        return Outcome(
            key=order.key,
            stage=Stage.DONE,
            result=MachineMade(
                machine_id=sheet.id, name=sheet.name, disks=(sheet.paper,), power=POWER[sheet.state], host="desk",
                stamp=stamp_of(sheet),
            ),
        )  # fmt: skip

    def _delete(self, order: DeleteMachine) -> Outcome:
        """A machine that is gone already is success."""
        cloud, stamp = self._cloud(time.monotonic() + 10), order.machine.stamp
        if order.machine.id and cloud.find(order.machine.id):
            cloud.delete(self._meant(cloud, order.machine).id)
        elif not order.machine.id and stamp and (sheet := cloud.find(stamp.key)) and stamp_of(sheet) == stamp:
            cloud.delete(sheet.id)
        return Outcome(key=order.key, stage=Stage.DONE)

    def _set_power(self, order: SetPower) -> Outcome:
        cloud = self._cloud(time.monotonic() + 10)
        sheet = self._meant(cloud, order.machine)
        if (wanted := WANTED.get(order.action)) is None:
            raise Unsupported(f"Paper Cloud has no {order.action}. Switch the machine off and on instead.")
        if sheet.state != wanted:
            sheet = cloud.set_state(sheet.id, wanted)
        return Outcome(key=order.key, stage=Stage.DONE, result=PowerSet(POWER[sheet.state]))

    def _meant(self, cloud: PaperCloud, machine: MachineRef) -> Sheet:
        """Whoever destroys reads the identity again first."""
        sheet = cloud.get(machine.id)
        if stamp_of(sheet) != machine.stamp:
            raise Conflict(f"{sheet.name} is not the machine that was meant: its note says somebody else made it.")
        return sheet


def _ours(error: PaperError) -> ConnectorError:
    kind, message = ERRORS[error.code]
    return kind(message, platform_words=error.code)
