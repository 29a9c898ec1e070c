"""What the endpoint shows: complete listings, and what a property collector says has changed.

1. A complete listing reads leaf properties of everything in one container view, page by page. What is missing for want
   of rights, or was not reached in time, makes it partial; so does a container that was visible before and is not now:
   vSphere leaves out in silence what an account may not see.
2. The first increment sets up a filter over the same properties and compares all it tells with the listing; from then
   on the collector names what changed, and those machines are read anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

from connectors.base import Cursor, Host, Inventory, Machine, Network, Power, Storage, Template
from connectors.errors import Unreachable
from connectors.esxi import mapping, names, soap
from connectors.esxi.api import vim, vmodl
from connectors.esxi.faults import VimFault
from connectors.esxi.work import VM, Shared

CONTAINERS = ("Datacenter", "Folder", "ComputeResource")
VIEWED = (
    vim.VirtualMachine, vim.HostSystem, vim.Datastore, vim.Network, vim.Datacenter, vim.Folder, vim.ComputeResource,
)  # fmt: skip
NOT_SEEN = ("NoPermission", "NotAuthenticated", "SecurityError")
STALE = ("ManagedObjectNotFound", "InvalidCollectorVersion")
UPDATES = 500
"""Changed objects in an answer."""


@dataclass(slots=True)
class _Known:
    """What was last told of one machine or template."""

    id: str
    machine: Machine | None
    """None: a template."""


@dataclass(slots=True)
class _Rows:
    """One look at everything, sorted by kind."""

    machines: list[soap.Seen] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    containers: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


class Watch:
    """The inventory of one connector object."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._client = shared.client
        self._name = uuid4().hex
        self._generation = -1
        self._view = ""
        self._collector = ""
        self._version = ""
        self._counter = 0
        self._known: dict[str, _Known] = {}
        self._changed: dict[str, int] = {}
        """vSphere's id of a machine -> when it was last named."""
        self._gone: dict[str, int] = {}
        """Our id of a machine -> when it went."""
        self._containers: set[str] = set()

    def read(self, since: Cursor | None, deadline: float) -> Inventory:
        """Raises `ConnectorError`, `VimFault`."""
        self._client.service(deadline)
        # It stops a little before whoever waits for it does: a partial listing is better than none.
        stop_at = deadline - min(1.0, (deadline - time.monotonic()) / 5)
        if self._generation != self._client.generation:
            self._start_anew()
        counted = self._counter_of(since)
        try:
            return self._complete(stop_at) if counted is None else self._increment(counted, stop_at)
        except VimFault as fault:
            # The session may have ended meanwhile, and with it view, pages and collector.
            is_stale = self._generation != self._client.generation
            if not (is_stale or self._shared.learns_from(fault) or fault.is_a(*STALE)):
                raise
            self._start_anew()
            return self._complete(stop_at)

    def _start_anew(self) -> None:
        """Views, collectors and cursors belonged to a session that has ended."""
        self._generation = self._client.generation
        self._view = self._collector = self._version = ""
        self._name = uuid4().hex

    def _cursor(self) -> Cursor:
        return Cursor(f"{self._name}/{self._counter}")

    def _counter_of(self, cursor: Cursor | None) -> int | None:
        """Where that cursor's reading ended, None if it is not of this object and session."""
        if cursor is None:
            return None
        name, _, counter = cursor.value.partition("/")
        return int(counter) if name == self._name and counter.isdigit() else None

    # --- complete ---

    def _complete(self, deadline: float) -> Inventory:
        began_at = datetime.now(UTC)
        counter = self._counter
        # A quarter of the time is kept for what only templates are asked for.
        rows = self._rows(deadline - (deadline - time.monotonic()) / 4)
        machines, templates, known = self._described(rows.machines, deadline, rows.faults)
        self._find_gaps(rows)
        if rows.faults:
            return Inventory(
                began_at=began_at, complete=False, hosts=tuple(rows.hosts), machines=tuple(machines),
                templates=tuple(templates), networks=tuple(rows.networks), storages=tuple(rows.storages),
                partial="; ".join(rows.faults),
            )  # fmt: skip
        self._known = known
        self._counter = counter + 1
        return Inventory(
            began_at=began_at, complete=True, cursor=self._cursor(), hosts=tuple(rows.hosts), machines=tuple(machines),
            templates=tuple(templates), networks=tuple(rows.networks), storages=tuple(rows.storages),
        )  # fmt: skip

    def _rows(self, deadline: float) -> _Rows:
        rows = _Rows()
        wanted = [
            (VM, (*mapping.MACHINE_PATHS, *self._shared.stamp_paths)),
            ("HostSystem", mapping.HOST_PATHS),
            ("Datastore", mapping.STORAGE_PATHS),
            ("Network", mapping.NETWORK_PATHS),
            ("DistributedVirtualPortgroup", mapping.PORTGROUP_PATHS),
            *((kind, ("name",)) for kind in CONTAINERS),
        ]
        try:
            for page in self._client.read(wanted, deadline, view=self._viewed(deadline)):
                for seen in page:
                    self._sort(rows, seen)
                if page and self._learns(page):
                    return self._rows(deadline)
        except Unreachable:
            if not rows.machines:
                raise
            rows.faults.append(f"the endpoint did not answer in time after {len(rows.machines)} machines")
        return rows

    def _learns(self, page: list[soap.Seen]) -> bool:
        first = next((seen for seen in page if seen.kind == VM), None)
        return first is not None and self._shared.learns_from(first)

    def _viewed(self, deadline: float) -> str:
        if not self._view:
            service = self._client.service(deadline)
            manager = self._client.object(vim.view.ViewManager, service.id("viewManager"), deadline)
            made = manager.CreateContainerView(
                container=vim.Folder(service.id("rootFolder")), type=list(VIEWED), recursive=True
            )
            self._view = made._moId
        return self._view

    def _sort(self, rows: _Rows, seen: soap.Seen) -> None:
        unread = [path for path, fault in seen.missing.items() if fault in NOT_SEEN]
        if unread:
            name = names.from_wire(seen.text("name")) or seen.id
            rows.faults.append(f"the account may not read {unread[0]} of {name!r}")
        kind = seen.kind
        if kind == VM:
            rows.machines.append(seen)
        elif kind == "HostSystem":
            rows.hosts.append(mapping.host(seen))
        elif kind == "Datastore":
            rows.storages.append(mapping.storage(seen))
        elif kind in ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork"):
            if network := mapping.network(seen):
                rows.networks.append(network)
        else:
            rows.containers.add(seen.id)

    def _find_gaps(self, rows: _Rows) -> None:
        """What the account could see before and cannot now, or never could."""
        if not rows.hosts:
            rows.faults.append("the account sees no host at all: it may lack the right to read them")
        lost = self._containers - rows.containers
        if lost and not rows.faults:
            rows.faults.append(
                f"{len(lost)} folders or clusters that were visible are not any more: they are gone, or the account "
                "may not see them"
            )
        self._containers = rows.containers

    # --- machines ---

    def _described(
        self, seen: Iterable[soap.Seen], deadline: float, problems: list[str]
    ) -> tuple[list[Machine], list[Template], dict[str, _Known]]:
        """Machines, templates, and what is to be known of each by vSphere's id. What is being landed is none yet.

        A machine without a stamp that is off may be used as a template too.
        """
        machines: list[Machine] = []
        known: dict[str, _Known] = {}
        candidates: list[soap.Seen] = []
        for one in seen:
            machine = mapping.machine(one)
            if machine.name.startswith(names.LANDING):
                continue
            if not machine.id:
                state = one.text("runtime.connectionState")
                problems.append(f"machine {machine.name!r} is {state or 'without a configuration'}")
                continue
            is_template = mapping.is_template(one)
            known[one.id] = _Known(machine.id, None if is_template else machine)
            if not is_template:
                machines.append(machine)
            if is_template or (machine.stamp is None and machine.power is Power.OFF):
                candidates.append(one)
        templates = []
        if candidates:
            details: dict[str, soap.Seen] = {}
            try:
                details = self._client.objects(VM, [one.id for one in candidates], mapping.DETAIL_PATHS, deadline)
            except Unreachable:
                problems.append("the templates could not be read in time")
                candidates = []
            for one in candidates:
                templates.append(mapping.template(one, details.get(one.id)))
        return machines, templates, known

    # --- incremental ---

    def _increment(self, counted: int, deadline: float) -> Inventory:
        began_at = datetime.now(UTC)
        if not self._collector:
            self._begin_watching(deadline)
        is_whole = self._listen(deadline)
        moved = [moid for moid, at in self._changed.items() if at > counted]
        problems: list[str] = []
        paths = (*mapping.MACHINE_PATHS, *self._shared.stamp_paths)
        rows = self._client.objects(VM, moved, paths, deadline) if moved else {}
        machines, templates, known = self._described(rows.values(), deadline, problems)
        self._known |= known
        for moid in moved:
            if moid not in rows:
                self._note_gone(moid)
        here = {one.id for one in known.values()}
        gone = [id for id, at in self._gone.items() if at > counted and id not in here]
        inventory = Inventory(
            began_at=began_at, complete=False, machines=tuple(machines), templates=tuple(templates), gone=tuple(gone),
            partial="; ".join(problems),
        )  # fmt: skip
        # A partial increment has no cursor: what it did not read would never be read by the next one.
        if problems:
            return inventory
        return replace(inventory, cursor=self._cursor() if is_whole else Cursor(f"{self._name}/{counted}"))

    def _begin_watching(self, deadline: float) -> None:
        """A filter, and a comparison of all it tells at first with what the listing told."""
        service = self._client.service(deadline)
        collector = self._client.object(vmodl.query.PropertyCollector, service.id("propertyCollector"), deadline)
        made = collector.CreatePropertyCollector()._moId
        spec = soap.filter_spec(
            [(VM, (*mapping.MACHINE_PATHS, *self._shared.stamp_paths))], view=self._viewed(deadline)
        )
        body = soap.request(
            "CreateFilter", ("PropertyCollector", made), f"<spec>{spec}</spec><partialUpdates>false</partialUpdates>"
        )
        self._client.exchange(body, deadline, "CreateFilter")
        version, seen = "", set()
        while True:
            version, updates, is_more = self._client.wait(made, version, UPDATES, deadline)
            self._counter += 1
            for update in updates:
                seen.add(update.seen.id)
                self._compare(update)
            if not is_more:
                break
        for moid in set(self._known) - seen:
            self._note_gone(moid)
        self._collector, self._version = made, version

    def _compare(self, update: soap.Update) -> None:
        if update.kind == "leave":
            self._note_gone(update.seen.id)
            return
        there = self._known.get(update.seen.id)
        if there is not None:
            machine = mapping.machine(update.seen)
            is_template = mapping.is_template(update.seen)
            if is_template == (there.machine is None) and (is_template or machine == there.machine):
                return
        self._changed[update.seen.id] = self._counter

    def _listen(self, deadline: float) -> bool:
        """Note what has changed. False if the time did not suffice to hear all of it."""
        while True:
            version, updates, is_more = self._client.wait(self._collector, self._version, UPDATES, deadline)
            if version:
                self._version = version
            if updates:
                self._counter += 1
            for update in updates:
                if update.kind == "leave":
                    self._note_gone(update.seen.id)
                else:
                    self._changed[update.seen.id] = self._counter
            if not is_more:
                return True
            if time.monotonic() >= deadline:
                return False

    def _note_gone(self, moid: str) -> None:
        self._changed.pop(moid, None)
        if known := self._known.pop(moid, None):
            self._gone[known.id] = self._counter
