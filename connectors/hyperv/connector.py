"""Hyper-V over WinRM: the contract of `connectors.base`, kept.

An order is a question to a fixed script on the host that looks before each step, so it may be put again at any time, by
any process, after any crash: `submit` and `poll` ask the same thing. Scripts run in a thread a host; both wait a moment
and answer with what is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar
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
    ShareResources,
    Surroundings,
    TakeSnapshot,
)
from connectors.errors import ConnectorError, CredentialsRejected, Unreachable
from connectors.hyperv import disks, faults, handing, landing, mapping, mirrors
from connectors.hyperv.client import Account, Line, encoded, script
from connectors.hyperv.mapping import Seen, Told
from connectors.hyperv.rounds import Desk, Rounds
from connectors.hyperv.settings import HypervSettings
from connectors.replication import Bookmark, Landing, LandingWish, MirrorListing, Point, PointWish

PATIENCE_S = 1.0
"""How long `submit` and `poll` wait for scripts in all: quick orders are answered at once, long ones hold up nobody."""

COPY_COMMAND = f"-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {encoded(script('copy'))}"


class HypervConnector:
    """A stand-alone Hyper-V host, or the nodes of one failover cluster."""

    kind: ClassVar[str] = "hyperv"
    version: ClassVar[str] = "1"
    label: ClassVar[str] = "Microsoft Hyper-V"
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
        }
    )
    settings: ClassVar[type[Settings]] = HypervSettings

    def __init__(self, settings: HypervSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self.surroundings = surroundings
        account = Account()
        self._desks = [Desk(Line(settings, one, account, surroundings.workdir)) for one in settings.addresses]
        self._rounds = Rounds(self._desks, settings, self._parameters)
        replicating = (self._desks, settings, surroundings.installation, surroundings.workdir)
        self.reader = disks.Reader(*replicating)
        self.builder = landing.Builder(*replicating)

    def __repr__(self) -> str:
        return f"<HypervConnector {', '.join(self._settings.addresses)}>"

    # --- looking ---

    def check(self, deadline: float) -> Platform:
        self._settings.require_complete()
        seen, silent = self._look(deadline, with_machines=False)
        first = seen[0]
        return Platform(
            product=first.product,
            version=first.version,
            takes=self.takes,
            warnings=tuple(warnings_of(self._settings, seen, silent)),
        )

    def inventory(self, since: Cursor | None, deadline: float) -> Inventory:
        """Always complete: Hyper-V keeps no list of changes, and a reading is one script a host whatever is asked."""
        self._settings.require_complete()
        began_at = datetime.now(UTC)
        # A host that hangs shall not cost what the others said: the reading ends a little before its caller does.
        stop_at = deadline - min(1.0, (deadline - time.monotonic()) / 5)
        seen, silent = self._look(stop_at, with_machines=True)
        inventory = merged(seen, silent, began_at, self._settings)
        return replace(inventory, cursor=Cursor(str(uuid4())) if inventory.complete else None)

    def mirrors(self, deadline: float) -> MirrorListing:
        """Of all hosts. One that does not answer makes the listing partial: its machines may be replicated as well."""
        self._settings.require_complete()
        told, silent = self._ask(deadline, "mirrors", {})
        return MirrorListing(
            tuple(mirror for _, answer in told for mirror in mirrors.read(answer)),
            partial="; ".join(f"{address} could not be read: {error.message}" for address, error in silent.items()),
        )

    def _look(self, deadline: float, *, with_machines: bool) -> tuple[list[Seen], dict[str, ConnectorError]]:
        """As `_ask`, and who has which machine is remembered."""
        parameters = {"budget_s": budget_s(_soon(deadline)), "with_machines": with_machines}
        told, silent = self._ask(deadline, "inventory", parameters)
        found = []
        for desk, answer in told:
            seen = mapping.read_host(answer)
            desk.name = seen.host.name
            for machine in seen.machines:
                self._rounds.last_host[machine.id] = desk.address
            found.append(seen)
        return found, silent

    def _ask(
        self, deadline: float, name: str, parameters: Mapping[str, object]
    ) -> tuple[list[tuple[Desk, Told]], dict[str, ConnectorError]]:
        """Each host's own answer to a script, by the deadline. Raises if none gave one, or the account was refused."""
        looks = [_Look(desk, name, parameters, _soon(deadline)) for desk in self._desks]
        for look in looks:
            look.ended.wait(max(0.0, deadline - time.monotonic()))
        told = [(look.desk, look.told) for look in looks if look.told is not None]
        silent = {look.desk.address: look.error or look.desk.line.late() for look in looks if look.told is None}
        for error in silent.values():
            if isinstance(error, CredentialsRejected) or not told:
                raise error
        return told, silent

    # --- orders ---

    def submit(self, orders: Sequence[Order], deadline: float) -> Iterator[Outcome]:
        return self._go([Receipt(order) for order in orders], deadline)

    def poll(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        return self._go(receipts, deadline)

    # --- replication ---

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        self._settings.require_complete()
        point, host = disks.take(self.reader, wish, self._rounds.last_host.get(wish.machine.id, ""), deadline)
        self._rounds.last_host[wish.machine.id] = host
        return point

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        self._settings.require_complete()
        disks.release(self.reader, machine, keep, self._rounds.last_host.get(machine.id, ""), deadline)

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        self._settings.require_complete()
        return landing.land(self.builder, wish, deadline)

    def clear(self, key: str, deadline: float) -> None:
        self._settings.require_complete()
        landing.clear(self.builder, key, deadline)

    def hand_over(self, machine: MachineRef, deadline: float) -> None:
        self._hand("hand_over", machine, deadline)

    def take_over(self, machine: MachineRef, deadline: float) -> None:
        self._hand("take_over", machine, deadline)

    def reverse(self, machine: MachineRef, deadline: float) -> None:
        self._hand("reverse", machine, deadline)

    def take_back(self, machine: MachineRef, deadline: float) -> None:
        self._hand("take_back", machine, deadline)

    def _hand(self, op: str, machine: MachineRef, deadline: float) -> None:
        self._settings.require_complete()
        first = self._rounds.last_host.get(machine.id, "")
        handing.carry_out(op, self._desks, self.surroundings.installation, machine, deadline, first=first)

    def close(self) -> None:
        for desk in self._desks:
            desk.line.close()

    def _go(self, receipts: Sequence[Receipt], deadline: float) -> Iterator[Outcome]:
        """Go on with each order and say how far it is. Raises, after all that is known, if the endpoint was lost."""
        self._settings.require_complete()
        mine = self._rounds.begin(receipts)
        self._rounds.advance(mine, deadline, PATIENCE_S)
        lost = next((going.lost for going in mine if going.lost is not None), None)
        if lost is None and not any(desk.line.has_signed_in.is_set() for desk in self._desks) and _is_open(mine):
            names = ", ".join(self._settings.addresses)
            lost = Unreachable(f"Host {names} did not answer in time. {faults.ADVICE[Unreachable]}")
        self._rounds.settle(mine)
        for going in mine:
            if going.outcome is not None:
                yield going.outcome
            elif lost is None:
                yield going.running()
        if lost is not None:
            raise lost

    def _parameters(self, deadline: float) -> Mapping[str, object]:
        return {
            "installation": self.surroundings.installation,
            "folder": self._settings.folder.rstrip("\\"),
            "budget_s": budget_s(deadline),
            "copy_command": COPY_COMMAND,
        }


def _is_open(mine: Sequence[Any]) -> bool:
    return any(going.outcome is None for going in mine)


def budget_s(deadline: float) -> float:
    """How long a script may begin new steps: PowerShell's own start is taken off, for it counts from there."""
    left = max(0.0, deadline - time.monotonic())
    return round(left - min(1.5, left / 4), 2)


def _soon(deadline: float) -> float:
    """A little earlier: what a line says at its own deadline tells more than that it said nothing."""
    return deadline - min(0.5, max(0.0, deadline - time.monotonic()) / 10)


class _Look:
    """One of our scripts on one host, in a thread that is left behind if the host hangs."""

    def __init__(self, desk: Desk, name: str, parameters: Mapping[str, object], deadline: float) -> None:
        self.desk = desk
        self.told: Told | None = None
        self.error: ConnectorError | None = None
        self.ended = threading.Event()
        thread = threading.Thread(
            target=self._work, args=(name, parameters, deadline), name=f"winrm {desk.address}", daemon=True
        )
        thread.start()

    def _work(self, name: str, parameters: Mapping[str, object], deadline: float) -> None:
        try:
            self.told = self.desk.line.run(name, parameters, deadline)
        except ConnectorError as error:
            self.error = error
        finally:
            self.ended.set()


def merged(
    seen: Sequence[Seen], silent: Mapping[str, ConnectorError], began_at: datetime, settings: HypervSettings
) -> Inventory:
    """One inventory of all hosts. Whatever could not be read makes it partial, rights that are missing above all."""
    gaps = [f"{address} could not be read: {error.message}" for address, error in silent.items()]
    for one in seen:
        gaps += [f"{one.host.name}: {fault}" for fault in one.faults]
        if not one.may_list:
            gaps.append(f"{one.host.name}: {no_rights(one)}")
    switches = dict(switch for one in seen for switch in one.switches)
    return Inventory(
        began_at=began_at,
        complete=not gaps,
        hosts=tuple(one.host for one in seen),
        machines=tuple({machine.id: machine for one in seen for machine in one.machines}.values()),
        templates=tuple({template.id: template for one in seen for template in one.templates}.values()),
        networks=mapping.networks_of(switches.items(), settings.vlans_of_switches),
        storages=tuple({storage.id: storage for one in seen for storage in one.storages}.values()),
        partial="; ".join(gaps),
    )


def no_rights(seen: Seen) -> str:
    return (
        f"account {seen.account} is neither an administrator nor a Hyper-V administrator there, so it is shown no "
        "machines, whatever there is"
    )


def warnings_of(settings: HypervSettings, seen: Sequence[Seen], silent: Mapping[str, ConnectorError]) -> list[str]:
    """What an administrator should know before machines are made there, in words."""
    warnings = [error.message for error in silent.values()]
    warnings += [f"{one.host.name}: {no_rights(one)}." for one in seen if not one.may_list]
    clusters = {one.cluster for one in seen}
    if len(seen) > 1 and (len(clusters) > 1 or "" in clusters):
        warnings.append("These hosts are not nodes of one cluster. Register stand-alone hosts one by one.")
    known = {one.host.name.lower() for one in seen} | {address.partition(".")[0].lower() for address in silent}
    if not silent and (missing := {node for one in seen for node in one.nodes if node.lower() not in known}):
        warnings.append(f"Nodes of the cluster that are not named here: {', '.join(sorted(missing))}. Add them.")
    switches = {name for one in seen for name, _ in one.switches}
    if not switches:
        warnings.append("There is no virtual switch: machines will have no network.")
    for named in {settings.switch, *(switch for switch, _ in settings.vlans_of_switches)} - {"", *switches}:
        warnings.append(f"There is no virtual switch {named!r} there.")
    if settings.transport == "http":
        warnings.append("Over HTTP messages are sealed, but nothing proves which host answers. Use HTTPS if you can.")
    return warnings
