"""What became of the tasks of many orders, asked for in one call.

The list of tasks takes a filter by `extId` (API reference of prism v4.0, listTasks). One call asks after all that is
under way, also after what comes due a moment later. What a list does not show, or does not show whole, is asked for by
its id; so is everything where Prism refuses the filter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from connectors.errors import Busy, ConnectorError, NotFound
from connectors.nutanix import mapping
from connectors.nutanix.client import Client, literal, segment
from connectors.nutanix.mapping import Task

TASKS = "config/tasks"
AT_ONCE = 50
"""How many one filter names: its URL stays under 5,000 characters."""
FRESH_S = 0.4
"""A task that ran is believed to run for so long. One that has ended has ended."""
FORGOTTEN_S = 60.0
"""What no order asks after any more is dropped: another process goes on with it."""


@dataclass(slots=True)
class _Watched:
    wanted_at: float
    listed_at: float = -math.inf
    """When it was last in a filter, shown or not."""
    read_at: float = -math.inf
    task: Task | None = None

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.is_over

    def is_known(self, now: float) -> bool:
        return self.is_over or now - self.read_at < FRESH_S


class Tasks:
    """The tasks under way of one connector object. Made without I/O."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[str, _Watched] = {}
        self._is_listing = True

    def watch(self, ids: Iterable[object]) -> None:
        """They are asked after from now on, together with any other one."""
        now = time.monotonic()
        for id in ids:
            if isinstance(id, str) and id:
                self._watched.setdefault(id, _Watched(now)).wanted_at = now

    def read(self, id: str, deadline: float, doing: str) -> Task:
        """As it was less than `FRESH_S` ago. Raises `NotFound` once Prism has forgotten it, and what a call raises."""
        self.watch([id])
        watched, now = self._watched[id], time.monotonic()
        if watched.is_known(now) and watched.task is not None:
            return watched.task
        if self._is_listing and now - watched.listed_at >= FRESH_S:
            self._list(id, deadline, doing)
        if watched.is_known(time.monotonic()) and watched.task is not None:
            return watched.task
        try:
            answer = self._client.get("prism", f"{TASKS}/{segment(id)}", deadline, doing=doing)
        except NotFound:
            del self._watched[id]
            raise
        watched.task = mapping.read_task(answer.data if isinstance(answer.data, dict) else {})
        watched.read_at = time.monotonic()
        return watched.task

    def _list(self, id: str, deadline: float, doing: str) -> None:
        """Ask after this one and those that were not asked after for longest; alone it is cheaper by its id.

        A refusal of the list must not become one of all orders: from then on each is asked for by its id.
        """
        now = time.monotonic()
        for old in [one for one, watched in self._watched.items() if now - watched.wanted_at > FORGOTTEN_S]:
            del self._watched[old]
        others = [one for one, watched in self._watched.items() if one != id and not watched.is_over]
        if not others:
            return
        others.sort(key=lambda one: self._watched[one].listed_at)
        ids = [id, *others][:AT_ONCE]
        query = {"$filter": " or ".join(f"extId eq {literal(one)}" for one in ids)}
        try:
            listing = self._client.list("prism", TASKS, deadline, query=query, doing=doing)
        except Busy:
            raise
        except ConnectorError as error:
            if error.loses_endpoint:
                raise
            self._is_listing = False
            return
        now = time.monotonic()
        for one in ids:
            self._watched[one].listed_at = now
        for task in map(mapping.read_task, listing.items):
            # Whether lists tell all of a task is unproven, and why it failed and what it made have to be known.
            if task.id in self._watched and (not task.is_over or (task.is_done and task.entities)):
                self._watched[task.id].task, self._watched[task.id].read_at = task, now
