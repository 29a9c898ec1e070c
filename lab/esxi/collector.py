"""The property collectors of one session: pages, missing properties, and what has changed since a version."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import Any

from lab.esxi.things import NoProperty, Things
from lab.esxi.wire import vim, vmodl

Collector = vmodl.query.PropertyCollector

LARGEST_PAGE = 1000


class View:
    """A container view of the root: all objects of these types, as they are when it is looked at."""

    def __init__(self, kinds: list[Any]) -> None:
        self.kinds = tuple(kinds)

    def objects(self, things: Things) -> list[Any]:
        return [thing for thing in things.all() if isinstance(thing, self.kinds)]


class Session:
    """What dies with a session: views, collectors, pages not fetched."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.views: dict[str, View] = {}
        self.watchers: dict[str, Watcher] = {}
        self.pages: dict[str, tuple[int, list[tuple[Any, list[Any]]]]] = {}
        """Token -> objects a page, and what is still to be read: (object, what is asked of it)."""
        self.numbers = count(1)

    # --- reading ---

    def retrieve(self, things: Things, spec_set: list[Any], size: int, hidden: Any) -> Any:
        wanted = [
            (thing, spec.propSet)
            for spec in spec_set
            for thing in self.chosen(things, spec.objectSet)
            if any(isinstance(thing, _kind(one.type)) for one in spec.propSet)
        ]
        return self._page(things, wanted, size, hidden)

    def go_on(self, things: Things, token: str, hidden: Any) -> Any:
        """What has gone since the first page is left out. Raises InvalidArgument for a token not of this session."""
        if token not in self.pages:
            raise vmodl.fault.InvalidArgument(invalidProperty="token")
        size, wanted = self.pages.pop(token)
        return self._page(things, [one for one in wanted if things.exists(one[0])], size, hidden)

    def _page(self, things: Things, wanted: list[tuple[Any, list[Any]]], size: int, hidden: Any) -> Any:
        """Objects are read as their page is told: the first page of thousands costs no more than of hundreds."""
        if not wanted:
            return None
        size = min(size or LARGEST_PAGE, LARGEST_PAGE)
        contents = [read(things, thing, prop_set, hidden) for thing, prop_set in wanted[:size]]
        result = Collector.RetrieveResult(objects=[content for content in contents if content is not None])
        if wanted[size:]:
            result.token = f"{self.key[:8]}-{next(self.numbers)}"
            self.pages[result.token] = (size, wanted[size:])
        return result

    def chosen(self, things: Things, object_set: list[Any]) -> list[Any]:
        """Raises ManagedObjectNotFound for one that is gone, and with it for the whole call."""
        found: list[Any] = []
        for spec in object_set:
            if isinstance(spec.obj, vim.view.ContainerView):
                view = self.views.get(spec.obj._moId)
                if view is None:
                    raise vmodl.fault.ManagedObjectNotFound(obj=spec.obj)
                found += view.objects(things)
            elif things.exists(spec.obj):
                found.append(spec.obj)
            else:
                raise vmodl.fault.ManagedObjectNotFound(obj=spec.obj)
        return found


def read(things: Things, thing: Any, prop_set: list[Any], hidden: Any) -> Any | None:
    """None if nothing is asked of this type. Raises InvalidProperty, for the whole call, as vCenter does."""
    specs = [spec for spec in prop_set if isinstance(thing, _kind(spec.type))]
    if not specs:
        return None
    content = Collector.ObjectContent(obj=type(thing)(thing._moId))
    told: set[str] = set()
    parts: dict[str, Any] = {}
    for path in (path for spec in specs for path in spec.pathSet):
        if path in told:
            continue
        told.add(path)
        try:
            value = things.value(thing, path, parts)
        except NoProperty:
            raise vmodl.query.InvalidProperty(name=path) from None
        if hidden(thing):
            denied = vim.fault.NoPermission(object=thing, privilegeId="System.Read")
            content.missingSet.append(Collector.MissingProperty(path=path, fault=denied))
        elif value is not None:
            content.propSet.append(vmodl.DynamicProperty(name=path, val=value))
    return content


def _kind(told: Any) -> Any:
    return told if isinstance(told, type) else object


class Watcher:
    """A property collector with one filter over one view. `version` counts what it has told."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.spec: Any = None
        self.version = 0
        self.sequence = -1
        self.inside: set[str] = set()
        self.waiting: deque[tuple[str, Any]] = deque()

    def wait(self, things: Things, version: str, size: int, hidden: Any) -> Any | None:
        """None if there is nothing new. Raises InvalidCollectorVersion."""
        if not version:
            self.version, self.sequence, self.inside = 0, -1, set()
            self.waiting.clear()
        elif version != str(self.version):
            raise vmodl.query.InvalidCollectorVersion()
        self._notice(things)
        if not self.waiting:
            return None
        told: list[Any] = []
        while self.waiting and len(told) < (size or LARGEST_PAGE):
            kind, thing = self.waiting.popleft()
            told.append(self._update(things, kind, thing, hidden))
        self.version += 1
        filter_update = Collector.FilterUpdate(filter=Collector.Filter("filter-1"), objectSet=told)
        return Collector.UpdateSet(
            version=str(self.version), filterSet=[filter_update], truncated=True if self.waiting else None
        )

    def _notice(self, things: Things) -> None:
        world = things.world
        before, self.sequence = self.sequence, world.sequence
        changed = set(world.changes_since(before)) if before >= 0 else set(world.machines)
        waiting = {thing._moId for _, thing in self.waiting}
        here = {one.id: one for one in world.visible()}
        for id in changed:
            machine = here.get(id)
            if machine is None or things.vm_id(machine) in waiting:
                continue
            moid = things.vm_id(machine)
            self.waiting.append(("modify" if moid in self.inside else "enter", things.vm(machine)))
            self.inside.add(moid)
        present = {things.vm_id(one) for one in here.values()}
        for moid in sorted(self.inside - present):
            self.inside.discard(moid)
            self.waiting = deque(each for each in self.waiting if each[1]._moId != moid)
            self.waiting.append(("leave", vim.VirtualMachine(moid)))

    def _update(self, things: Things, kind: str, thing: Any, hidden: Any) -> Any:
        update = Collector.ObjectUpdate(kind=kind, obj=type(thing)(thing._moId))
        if kind == "leave":
            return update
        content = read(things, thing, self.spec.propSet, hidden)
        if content is not None:
            update.changeSet = [Collector.Change(name=one.name, op="assign", val=one.val) for one in content.propSet]
            update.missingSet = content.missingSet
        return update
